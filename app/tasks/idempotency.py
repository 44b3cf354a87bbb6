"""Knows requests again: by the caller's key, or, when an SDK repeats one by itself, by what was sent.

The key's row is written with the hold (``mg_accept``, ``mg_begin``); here it is only looked up. A retry without a key
is joined to the task whose answer never left; ``delivered_at`` is the mark of those that did.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.errors import DatabaseUnavailable, IdempotencyKeyReused, OutcomeUnknown
from app.intake import Sent, Upload

log = structlog.get_logger()

JOIN_WINDOW_S = 900.0
HANDED_OVER_S = 1.0
"""So long after its last byte left an answer is taken to have arrived. What the kernel took can still be lost on its
way, and then the SDK is back within half a second."""
FLUSH_S = 0.5
FLUSH_BATCH = 500
MARKS = 10_000
"""Marks kept while the database is away; the oldest go first, and their retries would be joined."""
KEPT_HOURS = 48
PRUNE_BATCH = 1000

T = TypeVar("T")


def fingerprint(method: str, path: str, fields: Mapping[str, Any]) -> bytes:
    """Return the digest of what was asked for: the route and the body, in one form for JSON and multipart.

    The order of fields, names of files and boundaries do not count, and a file is its bytes, also as a data: URL. The
    order inside a list does: the first image is the one a mask belongs to. All fields count, also ``stream`` and
    ``async``: another body is another request. Headers do not: ``Prefer`` only says how long to wait for the answer.
    """
    body = {name: _plain(value) for name, value in fields.items() if name != "idempotency_key"}
    canonical = json.dumps([method, path, body], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, Upload):
        return {"sha256": value.sha256.hex()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


class Idempotency:
    """One per process. `run` must be going, or no answer counts as delivered."""

    def __init__(self, engine: AsyncEngine, *, joins_retries: bool) -> None:
        self._engine = engine
        self._joins_retries = joins_retries
        self._handed_over: dict[UUID, float] = {}
        self.replays = 0
        """Requests of this process that were answered with an earlier one's task, by their key."""
        self.joins = 0
        """The same, of retries without a key; ``tasks.joins`` has them all."""

    async def find(self, sent: Sent, *, account_id: int, key_id: int) -> UUID | None:
        """Return the task that this request made when it was sent before, or None.

        Raises: IdempotencyKeyReused; DatabaseUnavailable, and then the request may be sent again.
        """
        if sent.key is not None:
            return await self._keyed(sent, sent.key, account_id)
        if not (sent.is_retry and self._joins_retries):
            return None
        task_id = await self._retried(sent, key_id)
        if task_id is not None:
            self._handed_over.pop(task_id, None)  # it did not arrive, or nobody would ask again
            self.joins += 1
            log.info("request.joined", task_id=str(task_id))
        return task_id

    async def _keyed(self, sent: Sent, key: str, account_id: int) -> UUID | None:
        sql = "SELECT task_id, fingerprint FROM idempotency WHERE account_id = $1 AND idem_key = $2"
        rows = await _asked(lambda: db.once(self._engine, sql, (account_id, key)))
        if not rows:
            return None
        if bytes(rows[0]["fingerprint"]) != sent.fingerprint:
            raise IdempotencyKeyReused
        return UUID(str(rows[0]["task_id"]))

    async def _retried(self, sent: Sent, key_id: int) -> UUID | None:
        sql = "SELECT mg_join($1, $2, $3) AS task_id"

        async def join() -> list[Any]:
            try:
                return await db.once(self._engine, sql, (key_id, sent.fingerprint, JOIN_WINDOW_S))
            except DBAPIError as error:
                if db.sqlstate_of(error) == db.LOCK_TIMEOUT:  # the first request's hold is still on its way
                    raise DatabaseUnavailable("The database is busy. Try again.", retry_after_s=1) from error
                raise

        [row] = await _asked(join)
        return UUID(str(row["task_id"])) if row["task_id"] else None

    async def abandon(self, task_id: UUID) -> int | None:
        """Stop a queued task that nobody waits for any more, before anybody claims it. Returns the token to settle it
        with; None: it was claimed, or a retry was joined to it.
        """
        rows = await db.once(
            self._engine,
            """UPDATE tasks SET cancel_requested_at = now() WHERE id = $1 AND status = 'queued' AND joins = 0
             AND cancel_requested_at IS NULL RETURNING lease_token""",
            (task_id,),
        )
        return int(rows[0]["lease_token"]) if rows else None

    def handed_over(self, task_id: UUID) -> None:
        """The last byte of an answer about this task has left."""
        self._handed_over[task_id] = time.monotonic()
        if len(self._handed_over) > MARKS:
            del self._handed_over[next(iter(self._handed_over))]

    async def run(self) -> None:
        """Mark the answers that have arrived, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush(before=time.monotonic() - HANDED_OVER_S)

    async def flush(self, *, before: float) -> None:
        """Mark what was handed over before that monotonic time. What fails is tried again the next time."""
        due = [task_id for task_id, at in self._handed_over.items() if at <= before]
        # Locked in order: two processes that mark the same tasks must not wait for each other.
        sql = """WITH due AS (SELECT id FROM tasks WHERE id = ANY($1::uuid[]) AND delivered_at IS NULL
              ORDER BY id FOR NO KEY UPDATE)
            UPDATE tasks t SET delivered_at = now() FROM due WHERE t.id = due.id"""
        for start in range(0, len(due), FLUSH_BATCH):
            ids = due[start : start + FLUSH_BATCH]
            try:
                await db.once(self._engine, sql, (ids,))
            except Exception as error:  # noqa: BLE001 - best effort: a retry of a delivered answer is joined, that is all
                log.warning("idempotency.not_marked", count=len(due) - start, error=type(error).__name__)
                return
            for task_id in ids:
                if self._handed_over.get(task_id, before) <= before:
                    self._handed_over.pop(task_id, None)

    async def close(self) -> None:
        """Mark what is left, at shutdown."""
        await self.flush(before=time.monotonic())

    async def prune(self) -> int:
        """Forget keys that are old enough, and whose results are gone. Returns how many."""
        pruned = 0
        while True:
            rows = await db.once(
                self._engine,
                """DELETE FROM idempotency WHERE (account_id, idem_key) IN (
                  SELECT i.account_id, i.idem_key FROM idempotency i JOIN tasks t ON t.id = i.task_id
                   WHERE i.created_at < now() - $1 * interval '1 hour' AND t.settled_at IS NOT NULL
                   AND NOT EXISTS (SELECT 1 FROM files f WHERE f.task_id = i.task_id AND f.state <> 'deleted'
                     AND f.role NOT IN ('input', 'mask') AND f.expires_at > now())
                   ORDER BY i.created_at LIMIT $2) RETURNING 1""",
                (KEPT_HOURS, PRUNE_BATCH),
            )
            pruned += len(rows)
            if len(rows) < PRUNE_BATCH:
                return pruned


async def _asked(question: Callable[[], Awaitable[T]]) -> T:
    """Ask something that changes no money. Raises: DatabaseUnavailable, never its kind that forbids another try."""
    try:
        return await db.retried(question)
    except OutcomeUnknown as error:
        raise DatabaseUnavailable(error.message, retry_after_s=error.retry_after_s) from error
