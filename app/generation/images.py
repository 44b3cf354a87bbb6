"""Makes images while the caller waits. The work belongs to this process, not to the caller's connection: once it is
paid for it goes on, is stored and can be fetched by its id."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from app.accounts.keys import Principal
from app.errors import InternalError, MediagateError, Overloaded, SyncWaitExceeded
from app.generation.advance import Advancer
from app.generation.prepare import Prepared, Preparer
from app.generation.promise import Promiser
from app.generation.repeats import Repeats
from app.generation.turns import hold_is_placed
from app.intake import Intake
from app.queue import ArqQueue
from app.requests import Operation
from app.settings import Settings
from app.tasks.lifecycle import Claimed, Lifecycle
from app.tasks.queries import TaskQueries, TaskView
from app.tasks.waiting import Waiters
from app.upstreams.protocols import PartialSink
from app.values import task_public_id

log = structlog.get_logger()
MAX_WAITERS = 2000
LOOK_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Started:
    """The promise is made: from here on the image can be asked for by this id."""

    public_id: str


@dataclass(frozen=True, slots=True)
class Partial:
    """An interim image. The file lives until the next event is asked for."""

    index: int
    path: Path


@dataclass(frozen=True, slots=True)
class Completed:
    view: TaskView


class Images:
    def __init__(
        self,
        *,
        settings: Settings,
        repeats: Repeats,
        preparer: Preparer,
        promiser: Promiser,
        lifecycle: Lifecycle,
        advancer: Advancer,
        queries: TaskQueries,
        waiters: Waiters,
        queue: ArqQueue,
    ) -> None:
        self._settings = settings
        self._repeats = repeats
        self._preparer = preparer
        self._promiser = promiser
        self._lifecycle = lifecycle
        self._advancer = advancer
        self._queries = queries
        self._waiters = waiters
        self._queue = queue
        self._running: set[asyncio.Task[Any]] = set()
        self._joined = 0
        """Callers who wait for a task that others work on."""

    async def run(self, principal: Principal, intake: Intake, *, operation: Operation) -> TaskView:
        """Make one image and return its finished task.

        Raises: what `Preparer.prepare` and `Ledger.begin` raise; the task's own error, with its id; SyncWaitExceeded,
        while the task goes on.
        """
        task_id, work = await self._start(principal, intake, operation, on_partial=None)
        return await self._finished(task_id, work, intake)

    async def accept(self, principal: Principal, intake: Intake, *, operation: Operation) -> TaskView:
        """Promise one image, leave it to the workers, and return its queued task; a repeated request's as it is."""
        joined = await self._repeats.find(principal, intake)
        if joined is not None:
            return joined
        prepared = await self._preparer.prepare(principal, intake, operation)
        task_id = await self._promiser.accept(principal, prepared, intake)
        if intake.is_replay:
            return await self._repeats.join(principal, intake, task_id)
        await self._queue.enqueue(task_id)
        return await self._get(task_id)

    async def events(
        self, principal: Principal, intake: Intake, *, operation: Operation
    ) -> AsyncIterator[Started | Partial | Completed]:
        """Yield the start, interim images, the finished task; of a task that was joined only start and end.

        A wrong request is raised by the first step.
        """
        partials: asyncio.Queue[tuple[int, Path]] = asyncio.Queue()
        is_watched = True

        async def on_partial(index: int, path: Path) -> None:
            # The step's folder may be gone when the caller gets round to it; its own name keeps the bytes.
            kept = intake.spool / f"partial-{index}"
            try:
                if is_watched:
                    await asyncio.to_thread(_link, path, kept)
            except FileNotFoundError:
                if intake.spool.is_dir():
                    raise
                return  # the caller has just hung up, and the spool is gone: the image goes on without a watcher
            partials.put_nowait((index, kept))

        task_id, work = await self._start(principal, intake, operation, on_partial=on_partial)
        end = asyncio.ensure_future(self._finished(task_id, work, intake))
        is_over = False
        try:
            yield Started(task_public_id(task_id))
            while True:
                next_partial = asyncio.ensure_future(partials.get())
                await asyncio.wait({next_partial, end}, return_when=asyncio.FIRST_COMPLETED)
                if next_partial.done():
                    yield Partial(*next_partial.result())
                    continue
                next_partial.cancel()
                is_over = True
                yield Completed(await end)
                return
        finally:
            is_watched = False
            end.cancel()
            if not is_over and work is not None and not intake.has_key:
                leaving = asyncio.create_task(self._abandon(task_id))
                self._running.add(leaving)
                leaving.add_done_callback(self._ended)

    async def _start(
        self, principal: Principal, intake: Intake, operation: Operation, on_partial: PartialSink | None
    ) -> tuple[UUID, asyncio.Task[None] | None]:
        """Promise and begin; or join the task of the same request, which others work on."""
        if len(self._running) + self._joined >= MAX_WAITERS:  # before it is joined to anything: it may be sent again
            raise Overloaded("Too many images are being made just now. Try again.", retry_after_s=2)
        joined = await self._repeats.find(principal, intake)
        if joined is not None:
            return joined.id, None
        prepared = await self._preparer.prepare(principal, intake, operation)
        # From the promise on nothing may be cut off by a caller who hangs up: both run in tasks of their own.
        begun = asyncio.create_task(self._begin(principal, prepared, intake, on_partial))
        self._running.add(begun)
        begun.add_done_callback(self._running.discard)
        return await asyncio.shield(begun)

    async def _begin(
        self, principal: Principal, prepared: Prepared, intake: Intake, on_partial: PartialSink | None
    ) -> tuple[UUID, asyncio.Task[None] | None]:
        task_id, claimed = await self._promiser.begin(principal, prepared, intake)
        if intake.is_replay:
            await self._repeats.join(principal, intake, task_id)
            return task_id, None
        work = asyncio.create_task(self._to_the_end(task_id, claimed, on_partial, intake))
        self._running.add(work)
        work.add_done_callback(self._ended)
        return task_id, work

    async def _to_the_end(
        self, task_id: UUID, claimed: Claimed | None, on_partial: PartialSink | None, intake: Intake
    ) -> None:
        """Take step after step in this process, until the task has ended or another one ended it."""
        silent = 0
        wait_s: float | None = 0.0
        if claimed is not None:
            wait_s = await self._advancer.carry(claimed, is_fresh=True, on_partial=on_partial)
        while wait_s is not None:
            if intake.is_abandoned:
                await self._abandon(task_id)
            if await self._waiters.wait(task_id, wait_s):
                return
            found = await self._advancer.claim(task_id, only=True)
            if found is not None:
                task, is_fresh = found
                wait_s, silent = await self._advancer.carry(task, is_fresh=is_fresh, on_partial=on_partial), 0
            elif await self._lifecycle.find_due(task_id) is None:
                return
            else:  # its pool is full, or another process works on it
                wait_s, silent = min(self._settings.sweep_s * 2**silent, LOOK_AGAIN_S), silent + 1

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._running.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            log.warning("image.left_to_the_sweep", error=type(error).__name__)

    async def _finished(self, task_id: UUID, work: asyncio.Task[None] | None, intake: Intake) -> TaskView:
        """Wait for the end, wherever the work is done. Raises: the task's error, SyncWaitExceeded."""
        hold_is_placed()  # or there is one: a joined task's
        self._joined += work is None
        ended = asyncio.ensure_future(self._waiters.wait(task_id, self._settings.sync_wait_max_s))
        gone = asyncio.ensure_future(intake.gone.wait())
        ends: set[asyncio.Future[Any]] = {ended} if work is None else {ended, work}
        try:
            view = await self._get(task_id) if work is None else None
            if view is None or not view.is_final:
                done, _ = await asyncio.wait({*ends, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone in done and work is not None and intake.is_abandoned:
                    await self._abandon(task_id)
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                view = await self._get(task_id)
            if not view.is_final:  # the step left it to its lease, or to another process
                await ended
                view = await self._get(task_id)
        except MediagateError as error:
            error.task_id = task_public_id(task_id)
            raise
        finally:
            self._joined -= work is None
            ended.cancel()
            gone.cancel()
        if not view.is_final:
            raise SyncWaitExceeded(
                f"The image is not ready after {self._settings.sync_wait_max_s:.0f} s. The task goes on: "
                f"GET /v1/images/{view.public_id}.",
                task_id=view.public_id,
            )
        if view.error is not None:
            raise view.error
        return view

    async def _abandon(self, task_id: UUID) -> None:
        """The caller has left: cancel what is still queued. What an upstream may have by now goes on, and is kept."""
        if await self._repeats.abandon(task_id):
            await self._advancer.announce(task_id)

    async def _get(self, task_id: UUID) -> TaskView:
        view = await self._queries.find(task_id)
        if view is None:
            raise InternalError(f"The task {task_public_id(task_id)} has no row.")
        return view

    async def drain(self, timeout_s: float) -> int:
        """At shutdown: wait for the images being made. Returns how many were left."""
        stop_at = time.monotonic() + timeout_s
        while self._running and (left_s := stop_at - time.monotonic()) > 0:  # what was just promised begins its work
            await asyncio.wait(self._running, timeout=left_s)
        left = list(self._running)
        for work in left:
            work.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)


def _link(source: Path, kept: Path) -> None:
    kept.unlink(missing_ok=True)
    kept.hardlink_to(source)
