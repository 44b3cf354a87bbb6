"""Requests per minute: the bucket's rule, one count for all processes, and each one's share without Redis."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from arq.connections import ArqRedis
from hypothesis import given
from hypothesis import strategies as st

from app.limits import PROCESSES_KEY, RATE_KEY, Buckets, Rates, Shape
from app.queue import make_redis


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[ArqRedis]:
    client = make_redis(redis_url)
    await client.delete(PROCESSES_KEY)
    yield client
    await client.aclose(close_connection_pool=True)


def a_key() -> int:
    return uuid4().int % 10**15


# --- the rule -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 20), st.lists(st.floats(0, 90), min_size=1, max_size=80))
def test_no_stretch_of_time_grants_more_than_a_burst_and_its_share(limit: int, processes: int, pauses: list[float]):
    clock, shape = Clock(), Shape.of(limit, shared_by=processes)
    buckets = Buckets(clock=clock)
    granted: list[float] = []

    for pause in pauses:
        clock.now += pause
        for _ in range(3):
            if buckets.take("key", shape, limit=limit).is_granted:
                granted.append(clock.now)

    for first, start in enumerate(granted):
        within_minute = [at for at in granted[first:] if at - start <= 60]
        assert len(within_minute) <= shape.burst + 60e6 / shape.interval_us + 1


@given(st.integers(1, 5000), st.floats(0, 59))
def test_who_waits_as_long_as_told_is_granted(limit: int, pause: float):
    clock, shape = Clock(), Shape.of(limit)
    buckets = Buckets(clock=clock)
    for _ in range(limit):
        assert buckets.take("key", shape, limit=limit).is_granted
    refused = buckets.take("key", shape, limit=limit)

    assert not refused.is_granted
    assert 0 < refused.retry_s <= 60
    assert (refused.remaining, 0 < refused.reset_s <= 61) == (0, True)
    clock.now += refused.retry_s + 1e-5
    assert buckets.take("key", shape, limit=limit).is_granted


def test_buckets_are_bounded_and_the_least_used_goes_first():
    clock = Clock()
    buckets = Buckets(most=3, clock=clock)

    for name in ("a", "b", "a", "c", "d"):
        buckets.take(name, Shape.of(2), limit=2)

    assert len(buckets) == 3
    assert not buckets.take("a", Shape.of(2), limit=2).is_granted
    assert buckets.take("b", Shape.of(2), limit=2).remaining == 1


# --- in Redis -------------------------------------------------------------------------------------------------------


async def test_all_processes_count_one_key_together(redis: ArqRedis):
    processes = [Rates(redis, process=name) for name in ("a", "b", "c")]
    key = a_key()

    standings = await asyncio.gather(*(processes[n % 3].take(key, 10) for n in range(25)))

    granted = [standing for standing in standings if standing.is_granted]
    assert len(granted) == 10
    assert sorted(standing.remaining for standing in granted) == list(range(10))
    refused = next(standing for standing in standings if not standing.is_granted)
    assert 5 < refused.retry_s <= 6
    assert 59 < refused.reset_s <= 60
    assert (await processes[0].take(a_key(), 10)).remaining == 9
    assert 59_000 < await redis.pttl(f"{RATE_KEY}{key}") <= 60_000


async def test_a_flushed_redis_starts_empty_and_knows_the_script_again(redis: ArqRedis):
    rates, key = Rates(redis, process="a"), a_key()
    for _ in range(2):
        await rates.take(key, 1)

    await redis.delete(f"{RATE_KEY}{key}")
    await redis.script_flush()

    assert (await rates.take(key, 1)).is_granted
    assert rates.failures == 0


async def test_a_clock_that_went_back_locks_nobody_out(redis: ArqRedis):
    rates, key = Rates(redis, process="a"), a_key()
    await redis.set(f"{RATE_KEY}{key}", str(int((time.time() + 86_400) * 1e6)))

    standing = await rates.take(key, 60)

    assert not standing.is_granted
    assert standing.retry_s <= 1
    assert standing.reset_s <= 60


async def test_processes_are_counted_while_they_live(redis: ArqRedis):
    first, second = Rates(redis, process="a"), Rates(redis, process="b")
    await redis.zadd(PROCESSES_KEY, {"dead": time.time() - 16})

    assert await first.beat()
    announcing = asyncio.create_task(second.announce())
    async with asyncio.timeout(30):
        while second.processes != 2:  # noqa: ASYNC110 - nothing tells when it has been heard
            await asyncio.sleep(0)
    await first.beat()
    assert first.processes == 2

    announcing.cancel()
    await asyncio.wait([announcing])
    await first.beat()
    assert first.processes == 1


async def test_without_redis_each_process_grants_its_share_and_nobody_waits(redis: ArqRedis):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and never answers
        stalled = make_redis(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        rates, key = Rates(stalled, process="a"), a_key()
        rates.processes = 4
        started_at = time.monotonic()

        standings = [await rates.take(key, 40) for _ in range(30)]

        assert time.monotonic() - started_at < 2
        assert sum(standing.is_granted for standing in standings) == 10
        assert {standing.limit for standing in standings} == {40}
        assert 5.9 < standings[-1].retry_s <= 6
        assert rates.failures == 30
        await stalled.aclose(close_connection_pool=True)


async def test_a_share_is_never_nothing(redis: ArqRedis):
    gone = make_redis("unix:///nowhere/at/all.sock")
    rates = Rates(gone, process="a")
    rates.processes = 50

    standings = [await rates.take(7, 5) for _ in range(2)]

    assert [standing.is_granted for standing in standings] == [True, False]
    await gone.aclose(close_connection_pool=True)
