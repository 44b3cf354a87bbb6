"""Keeps the leases of the steps that run in this process, and stops a step whose lease is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from app.tasks.lifecycle import Claimed, LeaseLost, Lifecycle

log = structlog.get_logger()


class Leases:
    """One heartbeat statement for all steps of the process. `run` must be going while steps are held."""

    def __init__(self, lifecycle: Lifecycle, *, heartbeat_s: float) -> None:
        self._lifecycle = lifecycle
        self._heartbeat_s = heartbeat_s
        self._held: dict[UUID, tuple[int, asyncio.Task[object]]] = {}
        self._lost: set[UUID] = set()

    def __len__(self) -> int:
        return len(self._held)

    @asynccontextmanager
    async def held(self, task: Claimed) -> AsyncIterator[None]:
        """Keep the lease for the block. The block is cancelled, and LeaseLost raised, when it is lost."""
        current = asyncio.current_task()
        assert current is not None  # noqa: S101 - a coroutine always runs in a task
        self._held[task.id] = (task.token, current)
        try:
            yield
        except asyncio.CancelledError:
            if task.id not in self._lost:
                raise  # not ours: somebody cancels the step itself
            current.uncancel()
            raise LeaseLost(str(task.id)) from None
        finally:
            self._held.pop(task.id, None)
            self._lost.discard(task.id)

    def let_go(self, task_id: UUID) -> None:
        """The task is settled: what its step still does needs no lease, and no heartbeat stops it."""
        self._held.pop(task_id, None)

    async def run(self) -> None:
        """Beat until cancelled. A database that is away for a moment costs a beat, not the leases."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            try:
                await self.beat()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next beat must come
                log.warning("lease.beat_missed", error=type(error).__name__, held=len(self._held))

    async def beat(self) -> None:
        """Keep every lease once, and stop the steps that lost theirs."""
        held = {task_id: token for task_id, (token, _) in self._held.items()}
        await self._lifecycle.give_back_unseen()
        kept = await self._lifecycle.keep(held) if held else set()
        for task_id in held.keys() - kept:
            found = self._held.get(task_id)
            if found is not None and found[0] == held[task_id]:
                del self._held[task_id]
                self._lost.add(task_id)
                found[1].cancel()
