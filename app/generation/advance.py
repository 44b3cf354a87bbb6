"""Takes one step of a task: submit, look into an unknown outcome, poll, store. Read by API process and workers alike.

A step may run twice or at once: the lease decides who works, and every write carries its token. A paid call is made at
most once per attempt row, and the row is committed before the call.
"""

from __future__ import annotations

import asyncio
import random
import time
from uuid import UUID

import structlog

from app.credits.ledger import Ledger
from app.errors import (
    NOT_CHARGED,
    ContentPolicyViolation,
    InternalError,
    InvalidMedia,
    InvalidParameter,
    MediagateError,
    ProviderUnavailable,
    ResultUnavailable,
    UpstreamErrorPublic,
)
from app.generation.build import image_request, video_request
from app.generation.deliver import Delivery, WorkFolder
from app.generation.files import media_file, media_from_source
from app.queue import ArqQueue
from app.requests import ImageRequest, MediaFile, VideoRequest
from app.settings import Settings
from app.storage.base import BlobStore
from app.tasks.leases import Leases
from app.tasks.lifecycle import Claimed, LeaseLost, Lifecycle, Status
from app.tasks.queries import TaskQueries
from app.tasks.waiting import Waiters
from app.upstreams.protocols import (
    Call,
    Finished,
    ImageGenerator,
    PartialSink,
    Provider,
    SubmitSafety,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
    VideoCanceller,
    VideoSubmitter,
)
from app.upstreams.registry import Registry

log = structlog.get_logger()

POISON_CLAIMS = 5
"""Claims without progress after which a task is given up."""
SEND_WITHIN_S = 20.0
"""A step that stalled longer since its claim does not send any more: its lease may be somebody else's."""
RETRY_S = 5.0
FETCH_AGAIN_S = 15.0
BUSY_MAX_S = 60.0
DENIED_WAIT_S = 15.0


