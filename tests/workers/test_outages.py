"""Redis, the database or the room on the disk goes away: work waits, or is refused; nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app import db
from app.errors import DatabaseUnavailable, Overloaded, ResultUnavailable
from app.fetch.client import SafeFetcher
from app.intake import Intake, Upload
from app.queue import DOWN_S, ArqQueue, Circuit, make_redis
from app.requests import Operation
from app.settings import Settings
from app.tasks.waiting import Waiters
from app.upstreams.protocols import SubmitSafety, UpstreamError
from app.values import new_id
from app.wiring import Services, first_look, open_services
from tests.fakes import FakeProvider, write_png
from tests.faults.proxy import FaultProxy
from tests.plugins.gateway import FileServer
from tests.workers.conftest import Caller, assert_books_balance, make_due
from workers.settings import work

DISK = "size=24m,nr_inodes=2000"


# --- Redis ------------------------------------------------------------------------------------------------------------


def test_a_redis_that_is_away_is_asked_by_one_call_a_second() -> None:
    now = 0.0
    circuit = Circuit(clock=lambda: now)
    assert circuit.may_ask()

    circuit.failed()
    assert not circuit.may_ask()
    now = DOWN_S
    assert [circuit.may_ask() for _ in range(3)] == [True, False, False]
    circuit.answered()

    assert circuit.may_ask()
    assert not circuit.is_open


async def test_a_silent_redis_costs_one_timeout_and_then_nothing(redis_url: str) -> None:
    with FaultProxy.to(redis_url) as proxy:
        redis = make_redis(proxy.url)
        queue = ArqQueue(redis)
        assert await queue.enqueue(new_id())
        proxy.stall()
        assert not await queue.enqueue(new_id())  # this one learns it

        began = time.monotonic()
        for _ in range(200):
            assert not await queue.enqueue(new_id())
            await queue.ring(new_id())

        assert time.monotonic() - began < 2 * DOWN_S + 0.5
        proxy.heal()
        async with asyncio.timeout(30):
            while not await queue.enqueue(new_id()):  # noqa: ASYNC110 - its circuit tells nobody
                await asyncio.sleep(0.05)
        await redis.aclose(close_connection_pool=True)


async def test_a_step_goes_on_when_redis_takes_its_message_away(
    settings: Settings, caller: Caller, fake: FakeProvider, redis_url: str
) -> None:
    sent, answered = asyncio.Event(), asyncio.Event()

    async def long_call() -> None:
        sent.set()
        await answered.wait()

    fake.submit = SubmitSafety.BLIND
    fake.submits.append(long_call)
    with FaultProxy.to(redis_url) as proxy:
        cut_off = settings.model_copy(update={"redis_url": SecretStr(proxy.url)})
        stop = asyncio.Event()
        worker = asyncio.create_task(work(cut_off, stop, providers={"fake": fake}))
        view = await caller.queued_image()
        async with asyncio.timeout(20):
            await sent.wait()
            before = proxy.connections
            proxy.refuse()
            while proxy.connections == before:  # noqa: ASYNC110 - arq's loop ends, and a new one tries
                await asyncio.sleep(0.02)
            answered.set()
            view = await caller.services.tasks.wait(caller.principal, view.public_id, 20)
        stop.set()
        await worker

    assert view.public_status == "completed"
    assert sum(fake.accepted.values()) == 1


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


async def test_a_silent_database_is_given_up_and_found_again(database_url: str) -> None:
    with FaultProxy.to(database_url) as proxy:
        engine = db.make_engine(proxy.url, session={"statement_timeout": "0.2s"})
        await db.once(engine, "SELECT 1")
        proxy.stall()

        began = time.monotonic()
        with pytest.raises(db.Silent):
            await db.once(engine, "SELECT 1")
        assert time.monotonic() - began < 10

        proxy.heal()
        assert len(await db.read(engine, "SELECT 1 AS one")) == 1
        await engine.dispose()


async def test_a_cut_connection_is_replaced_without_a_word(database_url: str) -> None:
    with FaultProxy.to(database_url) as proxy:
        engine = db.make_engine(proxy.url)
        await db.once(engine, "SELECT 1")
        proxy.cut()

        assert len(await db.read(engine, "SELECT 1 AS one")) == 1
        await engine.dispose()


async def test_a_place_in_a_full_pool_is_waited_for_once(database_url: str) -> None:
    engine = db.make_engine(database_url, pool_size=1, wait_s=0.2)
    async with AsyncExitStack() as stack:
        for _ in range(1 + 5):  # with the overflow
            await stack.enter_async_context(engine.connect())
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable) as caught:
            await db.retried(lambda: db.once(engine, "SELECT 1"))

    assert time.monotonic() - began < 1
    assert caught.value.retry_after_s == 2
    await engine.dispose()


async def test_polls_outlive_an_absence_of_the_database(
    caller: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await caller.step(await caller.video())
    await make_due(services, view.id)
    refused = asyncio.Event()
    once = db.once

    async def away(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        if "status = 'running' AND settled_at" in sql and not refused.is_set():
            refused.set()
            raise ConnectionResetError("the database went away")
        return await once(engine, sql, arguments)

    with monkeypatch.context() as patch:
        patch.setattr(db, "once", away)
        polling = asyncio.create_task(services.poller.run())
        view = await services.tasks.wait(caller.principal, view.public_id, 20)
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)

    assert refused.is_set()
    assert view.public_status == "completed"


async def test_a_result_that_waits_for_the_database_stays_young(caller: Caller, services: Services) -> None:
    view = await caller.image()
    key = view.files[0].storage_key
    path = services.storage.path_of(key)
    before = path.stat().st_mtime

    await services.storage.touch(key)

    assert path.stat().st_mtime >= before


# --- the disk ---------------------------------------------------------------------------------------------------------


class Disk:
    """A file system of a few MiB under the data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fill(self) -> None:
        """Leave neither a block nor an inode."""
        extra = self._folder / "names"
        extra.mkdir()
        try:
            for number in range(10_000):
                (extra / str(number)).touch()
        except OSError:
            pass
        try:
            with (extra / "0").open("ab") as file:
                while True:
                    file.write(b"\0" * 4096)
                    file.flush()
        except OSError:
            pass

    def free(self) -> None:
        shutil.rmtree(self._folder / "names")


