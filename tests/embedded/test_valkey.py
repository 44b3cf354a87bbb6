"""The embedded Valkey: what it acknowledged is there again after any death."""

from __future__ import annotations

import os
import signal

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from app.embedded.process import is_running
from app.embedded.valkey import EmbeddedValkey
from tests.embedded.owners import all_end, eventually, owner_of


def test_it_starts_answers_and_stops(tmp_path):
    server = EmbeddedValkey(tmp_path)

    with server.started(), Redis.from_url(server.url) as client:
        assert client.ping() is True
        assert client.config_get("port") == {"port": "0"}
        pid = server.pid

    assert not is_running(pid)


def test_what_was_written_survives_a_clean_stop(tmp_path):
    with EmbeddedValkey(tmp_path).started() as server, Redis.from_url(server.url) as client:
        client.set("job", "1")

    with EmbeddedValkey(tmp_path).started() as server, Redis.from_url(server.url) as client:
        assert client.get("job") == b"1"


def test_what_was_written_survives_kill_9_and_the_address_stays(tmp_path):
    server = EmbeddedValkey(tmp_path)
    with server.started():
        with Redis.from_url(server.url) as client:
            client.set("job", "1")
        url = server.url

        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.is_alive)
        server.start()

        assert server.url == url
        with Redis.from_url(server.url) as client:
            assert client.get("job") == b"1"


def test_a_killed_owner_leaves_no_server_and_the_next_start_recovers(tmp_path):
    with owner_of(tmp_path) as (owner, pids):
        owner.kill()
        assert all_end(pids, timeout_s=10)

    with EmbeddedValkey(tmp_path / "valkey").started() as server, Redis.from_url(server.url) as client:
        assert client.ping() is True


def test_a_server_that_lost_its_owner_but_lives_is_ended_first(tmp_path):
    with EmbeddedValkey(tmp_path).started() as forgotten, EmbeddedValkey(tmp_path).started() as server:
        assert not is_running(forgotten.pid)
        with Redis.from_url(server.url) as client:
            assert client.ping() is True


def test_a_full_memory_refuses_writes_and_never_drops_a_job(tmp_path):
    with EmbeddedValkey(tmp_path).started() as server, Redis.from_url(server.url) as client:
        client.set("job", "1")
        client.config_set("maxmemory", 1)

        with pytest.raises(ResponseError, match="maxmemory"):
            client.set("another", "1")
        assert client.get("job") == b"1"


def test_two_servers_run_side_by_side(tmp_path):
    with EmbeddedValkey(tmp_path / "a").started() as one, EmbeddedValkey(tmp_path / "b").started() as two:
        with Redis.from_url(one.url) as client:
            client.set("mine", "1")

        with Redis.from_url(two.url) as client:
            assert client.get("mine") is None
