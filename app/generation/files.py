"""Moves files between a request's spool, the storage and the rows that describe them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.requests import MediaFile
from app.storage.base import BlobStore, new_key
from app.tasks.queries import StoredFile
from app.values import new_id


@dataclass(frozen=True, slots=True)
class NewFile:
    """One file to keep: where it lies, and what its row will say."""

    media: MediaFile
    role: str
    position: int = 0


async def store_files(
    storage: BlobStore, files: Iterable[NewFile], *, ttl: timedelta
) -> tuple[list[dict[str, Any]], list[str]]:
    """Put every file into the storage, durably. Returns the rows for ``mg_put_files`` and the keys.

    Either all are stored, or none: a failure removes what was stored before it.
    """
    rows: list[dict[str, Any]] = []
    keys: list[str] = []
    try:
        for file in files:
            file_id = new_id()
            key = new_key(file_id)
            keys.append(key)
            await storage.adopt(file.media.path, key)
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