@pytest.fixture
def disk(settings: Settings) -> Iterator[Disk]:
    settings.data.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(settings.data)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system is not permitted here")
    yield Disk(settings.data)
    subprocess.run(["umount", "-l", str(settings.data)], check=True, capture_output=True)


@pytest.fixture
async def on_small_disk(disk: Disk, settings: Settings, fake: FakeProvider, caller: Caller) -> Any:
    """The same gateway again, opened when the small disk was in place."""
    async with open_services(settings, providers={"fake": fake}) as services:
        await first_look(services)
        services.start_listening()
        yield Caller(services, caller.principal, caller.spool)


async def test_without_room_nothing_is_paid_for_and_the_task_goes_back_to_the_queue(
    on_small_disk: Caller, disk: Disk, fake: FakeProvider
) -> None:
    view = await on_small_disk.queued_image()
    disk.fill()

    view = await on_small_disk.step(view)
    assert (view.status, sum(fake.accepted.values())) == ("queued", 0)
    disk.free()
    view = await on_small_disk.to_the_end(view)

    assert view.public_status == "completed"
    assert await on_small_disk.attempts(view) == ["refused", "done"]


async def test_an_image_that_cannot_be_stored_now_is_stored_when_there_is_room(
    on_small_disk: Caller, disk: Disk, fake: FakeProvider
) -> None:
    async def made() -> None:
        disk.fill()
        asyncio.get_running_loop().call_later(0.3, disk.free)

    fake.image_size = (1024, 1024)
    fake.after_write = made
    began = time.monotonic()
    view = await on_small_disk.image(output_format="webp")  # transcoded: it needs room for a second file

    assert view.public_status == "completed"
    assert time.monotonic() - began > 0.3
    assert sum(fake.accepted.values()) == 1
    await assert_books_balance(on_small_disk.services)


async def test_at_the_deadline_an_image_without_room_fails_and_is_released(
    on_small_disk: Caller, disk: Disk, fake: FakeProvider, settings: Settings
) -> None:
    async def made() -> None:
        disk.fill()

    fake.after_write = made
    delivery = on_small_disk.services.advancer._steps.delivery
    delivery._settings = settings.model_copy(update={"deadline_image_s": 0.01})

    with pytest.raises(ResultUnavailable) as caught:
        await on_small_disk.image(output_format="webp")
    disk.free()

    assert caught.value.task_id is not None
    assert await on_small_disk.balance() == (1000, 0)


@pytest.mark.parametrize("submit", [SubmitSafety.IDEMPOTENT, SubmitSafety.BLIND])
async def test_an_answer_that_the_disk_cannot_take_is_asked_for_again_or_released(
    on_small_disk: Caller, disk: Disk, fake: FakeProvider, submit: SubmitSafety
) -> None:
    async def full() -> None:
        disk.fill()  # what the provider writes now does not fit

    fake.submit = submit
    fake.submits.append(full)
    view = await on_small_disk.step(await on_small_disk.queued_image())
    disk.free()

    if submit is SubmitSafety.BLIND:
        assert (view.public_status, view.error_code) == ("failed", "result_unavailable")
        assert await on_small_disk.balance() == (1000, 0)
    else:
        view = await on_small_disk.to_the_end(view)
        assert view.public_status == "completed"
        assert len(set(fake.accepted)) == 1  # one token: one image


