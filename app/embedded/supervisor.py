"""Keeps a row of child processes alive: starts them in order, restarts what dies, stops them the other way round."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TextIO

from app.embedded.process import LineSink, Server, ServerFailed

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 10.0
HEALTHY_S = 30.0
TICK_S = 0.2
PREFIX_WIDTH = 8
COLOURS = {"postgres": 34, "valkey": 35, "api": 32, "worker": 36}


@dataclass(slots=True)
class Backoff:
    """How long to wait before the next restart: doubling, forgotten once a run was long enough. Seconds."""

    first_s: float = FIRST_DELAY_S
    longest_s: float = LONGEST_DELAY_S
    healthy_s: float = HEALTHY_S
    _next_s: float | None = None

    def after(self, ran_s: float) -> float:
        """Return the delay after a run of ``ran_s``."""
        if self._next_s is None or ran_s >= self.healthy_s:
            self._next_s = self.first_s
        delay, self._next_s = self._next_s, min(self._next_s * 2, self.longest_s)
        return delay


class LogStream:
    """One stream for the lines of all children, each with the name of its writer. Used from many threads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._coloured = stream.isatty()
        self.is_broken = False
        """Whether nobody reads any more (``up | head``)."""

    def write(self, text: str) -> None:
        with self._lock:
            if self.is_broken:
                return
            try:
                self._stream.write(text + "\n")
                self._stream.flush()
            except OSError:
                self.is_broken = True  # a reader thread must go on, or its child would block on a full pipe

    def sink(self, name: str) -> LineSink:
        """Return what takes the lines of ``name``."""
        prefix = f"{name:<{PREFIX_WIDTH}} | "
        if self._coloured and name in COLOURS:
            prefix = f"\033[{COLOURS[name]}m{prefix}\033[0m"
        return lambda line: self.write(prefix + line)


class Program(Server):
    """A child that counts as started when it runs; it dies at once with its parent, for its work is safe to cut."""

    def __init__(
        self,
        title: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        stop_s: float,
        sink: LineSink | None = None,
    ) -> None:
        """``stop_s``: how long it may finish its work after SIGTERM, in seconds."""
        super().__init__(sink=sink)
        self.title = title
        self.stop_steps = ((signal.SIGTERM, stop_s), (signal.SIGKILL, 5))
        self._argv = list(argv)
        self._env = dict(env)

    def start(self) -> None:
        self._spawn(self._argv, death_signal=signal.SIGKILL, env={**os.environ, **self._env})

    def kill(self) -> None:
        """End it now, whatever it does."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGKILL)


@dataclass(slots=True)
class _Watched:
    server: Server
    started_at: float
    backoff: Backoff = field(default_factory=Backoff)
    restart_at: float | None = None
    """Monotonic time of the next start; None while it runs."""


class Supervisor:
    """Runs servers for the length of a ``with`` block, stopping them in reverse order of their start at its end.

    SIGINT, SIGTERM and SIGHUP ask it to stop; a second one no longer waits for unfinished work.
    """

    def __init__(self, *, say: LineSink) -> None:
        self._say = say
        self._watched: list[_Watched] = []
        self._signals = 0
        self._old_handlers: dict[int, object] = {}
        self._wakeup: tuple[int, int] = (-1, -1)

    def __enter__(self) -> Supervisor:
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        self._wakeup = (reader, writer)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._old_handlers[number] = signal.signal(number, self._on_signal)
        self._old_handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)  # only wakes the loop
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop_all()
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in self._old_handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            for end in self._wakeup:
                os.close(end)

    @property
    def must_stop(self) -> bool:
        return self._signals > 0

    def start(self, server: Server) -> None:
        """Start one more server, and keep it running from now on. Raises: ServerFailed."""
        # Watched first: what fails half-way is stopped as well.
        watched = _Watched(server, time.monotonic())
        self._watched.append(watched)
        server.start()
        watched.started_at = time.monotonic()

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait for the first ``ready``. Return False when asked to stop before. Raises: ServerFailed.

        Nothing is restarted here: what dies before it ever worked would die again.
        """
        deadline = time.monotonic() + timeout_s
        while not self.must_stop:
            for watched in self._watched:
                if not watched.server.is_alive:
                    raise ServerFailed(_ended(watched.server))
            if ready():
                return True
            if time.monotonic() > deadline:
                raise ServerFailed(f"Mediagate was not ready within {timeout_s:.0f} s.")
            self._pause(TICK_S / 4)
        return False

    def watch(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Restart whatever dies, with growing delays, until asked to stop or ``until`` holds."""
        while not self.must_stop and not until():
            for watched in self._watched:
                self._look_at(watched, time.monotonic())
            self._pause(TICK_S)

    def _look_at(self, watched: _Watched, now: float) -> None:
        server = watched.server
        if watched.restart_at is None:
            if server.is_alive:
                return
            delay_s = watched.backoff.after(now - watched.started_at)
            watched.restart_at = now + delay_s
            self._say(f"{_ended(server)} Starting it again in {delay_s:.1f} s.")
        elif now >= watched.restart_at:
            watched.restart_at, watched.started_at = None, now
            try:
                server.start()
            except ServerFailed as error:
                self._say(str(error))
            else:
                self._say(f"{server.title} runs again (process {server.pid}).")

    def _stop_all(self) -> None:
        for watched in reversed(self._watched):
            server = watched.server
            if server.is_alive:
                self._say(f"Stopping {server.title} ...")
            if self._signals > 1 and isinstance(server, Program):
                server.kill()
            server.stop()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            for watched in self._watched:
                if isinstance(watched.server, Program):
                    watched.server.kill()

    def _pause(self, seconds: float) -> None:
        """Sleep, but wake at once for a signal or the end of a child."""
        reader = self._wakeup[0]
        if select.select([reader], [], [], seconds)[0]:
            os.read(reader, 4096)


def _ended(server: Server) -> str:
    status = server.exit_status
    if status is not None and status < 0:
        how = f"was ended by {signal.Signals(-status).name}"
    else:
        how = f"ended with status {status}"
    return f"{server.title} {how}."


def console_script(name: str) -> Path:
    """Return the path of one of this environment's commands."""
    return Path(sys.prefix) / "bin" / name
