"""Figures for administrators: how the gateway does, what it earns and costs, and what it keeps. Reads only.

Every query is bounded: by its period through an index that holds all it asks for, by the number of open tasks, or by
the files that are kept, also from an index alone, and once a minute at most.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.errors import InvalidParameter
from app.generation.recent import Recent
from app.settings import Settings
from app.values import Credits, utcnow

Period = Literal["1h", "24h", "7d", "30d"]
PERIODS: Mapping[str, timedelta] = {
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
MINUTES = 60
MAX_DAYS = 366
TOP = 10
STORAGE_CACHE_S = 60
"""How old the counts of files may be: they read one entry of an index for each file that is kept."""
STEPS = 32
"""Of durations, from 1 second to 2.7: two that are told apart differ by 3 percent."""


@dataclass(frozen=True, slots=True)
class Minute:
    """Tasks that ended in one minute."""

    at: datetime
    succeeded: int
    failed: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the tasks that ended in a period, of one model or one upstream."""

    group: str
    succeeded: int
    failed: int
    cancelled: int
    p50_s: float | None
    """From the request to the result, of those that succeeded, to 2 percent; None: none did."""
    p95_s: float | None

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed + self.cancelled

    @property
    def success_rate(self) -> float | None:
        """Of those that were not cancelled; None: there were none."""
        tried = self.succeeded + self.failed
        return self.succeeded / tried if tried else None


@dataclass(frozen=True, slots=True)
class Pool:
    """What waits for one model of one upstream account, and what runs there."""

    pool: str
    queued: int
    running: int
    oldest_queued_s: float | None
    held: Credits
    due_s: float | None = None
    """How long the queued task that could be taken first has waited for a worker; below 0: it was put off."""


@dataclass(frozen=True, slots=True)
class Backlog:
    pools: Sequence[Pool]
    oldest_due_s: float
    """How long the most overdue step has waited for a worker."""
    webhooks_pending: int

    @property
    def queued(self) -> int:
        return sum(pool.queued for pool in self.pools)

    @property
    def running(self) -> int:
        return sum(pool.running for pool in self.pools)


@dataclass(frozen=True, slots=True)
class MoneyDay:
    """What moved on one day (of UTC). All but ``adjusted`` are 0 or more."""

    day: str
    sold: Credits
    granted: Credits
    captured: Credits
    refunded: Credits
    expired: Credits
    adjusted: Credits
    costs: Mapping[str, int]
    """What upstreams charged us for attempts of that day, in millionths, by currency."""


@dataclass(frozen=True, slots=True)
class Money:
    days: Sequence[MoneyDay]
    """Without a gap, oldest first."""
    posted: Credits
    """Of all accounts, now: what we owe in service."""
    held: Credits


@dataclass(frozen=True, slots=True)
class TopAccount:
    account_id: int
    email: str
    tasks: int
    credits: Credits
    """Captures less refunds."""


@dataclass(frozen=True, slots=True)
class StoredKind:
    role: str
    """``input``, ``mask``, ``result``, ``thumbnail`` or ``gif``."""
    state: str
    """``writing`` or ``ready``."""
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ExpiryDay:
    """Files that will be removed on one day (of UTC)."""

    day: str
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Storage:
    kinds: Sequence[StoredKind]
    expiry: Sequence[ExpiryDay]
    disk_free_bytes: int
    disk_total_bytes: int
    keep_free_bytes: int
    """With less than this no new work is taken."""
    result_ttl: timedelta
    input_ttl: timedelta
    link_ttl: timedelta

    @property
    def ready_bytes(self) -> int:
        return sum(kind.size_bytes for kind in self.kinds if kind.state == "ready")


