"""Whose task is next: a burst of one account lines up behind the first tasks of the others, and uses what is idle."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from app import db
from app.accounts.keys import MintedKey
from app.wiring import Services
from tests.factories import accept_task, make_account, make_key, request_of

BURST = 1000
POOL = "test/fair"


async def key_of(services: Services, *, max_in_flight: int) -> MintedKey:
    account = await make_account(services.engine, credits=100_000, max_in_flight=max_in_flight)
    return await make_key(services.engine, account)


async def burst(services: Services, key: MintedKey, *, tasks: int = BURST) -> None:
    """Accept many tasks, as the API does, in one statement."""
    await db.once(
        services.engine,
        """SELECT mg_accept(gen_random_uuid(), $1, 'image', 'model-a', $2, 1, 900, $3::text::jsonb, '[]')
         FROM generate_series(1, $4)""",
        (key.id, POOL, json.dumps(request_of()), tasks),
    )


async def claim(services: Services, *, slots: int = 10_000) -> int | None:
    """Claim what is next; return whose it is."""
    claimed = await services.lifecycle.claim_queued(POOL, provider="test", credential=1, slots=slots, deadline_s=60)
    return None if claimed is None else claimed.account_id


async def account_of(services: Services, key: MintedKey) -> int:
    return (await services.keys.get(key.id)).account_id


@pytest.fixture
async def greedy(services: Services) -> MintedKey:
    return await key_of(services, max_in_flight=BURST)


@pytest.fixture
async def modest(services: Services) -> MintedKey:
    return await key_of(services, max_in_flight=20)


async def test_a_burst_of_a_thousand_starves_nobody(services: Services, greedy: MintedKey, modest: MintedKey) -> None:
    await burst(services, greedy)
    for _ in range(5):
        await accept_task(services.engine, modest, pool=POOL, hold=1)

    order = [await claim(services) for _ in range(20)]

    # The n-th of each account stands n seconds behind its acceptance: five and five, and what a slow machine adds.
    assert order.count(await account_of(services, modest)) == 5


async def test_idle_places_are_for_whoever_has_work(services: Services, greedy: MintedKey) -> None:
    await burst(services, greedy, tasks=50)

    order = [await claim(services, slots=8) for _ in range(10)]

    assert order == [await account_of(services, greedy)] * 8 + [None, None]


async def test_the_handicap_is_bounded_and_ends_with_the_burst(
    services: Services, greedy: MintedKey, modest: MintedKey
) -> None:
    await burst(services, greedy)
    rows = await db.once(services.engine, "SELECT max(rank) AS last, clock_timestamp() AS now FROM tasks")
    last: datetime = rows[0]["last"]

    await db.once(services.engine, "SELECT mg_settle(id, NULL, 'cancelled', 0) FROM tasks WHERE settled_at IS NULL")
    await accept_task(services.engine, greedy, pool=POOL, hold=1)
    await accept_task(services.engine, modest, pool=POOL, hold=1)

    assert last <= rows[0]["now"] + timedelta(seconds=BURST)
    assert await claim(services) == await account_of(services, greedy)  # it came first, and is no longer behind
    assert await claim(services) == await account_of(services, modest)
