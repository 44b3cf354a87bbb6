"""``mediagate upstreams`` and ``routes``: the whole life of an account, and secrets that go in and never come out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.cli import main
from tests.factories import PEPPER, SECRETS_KEY

SECRET = "sk-canary-0123456789"
Cli = Callable[..., Result]


@pytest.fixture
def cli(fresh_database: Callable[..., str], tmp_path: Path) -> Cli:
    """Run a command in this process, on a database of its own."""
    environment = {
        "MEDIAGATE_DATABASE_URL": fresh_database(migrated=True),
        "MEDIAGATE_DATA": str(tmp_path / "data"),
        "MEDIAGATE_KEY_PEPPER": PEPPER.get_secret_value(),
        "MEDIAGATE_SECRETS_KEY": SECRETS_KEY.get_secret_value(),
        "CANARY": SECRET,
    }

    def run(*arguments: object, input: str | None = None, **changes: str | None) -> Result:
        runner = CliRunner(env={**environment, **changes})
        result = runner.invoke(main, [str(argument) for argument in arguments], input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert SECRET not in result.stdout + result.stderr
        return result

    return run


def answer_of(result: Result, *, code: int = 0) -> Any:
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


def refusal_of(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, ""), result.stdout
    *_, last = result.stderr.strip().splitlines()
    return last


def test_an_account_is_added_shown_changed_and_deleted(cli: Cli):
    added = answer_of(
        cli(
            *("upstreams", "add", "second", "--provider", "demo", "--base-url", "https://second.test"),
            *(
                "--secret-env",
                "CANARY",
                "--option",
                "region=eu",
                "--option",
                'prices={"a": 1}',
                "--concurrency",
                9,
                "--json",
            ),
        )
    )
    changed = answer_of(cli("upstreams", "set", "second", "--option", "region=null", "--concurrency", 3, "--json"))
    drained = answer_of(cli("upstreams", "drain", "second", "--json"))
    disabled = answer_of(cli("upstreams", "disable", "second", "--json"))
    enabled = answer_of(cli("upstreams", "enable", "second", "--json"))
    listed = answer_of(cli("upstreams", "list", "--json"))
    shown = cli("upstreams", "show", "second").stdout
    deleted = answer_of(cli("upstreams", "delete", "second", "--json"))

    assert (added["has_secret"], added["version"], added["concurrency"]) == (True, 1, 9)
    assert added["options"] == {"region": "eu", "prices": {"a": 1}}
    assert (changed["options"], changed["concurrency"], changed["version"]) == ({"prices": {"a": 1}}, 3, 2)
    assert [state["state"] for state in (drained, disabled, enabled)] == ["draining", "disabled", "active"]
    assert listed == [enabled]
    assert "https://second.test" in shown
    assert deleted["state"] == "deleted"
    assert refusal_of(cli("upstreams", "enable", "second")) == "Error: No upstream account 'second'."


def test_a_secret_comes_from_a_variable_or_standard_input(cli: Cli):
    cli("upstreams", "add", "a", "--provider", "demo")

    first = answer_of(cli("upstreams", "rotate", "a", "--secret-stdin", "--json", input=SECRET + "\n"))
    second = answer_of(cli("upstreams", "rotate", "a", "--secret-env", "CANARY", "--json"))

    assert [(answer["has_secret"], answer["version"]) for answer in (first, second)] == [(True, 2), (True, 3)]
    assert "name the new secret" in refusal_of(cli("upstreams", "rotate", "a"))
    assert "exclude each other" in refusal_of(
        cli("upstreams", "rotate", "a", "--secret-stdin", "--secret-env", "CANARY")
    )
    assert "the variable NOT_THERE is not set" in refusal_of(
        cli("upstreams", "rotate", "a", "--secret-env", "NOT_THERE")
    )
    assert "'secret' must be" in refusal_of(cli("upstreams", "rotate", "a", "--secret-stdin", input=""))


def test_routes_are_added_changed_and_removed_by_model_or_id(cli: Cli):
    cli("upstreams", "add", "a", "--provider", "demo")

    added = answer_of(
        cli("routes", "add", "gpt-image-2", "a", "vendor/model", "--operation", "image.edit", "--priority", 2, "--json")
    )
    changed = answer_of(
        cli("routes", "set", "gpt-image-2", "a", "--weight", 5, "--option", "x=1", "--all-operations", "--json")
    )
    disabled = answer_of(cli("routes", "disable", added["id"], "--json"))
    enabled = answer_of(cli("routes", "enable", "gpt-image-2", "a/vendor/model", "--json"))
    listed = answer_of(cli("routes", "list", "gpt-image-2", "--json"))
    removed = cli("routes", "remove", added["id"])

    assert (added["operations"], added["priority"], added["enabled"]) == (["image.edit"], 2, True)
    assert (changed["weight"], changed["options"], changed["operations"], changed["priority"]) == (5, {"x": 1}, None, 2)
    assert (disabled["enabled"], enabled["enabled"]) == (False, True)
    assert listed == [enabled]
    assert removed.stdout.strip() == f"{added['id']} is removed: gpt-image-2 -> a/vendor/model"
    assert answer_of(cli("routes", "list", "--json")) == []
    assert "No route" in refusal_of(cli("routes", "set", added["id"], "--weight", 2))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("upstreams", "add", "a/b", "--provider", "demo"), 'Invalid name "a/b"'),
        (("upstreams", "add", "a", "--provider", "nobody"), 'Unknown provider "nobody". Known: '),
        (("upstreams", "add", "a", "--provider", "demo", "--option", "x"), "must look like name=value"),
        (("routes", "add", "gpt-image-2", "nobody", "m"), "No upstream account 'nobody'"),
        (("upstreams", "list", "--json"), "MEDIAGATE_SECRETS_KEY holds an empty key"),
    ],
)
def test_a_mistake_is_refused_in_a_sentence(cli: Cli, arguments: tuple[str, ...], sentence: str):
    key = "one,,two" if "empty key" in sentence else SECRETS_KEY.get_secret_value()

    assert sentence in refusal_of(cli(*arguments, MEDIAGATE_SECRETS_KEY=key))


class Vendor(BaseHTTPRequestHandler):
    """A vendor of OpenAI's protocol that takes one secret and has one model."""

    def do_GET(self) -> None:
        is_ours = self.headers["Authorization"] == f"Bearer {SECRET}"
        body = {"data": [{"id": "theirs"}]} if is_ours else {"error": {"code": "invalid_api_key", "message": "No."}}
        content = json.dumps(body).encode()
        self.send_response(200 if is_ours else 401)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def vendor() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Vendor) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


