"""Requests per minute: one count in Redis for all processes; without Redis each process grants its share.

The rule is GCRA, a bucket of ``limit`` requests that refills evenly within a minute. Redis keeps one number per key,
the time at which its bucket is full again. It judges by its own clock, so processes need not agree on theirs.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.queue import SOCKET_TIMEOUT_S

MINUTE_US = 60_000_000
MAX_PER_MINUTE = 1_000_000
BUCKETS = 10_000
BEAT_S = 5.0
LIVE_S = 15
"""A process that was silent for this long is not counted any more."""
AGAIN_S = 1.0
PATIENCE_S = 2 * SOCKET_TIMEOUT_S
"""The client gives up by itself, after its socket's timeout; this is for what it does not count, such as a queue."""
RATE_KEY = "mediagate:rpm:"
PROCESSES_KEY = "mediagate:api"

_TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local interval, depth = tonumber(ARGV[1]), tonumber(ARGV[2])
-- Never later than now + depth: neither a lower limit nor a clock that went back may lock a key out for long.
local full = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now), now + depth)
local missing = full + interval - depth - now
if missing > 0 then return {0, full - now, missing} end
full = full + interval
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return {1, full - now, 0}
"""

_BEAT = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], 60)
return redis.call('ZCARD', KEYS[1])
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What one request was told about its bucket."""

    is_granted: bool
    limit: int
    remaining: int
    reset_s: float
    """Until the whole limit is there again."""
    retry_s: float
    """Until the next request is granted; 0 when this one was."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A bucket: one request each ``interval_us``, and at most ``burst`` of them at once."""

    interval_us: int
    burst: int

    @classmethod
    def of(cls, per_minute: int, *, shared_by: int = 1) -> Shape:
        return cls(-(-MINUTE_US * shared_by // per_minute), max(per_minute // shared_by, 1))

    @property
    def depth_us(self) -> int:
        return self.interval_us * self.burst

    def standing(self, limit: int, *, used_us: int, missing_us: int) -> Standing:
        remaining = 0 if missing_us else (self.depth_us - used_us) // self.interval_us
        return Standing(missing_us == 0, limit, remaining, used_us / 1e6, missing_us / 1e6)


class Buckets:
    """Buckets in this process's memory, the ``most`` that were used last. ``clock`` is monotonic seconds."""

    def __init__(self, *, most: int = BUCKETS, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._full_at: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def look(self, key: Hashable, shape: Shape) -> tuple[int, int]:
        """Return what is used, and for how long nothing is left: 0 when a request would be granted."""
        now = int(self._clock() * 1e6)
        used = min(max(self._full_at.get(key, 0) - now, 0), shape.depth_us)
        return used, max(used + shape.interval_us - shape.depth_us, 0)

    def take(self, key: Hashable, shape: Shape, *, limit: int) -> Standing:
        used, missing = self.look(key, shape)
        if not missing:
            used += shape.interval_us
            self._full_at[key] = int(self._clock() * 1e6) + used
            self._full_at.move_to_end(key)
            if len(self._full_at) > self._most:
                self._full_at.popitem(last=False)
        return shape.standing(limit, used_us=used, missing_us=missing)


class Rates:
    """The keys' requests per minute. `announce` must be going in every process that grants them."""

    def __init__(self, redis: Redis, *, process: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._process = process
        self._take = redis.register_script(_TAKE)
        self._announce = redis.register_script(_BEAT)
        self._own = Buckets(clock=clock)
        self.processes = 1
        """How many share the limits while Redis is away: as many as were alive when it was last heard of."""
        self.failures = 0
        """Requests that Redis did not judge, since the start."""

    async def take(self, key_id: int, limit: int) -> Standing:
        """Count one request of a key that may make ``limit`` a minute. Never raises.

        Redis is waited for by the first requests of its absence; then the client knows, and this returns at once.
        """
        shape = Shape.of(limit)
        try:
            async with asyncio.timeout(PATIENCE_S):
                granted, used, missing = await self._take(
                    keys=[f"{RATE_KEY}{key_id}"], args=[shape.interval_us, shape.depth_us]
                )
        except (RedisError, OSError, TimeoutError):
            self.failures += 1
            return self._own.take(key_id, Shape.of(limit, shared_by=self.processes), limit=limit)
        return shape.standing(limit, used_us=used, missing_us=0 if granted else max(missing, 1))

    async def announce(self) -> None:
        """Tell the others that this process is alive, and learn how many are, until cancelled."""
        try:
            while True:
                is_heard = await self.beat()
                await asyncio.sleep(BEAT_S if is_heard else AGAIN_S)
        finally:
            await self._leave()

    async def beat(self) -> bool:
        """Announce once; False when Redis did not hear it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                alive = await self._announce(keys=[PROCESSES_KEY], args=[self._process, LIVE_S])
        except (RedisError, OSError, TimeoutError):
            return False
        self.processes = max(int(alive), 1)
        return True

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._redis.zrem(PROCESSES_KEY, self._process)
        except (RedisError, OSError, TimeoutError):
            pass  # it is forgotten soon
