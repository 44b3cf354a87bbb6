"""What every step of a task needs: the process's objects, and the few things that all steps do with a task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

import structlog

from app.credits.ledger import Ledger
from app.db import until_done
from app.errors import NOT_CHARGED, InternalError, MediagateError, ResultUnavailable, UpstreamErrorPublic
from app.generation.build import image_request, video_request
from app.generation.deliver import Delivery
from app.generation.files import media_file, media_from_source
from app.generation.route import Router
from app.queue import ArqQueue
from app.requests import ImageRequest, MediaFile, VideoRequest
from app.settings import Settings
from app.storage.base import BlobStore
from app.storage.links import Links
from app.tasks.leases import Leases
from app.tasks.lifecycle import Claimed, LeaseLost, Lifecycle, Status
from app.tasks.queries import TaskQueries, TaskView
from app.tasks.waiting import Waiters
from app.upstreams.health import Health
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Call, Cost, UpstreamRejected
from app.upstreams.registry import Registry
from app.values import task_public_id, utcnow

log = structlog.get_logger()

POISON_CLAIMS = 5
"""Claims without progress after which a task is given up."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The objects behind the task engine. One per process."""

    settings: Settings
    lifecycle: Lifecycle
    leases: Leases
    ledger: Ledger
    queries: TaskQueries
    registry: Registry
    router: Router
    health: Health
    http: UpstreamHttp
    storage: BlobStore
    links: Links
    delivery: Delivery
    queue: ArqQueue
    waiters: Waiters

    def call_of(self, task: Claimed, folder: Path) -> Call:
        """Return what a provider needs for one attempt: the account, with the credential that took the task.

        Raises: UnknownUpstream.
        """
        route = self.registry.route_of(task.model, task.pool)
        return Call(
            upstream=self.registry.upstream(task.upstream, task.credential),
            model=task.upstream_model,
            client_token=task.client_token,
            attempt_no=task.attempt_no,
            out_dir=folder,
            http=self.http,
            public_url=partial(self._public_url, task),
            options=route.options if route else {},
        )

    def _public_url(self, task: Claimed, file: MediaFile) -> str:
        """Return our signed URL of an input. Raises: UpstreamRejected when nobody outside can reach us."""
        if not self.settings.is_public:
            raise UpstreamRejected(
                "no public address",
                public="This upstream fetches its inputs by URL, and this gateway has no public address "
                "(MEDIAGATE_PUBLIC_URL)",
            )
        expires = utcnow() + self.settings.input_ttl
        return self.links.sign(task_public_id(task.id), f"inputs/{file.path.name}", expires)

    async def request_of(self, task: Claimed) -> ImageRequest | VideoRequest:
        """Return the task's request in neutral form. Raises: LeaseLost when the task is gone."""
        view = await until_done(lambda: self.queries.find(task.id))
        if view is None:
            raise LeaseLost(str(task.id))
        return self.neutral(view)

    def neutral(self, view: TaskView) -> ImageRequest | VideoRequest:
        inputs = [
            media_file(file, self.storage)
            for file in sorted(view.files, key=lambda file: file.position)
            if file.role in ("input", "mask")
        ]
        if view.operation.kind == "image":
            return image_request(view.request, inputs)
        source = view.request.get("source")
        return video_request(view.request, inputs, media_from_source(source, self.storage) if source else None)

    async def elsewhere(self, task_id: UUID, pool: str) -> str | None:
        """Return another free pool for a queued task; None, too, for one that is bound to its account."""
        view = await until_done(lambda: self.queries.find(task_id))
        if view is None or view.request.get("source"):
            return None
        route = await self.router.elsewhere(view.model, self.neutral(view), view.request["params"], pool=pool)
        return route.pool if route else None

    async def note_cost(self, task: Claimed, cost: Cost | None) -> None:
        """Keep what the attempt cost us, where the upstream told."""
        if cost is not None:
            await until_done(lambda: self.lifecycle.note_cost(task, micros=cost.micros, currency=cost.currency))

    async def fail(
        self, task: Claimed, error: MediagateError, *, attempt: str | None = None, attempt_error: str | None = None
    ) -> None:
        """Settle as failed and release the hold; nothing when somebody else settled it."""

        async def fail() -> bool:
            return await self.ledger.fail(
                task.id,
                task.token,
                reason=error.reason,
                message=error.message,
                attempt=attempt,
                attempt_error=attempt_error,
            )

        if await until_done(fail):  # what the upstream said is not forgotten while the database is away
            await self.ended(task, f"failed: {error.reason}")

    async def is_over(self, task: Claimed) -> bool:
        """Settle a task that is past its deadline, or that broke again and again. Returns whether that was so."""
        if task.claims >= POISON_CLAIMS:
            await self.fail(task, _poisoned(task), attempt_error=f"given up after {task.claims} claims")
        elif task.is_overdue:
            await self.fail(task, _too_late(task), attempt_error="deadline")
        else:
            return False
        return True

    async def cancelled(self, task: Claimed) -> None:
        """Settle as cancelled and release the hold; nothing when somebody else settled it."""
        if await until_done(lambda: self.ledger.cancel(task.id, task.token)):
            await self.ended(task, "cancelled")

    async def ended(self, task: Claimed, how: str) -> None:
        """Tell whoever waits, and wake the next in line: a place became free."""
        self.leases.let_go(task)
        log.info("task.ended", task_id=str(task.id), how=how)
        await self.announce(task.id)
        try:
            following = await self.lifecycle.next_queued(task.pool)
        except Exception as error:  # noqa: BLE001 - the task has ended whatever happens here; the sweep wakes the next
            log.info("task.next_not_found", error=type(error).__name__)
            return
        if following is not None:
            await self.queue.enqueue(following)

    async def announce(self, task_id: UUID) -> None:
        """Wake everybody who waits for this task, here and in the other processes."""
        self.waiters.ended(task_id)
        await self.queue.ring(task_id)


def outcome_unknown() -> MediagateError:
    return UpstreamErrorPublic(f"The upstream's answer was lost and cannot be found again. {NOT_CHARGED}")


def _too_late(task: Claimed) -> MediagateError:
    if task.status is Status.STORING:
        return ResultUnavailable(f"The upstream's result could not be fetched. {NOT_CHARGED}")
    return UpstreamErrorPublic(f"The upstream did not finish in time. {NOT_CHARGED}")


def _poisoned(task: Claimed) -> MediagateError:
    if task.status is Status.STORING:
        return ResultUnavailable(f"The upstream's result could not be read. {NOT_CHARGED}")
    if task.status is Status.UNCERTAIN:
        return outcome_unknown()
    return InternalError(f"The task failed again and again and was given up. {NOT_CHARGED}")
