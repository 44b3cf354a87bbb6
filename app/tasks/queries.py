"""Reads tasks: the rows as values, one page at a time. Nothing here changes a task.

A search in the prompts has no index: a page of it looks at `WINDOW` tasks of the account at most, so that each costs
about the same however many there are, and says where it stopped: the next page goes on there, also after an empty one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.errors import MediagateError, restored
from app.requests import Operation
from app.values import first_id, task_public_id

CLOCKS_APART = timedelta(hours=1)
WINDOW = 5000
"""Tasks whose prompts one search looks at."""
FINAL = frozenset({"succeeded", "failed", "cancelled"})
PUBLIC_STATUS = {
    "queued": "queued",
    "submitting": "in_progress",
    "uncertain": "in_progress",
    "running": "in_progress",
    "storing": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class StoredFile:
    id: UUID
    role: str
    """``input``, ``mask``, ``result``, ``thumbnail`` or ``gif``."""
    position: int
    field: str | None
    storage_key: str
    state: str
    """``ready`` or ``deleted``."""
    mime: str
    size_bytes: int
    sha256: bytes
    width: int | None
    height: int | None
    duration_ms: int | None
    expires_at: datetime

    def is_kept(self, now: datetime) -> bool:
        """Whether it can still be had: from its expiry on it cannot, whenever housekeeping comes round to it."""
        return self.state == "ready" and now < self.expires_at


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as its owner may know it, with its files."""

    id: UUID
    account_id: int
    key_id: int
    operation: Operation
    model: str
    pool: str
    status: str
    """The internal state; clients see `public_status`."""
    progress: int
    hold: int
    charge: int | None
    error_code: str | None
    error_detail: str | None
    request: Mapping[str, Any]
    result: Mapping[str, Any] | None
    upstream_id: str | None
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    settled_at: datetime | None
    deleted_at: datetime | None
    lease_token: int
    files: tuple[StoredFile, ...]

    @property
    def public_id(self) -> str:
        return task_public_id(self.id)

    @property
    def public_status(self) -> str:
        return PUBLIC_STATUS[self.status]

    @property
    def is_final(self) -> bool:
        return self.settled_at is not None

    @property
    def error(self) -> MediagateError | None:
        """Why it failed or was cancelled, as the error a client sees; None otherwise."""
        if self.status == "cancelled":
            return restored(
                "task_cancelled", "The task was cancelled. No credits were charged.", task_id=self.public_id
            )
        if self.status != "failed":
            return None
        return restored(
            self.error_code or "internal_error", self.error_detail or "The task failed.", task_id=self.public_id
        )

    def files_of(self, role: str) -> tuple[StoredFile, ...]:
        return tuple(file for file in self.files if file.role == role)

    def find_file(self, role: str) -> StoredFile | None:
        return next(iter(self.files_of(role)), None)


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """What a list shows. None means any."""

    statuses: Sequence[str] | None = None
    """Public statuses."""
    model: str | None = None
    operations: Sequence[Operation] | None = None
    after: UUID | None = None
    limit: int = 20
    ascending: bool = False
    key_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    """In the prompt, whatever the case of its letters."""
    is_kept: bool = False
    """Only tasks with a result that can still be had."""


@dataclass(frozen=True, slots=True)
class TaskPage:
    items: tuple[TaskView, ...]
    has_more: bool
    """There are more: some that match, or, of a search in the prompts, some that nobody has looked at yet."""
    last: UUID | None = None
    """Where the next page goes on: its ``after``."""


@dataclass(frozen=True, slots=True)
class TaskSearch:
    """What an operator looks for among all tasks. None means any."""

    statuses: Sequence[str] | None = None
    """Internal states."""
    model: str | None = None
    operations: Sequence[Operation] | None = None
    account_id: int | None = None
    key_id: int | None = None
    pool: str | None = None
    upstream: str | None = None
    """The account of the pool."""
    upstream_id: str | None = None
    """The upstream's id for the job, of any attempt."""
    client_token: str | None = None
    reason: str | None = None
    """Why it failed."""
    since: datetime | None = None
    until: datetime | None = None
    only: UUID | None = None
    """This one, if the rest is true of it."""
    after: UUID | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class FoundTask:
    """One line of a search."""

    id: UUID
    account_id: int
    email: str
    key_id: int
    operation: Operation
    model: str
    pool: str
    status: str
    """The internal state."""
    hold: int
    charge: int | None
    error_code: str | None
    upstream_id: str | None
    attempts: int
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    settled_at: datetime | None
    deleted_at: datetime | None

    @property
    def public_id(self) -> str:
        return task_public_id(self.id)

    @property
    def public_status(self) -> str:
        return PUBLIC_STATUS[self.status]


