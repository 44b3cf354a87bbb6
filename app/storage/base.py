"""Where finished files live: what a store must do, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from uuid import UUID


def new_key(file_id: UUID) -> str:
    """Return the storage key of a file: ``4f/0190...4f``.

    The folder is named after the last letters: those of a UUIDv7 are random, while its first are the same for years.
    """
    return f"{file_id.hex[-2:]}/{file_id.hex}"


class BlobStore(Protocol):
    """Files by key. A key is written once and never changed."""

    async def adopt(self, path: Path, key: str) -> None:
        """Take over a local file; afterwards it is under ``key``, safe against power loss, and gone from ``path``.

        May be repeated, after a crash or an error. Raises: InvalidKey, FileNotFoundError, OSError.
        """

    def path_of(self, key: str) -> Path:
        """Return where the file can be read on this machine. Raises: InvalidKey."""

    async def touch(self, key: str) -> None:
        """Make a file young again: one whose row is still on its way looks like a leftover when it is old."""

    async def delete(self, key: str) -> bool:
        """Remove a file. Returns False when there was none. Raises: InvalidKey."""

    def walk(self) -> Iterator[tuple[str, float, int]]:
        """Yield key, time of change (Unix seconds) and size of every file, in no order. Blocks: run it in a thread."""


class InvalidKey(ValueError):
    """A key that ``new_key`` did not make: a bug, or an attack."""
