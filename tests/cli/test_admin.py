"""Administrators and their links on the command line: shown once, and worth what they say."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from app.accounts.invitations import Invitations
from app.accounts.passwords import Passwords
from app.accounts.users import Accounts
from app.cli import main
from app.cli.seed import ADMIN_EMAIL
from app.cli.up import first_link
from app.db import make_engine
from app.settings import Settings

JOIN = "https://m.example/console/join/"
LINK_SECRET = SecretStr("l" * 40)


@pytest.fixture
def cli(database_url, redis_url, tmp_path):
    environment = {
        "MEDIAGATE_DATABASE_URL": database_url,
        "MEDIAGATE_REDIS_URL": redis_url,
        "MEDIAGATE_DATA": str(tmp_path),
        "MEDIAGATE_PUBLIC_URL": "https://m.example",
        "MEDIAGATE_LINK_SECRET": LINK_SECRET.get_secret_value(),
    }

    def run(*arguments):
        return CliRunner(env=environment).invoke(main, arguments)

    return run


async def in_database(url, work):
    engine = make_engine(url, pooled=False)
    try:
        return await work(engine)
    finally:
        await engine.dispose()


def accept(url, token):
    passwords = Passwords(memory_kib=8, rounds=1)
    return asyncio.run(
        in_database(
            url,
            lambda engine: Invitations(engine, passwords, secret=LINK_SECRET).accept(token, "correct horse battery"),
        )
    )


def test_an_administrator_is_created_with_a_link_that_works(cli, database_url):
    email = f"{uuid4().hex}@example.test"

    said = cli("admin", "create", email, "--name", "Ada")
    url = said.stdout.split()[-1]
    account = asyncio.run(in_database(database_url, lambda engine: Accounts(engine).get(email)))

    assert said.exit_code == 0
    assert (account.is_admin, account.name) == (True, "Ada")
    assert url.startswith(JOIN)
    assert accept(database_url, url.removeprefix(JOIN)) == account.id
    again = cli("admin", "create", email)
    assert (again.exit_code, "already" in again.stderr) == (2, True)


def test_an_account_is_invited_and_later_gets_a_link_to_reset(cli, database_url):
    email = f"{uuid4().hex}@example.test"
    cli("accounts", "create", email)

    invited = json.loads(cli("accounts", "invite", email, "--json").stdout)
    account_id = accept(database_url, invited["url"].removeprefix(JOIN))
    refused = cli("accounts", "invite", email)
    reset = json.loads(cli("admin", "link", email, "--reason", "She forgot it.", "--json").stdout)

    assert invited["id"] == reset["id"] == f"acct_{account_id}"
    assert (refused.exit_code, "has a password already" in refused.stderr) == (2, True)
    assert accept(database_url, reset["url"].removeprefix(JOIN)) == account_id
    assert cli("admin", "link", "nobody@example.test").exit_code == 2


async def test_each_start_prints_a_link_until_somebody_has_a_password(fresh_database, tmp_path):
    url = fresh_database(migrated=True)
    settings = Settings(data=tmp_path, public_url="https://m.example", database_url=SecretStr(url))

    async def work(engine):
        admin = await Accounts(engine).create(ADMIN_EMAIL, is_admin=True)
        invitations = Invitations(engine, Passwords(memory_kib=8, rounds=1))
        first, second = await first_link(settings, engine), await first_link(settings, engine)
        assert first != second
        token = second.removeprefix(JOIN)
        assert await invitations.accept(token, "correct horse battery") == admin.id
        assert await first_link(settings, engine) is None

    await in_database(url, work)
