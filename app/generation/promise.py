"""Makes the promise: the inputs into the storage, then task row, hold and input rows in one transaction."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from app.accounts.keys import Principal
from app.credits.ledger import Kept, Ledger, Promise
from app.errors import MediagateError, OutcomeUnknown
from app.failpoints import failpoint
from app.generation.files import inputs_as_files, remove_files, store_inputs
from app.generation.prepare import Prepared
from app.generation.turns import hold_is_placed
from app.intake import CallerLeft, Intake, Sent
from app.settings import Settings
from app.storage.base import BlobStore
from app.tasks.lifecycle import Claimed, Lifecycle, Status
from app.values import new_id, task_public_id


class Promiser:
    def __init__(self, *, settings: Settings, ledger: Ledger, lifecycle: Lifecycle, storage: BlobStore) -> None:
        self._settings = settings
        self._ledger = ledger
        self._lifecycle = lifecycle
        self._storage = storage

    async def accept(
        self, principal: Principal, prepared: Prepared, intake: Intake, *, source: Mapping[str, Any] | None = None
    ) -> UUID:
        """Promise the task and leave it queued. Returns the task that is meant, as the intake notes it too: an older
        one when the caller's idempotency key was used meanwhile.

        Raises: as `Ledger.accept`, and CallerLeft; then nothing stays behind.
        """
        task_id = new_id()
        is_image = prepared.choice.operation.kind == "image"
        wait_s = self._settings.queue_wait_image_s if is_image else self._settings.queue_wait_video_s
        request = prepared.as_request(source=source, request_id=intake.request_id)

        async def promise(rows: list[dict[str, Any]]) -> Kept:
            promised = _promise(task_id, principal, prepared, intake.sent, request, rows, wait_s)
            kept = Kept(await self._ledger.accept(promised), 0)
            await failpoint("after_reserve")
            return kept

        return (await self._with_inputs(task_id, prepared, intake, promise)).task_id

    async def begin(self, principal: Principal, prepared: Prepared, intake: Intake) -> tuple[UUID, Claimed | None]:
        """Promise the task and claim it for this process at once; None for the claim: its pool is full, it waits, or
        an older task is meant.

        Raises: as `Ledger.begin`, and CallerLeft; then nothing stays behind.
        """
        task_id = new_id()
        request = prepared.as_request(request_id=intake.request_id)
        started_at = time.monotonic()
        claimer = self._lifecycle.new_claimer()

        async def promise(rows: list[dict[str, Any]]) -> Kept:
            return await self._ledger.begin(
                _promise(task_id, principal, prepared, intake.sent, request, rows, self._settings.queue_wait_image_s),
                provider=prepared.provider,
                owner=claimer,
                lease_s=self._lifecycle.lease_s,
                deadline_s=self._settings.deadline_image_s,
                slots=prepared.slots,
            )

        try:
            kept = await self._with_inputs(task_id, prepared, intake, promise)
        except OutcomeUnknown:
            self._lifecycle.may_have_claimed(claimer)
            raise
        await failpoint("after_reserve")  # and the claim, and the attempt row: one transaction
        token = kept.token
        if token == 0:
            return kept.task_id, None
        return task_id, Claimed(
            id=task_id,
            account_id=principal.account_id,
            token=token,
            status=Status.SUBMITTING,
            model=prepared.model.id,
            pool=prepared.pool,
            attempt_no=1,
            upstream_id=None,
            request=request,
            claims=1,
            age_s=0.0,
            is_overdue=False,
            cancel_requested=False,
            credential=None,
            claimed_at=started_at,
        )

    async def _with_inputs(
        self,
        task_id: UUID,
        prepared: Prepared,
        intake: Intake,
        promise: Callable[[list[dict[str, Any]]], Awaitable[Kept]],
    ) -> Kept:
        files = inputs_as_files(prepared.inputs)
        rows, keys = await store_inputs(self._storage, files, ttl=self._settings.input_ttl)
        try:
            if intake.is_abandoned:
                raise CallerLeft
            kept = await promise(rows)
        except OutcomeUnknown as error:
            # It may have been committed: the caller must look, not send again. The sweep removes files without a row.
            error.task_id = task_public_id(task_id)
            raise
        except (MediagateError, CallerLeft):
            await remove_files(self._storage, keys)
            raise
        intake.task_id, intake.is_replay = kept.task_id, kept.task_id != task_id
        if intake.is_replay:
            await remove_files(self._storage, keys)
        hold_is_placed()
        return kept


def _promise(
    task_id: UUID,
    principal: Principal,
    prepared: Prepared,
    sent: Sent | None,
    request: Mapping[str, Any],
    rows: list[dict[str, Any]],
    wait_s: float,
) -> Promise:
    return Promise(
        task_id=task_id,
        key_id=principal.key_id,
        kind=prepared.choice.operation.kind,
        model=prepared.model.id,
        pool=prepared.pool,
        hold=prepared.quote.credits,
        wait_s=wait_s,
        request=request,
        inputs=rows,
        idempotency_key=sent.key if sent else None,
        fingerprint=sent.fingerprint if sent else None,
    )
