"""Dear answers are asked for once in a while, however many look; time is an argument."""

from __future__ import annotations

import asyncio

import pytest

from app.generation.recent import Recent


class Source:
    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self) -> int:
        self.asked += 1
        number = self.asked
        await self.may_answer.wait()
        if number == 13:
            raise ValueError("unlucky")
        return number


async def test_many_who_look_at_once_and_soon_after_get_one_answer():
    now, source = [0.0], Source()
    recent = Recent(3.0, clock=lambda: now[0])

    source.may_answer.clear()
    looking = [asyncio.create_task(recent.get("a", source.ask)) for _ in range(20)]
    await asyncio.sleep(0)
    looking[0].cancel()
    source.may_answer.set()
    answers = await asyncio.gather(*looking, return_exceptions=True)
    now[0] = 2.9
    soon = await recent.get("a", source.ask)
    other = await recent.get("b", source.ask)
    now[0] = 3.0
    later = await recent.get("a", source.ask)

    assert isinstance(answers[0], asyncio.CancelledError)
    assert (answers[1:], soon, other, later) == ([1] * 19, 1, 2, 3)


async def test_what_failed_is_asked_again_at_once():
    source = Source()
    source.asked = 12
    recent = Recent(3.0, clock=lambda: 0.0)

    with pytest.raises(ValueError, match="unlucky"):
        await recent.get("a", source.ask)

    assert await recent.get("a", source.ask) == 14


async def test_nothing_is_kept_for_no_time():
    source = Source()
    recent = Recent(0)

    assert [await recent.get("a", source.ask) for _ in range(3)] == [1, 2, 3]
