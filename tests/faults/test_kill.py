"""kill -9 of real processes while they work: every task ends, and is charged once or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.accounts.keys import MintedKey
from app.settings import Settings
from tests.factories import make_account, make_key
from tests.plugins.gateway import GATEWAY_REDIS, ROOT, _start, _stop, _worker_number, as_environment, quick
from tests.plugins.servers import Servers

LEASE_S = 1.5
PATIENCE_S = 40.0


@dataclass
class Processes:
    """One gateway whose processes may be killed and started again."""

    settings: Settings
    listener: socket.socket
    key: MintedKey
    stack: ExitStack
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        fds = (self.listener.fileno(),) if name == "api" else ()
        arguments = ["api", "--fd", str(self.listener.fileno())] if name == "api" else ["worker"]
        log = self.settings.data / f"{name}-{len(self.started)}.log"
        environment = {**os.environ, **as_environment(self.settings)}
        process = _start(self.stack, arguments, environment, log, fds)
        self.started.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    @property
    def client(self) -> httpx2.Client:
        return httpx2.Client(
            base_url=self.settings.base_url, headers={"authorization": f"Bearer {self.key.secret}"}, timeout=60
        )

    def until(self, condition: Callable[[], Any]) -> Any:
        """Ask again until the answer is true."""
        end = time.monotonic() + PATIENCE_S
        while not (answer := condition()):
            assert time.monotonic() < end, self.logs()
            threading.Event().wait(0.05)
        return answer

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in self.settings.data.glob("*.log"))

    def audit(self) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **as_environment(self.settings)}
        return subprocess.run(
            [str(Path(sys.executable).with_name("mediagate")), "audit"],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def processes(
    servers: Servers,
    fresh_database: Callable[..., str],
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> Iterator[Processes]:
    url = fresh_database(migrated=True)
    key = asyncio.run(_key(url))
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        settings = Settings(
            **quick() | {"lease_s": LEASE_S, "heartbeat_s": 0.4},
            data=tmp_path,
            config_dir=ROOT / "config",
            database_url=url,
            redis_url=servers.redis_url(GATEWAY_REDIS + 16 + _worker_number(pytestconfig)),
            public_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
        )
        yield Processes(settings, listener, key, stack)


def test_a_video_whose_worker_is_killed_is_finished_by_the_next_and_charged_once(processes: Processes) -> None:
    processes.start("api")
    worker = processes.start("worker")
    with processes.client as client:
        made = client.post(
            "/v1/videos/generations", json={"prompt": "a river [[delay=2]]", "resolution": "480p"}
        ).json()
        processes.until(lambda: client.get(f"/v1/tasks/{made['id']}").json()["status"] == "in_progress")

        processes.kill(worker)
        processes.start("worker")
        task = processes.until(lambda: _final(client, made["id"]))

        assert task["status"] == "completed", processes.logs()
        assert client.get("/v1/me").json()["credits"] == 1000 - 40
        kinds = [line["kind"] for line in client.get("/v1/me/ledger").json()["data"]]
        assert kinds == ["capture", "topup"]
    audit = processes.audit()
    assert audit.returncode == 0, audit.stdout


def test_an_image_whose_api_process_is_killed_is_finished_by_a_worker_and_charged_once(processes: Processes) -> None:
    api = processes.start("api")
    with processes.client as client:
        assert client.get("/readyz").status_code == 200
        caller = threading.Thread(target=_ask, args=(processes,))
        caller.start()
        [task] = processes.until(lambda: client.get("/v1/tasks").json()["data"])

    processes.kill(api)
    caller.join()
    processes.start("worker")
    processes.start("api")
    with processes.client as client:
        task = processes.until(lambda: _final(client, task["id"]))

        assert task["status"] == "completed", processes.logs()
        assert client.get(f"/v1/images/{task['id']}").status_code == 200
        assert client.get("/v1/me").json()["credits"] == 999
    audit = processes.audit()
    assert audit.returncode == 0, audit.stdout


def test_a_stopped_worker_finishes_its_step_and_hands_the_rest_over(processes: Processes) -> None:
    processes.start("api")
    worker = processes.start("worker")
    with processes.client as client:
        made = client.post(
            "/v1/videos/generations", json={"prompt": "a river [[delay=1]]", "resolution": "480p"}
        ).json()
        processes.until(lambda: client.get(f"/v1/tasks/{made['id']}").json()["status"] == "in_progress")

        _stop(worker)
        processes.start("worker")

        assert worker.returncode == 0, processes.logs()
        assert processes.until(lambda: _final(client, made["id"]))["status"] == "completed"


async def _key(url: str) -> MintedKey:
    return await make_key(url, await make_account(url, credits=1000))


def _ask(processes: Processes) -> None:
    try:
        with processes.client as client:
            client.post("/v1/images/generations", json={"prompt": "a fox [[delay=3]]"})
    except httpx2.HTTPError:
        return  # the process was killed: that is the test


def _final(client: httpx2.Client, task_id: str) -> dict[str, Any] | None:
    task: dict[str, Any] = client.get(f"/v1/tasks/{task_id}").json()
    return task if task["status"] in ("completed", "failed", "cancelled") else None
