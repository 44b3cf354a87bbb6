"""Lost messages, a silent Redis, leftovers of a crash: the sweep and the housekeeping repair them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import SecretStr

from app import db
from app.generation.retention import ORPHAN_AGE_S, _remove_old
from app.settings import Settings
from app.storage.base import new_key
from app.tasks.waiting import Waiters
from app.values import new_id
from app.wiring import Services, first_look, open_services
from tests.factories import accept_task, make_account, make_key
from tests.fakes import FakeProvider
from tests.workers.conftest import Caller, make_due
from workers.jobs import StepRunner, Sweep, advance_task, keep_house
from workers.settings import work


async def test_a_worker_takes_a_video_to_its_end(caller: Caller, settings: Settings, fake: FakeProvider) -> None:
    view = await caller.video()
    stop = asyncio.Event()
    worker = asyncio.create_task(work(settings, stop, providers={"fake": fake}))

    view = await caller.services.tasks.wait(caller.principal, view.public_id, 20)
    stop.set()
    await worker

    assert view.public_status == "completed"


async def test_a_lost_message_is_replaced_by_the_sweep(caller: Caller, services: Services) -> None:
    view = await caller.video()
    await services.redis.flushdb()  # the message is gone
    await db.once(services.engine, "UPDATE tasks SET wake_at = now() - interval '5 seconds' WHERE id = $1", (view.id,))

    sweep = Sweep(services)
    assert view.id in await sweep.once()
    assert await services.redis.zcard("mediagate:jobs") >= 1
    assert view.id not in await sweep.once()  # not again so soon

    await advance_task({"steps": StepRunner(services)}, str(view.id))
    assert (await caller.task(view.id)).status == "running"


async def test_while_redis_is_away_the_sweep_takes_the_steps_itself(
    settings: Settings, caller: Caller, fake: FakeProvider
) -> None:
    view = await caller.video()
    away = settings.model_copy(update={"redis_url": SecretStr("unix:///nonexistent/valkey.sock?db=0")})
    async with open_services(away, providers={"fake": fake}) as deaf:
        await first_look(deaf)
        deaf.start_listening()
        sweep = Sweep(deaf)
        deaf.start(sweep.run, deaf.poller.run)
        async with asyncio.timeout(30):
            while not (await caller.task(view.id)).is_final:
                await deaf.waiters.wait(view.id, 0.2)

    assert (await caller.task(view.id)).public_status == "completed"
    assert deaf.queue.failures > 0


async def test_without_redis_one_query_a_second_tells_all_who_wait(caller: Caller, services: Services) -> None:
    view = await caller.video()
    waiters = Waiters(services.redis, services.queries)
    looking = asyncio.create_task(waiters.look())
    waiting = [asyncio.create_task(waiters.wait(view.id, 10)) for _ in range(5)]
    await services.ledger.cancel(view.id, view.lease_token)

    assert await asyncio.gather(*waiting) == [True] * 5
    looking.cancel()


async def test_an_object_that_no_row_names_goes_and_a_young_one_stays(caller: Caller, services: Services) -> None:
    view = await caller.image()
    old, young = new_key(new_id()), new_key(new_id())
    for key in (old, young):
        path = services.settings.spool_dir / "leftover"
        path.write_bytes(b"x")
        await services.storage.adopt(path, key)
    past = time.time() - ORPHAN_AGE_S - 5
    for key in (old, view.files[0].storage_key):
        os.utime(services.storage.path_of(key), (past, past))

    assert await services.retention.remove_orphans() == 1

    assert {key for key, _, _ in services.storage.walk()} == {young, view.files[0].storage_key}


async def test_files_past_their_retention_are_removed_and_the_task_says_so(caller: Caller, services: Services) -> None:
    view = await caller.image()
    await db.once(
        services.engine, "UPDATE files SET expires_at = now() - interval '1 second' WHERE task_id = $1", (view.id,)
    )

    await services.retention.run_once()

    assert [file.state for file in (await caller.task(view.id)).files] == ["deleted"]
    assert list(services.storage.walk()) == []


async def test_an_async_image_is_made_by_a_worker(caller: Caller, services: Services) -> None:
    view = await caller.queued_image()
    assert view.public_status == "queued"

    await make_due(services, view.id)
    await services.advancer.advance(view.id)

    assert (await caller.task(view.id)).public_status == "completed"


async def test_tasks_that_wait_for_a_place_do_not_hide_those_that_run(caller: Caller, services: Services) -> None:
    running = await caller.step(await caller.video())
    account = await make_account(services.engine, credits=100_000, max_in_flight=1000)
    key = await make_key(services.engine, account)
    waiting = [await accept_task(services.engine, key, pool=running.pool, hold=1) for _ in range(205)]
    await db.once(
        services.engine,
        "UPDATE tasks SET wake_at = now() - interval '1 hour' WHERE id = ANY($1::uuid[])",
        ([*waiting],),
    )
    await db.once(
        services.engine, "UPDATE tasks SET wake_at = now() - interval '5 seconds' WHERE id = $1", (running.id,)
    )

    overdue = {due.id for due in await services.lifecycle.overdue(grace_s=1)}

    assert [task.id for task in await services.lifecycle.claim_running(limit=10)] == [running.id]
    assert 0 < len(overdue & set(waiting)) <= 20


async def test_a_file_that_was_long_on_its_way_is_young_when_it_is_adopted(services: Services) -> None:
    path = services.settings.spool_dir / "slow-upload"
    path.write_bytes(b"x")
    past = time.time() - 10 * ORPHAN_AGE_S
    os.utime(path, (past, past))

    await services.storage.adopt(path, new_key(new_id()))

    assert await services.retention.remove_orphans() == 0


def test_what_vanishes_from_the_spool_meanwhile_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "old").write_bytes(b"x")
    os.utime(tmp_path / "old", (0, 0))

    _remove_old(tmp_path, 60)

    assert not (tmp_path / "old").exists()


async def test_a_chore_that_fails_stops_no_other() -> None:
    reached = asyncio.Event()

    async def fail() -> None:
        raise RuntimeError("this chore")

    async def reach() -> None:
        reached.set()

    chores: Any = SimpleNamespace(
        retention=SimpleNamespace(run_once=fail),
        sessions=SimpleNamespace(prune=fail),
        forms=SimpleNamespace(sweep=fail),
        ledger=SimpleNamespace(expire_due=fail),
        book=SimpleNamespace(purge=fail),
        webhook_log=SimpleNamespace(prune=fail),
        poller=SimpleNamespace(look_at_given_up=reach),
    )
    keeping = asyncio.create_task(keep_house(chores))
    await asyncio.wait_for(reached.wait(), 5)
    assert not keeping.done()
    keeping.cancel()
