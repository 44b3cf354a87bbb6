"""Keeps the leases of the steps that run in this process, and stops a step whose lease is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from app.tasks.lifecycle import Claimed, Lease, LeaseLost, Lifecycle

log = structlog.get_logger()


class Leases:
    """One heartbeat statement for all steps of the process. `run` must be going while steps are held."""

    def __init__(self, lifecycle: Lifecycle, *, heartbeat_s: float) -> None:
        self._lifecycle = lifecycle
        self._heartbeat_s = heartbeat_s
        self._held: dict[Lease, asyncio.Task[object]] = {}
        self._lost: set[Lease] = set()

    def __len__(self) -> int:
        return len(self._held)

    @asynccontextmanager
    async def held(self, task: Claimed) -> AsyncIterator[None]:
        """Keep the lease for the block. The block is cancelled, and LeaseLost raised, when it is lost."""
        current = asyncio.current_task()
        assert current is not None  # noqa: S101 - a coroutine always runs in a task
        self._held[task.lease] = current
        try:
            yield
        except asyncio.CancelledError:
            if task.lease not in self._lost:
                raise  # not ours: somebody cancels the step itself
            current.uncancel()
            raise LeaseLost(str(task.id)) from None
        finally:
            self._held.pop(task.lease, None)
            self._lost.discard(task.lease)

    def let_go(self, task: Claimed) -> None:
        """The task is settled: what its step still does needs no lease, and no heartbeat stops it."""
        self._held.pop(task.lease, None)

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
        held = set(self._held)
        kept = await self._lifecycle.keep(held) if held else set()
        for lease in held - kept:
            step = self._held.pop(lease, None)
            if step is not None:
                self._lost.add(lease)
                step.cancel()
        await self._lifecycle.give_back_unseen()
