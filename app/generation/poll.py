"""Asks upstreams about running videos, many at once, and fetches what is done.

One statement claims what is due, one writes down all that still runs. No upstream can use up the places of the others.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack

import structlog

from app.db import is_transient
from app.errors import NO_ROOM, ContentPolicyViolation, DatabaseUnavailable, InvalidMedia, UpstreamErrorPublic
from app.failpoints import failpoint
from app.generation.context import Steps
from app.generation.deliver import WorkFolder
from app.generation.submit import said
from app.settings import Settings
from app.tasks.lifecycle import Claimed, LeaseLost
from app.upstreams.protocols import (
    Call,
    Finished,
    Provider,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamRejected,
    VideoCanceller,
    VideoSubmitter,
)
from app.upstreams.registry import UnknownUpstream

log = structlog.get_logger()

RETRY_S = 5.0
FETCH_AGAIN_S = 15.0
BATCH = 200
PER_UPSTREAM = 200
"""Polls of one upstream that may be claimed at once: one that hangs keeps no others from being asked."""
AT_ONCE = 32
"""Of those, how many are asked at the same time."""
TICK_S = 0.1
AWAY_S = 1.0

StillRunning = tuple[Claimed, int | None, float]


class Poller:
    """One per worker. `run` must be going; `one` serves whoever holds a single task."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._busy: Counter[str] = Counter()
        self._places: dict[str, asyncio.Semaphore] = {}
        self._still: list[StillRunning] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def run(self) -> None:
        """Poll what is due until cancelled. What is being asked or fetched outlives an absence of the database."""
        try:
            while not self._is_stopping:
                try:
                    await self._round()
                except Exception as error:
                    if not (is_transient(error) or isinstance(error, DatabaseUnavailable)):
                        raise
                    log.warning("poller.database_away", error=type(error).__name__)
                    await asyncio.sleep(AWAY_S)
                await asyncio.sleep(TICK_S)
        except asyncio.CancelledError:
            await self.drain(0.0)
            raise

    async def _round(self) -> None:
        await self._write_down()
        full = [upstream for upstream, count in self._busy.items() if count >= PER_UPSTREAM]
        for task in await self._steps.lifecycle.claim_running(limit=BATCH, but=full):
            self._busy[task.upstream] += 1
            asking = asyncio.create_task(self._ask(task))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)

    async def drain(self, timeout_s: float) -> int:
        """Claim nothing more, wait for what is asked and fetched, cancel the rest. Returns how many were cancelled."""
        self._is_stopping = True
        if self._asking and timeout_s > 0:
            await asyncio.wait(self._asking, timeout=timeout_s)
        left = list(self._asking)
        for asking in left:
            asking.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if timeout_s > 0:
            try:
                await self._write_down()
            except Exception as error:  # noqa: BLE001 - we stop anyway, and the leases run out by themselves
                log.warning("poller.not_written_down", error=type(error).__name__)
        return len(left)

    async def look_at_given_up(self) -> int:
        """Ask once more about videos that were given up at their deadline. Returns how many succeeded late.

        For the operator's books only: nothing is charged or delivered, the hold was released long ago.
        """
        steps, late = self._steps, 0
        for task in await steps.lifecycle.given_up():
            if task.upstream not in steps.registry.snapshot.accounts or task.upstream_id is None:
                continue
            provider = steps.registry.provider_of(task.upstream)
            if not isinstance(provider, VideoSubmitter):
                continue
            async with WorkFolder(steps.settings.spool_dir) as folder:
                try:
                    state = await provider.poll_video(UpstreamJob(task.upstream_id), steps.call_of(task, folder))
                except (UpstreamError, UnknownUpstream):
                    continue  # it failed there too, or cannot be asked any more
            if isinstance(state, Finished):
                late += 1
                log.warning("upstream.late_success", task_id=str(task.id), upstream=task.upstream, job=task.upstream_id)
                await steps.lifecycle.note_late(task)
        return late

    async def _write_down(self) -> None:
        if self._still:
            still, self._still = self._still, []
            try:
                await self._steps.lifecycle.all_progressed(still)
            except DatabaseUnavailable:
                self._still = [*still, *self._still]
                raise

    async def _ask(self, task: Claimed) -> None:
        try:
            place = self._places.setdefault(task.upstream, asyncio.Semaphore(AT_ONCE))
            async with self._steps.leases.held(task), place:  # the lease is kept while it waits for its place, too
                still = None if self._is_stopping else await self.one(task)
                if still is not None:
                    self._still.append(still)
        except LeaseLost:
            log.info("task.lease_lost", task_id=str(task.id))
        except Exception:
            # Left to the lease: when it runs out the task is asked about again, and poison ends it.
            log.exception("task.poll_broke", task_id=str(task.id), pool=task.pool)
        finally:
            self._busy[task.upstream] -= 1

    async def one(self, task: Claimed) -> StillRunning | None:
        """Ask about one claimed task. Returns what to write down when it still runs; None: that was done here."""
        steps = self._steps
        if await steps.is_over(task):
            return None
        provider = steps.registry.provider_of(task.upstream)
        async with AsyncExitStack() as stack:
            try:
                folder = await stack.enter_async_context(WorkFolder(steps.settings.spool_dir))
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                log.error("disk.full", task_id=str(task.id), status=task.status)
                return task, None, RETRY_S
            return await self._poll(task, provider, steps.call_of(task, folder))

    async def _poll(self, task: Claimed, provider: Provider, call: Call) -> StillRunning | None:
        steps = self._steps
        if not isinstance(provider, VideoSubmitter) or task.upstream_id is None:
            raise TypeError(f"{provider.name} cannot be polled")
        job = UpstreamJob(task.upstream_id)
        if task.cancel_requested and isinstance(provider, VideoCanceller) and await _stopped(provider, job, call):
            await steps.cancelled(task)
            return None
        wait_s = _poll_wait(task, provider, steps.settings)
        try:
            state = await provider.poll_video(job, call)
        except UpstreamModerated as error:
            await self._failed(task, error, ContentPolicyViolation(said(error)))
            return None
        except (UpstreamRejected, UpstreamFailed) as error:
            await self._failed(task, error, UpstreamErrorPublic(said(error)))
            return None
        except UpstreamError as error:
            log.warning("task.poll_failed", task_id=str(task.id), error=type(error).__name__)
            return task, None, wait_s
        await failpoint("after_poll")
        if not isinstance(state, Finished):
            return task, state.percent, wait_s
        await steps.lifecycle.storing(task)
        await self.store(task, provider, call)
        return None

    async def _failed(
        self, task: Claimed, error: UpstreamError, public: ContentPolicyViolation | UpstreamErrorPublic
    ) -> None:
        await self._steps.note_cost(task, error.cost)
        await self._steps.fail(task, public, attempt="failed", attempt_error=str(error)[:500])

    async def store(self, task: Claimed, provider: Provider, call: Call) -> float | None:
        """Fetch a finished video and settle it. Returns the seconds until the next try, or None when it is done."""
        steps = self._steps
        if not isinstance(provider, VideoSubmitter) or task.upstream_id is None:
            raise TypeError(f"{provider.name} has nothing to fetch")
        try:
            result = await provider.fetch_video(UpstreamJob(task.upstream_id), call)
            await steps.note_cost(task, result.cost)
            done = await steps.delivery.video(task, result, call.out_dir)
        except UpstreamFailed as error:
            await self._failed(task, error, UpstreamErrorPublic(said(error)))
            return None
        except (UpstreamError, InvalidMedia, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_ROOM:
                raise
            # A file that cannot be read is given up after a few tries; one that cannot be had now, or for which the
            # disk has no room, at the deadline.
            is_poison = isinstance(error, InvalidMedia)
            log.warning("task.store_failed", task_id=str(task.id), error=type(error).__name__, claims=task.claims)
            wait_s = FETCH_AGAIN_S if isinstance(error, UpstreamError) else RETRY_S
            await steps.lifecycle.release(task, wake_s=wait_s, is_poison=is_poison)
            return wait_s
        await steps.ended(task, done)
        return None


async def _stopped(provider: VideoCanceller, job: UpstreamJob, call: Call) -> bool:
    """Whether the upstream stopped and does not bill. An upstream that cannot say goes on."""
    try:
        return await provider.cancel_video(job, call)
    except UpstreamError as error:
        log.warning("task.cancel_failed", upstream=call.upstream.name, error=type(error).__name__)
        return False


def _poll_wait(task: Claimed, provider: Provider, settings: Settings) -> float:
    """``max(5 s, 10 % of the age)``, at most a minute, 20 % jitter; a provider may set its own pace."""
    base = provider.capabilities.poll_s or min(max(settings.poll_min_s, task.age_s / 10), settings.poll_max_s)
    return base * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
