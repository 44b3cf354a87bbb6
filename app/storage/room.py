"""Whether the disk has room for new work. Results of work that runs are stored as long as a single byte fits."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from app.errors import Overloaded

log = structlog.get_logger(__name__)

LOOK_S = 1.0
RETRY_AFTER_S = 30


class Room:
    """The file system of one folder, looked at once a second at most."""

    def __init__(
        self, folder: Path, *, min_bytes: int, min_percent: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._min_bytes = min_bytes
        self._min_percent = min_percent
        self._clock = clock
        self._looked_at: float | None = None
        self._is_short = False

    async def check(self) -> None:
        """Raises: Overloaded, while less than the larger of both limits is free."""
        if not (self._min_bytes or self._min_percent):
            return
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= LOOK_S:
            self._looked_at = now  # the others go by what was seen last: a network file system may take its time
            await self._look()
        if self._is_short:
            raise Overloaded(
                "The server's disk is almost full: it takes no new work. Nothing was done or charged.",
                retry_after_s=RETRY_AFTER_S,
            )

    async def _look(self) -> None:
        usage = await asyncio.to_thread(shutil.disk_usage, self._folder)
        is_short = usage.free < max(self._min_bytes, usage.total * self._min_percent / 100)
        if is_short != self._is_short:
            log.warning("disk.almost_full" if is_short else "disk.has_room_again", free_bytes=usage.free)
        self._is_short = is_short
