"""docs/providers.md: its example is a package that is found by its entry points and keeps the contract."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import app.upstreams.protocols as protocols
from app.upstreams.protocols import UpstreamError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "providers.md").read_text()
Cli = Callable[..., subprocess.CompletedProcess[str]]


def block(language: str, start: str) -> str:
    """Return the one example in that language that starts so."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [text] = [text for text in found if text.startswith(start)]
    return text


PROVIDER = block("python", "from app.requests")
HARNESS = block("python", "from aiohttp")
PROJECT = tomllib.loads(block("toml", "[project]"))["project"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder on sys.path that holds the package as an installer would leave it."""
    (tmp_path / "acme.py").write_text(PROVIDER)
    (tmp_path / "acme_harness.py").write_text(HARNESS)
    facts = tmp_path / f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {PROJECT['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
        for group, entries in PROJECT["entry-points"].items()
    ]
    (facts / "entry_points.txt").write_text("\n".join(groups))
    return tmp_path


@pytest.fixture
def cli(site: Path) -> Cli:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        base = {name: value for name, value in os.environ.items() if not name.startswith("MEDIAGATE_")}
        return subprocess.run(
            [sys.executable, "-m", "app.cli", "providers", *arguments],
            env={**base, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"},
            cwd=site,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return run


def spoil(site: Path, old: str, new: str) -> None:
    """Break the installed copy of the provider."""
    assert PROVIDER.count(old) == 1
    (site / "acme.py").write_text(PROVIDER.replace(old, new))


def failures(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the lines of the failed checks by the check's name."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAIL ")]
    return {line.split()[1]: line for line in lines}


def test_the_example_is_found_and_keeps_the_contract(cli: Cli):
    listed = cli("list", "--json")
    tested = cli("test", "acme")

    [acme] = [row for row in json.loads(listed.stdout) if row["name"] == "acme"]
    assert acme == {
        "name": "acme",
        "operations": ["image.generate"],
        "submit": "idempotent",
        "package": "mediagate-acme 1.0",
    }
    assert tested.returncode == 0, tested.stdout + tested.stderr
    *lines, summary = tested.stdout.splitlines()
    assert summary == f"acme: {len(lines)} ok, 0 skipped, 0 failed"
    assert len(lines) > 25
    assert all(line.startswith("ok ") for line in lines)
    assert tested.stderr == ""


def test_a_secret_in_an_error_fails_the_checks_that_saw_it(site: Path, cli: Cli):
    spoil(site, '"bad_input", public=refusal(said.get("message"))', 'said["message"]')

    done = cli("test", "acme")

    assert done.returncode == 1
    assert list(failures(done)) == ["image.refused.bad_request"]
    assert "the secret is in UpstreamRejected" in done.stdout
    assert "sk-upstream" not in done.stdout + done.stderr


def test_a_cut_that_is_taken_for_a_refusal_fails_the_checks_of_lost_answers(site: Path, cli: Cli):
    spoil(site, "        answer = await call.http.send(", "        answer = await send(call,")
    with (site / "acme.py").open("a") as file:
        file.write(
            "\n\nasync def send(call: Call, *what: str, **more: object) -> Answer:\n"
            "    try:\n"
            "        return await call.http.send(*what, **more)\n"
            "    except UpstreamOutcomeUnknown:\n"
            "        raise UpstreamDenied('cut') from None\n"
        )

    done = cli("test", "acme")

    assert done.returncode == 1
    failed = failures(done)
    assert {"image.lost.cut", "image.spoilt.cut", "image.spoilt.short", "image.spoilt.slow"} <= set(failed)
    assert failed["image.lost.cut"].endswith("[raised UpstreamDenied, must be UpstreamOutcomeUnknown]")
    assert "image.refused.busy" not in failed


def test_a_token_that_is_not_sent_fails_where_the_submit_is_repeated(site: Path, cli: Cli):
    spoil(site, '"Idempotency-Key": call.client_token', '"Idempotency-Key": call.out_dir.name')

    done = cli("test", "acme", "--json")

    by_name = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 1
    assert by_name["image.lost.cut"]["state"] == "failed"
    assert by_name["image.lost.cut"]["detail"] == "the upstream accepted 2 submits, must be 1"
    assert by_name["image.made"] == {
        "name": "image.made",
        "title": "A plain image is made, once.",
        "state": "ok",
        "detail": None,
    }


def test_a_provider_that_falls_over_fails_with_the_line_of_its_code(site: Path, cli: Cli):
    spoil(site, "if not answer.is_ok:", 'if not answer.is_ok and answer.document["code"]:')

    done = cli("test", "acme")

    assert done.returncode == 1
    [(name, line)] = failures(done).items()
    assert name == "image.lost.error-502"  # its page is no JSON
    assert re.search(r"TypeError: 'NoneType' object is not subscriptable \(acme\.py:\d+\)\]$", line)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "no provider 'nobody' is installed; there are: acme, "),
        ("demo", "no harness is installed for 'demo' in the entry point group mediagate.provider_harnesses"),
    ],
)
def test_without_a_provider_or_a_harness_there_is_one_sentence(cli: Cli, name: str, said: str):
    done = cli("test", name)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {said}")
    assert len(done.stderr.splitlines()) == 1


def test_the_page_names_every_class_of_errors_and_every_protocol():
    errors = {
        name for name, kind in vars(protocols).items() if isinstance(kind, type) and issubclass(kind, UpstreamError)
    }
    shown = set(re.findall(r"^\| `(Upstream\w+)` \|", PAGE, re.MULTILINE))

    assert shown == errors
    for name in ("ImageGenerator", "VideoSubmitter", "VideoCanceller", "SubmitFinder", "Picky"):
        assert f"| `{name}` |" in PAGE
    for safety in protocols.SubmitSafety:
        assert f"| `{safety.name}` |" in PAGE
