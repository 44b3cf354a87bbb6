"""The invariants of the books, each a query that must return nothing; run after every fault test, and nightly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db import once, only_one, patient
from app.values import task_public_id

GRACE_S = 600.0  # a result is written before its row is ready, and an input before its task exists
STATEMENT_TIMEOUT_S = 600.0
STORAGE_LOCK = 0x6D67_0003

StoredObject = tuple[str, float, int]
"""Key, time of writing (Unix seconds), size in bytes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one invariant; no violations means that it holds."""

    invariant: str
    title: str
    violations: list[str]
    checked: int
    """How many rows were looked at: an audit of nothing proves nothing."""

    @property
    def is_clean(self) -> bool:
        return not self.violations


class Audit:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = patient(engine, statement_s=STATEMENT_TIMEOUT_S)

    async def run(self, stored: Iterable[StoredObject] | None = None) -> list[Finding]:
        """Check everything on one snapshot; I10 only when the storage's objects are given.

        ``stored`` is read in a thread, after the snapshot was taken.
        """
        async with self._engine.connect() as connection:
            connection = await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            totals = (await connection.exec_driver_sql(_TOTALS)).mappings().one()
            findings = [
                Finding(name, title, await _violations(connection, noun, sql), totals[table])
                for name, title, table, noun, sql in _INVARIANTS
            ]
            rows = [] if stored is None else list((await connection.exec_driver_sql(_FILES)).mappings())
            await connection.rollback()
        if stored is not None:
            findings.append(await self._storage(rows, stored))
        return findings

    async def check_storage(self, stored: Iterable[StoredObject]) -> Finding | None:
        """Compare the storage's objects with the files' rows, I10 alone. ``stored`` is read in a thread, after them.

        Returns None while another process, or another request, is at it: it looks at every file.
        """
        async with only_one(self._engine, STORAGE_LOCK) as is_ours:
            if not is_ours:
                return None
            rows = await once(self._engine, _FILES)
            return await self._storage(rows, stored)

    async def _storage(self, rows: list[Any], stored: Iterable[StoredObject]) -> Finding:
        now = time.time()
        by_key = {row["storage_key"]: row for row in rows}
        found = await asyncio.to_thread(lambda: {key: (mtime, size) for key, mtime, size in stored})
        suspects: dict[str, str] = {}
        for key, row in by_key.items():
            if row["state"] == "ready" and key not in found:
                suspects[key] = f"file {row['id']} is ready, but its object {key} is missing"
            elif row["state"] == "ready" and found[key][1] != row["bytes"]:
                suspects[key] = f"file {row['id']} has {row['bytes']} bytes, but its object {key} {found[key][1]}"
            elif row["state"] == "writing" and row["age_s"] > GRACE_S:
                suspects[key] = f"file {row['id']} has been in state writing for {int(row['age_s'])} s"
        for key, (mtime, _) in found.items():
            row = by_key.get(key)
            if row is not None and row["state"] == "deleted":
                suspects[key] = f"file {row['id']} is deleted, but its object {key} is still there"
            elif row is None and now - mtime > GRACE_S:
                suspects[key] = f"object {key} belongs to no file"
        confirmed = await self._still_so(list(suspects), by_key)
        return Finding(
            "I10",
            "stored objects = ready files",
            [text for key, text in suspects.items() if key in confirmed],
            len(by_key.keys() | found.keys()),
        )

    async def _still_so(self, keys: list[str], before: dict[str, Any]) -> set[str]:
        """Return the suspects whose row is as it was: the others were written or deleted while we looked."""
        async with self._engine.connect() as connection:
            result = await connection.exec_driver_sql(_STATES, (keys,))
            now = {row["storage_key"]: row["state"] for row in result.mappings()}
            await connection.rollback()
        return {key for key in keys if now.get(key) == (before[key]["state"] if key in before else None)}


async def _violations(connection: AsyncConnection, noun: str, sql: str) -> list[str]:
    result = await connection.exec_driver_sql(sql)
    return [f"{noun} {task_public_id(row[0]) if noun == 'task' else row[0]}" for row in result]


_TOTALS = """
SELECT (SELECT count(*) FROM accounts) AS accounts, (SELECT count(*) FROM tasks) AS tasks,
       (SELECT count(*) FROM ledger) AS ledger, (SELECT count(*) FROM key_budgets) AS key_budgets"""

_FILES = """
SELECT id, storage_key, state, bytes, extract(epoch FROM now() - created_at)::float8 AS age_s FROM files"""

_STATES = "SELECT storage_key, state FROM files WHERE storage_key = ANY($1::text[])"

# (name, title, the table that is counted, what the query's ids are, the query): the ledger design's, word for word.
_INVARIANTS: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "I1",
        "balance = sum of entries, no entry missing",
        "accounts",
        "account",
        """
