"""A cancel that meets a claim or a completion, again and again: exactly one of the two settles the task."""

from __future__ import annotations

import asyncio

import pytest

from app import db
from app.wiring import Services
from tests.fakes import FakeProvider
from tests.workers.conftest import Caller, assert_books_balance, make_due

ROUNDS = 64
AT_ONCE = 8


async def test_a_cancel_and_a_completion_settle_once(caller: Caller, services: Services, fake: FakeProvider) -> None:
    """The image is being made; its owner cancels at some moment of its last steps."""
    charges: list[int] = []

    async def one(number: int) -> None:
        view = await caller.queued_image()
        await make_due(services, view.id)

        async def cancel() -> None:
            await asyncio.sleep(number % 8 * 0.004)
            await services.tasks.cancel(caller.principal, view.public_id)

        await asyncio.gather(cancel(), services.advancer.advance(view.id))
        view = await caller.task(view.id)
        if not view.is_final:  # the step was another task's: the best-ranked one goes first
            view = await caller.to_the_end(view)
        charges.append(view.charge or 0)
        assert (view.public_status, view.charge) in (("completed", 1), ("cancelled", 0))

    for begin in range(0, ROUNDS, AT_ONCE):
        await asyncio.gather(*(one(number) for number in range(begin, begin + AT_ONCE)))

    assert await caller.balance() == (1000 - sum(charges), 0)
    await _each_was_settled_once(services, ROUNDS)
    await assert_books_balance(services)


@pytest.mark.parametrize("stops", [True, False])
async def test_a_cancel_and_a_poll_settle_once(
    caller: Caller, services: Services, fake: FakeProvider, stops: bool
) -> None:
    """Stopped by the upstream, which then does not bill: released. Not stopped: delivered, and charged in full."""
    fake.stops, fake.seconds = stops, 4
    view = await caller.step(await caller.video(duration=4))
    await make_due(services, view.id)

    await asyncio.gather(
        services.tasks.cancel(caller.principal, view.public_id),
        services.advancer.advance(view.id),
        services.advancer.advance(view.id),
    )
    view = await caller.to_the_end(await caller.task(view.id))

    assert view.public_status in (("cancelled", "completed") if stops else ("completed",))
    assert view.charge == (0 if view.public_status == "cancelled" else view.hold)
    assert await caller.balance() == (1000 - view.charge, 0)
    await _each_was_settled_once(services, 1)


async def _each_was_settled_once(services: Services, tasks: int) -> None:
    [row] = await db.once(
        services.engine,
        """SELECT count(*) AS tasks, count(settled_at) AS settled,
          (SELECT count(*) FROM ledger WHERE kind = 'capture') AS captures,
          count(*) FILTER (WHERE charge > 0) AS charged FROM tasks""",
    )
    assert (row["tasks"], row["settled"], row["captures"]) == (tasks, tasks, row["charged"])
