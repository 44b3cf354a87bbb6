"""A queue that is too long refuses before the hold; how long it is depends on whose place is meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app import db
from app.errors import QueueFull
from app.generation.admission import Admission, Place, Queue
from app.intake import Intake
from app.journal import Actor
from app.wiring import Services
from tests.factories import finish_task, make_account, make_key, request_of
from tests.workers.conftest import Caller

SLOTS = 8  # of the test's upstream
TAKES_S = 1.0  # so eight places end eight tasks a second; an image may wait for 5 s
BURST = 400


def pool_of(services: Services, model: str = "gpt-image-2") -> str:
    return services.registry.routes_of(model)[0].pool


async def have_history(services: Services, *, takes_s: float = TAKES_S) -> None:
    """Let the pool have ended tasks that took so long."""
    account = await make_account(services.engine, credits=1000)
    key = await make_key(services.engine, account)
    for _ in range(3):
        task_id = await finish_task(services.engine, key)
        await as_owner(
            services,
            "UPDATE tasks SET pool = $2, started_at = settled_at - $3 * interval '1 second' WHERE id = $1",
            (task_id, pool_of(services), takes_s),
        )


async def have_burst(services: Services, tmp_path: Path) -> Caller:
    """Return an account with many tasks in the queue."""
    account = await make_account(services.engine, credits=100_000, max_in_flight=10_000)
    key = await make_key(services.engine, account)
    await db.once(
        services.engine,
        """SELECT mg_accept(gen_random_uuid(), $1, 'image', 'gpt-image-2', $2, 1, 900.0, $3::text::jsonb, '[]')
         FROM generate_series(1, $4)""",
        (key.id, pool_of(services), json.dumps(request_of()), BURST),
    )
    return Caller(services, await services.callers.authenticate(key.secret, peer="127.0.0.1"), tmp_path / "spool")


async def as_owner(services: Services, sql: str, arguments: tuple[object, ...]) -> None:
    assert services.settings.database_url is not None
    engine = db.make_engine(services.settings.database_url.get_secret_value(), role=None, pooled=False)
    try:
        await db.once(engine, sql, arguments)
    finally:
        await engine.dispose()


async def test_a_full_queue_refuses_before_any_hold(caller: Caller, services: Services, tmp_path: Path):
    await have_history(services)
    greedy = await have_burst(services, tmp_path)
    before = await greedy.balance()

    with pytest.raises(QueueFull) as refusal:
        await greedy.queued_image()

    assert refusal.value.retry_after_s is not None
    assert 5 <= refusal.value.retry_after_s <= 60
    assert "would wait about 50 s, and may wait for 5 s" in refusal.value.message
    assert await greedy.balance() == before
    with pytest.raises(QueueFull):
        await greedy.image()


async def test_a_small_account_is_not_refused_for_anothers_burst(caller: Caller, services: Services, tmp_path: Path):
    await have_history(services)
    greedy = await have_burst(services, tmp_path)
    with pytest.raises(QueueFull):
        await greedy.queued_image()

    views = [await caller.queued_image() for _ in range(5)]

    assert {view.status for view in views} == {"queued"}


async def test_a_pool_that_has_ended_nothing_yet_refuses_nobody(services: Services, tmp_path: Path, caller: Caller):
    greedy = await have_burst(services, tmp_path)

    assert (await greedy.queued_image()).status == "queued"


async def test_an_idle_pool_takes_a_task_however_slow_it_was(caller: Caller, services: Services):
    await have_history(services, takes_s=3000.0)

    assert (await caller.queued_image()).status == "queued"


async def test_a_shorter_queue_of_another_account_is_preferred(caller: Caller, services: Services, tmp_path: Path):
    await have_history(services)
    await services.book.upstreams.add("spare", provider="fake", actor=Actor("test"), concurrency=4)
    await services.book.routes.add("gpt-image-2", "spare", "theirs", actor=Actor("test"), priority=9)
    await services.book.refresh(services.registry)
    greedy = await have_burst(services, tmp_path)

    view = await greedy.queued_image()

    assert view.pool == "spare/theirs"


async def test_a_price_is_told_while_the_queue_is_full(caller: Caller, services: Services, tmp_path: Path):
    await have_history(services)
    greedy = await have_burst(services, tmp_path)

    quote = await services.quotes.quote(
        greedy.principal, "images/generations", Intake({"prompt": "a fox"}, greedy.spool)
    )

    assert quote.credits == 1


async def test_the_database_is_asked_once_a_second_and_not_for_each_request(services: Services, tmp_path: Path):
    now = 0.0
    admission = Admission(services.engine, clock=lambda: now)
    place = Place(services.registry.routes_of("gpt-image-2")[0], SLOTS)
    account = await make_account(services.engine)
    await admission.admit([place], account_id=account.id, max_wait_s=5.0)
    await have_history(services)
    greedy = await have_burst(services, tmp_path)

    now = 0.9
    await admission.admit([place], account_id=greedy.account_id, max_wait_s=5.0)
    now = 1.0
    with pytest.raises(QueueFull):
        await admission.admit([place], account_id=greedy.account_id, max_wait_s=5.0)


def test_a_queue_that_has_stood_is_as_fast_as_it_was_seen_to_be():
    queue = Queue(queued=40, stood_s=20.0, mean_s=4.0, window_s=20.0, ended=9)

    assert queue.per_s(SLOTS) == pytest.approx(0.5)  # not two a second: the upstream throttles us
    assert queue.wait_s(SLOTS, 40) == pytest.approx(80.0)


def test_a_young_queue_is_as_fast_as_its_places_could_be():
    queue = Queue(queued=40, stood_s=2.0, mean_s=4.0, window_s=2.0, ended=0)

    assert queue.wait_s(SLOTS, 40) == pytest.approx(20.0)


def test_a_queue_that_does_not_move_at_all_is_not_divided_by_zero():
    assert Queue(queued=10, stood_s=60.0, mean_s=4.0, window_s=30.0, ended=0).wait_s(SLOTS, 10) == pytest.approx(300.0)
