"""Keeps watch over the books: workers count what has ended and audit the ledger; the metrics read what they found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.credits.audit import Audit
from app.errors import DatabaseUnavailable

log = structlog.get_logger()

COUNT_EVERY_S = 15.0
COUNT_STATEMENT_S = 600.0
"""For one day's worth of what has ended."""
LAG_S = 30.0
"""What ended more recently is counted next time: its transaction may not be committed yet."""
REST = 20
"""An audit that took a minute comes again after twenty at the earliest."""
LOCK = 0x6D67_0001
BOOKS = ("I1", "I2", "I3", "I4", "I5", "I6")
"""The invariants about credits: together they are the ledger's imbalance."""


@dataclass(frozen=True, slots=True)
class LastAudit:
    """What the last audit found."""

    at: datetime
    violations: Mapping[str, int]
    """By invariant."""

    @property
    def imbalance(self) -> int:
        """Violations of the invariants about credits."""
        return sum(self.violations.get(name, 0) for name in BOOKS)

    @property
    def others(self) -> int:
        """Violations of those about tasks and files."""
        return sum(self.violations.values()) - self.imbalance


class Watch:
    """One per worker; of all workers one at a time does the work."""

    def __init__(
        self, engine: AsyncEngine, audit: Audit, *, audit_every_s: float, statement_s: float = COUNT_STATEMENT_S
    ) -> None:
        self._engine = engine
        self._patient = db.patient(engine, statement_s=statement_s)
        self._audit = audit
        self._audit_every_s = audit_every_s

    async def run(self) -> None:
        """Count and audit until cancelled; what fails, or finds no database, is tried again in the next round."""
        while True:
            for work in (self.count, self.audit):
                try:
                    await work()
                except Exception as error:
                    is_away = db.is_transient(error) or isinstance(error, DatabaseUnavailable)
                    log.warning("watch.later", work=work.__name__, error=type(error).__name__, exc_info=not is_away)
            await asyncio.sleep(COUNT_EVERY_S)

    async def count(self, *, lag_s: float = LAG_S) -> bool:
        """Add what ended since the last count to the totals, a day at a time: the first count is over all.

        Returns False when another worker is at it.
        """
        is_done = False
        while not is_done:
            async with db.transaction(self._patient) as connection:
                span = (await connection.exec_driver_sql(_CLAIM_COUNT, (lag_s,))).mappings().one_or_none()
                if span is None:
                    return False
                since, until, is_done = span["counted_to"], span["until"], span["is_last"]
                await connection.exec_driver_sql(_COUNT_TASKS, (since, until))
                await connection.exec_driver_sql(_COUNT_ATTEMPTS, (since, until))
                await connection.exec_driver_sql("UPDATE watch SET counted_to = $1", (until,))
        return True

    async def audit(self, *, now: bool = False) -> Mapping[str, int] | None:
        """Check the invariants if that is due (or ``now``). Returns violations by invariant; None: nothing was done."""
        if self._audit_every_s == 0 and not now:
            return None
        async with db.only_one(self._engine, LOCK) as is_ours:
            if not is_ours:
                return None
            due = await db.once(self._engine, _IS_DUE, (0.0 if now else self._audit_every_s, 0.0 if now else REST))
            if not due:
                return None
            started = asyncio.get_running_loop().time()
            violations: dict[str, int] = {}
            for finding in await self._audit.run():
                violations[finding.invariant] = len(finding.violations)
                if not finding.is_clean:
                    log.error(
                        "audit.violated",
                        invariant=finding.invariant,
                        title=finding.title,
                        count=len(finding.violations),
                        first=finding.violations[:5],
                    )
            took_s = asyncio.get_running_loop().time() - started
            await db.once(
                self._engine,
                "UPDATE watch SET audited_at = now(), audit_s = $1, violations = $2::text::jsonb",
                (took_s, json.dumps(violations)),
            )
            return violations

    async def last_audit(self) -> LastAudit | None:
        """Return what the last audit found; None: there was none yet."""
        rows = await db.read(self._engine, "SELECT audited_at, violations FROM watch WHERE audited_at IS NOT NULL")
        if not rows:
            return None
        violations = rows[0]["violations"]
        return LastAudit(
            rows[0]["audited_at"], json.loads(violations) if isinstance(violations, str) else violations or {}
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """What the database knows about the whole gateway, for every process alike."""

    open_tasks: Sequence[Mapping[str, Any]]
    """pool, status, tasks, credits."""
    queues: Sequence[Mapping[str, Any]]
    """pool, oldest_s."""
    oldest_due_s: float
    """How long the most overdue step of a task that an upstream has, or may have, has waited for a worker."""
    ended: Sequence[Mapping[str, Any]]
    """model, status, reason, tasks, credits; since the beginning."""
    attempts: Sequence[Mapping[str, Any]]
    """provider, state, attempts, credits; of ended tasks, since the beginning."""
    late: Sequence[Mapping[str, Any]]
    """provider, attempts."""
    posted: int
    held: int
    entries: Sequence[Mapping[str, Any]]
    """kind, entries, credits: all kinds of ledger lines but captures."""
    webhooks_pending: int
    webhooks_oldest_s: float
    counted_age_s: float | None
    audit_age_s: float | None
    audit_s: float | None
    violations: Mapping[str, int] | None
    """By invariant, at the last audit; None: there was none yet."""

    @property
    def imbalance(self) -> int | None:
        return None if self.violations is None else sum(self.violations.get(name, 0) for name in BOOKS)


async def read_figures(engine: AsyncEngine) -> Figures:
    """Read all of it, in few milliseconds whatever the size of the books. Raises: what the database raises."""
    async with engine.connect() as connection:

        async def rows(sql: str) -> list[Mapping[str, Any]]:
            return [dict(row) for row in (await connection.exec_driver_sql(sql)).mappings()]

        [sums] = await rows(_SUMS)
        violations = sums["violations"]
        return Figures(
            open_tasks=await rows(_OPEN),
            queues=await rows(_QUEUES),
            oldest_due_s=sums["oldest_due_s"],
            ended=await rows("SELECT model, status, reason, tasks, credits FROM task_counts"),
            attempts=await rows("SELECT provider, state, attempts, credits FROM attempt_counts"),
            late=await rows(_LATE),
            posted=sums["posted"],
            held=sums["held"],
            entries=await rows(_KINDS),
            webhooks_pending=sums["webhooks_pending"],
            webhooks_oldest_s=sums["webhooks_oldest_s"],
            counted_age_s=sums["counted_age_s"],
            audit_age_s=sums["audit_age_s"],
            audit_s=sums["audit_s"],
            violations=json.loads(violations) if isinstance(violations, str) else violations,
        )


_CLAIM_COUNT = """
SELECT counted_to, least(last, next) AS until, last <= next AS is_last
  FROM (SELECT *, greatest(now() - $1 * interval '1 second', counted_to) AS last,
               CASE WHEN isfinite(counted_to) THEN counted_to
                    ELSE coalesce((SELECT min(settled_at) FROM tasks), now()) END + interval '1 day' AS next
          FROM watch FOR UPDATE SKIP LOCKED) w"""

_COUNT_TASKS = """
INSERT INTO task_counts AS c (model, status, reason, tasks, credits)
SELECT model, status, coalesce(error_code, ''), count(*), sum(charge) FROM tasks
 WHERE settled_at > $1 AND settled_at <= $2 GROUP BY 1, 2, 3
    ON CONFLICT (model, status, reason) DO UPDATE SET tasks = c.tasks + excluded.tasks,
       credits = c.credits + excluded.credits"""

_COUNT_ATTEMPTS = """
INSERT INTO attempt_counts AS c (provider, state, attempts, credits)
SELECT a.provider, a.state, count(*), sum(t.hold) FROM tasks t JOIN task_attempts a ON a.task_id = t.id
 WHERE t.settled_at > $1 AND t.settled_at <= $2 GROUP BY 1, 2
    ON CONFLICT (provider, state) DO UPDATE SET attempts = c.attempts + excluded.attempts,
       credits = c.credits + excluded.credits"""

_IS_DUE = """
SELECT 1 FROM watch WHERE audited_at IS NULL
    OR audited_at <= now() - greatest($1::float8, $2::float8 * coalesce(audit_s, 0)) * interval '1 second'"""

# In two parts, as each has its own index: what is queued, and what is under way.
_OPEN = """
SELECT pool, status, count(*) AS tasks, sum(hold)::bigint AS credits FROM tasks WHERE status = 'queued' GROUP BY 1, 2
 UNION ALL
SELECT pool, status, count(*), sum(hold)::bigint FROM tasks WHERE settled_at IS NULL AND status <> 'queued'
 GROUP BY 1, 2"""

_QUEUES = """
SELECT pool, extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest_s FROM tasks
 WHERE status = 'queued' GROUP BY 1"""

_LATE = "SELECT provider, count(*) AS attempts FROM task_attempts WHERE late_at IS NOT NULL GROUP BY 1"

_KINDS = """
SELECT kind, count(*) AS entries, sum(amount)::bigint AS credits FROM ledger
 WHERE external_ref IS NOT NULL GROUP BY 1"""

_SUMS = """
SELECT (SELECT coalesce(sum(posted), 0)::bigint FROM accounts) AS posted,
       (SELECT coalesce(sum(held), 0)::bigint FROM accounts) AS held,
       (SELECT greatest(coalesce(extract(epoch FROM clock_timestamp() - min(wake_at)), 0), 0)::float8 FROM tasks
         WHERE settled_at IS NULL AND status <> 'queued') AS oldest_due_s,
       (SELECT count(*) FROM webhook_deliveries WHERE state = 'pending') AS webhooks_pending,
       (SELECT greatest(coalesce(extract(epoch FROM clock_timestamp() - min(due_at)), 0), 0)::float8
          FROM webhook_deliveries WHERE state = 'pending') AS webhooks_oldest_s,
       CASE WHEN isfinite(w.counted_to) THEN extract(epoch FROM clock_timestamp() - w.counted_to)::float8 END
         AS counted_age_s,
       extract(epoch FROM clock_timestamp() - w.audited_at)::float8 AS audit_age_s, w.audit_s, w.violations
  FROM watch w"""
