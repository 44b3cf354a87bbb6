"""The database commits and its answer is lost: nothing is done twice, and nothing is given back that was taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app import db
from app.credits.ledger import Kept, Promise
from app.errors import OutcomeUnknown
from app.intake import Intake, Sent
from app.requests import Operation
from app.tasks.leases import Leases
from app.upstreams.protocols import SubmitSafety, UpstreamModerated
from app.values import Credits, find_task_id, new_id
from app.wiring import Services
from tests.fakes import FakeProvider
from tests.workers.conftest import Caller, assert_books_balance

once = db.once


@contextmanager
def answers_lost(
    monkeypatch: pytest.MonkeyPatch, statement: str, *, times: int, is_done: bool = True
) -> Iterator[list[str]]:
    """The connection breaks under statements that contain ``statement``: after they were done, or before."""
    broken: list[str] = []

    async def lossy(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        if statement not in sql or len(broken) >= times:
            return await once(engine, sql, arguments)
        broken.append(sql)
        if is_done:
            await once(engine, sql, arguments)
        raise ConnectionResetError("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(db, "once", lossy)
        yield broken
    assert len(broken) == times


async def test_a_capture_whose_answer_is_lost_keeps_its_result(
    caller: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answers_lost(monkeypatch, "mg_finish", times=1):
        view = await caller.image()

    assert (view.public_status, view.charge) == ("completed", 1)
    assert services.storage.path_of(view.files[0].storage_key).is_file()
    assert await caller.balance() == (999, 0)


@pytest.mark.parametrize("statement", ["mg_begin", "mg_accept"])
async def test_a_promise_whose_answer_is_lost_is_made_once_even_with_the_last_credit(
    caller: Caller, services: Services, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    await services.ledger.adjust(caller.account_id, Credits(-960), ref=f"forty:{caller.account_id}", actor="test")

    if statement == "mg_begin":
        await services.ledger.adjust(caller.account_id, Credits(-39), ref=f"one:{caller.account_id}", actor="test")
        with answers_lost(monkeypatch, statement, times=1):
            view = await caller.image()
    else:
        with answers_lost(monkeypatch, statement, times=1):
            view = await caller.to_the_end(await caller.video())

    assert view.public_status == "completed"
    assert await caller.balance() == (0, 0)
    assert sum(fake.accepted.values()) == 1
    await assert_books_balance(services)


async def test_a_promise_that_stays_unknown_names_its_task_so_that_nobody_sends_it_again(
    caller: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        if "mg_accept" in sql:
            await once(engine, sql, arguments)
        raise ConnectionResetError("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(db, "once", unreachable)
        with pytest.raises(OutcomeUnknown) as caught:
            await caller.video()

    task_id = find_task_id(caught.value.task_id or "")
    assert task_id is not None
    assert (await caller.task(task_id)).public_status == "queued"


async def test_a_made_image_waits_for_a_database_that_is_away(
    caller: Caller, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answers_lost(monkeypatch, "mg_finish", times=4, is_done=False):  # more than one round of tries
        view = await caller.image()

    assert view.public_status == "completed"
    assert await caller.balance() == (999, 0)
    assert sum(fake.accepted.values()) == 1


async def test_an_accepted_video_waits_for_a_database_that_is_away(
    caller: Caller, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await caller.video()

    with answers_lost(monkeypatch, "'accepted'", times=4, is_done=False):
        view = await caller.step(view)

    assert view.status == "running"
    assert sum(fake.accepted.values()) == 1


async def test_heartbeats_go_on_after_a_statement_that_failed(
    caller: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await caller.video()
    leases = Leases(services.lifecycle, heartbeat_s=0.01)
    found = await services.advancer.claim(view.id)
    assert found is not None
    failed, kept = asyncio.Event(), asyncio.Event()

    async def beat(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        if "unnest" in sql and not failed.is_set():
            failed.set()
            return await once(engine, "SELECT 1 / 0")
        rows = await once(engine, sql, arguments)
        if "unnest" in sql:
            kept.set()
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(db, "once", beat)
        beating = asyncio.create_task(leases.run())
        async with leases.held(found[0]), asyncio.timeout(10):
            await kept.wait()
        beating.cancel()

    assert failed.is_set()


async def test_a_promise_with_a_key_that_stays_unknown_is_found_by_its_key(
    caller: Caller, services: Services, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> Intake:
        fields = {"prompt": "a river", "resolution": "480p"}
        return Intake(fields, caller.spool, sent=Sent(b"p" * 32, key="order-7"))

    async def unreachable(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        if "mg_accept" in sql:
            await once(engine, sql, arguments)
            raise ConnectionResetError("the connection broke")
        if "lease_token" in sql:
            raise ConnectionResetError("the connection broke")
        return await once(engine, sql, arguments)

    with monkeypatch.context() as patch:
        patch.setattr(db, "once", unreachable)
        with pytest.raises(OutcomeUnknown) as caught:
            await services.videos.submit(caller.principal, asked())
    again = asked()
    view = await services.videos.submit(caller.principal, again)

    assert again.is_replay
    assert view.public_id == caught.value.task_id
    assert await caller.balance() == (960, 40)
    await assert_books_balance(services)


async def test_a_promise_with_a_key_whose_answer_is_lost_is_this_request_s_own(
    caller: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake({"prompt": "a fox"}, caller.spool, sent=Sent(b"p" * 32, key="order-7"))

    with answers_lost(monkeypatch, "mg_begin", times=1):
        view = await services.images.run(caller.principal, intake, operation=Operation.IMAGE_GENERATE)

    assert (view.charge, intake.is_replay) == (1, False)
    assert await caller.balance() == (999, 0)


async def test_a_claim_whose_answer_is_lost_is_found_again(
    caller: Caller, services: Services, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await caller.queued_image()

    with answers_lost(monkeypatch, "INSERT INTO task_attempts", times=1):
        view = await caller.step(view)

    assert view.public_status == "completed"
    assert await caller.attempts(view) == ["done"]
    assert sum(fake.accepted.values()) == 1


async def test_a_claim_that_stays_unknown_is_given_back_unsent(
    caller: Caller, services: Services, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.submit = SubmitSafety.BLIND  # after a lease it would count as sent, and lost
    view = await caller.queued_image()

    async def away(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        if "INSERT INTO task_attempts" in sql:
            await once(engine, sql, arguments)
        if "INSERT INTO task_attempts" in sql or "lease_owner = $1" in sql:
            raise ConnectionResetError("the connection broke")
        return await once(engine, sql, arguments)

    with monkeypatch.context() as patch:
        patch.setattr(db, "once", away)
        with pytest.raises(OutcomeUnknown):
            await caller.step(view)
    assert (await caller.task(view.id)).status == "submitting"

    assert await services.lifecycle.give_back_unseen() == 1
    assert await services.lifecycle.give_back_unseen() == 0
    view = await caller.to_the_end(await caller.task(view.id))

    assert view.public_status == "completed"
    assert await caller.attempts(view) == ["refused", "done"]
    assert sum(fake.accepted.values()) == 1
    await assert_books_balance(services)


async def test_what_an_upstream_refused_is_remembered_until_the_database_is_back(
    caller: Caller, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.submit = SubmitSafety.BLIND
    fake.submits.append(UpstreamModerated("no", public="Not this"))
    view = await caller.queued_image()

    with answers_lost(monkeypatch, "mg_fail", times=4, is_done=False):
        view = await caller.step(view)

    assert (view.public_status, view.error_code) == ("failed", "content_policy_violation")
    assert await caller.balance() == (1000, 0)


async def test_a_begin_whose_answer_is_lost_does_not_take_a_worker_s_lease_for_its_own(
    caller: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = "test/full"
    promise = Promise(
        new_id(), caller.principal.key_id, "image", "m", pool, Credits(1), 60.0, {"operation": "image.generate"}, []
    )

    async def claimed_meanwhile(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        rows = await once(engine, sql, arguments)
        if "mg_begin" not in sql:
            return rows
        claim = await services.lifecycle.claim_queued(pool, provider="fake", credential=1, slots=1, deadline_s=60.0)
        assert claim is not None
        assert claim.token == 1
        raise ConnectionResetError("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(db, "once", claimed_meanwhile)
        kept = await services.ledger.begin(
            promise, provider="fake", owner="me/1", lease_s=30.0, deadline_s=60.0, slots=0
        )

    assert kept == Kept(promise.task_id, 0)
