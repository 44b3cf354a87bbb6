"""What needs an administrator now: models that nobody can make, upstreams that are cut off or fail, work that waits.

It looks at what is in force, at the pools' health and at the figures, and says each thing once: the page says what to
do about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from app.catalog.load import Catalog
from app.generation.faults import Fault, Faults
from app.generation.statistics import Backlog, Statistics
from app.upstreams.health import Blocked, Health
from app.upstreams.registry import Registry, RouteEntry
from app.upstreams.routing import serving

LATE_S = 30.0
"""A step that waits that long for a worker says that none comes."""
IDLE_S = 60.0
"""So does a task that could be taken, of a pool where nothing runs."""
PAUSE_S = 10.0
"""A vendor may ask us to wait a moment: only longer pauses are worth a word."""
MIN_FAILED = 5
BAD_SHARE = 0.5
FULL_SOON = 1.25
"""Of the room that is kept free: with less than this the disk is nearly full."""

Kind = Literal[
    "unrouted", "secretless", "stopped", "broken", "trying", "paused", "failing", "late", "idle", "full", "filling"
]


@dataclass(frozen=True, slots=True)
class Concern:
    """One thing that is not as it should be."""

    kind: Kind
    """``unrouted``: models without a route that takes tasks; ``secretless``: an upstream that is used and has no
    secret, though its vendor wants one; ``stopped``: models of whose routes none takes calls now;
    ``broken``, ``trying``, ``paused``: a pool cut off by errors, about to be tried again, or paused by its vendor;
    ``failing``: an upstream whose tasks fail; ``late``, ``idle``: no worker comes; ``full``, ``filling``: the disk."""
    models: Sequence[str] = ()
    pool: str = ""
    upstream: str = ""
    seconds: float = 0.0
    """Until the next try, or since when it waits."""
    fault: Fault | None = None
    failed: int = 0
    ended: int = 0
    free_bytes: int = 0

    @property
    def is_urgent(self) -> bool:
        """Whether somebody's work fails or stands still."""
        return self.kind in ("unrouted", "secretless", "stopped", "broken", "late", "idle", "full")


class Attention:
    def __init__(
        self,
        catalog: Callable[[], Catalog],
        registry: Registry,
        health: Health,
        statistics: Statistics,
        faults: Faults,
        *,
        idle_s: float = IDLE_S,
    ) -> None:
        """``catalog`` returns the one in force."""
        self._idle_s = idle_s
        self._catalog = catalog
        self._registry = registry
        self._health = health
        self._statistics = statistics
        self._faults = faults

    async def look(self) -> Sequence[Concern]:
        """Return what is wrong now, the most urgent first."""
        routes = {model: serving(self._registry, model) for model in self._catalog().models}
        pools = {route.pool for served in routes.values() for route in served}
        doubted = await self._health.doubted(pools)
        waiting = await self._health.blocked(pools)
        blocked = {pool: wait for pool, wait in waiting.items() if wait.why == "broken" or wait.seconds >= PAUSE_S}
        faults = await self._faults.latest(sorted({*blocked, *doubted}))
        found = [
            *_models(routes, blocked),
            *self._secretless({route.upstream for served in routes.values() for route in served}),
            *_pools(routes, blocked, doubted, faults),
            *await self._failing({pool.partition("/")[0] for pool in {*blocked, *doubted}}),
            *self._work(await self._statistics.backlog(), {*waiting, *doubted}),
            *await self._disk(),
        ]
        return sorted(found, key=lambda concern: not concern.is_urgent)

    def _secretless(self, upstreams: set[str]) -> Iterator[Concern]:
        for upstream in sorted(upstreams):
            if self._registry.lacks_secret(upstream):
                yield Concern("secretless", upstream=upstream)

    async def _failing(self, known: set[str]) -> Sequence[Concern]:
        """Return the upstreams that fail more often than not; ``known`` are those of which something was said."""
        failed: dict[str, int] = {}
        for row in await self._faults.why("1h"):
            if row.is_upstreams:
                failed[row.upstream] = failed.get(row.upstream, 0) + row.failed
        return [
            Concern("failing", upstream=row.group, failed=failed[row.group], ended=row.succeeded + row.failed)
            for row in await self._statistics.outcomes("1h", by="upstream")
            if row.group not in known
            and failed.get(row.group, 0) >= max(MIN_FAILED, BAD_SHARE * (row.succeeded + row.failed))
        ]

    def _work(self, backlog: Backlog, blocked: set[str]) -> Iterator[Concern]:
        if backlog.oldest_due_s >= LATE_S:
            yield Concern("late", seconds=backlog.oldest_due_s)
            return
        for pool in backlog.pools:
            waits_s = pool.due_s
            if waits_s is not None and waits_s >= self._idle_s and not pool.running and pool.pool not in blocked:
                yield Concern("idle", pool=pool.pool, seconds=waits_s)

    async def _disk(self) -> Sequence[Concern]:
        disk = await self._statistics.storage()
        if disk.disk_free_bytes < disk.keep_free_bytes:
            return [Concern("full", free_bytes=disk.disk_free_bytes)]
        if disk.disk_free_bytes < disk.keep_free_bytes * FULL_SOON:
            return [Concern("filling", free_bytes=disk.disk_free_bytes)]
        return []


def _models(routes: Mapping[str, Sequence[RouteEntry]], blocked: Mapping[str, Blocked]) -> Iterator[Concern]:
    unrouted = [model for model, served in routes.items() if not served]
    if unrouted:
        yield Concern("unrouted", models=sorted(unrouted))
    stopped = {
        model: min(blocked[route.pool].seconds for route in served)
        for model, served in routes.items()
        if served and all(route.pool in blocked for route in served)
    }
    if stopped:
        yield Concern("stopped", models=sorted(stopped), seconds=min(stopped.values()))


def _pools(
    routes: Mapping[str, Sequence[RouteEntry]],
    blocked: Mapping[str, Blocked],
    doubted: set[str],
    faults: Mapping[str, Fault],
) -> Iterator[Concern]:
    for pool in sorted({*blocked, *doubted}):
        wait = blocked.get(pool)
        kind: Kind = "trying" if wait is None else "broken" if wait.why == "broken" else "paused"
        yield Concern(
            kind,
            models=sorted(model for model, served in routes.items() if any(route.pool == pool for route in served)),
            pool=pool,
            upstream=pool.partition("/")[0],
            seconds=0.0 if wait is None else wait.seconds,
            fault=faults.get(pool),
        )