class Statistics:
    """The figures. What counts many rows is asked for once in some seconds per process, whoever looks."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._recent = Recent(settings.statistics_cache_s)
        self._kept = Recent(max(STORAGE_CACHE_S, settings.statistics_cache_s) if settings.statistics_cache_s else 0)

    async def minutes(self) -> Sequence[Minute]:
        """Return the last hour by minutes, oldest first, without a gap; the present minute is not over."""
        return await self._recent.get("minutes", self._minutes)

    async def _minutes(self) -> Sequence[Minute]:
        rows = await db.read(self._engine, _MINUTES, (MINUTES,))
        return [Minute(row["at"], row["succeeded"], row["failed"], row["cancelled"]) for row in rows]

    async def outcomes(
        self, period: Period = "24h", *, by: Literal["model", "upstream", "all"] = "model"
    ) -> Sequence[Outcomes]:
        """Return what ended in the period, the busiest first; ``all``: in one sum. Raises: InvalidParameter."""
        if by not in _OUTCOMES:
            raise InvalidParameter("'by' must be one of: model, upstream, all.", param="by")
        length = length_of(period)
        return await self._recent.get(("outcomes", period, by), lambda: self._outcomes(by, length))

    async def _outcomes(self, by: str, length: timedelta) -> Sequence[Outcomes]:
        return [Outcomes(**row) for row in await db.read(self._engine, _OUTCOMES[by], (length,))]

    async def backlog(self) -> Backlog:
        """Return what is unfinished now."""
        pools = await db.read(self._engine, _POOLS)
        [due] = await db.read(self._engine, _DUE)
        return Backlog([Pool(**row) for row in pools], due["oldest_due_s"], due["webhooks_pending"])

    async def money(self, days: int = 30) -> Money:
        """Return the last days, today with them. Raises: InvalidParameter."""
        if not 1 <= days <= MAX_DAYS:
            raise InvalidParameter(f"'days' must be between 1 and {MAX_DAYS}.", param="days")
        return await self._recent.get(("money", days), lambda: self._money(days))

    async def _money(self, days: int) -> Money:
        lines = await db.read(self._engine, _MONEY, (days,))
        costs: dict[str, dict[str, int]] = {}
        for row in await db.read(self._engine, _COSTS, (days,)):
            costs.setdefault(row["day"], {})[row["currency"]] = row["micros"]
        [sums] = await db.read(self._engine, _SUMS)
        return Money([MoneyDay(**row, costs=costs.get(row["day"], {})) for row in lines], sums["posted"], sums["held"])

    async def top_accounts(self, period: Period = "30d", *, limit: int = TOP) -> Sequence[TopAccount]:
        """Return who spent most in the period. Raises: InvalidParameter."""
        length = length_of(period)
        return await self._recent.get(("top", period, limit), lambda: self._top_accounts(length, limit))

    async def _top_accounts(self, length: timedelta, limit: int) -> Sequence[TopAccount]:
        return [TopAccount(**row) for row in await db.read(self._engine, _TOP, (length, limit))]

    async def storage(self) -> Storage:
        """Return what is kept, until when, and how much room is left. Deleted files are not counted."""
        kinds, expiry = await self._kept.get("files", self._files)
        settings = self._settings
        disk = await asyncio.to_thread(shutil.disk_usage, settings.storage_dir)
        return Storage(
            kinds=kinds,
            expiry=expiry,
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
            keep_free_bytes=max(settings.disk_free_bytes, int(disk.total * settings.disk_free_percent / 100)),
            result_ttl=settings.result_ttl,
            input_ttl=settings.input_ttl,
            link_ttl=settings.link_ttl,
        )

    async def _files(self) -> tuple[Sequence[StoredKind], Sequence[ExpiryDay]]:
        kinds, expiry = await db.read(self._engine, _KINDS), await db.read(self._engine, _EXPIRY)
        return [StoredKind(**row) for row in kinds], [ExpiryDay(**row) for row in expiry]


def since(period: Period) -> datetime:
    """Return when a period began, for links to lists. Raises: InvalidParameter."""
    return utcnow() - length_of(period)


def length_of(period: str) -> timedelta:
    """Return how long a period is. Raises: InvalidParameter."""
    if period not in PERIODS:
        raise InvalidParameter(f"'period' must be one of: {', '.join(PERIODS)}.", param="period")
    return PERIODS[period]


_ENDS = """count(*) FILTER (WHERE t.status = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE t.status = 'failed') AS failed,
       count(*) FILTER (WHERE t.status = 'cancelled') AS cancelled"""

_MINUTES = f"""
SELECT m.at, {_ENDS}
  FROM generate_series(date_trunc('minute', now()) - ($1::int - 1) * interval '1 minute', date_trunc('minute', now()),
                       interval '1 minute') AS m (at)
  LEFT JOIN (SELECT date_trunc('minute', settled_at) AS at, status FROM tasks
              WHERE settled_at >= date_trunc('minute', now()) - ($1::int - 1) * interval '1 minute') t ON t.at = m.at
 GROUP BY 1 ORDER BY 1"""  # noqa: S608 - our own words

_GROUPS = {"model": ("model", "part"), "upstream": ("pool", "split_part(part, '/', 1)"), "all": ("model", "'all'")}
# Counted by steps of 3 percent, so that nothing is sorted: exact times of 200,000 tasks would take four times as long.
_OUTCOMES = {
    by: f"""
WITH counted AS (
  SELECT {column} AS part, status, CASE WHEN status = 'succeeded' THEN
           ceil(ln(greatest(date_part('epoch', settled_at - created_at), 0.001)) * {STEPS})::int END AS step,
         count(*) AS n
    FROM tasks WHERE settled_at >= now() - $1::interval GROUP BY 1, 2, 3),
merged AS (SELECT {group} AS name, status, step, sum(n) AS n FROM counted GROUP BY 1, 2, 3),
ranked AS (SELECT *, sum(n) OVER (PARTITION BY name, status ORDER BY step) AS upto,
                  sum(n) OVER (PARTITION BY name, status) AS total FROM merged)
