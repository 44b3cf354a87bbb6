"""Budgets that several keys share, and the turn of a day and a month."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.accounts.keys import Keys, MintedKey
from app.credits.ledger import Ledger
from tests.factories import PEPPER, accept_task, finish_task, make_account, make_key


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = db.make_engine(database_url, pool_size=10)
    yield engine
    await engine.dispose()


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = db.make_engine(database_url, role=None, pooled=False)
    yield engine
    await engine.dispose()


@pytest.fixture
def keys(engine: AsyncEngine) -> Keys:
    return Keys(engine, PEPPER)


async def holds(engine: AsyncEngine, key: MintedKey, hold: int) -> bool:
    """Whether the key may hold so much; it does then."""
    try:
        await accept_task(engine, key, hold=hold)
    except DBAPIError as error:
        assert db.sqlstate_of(error) == "MG403"  # noqa: PT017 - any other is a fault
        return False
    return True


async def move_back(owner: AsyncEngine, key: MintedKey, days: int) -> None:
    """Let the key's last period have begun so long ago."""
    sql = "UPDATE key_budgets SET period_start = period_start - $2::int WHERE api_key_id = $1"
    await db.once(owner, sql, (key.id, days))


async def test_a_rotated_key_and_its_successor_spend_one_budget(engine: AsyncEngine, keys: Keys):
    old = await make_key(engine, await make_account(engine), budget=100)
    await finish_task(engine, old, hold=30)
    await accept_task(engine, old, hold=20)

    new = await keys.rotate(old.id)

    assert not await holds(engine, new, 51)
    assert await holds(engine, new, 30)
    assert not await holds(engine, old, 21)
    assert await holds(engine, old, 20)
    assert not await holds(engine, new, 1)
    assert not await holds(engine, old, 1)


async def test_many_at_once_on_both_keys_never_spend_more_than_the_budget(engine: AsyncEngine, keys: Keys):
    account = await make_account(engine, max_in_flight=1000)
    old = await make_key(engine, account, budget=100)
    new = await keys.rotate(old.id)

    granted = await asyncio.gather(*(holds(engine, key, 5) for _ in range(20) for key in (old, new)))

    assert sum(granted) == 20
    assert (await Ledger(engine).balance(account.id)).held == 100


async def test_a_budget_outlives_any_number_of_rotations_and_a_revocation(engine: AsyncEngine, keys: Keys):
    first = await make_key(engine, await make_account(engine), budget=100)
    second = await keys.rotate(first.id)
    third = await keys.rotate(second.id)
    for key in (first, second, third):
        await finish_task(engine, key, hold=30)
    await keys.revoke(first.id)

    assert not await holds(engine, third, 11)
    assert (await keys.get(third.id)).spent == 90
    await keys.set_limits(third.id, budget=200)
    assert await holds(engine, third, 110)
    assert not await holds(engine, second, 1)


async def test_what_a_task_gives_back_may_be_spent_by_the_other_key(engine: AsyncEngine, keys: Keys):
    old = await make_key(engine, await make_account(engine), budget=50)
    task = await accept_task(engine, old, hold=50)
    new = await keys.rotate(old.id)
    assert not await holds(engine, new, 1)

    await db.once(engine, "SELECT mg_settle($1, NULL, 'cancelled', 0)", (task,))

    assert await holds(engine, new, 50)


async def test_new_limits_hold_for_all_keys_that_share_the_budget(engine: AsyncEngine, keys: Keys):
    old = await make_key(engine, await make_account(engine), budget=100)
    await finish_task(engine, old, hold=30)
    new = await keys.rotate(old.id)

    await keys.set_limits(new.id, budget=50, period="day", rpm=7)
    for key in (old, new):
        info = await keys.get(key.id)
        assert (info.budget, info.period, info.spent, info.rpm) == (50, "day", 0, 7)
    await finish_task(engine, old, hold=30)

    assert (await keys.get(new.id)).spent == 30
    assert not await holds(engine, new, 21)
    assert not await holds(engine, old, 21)
    assert await holds(engine, new, 20)


async def test_a_rotation_and_new_limits_at_once_leave_one_limit(engine: AsyncEngine, keys: Keys):
    old = await make_key(engine, await make_account(engine), budget=100)

    new, _ = await asyncio.gather(keys.rotate(old.id), keys.set_limits(old.id, budget=40))

    assert [(await keys.get(key.id)).budget for key in (old, new)] == [40, 40]


async def test_a_key_and_its_successor_share_their_places(engine: AsyncEngine, keys: Keys):
    old = await make_key(engine, await make_account(engine))
    await keys.set_limits(old.id, budget=None, max_in_flight=2)
    new = await keys.rotate(old.id)
    for key in (old, new):
        await accept_task(engine, key)

    for key in (old, new):
        with pytest.raises(DBAPIError) as refused:
            await accept_task(engine, key)
        assert db.sqlstate_of(refused.value) == "MG429"


async def test_keys_without_a_limit_and_strangers_share_nothing(engine: AsyncEngine, keys: Keys):
    account = await make_account(engine)
    free = await make_key(engine, account)
    successor = await keys.rotate(free.id)
    other = await make_key(engine, account, budget=10)

    assert await holds(engine, free, 300)
    assert await holds(engine, successor, 300)
    assert await holds(engine, other, 10)


@pytest.mark.parametrize(("period", "days"), [("day", 1), ("month", 31)])
async def test_a_periods_budget_starts_anew_for_both_keys(
    engine: AsyncEngine, owner: AsyncEngine, keys: Keys, period: str, days: int
):
    old = await make_key(engine, await make_account(engine), budget=50, period=period)
    await finish_task(engine, old, hold=40)
    new = await keys.rotate(old.id)
    await finish_task(engine, new, hold=10)
    assert not await holds(engine, new, 1)
    assert (await keys.get(new.id)).spent == 50

    for key in (old, new):
        await move_back(owner, key, days)

    assert (await keys.get(new.id)).spent == 0
    assert await holds(engine, new, 30)
    assert not await holds(engine, old, 21)
    assert await holds(engine, old, 20)


@pytest.mark.parametrize(("period", "days"), [("day", 1), ("month", 31)])
async def test_what_was_held_before_the_turn_counts_when_it_is_charged_after_it(
    engine: AsyncEngine, owner: AsyncEngine, keys: Keys, period: str, days: int
):
    key = await make_key(engine, await make_account(engine), budget=50, period=period)
    await finish_task(engine, key, hold=30)
    task = await accept_task(engine, key, hold=20)
    await move_back(owner, key, days)
    assert not await holds(engine, key, 31)  # the hold is there still, the 30 are not

    await db.once(engine, "UPDATE tasks SET status = 'submitting' WHERE id = $1", (task,))
    await db.once(engine, "UPDATE tasks SET status = 'storing' WHERE id = $1", (task,))
    await db.once(engine, "SELECT mg_settle($1, NULL, 'succeeded', 20)", (task,))

    assert (await keys.get(key.id)).spent == 20
    assert not await holds(engine, key, 31)
    assert await holds(engine, key, 30)


async def test_a_total_budget_never_starts_anew(engine: AsyncEngine, owner: AsyncEngine, keys: Keys):
    key = await make_key(engine, await make_account(engine), budget=50)
    await finish_task(engine, key, hold=50)

    assert not await holds(engine, key, 1)
    assert (await keys.get(key.id)).spent == 50
