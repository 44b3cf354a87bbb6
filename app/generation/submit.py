"""Sends a task to its upstream, and sorts out what became of it when the answer is a refusal, or none at all.

A paid call is made at most once per attempt row: after an unknown outcome the same token is sent again where the
upstream knows tokens, the job is looked for where it has a list, and elsewhere the task is given up.
"""

from __future__ import annotations

import time
from pathlib import Path

import structlog
from sqlalchemy.exc import IntegrityError

from app.db import until_done
from app.errors import (
    NO_ROOM,
    NOT_CHARGED,
    ContentPolicyViolation,
    InvalidParameter,
    MediagateError,
    ResultUnavailable,
    UpstreamErrorPublic,
)
from app.failpoints import failpoint
from app.generation import turns
from app.generation.context import Steps, outcome_unknown
from app.generation.deliver import no_room
from app.requests import ImageRequest
from app.tasks.lifecycle import Claimed
from app.upstreams.protocols import (
    Call,
    ImageGenerator,
    PartialSink,
    Provider,
    SubmitFinder,
    SubmitSafety,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
    VideoSubmitter,
)

log = structlog.get_logger()

SEND_WITHIN_S = 20.0
"""A step that stalled longer since its claim does not send any more: its lease may be somebody else's."""
BUSY_MAX_S = 60.0
DENIED_WAIT_S = 60.0
AGAIN_MIN_S = 0.5
AGAIN_MAX_S = 30.0
"""How long a submit of unknown outcome waits until its token is sent once more."""
LOOK_AGAIN_S = 10.0
FULL_AGAIN_S = 5.0


