"""The audit log's reading: who changed what, newest first. Rows are written by `app.journal`, and never change.

A search looks at `WINDOW` rows at most and says where it stopped, so that each page costs about the same however long
the log is: those of one target, or of one actor, or, for a text, of all. The next page goes on from there, also when
this one is empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.spreadsheets import csv_text

WINDOW = 20_000
"""Rows that one search looks at."""
SCATTERED = 5000
"""Of those of one actor or target: they do not lie beside each other."""
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

    async def search_all(self, wanted: AuditSearch) -> list[AuditRow]:
        """Return as many rows as are wanted, however many parts of the log must be looked through for them."""
        found: list[AuditRow] = []
        while True:
            page = await self.page(wanted)
            found += page.rows
            if len(found) >= wanted.limit or not page.has_more:
                return found[: wanted.limit]
            wanted = replace(wanted, after=page.last)

    async def page(self, wanted: AuditSearch) -> AuditPage:
        """Return one page of what was done, newest first."""
        text, stop, by = db.containing(wanted.q), None, db.Where()
        if text is None:
            by.add("x.id < {}", wanted.after)
            by.add(f"x.id >= ({_FIRST_SINCE}) - {SLACK}", wanted.since)
            by.add(f"x.id <= ({_LAST_UNTIL}) + {SLACK}", wanted.until)
        else:
            [bounds] = await db.read(self._engine, _WINDOW, (wanted.after, wanted.since, wanted.until, WINDOW, SLACK))
            by.add("x.id < {}", bounds["top"])
            by.add("x.id >= {}", bounds["floor"])
            stop = bounds["floor"] if bounds["has_older"] else None
        by.add("x.target = {}", wanted.target)
        by.add("split_part(x.actor, ' (', 1) = split_part({}::text, ' (', 1)", wanted.actor)
        but = db.Where(by)
        but.add("x.at >= {}", wanted.since)
        but.add("x.at < {}", wanted.until)
        but.add("x.actor = {}", wanted.actor if " (" in (wanted.actor or "") else None)
        but.add(_LIKE, text)
        looks = WINDOW if wanted.actor is None and wanted.target is None else SCATTERED
        kinds = None if wanted.action is None else await self._kinds(wanted.action)
        if kinds == []:  # nobody ever did such a thing
            return AuditPage([], has_more=False, last=None)
        is_by_kind = text is None and wanted.target is None and wanted.actor is None and kinds is not None
        if is_by_kind:  # among all rows there are: nothing is left to be looked at
            source = _KINDS.format(kinds=but.number(kinds), by=by.sql, limit=wanted.limit + 1, but=but.sql)
        else:
            but.add("x.action = ANY({}::text[])", kinds)
            source = _PART.format(by=by.sql, limit=looks)
        sql = f"SELECT * FROM ({source}) x WHERE {but.sql} ORDER BY x.id DESC LIMIT {wanted.limit + 1:d}"  # noqa: S608
        rows = await db.read(self._engine, sql, tuple(but.arguments), is_planned_anew=True)
        found = [_row(row) for row in rows[: wanted.limit]]
        if len(rows) > wanted.limit:
            return AuditPage(found, has_more=True, last=found[-1].id)
        if text is None and not is_by_kind and but.where:
            older = await db.read(
                self._engine, _STOP.format(by=by.sql, looks=looks - 1), tuple(by.arguments), is_planned_anew=True
            )
            stop = older[0]["id"] if older else None
        if stop is not None:
            return AuditPage(found, has_more=True, last=stop)
        return AuditPage(found, has_more=False, last=found[-1].id if found else None)

    async def _kinds(self, action: str) -> list[str]:
        """Return the actions that are meant by one, or by the part before a dot."""
        return [kind for kind in await self.actions() if f"{kind}.".startswith(f"{action}.")]

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


_LIKE = """(lower(x.actor) LIKE {0} OR lower(x.target) LIKE {0} OR lower(x.request_id) LIKE {0}
 OR lower(x.after::text) LIKE {0} OR lower(x.before::text) LIKE {0})"""
_PART = "SELECT * FROM audit x WHERE {by} ORDER BY x.id DESC LIMIT {limit:d}"
_STOP = "SELECT x.id FROM audit x WHERE {by} ORDER BY x.id DESC OFFSET {looks:d} LIMIT 1"
# The newest of each action by its index, and then the newest of those.
_KINDS = """
SELECT x.* FROM unnest({kinds}::text[]) AS k (action) CROSS JOIN LATERAL
 (SELECT * FROM audit x WHERE x.action = k.action AND {by} AND {but} ORDER BY x.id DESC LIMIT {limit:d}) x"""
_FIRST_SINCE = "SELECT y.id FROM audit y WHERE y.at >= {} ORDER BY y.at LIMIT 1"
_LAST_UNTIL = "SELECT y.id FROM audit y WHERE y.at < {} ORDER BY y.at DESC LIMIT 1"

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
