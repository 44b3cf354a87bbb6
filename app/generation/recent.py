"""Answers that are dear and may be seconds old: asked for once, however many look at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Recent:
    """What was asked for in the last ``keep_s`` seconds; 0: nothing. ``clock`` is monotonic seconds."""

    def __init__(self, keep_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s = keep_s
        self._clock = clock
        self._asked: dict[Hashable, tuple[float, asyncio.Task[Any]]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Return the answer to ``key``, which another may be waiting for already. What fails is asked again."""
        if not self._keep_s:
            return await ask()
        now = self._clock()
        self._asked = {known: asked for known, asked in self._asked.items() if not self._is_old(asked, now)}
        if key not in self._asked:
            self._asked[key] = now + self._keep_s, asyncio.create_task(ask())
        # One who leaves does not take it away from the others.
        answer: Answer = await asyncio.shield(self._asked[key][1])
        return answer

    def _is_old(self, asked: tuple[float, asyncio.Task[Any]], now: float) -> bool:
        until, task = asked
        if not task.done():
            return False
        return until <= now or task.cancelled() or task.exception() is not None
