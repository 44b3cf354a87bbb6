"""Child processes that end with us: how they are started, asked about, stopped, and found again after a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, Self

RunAs = Literal["caller", "namespace", "nobody"]
LineSink = Callable[[str], None]
LAUNCH = Path(__file__).with_name("launch.py")
KEPT_LINES = 20
TICK_S = 0.01


class ServerFailed(Exception):
    """A server did not start or does not run; the message is one sentence for its user."""


def launch_command(
    argv: Sequence[str | Path], *, death_signal: signal.Signals = signal.SIGKILL, run_as: RunAs = "caller"
) -> list[str]:
    """Return ``argv`` wrapped so that it gets ``death_signal`` when the thread that starts it ends."""
    return [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), str(int(death_signal)), run_as, *map(str, argv)]


def spawn(
    argv: Sequence[str | Path],
    *,
    death_signal: signal.Signals = signal.SIGKILL,
    run_as: RunAs = "caller",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, its output in one pipe. ``argv[0]`` must be an absolute path.

    Only the main thread may do this: the kernel takes the end of the starting thread for the end of the parent.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("servers must be started from the main thread")
    return subprocess.Popen(
        launch_command(argv, death_signal=death_signal, run_as=run_as),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C in the terminal reaches us alone; we stop the children in order
        env=env,
        cwd=cwd,
    )


def run(
    argv: Sequence[str | Path], *, run_as: RunAs = "caller", env: Mapping[str, str] | None = None, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a child to its end and return its exit status and output (both streams in ``stdout``)."""
    return subprocess.run(
        launch_command(argv, run_as=run_as),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=env,
        timeout=timeout_s,
        text=True,
        errors="replace",
        check=False,
    )


def is_running(pid: int) -> bool:
    """Whether ``pid`` is a live process. A zombie, which no one has reaped yet, is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but alive
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        # No /proc (macOS), or the process ended in between.
        return not Path("/proc/self").exists() and "Z" not in _ps(pid, "stat=")
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def command_line(pid: int) -> str:
    """Return the command line of ``pid``, or "" when it has none or is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "" if Path("/proc/self").exists() else _ps(pid, "command=")


def _ps(pid: int, column: str) -> str:
    found = subprocess.run(["/bin/ps", "-o", column, "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def working_in(folder: Path) -> list[int]:
    """Return the live processes whose working directory is ``folder``. Empty where there is no /proc."""
    wanted = str(folder.resolve())
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == wanted and is_running(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile, or not ours to look at
    return found


def leftovers(folder: Path, pid_file: Path) -> list[int]:
    """Return the live processes that a killed owner of ours left at work in ``folder``."""
    found = working_in(folder)
    try:
        noted = int(pid_file.read_text().split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return found
    if noted not in found and is_running(noted) and str(folder) in command_line(noted):
        found.append(noted)  # where there is no /proc to tell working directories
    return found


def wait_for(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Poll until ``condition`` holds; return whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK_S)
    return True


def end_leftovers(pids: Sequence[int], steps: Sequence[tuple[signal.Signals, float]]) -> bool:
    """End processes of a killed owner: each signal in turn, with its seconds to obey. Return whether all ended."""
    for number, patience_s in steps:
        for pid in filter(is_running, pids):
            with suppress(ProcessLookupError):  # it ended by itself just now
                os.kill(pid, number)
        if wait_for(lambda: not any(map(is_running, pids)), timeout_s=patience_s):
            return True
    return False


class Output:
    """Reads a child's output line by line in a thread, hands it on, and keeps the last lines for an error message."""

    def __init__(self, stream: IO[bytes], sink: LineSink | None = None) -> None:
        self._stream = stream
        self._sink = sink
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)
        self._thread = threading.Thread(target=self._read, name="output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream:
            for raw in self._stream:
                line = raw.decode(errors="replace").rstrip()
                self._kept.append(line)
                if self._sink is not None:
                    self._sink(line)

    def last_lines(self) -> str:
        """Return the end of what the child said; call it after the child ended."""
        self._thread.join(timeout=1)
        return " / ".join(line for line in self._kept if line)

    def finish(self) -> None:
        """Wait until everything was handed on."""
        self._thread.join(timeout=5)


class Server:
    """One server process: started, watched, stopped. Subclasses say how. Start it from the main thread."""

    title = "server"
    stop_steps: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 10), (signal.SIGKILL, 5))
    """Signals in turn, each with the seconds it gets."""

    def __init__(self, *, sink: LineSink | None = None) -> None:
        self._sink = sink
        self._process: subprocess.Popen[bytes] | None = None
        self._output: Output | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.title} was not started")
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs or before it ran."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the server and return when it answers. Raises: ServerFailed."""
        raise TypeError("a subclass says how")

    def last_lines(self) -> str:
        return "" if self._output is None else self._output.last_lines()

    def _spawn(
        self,
        argv: Sequence[str | Path],
        *,
        death_signal: signal.Signals = signal.SIGKILL,
        run_as: RunAs = "caller",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        if self.is_alive:  # asking also reaps the one that ended
            raise RuntimeError(f"{self.title} runs already")
        self._process = spawn(argv, death_signal=death_signal, run_as=run_as, env=env, cwd=cwd)
        if self._process.stdout is None:
            raise RuntimeError("the child has no output pipe")
        self._output = Output(self._process.stdout, self._sink)

    def _wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        wait_for(lambda: ready() or not self.is_alive, timeout_s=timeout_s)
        if not self.is_alive:
            raise ServerFailed(f"{self.title} did not start: {self.last_lines() or self.exit_status}")
        if not ready():
            self._end()
            raise ServerFailed(f"{self.title} did not answer within {timeout_s:.0f} s: {self.last_lines()}")

    def stop(self) -> None:
        """Stop the server and wait for its end; harder signals follow when it does not obey. Safe to call twice."""
        self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        for number, patience_s in self.stop_steps:
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        if self._output is not None:
            self._output.finish()

    @contextmanager
    def started(self) -> Iterator[Self]:
        """Run the server for the length of a block."""
        self.start()
        try:
            yield self
        finally:
            self.stop()
