"""The first accounts and keys of a development gateway: made once, completed after a crash, never brought back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from app.accounts.keys import SCOPES, Keys
from app.accounts.users import Account, Accounts
from app.credits.ledger import Ledger
from app.errors import AccountNotFound
from app.journal import Actor
from app.settings import credentials_file, write_private
from app.values import Credits

ADMIN_EMAIL = "admin@mediagate.local"
DEMO_EMAIL = "demo@mediagate.local"
DEMO_CREDITS = Credits(10_000)
DEMO_REF = "seed:demo"
KEY_NAME = "first key"
ACTOR = Actor("up")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What ``credentials.json`` holds."""

    base_url: str
    admin_key: str
    demo_key: str
    are_new: bool
    """Whether this start made the keys: the one time they are shown."""


async def seed(engine: AsyncEngine, keys: Keys, *, data: Path, base_url: str) -> Credentials:
    """Make what is missing and return the keys. Safe to run again after any crash; call it under the folder's lock.

    The file comes last, so a file and accounts mean a finished seed: then nothing but its ``base_url`` is touched, and
    a key its owner revoked stays revoked.
    """
    path = credentials_file(data)
    accounts = Accounts(engine)
    if path.exists() and await _knows(accounts):
        kept = json.loads(path.read_text())
        if kept["base_url"] != base_url:
            kept["base_url"] = base_url
            write_private(path, kept)
        return Credentials(base_url, kept["admin_key"], kept["demo_key"], are_new=False)
    path.unlink(missing_ok=True)  # of another database
    admin = await _account(accounts, ADMIN_EMAIL, is_admin=True)
    demo = await _account(accounts, DEMO_EMAIL)
    await Ledger(engine).top_up(demo.id, DEMO_CREDITS, ref=DEMO_REF, actor=ACTOR)
    admin_key = await _only_key(keys, admin, scopes=SCOPES)
    demo_key = await _only_key(keys, demo)
    write_private(path, {"base_url": base_url, "admin_key": admin_key, "demo_key": demo_key})
    return Credentials(base_url, admin_key, demo_key, are_new=True)


async def _knows(accounts: Accounts) -> bool:
    try:
        for email in (ADMIN_EMAIL, DEMO_EMAIL):
            await accounts.get(email)
    except AccountNotFound:
        return False
    return True


async def _account(accounts: Accounts, email: str, *, is_admin: bool = False) -> Account:
    try:
        return await accounts.get(email)
    except AccountNotFound:
        return await accounts.create(email, is_admin=is_admin, actor=ACTOR)


async def _only_key(keys: Keys, account: Account, *, scopes: tuple[str, ...] = ()) -> str:
    """Mint the account's first key, and revoke one that an earlier start minted and could not write down."""
    for key in await keys.list(account.id):
        if key.name == KEY_NAME and key.revoked_at is None:
            await keys.revoke(key.id, actor=ACTOR)
    return (await keys.mint(account.id, name=KEY_NAME, scopes=scopes, actor=ACTOR)).secret
