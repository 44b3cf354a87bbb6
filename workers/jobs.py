"""The jobs and the loops of a worker: thin shells around the services."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID

import structlog

from app.db import is_transient
from app.errors import DatabaseUnavailable
from app.wiring import Services

log = structlog.get_logger()

ENQUEUE_AGAIN_S = 5.0
"""A task whose message may still be on its way is not sent another one before this."""
HOUSEKEEPING_S = 300.0


async def advance_task(ctx: dict[str, Any], task_id: str) -> None:
    """Take one step of a task. Safe to run twice or at once: the lease decides who works."""
    await ctx["services"].advancer.advance(UUID(task_id))


class Sweep:
    """Finds due tasks that no message woke. While Redis is away it takes their steps itself."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sent: dict[UUID, float] = {}
        self._limit = asyncio.Semaphore(services.settings.worker_jobs)
        self._steps: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Sweep until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._services.settings.sweep_s)
                await self.once()
        finally:
            for step in self._steps:
                step.cancel()

    async def once(self) -> list[UUID]:
        """Wake what is overdue and was not woken just now. Returns which tasks."""
        now = time.monotonic()
        self._sent = {task_id: at for task_id, at in self._sent.items() if now - at < ENQUEUE_AGAIN_S}
        overdue = await self._services.lifecycle.overdue(
            grace_s=self._services.settings.sweep_s, known=self._sent.keys()
        )
        for due in overdue:
            self._sent[due.id] = now
            if not await self._services.queue.enqueue(due.id):
                step = asyncio.create_task(self._step(due.id))
                self._steps.add(step)
                step.add_done_callback(self._steps.discard)
        return [due.id for due in overdue]

    async def _step(self, task_id: UUID) -> None:
        async with self._limit:
            try:
                await self._services.advancer.advance(task_id)
            except Exception as error:
                if not (is_transient(error) or isinstance(error, DatabaseUnavailable)):
                    log.exception("sweep.step_failed", task_id=str(task_id))
        self._sent.pop(task_id, None)


async def keep_house(services: Services) -> None:
    """Remove expired and orphaned files, now and every five minutes."""
    while True:
        await services.retention.run_once()
        await services.book.purge()
        await services.poller.look_at_given_up()
        await asyncio.sleep(HOUSEKEEPING_S)
