"""Joins a request that was sent before to the task it made then: nothing is judged, fetched or charged again."""

from __future__ import annotations

from uuid import UUID

import structlog

from app.accounts.keys import Principal
from app.credits.ledger import Ledger
from app.errors import InternalError, ModelNotAllowed, ResultExpired
from app.generation.turns import hold_is_placed
from app.intake import Intake
from app.tasks.idempotency import Idempotency
from app.tasks.queries import TaskQueries, TaskView
from app.values import task_public_id

log = structlog.get_logger()


class Repeats:
    def __init__(self, *, idempotency: Idempotency, queries: TaskQueries, ledger: Ledger) -> None:
        self._idempotency = idempotency
        self._queries = queries
        self._ledger = ledger

    async def find(self, principal: Principal, intake: Intake) -> TaskView | None:
        """Return the task of the same request, when it was sent before. Raises: IdempotencyKeyReused; as `join`."""
        if intake.sent is None:
            return None
        task_id = await self._idempotency.find(intake.sent, account_id=principal.account_id, key_id=principal.key_id)
        return None if task_id is None else await self.join(principal, intake, task_id)

    async def join(self, principal: Principal, intake: Intake, task_id: UUID) -> TaskView:
        """Let this request be about that task. Raises: ModelNotAllowed, and then nothing of it is told; ResultExpired
        when its owner has deleted it.
        """
        view = await self._queries.find(task_id, account_id=principal.account_id)
        if view is None:
            raise InternalError(f"The task {task_public_id(task_id)} has no row.")
        if not principal.may_use(view.model):
            raise ModelNotAllowed(f"This API key may not use the model '{view.model}'.", param="model")
        if intake.has_key:
            self._idempotency.replays += 1
        intake.task_id, intake.is_replay = task_id, True
        hold_is_placed()  # what is left is waiting
        if view.deleted_at is not None:
            raise ResultExpired(view.public_id)
        return view

    async def abandon(self, task_id: UUID) -> bool:
        """Cancel a task whose caller has left while it is queued: free. Returns whether it was."""
        token = await self._idempotency.abandon(task_id)
        if token is None or not await self._ledger.cancel(task_id, token):
            return False
        log.info("task.abandoned", task_id=str(task_id))
        return True