SELECT a.id FROM accounts a LEFT JOIN (SELECT account_id, sum(amount) s, count(*) n, max(seq) m FROM ledger
 GROUP BY 1) l ON l.account_id = a.id
 WHERE a.posted <> coalesce(l.s,0) OR a.entry_seq <> coalesce(l.n,0) OR a.entry_seq <> coalesce(l.m,0)
""",
    ),
    (
        "I2",
        "held = sum of open holds, in_flight = number of open tasks",
        "accounts",
        "account",
        """
SELECT a.id FROM accounts a LEFT JOIN (SELECT account_id, sum(hold) h, count(*) n FROM tasks WHERE settled_at IS NULL
 GROUP BY 1) t ON t.account_id = a.id WHERE a.held <> coalesce(t.h,0) OR a.in_flight <> coalesce(t.n,0)
""",
    ),
    (
        "I3",
        "each charge has exactly its capture, and the reverse",
        "tasks",
        "task",
        """
SELECT coalesce(t.id, l.task_id) FROM tasks t FULL JOIN (SELECT * FROM ledger WHERE kind = 'capture') l
 ON l.task_id = t.id
 WHERE coalesce(t.charge,0) <> coalesce(-l.amount,0)
""",
    ),
    (
        "I4",
        "the running balance chains",
        "ledger",
        "ledger row",
        """
SELECT id FROM (SELECT id, balance, amount, lag(balance,1,0::bigint) OVER (PARTITION BY account_id ORDER BY seq) p
 FROM ledger) x WHERE balance <> p + amount
""",
    ),
    (
        "I5",
        "a key's held and in_flight = its open tasks",
        "key_budgets",
        "key",
        """
SELECT b.api_key_id FROM key_budgets b LEFT JOIN (SELECT api_key_id, sum(hold) h, count(*) n FROM tasks
 WHERE settled_at IS NULL GROUP BY 1) t USING (api_key_id)
 WHERE b.held <> coalesce(t.h,0) OR b.in_flight <> coalesce(t.n,0)
""",
    ),
    (
        "I6",
        "expiring = sum of open lots",
        "accounts",
        "account",
        """
SELECT a.id FROM accounts a LEFT JOIN (SELECT account_id, sum(remaining) r FROM credit_lots GROUP BY 1) c
 ON c.account_id = a.id WHERE a.expiring <> coalesce(c.r,0)
""",
    ),
    (
        "I7",
        "nothing is stuck past its deadline",
        "tasks",
        "task",
        """
SELECT id FROM tasks WHERE settled_at IS NULL AND deadline_at < now() - interval '10 minutes'
""",
    ),
    (
        "I8",
        "a succeeded task has its files",
        "tasks",
        "task",
        """
SELECT t.id FROM tasks t WHERE t.status = 'succeeded' AND NOT EXISTS
 (SELECT 1 FROM files f WHERE f.task_id = t.id AND f.role = 'result' AND f.state IN ('ready','deleted'))
""",
    ),
    (
        "I9",
        "a settled task has no open attempt",
        "tasks",
        "task",
        """
SELECT t.id FROM tasks t JOIN task_attempts x ON x.task_id = t.id
 WHERE t.settled_at IS NOT NULL AND x.state IN ('sending','accepted','uncertain')
""",
    ),
)
