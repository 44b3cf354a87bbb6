"""Removes what may not stay: expired files, files of deleted tasks, and what a crash left behind.

Row first, then the object: a crash in between leaves an object that no row wants, and the sweep takes it.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.generation.previews import Previews
from app.settings import Settings
from app.storage.base import BlobStore
from app.tasks.idempotency import Idempotency

log = structlog.get_logger()

BATCH = 200
ORPHAN_AGE_S = 300.0
"""Younger objects may belong to a transaction that is still on its way."""
SPOOL_AGE_S = 3600.0


class Retention:
    def __init__(
        self,
        *,
        settings: Settings,
        engine: AsyncEngine,
        storage: BlobStore,
        idempotency: Idempotency,
        previews: Previews,
    ) -> None:
        self._previews = previews
        self._idempotency = idempotency
        self._settings = settings
        self._engine = engine
        self._storage = storage

    async def remove_files_of(self, task_id: UUID) -> int:
        """Remove all files of one task. Returns how many."""
        return await self._remove("task_id = $1", (task_id,))

    async def run_once(self) -> None:
        """One round of all of it."""
        expired = "id IN (SELECT id FROM files WHERE state <> 'deleted' AND expires_at < now() LIMIT $1)"
        while await self._remove(expired, (BATCH,)):
            pass
        await self._remove(
            """state <> 'deleted' AND task_id IN (SELECT id FROM tasks WHERE deleted_at > now() - interval '1 day'
               AND settled_at IS NOT NULL)""",
            (),
        )
        await self._idempotency.prune()
        await self.remove_orphans()
        await self._previews.sweep()
        await asyncio.to_thread(_remove_old, self._settings.spool_dir, SPOOL_AGE_S)

    async def _remove(self, which: str, arguments: tuple[object, ...]) -> int:
        rows = await db.once(
            self._engine,
            f"UPDATE files SET state = 'deleted' WHERE state <> 'deleted' AND {which} RETURNING id, storage_key",  # noqa: S608
            arguments,
        )
        for row in rows:
            await self._storage.delete(row["storage_key"])
            await self._previews.remove(UUID(str(row["id"])))
        return len(rows)

    async def remove_orphans(self) -> int:
        """Delete stored objects that no live row names and that are too old to be on their way. Returns how many."""
        removed = 0
        before = time.time() - ORPHAN_AGE_S
        old = (key for key, modified, _ in self._storage.walk() if modified < before)
        while batch := await asyncio.to_thread(_next, old):
            rows = await db.once(
                self._engine,
                "SELECT storage_key FROM files WHERE storage_key = ANY($1::text[]) AND state <> 'deleted'",
                (batch,),
            )
            for key in set(batch) - {row["storage_key"] for row in rows}:
                removed += await self._storage.delete(key)
        if removed:
            log.info("storage.orphans_removed", count=removed)
        return removed


def _next(keys: Iterable[str]) -> list[str]:
    return list(islice(keys, BATCH))


def _remove_old(folder: Path, age_s: float) -> None:
    if not folder.is_dir():
        return
    before = time.time() - age_s
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):  # whoever made it removed it meanwhile
            if entry.stat().st_mtime < before:
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()
