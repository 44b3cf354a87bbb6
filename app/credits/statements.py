"""What an account sees of its credits: ledger pages and usage. Reads only; credits move in ledger.py."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import once, retried
from app.errors import InvalidParameter
from app.values import Credits, task_public_id

MAX_PAGE = 1000

By = Literal["day", "model", "key"]


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
        rows = await retried(lambda: once(self._engine, _LEDGER, (account_id, after, limit + 1)))
        return LedgerPage([_entry(row) for row in rows[:limit]], len(rows) > limit)

    async def usage(self, account_id: int, *, start: datetime, end: datetime, by: By = "day") -> Sequence[UsageRow]:
        """Return what was spent in [start, end), by day in order of time, by model or key the dearest first.

        Raises: InvalidParameter.
        """
        if by not in _USAGE:
            raise InvalidParameter("'by' must be one of: day, model, key.", param="by")
        if start >= end:
            raise InvalidParameter("'from' must lie before 'to'.", param="from")
        rows = await retried(lambda: once(self._engine, _USAGE[by], (account_id, start, end)))
        return [UsageRow(row["group"], row["tasks"], row["credits"]) for row in rows]


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


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows with a header, as a spreadsheet reads them."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: object) -> object:
    # A spreadsheet runs text that starts like a formula; numbers may be negative.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


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
        created_at=row["created_at"],
    )


# A refund's line carries no key: it belongs to the key of its task.
_LEDGER = """
SELECT l.seq, l.kind, l.amount, l.balance, l.task_id, t.model, t.operation,
       coalesce(l.api_key_id, t.api_key_id) AS key_id, l.external_ref, l.note, l.created_at
  FROM ledger l LEFT JOIN tasks t ON t.id = l.task_id
 WHERE l.account_id = $1 AND ($2::bigint IS NULL OR l.seq < $2) ORDER BY l.seq DESC LIMIT $3"""

_USAGE: dict[str, str] = {
    "day": """
SELECT to_char(l.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS group,
       count(*) FILTER (WHERE l.kind = 'capture') AS tasks, sum(-l.amount)::bigint AS credits
  FROM ledger l
 WHERE l.account_id = $1 AND l.kind IN ('capture','refund') AND l.created_at >= $2 AND l.created_at < $3
 GROUP BY 1 ORDER BY 1""",
    "model": """
SELECT t.model AS group, count(*) FILTER (WHERE l.kind = 'capture') AS tasks, sum(-l.amount)::bigint AS credits
  FROM ledger l JOIN tasks t ON t.id = l.task_id
 WHERE l.account_id = $1 AND l.kind IN ('capture','refund') AND l.created_at >= $2 AND l.created_at < $3
 GROUP BY 1 ORDER BY credits DESC, 1""",
    "key": """
SELECT 'key_' || t.api_key_id AS group, count(*) FILTER (WHERE l.kind = 'capture') AS tasks,
       sum(-l.amount)::bigint AS credits
  FROM ledger l JOIN tasks t ON t.id = l.task_id
 WHERE l.account_id = $1 AND l.kind IN ('capture','refund') AND l.created_at >= $2 AND l.created_at < $3
 GROUP BY t.api_key_id ORDER BY credits DESC, t.api_key_id""",
}
