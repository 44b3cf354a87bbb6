"""Model versions as rows: one change at a time, and never rewritten."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.catalog.rows import from_json, rows_of
from app.catalog.timeline import ModelVersion
from app.catalog.wording import is_storable
from app.db import transaction
from app.errors import InvalidParameter

MAX_NOTE_CHARS = 500
FURTHEST = timedelta(days=3660)

ALL_VERSIONS = "SELECT * FROM model_versions ORDER BY model, number"

_INSERT = """
INSERT INTO model_versions (model, number, kind, entry, effective_from, note, created_by, created_at)
VALUES ($1, $2, $3, $4::text::json, $5, $6, $7, $8)"""


@dataclass(frozen=True, slots=True)
class Changing:
    """An open change: nobody else's gets in between."""

    connection: AsyncConnection
    versions: Sequence[ModelVersion]
    now: datetime
    """By the database's clock, read when our turn had come."""

    def number_for(self, model: str) -> int:
        return 1 + max((version.number for version in self.versions if version.model == model), default=0)

    def moment(self, effective_from: datetime | None) -> datetime:
        """Return when a new version begins. Raises: InvalidParameter."""
        return checked_moment(effective_from, self.now)

    async def insert(self, version: ModelVersion) -> None:
        entry = None if version.entry is None else json.dumps(version.entry, ensure_ascii=False)
        await self.connection.exec_driver_sql(
            _INSERT,
            (
                version.model,
                version.number,
                version.kind,
                entry,
                version.effective_from,
                version.note,
                version.created_by,
                version.created_at,
            ),
        )


@asynccontextmanager
async def changing_models(engine: AsyncEngine) -> AsyncIterator[Changing]:
    """Open the transaction of one change. Changes take turns, also with those of routes; processes notice it."""
    async with transaction(engine) as connection:
        await connection.exec_driver_sql("UPDATE model_book SET revision = revision + 1")
        await connection.exec_driver_sql("SELECT revision FROM upstream_book FOR UPDATE")
        versions = [version_of(row) for row in await rows_of(connection, ALL_VERSIONS)]
        [clock] = await rows_of(connection, "SELECT clock_timestamp() AS now")
        yield Changing(connection, versions, clock["now"])


def version_of(row: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(
        model=row["model"],
        number=row["number"],
        kind=row["kind"],
        entry=from_json(row["entry"]),
        effective_from=row["effective_from"],
        note=row["note"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        cancelled_at=row["cancelled_at"],
        cancelled_by=row["cancelled_by"],
    )


def checked_moment(effective_from: datetime | None, now: datetime) -> datetime:
    """Return when something begins; None is now. Raises: InvalidParameter: what was sold before is history."""
    if effective_from is None:
        return now
    if effective_from.tzinfo is None:
        raise InvalidParameter("'effective_from' needs its offset from UTC.", param="effective_from")
    if effective_from < now:
        raise InvalidParameter(
            "'effective_from' lies in the past. Leave it out for now, or name a later time.", param="effective_from"
        )
    if effective_from > now + FURTHEST:
        raise InvalidParameter("'effective_from' is more than ten years away.", param="effective_from")
    return effective_from


def checked_note(note: str) -> str:
    """Raises: InvalidParameter. A price that nobody can explain later is worth no version."""
    text = note.strip()
    if not 1 <= len(text) <= MAX_NOTE_CHARS or not is_storable(text):
        raise InvalidParameter(f"'note' must say why, in 1 to {MAX_NOTE_CHARS} characters.", param="note")
    return text
