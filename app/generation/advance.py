"""Takes one step of a task: claims it, and does what its state asks for. Read by API process and workers alike.

A step may run twice or at once: the lease decides who works, and every write carries its token.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID

import structlog

from app.errors import (
    NO_ROOM,
    NOT_CHARGED,
    ProviderUnavailable,
)
from app.failpoints import failpoint
from app.generation.context import Steps
from app.generation.deliver import WorkFolder
from app.generation.poll import Poller
from app.generation.submit import Submitter
from app.settings import MIB
from app.tasks.lifecycle import Claimed, Due, LeaseLost, Status
from app.upstreams.protocols import PartialSink, SubmitSafety

log = structlog.get_logger()

PROBE_AGAIN_S = 1.0
FULL_AGAIN_S = 2.0
ROOM_BYTES = 8 * MIB
"""With less free disk nothing is sent to an upstream, and nothing is fetched."""


class Advancer:
    """The task engine. One per process."""

    def __init__(self, steps: Steps, poller: Poller) -> None:
        self._steps = steps
        self._submitter = Submitter(steps)
        self._poller = poller

    async def advance(self, task_id: UUID) -> None:
        """Take the next step of the task, or of the best-ranked one of its pool, and ask for the step after it."""
        found = await self.claim(task_id)
        if found is None:
            return
        task, is_fresh = found
        wait_s = await self.carry(task, is_fresh=is_fresh)
        if wait_s is not None:
            await self._steps.queue.enqueue(task.id, delay_s=wait_s)

    async def claim(self, task_id: UUID, *, only: bool = False) -> tuple[Claimed, bool] | None:
        """Claim what is to be done: (task, whether its attempt is new). With ``only`` never another queued task."""
        lifecycle = self._steps.lifecycle
        due = await lifecycle.find_due(task_id)
        if due is None:
            return None
        if due.status is not Status.QUEUED:
            claimed = await lifecycle.claim_due(task_id)
            return None if claimed is None else (claimed, False)
        ending = await lifecycle.claim_ending(task_id)
        if ending is not None:
            return ending, False
        pool = await self._open_pool(due)
        if pool is None:
            return None
        account = self._steps.registry.account(pool.split("/", 1)[0])
        claimed = await lifecycle.claim_queued(
            pool,
            provider=account.provider,
            credential=account.newest,
            slots=account.concurrency,
            deadline_s=self._steps.settings.deadline_image_s,
            only=task_id if only else None,
        )
        return None if claimed is None else (claimed, True)

    async def _open_pool(self, due: Due) -> str | None:
        """Return the pool to take queued work from: the task's own, or another that can serve it while its own cannot.

        None: the task waits.
        """
        steps = self._steps
        wait_s = PROBE_AGAIN_S
        account = steps.registry.snapshot.accounts.get(due.upstream)
        if account is not None and account.state == "active":
            blocked = (await steps.health.blocked([due.pool])).get(due.pool)
            if blocked is None and await steps.health.may_probe(due.pool):
                return due.pool
            wait_s = blocked.seconds if blocked else PROBE_AGAIN_S
        elsewhere = await steps.elsewhere(due.id, due.pool)
        if elsewhere is not None:
            await steps.lifecycle.postpone(due.id, wake_s=0.0, pool=elsewhere)
            return elsewhere
        await steps.lifecycle.postpone(due.id, wake_s=wait_s)
        await steps.queue.enqueue(due.id, delay_s=wait_s)
        return None

    async def carry(self, task: Claimed, *, is_fresh: bool, on_partial: PartialSink | None = None) -> float | None:
        """Do one step of a claimed task. Returns the seconds until the next one; None: it ended, or is not ours."""
        await failpoint("after_claim")
        step_log = log.bind(task_id=str(task.id), pool=task.pool, attempt=task.attempt_no)
        try:
            async with self._steps.leases.held(task):
                return await self._step(task, is_fresh=is_fresh, on_partial=on_partial)
        except LeaseLost:
            step_log.info("task.lease_lost")
            return None
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - a bug in one step must not end the worker; poison makes it visible
            # Left to the lease: when it runs out the next step looks at what is known, and poison ends it.
            step_log.exception("task.step_failed", status=task.status)
            return None

    async def _step(self, task: Claimed, *, is_fresh: bool, on_partial: PartialSink | None) -> float | None:
        steps = self._steps
        if task.status is Status.QUEUED and task.cancel_requested:
            await steps.cancelled(task)
            return None
        if task.status is Status.QUEUED:
            await steps.fail(task, ProviderUnavailable(f"No upstream took this task in time. {NOT_CHARGED}"))
            return None
        if await steps.is_over(task):
            return None
        if task.status is Status.RUNNING:
            still = await self._poller.one(task)
            if still is not None:
                await steps.lifecycle.progressed(task, percent=still[1], wake_s=still[2])
            return None
        provider = steps.registry.provider_of(task.upstream)
        async with AsyncExitStack() as stack:
            try:
                folder = await stack.enter_async_context(WorkFolder(steps.settings.spool_dir, room_bytes=ROOM_BYTES))
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                return await self._no_room(task, is_fresh=is_fresh)
            call = steps.call_of(task, folder)
            if task.status is Status.STORING:
                return await self._poller.store(task, provider, call)
            if is_fresh or provider.capabilities.submit is SubmitSafety.IDEMPOTENT:
                return await self._submitter.submit(task, provider, call, is_fresh=is_fresh, on_partial=on_partial)
            return await self._submitter.look_for(task, provider, call)

    async def _no_room(self, task: Claimed, *, is_fresh: bool) -> float:
        """Pay for nothing that cannot be stored: whatever the task waited for, it waits a little longer."""
        log.error("disk.full", task_id=str(task.id), status=task.status)
        if is_fresh:
            return await self._submitter.unsent(task, "no room for a result", wake_s=FULL_AGAIN_S)
        await self._steps.lifecycle.release(task, wake_s=FULL_AGAIN_S, is_poison=False)
        return FULL_AGAIN_S

    async def announce(self, task_id: UUID) -> None:
        """Wake everybody who waits for this task, here and in the other processes."""
        await self._steps.announce(task_id)
