"""Turns a task away before its hold when it would wait in its pool's queue for longer than it may.

How long: the tasks before it, divided by how many the pool ends in a second. Both are read from the database, at most
once a second for each pool and process. A caller whose place is further in front than the end of the line (the rank is
fair: another account's burst lines up behind everybody's first tasks) is judged by that place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.errors import QueueFull
from app.upstreams.registry import RouteEntry

log = structlog.get_logger()

KNOWN_S = 1.0
"""How long what the database said is believed."""
SAMPLE = 50
"""Latest ends that tell how long a task takes."""
WINDOW_S = 30.0
"""Over this long at least, where the queue has stood for it, ends are counted; longer where tasks take longer."""
STOOD_S = 5.0
"""A queue younger than this says nothing about the pool's speed."""
PLACES = 10_000
RETRY_AFTER_S = (5, 60)

_QUEUE = f"""SELECT q.queued, coalesce(q.stood_s, 0) AS stood_s, d.mean_s, least(q.stood_s, w.window_s) AS window_s,
 (SELECT count(*) FROM tasks WHERE pool = $1 AND settled_at IS NOT NULL AND started_at IS NOT NULL
  AND settled_at > now() - least(q.stood_s, w.window_s) * interval '1 second') AS ended
 FROM (SELECT count(*) AS queued, extract(epoch FROM now() - min(created_at))::float8 AS stood_s
       FROM tasks WHERE status = 'queued' AND pool = $1) q,
  (SELECT avg(extract(epoch FROM settled_at - started_at))::float8 AS mean_s FROM (
       SELECT settled_at, started_at FROM tasks WHERE pool = $1 AND settled_at IS NOT NULL AND started_at IS NOT NULL
       ORDER BY settled_at DESC LIMIT {SAMPLE}) latest) d,
  LATERAL (SELECT greatest({WINDOW_S}, 3 * d.mean_s) AS window_s) w"""  # noqa: S608 - our own numbers
_PLACE = """SELECT count(*) AS ahead FROM tasks WHERE status = 'queued' AND pool = $1
 AND rank < clock_timestamp() + (SELECT in_flight + 1 FROM accounts WHERE id = $2) * interval '1 second'"""


@dataclass(slots=True)
class Queue:
    """A pool's line, and how fast it moves."""

    queued: int = 0
    stood_s: float = 0.0
    """For how long somebody has been waiting: as long the pool has had no free place."""
    mean_s: float | None = None
    """How long a task is with the upstream; None: none has ended yet."""
    window_s: float = 0.0
    ended: int = 0
    """Tasks that ended within ``window_s``, while there was a queue all the time."""
    entered: int = 0
    """Let in by this process since it looked."""

    def per_s(self, slots: int) -> float | None:
        """Return how many tasks end in a second; None: not known yet, and nobody is refused for that.

        Counted, where a queue stood for long enough: then the pool did what it can. Else its places and the time of
        a task say what it could do: a pool that was idle has not shown it.
        """
        if self.mean_s is None:
            return None
        if self.stood_s >= max(STOOD_S, self.mean_s):
            return (self.ended + 1) / self.window_s
        return slots / max(self.mean_s, 0.001)

    def wait_s(self, slots: int, ahead: int) -> float:
        """Return how long one with ``ahead`` tasks before it would wait."""
        per_s = self.per_s(slots)
        return 0.0 if per_s is None else max(ahead, 0) / per_s

    @property
    def length(self) -> int:
        return self.queued + self.entered


@dataclass(frozen=True, slots=True)
class Place:
    """A route that would do, and the tasks of its pool that may be with the upstream at once."""

    route: RouteEntry
    slots: int


@dataclass(slots=True)
class _Known:
    until: float = -1.0
    value: Any = None


@dataclass(slots=True)
class Admission:
    """One per process. ``clock`` is monotonic seconds."""

    engine: AsyncEngine
    clock: Callable[[], float] = time.monotonic
    random: Random = field(default_factory=Random)
    _queues: dict[str, _Known] = field(default_factory=dict)
    _places: dict[tuple[str, int], _Known] = field(default_factory=dict)

    async def admit(self, places: Sequence[Place], *, account_id: int, max_wait_s: float) -> RouteEntry:
        """Return the first route whose pool has room in its queue for this account. Raises: QueueFull."""
        shortest = math.inf
        for place in places:
            wait_s = await self._wait_s(place, account_id, max_wait_s)
            if wait_s <= max_wait_s:
                self._queue(place.route.pool).entered += 1
                return place.route
            shortest = min(shortest, wait_s)
        raise QueueFull(
            f"The queue of '{places[0].route.model}' is full: a task would wait about {_about(shortest)}, and may wait "
            f"for {max_wait_s:.0f} s. Nothing was done or charged. Try again later.",
            retry_after_s=self._retry_after_s(shortest - max_wait_s),
        )

    async def _wait_s(self, place: Place, account_id: int, max_wait_s: float) -> float:
        """Return the wait at the end of the line; where that is too long, the wait at this account's own place."""
        pool = place.route.pool
        await self._look(pool)
        queue = self._queue(pool)
        # Those who came into an empty line since we looked are at the upstream, as far as there are places.
        ahead = queue.length if queue.queued else queue.length - place.slots
        wait_s = queue.wait_s(place.slots, ahead)
        if wait_s <= max_wait_s:
            return wait_s
        return min(wait_s, queue.wait_s(place.slots, await self._ahead(pool, account_id)))

    def _queue(self, pool: str) -> Queue:
        known = self._queues.setdefault(pool, _Known(value=Queue()))
        found: Queue = known.value
        return found

    async def _look(self, pool: str) -> None:
        """Read the queue again when it is time; whoever comes meanwhile goes by what was known."""
        known = self._queues.setdefault(pool, _Known(value=Queue()))
        if self.clock() < known.until:
            return
        known.until = self.clock() + KNOWN_S
        row = await self._ask(_QUEUE, (pool,))
        if row is not None:
            known.value = Queue(
                row["queued"], row["stood_s"], row["mean_s"], max(row["window_s"] or 0.0, 1.0), row["ended"]
            )

    async def _ahead(self, pool: str, account_id: int) -> int:
        """Return how many queued tasks a new one of this account would find before it."""
        if len(self._places) > PLACES:
            self._places.clear()
        known = self._places.setdefault((pool, account_id), _Known(value=0))
        if self.clock() >= known.until:
            known.until = self.clock() + KNOWN_S
            row = await self._ask(_PLACE, (pool, account_id))
            if row is not None:
                known.value = row["ahead"]
        found: int = known.value
        return found

    async def _ask(self, sql: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return (await db.once(self.engine, sql, arguments))[0]
        except (SQLAlchemyError, OSError) as error:
            # Not for us to refuse a task for that: its hold asks the same database.
            log.warning("admission.blind", error=type(error).__name__)
            return None

    def _retry_after_s(self, too_long_s: float) -> int:
        low, high = RETRY_AFTER_S
        return round(min(max(too_long_s, low), high - low) + self.random.uniform(0, low))


def _about(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
