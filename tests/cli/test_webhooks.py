"""``mediagate webhooks`` shows what the API shows, for any account, and sends again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from app import db
from app.cli import main
from app.sealing import SecretBox
from app.values import new_id, public_id
from app.webhooks.secrets import Owner, Secrets
from tests.factories import PEPPER, SECRETS_KEY, accept_task, make_account, make_key

URL = "https://example.com/hook"


@pytest.fixture
def run(database_url: str, redis_url: str, tmp_path: Path):
    environment = {
        "MEDIAGATE_DATABASE_URL": database_url,
        "MEDIAGATE_REDIS_URL": redis_url,
        "MEDIAGATE_DATA": str(tmp_path / "data"),
        "MEDIAGATE_KEY_PEPPER": PEPPER.get_secret_value(),
        "MEDIAGATE_SECRETS_KEY": SECRETS_KEY.get_secret_value(),
    }

    def command(*arguments: str):
        return CliRunner(env=environment).invoke(main, ["webhooks", *arguments, "--json"])

    return command


async def failed_delivery(url: str) -> tuple[str, str]:
    """Make an account with an endpoint to which a delivery was given up. Returns its e-mail and the endpoint's id."""
    engine = db.make_engine(url, pooled=False)
    account, endpoint = await make_account(engine), new_id()
    async with db.transaction(engine) as connection:
        await connection.exec_driver_sql(
            "INSERT INTO webhook_endpoints (id, account_id, name, url, event_types) VALUES ($1, $2, 'shop', $3, $4)",
            (endpoint, account.id, URL, ["image.failed"]),
        )
        await Secrets(engine, SecretBox(SECRETS_KEY)).mint(connection, Owner(account.id, endpoint))
    task = await accept_task(engine, await make_key(engine, account))
    await db.once(engine, "SELECT mg_settle($1, NULL, 'failed', 0)", (task,))
    await db.once(engine, "UPDATE webhook_deliveries SET state = 'failed', tries = 8 WHERE lane = $1", (endpoint,))
    await engine.dispose()
    return account.email, public_id("whe_", endpoint)


def test_an_operator_finds_a_failed_delivery_and_sends_it_again(run, database_url):
    email, endpoint = asyncio.run(failed_delivery(database_url))

    [listed] = json.loads(run("list", email).stdout)
    [failed] = json.loads(run("deliveries", email, endpoint, "--state", "failed").stdout)
    again = json.loads(run("redeliver", email, endpoint, failed["id"]).stdout)
    unknown = run("deliveries", email, "whe_nonsense")

    assert (listed["id"], listed["url"], listed["state"]) == (endpoint, URL, "active")
    assert (failed["event"], failed["tries"], failed["url"]) == ("image.failed", 8, URL)
    assert (again["id"], again["state"], again["tries"]) == (failed["id"], "pending", 0)
    assert unknown.exit_code == 2
    assert "No webhook endpoint 'whe_nonsense'" in unknown.stderr
