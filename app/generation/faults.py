"""What went wrong lately, and at whom, for administrators: why tasks failed, and what upstreams said last. Reads only.

Bounded like the figures: failed tasks of a period through its index, and upstreams' words among the newest tasks alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.generation.recent import Recent
from app.generation.statistics import Period, length_of
from app.log import redact_text
from app.settings import Settings
from app.values import task_public_id

NEWEST = 500
"""Tasks among which the words of an upstream are looked for: of the open ones, and of those that ended."""
CALLERS = frozenset({"content_policy_violation", "invalid_parameter"})
"""Reasons that say nothing against an upstream: it did its work."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Tasks of one upstream that failed for one reason."""

    upstream: str
    reason: str
    failed: int
    last_at: datetime

    @property
    def is_upstreams(self) -> bool:
        """Whether it says something against the upstream."""
        return self.reason not in CALLERS


@dataclass(frozen=True, slots=True)
class Fault:
    """What an upstream said to one attempt that went wrong."""

    pool: str
    at: datetime
    text: str
    http_status: int | None
    task_id: UUID
    model: str

    @property
    def public_id(self) -> str:
        return task_public_id(self.task_id)


class Faults:
    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._recent = Recent(settings.statistics_cache_s)

    async def why(self, period: Period = "24h") -> Sequence[Failure]:
        """Return why the tasks of the period failed, the most frequent first. Raises: InvalidParameter."""
        length = length_of(period)

        async def ask() -> Sequence[Failure]:
            return [Failure(**row) for row in await db.read(self._engine, _WHY, (length,))]

        return await self._recent.get(("why", period), ask)

    async def latest(self, pools: Iterable[str]) -> Mapping[str, Fault]:
        """Return what each of these pools said last, of those that said something within the hour."""
        wanted = list(pools)
        if not wanted:
            return {}
        rows = await db.read(self._engine, _LATEST, (wanted, NEWEST))
        return {row["pool"]: _fault(row) for row in rows}

    async def of_upstream(self, name: str, *, limit: int = 10) -> Sequence[Fault]:
        """Return what an account said within the hour to attempts that went wrong, the newest first."""
        return [_fault(row) for row in await db.read(self._engine, _OF_UPSTREAM, (name, NEWEST, limit))]


def _fault(row: Mapping[str, Any]) -> Fault:
    return Fault(**{**row, "text": redact_text(row["text"]), "task_id": UUID(str(row["task_id"]))})


_WHY = """
SELECT split_part(pool, '/', 1) AS upstream, coalesce(error_code, 'internal_error') AS reason,
       count(*)::int AS failed, max(settled_at) AS last_at
  FROM tasks WHERE settled_at >= now() - $1::interval AND status = 'failed'
 GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"""

# An attempt knows its provider alone: its pool is that of the task when the attempt was sent.
_SAID = """
WITH recent AS (
  (SELECT id, model FROM tasks WHERE settled_at >= now() - interval '1 hour' ORDER BY settled_at DESC LIMIT $2)
  UNION ALL (SELECT id, model FROM tasks WHERE settled_at IS NULL AND status <> 'queued' ORDER BY wake_at LIMIT $2)
  UNION ALL (SELECT id, model FROM tasks WHERE status = 'queued' ORDER BY pool, rank LIMIT $2)),
said AS (
  SELECT e.pool, coalesce(a.resolved_at, a.sent_at) AS at, a.error AS text, a.http_status, a.task_id, r.model
    FROM recent r JOIN task_attempts a ON a.task_id = r.id AND a.error IS NOT NULL
    JOIN task_events e ON e.task_id = a.task_id AND e.attempt_no = a.attempt_no AND e.status = 'submitting')
"""
_LATEST = f"{_SAID} SELECT DISTINCT ON (pool) * FROM said WHERE pool = ANY($1::text[]) ORDER BY pool, at DESC"  # noqa: S608 - our own words
_OF_UPSTREAM = f"{_SAID} SELECT * FROM said WHERE split_part(pool, '/', 1) = $1 ORDER BY at DESC LIMIT $3"  # noqa: S608
