"""The folder an instance lives in: one owner at a time, and a place for sockets whose paths are short enough."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, with a zero at the end; the longest name we put in is 16.
MAX_SOCKET_FOLDER_BYTES = 103 - 17
# Anything else (a comma, a quote) has a meaning in some server's option or in a URL.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+-]+")


class FolderInUse(Exception):
    """Another process works in this folder; the message is one sentence for the user."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own ``folder`` (made when missing) for the length of a block. The kernel frees it however we end.

    Raises: FolderInUse.
    """
    # Others may pass through (a server that runs as nobody must) and see nothing.
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise FolderInUse(
                f"The data folder {folder} is in use by another Mediagate (process {owner}): "
                "stop that one, or choose another folder with --data."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def socket_folder(folder: Path) -> Path:
    """Return a folder of ours (mode 0700) for unix sockets: ``folder/run``, or a short one when that path is too long.

    The short one is remembered in ``folder/run.json``, so that the next start can use it again: addresses stay.
    """
    run = folder / "run"
    if _is_usable(run):
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        return run
    note = folder / "run.json"
    if note.exists():
        kept = Path(json.loads(note.read_text())["folder"])
        if _is_private(kept):
            return kept
    temporary = Path(tempfile.gettempdir())
    if not _is_usable(temporary / "mg-12345678"):
        temporary = Path("/tmp")  # noqa: S108 - mkdtemp makes a private folder with an unguessable name in it
    made = Path(tempfile.mkdtemp(prefix="mg-", dir=temporary))
    note.write_text(json.dumps({"folder": str(made)}))
    return made


def drop_socket_folder(folder: Path) -> None:
    """Remove what ``socket_folder`` made outside of ``folder``."""
    note = folder / "run.json"
    if note.exists():
        shutil.rmtree(json.loads(note.read_text())["folder"], ignore_errors=True)
        note.unlink()


def _is_usable(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_FOLDER_BYTES and PLAIN_PATH.fullmatch(str(path)) is not None


def _is_private(path: Path) -> bool:
    """Whether ``path`` is a folder of ours that nobody else can write: /tmp belongs to everyone."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return (
        path.is_dir() and not path.is_symlink() and found.st_uid in (os.geteuid(), 65534) and not found.st_mode & 0o022
    )
