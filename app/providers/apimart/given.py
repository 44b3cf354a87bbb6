"""Remembers under which URLs inputs were given to the upstream: a resend must have the same body, and neither an upload
nor a signature can be repeated to the letter.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from app.requests import MediaFile

KEPT_S = 72 * 3600.0
"""As long as an upload is valid."""


@dataclass(slots=True)
class GivenUrls:
    """Of one client token, in a file of the account's own folder: another process of this machine finds them too."""

    folder: Path
    token: str
    _urls: dict[str, str] | None = field(default=None, init=False)

    async def url(self, file: MediaFile, make: Callable[[MediaFile], Awaitable[str]]) -> str:
        """Return the URL this file was given under; ``make`` it the first time."""
        if self._urls is None:
            self._urls = await asyncio.to_thread(self._read)
        key = file.sha256.hex()
        if key not in self._urls:
            self._urls[key] = await make(file)
            await asyncio.to_thread(self._write, self._urls)
        return self._urls[key]

    @property
    def _path(self) -> Path:
        return self.folder / f"{hashlib.sha256(self.token.encode()).hexdigest()}.json"

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, urls: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.folder / f"{uuid4().hex}.new"
        fresh.write_text(json.dumps(urls))
        fresh.replace(self._path)


def prune(folder: Path, *, now: float) -> None:
    """Remove what is too old to be asked for again. ``now``: seconds, of the file system's clock."""
    for path in folder.glob("*"):
        try:
            if now - path.stat().st_mtime > KEPT_S:
                path.unlink()
        except FileNotFoundError:
            continue
