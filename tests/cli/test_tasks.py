"""Tasks on the command line: the whole story, and what an operator may do; and that every deed is in the audit."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from app import db
from app.cli import main
from app.values import new_id, task_public_id
from tests.factories import PEPPER, SECRETS_KEY, accept_task, finish_task, make_account, make_key

Cli = Callable[..., Result]


@pytest.fixture
def cli(database_url: str, redis_url: str, tmp_path: Path) -> Cli:
    environment = {
        "MEDIAGATE_DATABASE_URL": database_url,
        "MEDIAGATE_REDIS_URL": redis_url,
        "MEDIAGATE_DATA": str(tmp_path / "data"),
        "MEDIAGATE_KEY_PEPPER": PEPPER.get_secret_value(),
        "MEDIAGATE_SECRETS_KEY": SECRETS_KEY.get_secret_value(),
    }

    def run(*arguments: object, code: int = 0, **changes: str | None) -> Result:
        result = CliRunner(env=environment | changes).invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


def answer_of(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def email(database_url: str) -> str:
    return asyncio.run(make_account(database_url)).email


@pytest.fixture
def finished(database_url: str, email: str) -> str:
    return asyncio.run(_task(database_url, email, finish_task, hold=30, charge=20))


@pytest.fixture
def waiting(database_url: str, email: str) -> str:
    return asyncio.run(_task(database_url, email, accept_task, hold=7))


async def _task(url: str, email: str, make: Callable[..., Any], **options: Any) -> str:
    [row] = await _rows(url, "SELECT id FROM accounts WHERE email = $1", email)
    key = await make_key(url, row["id"], name="laptop")
    return task_public_id(await make(url, key, **options))


async def _rows(url: str, sql: str, *arguments: object) -> list[Any]:
    engine = db.make_engine(url, pooled=False)
    try:
        return await db.once(engine, sql, arguments)
    finally:
        await engine.dispose()


def audit_of(url: str, target: str) -> list[Any]:
    return asyncio.run(
        _rows(url, "SELECT actor, action, before, after FROM audit WHERE target = $1 ORDER BY id", target)
    )


def test_a_story_is_told_in_order_for_people_and_whole_for_programs(cli: Cli, email: str, finished: str):
    page = cli("tasks", "show", finished).stdout
    value = answer_of(cli("tasks", "show", finished, "--json"))

    story = [line.split()[2] for line in page.splitlines() if line.startswith("20") and "Z  " in line]
    assert story[:2] == ["accepted", "hold"]
    assert story.index("submitting") < story.index("storing") < story.index("succeeded")
    assert {"capture", "release", "attempt.resolved"} <= set(story)
    assert f"{email} with key_" in page
    assert "'laptop'" in page
    assert (value["email"], value["refunded"]) == (email, 0)
    assert [line["amount"] for line in value["ledger"]] == [-20]
    assert value["attempts"][0]["pool"] == "test/model-a"
    assert len(value["events"]) == len(story)


def test_tasks_are_found_by_what_is_known_of_them(cli: Cli, email: str, finished: str, waiting: str):
    cli("tasks", "resolve", waiting, "--reason", "stuck")
    shown = answer_of(cli("tasks", "show", finished, "--json"))

    def ids(*options: str) -> list[str]:
        return [task["id"] for task in answer_of(cli("tasks", "list", "--email", email, *options, "--json"))]

    assert ids("--key", shown["key"]) == [finished]
    assert ids("--client-token", shown["attempts"][0]["client_token"]) == [finished]
    assert ids("--error", "upstream_error") == ids("--status", "failed") == [waiting]
    assert ids("--pool", "test/model-a") == ids("--upstream", "test") == [waiting, finished]
    assert ids("--upstream-id", "nothing") == []


def test_a_stuck_task_is_resolved_once_with_a_reason(cli: Cli, database_url: str, email: str, waiting: str):
    without = cli("tasks", "resolve", waiting, code=2)
    resolved = cli("tasks", "resolve", waiting, "--reason", "the vendor lost it")
    again = cli("tasks", "resolve", waiting, "--reason", "the vendor lost it", code=2)

    assert "--reason" in without.stderr
    assert "7 credits were released" in resolved.stdout
    assert "has ended already: failed" in again.stderr
    assert answer_of(cli("credits", "show", email, "--json")) == {"credits": 1000, "held": 0}
    [noted] = audit_of(database_url, f"task:{waiting}")
    assert noted["actor"].startswith("cli")
    assert (noted["action"], noted["after"]["reason"]) == ("task.resolve", "the vendor lost it")


def test_a_refund_is_given_back_once(cli: Cli, database_url: str, email: str, finished: str):
    first = answer_of(cli("tasks", "refund", finished, "--credits", 5, "--reason", "too dark", "--json"))
    again = cli("tasks", "refund", finished, "--credits", 5, "--reason", "too dark")
    above = cli("tasks", "refund", finished, "--credits", 16, "--reason", "too dark", code=2)
    rest = cli("tasks", "refund", finished, "--reason", "all of it")

    assert (first["credits"], first["replayed"]) == (5, False)
    assert "already" in again.stdout
    assert "above what is left" in above.stderr
    assert "15 credits were given back" in rest.stdout
    assert answer_of(cli("credits", "show", email, "--json")) == {"credits": 1000, "held": 0}
    assert [row["action"] for row in audit_of(database_url, f"task:{finished}")] == ["task.refund"] * 2
    assert "too dark" in cli("tasks", "show", finished).stdout


def test_a_cancellation_keeps_its_reason(cli: Cli, database_url: str, waiting: str):
    cli("tasks", "cancel", waiting, "--reason", "asked by mail")
    cli("tasks", "cancel", waiting, code=1)

    assert [row["after"]["reason"] for row in audit_of(database_url, f"task:{waiting}")] == ["asked by mail"]


@pytest.mark.parametrize("command", ["show", "cancel", "resolve", "refund"])
def test_a_task_that_is_not_there_is_a_sentence(cli: Cli, command: str):
    missing = task_public_id(new_id())
    reason = () if command == "show" else ("--reason", "x")

    assert f"no task '{missing}'" in cli("tasks", command, missing, *reason, code=2).stderr
    assert "not a task's id" in cli("tasks", command, "task_nonsense", *reason, code=2).stderr


# --- what else operators do -----------------------------------------------------------------------------------------


def test_credits_and_their_audit_row_come_together_and_once(cli: Cli, database_url: str, email: str):
    account = answer_of(cli("accounts", "limits", email, "--max-in-flight", 20, "--json"))["id"]
    target = account.replace("acct_", "account:")
    before = len(audit_of(database_url, target))

    for _ in range(2):
        cli("credits", "top-up", email, 100, "--ref", f"invoice {email}")
    cli("credits", "adjust", email, -30, "--reason", "a mistake")
    cli("credits", "adjust", email, -5000, "--reason", "too much", code=2)

    topped, adjusted = audit_of(database_url, target)[before:]
    assert (topped["action"], topped["before"], topped["after"]["balance"]) == (
        "credits.topup",
        {"balance": 1000},
        1100,
    )
    assert topped["after"]["reference"] == f"invoice {email}"
    assert (adjusted["action"], adjusted["after"]["amount"]) == ("credits.adjust", -30)
    assert (adjusted["after"]["note"], adjusted["actor"].startswith("cli")) == ("a mistake", True)


def test_no_balance_passes_what_a_json_number_keeps(cli: Cli, email: str):
    most = 2**53 - 1

    refused = cli("credits", "top-up", email, most, code=2)
    filled = answer_of(cli("credits", "top-up", email, most - 1000, "--json"))

    assert f"No balance may pass {most} credits." in refused.stderr
    assert filled["credits"] == most


def test_accounts_are_changed_with_an_audit_row_for_what_really_changed(cli: Cli, database_url: str):
    email = f"{new_id().hex}@example.test"
    account = answer_of(cli("accounts", "create", email, "--credits", 5, "--json"))["id"]
    for command in ("suspend", "suspend", "resume"):
        cli("accounts", command, email)
    cli("accounts", "limits", email, "--max-in-flight", 300)

    noted = audit_of(database_url, account.replace("acct_", "account:"))
    assert [row["action"] for row in noted] == [
        "account.create", "credits.topup", "account.suspend", "account.resume", "account.limits",
    ]  # fmt: skip
    assert (noted[2]["before"], noted[2]["after"]) == ({"state": "active"}, {"state": "suspended"})
    assert all(row["actor"].startswith("cli") for row in noted)


def test_keys_are_made_limited_rotated_and_revoked_with_an_audit_row_each(cli: Cli, database_url: str, email: str):
    key = answer_of(cli("keys", "create", email, "--name", "ci", "--budget", 5, "--json"))
    for _ in range(2):
        cli("keys", "limits", key["id"], "--budget", 9)
    new = answer_of(cli("keys", "rotate", key["id"], "--json"))
    for _ in range(2):
        cli("keys", "revoke", key["id"])

    noted = audit_of(database_url, key["id"].replace("key_", "key:"))
    assert [row["action"] for row in noted] == ["key.create", "key.limits", "key.rotate", "key.revoke"]
    assert (noted[0]["after"]["name"], noted[0]["after"]["budget"]) == ("ci", 5)
    assert (noted[1]["before"], noted[1]["after"]) == ({"budget": 5}, {"budget": 9})
    assert noted[2]["after"]["successor"] == new["id"]
    assert all(row["actor"].startswith("cli") for row in noted)
    assert not any(secret in str(noted) for secret in (key["key"], new["key"]))


def test_the_audit_names_missing_and_orphaned_files(cli: Cli, fresh_database: Callable[..., str], tmp_path: Path):
    url = fresh_database(migrated=True)
    orphan = tmp_path / "data" / "files" / "ab" / f"{UUID(int=1).hex}ab"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"nobody's")
    os.utime(orphan, (0, 0))  # a young one may belong to a task that is on its way

    async def one_finished() -> None:
        await finish_task(url, await make_key(url, await make_account(url)))

    asyncio.run(one_finished())

    found = cli("audit", "--json", code=1, MEDIAGATE_DATABASE_URL=url)

    [storage] = [finding for finding in answer_of(found) if not finding["ok"]]
    assert storage["invariant"] == "I10"
    assert sorted("missing" in text or "belongs to no file" in text for text in storage["violations"]) == [True, True]
