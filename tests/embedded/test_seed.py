"""The first accounts and keys: made once, completed after any crash, never brought back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app.accounts.callers import Callers
from app.accounts.keys import Keys
from app.accounts.users import Accounts
from app.cli import seed as module
from app.cli.seed import DEMO_EMAIL, seed
from app.credits.ledger import Ledger
from app.db import make_engine
from app.errors import InvalidApiKey
from app.settings import credentials_file

BASE_URL = "http://127.0.0.1:8000"
PEPPER = SecretStr("p" * 40)


@pytest.fixture
async def engine(fresh_database) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(fresh_database(migrated=True), pool_size=2)
    yield engine
    await engine.dispose()


@pytest.fixture
def keys(engine) -> Keys:
    return Keys(engine, PEPPER)


@pytest.fixture
def callers(engine) -> Callers:
    return Callers(engine, PEPPER, cache_s=0)


async def test_an_empty_database_gets_an_admin_and_a_demo_account_with_credits(engine, keys, callers, tmp_path):
    made = await seed(engine, keys, data=tmp_path, base_url=BASE_URL)

    admin = await callers.authenticate(made.admin_key, peer=None)
    demo = await callers.authenticate(made.demo_key, peer=None)
    assert made.are_new
    assert (admin.is_admin, demo.is_admin) == (True, False)
    assert "admin:*" in admin.scopes
    assert "admin:*" not in demo.scopes
    assert (await Ledger(engine).balance(demo.account_id)).credits == 10_000


async def test_a_second_seed_changes_nothing_and_gives_nothing(engine, keys, tmp_path):
    first = await seed(engine, keys, data=tmp_path, base_url=BASE_URL)

    second = await seed(engine, keys, data=tmp_path, base_url=BASE_URL)

    assert not second.are_new
    assert second.demo_key == first.demo_key
    demo = await Accounts(engine).get(DEMO_EMAIL)
    assert demo.credits == 10_000
    assert len(await keys.list()) == 2


async def test_another_port_changes_the_address_alone(engine, keys, tmp_path):
    first = await seed(engine, keys, data=tmp_path, base_url=BASE_URL)

    await seed(engine, keys, data=tmp_path, base_url="http://127.0.0.1:9000")

    kept = json.loads(credentials_file(tmp_path).read_text())
    assert kept == {
        "base_url": "http://127.0.0.1:9000",
        "admin_key": first.admin_key,
        "demo_key": first.demo_key,
    }


async def test_a_key_its_owner_revoked_stays_revoked(engine, keys, callers, tmp_path):
    first = await seed(engine, keys, data=tmp_path, base_url=BASE_URL)
    await keys.revoke((await callers.authenticate(first.demo_key, peer=None)).key_id)

    again = await seed(engine, keys, data=tmp_path, base_url=BASE_URL)

    with pytest.raises(InvalidApiKey):
        await callers.authenticate(again.demo_key, peer=None)


@pytest.mark.parametrize("step", ["create", "top_up", "mint", "write_private"])
async def test_a_crash_at_any_step_is_completed_by_the_next_start(engine, keys, callers, tmp_path, monkeypatch, step):
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    owner = {"create": Accounts, "top_up": Ledger, "mint": Keys, "write_private": module}[step]
    with monkeypatch.context() as patched:
        patched.setattr(owner, step, crash)
        with pytest.raises(KeyboardInterrupt):
            await seed(engine, keys, data=tmp_path, base_url=BASE_URL)

    made = await seed(engine, keys, data=tmp_path, base_url=BASE_URL)

    demo = await callers.authenticate(made.demo_key, peer=None)
    assert made.are_new
    assert (await Ledger(engine).balance(demo.account_id)).credits == 10_000
    assert len([key for key in await keys.list() if key.revoked_at is None]) == 2


async def test_credentials_of_another_database_are_replaced(engine, keys, tmp_path):
    credentials_file(tmp_path).write_text(json.dumps({"base_url": BASE_URL, "admin_key": "old", "demo_key": "old"}))

    made = await seed(engine, keys, data=tmp_path, base_url=BASE_URL)

    assert made.are_new
    assert json.loads(credentials_file(tmp_path).read_text())["demo_key"] == made.demo_key != "old"
