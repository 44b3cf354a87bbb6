"""The command line: what it prints for programs and people, its exit codes, and its sentences for expected errors."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result
from redis import Redis
from sqlalchemy.engine import make_url

from app.accounts.callers import Callers
from app.accounts.news import CHANGED_CHANNEL
from app.cli import COMMANDS, main
from app.db import make_engine
from app.settings import instance_file, load_settings, write_private
from app.values import task_public_id
from tests.factories import PEPPER, accept_task, finish_task, make_account, make_key

Cli = Callable[..., Result]
TOO_MANY = "9007199254740992"


@pytest.fixture
def environment(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "MEDIAGATE_DATABASE_URL": database_url,
        "MEDIAGATE_REDIS_URL": redis_url,
        "MEDIAGATE_DATA": str(tmp_path / "data"),
        "MEDIAGATE_KEY_PEPPER": PEPPER.get_secret_value(),
    }


@pytest.fixture
def cli(environment: dict[str, str]) -> Cli:
    """Run a command in this process. Unforeseen exceptions are raised here."""

    def run(*arguments: object, **changes: str | None) -> Result:
        result = CliRunner(env={**environment, **changes}).invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def answer_of(result: Result, *, code: int = 0) -> Any:
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


def refusal_of(result: Result) -> str:
    """Return the one sentence of a refusal."""
    assert result.exit_code == 2, result.stdout
    assert result.stdout == ""
    *_, last = result.stderr.strip().splitlines()
    return last


def new_email() -> str:
    return f"{uuid4().hex}@example.test"


# --- as a process ---------------------------------------------------------------------------------------------------


def run_process(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith("MEDIAGATE_")}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=base | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_account_and_a_key_are_made_by_two_commands(environment: dict[str, str]):
    email = new_email()

    made = run_process(environment, "accounts", "create", email, "--credits", "250", "--json")
    minted = run_process(environment, "keys", "create", email, "--name", "laptop", "--json")

    assert made.returncode == minted.returncode == 0, made.stderr + minted.stderr
    account, key = json.loads(made.stdout), json.loads(minted.stdout)
    assert account == {"id": account["id"], "email": email, "credits": 250}
    assert re.fullmatch(r"acct_\d+", account["id"])
    assert key.keys() == {"id", "key"}
    assert re.fullmatch(r"key_\d+", key["id"])
    assert key["key"].startswith("sk-mg_")
    assert made.stderr == minted.stderr == ""


def test_an_unreachable_database_is_one_sentence_and_no_traceback(environment: dict[str, str]):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"postgresql://someone:hidden-password@127.0.0.1:{port}/mediagate"

    failed = run_process(environment | {"MEDIAGATE_DATABASE_URL": url}, "accounts", "list")

    assert failed.returncode == 2
    assert failed.stderr.strip() == f"Error: the database at 127.0.0.1:{port} is not reachable"
    assert failed.stdout == ""


def test_the_help_names_every_command_and_comes_at_once():
    took_s = []
    for _ in range(3):  # the best of three: other tests run beside this one
        started_at = time.perf_counter()
        shown = run_process({}, "--help")
        took_s.append(time.perf_counter() - started_at)

    assert shown.returncode == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown.stdout, re.MULTILINE), name
    assert min(took_s) < 0.5


# --- accounts, keys, credits ----------------------------------------------------------------------------------------


def test_accounts_are_listed_limited_suspended_and_resumed(cli: Cli):
    email = new_email()
    created = answer_of(cli("accounts", "create", email, "--admin", "--json"))
    answer_of(cli("accounts", "create", new_email(), "--admin", "--json"))  # the last administrator cannot be suspended

    limited = answer_of(cli("accounts", "limits", email, "--max-in-flight", 300, "--json"))
    suspended = answer_of(cli("accounts", "suspend", created["id"], "--json"))
    resumed = answer_of(cli("accounts", "resume", created["id"].removeprefix("acct_"), "--json"))
    listed = answer_of(cli("accounts", "list", "--json"))

    assert (limited["max_in_flight"], limited["admin"]) == (300, True)
    assert suspended["state"] == "suspended"
    assert resumed["state"] == "active"
    assert resumed in listed
    assert email in cli("accounts", "list").stdout


def test_an_account_is_changed_found_and_closed_with_a_reason(cli: Cli):
    email = new_email()
    answer_of(cli("accounts", "create", email, "--json"))

    updated = answer_of(cli("accounts", "update", email, "--name", "Ada", "--admin", "--json"))
    [found] = answer_of(cli("accounts", "list", "--search", email.upper(), "--json"))
    silent = cli("accounts", "close", email, "--reason", " ")
    answer_of(cli("accounts", "create", f"a{email}", "--admin", "--json"))  # the last administrator could not go
    closed = answer_of(cli("accounts", "close", email, "--reason", "the customer left", "--json"))

    assert (updated["name"], updated["admin"], found) == ("Ada", True, updated)
    assert (silent.exit_code, "'reason' must be" in silent.stderr) == (2, True)
    assert closed["state"] == "closed"


def test_codes_are_made_listed_and_revoked(cli: Cli):
    note = f"fair {uuid4().hex}"
    batch = answer_of(cli("codes", "create", 100, "--count", 3, "--note", note, "--sold", "--json"))

    listed = answer_of(cli("codes", "list", "--search", note, "--json"))
    one = answer_of(cli("codes", "revoke", listed[0]["id"], "--reason", "lost", "--json"))
    rest = answer_of(cli("codes", "revoke", batch["id"], "--reason", "over", "--json"))
    left = answer_of(cli("codes", "list", "--batch", batch["id"], "--state", "open", "--json"))

    assert len(batch["codes"]) == len(listed) == 3
    assert (listed[0]["kind"], listed[0]["amount"]) == ("topup", 100)
    assert (one["state"], rest["revoked"], left) == ("revoked", 2, [])
    assert not any(code in str(listed) for code in batch["codes"])


def test_credits_are_given_for_some_time(cli: Cli):
    email = new_email()
    answer_of(cli("accounts", "create", email, "--json"))

    options = ("--reason", "welcome", "--expires-in-days", 30, "--ref", f"w {email}", "--json")
    given = answer_of(cli("credits", "grant", email, 30, *options))

    assert given == {"credits": 30, "held": 0}


def test_keys_are_listed_without_their_secret_and_revoked(cli: Cli):
    email = new_email()
    answer_of(cli("accounts", "create", email, "--json"))
    options = ("--budget", 50, "--period", "day", "--scopes", "tasks:read,images:write", "--expires-in-days", 3)
    key = answer_of(cli("keys", "create", email, *options, "--json"))

    [listed] = answer_of(cli("keys", "list", email, "--json"))
    revoked = answer_of(cli("keys", "revoke", key["id"], "--json"))

    assert (listed["id"], listed["last4"]) == (key["id"], key["key"][-4:])
    assert (listed["budget"], listed["period"], listed["spent"]) == (50, "day", 0)
    assert listed["scopes"] == ["images:write", "tasks:read"]
    assert 2.9 < (listed["expires_at"] - time.time()) / 86_400 <= 3
    assert revoked["revoked_at"] is not None
    assert key["key"] not in cli("keys", "list", email, "--json").stdout + cli("keys", "list").stdout


def test_a_key_made_here_works_where_the_pepper_is_the_same(cli: Cli, database_url: str):
    email = new_email()
    answer_of(cli("accounts", "create", email, "--json"))

    key = answer_of(cli("keys", "create", email, "--json"))

    async def authenticate() -> str:
        engine = make_engine(database_url, pooled=False)
        principal = await Callers(engine, PEPPER).authenticate(key["key"], peer=None)
        await engine.dispose()
        return principal.email

    assert asyncio.run(authenticate()) == email


def test_a_rotated_key_has_a_successor_and_an_end(cli: Cli):
    email = new_email()
    answer_of(cli("accounts", "create", email, "--json"))
    old = answer_of(cli("keys", "create", email, "--name", "ci", "--json"))

    new = answer_of(cli("keys", "rotate", old["id"], "--overlap-hours", 1, "--json"))

    before, after = answer_of(cli("keys", "list", email, "--json"))
    assert (after["id"], after["replaces"], after["name"]) == (new["id"], old["id"], "ci")
    assert 0 < before["expires_at"] - time.time() <= 3600
    assert new["key"] != old["key"]


def test_limits_of_a_key_are_set_and_taken_away(cli: Cli):
    email = new_email()
    answer_of(cli("accounts", "create", email, "--json"))
    key = answer_of(cli("keys", "create", email, "--json"))

    limited = answer_of(cli("keys", "limits", key["id"], "--budget", 9, "--max-in-flight", 2, "--rpm", 60, "--json"))
    freed = answer_of(cli("keys", "limits", key["id"], "--json"))

    assert (limited["budget"], limited["max_in_flight"], limited["rpm"]) == (9, 2, 60)
    assert (freed["budget"], freed["max_in_flight"], freed["rpm"]) == (None, None, None)


def test_processes_that_run_are_told_of_a_key_that_changes_here(cli: Cli, redis_url: str):
    email = new_email()
    answer_of(cli("accounts", "create", email, "--json"))
    key = answer_of(cli("keys", "create", email, "--rpm", 5, "--json"))

    with Redis.from_url(redis_url) as client, client.pubsub() as channel:
        channel.subscribe(CHANGED_CHANNEL)
        assert channel.get_message(timeout=30)["type"] == "subscribe"
        answer_of(cli("keys", "revoke", key["id"], "--json"))
        heard = iter(lambda: channel.get_message(timeout=30)["data"], key["id"].removeprefix("key_").encode())
        list(heard)  # up to our key; other tests' keys may come before it


def test_credits_go_up_and_down_and_one_reference_adds_once(cli: Cli):
    email = new_email()
    answer_of(cli("accounts", "create", email, "--json"))

    for _ in range(2):
        topped = answer_of(cli("credits", "top-up", email, 100, "--ref", f"invoice {email}", "--json"))
        assert topped == {"credits": 100, "held": 0}
    adjusted = answer_of(cli("credits", "adjust", email, "-30", "--reason", "a mistake", "--json"))
    raised = answer_of(cli("credits", "adjust", email, 5, "--reason", "goodwill", "--json"))

    assert adjusted == {"credits": 70, "held": 0}
    assert raised == answer_of(cli("credits", "show", email, "--json")) == {"credits": 75, "held": 0}
    assert "75 credits" in cli("credits", "show", email).stdout


def test_the_most_credits_there_can_be_are_kept_exactly(cli: Cli):
    most, email = int(TOO_MANY) - 1, new_email()

    made = answer_of(cli("accounts", "create", email, "--credits", most, "--json"))
    lowered = answer_of(cli("credits", "adjust", email, -most, "--reason", "a mistake", "--json"))
    topped = answer_of(cli("credits", "top-up", email, most, "--json"))

    assert (made["credits"], lowered["credits"], topped["credits"]) == (most, 0, most)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("accounts", "create", "not-an-address"), "not an e-mail address"),
        (("accounts", "create", "{taken}"), "already"),
        (("accounts", "create", "a@b.c", "--credits", "-1"), "--credits"),
        (("accounts", "create", "a@b.c", "--credits", TOO_MANY), "--credits"),
        (("accounts", "suspend", "nobody@example.test"), "No account 'nobody@example.test'"),
        (("accounts", "limits", "{taken}"), "--max-in-flight"),
        (("accounts", "limits", "{taken}", "--max-in-flight", "-1"), "max_in_flight"),
        (("keys", "create", "nobody@example.test"), "No account"),
        (("keys", "create", "{taken}", "--scopes", "everything"), "no scope 'everything'"),
        (("keys", "create", "{taken}", "--scopes", "admin:*"), "administrators"),
        (("keys", "create", "{taken}", "--budget", "many"), "--budget"),
        (("keys", "create", "{taken}", "--budget", TOO_MANY), "--budget"),
        (("keys", "limits", "key_1", "--budget", TOO_MANY), "--budget"),
        (("keys", "list", "nobody@example.test"), "No account"),
        (("keys", "revoke", "key_999999999"), "No API key 'key_999999999'"),
        (("keys", "revoke", "sk-mg_oops"), "No API key"),
        (("keys", "rotate", "999999999"), "No API key 'key_999999999'"),
        (("credits", "top-up", "{taken}", "0"), "AMOUNT"),
        (("credits", "top-up", "{taken}", "1.5"), "AMOUNT"),
        (("credits", "top-up", "{taken}", "-5"), "'AMOUNT': -5 is not in the range 1<=x<="),
        (("credits", "top-up", "{taken}", TOO_MANY), "AMOUNT"),
        (("credits", "adjust", "{taken}", TOO_MANY, "--reason", "x"), "AMOUNT"),
        (("credits", "adjust", "{taken}", f"-{TOO_MANY}", "--reason", "x"), "AMOUNT"),
        (
            ("credits", "adjust", "{taken}", "-5", "--reason", "x"),
            "The account has 0 spendable credits; it cannot be lowered by 5.",
        ),
        (("credits", "adjust", "{taken}", "5"), "--reason"),
        (("credits", "adjust", "{taken}", "0", "--reason", "x"), "AMOUNT"),
        (("credits", "show", "nobody@example.test"), "No account"),
        (("tasks", "show", "task_nonsense"), "not a task's id"),
        (("tasks", "show", task_public_id(UUID(int=7))), "no task"),
        (("tasks", "list", "--status", "odd"), "--status"),
        (("api", "--fd", "987"), "--fd 987 is no socket"),
        (("nonsense",), "No such command"),
    ],
)
def test_a_mistake_is_refused_in_a_sentence(cli: Cli, database_url: str, arguments: tuple[str, ...], sentence: str):
    taken = asyncio.run(make_account(database_url, credits=0)).email

    refusal = refusal_of(cli(*(argument.format(taken=taken) for argument in arguments)))

    assert refusal.startswith("Error: ")
    assert sentence in refusal


@pytest.mark.parametrize(
    "command", [("accounts", "list"), ("audit",), ("migrate",), ("tasks", "list"), ("api",), ("worker",)]
)
def test_without_a_gateway_the_sentence_says_how_to_start_one(cli: Cli, tmp_path: Path, command: tuple[str, ...]):
    refusal = refusal_of(cli(*command, MEDIAGATE_DATABASE_URL=None))

    assert f"no gateway runs on {tmp_path / 'data'}; start one with `python3 dev.py up`" in refusal
    assert "MEDIAGATE_DATABASE_URL" in refusal


def test_an_account_is_not_made_when_its_credits_are_wrong(cli: Cli):
    email = new_email()

    refusal_of(cli("accounts", "create", email, "--credits", TOO_MANY))

    assert "No account" in refusal_of(cli("credits", "show", email))


@pytest.mark.parametrize(
    "command",
    [
        ("accounts", "list"),
        ("credits", "show", "ada@example.test"),
        ("audit",),
        ("keys", "create", "ada@example.test"),
        ("tasks", "cancel", task_public_id(UUID(int=7))),
        ("migrate",),
        ("api",),
        ("worker",),
    ],
)
def test_a_mistyped_data_folder_is_not_made(cli: Cli, tmp_path: Path, command: tuple[str, ...]):
    nothing_set = dict.fromkeys(("MEDIAGATE_DATABASE_URL", "MEDIAGATE_REDIS_URL", "MEDIAGATE_KEY_PEPPER"))

    refusal = refusal_of(cli(*command, MEDIAGATE_DATA=str(tmp_path / "dtaa"), **nothing_set))

    assert f"no gateway runs on {tmp_path / 'dtaa'}" in refusal
    assert not (tmp_path / "dtaa").exists()


def test_only_making_a_key_makes_the_secrets_it_needs(cli: Cli, fresh_database: Callable[..., str], tmp_path: Path):
    email = new_email()
    own = {"MEDIAGATE_DATABASE_URL": fresh_database(migrated=True), "MEDIAGATE_KEY_PEPPER": None}

    answer_of(cli("accounts", "create", email, "--json", **own))
    assert answer_of(cli("keys", "list", "--json", **own)) == []
    cli("audit", **own)
    assert not (tmp_path / "data").exists()
    answer_of(cli("keys", "create", email, "--json", **own))

    assert (tmp_path / "data" / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_running_gateway_tells_where_its_configuration_is(
    cli: Cli, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
):
    config, elsewhere = tmp_path / "conf", tmp_path / "elsewhere"
    shutil.copytree(load_settings(mint_secrets=False).config_dir, config)
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    note = {"database_url": database_url, "redis_url": environment["MEDIAGATE_REDIS_URL"]}
    note |= {"public_url": "http://127.0.0.1:1", "config_dir": str(config)}
    write_private(instance_file(tmp_path / "data"), note)
    found_there = {"MEDIAGATE_DATABASE_URL": None, "MEDIAGATE_REDIS_URL": None}
    _, _, waiting = asyncio.run(one_finished_one_open(database_url))

    checked = cli("models", "check", **found_there)
    cancelled = answer_of(cli("tasks", "cancel", waiting, "--json", **found_there))
    chosen = refusal_of(cli("models", "check", **found_there, MEDIAGATE_CONFIG_DIR=str(elsewhere)))

    assert f"models in {config} are in order." in checked.stdout
    assert cancelled["status"] == "cancelled"
    assert chosen.endswith(f"does not exist in {elsewhere}")


def test_without_a_gateway_a_checkout_s_own_configuration_is_found_from_anywhere(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)

    checked = cli("models", "check")

    assert f"models in {Path(__file__).resolve().parents[2] / 'config'} are in order." in checked.stdout


def test_an_instance_that_was_killed_reads_as_no_gateway(cli: Cli, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://mg:pw@127.0.0.1:{server.getsockname()[1]}/mediagate"
    write_private(
        instance_file(tmp_path / "data"),
        {"database_url": url, "redis_url": "unix:///x", "public_url": "http://127.0.0.1:1"},
    )

    refusal = refusal_of(cli("accounts", "list", MEDIAGATE_DATABASE_URL=None, MEDIAGATE_REDIS_URL=None))

    assert "no gateway runs on" in refusal


def test_a_database_without_our_tables_is_named_so_and_migrate_helps(cli: Cli, fresh_database: Callable[..., str]):
    url = fresh_database()

    assert "mediagate migrate" in refusal_of(cli("accounts", "list", MEDIAGATE_DATABASE_URL=url))
    moved = answer_of(cli("migrate", "--json", MEDIAGATE_DATABASE_URL=url))
    assert answer_of(cli("migrate", "--json", MEDIAGATE_DATABASE_URL=url)) == moved
    assert moved["revision"]
    assert answer_of(cli("accounts", "list", "--json", MEDIAGATE_DATABASE_URL=url)) == []


def test_a_database_that_is_not_there_is_a_sentence(cli: Cli, database_url: str):
    url = make_url(database_url).set(database="nowhere").render_as_string(hide_password=False)

    refusal = refusal_of(cli("accounts", "list", MEDIAGATE_DATABASE_URL=url))

    assert "nowhere" in refusal


def test_settings_that_make_no_sense_are_a_sentence(cli: Cli):
    assert "MEDIAGATE_PORT" in refusal_of(cli("accounts", "list", MEDIAGATE_PORT="high"))
    assert "must be set" in refusal_of(cli("accounts", "list", MEDIAGATE_ENV="production"))


def test_a_data_folder_that_is_a_file_is_a_sentence(cli: Cli, tmp_path: Path):
    (tmp_path / "data").write_text("not a folder")

    assert str(tmp_path / "data") in refusal_of(cli("accounts", "list"))


def test_a_port_that_is_taken_is_a_sentence(cli: Cli):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        refusal = refusal_of(cli("api", MEDIAGATE_HOST="127.0.0.1", MEDIAGATE_PORT=str(port)))

    assert f"cannot listen on 127.0.0.1:{port}" in refusal


# --- tasks, audit, models -------------------------------------------------------------------------------------------


async def one_finished_one_open(url: str) -> tuple[str, str, str]:
    account = await make_account(url)
    key = await make_key(url, account)
    finished = await finish_task(url, key, hold=30, charge=20, model="fox-1")
    return account.email, task_public_id(finished), task_public_id(await accept_task(url, key, hold=7, model="owl-2"))


def test_tasks_are_listed_newest_first_and_by_filter(cli: Cli, database_url: str):
    email, finished, waiting = asyncio.run(one_finished_one_open(database_url))

    def ids(*options: str) -> list[str]:
        return [task["id"] for task in answer_of(cli("tasks", "list", "--email", email, *options, "--json"))]

    assert ids() == [waiting, finished]
    assert ids("--status", "queued") == [waiting]
    assert ids("--status", "completed", "--status", "queued") == [waiting, finished]
    assert ids("--model", "fox-1") == [finished]
    assert ids("--type", "video.generation") == []
    assert ids("--limit", "1") == [waiting]
    assert ids("--after", waiting) == [finished]
    assert waiting in cli("tasks", "list", "--email", email).stdout


def test_a_task_is_shown_with_its_money_and_its_attempts(cli: Cli, database_url: str):
    _, finished, waiting = asyncio.run(one_finished_one_open(database_url))

    task = answer_of(cli("tasks", "show", finished, "--json"))

    assert (task["state"], task["status"], task["hold"], task["charge"]) == ("succeeded", "completed", 30, 20)
    [attempt] = task["attempts"]
    assert (attempt["attempt_no"], attempt["provider"], attempt["state"]) == (1, "test", "done")
    assert attempt["sent_at"] <= attempt["resolved_at"]
    assert [file["role"] for file in task["files"]] == ["result"]
    assert "done" in cli("tasks", "show", finished).stdout
    assert "Never sent to an upstream." in cli("tasks", "show", waiting).stdout


def test_the_audit_says_one_line_for_each_invariant_and_exits_with_1_on_damage(
    cli: Cli, fresh_database: Callable[..., str], tmp_path: Path
):
    url = fresh_database(migrated=True)
    clean = cli("audit", MEDIAGATE_DATABASE_URL=url)
    asyncio.run(one_finished_one_open(url))

    damaged = cli("audit", MEDIAGATE_DATABASE_URL=url)
    findings = answer_of(cli("audit", "--json", MEDIAGATE_DATABASE_URL=url), code=1)

    assert clean.exit_code == 0
    assert [line.split()[0] for line in clean.stdout.splitlines()] == [f"I{number}" for number in range(1, 11)]
    assert damaged.exit_code == 1
    assert "missing" in damaged.stdout  # the factory's file has no object
    assert [finding["invariant"] for finding in findings if not finding["ok"]] == ["I10"]
    assert len(findings[-1]["violations"]) == 1
    assert cli("audit", "--no-storage", MEDIAGATE_DATABASE_URL=url).exit_code == 0


def test_a_key_for_an_unknown_model_is_refused_and_for_a_known_one_made(cli: Cli):
    email = new_email()
    answer_of(cli("accounts", "create", email, "--json"))
    known = answer_of(cli("models", "check", "--json"))["models"][0]["id"]

    assert "no-such-model" in refusal_of(cli("keys", "create", email, "--models", f"{known},no-such-model"))
    answer_of(cli("keys", "create", email, "--models", known, "--json"))

    [key] = answer_of(cli("keys", "list", email, "--json"))
    assert key["models"] == [known]


def test_a_broken_catalogue_is_named_with_its_place(cli: Cli, tmp_path: Path):
    for file in load_settings(mint_secrets=False).config_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "models.yaml").open("a") as file:
        file.write("\nnonsense: [\n")

    refusal = refusal_of(cli("models", "check", MEDIAGATE_CONFIG_DIR=str(tmp_path)))

    assert re.search(r"models\.yaml:\d+", refusal)


def test_a_queued_task_is_cancelled_free_of_charge_and_a_finished_one_is_not(cli: Cli, database_url: str):
    email, finished, waiting = asyncio.run(one_finished_one_open(database_url))

    cancelled = answer_of(cli("tasks", "cancel", waiting, "--json"))
    too_late = answer_of(cli("tasks", "cancel", finished, "--json"), code=1)

    assert (cancelled["status"], cancelled["charge"]) == ("cancelled", 0)
    assert (too_late["status"], too_late["charge"]) == ("completed", 20)
    assert answer_of(cli("credits", "show", email, "--json")) == {"credits": 980, "held": 0}


# --- processes ------------------------------------------------------------------------------------------------------


@contextmanager
def started(
    environment: dict[str, str], *arguments: str, event: str, fds: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Start a process that serves, and wait until it logs ``event``. It is killed at the end if it still runs."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("MEDIAGATE_")}
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", *arguments, "--json"],
        env=base | environment,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=fds,
    ) as process:
        assert process.stderr is not None
        try:
            seen = []
            for line in process.stderr:
                seen.append(line)
                if f'"{event}"' in line:
                    break
            else:
                pytest.fail("it ended: " + "".join(seen))
            yield process
        finally:
            process.kill()


def test_the_api_serves_on_an_inherited_socket_and_a_stop_is_a_success(environment: dict[str, str]):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()

        with started(environment, "api", "--fd", str(fd), event="api.ready", fds=(fd,)) as process:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
                status, server = answer.status, answer.headers["server"]
            process.terminate()
            code = process.wait(timeout=60)

    assert (status, server, code) == (200, None, 0)


def test_the_api_listens_where_its_options_say(environment: dict[str, str]):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    with started(environment, "api", "--host", "127.0.0.1", "--port", str(port), event="api.ready") as process:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
            status = answer.status
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)

    assert (status, code) == (200, 0)


def test_a_worker_runs_until_it_is_told_to_stop(environment: dict[str, str]):
    with started(environment, "worker", event="worker.ready") as process:
        process.terminate()
        code = process.wait(timeout=60)

    assert code == 0
