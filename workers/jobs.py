"""The jobs and the loops of a worker: thin shells around the services."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app.db import is_transient
from app.errors import DatabaseUnavailable
from app.wiring import Services

log = structlog.get_logger()

ENQUEUE_AGAIN_S = 5.0
"""A task whose message may still be on its way is not sent another one before this."""
HOLDERS_FIRST_S = 3.0
"""Leases run out while the database is away, and their holders come back at the same moment as we: they go first."""
HOUSEKEEPING_S = 300.0
NO_TASK = UUID(int=0)


async def advance_task(ctx: dict[str, Any], task_id: str) -> None:
    """Take one step of a task. Safe to run twice or at once: the lease decides who works."""
    await ctx["steps"].take(UUID(task_id))


class StepRunner:
    """The steps that run in this worker, whoever asked for them. They end by themselves: not with the message's
    connection, which Redis may cut at any moment."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limit = asyncio.Semaphore(services.settings.worker_jobs)
        self._running: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def take(self, task_id: UUID) -> None:
        """Take one step and return at its end. Cancelling the caller does not cancel the step."""
        if not self._is_stopping:
            await asyncio.shield(self.begin(task_id))

    def begin(self, task_id: UUID) -> asyncio.Task[None]:
        """Take one step as soon as there is a place."""
        step = asyncio.create_task(self._step(task_id))
        self._running.add(step)
        step.add_done_callback(self._running.discard)
        return step

    async def _step(self, task_id: UUID) -> None:
        async with self._limit:
            if self._is_stopping:
                return
            try:
                await self._services.advancer.advance(task_id)
            except Exception as error:
                if not (is_transient(error) or isinstance(error, DatabaseUnavailable)):
                    log.exception("step.failed", task_id=str(task_id))

    async def drain(self, timeout_s: float) -> int:
        """Begin nothing more, wait for what runs, cancel the rest. Returns how many were cancelled."""
        self._is_stopping = True
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)
        left = list(self._running)
        for step in left:
            step.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)


class Sweep:
    """Finds due tasks that no message woke. While Redis is away it takes their steps itself."""

    def __init__(self, services: Services, steps: StepRunner | None = None) -> None:
        self._services = services
        self._steps = steps or StepRunner(services)
        self._sent: dict[UUID, float] = {}
        self._taken: set[UUID] = set()

    async def run(self) -> None:
        """Sweep until cancelled. After an absence of the database, those who hold results write them down first."""
        was_away = False
        while True:
            await asyncio.sleep(self._services.settings.sweep_s)
            try:
                if was_away:
                    await self._services.lifecycle.find_due(NO_TASK)  # is it back?
                    await asyncio.sleep(min(HOLDERS_FIRST_S, self._services.settings.lease_s))
                await self.once()
                was_away = False
            except Exception as error:
                if not (is_transient(error) or isinstance(error, DatabaseUnavailable)):
                    raise
                was_away = True
                log.warning("sweep.database_away", error=type(error).__name__)

    async def once(self) -> list[UUID]:
        """Wake what is overdue and was not woken just now. Returns which tasks."""
        now, queue = time.monotonic(), self._services.queue
        is_lost = queue.is_away or await queue.was_emptied(self._services.lifecycle.owner)
        sent = {} if is_lost else self._sent  # messages that were sent do not arrive any more
        # Never longer than half a lease: who took the task may have died meanwhile, and its lease has ended.
        again_s = min(ENQUEUE_AGAIN_S, self._services.settings.lease_s / 2)
        self._sent = {task_id: at for task_id, at in sent.items() if now - at < again_s}
        # While Redis is away there is no message to wait for.
        grace_s = 0.0 if queue.is_away else self._services.settings.sweep_s
        known = self._sent.keys() | self._taken
        overdue = await self._services.lifecycle.overdue(grace_s=grace_s, known=known)
        for due in overdue:
            if await queue.enqueue(due.id):
                self._sent[due.id] = now
            else:
                self._taken.add(due.id)
                self._steps.begin(due.id).add_done_callback(partial(self._done, due.id))
        return [due.id for due in overdue]

    def _done(self, task_id: UUID, _step: asyncio.Task[None]) -> None:
        self._taken.discard(task_id)


async def keep_house(services: Services) -> None:
    """Remove expired and orphaned files and the like, now and every five minutes. A chore that fails stops no other."""
    chores = (
        services.retention.run_once,
        services.book.purge,
        services.sessions.prune,
        services.forms.sweep,
        services.ledger.expire_due,
        services.webhook_log.prune,
        services.poller.look_at_given_up,
    )
    while True:
        for chore in chores:
            try:
                await chore()
            except Exception as error:
                is_away = is_transient(error) or isinstance(error, DatabaseUnavailable)
                log.error("house.chore_failed", chore=chore.__qualname__, exc_info=not is_away)
        await asyncio.sleep(HOUSEKEEPING_S)
