"""Starts processes of the gateway fast: one process has loaded the code, and each that is wanted is a fork of it.

A process costs two seconds of a core to load, and a matrix of kills needs hundreds. What runs after the fork is the
command line itself, with an environment, a log and a pid of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from app.embedded.launch import die_with
from app.embedded.process import launch_command

MESSAGE_BYTES = 256 * 1024
LOADED = ("app.main", "app.cli.server", "workers.settings", "app.api.protocol", "uvicorn", "uvloop")


class Nursery:
    """``start`` returns what `subprocess.Popen` would. Ends with its parent, and its children with it."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._codes: dict[int, int] = {}
        command = launch_command([sys.executable, "-m", __name__, str(theirs.fileno())])
        self._process = subprocess.Popen(command, cwd=folder, env=dict(environment), pass_fds=(theirs.fileno(),))
        theirs.close()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, listener: int | None) -> Child:
        """Run ``mediagate ARGUMENTS``; ``{fd}`` among them is the listener's number there."""
        with log.open("wb") as output:
            fds = [output.fileno(), *([] if listener is None else [listener])]
            message = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode()
            socket.send_fds(self._socket, [message], fds)
        while True:
            said = self._hear()
            if "started" in said:
                return Child(self, said["started"])

    def code_of(self, pid: int) -> int | None:
        self._socket.setblocking(False)
        try:
            with contextlib.suppress(BlockingIOError):
                while pid not in self._codes:
                    self._hear()
        finally:
            self._socket.setblocking(True)
        return self._codes.get(pid)

    def _hear(self) -> dict[str, int]:
        raw = self._socket.recv(MESSAGE_BYTES)
        if not raw:
            raise RuntimeError("the nursery has died")
        said: dict[str, int] = json.loads(raw)
        if "ended" in said:
            self._codes[said["ended"]] = said["code"]
        return said

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()


class Child:
    """One process, seen from where it is wanted."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid

    def poll(self) -> int | None:
        return self._nursery.code_of(self.pid)

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"pid {self.pid}", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def serve(control: socket.socket) -> None:
    """Fork on each message; tell the pid, and later how it ended."""
    for name in LOADED:
        import_module(name)
    nursery = os.getpid()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    import select

    while True:
        ready, _, _ = select.select([control, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            _tell_of_the_dead(control)
        if control in ready:
            raw, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 2)
            if not raw:
                return
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for fd in (wake_read, wake_write, control.detach()):
                    os.close(fd)
                die_with(nursery, signal.SIGKILL)
                _become(json.loads(raw), fds)
            for fd in fds:
                os.close(fd)
            control.send(json.dumps({"started": pid}).encode())


def _tell_of_the_dead(control: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            control.send(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}).encode())


def _become(told: dict[str, object], fds: list[int]) -> None:
    """Be the command from here on; never returns."""
    code = 1
    try:
        os.dup2(fds[0], 1)
        os.dup2(fds[0], 2)
        os.close(fds[0])
        os.environ.clear()
        os.environ.update(told["environment"])  # type: ignore[call-overload]
        random.seed()  # or all of them would wait alike
        from app.cli import main

        arguments = [str(word).format(fd=fds[1] if len(fds) > 1 else "") for word in told["arguments"]]  # type: ignore[attr-defined]
        main(args=arguments, prog_name="mediagate")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
