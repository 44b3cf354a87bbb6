"""What an operator does to a task by hand: cancel, resolve, refund. Audited in the money's own transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import db
from app.credits.lines import REST, check_repeat
from app.credits.refusals import ReferenceConflict, money_errors
from app.errors import (
    NOT_CHARGED,
    InvalidParameter,
    NothingToRefund,
    TaskEnded,
    TaskNotFound,
    UpstreamErrorPublic,
)
from app.generation.advance import Advancer
from app.generation.timeline import task_target
from app.journal import Actor, checked_reason, note
from app.queue import ArqQueue
from app.values import MAX_CREDITS, Credits, find_task_id, task_public_id

MAX_REFERENCE_CHARS = 200
ENDED_BY_HAND = f"The operator of this gateway ended the task. {NOT_CHARGED}"

End = Literal["failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Refund:
    credits: Credits
    reference: str
    entry_id: int
    """The ledger's row."""
    is_new: bool
    """False: this reference had given the same credits back before."""


class Repairs:
    """A worker may finish the task at the same moment: who locks its row first settles it, the other one finds that.

    Nothing here is repeated after a lost connection: the operator looks at the task and decides.
    """

    def __init__(self, engine: AsyncEngine, *, advancer: Advancer, queue: ArqQueue) -> None:
        self._engine = engine
        self._advancer = advancer
        self._queue = queue

    async def cancel(self, public_id: str, *, reason: str, actor: Actor) -> bool:
        """Cancel: free while queued, best effort once an upstream has it. Returns False when it had ended before.

        Raises: TaskNotFound, InvalidParameter.
        """
        task_id, reason = _task_id(public_id), checked_reason(reason)
        async with db.transaction(self._engine) as connection:
            before = await _lock(connection, task_id)
            if before["settled"]:
                return False
            is_settled = before["status"] == "queued" and await _settle(connection, task_id, "cancelled")
            if not is_settled:
                await connection.exec_driver_sql(_REQUEST_CANCEL, (task_id,))
            after = await _state(connection, task_id) | {"reason": reason}
            await note(connection, actor, "task.cancel", task_target(task_id), before=_public(before), after=after)
        await (self._advancer.announce(task_id) if is_settled else self._queue.enqueue(task_id))
        return True

    async def resolve(self, public_id: str, *, end: End, reason: str, actor: Actor) -> None:
        """End an unfinished task now, whatever its upstream does, and release its hold.

        ``cancelled`` is possible only where a cancellation is: before the upstream has it, or while it runs there.
        Raises: TaskNotFound, TaskEnded, InvalidParameter.
        """
        task_id, reason = _task_id(public_id), checked_reason(reason)
        async with db.transaction(self._engine) as connection:
            before = await _lock(connection, task_id)
            if before["settled"]:
                raise TaskEnded(public_id, before["status"])
            if end == "cancelled" and not await _may_move(connection, before["status"], end):
                raise InvalidParameter(
                    f"A task in state '{before['status']}' cannot be cancelled: resolve it as 'failed'.", param="as"
                )
            if end == "cancelled":
                await _settle(connection, task_id, end)
            else:
                await connection.exec_driver_sql(
                    _FAIL, (task_id, UpstreamErrorPublic.reason, ENDED_BY_HAND, f"resolved by {actor.name}"[:200])
                )
            after = await _state(connection, task_id) | {"released": before["hold"], "reason": reason}
            await note(connection, actor, "task.resolve", task_target(task_id), before=_public(before), after=after)
        await self._advancer.announce(task_id)

    async def refund(
        self,
        public_id: str,
        *,
        reason: str,
        actor: Actor,
        credits: int | None = None,
        reference: str | None = None,
        repeat: str | None = None,
        left: int | None = None,
    ) -> Refund:
        """Give captured credits back: all that is left of them, or so many. The same ``reference`` gives back once.

        ``repeat``: a reference made of its caller's key, which is nothing else's anywhere: see `check_repeat`.
        ``left`` is what its reader saw as left: a new refund is refused where that moved.
        Without a reference the amount is one: the same refund twice is a repeat. The customer reads the reason in the
        ledger. Raises: TaskNotFound, NothingToRefund, ReferenceConflict, BalanceTooHigh, InvalidParameter,
        IdempotencyKeyReused.
        """
        task_id, reason = _task_id(public_id), checked_reason(reason)
        if credits is not None and not 1 <= credits <= MAX_CREDITS:
            raise InvalidParameter("'credits' must be a whole number from 1.", param="credits")
        told_apart = f"{task_public_id(task_id)}:{_told_apart(credits, reference)}"
        full_reference = told_apart if repeat is None else repeat if credits is not None else repeat + REST
        with money_errors(needed=Credits(credits or 0)), _refund_errors(public_id):
            async with db.transaction(self._engine) as connection:
                before = await _lock(connection, task_id)
                if repeat is not None:
                    amount = {} if credits is None else {"amount": credits}
                    line = {"kind": "refund", "task_id": task_id, "note": reason, "external_ref": full_reference}
                    await check_repeat(connection, repeat, **line, **amount)
                made = await connection.exec_driver_sql(
                    "SELECT entry, amount, is_new FROM mg_refund($1, $2, $3, $4, $5)",
                    (task_id, credits, full_reference, actor.name, reason),
                )
                row = made.mappings().one()
                if row["is_new"]:
                    if left is not None:
                        given = await connection.exec_driver_sql(_REFUNDED, (task_id,))
                        if (before["charge"] or 0) - given.scalar_one() + row["amount"] != left:
                            raise InvalidParameter("Somebody refunded meanwhile. Look at what is left now.")
                    lines = await connection.exec_driver_sql(_BALANCE, (row["entry"],))
                    balance = lines.scalar_one()
                    await note(
                        connection,
                        actor,
                        "task.refund",
                        task_target(task_id),
                        before={"charge": before["charge"], "balance": balance - row["amount"]},
                        after={
                            "refund": row["amount"],
                            "balance": balance,
                            "ledger": row["entry"],
                            "reference": full_reference,
                            "reason": reason,
                        },
                    )
        return Refund(Credits(row["amount"]), full_reference, row["entry"], row["is_new"])


