"""Reads tasks: the rows as values, one page at a time. Nothing here changes a task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.errors import MediagateError, restored
from app.requests import Operation
from app.values import task_public_id

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


@dataclass(frozen=True, slots=True)
class TaskPage:
    items: tuple[TaskView, ...]
    has_more: bool


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
        rows = await db.once(
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
        rows = await db.once(
            self._engine,
            f"""SELECT {_COLUMNS} FROM tasks t WHERE t.deleted_at IS NULL
             AND ($1::bigint IS NULL OR t.account_id = $1) AND ($2::text[] IS NULL OR t.status = ANY($2))
             AND ($3::text IS NULL OR t.model = $3) AND ($4::text[] IS NULL OR t.operation = ANY($4))
             AND ($5::uuid IS NULL OR t.id {compare} $5) ORDER BY t.id {direction} LIMIT $6""",  # noqa: S608 - fixed words
            (
                account_id, states, wanted.model, [op.value for op in wanted.operations] if wanted.operations else None,
                wanted.after, wanted.limit + 1,
            ),
        )  # fmt: skip
        views = tuple(task_view(row) for row in rows[: wanted.limit])
        return TaskPage(views, has_more=len(rows) > wanted.limit)

    async def settled_among(self, ids: Sequence[UUID]) -> set[UUID]:
        """Return which of these tasks have ended: one query for all who wait."""
        rows = await db.once(
            self._engine, "SELECT id FROM tasks WHERE id = ANY($1::uuid[]) AND settled_at IS NOT NULL", (list(ids),)
        )
        return {UUID(str(row["id"])) for row in rows}

    async def attempts(self, task_id: UUID) -> list[dict[str, Any]]:
        """Return the task's attempts, oldest first: the operator's timeline."""
        rows = await db.once(
            self._engine,
            """SELECT attempt_no, provider, state, upstream_id, upstream_cost, cost_currency, http_status, error,
              sent_at, resolved_at, late_at, extract(epoch FROM clock_timestamp() - sent_at)::float8 AS age_s
             FROM task_attempts WHERE task_id = $1 ORDER BY attempt_no""",
            (task_id,),
        )
        return [dict(row) for row in rows]


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
