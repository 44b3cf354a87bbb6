"""Small pictures of results and inputs for pages that show many: made when first looked at, kept until room is needed.

Whatever goes wrong with one is nobody's error but a missing picture: the file itself can still be had.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID
from weakref import WeakValueDictionary

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.errors import InvalidMedia, Overloaded
from app.media.checks import Checker
from app.media.processes import ChildFailed
from app.storage.base import BlobStore
from app.storage.room import Room
from app.tasks.queries import StoredFile

log = structlog.get_logger(__name__)

MIME = "image/webp"
MOST_WAITING = 100
"""Of one account. Further ones go without: their pages have given up before it is their turn."""
AGAIN_S = 3600.0
"""A file of which no picture could be made is tried again after this long."""
SEEN_S = 3600.0
"""How exactly it is known when a picture was last looked at."""
LEFTOVER_S = 600.0
BATCH = 500
_ENDING = ".webp"
_MAKING = ".making-"


class Previews:
    """One small WebP per file in ``folder``, by the file's id; an empty one says that none can be made."""

    def __init__(
        self,
        folder: Path,
        *,
        engine: AsyncEngine,
        storage: BlobStore,
        checker: Checker,
        room: Room,
        at_once: int,
        max_bytes: int,
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._storage = storage
        self._checker = checker
        self._room = room
        self._max_bytes = max_bytes
        self._turns = asyncio.Semaphore(at_once)
        self._waiting: Counter[int] = Counter()
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def get(self, file: StoredFile, *, account_id: int) -> bytes | None:
        """Return the small picture of an account's image; None when there is none to be had."""
        try:
            found = await asyncio.to_thread(_read, self._path(file.id))
            if found is None:
                found = await self._wait_and_make(file, account_id)
        except Overloaded:  # the disk is almost full: what is left is for results
            return None
        except (OSError, ChildFailed) as error:
            log.warning("preview.failed", file_id=str(file.id), error=str(error)[:500])
            return None
        return found or None

    async def _wait_and_make(self, file: StoredFile, account_id: int) -> bytes:
        if self._waiting[account_id] >= MOST_WAITING:
            log.warning("preview.crowded", account_id=account_id)
            return b""
        lock = self._locks.setdefault(file.id, asyncio.Lock())
        self._waiting[account_id] += 1
        try:
            async with lock, self._turns:
                found = await asyncio.to_thread(_read, self._path(file.id))  # another request made it meanwhile
                return await self._make(file) if found is None else found
        finally:
            self._waiting[account_id] -= 1
            if not self._waiting[account_id]:
                del self._waiting[account_id]

    async def _make(self, file: StoredFile) -> bytes:
        """Raises: Overloaded, OSError, ChildFailed."""
        await self._room.check()
        source, path = self._storage.path_of(file.storage_key), self._path(file.id)
        await asyncio.to_thread(source.stat)  # what is not there is no reason to start a child
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        making = path.with_name(_MAKING + secrets.token_hex(8))
        try:
            try:
                await self._checker.preview(source, making)
            except InvalidMedia as refused:
                log.warning("preview.refused", file_id=str(file.id), why=refused.message)
                await asyncio.to_thread(making.write_bytes, b"")
            return await asyncio.to_thread(_put, making, path)
        finally:
            making.unlink(missing_ok=True)

    async def remove(self, file_id: UUID) -> None:
        """Remove the picture of a file that goes."""
        await asyncio.to_thread(self._path(file_id).unlink, missing_ok=True)

    async def sweep(self) -> int:
        """Remove pictures of files that are gone, and the ones looked at longest ago when they fill too much.

        Returns how many.
        """
        kept = sorted(await asyncio.to_thread(lambda: list(_walk(self._folder))))
        gone = await self._gone([file_id for _, _, file_id in kept])
        size = sum(size_bytes for _, size_bytes, file_id in kept if file_id not in gone)
        for _, size_bytes, file_id in kept:
            if size <= self._max_bytes:
                break
            if file_id not in gone:
                gone.add(file_id)
                size -= size_bytes
        for file_id in gone:
            await self.remove(file_id)
        if gone:
            log.info("previews.removed", count=len(gone))
        return len(gone)

    async def _gone(self, ids: list[UUID]) -> set[UUID]:
        """Return which files are there no more. One that goes while its picture is made leaves the picture behind."""
        gone: set[UUID] = set()
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            rows = await db.once(
                self._engine, "SELECT id FROM files WHERE id = ANY($1::uuid[]) AND state <> 'deleted'", (batch,)
            )
            gone |= set(batch) - {UUID(str(row["id"])) for row in rows}
        return gone

    def _path(self, file_id: UUID) -> Path:
        return self._folder / file_id.hex[-2:] / f"{file_id.hex}{_ENDING}"


def _read(path: Path) -> bytes | None:
    """Return a kept picture, empty where none can be made; None: it is to be made. Raises: OSError."""
    try:
        content = path.read_bytes()
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    if not content and age_s > AGAIN_S:
        return None
    if content and age_s > SEEN_S:
        with suppress(OSError):  # swept meanwhile, or a disk that can only be read
            os.utime(path)
    return content


def _put(making: Path, path: Path) -> bytes:
    content = making.read_bytes()
    making.rename(path)
    return content


def _walk(folder: Path) -> Iterator[tuple[float, int, UUID]]:
    """Yield when each picture was last looked at, its size and its file; remove what a crash left half-made."""
    for path in folder.glob("??/*"):
        try:
            found = path.stat()
            if path.name.startswith(_MAKING):
                if found.st_mtime < time.time() - LEFTOVER_S:
                    path.unlink()
            elif path.suffix == _ENDING:
                yield found.st_mtime, found.st_size, UUID(path.stem)
        except (FileNotFoundError, ValueError):  # removed meanwhile, or none of ours
            continue