class Advancer:
    """The task engine. One per process."""

    def __init__(
        self,
        *,
        settings: Settings,
        lifecycle: Lifecycle,
        leases: Leases,
        ledger: Ledger,
        queries: TaskQueries,
        registry: Registry,
        storage: BlobStore,
        delivery: Delivery,
        queue: ArqQueue,
        waiters: Waiters,
    ) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._leases = leases
        self._ledger = ledger
        self._queries = queries
        self._registry = registry
        self._storage = storage
        self._delivery = delivery
        self._queue = queue
        self._waiters = waiters

    async def advance(self, task_id: UUID) -> None:
        """Take the next step of the task, or of the best-ranked one of its pool, and ask for the step after it."""
        found = await self.claim(task_id)
        if found is None:
            return
        task, is_fresh = found
        wait_s = await self.carry(task, is_fresh=is_fresh)
        if wait_s is not None:
            await self._queue.enqueue(task.id, delay_s=wait_s)

    async def claim(self, task_id: UUID, *, only: bool = False) -> tuple[Claimed, bool] | None:
        """Claim what is to be done: (task, whether its attempt is new). With ``only`` never another queued task."""
        due = await self._lifecycle.find_due(task_id)
        if due is None:
            return None
        if due.status is not Status.QUEUED:
            claimed = await self._lifecycle.claim_due(task_id)
            return None if claimed is None else (claimed, False)
        upstream = due.pool.split("/", 1)[0]
        claimed = await self._lifecycle.claim_queued(
            due.pool,
            provider=self._registry.upstream(upstream).provider,
            slots=self._registry.slots_of(upstream),
            deadline_s=self._settings.deadline_image_s,
            only=task_id if only else None,
        )
        if claimed is None:
            ending = await self._lifecycle.claim_ending(task_id)
            return None if ending is None else (ending, False)
        return claimed, True

    async def carry(self, task: Claimed, *, is_fresh: bool, on_partial: PartialSink | None = None) -> float | None:
        """Do one step of a claimed task. Returns the seconds until the next one; None: it ended, or is not ours."""
        step_log = log.bind(task_id=str(task.id), pool=task.pool, attempt=task.attempt_no)
        try:
            async with self._leases.held(task):
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
        if task.status is Status.QUEUED and task.cancel_requested:
            await self._cancelled(task)
            return None
        if task.status is Status.QUEUED:
            await self._fail(task, ProviderUnavailable(f"No upstream took this task in time. {NOT_CHARGED}"))
            return None
        if task.claims >= POISON_CLAIMS:
            await self._fail(task, _poisoned(task), attempt_error=f"given up after {task.claims} claims")
            return None
        if task.is_overdue:
            await self._fail(
                task,
                UpstreamErrorPublic(f"The upstream did not finish in time. {NOT_CHARGED}"),
                attempt_error="deadline",
            )
            return None
        upstream = self._registry.upstream(task.upstream)
        provider = self._registry.provider_of(task.upstream)
        async with WorkFolder(self._settings.spool_dir) as folder:
            call = Call(upstream, task.upstream_model, task.client_token, task.attempt_no, folder)
            match task.status:
                case Status.SUBMITTING | Status.UNCERTAIN:
                    if not is_fresh and provider.capabilities.submit is not SubmitSafety.IDEMPOTENT:
                        await self._fail(task, _outcome_unknown(), attempt_error="outcome unknown")
                        return None
                    return await self._submit(task, provider, call, is_fresh=is_fresh, on_partial=on_partial)
                case Status.RUNNING:
                    return await self._poll(task, provider, call)
                case _:
                    return await self._store(task, provider, call)

    # --- submit -------------------------------------------------------------------------------------------------------

    async def _submit(
        self, task: Claimed, provider: Provider, call: Call, *, is_fresh: bool, on_partial: PartialSink | None
    ) -> float | None:
        request = await self._request(task)
        if time.monotonic() - task.claimed_at > SEND_WITHIN_S:
            raise LeaseLost(str(task.id))
        try:
            if isinstance(request, ImageRequest):
                if not isinstance(provider, ImageGenerator):
                    raise UpstreamDenied(f"{provider.name} makes no images")
                image = await provider.generate_image(request, call, on_partial)
            else:
                if not isinstance(provider, VideoSubmitter):
                    raise UpstreamDenied(f"{provider.name} makes no videos")
                job = await provider.submit_video(request, call)
        except UpstreamError as error:
            return await self._not_submitted(task, provider, error, is_fresh=is_fresh)
        except Exception as error:
            # A provider's own mistake after the request may have left: nobody knows what the upstream did.
            log.exception("provider.raised", task_id=str(task.id), provider=provider.name)
            unknown = UpstreamOutcomeUnknown(type(error).__name__)
            return await self._not_submitted(task, provider, unknown, is_fresh=is_fresh)
        if isinstance(request, ImageRequest):
            try:
                done = await self._delivery.image(task, request, image)
            except ResultUnavailable as error:
                await self._fail(task, error, attempt="failed")
                return None
            await self._ended(task, done)
            return None
        wait_s = provider.capabilities.poll_s or self._settings.poll_min_s
        await self._lifecycle.accepted(
            task, upstream_id=job.id, wake_s=wait_s, deadline_s=self._settings.deadline_video_s
        )
        log.info("task.accepted", task_id=str(task.id), upstream=call.upstream.name)
        return wait_s

    async def _not_submitted(
        self, task: Claimed, provider: Provider, error: UpstreamError, *, is_fresh: bool
    ) -> float | None:
        note = f"{type(error).__name__}: {error}"[:500]
        match error:
            case UpstreamModerated():
                await self._fail(task, ContentPolicyViolation(_said(error)), attempt="failed", attempt_error=note)
                return None
            case UpstreamRejected():
                await self._fail(task, InvalidParameter(_said(error)), attempt="refused", attempt_error=note)
                return None
            case UpstreamFailed():
                await self._fail(task, UpstreamErrorPublic(_said(error)), attempt="failed", attempt_error=note)
                return None
            case UpstreamBusy() | UpstreamDenied() if is_fresh:
                wait_s = _refused_wait(error, task.attempt_no)
                await self._lifecycle.refused(
                    task,
                    error=note,
                    http_status=error.http_status,
                    wake_s=wait_s,
                    queue_s=self._queue_wait(task),
                )
                if await self._lifecycle.is_cancel_requested(task.id):
                    await self._cancelled(task)
                    return None
                log.info("task.refused", task_id=str(task.id), wait_s=wait_s, error=type(error).__name__)
                return wait_s
        # Sent, outcome unknown; or asked again and told nothing about the first sending.
        if provider.capabilities.submit is not SubmitSafety.IDEMPOTENT:
            await self._fail(task, _outcome_unknown(), attempt_error=note)
            return None
        wait_s = min(0.25 * 2.0 ** min(task.claims, 7), 30.0)
        await self._lifecycle.uncertain(task, error=note, http_status=error.http_status, wake_s=wait_s)
        log.warning("task.uncertain", task_id=str(task.id), error=type(error).__name__)
        return wait_s

    def _queue_wait(self, task: Claimed) -> float:
        is_image = str(task.request["operation"]).startswith("image")
        return self._settings.queue_wait_image_s if is_image else self._settings.queue_wait_video_s

    # --- poll and store -----------------------------------------------------------------------------------------------

    async def _poll(self, task: Claimed, provider: Provider, call: Call) -> float | None:
        if not isinstance(provider, VideoSubmitter) or task.upstream_id is None:
            raise TypeError(f"{provider.name} cannot be polled")
        job = UpstreamJob(task.upstream_id)
        if task.cancel_requested and isinstance(provider, VideoCanceller) and await _stopped(provider, job, call):
            await self._cancelled(task)
            return None
        wait_s = _poll_wait(task, provider, self._settings)
        try:
            state = await provider.poll_video(job, call)
        except UpstreamModerated as error:
            await self._fail(task, ContentPolicyViolation(_said(error)), attempt="failed", attempt_error=str(error))
            return None
        except (UpstreamRejected, UpstreamFailed) as error:
            await self._fail(task, UpstreamErrorPublic(_said(error)), attempt="failed", attempt_error=str(error))
            return None
        except UpstreamError as error:
            log.warning("task.poll_failed", task_id=str(task.id), error=type(error).__name__)
            await self._lifecycle.progressed(task, percent=None, wake_s=wait_s)
            return wait_s
        if not isinstance(state, Finished):
            await self._lifecycle.progressed(task, percent=state.percent, wake_s=wait_s)
            return wait_s
        await self._lifecycle.storing(task)
        return await self._store(task, provider, call)

    async def _store(self, task: Claimed, provider: Provider, call: Call) -> float | None:
        if not isinstance(provider, VideoSubmitter) or task.upstream_id is None:
            raise TypeError(f"{provider.name} has nothing to fetch")
        try:
            result = await provider.fetch_video(UpstreamJob(task.upstream_id), call)
            done = await self._delivery.video(task, result, call.out_dir)
        except (UpstreamError, InvalidMedia) as error:
            # A file that cannot be read is given up after a few tries; one that cannot be had now, at the deadline.
            is_poison = isinstance(error, InvalidMedia)
            log.warning("task.store_failed", task_id=str(task.id), error=type(error).__name__, claims=task.claims)
            wait_s = RETRY_S if is_poison else FETCH_AGAIN_S
            await self._lifecycle.release(task, wake_s=wait_s, is_poison=is_poison)
            return wait_s
        await self._ended(task, done)
        return None

    async def _cancelled(self, task: Claimed) -> None:
        if await self._ledger.cancel(task.id, task.token):
            await self._ended(task, "cancelled")

    # --- ends ---------------------------------------------------------------------------------------------------------

    async def _fail(
        self, task: Claimed, error: MediagateError, *, attempt: str | None = None, attempt_error: str | None = None
    ) -> None:
        if await self._ledger.fail(
            task.id,
            task.token,
            reason=error.reason,
            message=error.message,
            attempt=attempt,
            attempt_error=attempt_error,
        ):
            await self._ended(task, f"failed: {error.reason}")

    async def _ended(self, task: Claimed, how: str) -> None:
        log.info("task.ended", task_id=str(task.id), how=how)
        await self.announce(task.id)
        following = await self._lifecycle.next_queued(task.pool)
        if following is not None:
            await self._queue.enqueue(following)

    async def announce(self, task_id: UUID) -> None:
        """Wake everybody who waits for this task, here and in the other processes."""
        self._waiters.ended(task_id)
        await self._queue.ring(task_id)

    async def _request(self, task: Claimed) -> ImageRequest | VideoRequest:
        view = await self._queries.find(task.id)
        if view is None:
            raise LeaseLost(str(task.id))
        inputs: list[MediaFile] = [
            media_file(file, self._storage)
            for file in sorted(view.files, key=lambda file: file.position)
            if file.role in ("input", "mask")
        ]
        if view.operation.kind == "image":
            return image_request(task.request, inputs)
        source = task.request.get("source")
        return video_request(task.request, inputs, media_from_source(source, self._storage) if source else None)


