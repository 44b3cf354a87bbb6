"""What an account sees of its credits: ledger pages and usage. Reads only; credits move in ledger.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import Where, read
from app.errors import InvalidParameter
from app.spreadsheets import csv_text
from app.values import Credits, task_public_id

MAX_PAGE = 1000
SLACK = 1000

By = Literal["day", "model", "key"]
Split = Literal["model", "key"]
KINDS = ("topup", "grant", "capture", "refund", "expire", "adjust")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger. ``seq`` counts the account's lines from 1, without a gap."""

    seq: int
    kind: str
    """``topup``, ``grant``, ``capture``, ``refund``, ``expire`` or ``adjust``."""
    amount: Credits
    """Signed: a capture is negative."""
    balance: Credits
    """The account's posted credits after this line."""
    task_id: str | None
    model: str | None
    operation: str | None
    key_id: int | None
    reference: str | None
    note: str | None
    created_at: datetime
    actor: str = "system"
    """Who wrote it. For operators: a customer does not learn their names."""


@dataclass(frozen=True, slots=True)
class LedgerSearch:
    """What somebody looks for in one account's ledger. None means any."""

    account_id: int
    kinds: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: int | None = None
    """The ``seq`` of the last line of the page before."""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class LedgerPage:
    entries: Sequence[Entry]
    has_more: bool


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One day (of UTC, ``2026-11-24``), model or key (``key_12``) with what it cost."""

    group: str
    tasks: int
    """Tasks that were charged in the period."""
    credits: Credits
    """Captures less refunds; each counts at its own time."""


@dataclass(frozen=True, slots=True)
class UsageCell:
    """What one model, or one key, cost on one day (of UTC)."""

    day: str
    group: str
    tasks: int
    credits: Credits


@dataclass(frozen=True, slots=True)
class Lot:
    """Credits that expire, as far as they are left; the earliest are spent first."""

    remaining: Credits
    expires_at: datetime


class Statements:
    """Reads of one account's books. Every query names the account: nobody sees another's lines."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ledger(self, account_id: int, *, limit: int = 50, after: int | None = None) -> LedgerPage:
        """Return lines newest first, those older than the line ``after`` (its ``seq``). Lines never change or vanish.

        Raises: InvalidParameter unless 1 <= limit <= 1000.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidParameter(f"'limit' must be between 1 and {MAX_PAGE}.", param="limit")
        return LedgerPage(*await self.search(LedgerSearch(account_id, limit=limit, after=after)))

    async def search(self, wanted: LedgerSearch) -> tuple[list[Entry], bool]:
        """Return one page of lines, newest first, and whether there are more. Raises: InvalidParameter."""
        kinds = None if wanted.kinds is None else sorted(set(wanted.kinds))
        if unknown := sorted(set(kinds or ()) - set(KINDS)):
            raise InvalidParameter(f"There is no kind '{unknown[0][:50]}': {', '.join(KINDS)}.", param="kind")
        where = Where()
        where.add("x.account_id = {}", wanted.account_id)
        where.add("x.seq < {}", wanted.after)
        # Lines are numbered in the order of time, but for transactions that ran at once.
        where.add(f"x.seq >= ({_FIRST_SINCE}) - {SLACK}", wanted.since)
        where.add(f"x.seq <= ({_LAST_UNTIL}) + {SLACK}", wanted.until)
        where.add("x.created_at >= {}", wanted.since)
        where.add("x.created_at < {}", wanted.until)
        lines = [_LINES.format(where=where.sql, limit=wanted.limit + 1)]
        if kinds is not None:  # in words, not as arguments: so the planner sees which index is of them alone
            lines = [
                _LINES.format(where=f"{where.sql} AND x.kind = '{kind}'", limit=wanted.limit + 1) for kind in kinds
            ]
        rows = await read(
            self._engine,
            _LEDGER.format(lines=" UNION ALL ".join(lines), limit=wanted.limit + 1),
            tuple(where.arguments),
            is_planned_anew=True,
        )
        return [_entry(row) for row in rows[: wanted.limit]], len(rows) > wanted.limit

    async def usage(self, account_id: int, *, start: datetime, end: datetime, by: By = "day") -> Sequence[UsageRow]:
        """Return what was spent in [start, end), by day in order of time, by model or key the dearest first.

        Raises: InvalidParameter.
        """
        if by not in _USAGE:
            raise InvalidParameter("'by' must be one of: day, model, key.", param="by")
        _check_period(start, end)
        rows = await read(self._engine, _USAGE[by], (account_id, start, end), is_planned_anew=True)
        return [UsageRow(row["group"], row["tasks"], row["credits"]) for row in rows]

    async def daily_usage(
        self, account_id: int, *, start: datetime, end: datetime, split: Split = "model"
    ) -> Sequence[UsageCell]:
        """Return what was spent in [start, end) by day and model, or by day and key; days without any are left out.

        Raises: InvalidParameter.
        """
        if split not in _SPLITS:
            raise InvalidParameter("'split' must be one of: model, key.", param="split")
        _check_period(start, end)
        rows = await read(self._engine, _DAILY[split], (account_id, start, end), is_planned_anew=True)
        return [UsageCell(row["day"], row["group"], row["tasks"], row["credits"]) for row in rows]

    async def lots(self, account_id: int) -> Sequence[Lot]:
        """Return what is left of the account's expiring credits, the next to expire first."""
        return [Lot(row["remaining"], row["expires_at"]) for row in await read(self._engine, _LOTS, (account_id,))]


