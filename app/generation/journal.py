"""The audit log's reading: who changed what, newest first. Rows are written by `app.journal`, and never change.

A search in the text of rows has no index: it reads `WINDOW` rows at most and says where it stopped, so that each page
costs about the same however long the log is. The next page goes on from there, also when this one is empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.spreadsheets import csv_text

WINDOW = 20_000
"""Rows that one search in the text looks at."""
SLACK = 1000
"""Ids are in the order of time but for transactions that ran at once."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One thing that somebody did."""

    id: int
    at: datetime
    actor: str
    action: str
    """Such as ``credits.adjust``."""
    target: str
    """Such as ``account:12``."""
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    request_id: str | None

    @property
    def reason(self) -> str | None:
        """Why, where the action asks for it."""
        found = (self.after or {}).get("reason") or (self.after or {}).get("note")
        return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class AuditSearch:
    """What an operator looks for in the audit. None means any."""

    actor: str | None = None
    """Whole, or the e-mail at its beginning."""
    action: str | None = None
    """Whole, or a part before a dot: ``credits`` finds ``credits.adjust``."""
    target: str | None = None
    q: str | None = None
    """Part of the actor, the target, the request's id, or of what changed."""
    since: datetime | None = None
    until: datetime | None = None
    after: int | None = None
    """The last id of the page before."""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class AuditPage:
    rows: list[AuditRow]
    has_more: bool
    """There are older rows: some that match, or some that nobody has looked at yet."""
    last: int | None
    """Where the next page goes on: its ``after``."""


class AuditLog:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def search(self, wanted: AuditSearch) -> tuple[list[AuditRow], bool]:
        """Return the rows of a page, and whether there is more: for who asks for no text and reads one page."""
        found = await self.page(wanted)
        return found.rows, found.has_more

    async def page(self, wanted: AuditSearch) -> AuditPage:
        """Return one page of what was done, newest first."""
        text, after, floor, has_older = db.containing(wanted.q), wanted.after, None, False
        if text is not None:
            [bounds] = await db.read(self._engine, _WINDOW, (wanted.after, wanted.since, wanted.until, WINDOW, SLACK))
            after, floor, has_older = bounds["top"], bounds["floor"], bounds["has_older"]
        rows = await db.read(
            self._engine,
            _SEARCH,
            (
                wanted.actor,
                wanted.action,
                wanted.target,
                text,
                wanted.since,
                wanted.until,
                after,
                wanted.limit + 1,
                floor,
            ),
        )
        found = [_row(row) for row in rows[: wanted.limit]]
        if len(rows) > wanted.limit or not has_older:
            return AuditPage(found, len(rows) > wanted.limit, found[-1].id if found else None)
        return AuditPage(found, has_more=True, last=floor)

    async def actions(self) -> list[str]:
        """Return the actions there are, for a list to choose from."""
        return [row["action"] for row in await db.read(self._engine, _ACTIONS)]


def audit_csv(rows: Iterable[AuditRow]) -> str:
    return csv_text(
        ("id", "at", "actor", "action", "target", "reason", "before", "after", "request_id"),
        (
            (
                row.id,
                row.at.isoformat(),
                row.actor,
                row.action,
                row.target,
                row.reason,
                _text(row.before),
                _text(row.after),
                row.request_id,
            )
            for row in rows
        ),
    )


def _text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _row(row: Any) -> AuditRow:
    return AuditRow(
        id=row["id"],
        at=row["at"],
        actor=row["actor"],
        action=row["action"],
        target=row["target"],
        before=_json(row["before"]),
        after=_json(row["after"]),
        request_id=row["request_id"],
    )


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


_SEARCH = """
SELECT id, at, actor, action, target, before, after, request_id FROM audit
 WHERE ($1::text IS NULL OR actor = $1 OR starts_with(actor, $1 || ' ('))
   AND ($2::text IS NULL OR action = $2 OR starts_with(action, $2 || '.'))
   AND ($3::text IS NULL OR target = $3)
   AND ($4::text IS NULL OR lower(actor) LIKE $4 OR lower(target) LIKE $4 OR lower(request_id) LIKE $4
        OR lower(after::text) LIKE $4 OR lower(before::text) LIKE $4)
   AND ($5::timestamptz IS NULL OR at >= $5) AND ($6::timestamptz IS NULL OR at < $6)
   AND ($7::bigint IS NULL OR id < $7) AND ($9::bigint IS NULL OR id >= $9) ORDER BY id DESC LIMIT $8"""

# Where a search in the text begins and stops, by steps of an index: from the newest row that can match, downwards.
_WINDOW = """
WITH w AS (SELECT least($1::bigint, (SELECT max(id) + 1 FROM audit), CASE WHEN $3::timestamptz IS NOT NULL THEN
             coalesce((SELECT id + $5::bigint FROM audit WHERE at < $3 ORDER BY at DESC LIMIT 1), 0) END) AS top,
         CASE WHEN $2::timestamptz IS NULL THEN (SELECT min(id) FROM audit)
              ELSE (SELECT id - $5::bigint FROM audit WHERE at >= $2 ORDER BY at LIMIT 1) END AS bottom)
SELECT top, top - $4::bigint AS floor, coalesce(bottom < top - $4::bigint, false) AS has_older FROM w"""

# One step of the index for each action, however many rows there are.
_ACTIONS = """
WITH RECURSIVE a AS (
  (SELECT action FROM audit ORDER BY action LIMIT 1) UNION ALL
  SELECT (SELECT n.action FROM audit n WHERE n.action > a.action ORDER BY n.action LIMIT 1)
    FROM a WHERE a.action IS NOT NULL)
SELECT action FROM a WHERE action IS NOT NULL"""