_COLUMNS = """t.id, t.account_id, t.api_key_id, t.operation, t.model, t.pool, t.status, t.progress, t.hold, t.charge,
 t.error_code, t.error_detail, t.request, t.result, t.upstream_id, t.cancel_requested_at, t.created_at, t.started_at,
 t.settled_at, t.deleted_at, t.lease_token,
 coalesce((SELECT jsonb_agg(jsonb_build_object('id', f.id, 'role', f.role, 'position', f.position, 'field', f.field,
   'storage_key', f.storage_key, 'state', f.state, 'mime', f.mime,
   'size_bytes', f.bytes, 'sha256', encode(f.sha256, 'hex'),
   'width', f.width, 'height', f.height, 'duration_ms', f.duration_ms,
   'expires_at', extract(epoch FROM f.expires_at)) ORDER BY f.role, f.position)
   FROM files f WHERE f.task_id = t.id AND f.state <> 'writing'), '[]') AS files"""


class TaskQueries:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, task_id: UUID, *, account_id: int | None = None) -> TaskView | None:
        """Return the task, or None. With ``account_id`` another account's task does not exist."""
        rows = await db.read(
            self._engine,
            f"SELECT {_COLUMNS} FROM tasks t WHERE t.id = $1 AND ($2::bigint IS NULL OR t.account_id = $2)",  # noqa: S608
            (task_id, account_id),
        )
        return task_view(rows[0]) if rows else None

    async def page(self, wanted: TaskFilter, *, account_id: int | None) -> TaskPage:
        """Return one page, newest first unless asked otherwise; deleted tasks are left out."""
        states = None
        if wanted.statuses is not None:
            states = [state for state, public in PUBLIC_STATUS.items() if public in wanted.statuses]
        direction, compare = ("ASC", ">") if wanted.ascending else ("DESC", "<")
        stop = None if wanted.text is None else await self._stop(wanted, account_id)
        rows = await db.read(
            self._engine,
            f"""SELECT {_COLUMNS} FROM tasks t WHERE t.deleted_at IS NULL
             AND ($1::bigint IS NULL OR t.account_id = $1) AND ($2::text[] IS NULL OR t.status = ANY($2))
             AND ($3::text IS NULL OR t.model = $3) AND ($4::text[] IS NULL OR t.operation = ANY($4))
             AND ($5::uuid IS NULL OR t.id {compare} $5) AND ($7::bigint IS NULL OR t.api_key_id = $7)
             AND ($8::timestamptz IS NULL OR t.created_at >= $8) AND ($9::timestamptz IS NULL OR t.created_at < $9)
             AND ($10::text IS NULL OR strpos(lower(t.request->>'prompt'), lower($10)) > 0)
             AND (NOT $11::boolean OR EXISTS (SELECT 1 FROM files f WHERE f.task_id = t.id AND f.role = 'result'
               AND f.state = 'ready' AND f.expires_at > clock_timestamp()))
             AND ($12::uuid IS NULL OR t.id = $12 OR $12 {compare} t.id)
             ORDER BY t.id {direction} LIMIT $6""",  # noqa: S608 - fixed words
            (
                account_id, states, wanted.model, [op.value for op in wanted.operations] if wanted.operations else None,
                wanted.after, wanted.limit + 1, wanted.key_id, wanted.since, wanted.until,
                wanted.text, wanted.is_kept, stop,
            ),
        )  # fmt: skip
        views = tuple(task_view(row) for row in rows[: wanted.limit])
        if len(rows) > wanted.limit or stop is None:
            return TaskPage(views, len(rows) > wanted.limit, views[-1].id if views else None)
        return TaskPage(views, has_more=True, last=stop)

    async def _stop(self, wanted: TaskFilter, account_id: int | None) -> UUID | None:
        """Return the last task that a search in the prompts looks at; None: there are not that many."""
        direction, compare = ("ASC", ">") if wanted.ascending else ("DESC", "<")
        since = None if wanted.since is None else first_id(wanted.since - CLOCKS_APART)
        until = None if wanted.until is None else first_id(wanted.until + CLOCKS_APART)
        rows = await db.read(
            self._engine,
            f"""SELECT t.id FROM tasks t WHERE t.deleted_at IS NULL AND ($1::bigint IS NULL OR t.account_id = $1)
             AND ($2::uuid IS NULL OR t.id {compare} $2) AND ($3::uuid IS NULL OR t.id >= $3)
             AND ($4::uuid IS NULL OR t.id < $4) ORDER BY t.id {direction} OFFSET $5 LIMIT 1""",  # noqa: S608 - fixed words
            (account_id, wanted.after, since, until, WINDOW - 1),
        )
        return UUID(str(rows[0]["id"])) if rows else None

    async def search(self, wanted: TaskSearch) -> tuple[list[FoundTask], bool]:
        """Return one page of all accounts' tasks, newest first, deleted ones too; and whether there are more."""
        where, arguments = _conditions(wanted)
        rows = await db.read(
            self._engine,
            f"""SELECT t.id, t.account_id, a.email, t.api_key_id AS key_id, t.operation, t.model, t.pool, t.status,
              t.hold, t.charge, t.error_code, t.upstream_id, t.attempt_no AS attempts, t.cancel_requested_at,
              t.created_at, t.started_at, t.settled_at, t.deleted_at
             FROM tasks t JOIN accounts a ON a.id = t.account_id
             WHERE {" AND ".join(where) or "true"} ORDER BY t.id DESC LIMIT {wanted.limit + 1:d}""",  # noqa: S608 - our own words
            tuple(arguments),
        )
        found = [
            FoundTask(**{**row, "id": UUID(str(row["id"])), "operation": Operation(row["operation"])})
            for row in rows[: wanted.limit]
        ]
        return found, len(rows) > wanted.limit

    async def ahead(self, task_id: UUID) -> int | None:
        """Return how many wait before a queued task; None when it does not wait."""
        rows = await db.read(
            self._engine,
            """SELECT (SELECT count(*) FROM tasks o WHERE o.status = 'queued' AND o.pool = t.pool AND o.rank < t.rank)
              AS ahead FROM tasks t WHERE t.id = $1 AND t.status = 'queued'""",
            (task_id,),
        )
        return rows[0]["ahead"] if rows else None

    async def settled_among(self, ids: Sequence[UUID]) -> set[UUID]:
        """Return which of these tasks have ended: one query for all who wait."""
        rows = await db.read(
            self._engine, "SELECT id FROM tasks WHERE id = ANY($1::uuid[]) AND settled_at IS NOT NULL", (list(ids),)
        )
        return {UUID(str(row["id"])) for row in rows}

    async def attempts(self, task_id: UUID) -> list[dict[str, Any]]:
        """Return the task's attempts, oldest first: the operator's timeline."""
        rows = await db.read(
            self._engine,
            """SELECT attempt_no, provider, state, upstream_id, upstream_cost, cost_currency, http_status, error,
              sent_at, resolved_at, late_at, extract(epoch FROM clock_timestamp() - sent_at)::float8 AS age_s
             FROM task_attempts WHERE task_id = $1 ORDER BY attempt_no""",
            (task_id,),
        )
        return [dict(row) for row in rows]


