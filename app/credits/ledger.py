"""Moves credits: each method is one call into the functions of ``migrations/sql/``, and nothing else moves them.

Leases, claims and attempts are ``app.tasks.lifecycle``'s; what the customer reads is ``app.credits.statements``'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.errors import (
    AccountNotFound,
    AccountSuspended,
    BalanceTooHigh,
    DatabaseUnavailable,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidApiKey,
    InvalidRequest,
    KeyBudgetExhausted,
    TooManyTasks,
)
from app.failpoints import failpoint
from app.journal import Actor, note
from app.values import MAX_CREDITS, Credits

NOTHING = Credits(0)


class ReferenceConflict(InvalidRequest):
    """The reference was used before, for another amount or account; or a refund is above its capture."""

    reason = "invalid_parameter"


@dataclass(frozen=True, slots=True)
class Balance:
    credits: Credits
    """Spendable now."""
    held: Credits


@dataclass(frozen=True, slots=True)
class Promise:
    """A task to be accepted, with the most it can cost."""

    task_id: UUID
    key_id: int
    kind: str
    model: str
    pool: str
    hold: Credits
    wait_s: float
    """How long it may stay queued."""
    request: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    """Rows for ``mg_put_files``; the bytes lie in the storage already."""
    idempotency_key: str | None = None
    fingerprint: bytes | None = None
    """What the caller sent, as a digest; needed with a key."""

    def arguments(self) -> tuple[Any, ...]:
        return (
            self.task_id, self.key_id, self.kind, self.model, self.pool, _whole(self.hold), self.wait_s,
            json.dumps(self.request), json.dumps(list(self.inputs)), self.idempotency_key, self.fingerprint,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a promise."""

    task_id: UUID
    """Another task than the promised one when its idempotency key was used before: then nothing was done."""
    token: int
    """Of the lease; 0: the task is queued."""


