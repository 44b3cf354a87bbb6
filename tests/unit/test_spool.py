"""Uploads take turns and keep to their share of the disk; a full disk takes no new work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from app.errors import Overloaded, TooManyRequests
from app.storage.room import Room
from app.storage.spool import SMALL_BYTES, UploadLimits, Uploads

BIG = SMALL_BYTES + 1
PATIENT, HASTY = 30.0, 0.01


def uploads_of(*, at_once: int = 3, per_key: int = 2, wait_s: float = HASTY, spool_bytes: int = 1000) -> Uploads:
    return Uploads(UploadLimits(at_once=at_once, per_key=per_key, wait_s=wait_s, spool_bytes=spool_bytes))


@asynccontextmanager
async def running(uploads: Uploads, *keys: int) -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        for key in keys:
            await stack.enter_async_context(uploads.turn(key, BIG))
        yield stack


async def test_a_key_has_its_share_and_the_process_its_limit():
    uploads = uploads_of()

    async with running(uploads, 1, 1):
        with pytest.raises(TooManyRequests) as refused:
            async with uploads.turn(1, BIG):
                pass
        assert refused.value.retry_after_s == 5
        async with running(uploads, 2):
            with pytest.raises(Overloaded):
                async with uploads.turn(3, None):
                    pass
        async with uploads.turn(3, None):
            assert uploads.running == 3
    assert uploads.running == 0


async def test_small_bodies_take_no_turn():
    uploads = uploads_of(at_once=1)

    async with running(uploads, 1), uploads.turn(1, SMALL_BYTES), uploads.turn(2, 0):
        assert uploads.running == 1


async def test_a_turn_is_waited_for_and_nobody_waits_behind_another_key_s_share():
    uploads = uploads_of(wait_s=PATIENT)
    order: list[str] = []

    async def upload(name: str, key: int) -> None:
        async with uploads.turn(key, BIG):
            order.append(name)

    async with running(uploads, 1, 1):
        waiting = asyncio.create_task(upload("same key", 1))
        await asyncio.sleep(0)
        await upload("other key", 2)
        assert order == ["other key"]
    await waiting
    assert order == ["other key", "same key"]
    assert uploads.running == 0


async def test_who_leaves_while_it_waits_leaves_no_trace():
    uploads = uploads_of(at_once=1, wait_s=PATIENT)

    async with running(uploads, 1) as first:
        turns = [uploads.turn(2, BIG) for _ in range(3)]
        waiting = [asyncio.create_task(turn.__aenter__()) for turn in turns]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        await first.aclose()
        waiting[1].cancel()  # its turn came just now
        await asyncio.wait(waiting[1:])

    assert waiting[1].cancelled()
    assert not waiting[2].cancelled()
    assert uploads.running == 1
    await turns[2].__aexit__(None, None, None)
    assert uploads.running == 0


def test_a_full_spool_takes_nothing_more_until_what_was_read_has_left(tmp_path: Path):
    uploads = uploads_of(spool_bytes=1000)
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    first.mkdir()
    uploads.reserve(first, 600)
    uploads.reserve(second, 400)
    with pytest.raises(Overloaded):
        uploads.reserve(third, 1)

    (first / "image").write_bytes(bytes(550))
    uploads.read(first)
    uploads.reserve(third, 50)
    with pytest.raises(Overloaded):
        uploads.reserve(tmp_path / "d", 1)
    (first / "image").unlink()  # moved to the storage
    uploads.reserve(tmp_path / "d", 550)
    for folder in (first, second, third, tmp_path / "d"):
        uploads.release(folder)
    uploads.reserve(tmp_path / "e", 1000)


async def test_an_almost_full_disk_is_seen_within_a_second_and_so_is_its_end(tmp_path: Path):
    now = 100.0
    room = Room(tmp_path, min_bytes=0, min_percent=100, clock=lambda: now)
    with pytest.raises(Overloaded) as refused:
        await room.check()
    assert refused.value.retry_after_s == 30

    room._min_percent = 1e-9  # room was made
    with pytest.raises(Overloaded):
        await room.check()
    now += 1
    await room.check()


async def test_both_limits_at_zero_look_at_nothing():
    await Room(Path("/nowhere"), min_bytes=0, min_percent=0).check()
