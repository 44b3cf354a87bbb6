"""The services of sign-in over one database, with hashes that cost nothing: their strength has its own test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.accounts.invitations import Invitations
from app.accounts.logins import Logins
from app.accounts.passwords import Passwords
from app.accounts.registration import Registration
from app.accounts.sessions import Sessions
from app.accounts.users import Account
from app.credits.lines import grant_first
from tests.factories import make_account

PASSWORD = "correct horse battery"
PEER = "192.0.2.7"

_places = itertools.count(1)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = db.make_engine(database_url, pool_size=6)
    yield engine
    await engine.dispose()


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(memory_kib=8, rounds=1)


@pytest.fixture
def sessions(engine: AsyncEngine) -> Sessions:
    return Sessions(engine)


@pytest.fixture
def logins(engine: AsyncEngine, passwords: Passwords) -> Logins:
    return Logins(engine, passwords)


@pytest.fixture
def invitations(engine: AsyncEngine, passwords: Passwords) -> Invitations:
    return Invitations(engine, passwords)


@pytest.fixture
def registration(engine: AsyncEngine, passwords: Passwords) -> Registration:
    return Registration(engine, passwords, is_open=True, credits=100, grant=grant_first)


@pytest.fixture
def peer() -> str:
    """An address of the test's own: failures from one place are counted together."""
    return str(ip_address("10.0.0.0") + next(_places))


@pytest.fixture
async def account(engine: AsyncEngine, logins: Logins) -> Account:
    """An account that signs in with ``PASSWORD``."""
    account = await make_account(engine, credits=0)
    await logins.set_password(account.id, PASSWORD)
    return account