async def test_a_video_that_finds_no_room_is_fetched_again_and_never_poison(
    on_small_disk: Caller, disk: Disk, fake: FakeProvider
) -> None:
    view = await on_small_disk.step(await on_small_disk.video())
    assert view.status == "running"
    disk.fill()
    for _ in range(7):
        view = await on_small_disk.step(view)
        assert not view.is_final
    disk.free()
    view = await on_small_disk.to_the_end(view)

    assert view.public_status == "completed"
    assert (await on_small_disk.balance())[1] == 0


async def test_inputs_without_room_are_refused_before_anything_is_held(
    on_small_disk: Caller, disk: Disk, tmp_path: Path
) -> None:
    spool = on_small_disk.services.settings.spool_dir / "request"
    spool.mkdir()
    picture = write_png(spool / "picture")
    disk.fill()
    upload = Upload(picture, picture.stat().st_size, b"0" * 32)
    intake = Intake({"prompt": "a fox", "image_urls": [upload]}, spool)

    with pytest.raises(Overloaded) as caught:
        await on_small_disk.services.images.run(on_small_disk.principal, intake, operation=Operation.IMAGE_EDIT)
    disk.free()

    assert caught.value.retry_after_s == 10
    assert await on_small_disk.balance() == (1000, 0)


async def test_a_fetch_without_room_says_so_and_leaves_nothing(
    disk: Disk, settings: Settings, file_server: FileServer
) -> None:
    fetcher = SafeFetcher(settings.model_copy(update={"fetch_allow_hosts": (file_server.host,)}))
    url = file_server.url("big", b"x" * 100_000)
    out = settings.data / "fetched"
    (settings.data / "spare").touch()
    disk.fill()
    (settings.data / "spare").unlink()  # a name is free, a block is not

    with pytest.raises(OSError, match="No space"):
        await fetcher.fetch(url, out, param="image_urls", max_bytes=10**6)

    assert not out.exists()
    await fetcher.close()


# --- the end of a process ---------------------------------------------------------------------------------------------


async def test_at_a_stop_who_watches_is_sent_home_and_who_waits_for_an_image_is_not(services: Services) -> None:
    waiters = Waiters(services.redis, services.queries)
    task_id = new_id()
    watching = asyncio.create_task(waiters.wait(task_id, 60, until_stop=True))
    waiting = asyncio.create_task(waiters.wait(task_id, 60))
    await asyncio.sleep(0)

    waiters.stop()
    assert await watching is False
    assert await waiters.wait(task_id, 60, until_stop=True) is False
    assert not waiting.done()
    waiters.give_up()

    assert await waiting is False


async def test_what_was_being_sent_at_a_stop_is_uncertain_and_due(caller: Caller, services: Services) -> None:
    view = await caller.video()
    assert await services.advancer.claim(view.id) is not None

    assert await services.lifecycle.hand_back() == 1

    assert (await caller.task(view.id)).status == "uncertain"
    assert await caller.attempts(view) == ["uncertain"]
    view = await caller.to_the_end(await caller.task(view.id))
    assert view.public_status == "completed"
    await assert_books_balance(services)


async def test_a_poller_that_stops_without_a_database_says_so_and_goes(
    caller: Caller, services: Services, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await caller.step(await caller.video())
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await answer.wait()
        raise UpstreamError("503")

    async def away(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        raise ConnectionResetError("the database went away")

    fake.polls.append(slow)
    await make_due(services, view.id)
    polling = asyncio.create_task(services.poller.run())
    async with asyncio.timeout(20):
        await asked.wait()
        with monkeypatch.context() as patch:
            patch.setattr(db, "once", away)
            answer.set()
            assert await services.poller.drain(10) == 0
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)


async def test_a_stopping_worker_waits_for_an_image_as_long_as_the_api_does(
    settings: Settings, caller: Caller, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.settings.DRAIN_S", 0.0)
    sent, answered = asyncio.Event(), asyncio.Event()

    async def long_call() -> None:
        sent.set()
        await answered.wait()

    fake.submit = SubmitSafety.BLIND
    fake.submits.append(long_call)
    stop = asyncio.Event()
    worker = asyncio.create_task(work(settings, stop, providers={"fake": fake}))
    view = await caller.queued_image()
    async with asyncio.timeout(20):
        await sent.wait()
        stop.set()
        asyncio.get_running_loop().call_later(0.3, answered.set)
        await worker

    assert (await caller.task(view.id)).public_status == "completed"


async def test_a_stopping_worker_finishes_the_step_that_runs(
    settings: Settings, caller: Caller, fake: FakeProvider
) -> None:
    sent, answered = asyncio.Event(), asyncio.Event()

    async def long_call() -> None:
        sent.set()
        await answered.wait()

    fake.submits.append(long_call)
    stop = asyncio.Event()
    worker = asyncio.create_task(work(settings, stop, providers={"fake": fake}))
    view = await caller.queued_image()
    async with asyncio.timeout(20):
        await sent.wait()
        stop.set()
        answered.set()
        await worker

    assert (await caller.task(view.id)).public_status == "completed"
    assert sum(fake.accepted.values()) == 1
