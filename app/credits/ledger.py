"""Moves credits: each method is one call into the functions of ``migrations/sql/``, and nothing else moves them.

Leases, claims and attempts are ``app.tasks.lifecycle``'s; what the customer reads is ``app.credits.statements``'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.credits.lines import (
    Balance,
    Kind,
    Posting,
    Preview,
    check_ahead,
    check_amount,
    check_open,
    check_repeat,
    checked_posting,
    checked_reference,
    whole,
    write_line,
)
from app.credits.refusals import money_errors
from app.errors import (
    AccountNotFound,
    BalanceTooHigh,
    BelowHeld,
    DatabaseUnavailable,
    InsufficientCredits,
    MediagateError,
)
from app.failpoints import failpoint
from app.journal import Actor
from app.values import MAX_CREDITS, Credits, new_id

NOTHING = Credits(0)
EXPIRE_AT_ONCE = 500


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
            self.task_id, self.key_id, self.kind, self.model, self.pool, whole(self.hold), self.wait_s,
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
        arguments = (task_id, token, whole(charge), json.dumps(list(files)), json.dumps(result))
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
            "SELECT mg_settle($1, $2, 'cancelled', $3, 'task_cancelled') AS ok", (task_id, token, whole(charge))
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
        return int((await self._write(account_id, kind, amount, ref, actor, note))["id"])

    async def adjust(
        self, account_id: int, amount: Credits, *, ref: str, actor: Actor | str, note: str | None = None
    ) -> int:
        """Correct the balance by ``amount``, either way; never below what is held.

        Raises: InsufficientCredits, BalanceTooHigh.
        """
        return int((await self._write(account_id, "adjust", amount, ref, actor, note))["id"])

    async def post(
        self,
        account_id: int,
        kind: Kind,
        amount: int,
        *,
        actor: Actor,
        reference: str | None = None,
        reason: str | None = None,
        expires_at: datetime | None = None,
        repeat: str | None = None,
    ) -> Posting:
        """Write a line by hand, with its audit row. The same reference of a kind adds once, whoever repeats it.

        ``topup``: bought, ``grant``: given, ``adjust``: a correction either way, which needs a reason; the customer
        reads it in the ledger. ``expires_at``: what is left of it then is taken away. ``repeat``: instead of a
        reference, one made of its caller's key, which is no other line's: see `check_repeat`. Raises: AccountNotFound,
        InvalidParameter, ReferenceConflict, BelowHeld, BalanceTooHigh, IdempotencyKeyReused.
        """
        text = checked_posting(kind, amount, reason, expires_at)
        reference = repeat or (f"by-hand:{new_id().hex}" if reference is None else checked_reference(reference))
        before = await self.balance(account_id)
        try:
            row = await self._write(account_id, kind, amount, reference, actor, text, expires_at, is_keyed=bool(repeat))
        except InsufficientCredits as error:
            raise BelowHeld(spendable=before.credits, amount=amount) from error
        return Posting(
            entry_id=row["id"],
            seq=row["seq"],
            kind=kind,
            amount=row["amount"],
            balance=row["balance"],
            reference=reference,
            is_new=row["is_new"],
        )

    async def preview(self, account_id: int, amount: int) -> Preview:
        """Return what adding ``amount``, either way, would do now. Raises: AccountNotFound, InvalidParameter."""
        check_amount(amount)
        before = await self.balance(account_id)
        after = Balance(Credits(before.credits + amount), before.held)
        problem: MediagateError | None = None
        if after.credits < 0:
            problem = BelowHeld(spendable=before.credits, amount=amount)
        elif after.credits + after.held > MAX_CREDITS:
            problem = BalanceTooHigh()
        return Preview(Credits(amount), before, after, problem)

    async def expire_due(self) -> int:
        """Take away the credits whose time is over, but for what running tasks hold. Returns how many."""
        rows = await db.once(self._engine, "SELECT mg_expire_due($1) AS credits", (EXPIRE_AT_ONCE,))
        return int(rows[0]["credits"])

    async def _write(
        self,
        account_id: int,
        kind: Kind,
        amount: int,
        ref: str,
        by: Actor | str,
        text: str | None,
        expires_at: datetime | None = None,
        *,
        is_keyed: bool = False,
    ) -> Any:
        actor = Actor(by) if isinstance(by, str) else by

        async def work() -> Any:
            async with db.transaction(self._engine) as connection:
                line = {"account_id": account_id, "kind": kind, "amount": amount, "expires_at": expires_at}
                if not is_keyed or not await check_repeat(connection, ref, **line, note=text):
                    check_ahead(expires_at)
                row = await write_line(
                    connection, account_id, kind, amount, ref=ref, by=actor, text=text, expires_at=expires_at
                )
                if row["is_new"] and kind != "adjust":
                    await check_open(connection, account_id)
                return row

        with money_errors(needed=Credits(abs(amount))):
            return await db.retried(work)

    async def balance(self, account_id: int) -> Balance:
        """Return what the account can spend, and what its running tasks hold. Raises: AccountNotFound."""
        sql = "SELECT posted - held AS credits, held FROM accounts WHERE id = $1"
        rows = await db.read(self._engine, sql, (account_id,))
        if not rows:
            raise AccountNotFound(f"acct_{account_id}")
        return Balance(Credits(rows[0]["credits"]), Credits(rows[0]["held"]))