def _conditions(wanted: TaskSearch) -> tuple[list[str], list[object]]:
    """Return the conditions of a search: only those that were asked for, so that each can use its index."""
    where: list[str] = []
    arguments: list[object] = []

    def add(condition: str, value: object) -> None:
        if value is not None:
            arguments.append(value)
            where.append(condition.format(f"${len(arguments)}"))

    add("t.status = ANY({}::text[])", None if wanted.statuses is None else list(wanted.statuses))
    if wanted.statuses is not None:
        if FINAL.isdisjoint(wanted.statuses):
            where.append("t.settled_at IS NULL")  # few among many: the index of the open ones finds them
        if tuple(wanted.statuses) == ("failed",):
            where.append("t.status = 'failed'")
    if wanted.reason is not None:
        where.append("t.status = 'failed'")
    add("t.error_code = {}", wanted.reason)
    add("t.model = {}", wanted.model)
    add("t.operation = ANY({}::text[])", None if wanted.operations is None else [op.value for op in wanted.operations])
    add("t.account_id = {}", wanted.account_id)
    add("t.api_key_id = {0} AND t.account_id = (SELECT account_id FROM api_keys WHERE id = {0})", wanted.key_id)
    add("t.pool = {}", wanted.pool)
    add("split_part(t.pool, '/', 1) = {}", wanted.upstream)
    add("t.id IN (SELECT task_id FROM task_attempts WHERE upstream_id = {})", wanted.upstream_id)
    add("t.id = (SELECT task_id FROM task_attempts WHERE client_token = {})", wanted.client_token)
    add("t.created_at >= {}", wanted.since)
    add("t.created_at < {}", wanted.until)
    # Ids sort by time, by the clock of the process that made them: an hour of tolerance for it.
    add("t.id >= {}", None if wanted.since is None else first_id(wanted.since - CLOCKS_APART))
    add("t.id < {}", None if wanted.until is None else first_id(wanted.until + CLOCKS_APART))
    add("t.id < {}", wanted.after)
    add("t.id = {}", wanted.only)
    return where, arguments


def task_view(row: Mapping[str, Any]) -> TaskView:
    """Build the value from a row that has the columns of this module's queries."""
    return TaskView(
        id=UUID(str(row["id"])),
        account_id=row["account_id"],
        key_id=row["api_key_id"],
        operation=Operation(row["operation"]),
        request=_json(row["request"]),
        result=_json(row["result"]),
        files=tuple(_stored_file(file) for file in _json(row["files"])),
        **{
            name: row[name]
            for name in (
                "model", "pool", "status", "progress", "hold", "charge", "error_code", "error_detail", "upstream_id",
                "cancel_requested_at", "created_at", "started_at", "settled_at", "deleted_at", "lease_token",
            )
        },
    )  # fmt: skip


def _json(value: Any) -> Any:
    """asyncpg hands jsonb over as text unless SQLAlchemy's codec stands in between; take both."""
    return json.loads(value) if isinstance(value, str) else value


def _stored_file(value: Mapping[str, Any]) -> StoredFile:
    return StoredFile(
        **{
            **value,
            "id": UUID(value["id"]),
            "sha256": bytes.fromhex(value["sha256"] or ""),
            "expires_at": datetime.fromtimestamp(value["expires_at"], UTC),
        }
    )
