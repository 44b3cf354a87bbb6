"""Who may work on a task: one holder at a time, and a stale one writes nothing."""

from __future__ import annotations

import asyncio

import pytest

from app import db
from app.tasks.leases import Leases
from app.tasks.lifecycle import LeaseLost, Lifecycle, Status
from app.wiring import Services
from tests.fakes import FakeProvider
from tests.workers.conftest import Caller, assert_books_balance, make_due


async def test_the_states_of_the_code_are_the_states_of_the_database(services: Services) -> None:
    rows = await db.once(services.engine, "SELECT from_status, to_status FROM task_transitions")

    assert {word for row in rows for word in row.values()} == {status.value for status in Status}
    assert {row["to_status"] for row in rows if row["from_status"] in ("succeeded", "failed", "cancelled")} == set()


async def test_of_many_workers_exactly_one_claims(caller: Caller, services: Services) -> None:
    view = await caller.video()

    found = await asyncio.gather(*(services.advancer.claim(view.id) for _ in range(12)))

    assert sum(claim is not None for claim in found) == 1


async def test_a_live_lease_is_not_stolen_and_a_dead_one_is(caller: Caller, services: Services) -> None:
    view = await caller.video()
    first = await services.advancer.claim(view.id)
    assert first is not None

    assert await services.advancer.claim(view.id) is None
    await make_due(services, view.id)
    second = await services.advancer.claim(view.id)

    assert second is not None
    assert second[0].token == first[0].token + 1


async def test_a_stale_holder_can_write_nothing(caller: Caller, services: Services) -> None:
    view = await caller.video()
    stale = await services.advancer.claim(view.id)
    assert stale is not None
    await make_due(services, view.id)
    await services.advancer.claim(view.id)

    with pytest.raises(LeaseLost):
        await services.lifecycle.accepted(stale[0], upstream_id="late", wake_s=1, deadline_s=60)
    assert not await services.ledger.fail(view.id, stale[0].token, reason="upstream_error", message="late")
    assert not await services.ledger.finish(view.id, stale[0].token, charge=1, files=[], result={})

    assert (await caller.task(view.id)).upstream_id is None
    await assert_books_balance(services)


async def test_a_holder_that_finishes_too_late_removes_its_files_and_charges_nothing(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    view = await caller.queued_image()

    async def robbed() -> None:
        await make_due(services, view.id)
        assert await services.lifecycle.claim_due(view.id) is not None

    fake.submits.append(robbed)
    await services.advancer.advance(view.id)

    assert (await caller.task(view.id)).status == "submitting"
    assert list(services.storage.walk()) == []
    assert await caller.balance() == (999, 1)


async def test_a_heartbeat_keeps_the_lease_and_stops_a_step_that_lost_it(caller: Caller, services: Services) -> None:
    view = await caller.video()
    lifecycle = Lifecycle(services.engine, owner="beating", lease_s=30)
    leases = Leases(lifecycle, heartbeat_s=0.02)
    beating = asyncio.create_task(leases.run())
    found = await services.advancer.claim(view.id)
    assert found is not None
    entered = asyncio.Event()

    async def step() -> None:
        async with leases.held(found[0]):
            entered.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(step())
    await entered.wait()
    await db.once(services.engine, "UPDATE tasks SET lease_token = lease_token + 1 WHERE id = $1", (view.id,))

    with pytest.raises(LeaseLost):
        async with asyncio.timeout(5):
            await running
    beating.cancel()


async def test_a_heartbeat_does_not_stop_a_step_whose_task_has_just_ended(caller: Caller, services: Services) -> None:
    view = await caller.video()
    leases = Leases(services.lifecycle, heartbeat_s=60)
    found = await services.advancer.claim(view.id)
    assert found is not None

    async with leases.held(found[0]):
        assert await services.ledger.cancel(view.id, found[0].token)
        leases.let_go(view.id)
        await leases.beat()
        await services.queries.find(view.id)  # where a cancellation would come in


async def test_a_heartbeat_leaves_the_wait_of_a_step_that_has_given_its_lease_back(
    caller: Caller, services: Services
) -> None:
    view = await caller.video()
    found = await services.advancer.claim(view.id)
    assert found is not None
    task, _ = found
    await services.lifecycle.accepted(task, upstream_id="job-1", wake_s=0.0, deadline_s=60)

    assert await services.lifecycle.keep({task.id: task.token}) == {task.id}

    assert await services.lifecycle.claim_due(view.id) is not None


async def test_at_shutdown_what_is_held_becomes_due_for_the_others(caller: Caller, services: Services) -> None:
    view = await caller.video()
    assert await services.advancer.claim(view.id) is not None

    assert await services.lifecycle.hand_back() >= 1

    assert await services.advancer.claim(view.id) is not None
