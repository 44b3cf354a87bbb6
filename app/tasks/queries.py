"""Reads tasks: the rows as values, one page at a time. Nothing here changes a task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.errors import MediagateError, restored
from app.requests import Operation
from app.tasks import lists
from app.tasks.lists import FINAL, PUBLIC_STATUS, Listing, TaskFilter, TaskSearch
from app.values import task_public_id

__all__ = [
    "FINAL",
    "MOST_AHEAD",
    "PUBLIC_STATUS",
    "FoundPage",
    "FoundTask",
    "Look",
    "StoredFile",
    "TaskFilter",
    "TaskPage",
    "TaskQueries",
    "TaskSearch",
    "TaskView",
]


MOST_AHEAD = 1000
"""Who has more before them is told so, and need not know how many: nobody counts a long queue every other second."""


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
class Look:
    """What somebody who watches a task sees change."""

    status: str
    """The internal state."""
    progress: int
    is_final: bool
    is_deleted: bool


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
    def look(self) -> Look:
        return Look(self.status, self.progress, self.is_final, self.deleted_at is not None)

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
class TaskPage:
    items: tuple[TaskView, ...]
    has_more: bool
    """There are more: some that match, or some that nobody has looked at yet."""
    last: UUID | None = None
    """Where the next page goes on: its ``after``."""


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


@dataclass(frozen=True, slots=True)
class FoundPage:
    """As `TaskPage`, of all accounts."""

    items: tuple[FoundTask, ...]
    has_more: bool
    last: UUID | None = None


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

    async def page(self, wanted: TaskFilter, *, account_id: int) -> TaskPage:
        """Return one page, newest first unless asked otherwise; deleted tasks are left out."""
        listing = lists.of_account(wanted, account_id)
        rows = await self._rows(listing, f"SELECT {_COLUMNS} FROM tasks t JOIN page p ON p.id = t.id")  # noqa: S608
        views = tuple(task_view(row) for row in rows[: wanted.limit])
        return TaskPage(views, *await self._end(listing, rows, wanted.limit))

    async def search(self, wanted: TaskSearch) -> FoundPage:
        """Return one page of all accounts' tasks, newest first, deleted ones too."""
        listing = lists.of_all(wanted)
        rows = await self._rows(listing, _FOUND)
        found = tuple(
            FoundTask(**{**row, "id": UUID(str(row["id"])), "operation": Operation(row["operation"])})
            for row in rows[: wanted.limit]
        )
        return FoundPage(found, *await self._end(listing, rows, wanted.limit))

    async def search_all(self, wanted: TaskSearch) -> list[FoundTask]:
        """Return as many tasks as are wanted, however many parts of the list must be looked through for them."""
        found: list[FoundTask] = []
        while True:
            page = await self.search(wanted)
            found += page.items
            if len(found) >= wanted.limit or not page.has_more:
                return found[: wanted.limit]
            wanted = replace(wanted, after=page.last)

    async def _rows(self, listing: Listing, columns: str) -> list[Any]:
        sql = f"{listing.page} {columns} ORDER BY t.id {listing.direction}"
        return await db.read(self._engine, sql, tuple(listing.arguments), is_planned_anew=True)

    async def _end(self, listing: Listing, rows: Sequence[Any], limit: int) -> tuple[bool, UUID | None]:
        """Return whether there are more than the page shows, and where the next one goes on."""
        if len(rows) > limit:
            return True, UUID(str(rows[limit - 1]["id"]))
        stop = await db.read(self._engine, listing.stop, tuple(listing.stop_arguments), is_planned_anew=True)
        if stop:
            return True, UUID(str(stop[0]["id"]))
        return False, UUID(str(rows[-1]["id"])) if rows else None

    async def ahead(self, task_id: UUID) -> int | None:
        """Return how many wait before a queued task, and ``MOST_AHEAD`` + 1 for more; None when it does not wait."""
        rows = await db.read(
            self._engine,
            """SELECT (SELECT count(*) FROM (SELECT FROM tasks o WHERE o.status = 'queued' AND o.pool = t.pool
                AND o.rank < t.rank LIMIT $2) x) AS ahead FROM tasks t WHERE t.id = $1 AND t.status = 'queued'""",
            (task_id, MOST_AHEAD + 1),
        )
        return rows[0]["ahead"] if rows else None

    async def looks(self, ids: Sequence[UUID]) -> dict[UUID, Look]:
        """Return how these tasks stand: one query for all who wait. One that is gone is not among them."""
        rows = await db.read(
            self._engine,
            """SELECT id, status, progress, settled_at IS NOT NULL AS is_final, deleted_at IS NOT NULL AS is_deleted
              FROM tasks WHERE id = ANY($1::uuid[])""",
            (list(ids),),
        )
        return {
            UUID(str(row["id"])): Look(row["status"], row["progress"], row["is_final"], row["is_deleted"])
            for row in rows
        }

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


_FOUND = """SELECT t.id, t.account_id, a.email, t.api_key_id AS key_id, t.operation, t.model, t.pool, t.status,
  t.hold, t.charge, t.error_code, t.upstream_id, t.attempt_no AS attempts, t.cancel_requested_at,
  t.created_at, t.started_at, t.settled_at, t.deleted_at
 FROM tasks t JOIN page p ON p.id = t.id JOIN accounts a ON a.id = t.account_id"""


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