SELECT name AS group, coalesce(sum(n) FILTER (WHERE status = 'succeeded'), 0)::int AS succeeded,
       coalesce(sum(n) FILTER (WHERE status = 'failed'), 0)::int AS failed,
       coalesce(sum(n) FILTER (WHERE status = 'cancelled'), 0)::int AS cancelled,
       exp((min(step) FILTER (WHERE step IS NOT NULL AND upto >= total * 0.5) - 0.5) / {STEPS}::float8) AS p50_s,
       exp((min(step) FILTER (WHERE step IS NOT NULL AND upto >= total * 0.95) - 0.5) / {STEPS}::float8) AS p95_s
  FROM ranked GROUP BY 1 ORDER BY sum(n) DESC, 1"""  # noqa: S608
    for by, (column, group) in _GROUPS.items()
}

# Queued and under way apart, as each has its own index.
_POOLS = """
SELECT pool, sum(queued)::int AS queued, sum(running)::int AS running, max(oldest)::float8 AS oldest_queued_s,
       max(due)::float8 AS due_s, sum(held)::bigint AS held
  FROM (SELECT pool, count(*) AS queued, 0 AS running, sum(hold) AS held,
               extract(epoch FROM clock_timestamp() - min(created_at)) AS oldest,
               extract(epoch FROM clock_timestamp() - min(wake_at)) AS due
          FROM tasks WHERE status = 'queued' GROUP BY 1
         UNION ALL
        SELECT pool, 0, count(*), sum(hold), NULL, NULL FROM tasks
         WHERE settled_at IS NULL AND status <> 'queued' GROUP BY 1) p
 GROUP BY 1 ORDER BY 2 DESC, 3 DESC, 1"""

_DUE = """
SELECT (SELECT greatest(coalesce(extract(epoch FROM clock_timestamp() - min(wake_at)), 0), 0)::float8 FROM tasks
         WHERE settled_at IS NULL AND status <> 'queued') AS oldest_due_s,
       (SELECT count(*) FROM webhook_deliveries WHERE state = 'pending') AS webhooks_pending"""

_FIRST_DAY = "((now() AT TIME ZONE 'UTC')::date - ($1::int - 1))::timestamp AT TIME ZONE 'UTC'"

_MONEY = f"""
SELECT to_char(d.day, 'YYYY-MM-DD') AS day,
       coalesce(sum(l.credits) FILTER (WHERE l.kind = 'topup'), 0)::bigint AS sold,
       coalesce(sum(l.credits) FILTER (WHERE l.kind = 'grant'), 0)::bigint AS granted,
       coalesce(-sum(l.credits) FILTER (WHERE l.kind = 'capture'), 0)::bigint AS captured,
       coalesce(sum(l.credits) FILTER (WHERE l.kind = 'refund'), 0)::bigint AS refunded,
       coalesce(-sum(l.credits) FILTER (WHERE l.kind = 'expire'), 0)::bigint AS expired,
       coalesce(sum(l.credits) FILTER (WHERE l.kind = 'adjust'), 0)::bigint AS adjusted
  FROM generate_series((now() AT TIME ZONE 'UTC')::date - ($1::int - 1), (now() AT TIME ZONE 'UTC')::date,
                       interval '1 day') AS d (day)
  LEFT JOIN (SELECT (created_at AT TIME ZONE 'UTC')::date AS day, kind, sum(amount) AS credits FROM ledger
              WHERE created_at >= {_FIRST_DAY} GROUP BY 1, 2) l ON l.day = d.day
 GROUP BY d.day ORDER BY d.day"""  # noqa: S608 - our own words

_COSTS = f"""
SELECT to_char(day, 'YYYY-MM-DD') AS day, coalesce(currency, '') AS currency, micros
  FROM (SELECT (sent_at AT TIME ZONE 'UTC')::date AS day, cost_currency AS currency,
               sum(upstream_cost)::bigint AS micros
          FROM task_attempts WHERE upstream_cost IS NOT NULL AND sent_at >= {_FIRST_DAY} GROUP BY 1, 2) c"""  # noqa: S608

_SUMS = "SELECT coalesce(sum(posted), 0)::bigint AS posted, coalesce(sum(held), 0)::bigint AS held FROM accounts"

_TOP = """
SELECT l.account_id, a.email, l.tasks, l.credits
  FROM (SELECT account_id, count(*) FILTER (WHERE kind = 'capture') AS tasks, -sum(amount)::bigint AS credits
          FROM ledger WHERE created_at >= now() - $1::interval AND kind IN ('capture', 'refund')
         GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT $2) l
  JOIN accounts a ON a.id = l.account_id ORDER BY l.credits DESC, l.account_id"""

_KINDS = """
SELECT role, state, count(*) AS files, coalesce(sum(bytes), 0)::bigint AS size_bytes FROM files
 WHERE state <> 'deleted' GROUP BY 1, 2 ORDER BY 1, 2"""

_EXPIRY = """
SELECT to_char(day, 'YYYY-MM-DD') AS day, files, size_bytes
  FROM (SELECT (expires_at AT TIME ZONE 'UTC')::date AS day, count(*) AS files,
               coalesce(sum(bytes), 0)::bigint AS size_bytes FROM files
         WHERE state <> 'deleted' AND state = 'ready' GROUP BY 1) f
 ORDER BY 1"""
