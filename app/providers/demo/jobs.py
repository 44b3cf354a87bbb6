"""The demo upstream's memory: a folder per client token that outlives the processes, and slots for the cores.

<work_dir>/jobs/<hash of the token>/
    request.json   what was accepted; written last, in one step: a job without it was never accepted
    input-*        links to, or copies of, the request's files
    sends          one line per accepted submit of this token
    renders        one line per beginning of the work
    lock           flock'd by the child that works on it: the kernel lets go when the child dies, however it dies
    progress       percent
    result.* thumbnail.webp done | error | cancelled
<work_dir>/busy/   attempts of tasks whose prompt says [[busy=N]]
<work_dir>/slots/  one flock'd file per core that may draw, and the mark of images that wait
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

KEEP_S = 86400.0
LOCK_PATIENCE_S = 0.25  # somebody may be looking whether the lock is held
SLOT_PAUSE_S = 0.01
GIVE_WAY_S = 2.0

_ID = re.compile(r"[0-9a-f]{40}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]


class Job:
    """One accepted request. Every method is safe from several processes at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of_token(cls, work_dir: Path, client_token: str) -> Job:
        return cls(work_dir / "jobs" / _digest(client_token))

    @classmethod
    def of_id(cls, work_dir: Path, job_id: str) -> Job | None:
        """Return the job with this id, or None when it was never accepted, or is pruned."""
        job = cls(work_dir / "jobs" / job_id)
        return job if _ID.fullmatch(job_id) and job.is_accepted else None

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def is_accepted(self) -> bool:
        return (self.path / "request.json").exists()

    @property
    def is_done(self) -> bool:
        return (self.path / "done").exists()

    @property
    def is_cancelled(self) -> bool:
        return (self.path / "cancelled").exists()

    def accept(self, request: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        """Remember a request and its files. Doing it twice changes nothing."""
        if self.is_accepted:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for name, source in files.items():
            link_or_copy(source, self.path / name)
        self._write("request.json", json.dumps(dict(request) | {"accepted_at": time.time()}))

    def request(self) -> dict[str, Any]:
        request: dict[str, Any] = json.loads((self.path / "request.json").read_text())
        return request

    def count(self, name: str) -> int:
        """Add one line to a counter and return how many there are."""
        with (self.path / name).open("a+b") as file:
            file.write(b"1\n")
            file.flush()
            return file.tell() // 2

    def counted(self, name: str) -> int:
        with suppress(FileNotFoundError):
            return (self.path / name).stat().st_size // 2
        return 0

    def finish(self) -> None:
        """The result files are complete."""
        self._write("done", "")

    def fail(self, message: str) -> None:
        self._write("error", message)

    def error(self) -> str | None:
        with suppress(FileNotFoundError):
            return (self.path / "error").read_text()
        return None

    def cancel(self, *, now: float) -> bool:
        """Stop the work, also during its delay; False when the caller may have seen it finished."""
        request = self.request()
        if self.is_done and now >= request["accepted_at"] + request["delay_s"]:
            return False
        self._write("cancelled", "")
        return True

    def find_result(self, name: str) -> Path | None:
        path = self.path / name
        return path if path.exists() else None

    def set_progress(self, percent: int) -> None:
        self._write("progress", str(percent))

    def progress(self) -> int:
        with suppress(FileNotFoundError):
            return min(99, int((self.path / "progress").read_text()))
        return 0

    @contextmanager
    def lock(self, *, wait: bool) -> Iterator[bool]:
        """Hold the job while working on it; yields False when another process does and we shall not wait."""
        with (self.path / "lock").open("ab") as file:
            yield _flock(file, patience_s=None if wait else LOCK_PATIENCE_S)

    def is_locked(self) -> bool:
        """Whether a child, of this process or another, works on it now."""
        try:
            with (self.path / "lock").open("rb") as file:
                return not _try_flock(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def _write(self, name: str, text: str) -> None:
        temporary = _temporary(self.path / name)
        temporary.write_text(text)
        temporary.replace(self.path / name)


class Slot:
    """The right to use a core, as a context: at most ``count`` holders among all processes of one work folder.

    Images are urgent: a film gives way to them at ``give_way``, and does not begin before them.
    """

    def __init__(self, folder: Path, count: int, *, urgent: bool) -> None:
        self._folder = folder
        self._count = count
        self._urgent = urgent
        self._held: IO[bytes] | None = None

    def __enter__(self) -> Slot:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._urgent:
            with (self._folder / "urgent").open("ab") as waiting:
                fcntl.flock(waiting, fcntl.LOCK_SH)
                self._take()
        else:
            self._take()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def give_way(self) -> None:
        """Let a waiting image go first; costs nothing when none waits."""
        if not self._is_urgent_waiting():
            return
        self.__exit__()
        until = time.monotonic() + GIVE_WAY_S
        while self._is_urgent_waiting() and time.monotonic() < until:
            time.sleep(SLOT_PAUSE_S)
        self._take()

    def _take(self) -> None:
        until = time.monotonic() + GIVE_WAY_S
        while True:
            is_our_turn = self._urgent or not self._is_urgent_waiting() or time.monotonic() > until
            if is_our_turn and self._try_take():
                return
            time.sleep(SLOT_PAUSE_S)

    def _try_take(self) -> bool:
        for number in range(self._count):
            file = (self._folder / f"slot-{number}").open("ab")
            if _try_flock(file, fcntl.LOCK_EX):
                self._held = file
                return True
            file.close()
        return False

    def _is_urgent_waiting(self) -> bool:
        with (self._folder / "urgent").open("ab") as waiting:
            return not _try_flock(waiting, fcntl.LOCK_EX)


def count_attempt(work_dir: Path, client_token: str) -> int:
    """Count the attempts of one task (``<task>:<n>``), over all its tokens."""
    folder = work_dir / "busy"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _digest(client_token.rpartition(":")[0] or client_token)).open("a+b") as file:
        file.write(b"1\n")
        file.flush()
        return file.tell() // 2


def prune(work_dir: Path, *, now: float) -> None:
    """Remove jobs older than a day, except those being worked on."""
    for path in [*(work_dir / "jobs").glob("*"), *(work_dir / "busy").glob("*")]:
        with suppress(FileNotFoundError):  # another process prunes too
            if now - path.stat().st_mtime < KEEP_S:
                continue
            if path.is_dir() and not Job(path).is_locked():
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_file():
                path.unlink()


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; copy it when the folders lie on different file systems."""
    if target.exists():
        return
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return
    except OSError:
        temporary = _temporary(target)
        shutil.copyfile(source, temporary)
        temporary.replace(target)


def _temporary(path: Path) -> Path:
    """Return a name beside ``path`` that no other process or thread uses."""
    return path.with_name(f".{path.name}.{os.urandom(6).hex()}")


def _try_flock(file: IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flock(file: IO[bytes], *, patience_s: float | None) -> bool:
    if patience_s is None:
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    until = time.monotonic() + patience_s
    while not _try_flock(file, fcntl.LOCK_EX):
        if time.monotonic() > until:
            return False
        time.sleep(SLOT_PAUSE_S)
    return True