class Submitter:
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    async def submit(
        self, task: Claimed, provider: Provider, call: Call, *, is_fresh: bool, on_partial: PartialSink | None
    ) -> float | None:
        """Send it. Returns the seconds until the next step, or None when nothing is left to do here."""
        steps = self._steps
        request = await steps.request_of(task)
        if time.monotonic() - task.claimed_at > SEND_WITHIN_S:
            return await self._too_late_to_send(task, is_fresh=is_fresh)
        await failpoint("after_attempt_row")
        try:
            if isinstance(request, ImageRequest):
                if not isinstance(provider, ImageGenerator):
                    raise UpstreamDenied(f"{provider.name} makes no images")
                image = await provider.generate_image(request, call, _forgiving(on_partial))
            else:
                if not isinstance(provider, VideoSubmitter):
                    raise UpstreamDenied(f"{provider.name} makes no videos")
                job = await provider.submit_video(request, call)
        except UpstreamError as error:
            return await self._not_submitted(task, provider, error, is_fresh=is_fresh)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                return await self._not_written(task, provider, error)
            # A provider's own mistake after the request may have left: nobody knows what the upstream did.
            log.exception("provider.raised", task_id=str(task.id), provider=provider.name)
            unknown = UpstreamOutcomeUnknown(type(error).__name__)
            return await self._not_submitted(task, provider, unknown, is_fresh=is_fresh, is_poison=True)
        await failpoint("after_post_answer")
        await steps.health.note(task.pool, is_ok=True)
        if not isinstance(request, ImageRequest):
            await self._accepted(task, provider, job)
            return None  # the poller takes it from here
        await steps.note_cost(task, image.cost)
        await failpoint("after_running")  # an image never runs: its one answer is handle, end and result
        await failpoint("after_poll")
        try:
            with turns.finishing():
                done = await steps.delivery.image(task, request, image)
        except ResultUnavailable as error:
            await steps.fail(task, error, attempt="failed")
            return None
        await steps.ended(task, done)
        return None

    async def unsent(self, task: Claimed, why: str, *, wake_s: float) -> float:
        """A fresh attempt of which nothing left this process: back to the queue. Raises: LeaseLost."""
        await self._steps.lifecycle.refused(
            task, error=why, http_status=None, wake_s=wake_s, queue_s=self._queue_wait(task)
        )
        return wake_s

    async def _too_late_to_send(self, task: Claimed, *, is_fresh: bool) -> float:
        """The step stalled; its lease, if it is ours still, could end while the upstream works. Raises: LeaseLost."""
        if is_fresh:
            return await self.unsent(task, "stalled before it was sent", wake_s=0.0)
        await self._steps.lifecycle.release(task, wake_s=0.0, is_poison=False)
        return 0.0

    async def _not_written(self, task: Claimed, provider: Provider, error: OSError) -> float | None:
        """An answer came that our full disk could not take: the next try may, where a try costs nothing."""
        log.error("disk.full", task_id=str(task.id), error=str(error))
        if provider.capabilities.submit is SubmitSafety.BLIND:
            await self._steps.fail(task, no_room(), attempt_error="no room for the answer")
            return None
        await self._steps.lifecycle.uncertain(
            task, error="no room for the answer", http_status=None, wake_s=FULL_AGAIN_S, is_progress=True
        )
        return FULL_AGAIN_S

    async def _accepted(self, task: Claimed, provider: Provider, job: UpstreamJob) -> None:
        settings = self._steps.settings
        wait_s = provider.capabilities.poll_s or settings.poll_min_s
        await self._steps.lifecycle.accepted(
            task, upstream_id=job.id, wake_s=wait_s, deadline_s=settings.deadline_video_s
        )
        await failpoint("after_running")
        log.info("task.accepted", task_id=str(task.id), upstream=task.upstream)

    async def _not_submitted(
        self, task: Claimed, provider: Provider, error: UpstreamError, *, is_fresh: bool, is_poison: bool = False
    ) -> float | None:
        """Sort out a submit that failed. ``is_poison``: by a mistake of ours, which few more tries will mend."""
        note = f"{type(error).__name__}: {error}"[:500]
        await self._note_health(task, error)
        await self._steps.note_cost(task, error.cost)
        match error:
            case UpstreamModerated():
                refusal: MediagateError = ContentPolicyViolation(said(error))
                await self._steps.fail(task, refusal, attempt="failed", attempt_error=note)
                return None
            case UpstreamRejected():
                await self._steps.fail(task, InvalidParameter(said(error)), attempt="refused", attempt_error=note)
                return None
            case UpstreamFailed():
                await self._steps.fail(task, UpstreamErrorPublic(said(error)), attempt="failed", attempt_error=note)
                return None
            case UpstreamBusy() | UpstreamDenied() if is_fresh:
                return await self._refused(task, error, note)
        # Sent, outcome unknown; or asked again and told nothing about the first sending.
        if provider.capabilities.submit is SubmitSafety.BLIND:
            await self._steps.fail(task, outcome_unknown(), attempt_error=note)
            return None
        wait_s = AGAIN_MIN_S if is_fresh else await self._again_wait(task)
        await self._steps.lifecycle.uncertain(
            task, error=note, http_status=error.http_status, wake_s=wait_s, is_progress=not is_poison
        )
        log.warning("task.uncertain", task_id=str(task.id), error=type(error).__name__)
        return wait_s

    async def _again_wait(self, task: Claimed) -> float:
        """As long as it was tried already: the tries grow apart until the deadline ends them."""
        attempts = await until_done(lambda: self._steps.queries.attempts(task.id))
        age_s: float = attempts[-1]["age_s"]
        return min(max(age_s, AGAIN_MIN_S), AGAIN_MAX_S)

    async def _refused(self, task: Claimed, error: UpstreamError, note: str) -> float | None:
        """Certainly not accepted: on to another upstream, or wait for this one."""
        steps = self._steps
        elsewhere = await steps.elsewhere(task.id, task.pool)
        wait_s = 0.0 if elsewhere else _refused_wait(error, task.attempt_no)
        await steps.lifecycle.refused(
            task,
            error=note,
            http_status=error.http_status,
            wake_s=wait_s,
            queue_s=self._queue_wait(task),
            pool=elsewhere,
        )
        if await until_done(lambda: steps.lifecycle.is_cancel_requested(task.id)):
            await steps.cancelled(task)
            return None
        log.info("task.refused", task_id=str(task.id), wait_s=wait_s, error=type(error).__name__, elsewhere=elsewhere)
        return wait_s

    async def look_for(self, task: Claimed, provider: Provider, call: Call) -> float | None:
        """A submit of unknown outcome where our token means nothing: find it in the upstream's list, or give up."""
        steps = self._steps
        request = await steps.request_of(task)
        if not isinstance(provider, SubmitFinder) or isinstance(request, ImageRequest):
            await steps.fail(task, outcome_unknown(), attempt_error="outcome unknown")
            return None
        attempt = (await until_done(lambda: steps.queries.attempts(task.id)))[-1]
        try:
            job = await provider.find_submitted(request, call, attempt["sent_at"])
            if job is not None:
                await self._accepted(task, provider, job)
                return None
            note = "not in the list yet"
            if attempt["age_s"] >= steps.settings.submit_absent_s:
                log.info("task.proved_absent", task_id=str(task.id))
                await steps.lifecycle.refused(
                    task, error="not in the list", http_status=None, wake_s=0.0, queue_s=self._queue_wait(task)
                )
                return 0.0
        except UpstreamError as error:
            note = f"list: {type(error).__name__}: {error}"[:500]
        except IntegrityError:  # two of our tasks look alike, and the other one has this job
            note = "list: another task has this job"
        again_s = min(LOOK_AGAIN_S, steps.settings.submit_absent_s / 4)
        await steps.lifecycle.uncertain(task, error=note, http_status=None, wake_s=again_s, is_progress=True)
        return again_s

    async def _note_health(self, task: Claimed, error: UpstreamError) -> None:
        """Let the pool's health know: only infrastructure errors count, a 429 pauses, a denied account waits longer."""
        health = self._steps.health
        match error:
            case UpstreamDenied():
                log.error("upstream.denied", pool=task.pool, status=error.http_status)
                await health.pause(task.pool, DENIED_WAIT_S)
            case UpstreamBusy() if error.http_status is not None or error.retry_after_s is not None:
                await health.pause(task.pool, _refused_wait(error, task.attempt_no))
            case _:
                await health.note(task.pool, is_ok=isinstance(error, UpstreamRejected | UpstreamFailed))

    def _queue_wait(self, task: Claimed) -> float:
        is_image = str(task.request["operation"]).startswith("image")
        settings = self._steps.settings
        return settings.queue_wait_image_s if is_image else settings.queue_wait_video_s


def _forgiving(on_partial: PartialSink | None) -> PartialSink | None:
    """An interim image that cannot be shown must not cost the one that was paid for."""
    if on_partial is None:
        return None

    async def show(index: int, path: Path) -> None:
        try:
            await on_partial(index, path)
        except OSError as error:
            log.warning("image.partial_dropped", error=str(error))

    return show


def said(error: UpstreamError) -> str:
    """Return what the caller is told: the upstream's reason, cleaned, and that it cost nothing."""
    return f"{error.public.rstrip('.')}. {NOT_CHARGED}"


def _refused_wait(error: UpstreamError, attempt_no: int) -> float:
    if isinstance(error, UpstreamBusy):
        wait_s = error.retry_after_s
        return min(wait_s if wait_s is not None else float(2 ** min(attempt_no - 1, 6)), BUSY_MAX_S)
    return DENIED_WAIT_S