class Ledger:
    """The customer's credits. Every method is one transaction, repeated safely when the connection dies."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def accept(self, promise: Promise) -> UUID:
        """Create the queued task and put its worst-case price aside. Returns the task that is meant: an older one when
        the promise's idempotency key was used before, and then nothing was done.

        Raises: InsufficientCredits, KeyBudgetExhausted, TooManyTasks, InvalidApiKey (revoked by now), AccountSuspended,
        IdempotencyKeyReused.
        """
        sql = """SELECT mg_accept($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9::text::jsonb, $10, $11) AS meant,
            0 AS token"""
        return (await self._promise(sql, promise, (), owner=None)).task_id

    async def begin(
        self, promise: Promise, *, provider: str, owner: str, lease_s: float, deadline_s: float, slots: int
    ) -> Kept:
        """Accept the task and claim it for this process, with its first attempt row. The token is that of the lease, or
        0: the upstream has ``slots`` tasks of this pool already, and this one is queued; or an older task is meant.

        Raises: as `accept`.
        """
        return await self._promise(
            """SELECT meant, coalesce(token, 0) AS token FROM mg_begin($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb,
                $9::text::jsonb, $12, $13, $14, $15, $16, $10, $11)""",
            promise,
            (provider, owner, lease_s, deadline_s, slots),
            owner=owner,
        )

    async def _promise(self, sql: str, promise: Promise, more: tuple[Any, ...], *, owner: str | None) -> Kept:
        tries = 0

        async def work() -> list[Any]:
            nonlocal tries
            tries += 1
            if tries > 1:  # an earlier COMMIT may have gone through although its answer was lost
                made = await db.once(
                    self._engine,
                    # If it was queued, a worker may hold the lease by now.
                    """SELECT id AS meant, CASE WHEN lease_owner = $2 THEN lease_token ELSE 0 END AS token
                     FROM tasks WHERE id = $1""",
                    (promise.task_id, owner),
                )
                if made:
                    return made
            try:
                return await db.once(self._engine, sql, promise.arguments() + more)
            except DBAPIError as error:
                is_locked = db.sqlstate_of(error) == db.LOCK_TIMEOUT
                if promise.idempotency_key is not None and is_locked and tries == 1:
                    # The first request with this key is still on its way: the next try shall find what it left.
                    raise DatabaseUnavailable("The database is busy. Try again.", retry_after_s=1) from error
                raise

        with money_errors(needed=promise.hold):
            [row] = await db.retried(work)
        return Kept(UUID(str(row["meant"])), int(row["token"]))

    async def finish(
        self,
        task_id: UUID,
        token: int,
        *,
        charge: Credits,
        files: Sequence[Mapping[str, Any]],
        result: Mapping[str, Any],
    ) -> bool:
        """Record the result and capture ``charge``; the rest of the hold is released.

        Returns False when the lease is gone or the task was settled: the caller removes its files.
        """
        arguments = (task_id, token, _whole(charge), json.dumps(list(files)), json.dumps(result))
        return await self._settled("SELECT mg_finish($1, $2, $3, $4::text::jsonb, $5::text::jsonb) AS ok", arguments)

    async def fail(
        self,
        task_id: UUID,
        token: int | None,
        *,
        reason: str,
        message: str,
        attempt: str | None = None,
        attempt_error: str | None = None,
    ) -> bool:
        """Record why the task failed and release the whole hold. Returns False when somebody else settled it.

        ``attempt`` is what became of the open attempt where that is known: ``refused`` or ``failed``.
        """
        return await self._settled(
            "SELECT mg_fail($1, $2, $3, $4, $5, $6) AS ok", (task_id, token, reason, message, attempt, attempt_error)
        )

    async def cancel(self, task_id: UUID, token: int | None, *, charge: Credits = NOTHING) -> bool:
        """Settle as cancelled. Returns False when the lease moved on, or somebody else settled it."""
        return await self._settled(
            "SELECT mg_settle($1, $2, 'cancelled', $3, 'task_cancelled') AS ok", (task_id, token, _whole(charge))
        )

    async def _settled(self, sql: str, arguments: tuple[Any, ...]) -> bool:
        async def work() -> bool:
            rows = await db.once(self._engine, sql, arguments)
            return bool(rows[0]["ok"])

        await failpoint("before_settle")
        settled = await db.retried(work)
        await failpoint("after_settle")
        return settled

    async def top_up(
        self,
        account_id: int,
        amount: Credits,
        *,
        ref: str,
        actor: Actor | str,
        note: str | None = None,
        kind: Literal["topup", "grant"] = "topup",
    ) -> int:
        """Add bought (``topup``) or given (``grant``) credits; the same ``ref`` adds once. Returns the ledger row's id.

        Raises: ReferenceConflict, BalanceTooHigh.
        """
        contra = "topup" if kind == "topup" else "promo"
        return await self._post(account_id, kind, contra, amount, ref, actor, note)

    async def adjust(
        self, account_id: int, amount: Credits, *, ref: str, actor: Actor | str, note: str | None = None
    ) -> int:
        """Correct the balance by ``amount``, either way; never below what is held.

        Raises: InsufficientCredits, BalanceTooHigh.
        """
        return await self._post(account_id, "adjust", "adjust", amount, ref, actor, note)

    async def _post(
        self, account_id: int, kind: str, contra: str, amount: int, ref: str, actor: Actor | str, text: str | None
    ) -> int:
        """Write the line and the audit's row together; a repeated reference writes neither again."""
        by = Actor(actor) if isinstance(actor, str) else actor

        async def work() -> int:
            async with db.transaction(self._engine) as connection:
                made = await connection.exec_driver_sql(
                    "SELECT mg_post($1, $2, $3, $4, $5, $6, p_note => $7) AS id",
                    (account_id, kind, contra, _whole(amount), ref, by.name, text),
                )
                line = await connection.exec_driver_sql(
                    "SELECT id, amount, balance, created_at = now() AS is_new FROM ledger WHERE id = $1",
                    (made.scalar_one(),),
                )
                row = line.mappings().one()
                if row["is_new"]:
                    after = {"balance": row["balance"], "amount": row["amount"], "reference": ref, "note": text}
                    before = {"balance": row["balance"] - row["amount"]}
                    await note(connection, by, f"credits.{kind}", f"account:{account_id}", before=before, after=after)
                return int(row["id"])

        with money_errors(needed=Credits(abs(amount))):
            return await db.retried(work)

    async def balance(self, account_id: int) -> Balance:
        """Return what the account can spend, and what its running tasks hold. Raises: AccountNotFound."""
        sql = "SELECT posted - held AS credits, held FROM accounts WHERE id = $1"
        rows = await db.read(self._engine, sql, (account_id,))
        if not rows:
            raise AccountNotFound(f"acct_{account_id}")
        return Balance(Credits(rows[0]["credits"]), Credits(rows[0]["held"]))


@contextmanager
def money_errors(*, needed: Credits) -> Iterator[None]:
    """Turn the money functions' error codes into the errors a client may see."""
    try:
        yield
    except DBAPIError as error:
        match db.sqlstate_of(error):
            case "MG400":
                raise IdempotencyKeyReused from error
            case "MG401":
                raise InvalidApiKey from error
            case "MG402":
                raise InsufficientCredits(needed=needed) from error
            case "MG403":
                raise KeyBudgetExhausted from error
            case "MG409":
                raise ReferenceConflict(
                    "This reference was used before with another amount or account, or a refund is above its capture.",
                    param="ref",
                ) from error
            case "MG411":
                raise AccountSuspended from error
            case "MG429":
                raise TooManyTasks from error
            case "23514" if "accounts_posted_max" in str(error.orig):
                raise BalanceTooHigh from error
        raise


def _whole(amount: int) -> int:
    """Refuse what would be truncated or overflow silently on its way to the database."""
    if type(amount) is not int or abs(amount) > MAX_CREDITS:
        raise TypeError(f"credits are whole numbers up to {MAX_CREDITS}, not {amount!r}")
    return amount
