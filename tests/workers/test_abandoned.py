"""A caller who hangs up: what is only queued is cancelled and free, what an upstream may have is finished and kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app import db
from app.errors import Overloaded, TaskCancelled
from app.intake import CallerLeft, Intake, Sent
from app.requests import Operation
from app.tasks.queries import TaskFilter, TaskView
from app.wiring import Services
from tests.fakes import FakeProvider
from tests.workers.conftest import Caller, assert_books_balance

SLOTS = 8
PRINT = b"p" * 32


async def newest(caller: Caller, count: int) -> TaskView:
    """Wait until the account has that many tasks, and return the last."""
    async with asyncio.timeout(20):
        while True:
            page = await caller.services.queries.page(TaskFilter(), account_id=caller.account_id)
            if len(page.items) == count:
                return page.items[0]
            await asyncio.sleep(0.01)


@asynccontextmanager
async def full(caller: Caller, fake: FakeProvider) -> AsyncIterator[None]:
    """Keep every place at the upstream taken, until the block ends."""
    end = asyncio.Event()
    fake.submits.extend([end.wait] * SLOTS)
    others = [asyncio.create_task(caller.image(f"fox {number}")) for number in range(SLOTS)]
    await newest(caller, SLOTS)
    async with asyncio.timeout(20):
        while fake.submits:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        end.set()
        await asyncio.gather(*others)


def asked(caller: Caller, *, key: str | None = None) -> tuple[Intake, asyncio.Task[TaskView]]:
    intake = Intake({"prompt": "a late fox"}, caller.spool, sent=Sent(PRINT, key=key))
    work = caller.services.images.run(caller.principal, intake, operation=Operation.IMAGE_GENERATE)
    return intake, asyncio.create_task(work)


async def test_a_queued_image_is_cancelled_and_free(caller: Caller, services: Services, fake: FakeProvider) -> None:
    async with full(caller, fake):
        intake, work = asked(caller)
        task = await newest(caller, SLOTS + 1)

        intake.gone.set()
        with pytest.raises(TaskCancelled):
            await work

        assert task.status == "queued"
        assert (await caller.task(task.id)).status == "cancelled"
        assert await caller.balance() == (1000 - SLOTS, SLOTS)
    assert sum(fake.accepted.values()) == SLOTS
    await assert_books_balance(services)


async def test_a_queued_image_with_a_key_goes_on(caller: Caller, fake: FakeProvider) -> None:
    async with full(caller, fake):
        intake, work = asked(caller, key="order-7")
        task = await newest(caller, SLOTS + 1)

        intake.gone.set()
        await asyncio.sleep(0)  # it notices
        assert (await caller.task(task.id)).cancel_requested_at is None

    assert (await work).status == "succeeded"


async def test_a_queued_image_that_a_retry_was_joined_to_goes_on(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    async with full(caller, fake):
        intake, work = asked(caller)
        task = await newest(caller, SLOTS + 1)
        retry = Intake({"prompt": "a late fox"}, caller.spool, sent=Sent(PRINT, is_retry=True))
        again = asyncio.create_task(services.images.run(caller.principal, retry, operation=Operation.IMAGE_GENERATE))
        async with asyncio.timeout(20):
            while not retry.is_replay:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)

        intake.gone.set()
        assert await services.idempotency.abandon(task.id) is None

    assert (await work).id == (await again).id == task.id
    assert sum(fake.accepted.values()) == SLOTS + 1


async def test_a_joined_task_is_not_cancelled_by_the_one_who_joined(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    async with full(caller, fake):
        _, work = asked(caller)
        task = await newest(caller, SLOTS + 1)
        retry = Intake({"prompt": "a late fox"}, caller.spool, sent=Sent(PRINT, is_retry=True))
        retry.gone.set()
        again = asyncio.create_task(services.images.run(caller.principal, retry, operation=Operation.IMAGE_GENERATE))

    assert (await work).id == (await again).id == task.id


async def test_what_an_upstream_has_is_finished_charged_and_kept(caller: Caller, fake: FakeProvider) -> None:
    end = asyncio.Event()
    fake.submits.append(end.wait)
    intake, work = asked(caller)
    await newest(caller, 1)
    async with asyncio.timeout(20):
        while not fake.accepted:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)

    intake.gone.set()
    await asyncio.sleep(0)
    end.set()

    assert (await work).charge == 1
    assert await caller.balance() == (999, 0)


@pytest.mark.parametrize("kind", ["image", "queued image", "video"])
async def test_a_caller_who_left_before_the_promise_is_promised_nothing(
    caller: Caller, services: Services, kind: str
) -> None:
    intake = Intake({"prompt": "a fox"}, caller.spool, sent=Sent(PRINT))
    intake.gone.set()

    generate = Operation.IMAGE_GENERATE
    asking = {
        "image": lambda: services.images.run(caller.principal, intake, operation=generate),
        "queued image": lambda: services.images.accept(caller.principal, intake, operation=generate),
        "video": lambda: services.videos.submit(caller.principal, intake),
    }
    with pytest.raises(CallerLeft):
        await asking[kind]()

    assert await db.once(services.engine, "SELECT 1 FROM tasks") == []
    assert await caller.balance() == (1000, 0)


async def test_who_joins_a_task_takes_a_place_among_those_who_wait(
    caller: Caller, services: Services, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def joining() -> asyncio.Task[TaskView]:
        retry = Intake({"prompt": "a late fox"}, caller.spool, sent=Sent(PRINT, is_retry=True))
        return asyncio.create_task(services.images.run(caller.principal, retry, operation=Operation.IMAGE_GENERATE))

    monkeypatch.setattr("app.generation.images.MAX_WAITERS", SLOTS + 2)
    async with full(caller, fake):
        _, work = asked(caller)
        task = await newest(caller, SLOTS + 1)
        again = joining()
        async with asyncio.timeout(20):
            while services.images._joined == 0:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)

        with pytest.raises(Overloaded) as caught:
            await joining()

    assert caught.value.task_id is None  # it may be sent again
    assert (await work).id == (await again).id == task.id
    assert services.images._joined == 0


async def test_a_promise_on_its_way_is_waited_for_at_shutdown(
    caller: Caller, services: Services, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = db.once
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        if "mg_begin" in sql:
            begun.set()
            await go_on.wait()
        return await once(engine, sql, arguments)

    monkeypatch.setattr(db, "once", slow)
    _, work = asked(caller, key="order-7")
    await begun.wait()
    work.cancel()  # as the server does with requests that are late at its end
    draining = asyncio.create_task(services.images.drain(20.0))
    await asyncio.sleep(0)
    go_on.set()

    assert await draining == 0
    assert await services.lifecycle.hand_back() == 0
    assert (await newest(caller, 1)).status == "succeeded"
    assert await caller.balance() == (999, 0)