async def _stopped(provider: VideoCanceller, job: UpstreamJob, call: Call) -> bool:
    """Whether the upstream stopped and does not bill. An upstream that cannot say goes on."""
    try:
        return await provider.cancel_video(job, call)
    except UpstreamError as error:
        log.warning("task.cancel_failed", upstream=call.upstream.name, error=type(error).__name__)
        return False


def _said(error: UpstreamError) -> str:
    return f"{error.public.rstrip('.')}. {NOT_CHARGED}"


def _too_late(task: Claimed) -> MediagateError:
    if task.status is Status.STORING:
        return ResultUnavailable(f"The upstream's result could not be fetched. {NOT_CHARGED}")
    return UpstreamErrorPublic(f"The upstream did not finish in time. {NOT_CHARGED}")


def _outcome_unknown() -> MediagateError:
    return UpstreamErrorPublic(f"The upstream's answer was lost and cannot be found again. {NOT_CHARGED}")


def _poisoned(task: Claimed) -> MediagateError:
    if task.status is Status.STORING:
        return ResultUnavailable(f"The upstream's result could not be read. {NOT_CHARGED}")
    if task.status is Status.UNCERTAIN:
        return _outcome_unknown()
    return InternalError(f"The task failed again and again and was given up. {NOT_CHARGED}")


def _refused_wait(error: UpstreamError, attempt_no: int) -> float:
    if isinstance(error, UpstreamBusy):
        return min(error.retry_after_s or float(2 ** min(attempt_no - 1, 6)), BUSY_MAX_S)
    return DENIED_WAIT_S


def _poll_wait(task: Claimed, provider: Provider, settings: Settings) -> float:
    """``max(5 s, 10 % of the age)``, at most a minute, 20 % jitter; a provider may set its own pace."""
    base = provider.capabilities.poll_s or min(max(settings.poll_min_s, task.age_s / 10), settings.poll_max_s)
    return base * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
