"""A whole gateway under ``mediagate up``, as a user starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.embedded.owners import eventually

ROOT = Path(__file__).parents[2]
MEDIAGATE = Path(sys.prefix) / "bin" / "mediagate"
READY_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """This process's environment without a developer's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEDIAGATE_")}
    return {**kept, "MEDIAGATE_CONFIG_DIR": str(ROOT / "config"), **more}


def mediagate(*arguments: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [MEDIAGATE, *arguments]
    return subprocess.run(
        command, env=environment(**env), cwd=cwd, capture_output=True, text=True, timeout=110, check=False
    )


@dataclass
class Gateway:
    """A process of ``mediagate up`` and what it printed."""

    process: subprocess.Popen[bytes]
    port: int
    data: Path
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def credentials(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.data / "credentials.json").read_text())
        return found

    def wait_ready(self) -> None:
        """Wait for its own word, or for its end."""
        eventually(lambda: "Ready after" in self.output or self.process.poll() is not None, timeout_s=READY_S)
        assert self.process.poll() is None, self.output

    def children(self) -> dict[str, psutil.Process]:
        """The processes it started, by what they are."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                words = child.cmdline()
            except psutil.NoSuchProcess:
                continue
            for name in ("postgres", "valkey-server"):
                if words and words[0].endswith(f"/{name}"):
                    found[name] = child
            for name in ("api", "worker"):
                if len(words) > 2 and words[1].endswith("bin/mediagate") and words[2] == name:
                    found[name] = child
        return found

    def everything(self) -> list[int]:
        """The pids of all that must be gone when it is."""
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    def status(self, path: str, key: str | None = None) -> int:
        """GET, and return the HTTP status; 0 when nobody answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own http:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.credentials['demo_key']}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own http:
            found: dict[str, Any] = json.load(answer)
            return found

    def printed_keys(self) -> list[str]:
        return re.findall(r"(?:Demo|Admin) key +(sk-\S+)", self.output)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextmanager
def started(folder: Path, *, options: Sequence[str] = (), ready: bool = True, **env: str) -> Iterator[Gateway]:
    """Run ``mediagate up`` on ``folder/data`` and stop it at the end."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    log = folder / f"up-{port}.log"
    command = [MEDIAGATE, "up", "--port", str(port), "--data", folder / "data", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment(PYTHONUNBUFFERED="1", **env), stdout=out, stderr=subprocess.STDOUT, cwd=folder
        )
    gateway = Gateway(process, port, folder / "data", log)
    try:
        if ready:
            gateway.wait_ready()
        yield gateway
    finally:
        if process.poll() is None:
            gateway.stop()
