"""Files in a folder of this machine."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from app.failpoints import failpoint_in_thread
from app.storage.base import InvalidKey, new_key

__all__ = ["LocalStore", "new_key"]

_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-z][0-9a-z_-]{0,120}(?:\.[0-9a-z]{1,8})?")
_TEMPORARY = ".adopting-"


class LocalStore:
    """A BlobStore in one folder tree. Adopting from the same file system is a rename; no byte is copied."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def adopt(self, path: Path, key: str) -> None:
        """See BlobStore."""
        await asyncio.to_thread(self._adopt, path, self.path_of(key))

    def path_of(self, key: str) -> Path:
        """See BlobStore."""
        if not _KEY.fullmatch(key):
            raise InvalidKey(f"not a storage key: {key[:100]!r}")
        return self._root / key

    async def touch(self, key: str) -> None:
        """See BlobStore."""
        await asyncio.to_thread(os.utime, self.path_of(key))

    async def delete(self, key: str) -> bool:
        """See BlobStore."""
        return await asyncio.to_thread(_unlink, self.path_of(key))

    def walk(self) -> Iterator[tuple[str, float, int]]:
        """See BlobStore. What is being adopted is left out."""
        if not self._root.is_dir():
            return
        with os.scandir(self._root) as folders:
            for folder in folders:
                if not folder.is_dir(follow_symlinks=False):
                    continue
                with os.scandir(folder.path) as files:
                    for file in files:
                        key = f"{folder.name}/{file.name}"
                        if not _KEY.fullmatch(key) or not file.is_file(follow_symlinks=False):
                            continue
                        try:
                            found = file.stat(follow_symlinks=False)
                        except FileNotFoundError:  # deleted meanwhile
                            continue
                        yield key, found.st_mtime, found.st_size

    def _adopt(self, source: Path, target: Path) -> None:
        try:
            _flush(source)
        except FileNotFoundError:
            if target.is_file():  # adopted before a crash that our caller did not see
                return
            raise
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            _flush_folder(self._root)
        failpoint_in_thread("after_temp_file")
        os.utime(source)  # its age is counted from here: the upload may have taken longer than a sweep waits
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, target)
            source.unlink()
        _flush_folder(target.parent)
        failpoint_in_thread("after_rename")


def _copy(source: Path, target: Path) -> None:
    """Copy across file systems so that ``target`` appears only when it is complete."""
    temporary = target.with_name(_TEMPORARY + secrets.token_hex(8))
    try:
        shutil.copyfile(source, temporary, follow_symlinks=False)
        _flush(temporary)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Write a regular file through to the disk. Raises: OSError, also when it is a link or no file at all."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