def test_an_account_is_tested_without_a_paid_call(cli: Cli, vendor: str):
    def tested(name: str, **changes: str) -> dict[str, Any]:
        return {
            check["name"]: check for check in answer_of(cli("upstreams", "test", name, "--json", **changes), code=1)
        }

    cli("upstreams", "add", "a", "--provider", "openai", "--base-url", vendor, "--secret-env", "CANARY")
    cli("routes", "add", "gpt-image-2", "a", "theirs")
    good = cli("upstreams", "test", "a")
    cli("routes", "add", "gemini-3-pro-image-preview", "a", "nobody's")
    lacking = tested("a")
    cli("upstreams", "rotate", "a", "--secret-stdin", input="sk-wrong-0123456789")
    refused = tested("a")
    cli("upstreams", "set", "a", "--base-url", "http://127.0.0.1:9/v1", "--secret-env", "CANARY")
    gone = tested("a", MEDIAGATE_SECRETS_KEY="k" * 40)

    assert good.exit_code == 0
    assert [line[5:14].strip() for line in good.stdout.splitlines()] == [
        "state", "secret", "routes", "host", "vendor", "models",
    ]  # fmt: skip
    assert all(line.startswith("ok   ") for line in good.stdout.splitlines())
    assert re.search(r"^ok   vendor   The vendor accepted the secret\. \(\d+ ms\)$", good.stdout, re.MULTILINE)
    assert [name for name, check in lacking.items() if not check["ok"]] == ["models"]
    assert lacking["models"]["missing_models"] == ["nobody's"]
    assert "nobody's (gemini-3-pro-image-preview)" in lacking["models"]["found"]
    assert [name for name, check in refused.items() if not check["ok"]] == ["vendor"]
    assert refused["vendor"]["found"] == "The vendor refused the secret: status 401: invalid_api_key No."
    assert [name for name, check in gone.items() if not check["ok"]] == ["secret", "host"]
    assert "MEDIAGATE_SECRETS_KEY is not the one" in gone["secret"]["found"]
    assert "vendor" not in gone


def test_an_account_without_its_secret_says_where_one_is_missing(cli: Cli):
    cli("upstreams", "add", "mine", "--provider", "ark")
    cli("upstreams", "add", "demo-2", "--provider", "demo")

    lacking = answer_of(cli("upstreams", "test", "mine", "--json"), code=1)
    waiting = answer_of(cli("upstreams", "test", "dashscope", "--json"), code=1)
    local = answer_of(cli("upstreams", "test", "demo-2", "--json"), code=1)

    assert {check["name"]: check["found"] for check in lacking}["secret"].startswith("None is set: store one")
    assert [check["found"] for check in waiting] == [
        "It waits for a start at which the variable DASHSCOPE_API_KEY is set."
    ]
    assert [check["name"] for check in local if not check["ok"]] == ["routes"]
    assert local[-1]["found"].startswith("This provider works on this machine")


def test_secrets_are_sealed_anew_under_the_first_key(cli: Cli):
    cli("upstreams", "add", "a", "--provider", "demo", "--secret-env", "CANARY")
    both = f"{'k' * 40},{SECRETS_KEY.get_secret_value()}"

    done = answer_of(cli("upstreams", "reencrypt", "--json", MEDIAGATE_SECRETS_KEY=both))

    assert done == {"sealed": 1, "dropped": [], "webhooks": 0, "webhooks_lost": 0}
    cli("routes", "add", "gpt-image-2", "a", "m")
    assert cli("upstreams", "test", "a", MEDIAGATE_SECRETS_KEY="k" * 40).exit_code == 0
    assert "MEDIAGATE_SECRETS_KEY is not the one" in refusal_of(
        cli("upstreams", "rotate", "a", "--secret-env", "CANARY")
    )


def test_the_models_check_looks_at_the_routes_in_use(cli: Cli):
    before = answer_of(cli("models", "check", "--json"))
    cli("upstreams", "add", "a", "--provider", "demo")
    cli("routes", "add", "gpt-image-2", "a", "m")

    after = answer_of(cli("models", "check", "--json"), code=1)
    without = answer_of(cli("models", "check", "--json", MEDIAGATE_DATABASE_URL=None))

    assert (before["problems"], before["unchecked"]) == ([], None)
    assert "happyhorse-1.0: no enabled route to an active account for video.edit, video.generate." in after["problems"]
    assert not any(problem.startswith("gpt-image-2:") for problem in after["problems"])
    assert without["unchecked"] == "no database is set"
