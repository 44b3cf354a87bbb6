"""Who may work on a task: one holder at a time, and a stale one writes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

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
        async with asyncio.timeout(30):
            await running
    beating.cancel()


async def test_a_heartbeat_does_not_stop_a_step_whose_task_has_just_ended(caller: Caller, services: Services) -> None:
    view = await caller.video()
    leases = Leases(services.lifecycle, heartbeat_s=60)
    found = await services.advancer.claim(view.id)
    assert found is not None

    async with leases.held(found[0]):
        assert await services.ledger.cancel(view.id, found[0].token)
        leases.let_go(found[0])
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

    assert await services.lifecycle.keep({task.lease}) == {task.lease}

    assert await services.lifecycle.claim_due(view.id) is not None


async def test_an_older_step_that_ends_leaves_the_lease_of_a_newer_one_in_the_same_process(
    caller: Caller, services: Services
) -> None:
    view = await caller.video()
    older = await services.advancer.claim(view.id)
    await make_due(services, view.id)
    newer = await services.advancer.claim(view.id)
    assert older is not None
    assert newer is not None
    leases, entered = Leases(services.lifecycle, heartbeat_s=60), asyncio.Event()

    async def step() -> None:
        async with leases.held(older[0]):
            entered.set()
            await asyncio.Event().wait()

    stale = asyncio.create_task(step())
    await entered.wait()
    async with leases.held(newer[0]), asyncio.timeout(30):
        await leases.beat()
        with pytest.raises(LeaseLost):
            await stale

        assert len(leases) == 1
        await make_due(services, view.id)
        await leases.beat()
        assert await services.advancer.claim(view.id) is None


async def test_a_claim_that_somebody_took_while_it_was_given_back_costs_nobody_a_heartbeat(
    caller: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, held = await caller.video(), await caller.video()
    assert await services.advancer.claim(lost.id) is not None
    found = await services.advancer.claim(held.id)
    assert found is not None
    [row] = await db.once(services.engine, "SELECT lease_owner FROM tasks WHERE id = $1", (lost.id,))
    services.lifecycle.may_have_claimed(row["lease_owner"])
    once = db.once

    async def taken(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        rows = await once(engine, sql, arguments)
        if "WHERE lease_owner = $1" in sql:
            await once(engine, "UPDATE tasks SET lease_token = lease_token + 1 WHERE id = $1", (lost.id,))
        return rows

    async with services.leases.held(found[0]):
        await make_due(services, held.id)
        with monkeypatch.context() as patch:
            patch.setattr(db, "once", taken)
            await services.leases.beat()

        assert await services.advancer.claim(held.id) is None


async def test_polls_that_wait_for_a_place_keep_their_leases(
    caller: Caller, services: Services, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.generation.poll.AT_ONCE", 1)
    views = [await caller.step(await caller.video()) for _ in range(3)]
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        asked.set()
        await answer.wait()

    fake.polls.append(hang)
    for view in views:
        await make_due(services, view.id)
    polling = asyncio.create_task(services.poller.run())
    async with asyncio.timeout(10):
        await asked.wait()
        while len(services.leases) < 3:  # noqa: ASYNC110 - all are claimed at once, and begin one after the other
            await asyncio.sleep(0)
        for view in views:
            await make_due(services, view.id)
        await services.leases.beat()

        assert [await services.lifecycle.claim_due(view.id) for view in views] == [None, None, None]
        answer.set()
        for view in views:
            await services.tasks.wait(caller.principal, view.public_id, 10)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)


async def test_at_shutdown_what_is_held_becomes_due_for_the_others(caller: Caller, services: Services) -> None:
    view = await caller.video()
    assert await services.advancer.claim(view.id) is not None

    assert await services.lifecycle.hand_back() >= 1

    assert await services.advancer.claim(view.id) is not None
