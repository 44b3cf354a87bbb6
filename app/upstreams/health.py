"""Knows which pools take no calls just now: paused by a 429, or cut off by their breaker.

Shared through Redis, so that the API refuses what a worker learnt; without Redis each process knows its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from redis.asyncio import Redis

log = structlog.get_logger()

WINDOW_S = 30.0
MIN_CALLS = 20
BAD_SHARE = 0.5
OPEN_S = 15.0
OPEN_MAX_S = 120.0
DOUBLINGS = 3
"""OPEN_S doubled that often is OPEN_MAX_S: more openings in a row change nothing."""
PROBE_S = 30.0
"""How long one probe may take before another process may try."""
REMEMBER_S = 600
"""How long an opened breaker is remembered as half-open when nobody calls."""
KNOWN_S = 0.5
"""How long what Redis said is believed."""

Why = Literal["paused", "broken"]


@dataclass(frozen=True, slots=True)
class Blocked:
    """A pool that takes no calls for a while."""

    why: Why
    seconds: float


@dataclass(slots=True)
class _Window:
    calls: deque[tuple[float, bool]] = field(default_factory=deque)
    bad: int = 0
    """Of the calls: counted along, as a busy pool has thousands."""
    opened: int = 0
    """How often in a row the breaker opened."""

    def add(self, now: float, is_ok: bool) -> None:
        self.calls.append((now, is_ok))
        self.bad += not is_ok
        while self.calls and self.calls[0][0] < now - WINDOW_S:
            self.bad -= not self.calls.popleft()[1]

    def clear(self) -> None:
        self.calls.clear()
        self.bad = 0

    @property
    def is_bad(self) -> bool:
        return len(self.calls) >= MIN_CALLS and self.bad >= BAD_SHARE * len(self.calls)


class Health:
    """One per process. ``clock`` is monotonic seconds."""

    def __init__(self, redis: Redis, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._blocked: dict[str, tuple[float, Why]] = {}
        """pool -> (until, why), by our clock."""
        self._asked: dict[str, float] = {}

    async def pause(self, pool: str, seconds: float) -> None:
        """Send nothing to this pool for a while: it said so."""
        await self._block(pool, seconds, "paused")

    async def note(self, pool: str, *, is_ok: bool) -> None:
        """Count one submit. Only infrastructure errors are not ok: never a 429, a refusal or a caller's fault.

        Polls do not count: an upstream whose answers to them fail may take new work all the same.
        """
        window = self._windows.setdefault(pool, _Window())
        now = self._clock()
        until, why = self._blocked.get(pool, (0.0, "paused"))
        if not is_ok and why == "broken" and now < until:
            return  # sent before the breaker opened, so no probe: it says nothing new
        window.add(now, is_ok)
        if window.opened and is_ok:
            window.opened = 0
            window.clear()
            await self._redis_do(lambda: self._redis.delete(_key("half-open", pool), _key("probe", pool)))
            log.info("breaker.closed", pool=pool)
        elif window.is_bad or (window.opened and not is_ok):
            seconds = min(OPEN_S * 2 ** min(window.opened, DOUBLINGS), OPEN_MAX_S)
            window.opened += 1
            window.clear()
            log.warning("breaker.opened", pool=pool, seconds=seconds)
            await self._block(pool, seconds, "broken")
            await self._redis_do(lambda: self._redis.set(_key("half-open", pool), str(window.opened), ex=REMEMBER_S))
            await self._redis_do(lambda: self._redis.delete(_key("probe", pool)))

    async def blocked(self, pools: Iterable[str]) -> dict[str, Blocked]:
        """Return those of ``pools`` that take no calls now, why, and for how long."""
        wanted = list(dict.fromkeys(pools))
        await self._learn([pool for pool in wanted if self._clock() - self._asked.get(pool, -1e9) > KNOWN_S])
        now = self._clock()
        found: dict[str, Blocked] = {}
        for pool in wanted:
            until, why = self._blocked.get(pool, (0.0, "paused"))
            if until > now:
                found[pool] = Blocked(why, until - now)
        return found

    async def doubted(self, pools: Iterable[str]) -> set[str]:
        """Return those whose breaker opened and that have taken no call well since: the next call is a trial."""
        wanted = list(dict.fromkeys(pools))
        keys = [_key("half-open", pool) for pool in wanted]
        known = await self._redis_do(lambda: self._redis.mget(keys)) if keys else None
        if known is None:
            return {pool for pool in wanted if pool in self._windows and self._windows[pool].opened}
        return {pool for pool, opened in zip(wanted, known, strict=True) if opened}

    async def may_probe(self, pool: str) -> bool:
        """Whether a call may go out: always, but one at a time while the breaker is half-open."""
        window = self._windows.setdefault(pool, _Window())
        half_open = await self._redis_do(lambda: self._redis.get(_key("half-open", pool)))
        if half_open:
            window.opened = max(window.opened, int(half_open))
        if not window.opened:
            return True
        taken = await self._redis_do(
            lambda: self._redis.set(_key("probe", pool), b"1", nx=True, px=int(PROBE_S * 1000)), default=True
        )
        return bool(taken)

    async def _block(self, pool: str, seconds: float, why: Why) -> None:
        self._blocked[pool] = (self._clock() + seconds, why)
        await self._redis_do(lambda: self._redis.set(_key("blocked", pool), why, px=max(int(seconds * 1000), 1)))

    async def _learn(self, pools: list[str]) -> None:
        if not pools:
            return

        async def ask() -> Any:
            pipe = self._redis.pipeline(transaction=False)
            for pool in pools:
                pipe.get(_key("blocked", pool))
                pipe.pttl(_key("blocked", pool))
            return await pipe.execute()

        answer = await self._redis_do(ask)
        now = self._clock()
        for number, pool in enumerate(pools):
            self._asked[pool] = now
            if not answer:
                continue
            why, millis = answer[2 * number], answer[2 * number + 1]
            if isinstance(why, bytes) and isinstance(millis, int) and millis > 0:
                self._blocked[pool] = (now + millis / 1000, "broken" if why == b"broken" else "paused")
            else:
                self._blocked.pop(pool, None)

    async def _redis_do(self, work: Callable[[], Awaitable[Any]], default: Any = None) -> Any:
        """Ask Redis, or go on with what this process knows."""
        try:
            return await work()
        except Exception as error:  # noqa: BLE001 - a step never breaks because its pool's health is not known
            log.debug("health.alone", error=type(error).__name__)
            return default


def _key(kind: str, pool: str) -> str:
    return f"mediagate:{kind}:{pool}"
