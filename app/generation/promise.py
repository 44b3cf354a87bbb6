"""Makes the promise: the inputs into the storage, then task row, hold and input rows in one transaction."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from app.accounts.keys import Principal
from app.credits.ledger import Ledger, Promise
from app.errors import MediagateError, OutcomeUnknown
from app.generation.files import inputs_as_files, remove_files, store_files
from app.generation.prepare import Prepared
from app.settings import Settings
from app.storage.base import BlobStore
from app.tasks.lifecycle import Claimed, Lifecycle, Status
from app.values import new_id, task_public_id

T = TypeVar("T")


class Promiser:
    def __init__(self, *, settings: Settings, ledger: Ledger, lifecycle: Lifecycle, storage: BlobStore) -> None:
        self._settings = settings
        self._ledger = ledger
        self._lifecycle = lifecycle
        self._storage = storage

    async def accept(
        self, principal: Principal, prepared: Prepared, *, source: Mapping[str, Any] | None = None
    ) -> UUID:
        """Promise the task and leave it queued. Raises: as `Ledger.accept`; then nothing stays behind."""
        task_id = new_id()
        is_image = prepared.choice.operation.kind == "image"
        wait_s = self._settings.queue_wait_image_s if is_image else self._settings.queue_wait_video_s
        request = prepared.as_request(source=source)

        async def promise(rows: list[dict[str, Any]]) -> None:
            await self._ledger.accept(_promise(task_id, principal, prepared, request, rows, wait_s))

        await self._with_inputs(task_id, prepared, promise)
        return task_id

    async def begin(self, principal: Principal, prepared: Prepared) -> tuple[UUID, Claimed | None]:
        """Promise the task and claim it for this process at once; None for the claim: its pool is full, it waits.

        Raises: as `Ledger.begin`; then nothing stays behind.
        """
        task_id = new_id()
        request = prepared.as_request()
        started_at = time.monotonic()

        async def promise(rows: list[dict[str, Any]]) -> int:
            return await self._ledger.begin(
                _promise(task_id, principal, prepared, request, rows, self._settings.queue_wait_image_s),
                provider=prepared.provider,
                owner=self._lifecycle.owner,
                lease_s=self._lifecycle.lease_s,
                deadline_s=self._settings.deadline_image_s,
                slots=prepared.slots,
            )

        token = await self._with_inputs(task_id, prepared, promise)
        if token == 0:
            return task_id, None
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
        self, task_id: UUID, prepared: Prepared, promise: Callable[[list[dict[str, Any]]], Awaitable[T]]
    ) -> T:
        files = inputs_as_files(prepared.inputs)
        rows, keys = await store_files(self._storage, files, ttl=self._settings.input_ttl)
        try:
            return await promise(rows)
        except OutcomeUnknown as error:
            # It may have been committed: the caller must look, not send again. The sweep removes files without a row.
            error.task_id = task_public_id(task_id)
            raise
        except MediagateError:
            await remove_files(self._storage, keys)
            raise


def _promise(
    task_id: UUID,
    principal: Principal,
    prepared: Prepared,
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
    )