def _check_period(start: datetime, end: datetime) -> None:
    """Raises: InvalidParameter."""
    if start >= end:
        raise InvalidParameter("'from' must lie before 'to'.", param="from")


def ledger_csv(entries: Iterable[Entry]) -> str:
    return csv_text(
        ("seq", "created_at", "kind", "amount", "balance", "task_id", "model", "key_id", "reference", "note"),
        (
            (
                entry.seq,
                entry.created_at.isoformat(),
                entry.kind,
                entry.amount,
                entry.balance,
                entry.task_id,
                entry.model,
                None if entry.key_id is None else f"key_{entry.key_id}",
                entry.reference,
                entry.note,
            )
            for entry in entries
        ),
    )


def usage_csv(rows: Iterable[UsageRow], by: By) -> str:
    return csv_text((by, "tasks", "credits"), ((row.group, row.tasks, row.credits) for row in rows))


def daily_usage_csv(cells: Iterable[UsageCell], split: Split) -> str:
    return csv_text(
        ("day", split, "tasks", "credits"), ((cell.day, cell.group, cell.tasks, cell.credits) for cell in cells)
    )


def _entry(row: Any) -> Entry:
    return Entry(
        seq=row["seq"],
        kind=row["kind"],
        amount=row["amount"],
        balance=row["balance"],
        task_id=None if row["task_id"] is None else task_public_id(row["task_id"]),
        model=row["model"],
        operation=row["operation"],
        key_id=row["key_id"],
        reference=row["external_ref"],
        note=row["note"],
        actor=row["actor"],
        created_at=row["created_at"],
    )


# A refund's line carries no key: it belongs to the key of its task.
_LEDGER = """
SELECT l.seq, l.kind, l.amount, l.balance, l.task_id, t.model, t.operation,
       coalesce(l.api_key_id, t.api_key_id) AS key_id, l.external_ref, l.note, l.actor, l.created_at
  FROM (SELECT * FROM ({lines}) y ORDER BY y.seq DESC LIMIT {limit:d}) l LEFT JOIN tasks t ON t.id = l.task_id
 ORDER BY l.seq DESC"""
_LINES = "(SELECT x.* FROM ledger x WHERE {where} ORDER BY x.seq DESC LIMIT {limit:d})"
# Compared as pairs: by the account's own index alone, never through everybody's lines of that time.
_FIRST_SINCE = """
SELECT CASE y.account_id WHEN $1 THEN y.seq END FROM ledger y WHERE (y.account_id, y.created_at) >= ($1, {})
 ORDER BY y.account_id, y.created_at LIMIT 1"""
_LAST_UNTIL = """
SELECT CASE y.account_id WHEN $1 THEN y.seq END FROM ledger y WHERE (y.account_id, y.created_at) < ($1, {})
 ORDER BY y.account_id DESC, y.created_at DESC LIMIT 1"""

_LOTS = "SELECT remaining, expires_at FROM credit_lots WHERE account_id = $1 AND remaining > 0 ORDER BY expires_at, id"

# A charge and its line in the ledger are written at once, at the same time: the charges come from an index of the tasks
# alone, so that a year of half a million is not half a million rows. Refunds are few.
_MOVED = """
WITH moved AS (
  SELECT (t.settled_at AT TIME ZONE 'UTC')::date AS day, t.model, t.api_key_id, 1 AS tasks, t.charge AS credits
    FROM tasks t WHERE t.account_id = $1 AND t.charge > 0 AND t.settled_at >= $2 AND t.settled_at < $3
   UNION ALL
  SELECT (l.created_at AT TIME ZONE 'UTC')::date, t.model, t.api_key_id, 0, -l.amount
    FROM ledger l JOIN tasks t ON t.id = l.task_id
   WHERE l.account_id = $1 AND l.kind = 'refund' AND l.created_at >= $2 AND l.created_at < $3)"""
_SUMS = "sum(tasks)::int AS tasks, sum(credits)::bigint AS credits FROM moved"
_USAGE: dict[str, str] = {
    "day": f"{_MOVED} SELECT to_char(day, 'YYYY-MM-DD') AS group, {_SUMS} GROUP BY moved.day ORDER BY moved.day",
    "model": f"{_MOVED} SELECT model AS group, {_SUMS} GROUP BY 1 ORDER BY 3 DESC, 1",
    "key": f"{_MOVED} SELECT 'key_' || api_key_id AS group, {_SUMS} GROUP BY api_key_id ORDER BY 3 DESC, api_key_id",
}

_SPLITS = {"model": ("model", "model"), "key": ("api_key_id", "'key_' || api_key_id")}
_DAILY = {
    split: f"""{_MOVED} SELECT to_char(day, 'YYYY-MM-DD') AS day, {name} AS group, {_SUMS}
 GROUP BY moved.day, {column} ORDER BY moved.day, 4 DESC, 2"""
    for split, (column, name) in _SPLITS.items()
}