def _told_apart(credits: int | None, reference: str | None) -> str:
    """Return what makes this refund of its task the same one again; an operator's word is never an amount, or the rest.

    Raises: InvalidParameter.
    """
    if reference is not None:
        return f"ref:{_checked_reference(reference)}"
    return "rest" if credits is None else f"amount:{credits}"


def _checked_reference(text: str) -> str:
    text = text.strip()
    if not 1 <= len(text) <= MAX_REFERENCE_CHARS or not text.isprintable():
        raise InvalidParameter(
            f"'reference' must be 1 to {MAX_REFERENCE_CHARS} printable characters.", param="reference"
        )
    return text


@contextmanager
def _refund_errors(public_id: str) -> Iterator[None]:
    """Turn the refund's own refusals into sentences; the rest are the ledger's."""
    try:
        yield
    except IntegrityError as error:
        if db.sqlstate_of(error) != "23505":  # two tasks raced for one reference
            raise
        raise _conflict() from error
    except DBAPIError as error:
        match db.sqlstate_of(error):
            case "MG410":
                raise NothingToRefund(public_id) from error
            case "MG409":
                raise _conflict() from error
        raise


def _conflict() -> ReferenceConflict:
    return ReferenceConflict(
        "The refund is above what is left of the task's charge, or its reference was used for another refund.",
        param="credits",
    )


def _task_id(public_id: str) -> UUID:
    found = find_task_id(public_id)
    if found is None:
        raise TaskNotFound(public_id[:64])
    return found


async def _lock(connection: AsyncConnection, task_id: UUID) -> dict[str, Any]:
    """Raises: TaskNotFound."""
    row = (await connection.exec_driver_sql(_LOCK, (task_id,))).mappings().one_or_none()
    if row is None:
        raise TaskNotFound(task_public_id(task_id))
    return dict(row)


async def _state(connection: AsyncConnection, task_id: UUID) -> dict[str, Any]:
    return _public(dict((await connection.exec_driver_sql(_STATE, (task_id,))).mappings().one()))


def _public(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("status", "hold", "charge")}


async def _settle(connection: AsyncConnection, task_id: UUID, status: End) -> bool:
    result = await connection.exec_driver_sql("SELECT mg_settle($1, NULL, $2, 0, 'task_cancelled')", (task_id, status))
    return bool(result.scalar_one())


async def _may_move(connection: AsyncConnection, old: str, new: str) -> bool:
    found = await connection.exec_driver_sql(
        "SELECT 1 FROM task_transitions WHERE from_status = $1 AND to_status = $2", (old, new)
    )
    return found.first() is not None


_STATE = "SELECT status, hold, charge, settled_at IS NOT NULL AS settled FROM tasks WHERE id = $1"
_LOCK = _STATE + " FOR NO KEY UPDATE"
_FAIL = "SELECT mg_fail($1, NULL, $2, $3, NULL, $4)"
_BALANCE = "SELECT balance FROM ledger WHERE id = $1"
_REFUNDED = "SELECT coalesce(sum(amount), 0)::bigint FROM ledger WHERE task_id = $1 AND kind = 'refund'"
_REQUEST_CANCEL = """
UPDATE tasks SET cancel_requested_at = coalesce(cancel_requested_at, now()),
       wake_at = CASE WHEN lease_owner IS NULL THEN now() ELSE wake_at END WHERE id = $1"""
