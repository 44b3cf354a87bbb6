"""Valkey on a unix socket, with its append-only file on: a job survives the death of every process."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from app.embedded import folder as folders
from app.embedded.binaries import ValkeyProgram, find_valkey
from app.embedded.process import LineSink, Server, ServerFailed, end_leftovers, leftovers

START_TIMEOUT_S = 30
MAX_MEMORY = "256mb"
ADVICE = "vm.overcommit_memory"  # for machines that snapshot gigabytes; we write an append-only file of a few


class EmbeddedValkey(Server):
    """One Valkey whose data lives in ``folder``. Hold the folder's lock (``folder.locked``) while it runs."""

    title = "Valkey"
    stop_steps = ((signal.SIGTERM, 10), (signal.SIGKILL, 5))

    def __init__(
        self, folder: Path, *, program: ValkeyProgram | None = None, databases: int = 16, sink: LineSink | None = None
    ) -> None:
        """``program``: by default the wheel's, else the machine's."""
        super().__init__(sink=None if sink is None else lambda line: None if ADVICE in line else sink(line))
        self.folder = folder.absolute()
        self._program = program
        self._databases = databases
        self._socket: Path | None = None

    @property
    def socket_path(self) -> Path:
        if self._socket is None:
            raise RuntimeError("Valkey was not started")
        return self._socket

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        return f"unix://{self.socket_path}?db={database}"

    def start(self) -> None:
        """Start the server and return when it answers; its data is loaded then. Raises: ServerFailed."""
        program = self._program or find_valkey()
        data = self.folder / "data"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket = folders.socket_folder(self.folder) / "valkey.sock"
        self._end_leftovers(data)
        self._socket.unlink(missing_ok=True)
        self._spawn(
            [
                program.server, "--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700",
                "--dir", data, "--pidfile", self._pid_file, "--daemonize", "no", "--loglevel", "warning",
                "--set-proc-title", "no",  # so that a leftover can be told by its command line
                "--databases", str(self._databases), "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
                # An eviction policy would silently eat jobs.
                "--maxmemory", MAX_MEMORY, "--maxmemory-policy", "noeviction",
            ],
            death_signal=signal.SIGTERM,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        self._wait_until(self._answers, timeout_s=START_TIMEOUT_S)

    def stop(self) -> None:
        super().stop()
        folders.drop_socket_folder(self.folder)

    @property
    def _pid_file(self) -> Path:
        return self.folder / "valkey.pid"

    def _end_leftovers(self, data: Path) -> None:
        """A killed owner's server may still be writing its file: end it before another one opens that."""
        found = leftovers(data, self._pid_file)
        if found and not end_leftovers(found, self.stop_steps):
            raise ServerFailed(f"An older Valkey (process {found[0]}) still works in {data} and does not end.")
        self._pid_file.unlink(missing_ok=True)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1)
            try:
                client.connect(str(self.socket_path))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")  # "-LOADING" until its data is in memory
            except OSError:
                return False
