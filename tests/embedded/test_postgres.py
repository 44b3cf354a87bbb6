"""The embedded PostgreSQL: starts anywhere, dies with its owner, comes back with its data."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import postgres as module
from app.embedded.folder import MAX_SOCKET_FOLDER_BYTES
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import ServerFailed, is_running
from tests.embedded.owners import all_end, owner_of, query

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")


def ask(server: EmbeddedPostgres, sql: str) -> object:
    return asyncio.run(query(server.url, sql))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may pass through (pytest's own are closed)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_it_starts_in_an_empty_folder_answers_and_stops(tmp_path):
    server = EmbeddedPostgres(tmp_path)

    with server.started():
        assert ask(server, "SELECT current_database()") == "mediagate"
        pid = server.pid

    assert not is_running(pid)
    assert not server.is_alive


def test_the_data_is_there_after_a_restart_and_the_address_stays(tmp_path):
    with EmbeddedPostgres(tmp_path).started() as first:
        ask(first, "CREATE TABLE kept AS SELECT 7 AS n")

    with EmbeddedPostgres(tmp_path).started() as second:
        assert ask(second, "SELECT n FROM kept") == 7
        assert second.url == first.url


def test_a_killed_owner_leaves_nothing_running_and_the_next_start_recovers(tmp_path):
    with owner_of(tmp_path) as (owner, pids):
        assert all(map(is_running, pids))

        owner.kill()

        assert all_end(pids, timeout_s=10)
    with EmbeddedPostgres(tmp_path / "postgres").started() as server:
        assert ask(server, "SELECT 1") == 1


def test_a_start_right_after_the_kill_waits_for_the_old_server(tmp_path):
    with owner_of(tmp_path) as (owner, pids):
        owner.kill()

        with EmbeddedPostgres(tmp_path / "postgres").started() as server:
            assert not is_running(pids[0])
            assert ask(server, "SELECT 1") == 1


def test_it_comes_back_with_its_data_after_the_server_itself_was_killed(tmp_path):
    server = EmbeddedPostgres(tmp_path)
    with server.started():
        ask(server, "CREATE TABLE kept AS SELECT 7 AS n")

        os.kill(server.pid, signal.SIGKILL)  # a zombie until somebody looks
        server.start()

        assert ask(server, "SELECT n FROM kept") == 7


def test_a_stale_pid_file_that_names_a_live_process_does_not_stop_the_start(tmp_path):
    with EmbeddedPostgres(tmp_path).started() as server:
        note = (server.cluster / "postmaster.pid").read_text()
    lines = note.splitlines()
    lines[0] = str(os.getpid())  # alive, and nothing to do with it
    (server.cluster / "postmaster.pid").write_text("\n".join(lines) + "\n")

    with EmbeddedPostgres(tmp_path).started() as again:
        assert ask(again, "SELECT 1") == 1


def test_a_server_that_lost_its_owner_but_lives_is_ended_first(tmp_path):
    with EmbeddedPostgres(tmp_path).started() as forgotten, EmbeddedPostgres(tmp_path).started() as server:
        assert not is_running(forgotten.pid)
        assert ask(server, "SELECT 1") == 1


def test_a_half_made_cluster_is_made_anew(tmp_path):
    (tmp_path / "cluster.new" / "base").mkdir(parents=True)

    with EmbeddedPostgres(tmp_path).started() as server:
        assert ask(server, "SELECT 1") == 1
    assert not (tmp_path / "cluster.new").exists()


def test_data_under_a_closed_home_keeps_every_mode_and_makes_no_user(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    folders = [home, *home.parents]
    before = [stat.S_IMODE(folder.stat().st_mode) for folder in folders], Path("/etc/passwd").read_bytes()

    with EmbeddedPostgres(home / "data").started() as server:
        assert ask(server, "SELECT 1") == 1

    after = [stat.S_IMODE(folder.stat().st_mode) for folder in folders], Path("/etc/passwd").read_bytes()
    assert after == before
    assert {path.stat().st_uid for path in (home / "data").rglob("*")} == {os.geteuid()}


@pytest.mark.parametrize("name", ["x" * MAX_SOCKET_FOLDER_BYTES, "a b,c'd\"e", "数据"])
def test_a_path_no_socket_can_have_works_and_leaves_nothing_outside(tmp_path, monkeypatch, name):
    outside = Path(tempfile.mkdtemp(dir="/tmp", prefix="t"))  # it must be short
    monkeypatch.setattr(tempfile, "tempdir", str(outside))

    with EmbeddedPostgres(tmp_path / name).started() as server:
        assert ask(server, "SELECT 1") == 1
        assert len(list(outside.iterdir())) == 1

    assert list(outside.iterdir()) == []
    outside.rmdir()


def test_only_its_password_opens_it(tmp_path):
    with EmbeddedPostgres(tmp_path).started() as server:
        password = (tmp_path / "password").read_text()
        wrong = server.url.replace(password, "wrong")

        assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600
        with pytest.raises(Exception, match="password authentication failed"):
            asyncio.run(query(wrong, "SELECT 1"))


def test_data_of_another_version_is_refused_in_one_sentence(tmp_path):
    with EmbeddedPostgres(tmp_path).started() as server:
        pass
    (server.cluster / "PG_VERSION").write_text("14\n")

    with pytest.raises(ServerFailed, match=r"was made by PostgreSQL 14, and this is \d+: export it"):
        server.start()


def test_a_lost_password_is_said_in_one_sentence(tmp_path):
    with EmbeddedPostgres(tmp_path).started() as server:
        pass
    (tmp_path / "password").unlink()

    with pytest.raises(ServerFailed, match=r"password, .*, is gone"):
        server.start()
    assert not server.is_alive


def test_a_bad_option_is_reported_in_the_servers_own_words(tmp_path):
    server = EmbeddedPostgres(tmp_path, options={"shared_buffers": "nonsense"})

    with pytest.raises(ServerFailed, match="shared_buffers"):
        server.start()


@as_root
def test_without_user_namespaces_it_runs_as_nobody(open_folder, monkeypatch):
    real = module._reaches
    monkeypatch.setattr(module, "_reaches", lambda user, paths: None if user == "namespace" else real(user, paths))

    with EmbeddedPostgres(open_folder / "data").started() as server:
        assert ask(server, "SELECT 1") == 1
        assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
    monkeypatch.undo()

    # The same data later, where namespaces work again.
    with EmbeddedPostgres(open_folder / "data").started() as server:
        assert ask(server, "SELECT 1") == 1
        assert server.cluster.stat().st_uid == 0


@as_root
def test_nobody_gets_copies_of_programs_it_cannot_reach(open_folder, monkeypatch):
    real = module._reaches

    def closed(user, paths):
        if user == "namespace":
            return None
        return real(user, paths) and not any("site-packages" in str(path) for path in paths)

    monkeypatch.setattr(module, "_reaches", closed)

    with EmbeddedPostgres(open_folder / "data").started() as server:
        assert ask(server, "SELECT 1") == 1
        assert os.readlink(f"/proc/{server.pid}/exe").startswith(str(open_folder))


@as_root
def test_a_folder_that_only_roots_rights_open_is_refused_in_one_sentence(tmp_path):
    home = tmp_path / "somebody"
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)

    with pytest.raises(ServerFailed, match="as that folder's owner"):
        EmbeddedPostgres(home / "data").start()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
