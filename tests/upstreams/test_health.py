"""Pauses and breakers: what opens them, what does not, and how they close, in one process and across two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from app.upstreams.health import MIN_CALLS, OPEN_MAX_S, OPEN_S, Health


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def pool() -> str:
    return f"account/{uuid4().hex}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(Redis.from_url("unix:///nonexistent/socket"), clock=clock)  # alone: what one process knows


async def test_a_pause_lasts_as_long_as_was_asked(health: Health, clock: Clock, pool: str) -> None:
    await health.pause(pool, 5)

    assert (await health.blocked([pool]))[pool].why == "paused"
    clock.now += 5.1
    assert await health.blocked([pool]) == {}


async def test_half_of_twenty_calls_failing_opens_the_breaker_and_fewer_do_not(health: Health, pool: str) -> None:
    for number in range(MIN_CALLS - 1):
        await health.note(pool, is_ok=number % 2 == 0)
    assert await health.blocked([pool]) == {}

    await health.note(pool, is_ok=False)

    assert (await health.blocked([pool]))[pool].why == "broken"


async def test_old_failures_are_forgotten(health: Health, clock: Clock, pool: str) -> None:
    for _ in range(MIN_CALLS - 1):
        await health.note(pool, is_ok=False)
    clock.now += 31

    await health.note(pool, is_ok=False)

    assert await health.blocked([pool]) == {}


async def test_a_failed_probe_opens_it_for_twice_as_long_and_a_good_one_closes_it(
    health: Health, clock: Clock, pool: str
) -> None:
    for _ in range(MIN_CALLS):
        await health.note(pool, is_ok=False)
    seconds = [(await health.blocked([pool]))[pool].seconds]
    for _ in range(5):
        clock.now += 200
        await health.note(pool, is_ok=False)
        seconds.append((await health.blocked([pool]))[pool].seconds)

    assert seconds == [OPEN_S, 30, 60, OPEN_MAX_S, OPEN_MAX_S, OPEN_MAX_S]
    clock.now += 200
    await health.note(pool, is_ok=True)
    assert await health.may_probe(pool)
    assert await health.blocked([pool]) == {}


async def test_answers_that_were_on_their_way_when_the_breaker_opened_do_not_keep_it_open_longer(
    health: Health, clock: Clock, pool: str
) -> None:
    for _ in range(MIN_CALLS + 2000):
        await health.note(pool, is_ok=False)
    assert (await health.blocked([pool]))[pool].seconds == OPEN_S

    clock.now += OPEN_S
    await health.note(pool, is_ok=False)

    assert (await health.blocked([pool]))[pool].seconds == 2 * OPEN_S


async def test_probes_may_fail_for_days(health: Health, clock: Clock, pool: str) -> None:
    for _ in range(MIN_CALLS + 1100):
        await health.note(pool, is_ok=False)
        clock.now += OPEN_MAX_S if await health.blocked([pool]) else 0

    await health.note(pool, is_ok=False)
    assert (await health.blocked([pool]))[pool].seconds == OPEN_MAX_S


async def test_two_processes_share_what_one_learnt_and_only_one_of_them_probes(redis: Redis, pool: str) -> None:
    clock = Clock()
    worker, api = Health(redis, clock=clock), Health(redis, clock=clock)
    for _ in range(MIN_CALLS):
        await worker.note(pool, is_ok=False)

    assert (await api.blocked([pool]))[pool].why == "broken"
    assert [await worker.may_probe(pool), await api.may_probe(pool)] == [True, False]
    await worker.note(pool, is_ok=True)
    assert await api.may_probe(pool)
