"""Runs ``mediagate`` in an odd world: ``python -m tests.faults.oddly CLOCK_S REPEAT api|worker ...``.

CLOCK_S moves this process's clocks; there is no way to do that from outside without a preloaded library. REPEAT sends
every wake-up that often, the copies after waits of their own, so that they come out of order and when all is over.
"""

from __future__ import annotations

import random
import sys
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

LATE_S = 1.0


def move_clock(seconds: float) -> None:
    """The wall clock is wrong; the monotonic one began at another time, as on another machine. Before any import."""
    wall, monotonic = time.time, time.monotonic
    time.time = lambda: wall() + seconds
    time.monotonic = lambda: monotonic() + abs(seconds)

    from app import values

    right = values.utcnow
    values.utcnow = lambda: right() + timedelta(seconds=seconds)


def repeat_messages(times: int) -> None:
    from app.queue import ArqQueue

    enqueue, ring = ArqQueue.enqueue, ArqQueue.ring

    async def enqueue_all(self: ArqQueue, task_id: UUID, *, delay_s: float = 0.0) -> bool:
        sent = [await enqueue(self, task_id, delay_s=delay_s + random.uniform(0, LATE_S)) for _ in range(times - 1)]
        return all([*sent, await enqueue(self, task_id, delay_s=delay_s)])

    async def ring_all(self: ArqQueue, *arguments: Any) -> None:
        for _ in range(times):
            await ring(self, *arguments)

    ArqQueue.enqueue, ArqQueue.ring = enqueue_all, ring_all  # type: ignore[method-assign]


if __name__ == "__main__":
    clock_s, times, *rest = sys.argv[1:]
    if float(clock_s):
        move_clock(float(clock_s))
    if int(times) > 1:
        repeat_messages(int(times))
    from app.cli import main

    main(args=rest, prog_name="mediagate")
