"""Who may fill the spool folder, and how far: uploads take turns, and a process keeps to its share of the disk."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.errors import Overloaded, TooManyRequests

SMALL_BYTES = 1024 * 1024
"""A body that is known to be no larger takes no turn: it is in memory for a moment."""
RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class UploadLimits:
    at_once: int
    per_key: int
    wait_s: float
    """How long an upload waits for its turn, unread, before it is refused."""
    spool_bytes: int


@dataclass(slots=True, eq=False)
class _Waiting:
    key_id: int
    turn: asyncio.Future[None]


class Uploads:
    """The uploads of one process, in the order in which they came, but none behind another key's full share."""

    def __init__(self, limits: UploadLimits) -> None:
        self._limits = limits
        self._running: Counter[int] = Counter()
        self._waiting: deque[_Waiting] = deque()
        self._room: dict[Path, int] = {}
        """What each request's folder may grow to; of one that was read, what it holds."""
        self._read: set[Path] = set()

    @property
    def running(self) -> int:
        return self._running.total()

    @asynccontextmanager
    async def turn(self, key_id: int, size_bytes: int | None) -> AsyncIterator[None]:
        """Hold a turn while a body of ``size_bytes`` is read; None: it does not say how many.

        Raises: TooManyRequests when this key has its share under way already, Overloaded when the process has.
        """
        if size_bytes is not None and size_bytes <= SMALL_BYTES:
            yield
            return
        await self._wait(key_id)
        try:
            yield
        finally:
            self._running[key_id] -= 1
            if not self._running[key_id]:
                del self._running[key_id]
            self._wake()

    async def _wait(self, key_id: int) -> None:
        if self._may_run(key_id):
            self._running[key_id] += 1
            return
        place = _Waiting(key_id, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._limits.wait_s):
                await place.turn
        except BaseException as error:
            if place.turn.done() and not place.turn.cancelled():  # it came at the same moment
                self._running[key_id] -= 1
                self._wake()
            else:
                self._waiting.remove(place)
            if isinstance(error, TimeoutError):
                raise self._refusal(key_id) from None
            raise

    def _may_run(self, key_id: int) -> bool:
        return self.running < self._limits.at_once and self._running[key_id] < self._limits.per_key

    def _wake(self) -> None:
        for place in list(self._waiting):
            if self.running >= self._limits.at_once:
                return
            if self._may_run(place.key_id):
                self._waiting.remove(place)
                self._running[place.key_id] += 1
                place.turn.set_result(None)

    def _refusal(self, key_id: int) -> TooManyRequests | Overloaded:
        if self._running[key_id] >= self._limits.per_key:
            return TooManyRequests(
                f"This API key sends {self._limits.per_key} large bodies already. Wait for one to end, then try again.",
                retry_after_s=RETRY_AFTER_S,
            )
        return Overloaded("Too many uploads arrive just now. Nothing was done. Try again.", retry_after_s=RETRY_AFTER_S)

    # --- room -------------------------------------------------------------------------------------------------------

    def reserve(self, folder: Path, size_bytes: int) -> None:
        """Put aside room for a body that is about to be read into ``folder``. Raises: Overloaded."""
        if self._taken() + size_bytes > self._limits.spool_bytes:
            self._measure()
            if self._taken() + size_bytes > self._limits.spool_bytes:
                raise Overloaded(
                    "There is no room for this upload just now. Nothing was done. Try again.",
                    retry_after_s=RETRY_AFTER_S,
                )
        self._room[folder] = size_bytes

    def read(self, folder: Path) -> None:
        """The body is complete: from now on its folder counts with what lies in it, which soon goes to the storage."""
        self._read.add(folder)

    def release(self, folder: Path) -> None:
        self._room.pop(folder, None)
        self._read.discard(folder)

    def _taken(self) -> int:
        return sum(self._room.values())

    def _measure(self) -> None:
        for folder in self._read:
            self._room[folder] = _size_of(folder)


def _size_of(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat().st_size for entry in entries)
    except FileNotFoundError:  # a file that is moved away just now
        return 0
