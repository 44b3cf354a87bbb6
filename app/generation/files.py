"""Moves files between a request's spool, the storage and the rows that describe them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from app.errors import NO_ROOM, Overloaded
from app.requests import MediaFile
from app.storage.base import BlobStore, new_key
from app.tasks.queries import StoredFile
from app.values import new_id

log = structlog.get_logger()

FULL_WAIT_S = 1.0
"""How often it is tried again while the disk is full."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NewFile:
    """One file to keep: where it lies, and what its row will say."""

    media: MediaFile
    role: str
    position: int = 0


async def with_room(work: Callable[[], Awaitable[T]], *, until: float) -> T:
    """Do it again while the disk is full, until then (monotonic seconds). Raises: OSError when it still is."""
    while True:
        try:
            return await work()
        except OSError as error:
            if error.errno not in NO_ROOM or time.monotonic() >= until:
                raise
            log.error("disk.full", error=str(error))
        await asyncio.sleep(FULL_WAIT_S)


async def store_inputs(
    storage: BlobStore, files: Iterable[NewFile], *, ttl: timedelta
) -> tuple[list[dict[str, Any]], list[str]]:
    """As `store_files`, for a caller who was promised nothing yet. Raises: Overloaded when the disk is full."""
    try:
        return await store_files(storage, files, ttl=ttl, until=0.0)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        log.error("disk.full", error=str(error))
        raise Overloaded("The server's disk is full just now. Nothing was charged.", retry_after_s=10) from None


async def store_files(
    storage: BlobStore, files: Iterable[NewFile], *, ttl: timedelta, until: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Put every file into the storage, durably. Returns the rows for ``mg_put_files`` and the keys.

    Either all are stored, or none: a failure removes what was stored before it. ``until``: as for `with_room`.
    """
    rows: list[dict[str, Any]] = []
    keys: list[str] = []
    try:
        for file in files:
            file_id = new_id()
            key = new_key(file_id)
            keys.append(key)
            await with_room(partial(storage.adopt, file.media.path, key), until=until)
            rows.append(
                {
                    "id": str(file_id),
                    "role": file.role,
                    "position": file.position,
                    "field": file.media.field,
                    "storage_key": key,
                    "mime": file.media.mime,
                    "bytes": file.media.size_bytes,
                    "sha256": file.media.sha256.hex(),
                    "width": file.media.width,
                    "height": file.media.height,
                    "duration_ms": None if file.media.duration_s is None else round(file.media.duration_s * 1000),
                    "ttl_s": ttl.total_seconds(),
                }
            )
    except BaseException:
        await remove_files(storage, keys)
        raise
    return rows, keys


async def remove_files(storage: BlobStore, keys: Iterable[str]) -> None:
    """Delete what nobody's row names."""
    for key in keys:
        await storage.delete(key)


def inputs_as_files(inputs: Iterable[MediaFile]) -> list[NewFile]:
    """Give a request's inputs their roles, in the caller's order."""
    return [
        NewFile(media, "mask" if media.field == "mask" else "input", position) for position, media in enumerate(inputs)
    ]


def media_file(stored: StoredFile, storage: BlobStore) -> MediaFile:
    """Return a stored file in the form a provider takes."""
    return MediaFile(
        path=storage.path_of(stored.storage_key),
        mime=stored.mime,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        field=stored.field or stored.role,
        width=stored.width,
        height=stored.height,
        duration_s=None if stored.duration_ms is None else stored.duration_ms / 1000,
    )


def media_from_source(source: Mapping[str, Any], storage: BlobStore) -> MediaFile:
    """Return the video a remix goes on from, as its task remembers it."""
    path: Path = storage.path_of(source["storage_key"])
    return MediaFile(
        path, source["mime"], source["bytes"], bytes.fromhex(source["sha256"]), "source", source["width"],
        source["height"], source["duration_ms"] / 1000,
    )  # fmt: skip
