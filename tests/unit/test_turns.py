"""The door for paid requests, on a clock of its own."""

from __future__ import annotations

import asyncio

import pytest

from app.generation.turns import LEAST, Turn, Turns, finishing, hold_is_placed, resting, taking
from tests.unit.watched import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turns(clock: Clock) -> Turns:
    return Turns(target_s=0.1, most=64, clock=clock)


def entered(turns: Turns) -> Turn:
    turn = turns.enter()
    assert turn is not None
    return turn


def run(turns: Turns, clock: Clock, *, at_once: int, took_s: float, rounds: int = 1) -> int:
    """Let as many in as there is room for, up to ``at_once``, each for ``took_s``. Returns how many the last were."""
    inside: list[Turn] = []
    for _ in range(rounds):
        inside = [turn for _ in range(at_once) if (turn := turns.enter()) is not None]
        clock.now += took_s
        for turn in inside:
            turn.arrived()
    return len(inside)


def test_a_burst_as_large_as_the_limit_is_let_in_and_the_next_one_is_not(turns: Turns):
    for _ in range(64):
        entered(turns)

    assert turns.enter() is None
    assert turns.refused == 1


def test_slow_turns_close_the_door_to_a_few_but_never_wholly(turns: Turns, clock: Clock):
    assert run(turns, clock, at_once=500, took_s=0.3, rounds=2) < 64
    assert run(turns, clock, at_once=500, took_s=0.3, rounds=10) == LEAST


def test_one_slow_moment_does_not_shut_out_the_ordinary_load(turns: Turns, clock: Clock):
    run(turns, clock, at_once=5, took_s=0.3)

    assert run(turns, clock, at_once=20, took_s=0.01) == 20


def test_quick_turns_open_it_again(turns: Turns, clock: Clock):
    run(turns, clock, at_once=500, took_s=1.0, rounds=10)

    run(turns, clock, at_once=4, took_s=0.02, rounds=100)  # two seconds of ordinary load

    assert run(turns, clock, at_once=500, took_s=0.02) == 64


def test_under_pressure_it_finds_the_height_at_which_turns_take_as_long_as_they_may(turns: Turns, clock: Clock):
    work_s = 0.005  # of one core a turn: twenty at once take 0.1 s each
    let_in = 0
    for _ in range(200):
        let_in = run(turns, clock, at_once=500, took_s=max(1, round(turns.limit)) * work_s)

    assert 15 <= let_in <= 24


def test_after_a_silence_the_limit_is_what_it_was_at_the_start(turns: Turns, clock: Clock):
    run(turns, clock, at_once=500, took_s=1.0, rounds=10)

    clock.now += 5.0

    assert run(turns, clock, at_once=500, took_s=0.01) == 64


def test_waiting_is_neither_counted_nor_timed(turns: Turns, clock: Clock):
    for _ in range(1000):
        turn = entered(turns)
        turn.rest()  # its body is on a slow line
    clock.now += 60.0

    assert turns.active == 0
    turn.resume()
    assert turns.active == 1
    turn.arrived()
    assert run(turns, clock, at_once=500, took_s=0.01) == 64


def test_an_upstream_of_a_minute_closes_no_door(turns: Turns, clock: Clock):
    for _ in range(100):
        waiting = [entered(turns) for _ in range(20)]
        clock.now += 0.02
        for turn in waiting:
            turn.arrived()  # and now the image takes its time, while the turn goes on to exist
    clock.now += 60.0

    for turn in waiting:
        turn.leave()
    assert turns.active == 0
    assert turns.refused == 0


def test_refused_requests_say_nothing_about_speed_and_leave_no_trace(turns: Turns, clock: Clock):
    for _ in range(50):
        turn = entered(turns)
        clock.now += 0.5
        turn.leave()
        turn.leave()

    assert turns.active == 0
    assert turns.limit == 64


def test_a_turn_that_ends_while_it_rests_is_counted_once(turns: Turns):
    turn = entered(turns)
    turn.rest()
    turn.leave()
    turn.resume()

    assert turns.active == 0


async def test_the_turn_belongs_to_the_request_and_to_the_tasks_it_starts(turns: Turns):
    async def place_the_hold() -> None:
        with resting():
            assert turns.active == 0
        assert turns.active == 1
        hold_is_placed()

    with taking(entered(turns)):
        await asyncio.create_task(place_the_hold())
        assert turns.active == 0
    hold_is_placed()  # outside of any turn

    assert turns.active == 0


async def test_work_on_an_answer_takes_a_place_that_nobody_can_refuse_it(turns: Turns):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def step() -> None:
        with finishing():
            begun.set()
            await go_on.wait()

    turns.limit = 1
    with taking(entered(turns)):
        hold_is_placed()
        work = asyncio.create_task(step())
    await begun.wait()

    assert (turns.active, turns.enter()) == (1, None)
    go_on.set()
    await work
    assert turns.active == 0


async def test_a_worker_finishes_without_any_door():
    with finishing():
        pass
