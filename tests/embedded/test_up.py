"""``mediagate up`` as a user meets it: started, crashed, killed, stopped, started again."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded.process import is_running
from tests.embedded.gateways import MEDIAGATE, Gateway, environment, free_port, mediagate, started
from tests.embedded.owners import all_end, eventually


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One that runs for this whole file; a test that breaks a part of it waits until that is back."""
    with started(tmp_path_factory.mktemp("up")) as running:
        yield running


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_prints_the_keys_and_keeps_them_for_their_owner_alone(gateway):
    credentials = gateway.credentials

    assert gateway.printed_keys() == [credentials["demo_key"], credentials["admin_key"]]
    assert f"Console      http://127.0.0.1:{gateway.port}/console/join/" in gateway.output
    assert credentials["base_url"] == f"http://127.0.0.1:{gateway.port}"
    assert set(credentials) == {"base_url", "admin_key", "demo_key"}
    assert mode(gateway.data / "credentials.json") == 0o600
    assert mode(gateway.data / "instance.json") == 0o600


def test_the_printed_line_makes_an_image(gateway):
    lines = gateway.output.split("Make an image:")[1].split("\n\n")[0]

    answer = subprocess.run(["sh", "-c", lines], capture_output=True, text=True, check=True, timeout=60)

    assert json.loads(answer.stdout)["data"][0]["url"].startswith(f"http://127.0.0.1:{gateway.port}/api/jobs/")


def test_the_processes_can_be_told_apart(gateway):
    assert set(gateway.children()) == {"postgres", "valkey-server", "api", "worker"}


def test_commands_in_another_shell_find_it_through_the_data_folder(gateway):
    audit = mediagate("audit", MEDIAGATE_DATA=str(gateway.data))
    accounts = mediagate("accounts", "list", "--json", MEDIAGATE_DATA=str(gateway.data))

    assert audit.returncode == 0, audit.stdout + audit.stderr
    note = json.loads((gateway.data / "instance.json").read_text())
    assert Path(note["config_dir"]).is_absolute()
    emails = {account["email"] for account in json.loads(accounts.stdout)}
    assert emails == {"admin@mediagate.local", "demo@mediagate.local"}


def test_a_second_one_on_the_same_data_is_refused_in_one_sentence(gateway):
    second = mediagate("up", "--port", str(free_port()), "--data", gateway.data)

    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"in use by another Mediagate (process {gateway.process.pid})" in second.stderr
    assert gateway.status("/readyz") == 200


def test_a_port_in_use_is_refused_in_one_sentence_that_names_the_option(gateway, tmp_path):
    second = mediagate("up", "--port", str(gateway.port), "--data", tmp_path)

    assert second.returncode == 2
    assert second.stderr == f"Error: Port {gateway.port} is in use: choose another with --port.\n"
    assert not (tmp_path / "postgres").exists()


@pytest.mark.parametrize("name", ["api", "worker", "valkey-server", "postgres"])
def test_what_crashes_is_started_again_and_the_gateway_works(gateway, name):
    victim = gateway.children()[name]

    victim.kill()

    eventually(lambda: (found := gateway.children().get(name)) and found.pid != victim.pid)
    eventually(lambda: gateway.status("/readyz") == 200)
    task = gateway.post("/v1/images/generations", {"prompt": "a fox", "async": True})
    key = gateway.credentials["demo_key"]
    eventually(lambda: gateway.status(f"/v1/images/{task['id']}", key) == 200, timeout_s=60)


def test_two_run_side_by_side_and_know_nothing_of_each_other(gateway, tmp_path):
    with started(tmp_path) as other:
        assert other.status("/v1/me", other.credentials["demo_key"]) == 200
        assert other.status("/v1/me", gateway.credentials["demo_key"]) == 401
        assert other.stop() == 0

    assert gateway.status("/v1/me", gateway.credentials["demo_key"]) == 200


@pytest.mark.parametrize(("number", "folder"), [(signal.SIGINT, ""), (signal.SIGTERM, "long" * 40)])
def test_it_stops_everything_in_order_in_a_data_folder_with_a_long_path_too(tmp_path, number, folder):
    with started(tmp_path / folder) as gateway:
        pids = gateway.everything()
        assert gateway.status("/readyz") == 200

        status = gateway.stop(number)

        assert status == 0
        assert not any(map(is_running, pids))
        assert not (gateway.data / "instance.json").exists()
        stops = [line.split()[3] for line in gateway.output.splitlines() if line.startswith("up       | Stopping")]
        assert stops == ["api", "worker", "Valkey", "PostgreSQL"]


def test_kill_9_leaves_nothing_running_and_the_next_start_recovers(tmp_path):
    with started(tmp_path) as first:
        keys, pids = first.credentials, first.everything()
        assert len(pids) >= 4

        first.process.kill()
        first.process.wait()

        assert all_end(pids)
    gone = mediagate("audit", MEDIAGATE_DATA=str(first.data))
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)

    with started(tmp_path) as second:
        assert second.status("/v1/me", keys["demo_key"]) == 200
        assert second.printed_keys() == []
        assert f"kept in {second.data}/credentials.json" in second.output
        assert second.credentials == {**keys, "base_url": f"http://127.0.0.1:{second.port}"}


def test_with_servers_of_ones_own_nothing_embedded_starts(tmp_path, fresh_database, redis_url):
    own = {"MEDIAGATE_DATABASE_URL": fresh_database(), "MEDIAGATE_REDIS_URL": redis_url}

    with started(tmp_path, **own) as gateway:
        assert set(gateway.children()) == {"api", "worker"}
        assert gateway.status("/v1/me", gateway.credentials["demo_key"]) == 200

    assert not (gateway.data / "postgres").exists()
    assert not (gateway.data / "valkey").exists()


def test_production_refuses_it_in_one_sentence(tmp_path):
    refused = mediagate("up", "--data", tmp_path / "data", MEDIAGATE_ENV="production")

    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "'up' is for development" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_cannot_be_one_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")

    refused = mediagate("up", "--port", str(free_port()), "--data", tmp_path / "file" / "data")

    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "choose another with --data" in refused.stderr


def test_a_reader_that_goes_away_stops_it(tmp_path):
    command = [MEDIAGATE, "up", "--port", str(free_port()), "--data", tmp_path / "data"]
    reader, writer = os.pipe()
    process = subprocess.Popen(command, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    with os.fdopen(reader) as lines:
        next(lines)  # as `up | head -1`

    _, complaints = process.communicate(timeout=100)

    assert process.returncode == 0
    assert complaints == ""
