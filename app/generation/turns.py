"""How many paid requests may be on their way to their hold at once: few enough that each gets there quickly.

That way (key, fields, price, hold) is all our own work: processor, event loop, database. When it gets slow there is too
much of it, and the rest is better told at once. Waiting is not work: for a body, for a reference URL, and above all for
an upstream, which begins after the hold. So a slow upstream closes no door, however many requests wait for it.

The limit finds its own height. Turns that take longer than ``target_s`` lower it in proportion, quick ones raise it a
little (additive up, multiplicative down, as TCP does). What is done with an upstream's answer is our own work again: it
takes a place at the door, which nobody can refuse it, so that what is inside gets out before more comes in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from statistics import median

LEAST = 4
"""The limit never falls below: this many cost little, and keep the measurement going."""
LOOK_S = 0.1
SAMPLES = 5
"""A look judges at least this many turns, or a second of them."""
PATIENCE_S = 1.0
RAISE = 1.0
RAISE_UNUSED = 1.25
"""How the limit grows where it kept nobody out."""
CUT_MOST = 0.3
"""A look lowers the limit to this share at most. Turns that were inside before are judged once more: what stands is
drained quickly."""

_current: ContextVar[Turn | None] = ContextVar("turn", default=None)


class Turns:
    """One process's door. ``most`` is the limit at rest: what a burst may be. ``clock`` is monotonic seconds."""

    def __init__(
        self, *, target_s: float, most: int, least: int = LEAST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._target_s = target_s
        self._most = float(most)
        self._least = float(min(least, most))
        self._clock = clock
        self.limit = self._most
        self.active = 0
        self.refused = 0
        self._highest = 0
        self._samples: list[float] = []
        self._looked_at = clock()

    def enter(self) -> Turn | None:
        """Begin a turn, or return None: too many are under way."""
        now = self._clock()
        if self.active == 0 and now - self._looked_at > PATIENCE_S:
            self._start_anew(now)
        if self.active >= self.limit:
            self.refused += 1
            return None
        return Turn(self, now)

    def begun(self) -> None:
        self.active += 1
        self._highest = max(self._highest, self.active)

    def ended(self, took_s: float | None) -> None:
        """A turn is over; ``took_s`` where it came to its hold: a refusal's time says nothing."""
        self.active -= 1
        if took_s is None:
            return
        self._samples.append(took_s)
        now = self._clock()
        waited_s = now - self._looked_at
        if waited_s >= LOOK_S and (len(self._samples) >= SAMPLES or waited_s >= PATIENCE_S):
            self._look(now)

    def now(self) -> float:
        return self._clock()

    def _look(self, now: float) -> None:
        typical_s = median(self._samples)
        if typical_s > self._target_s:
            share = max(self._target_s / typical_s, CUT_MOST)
            self.limit = max(self.limit * share, self._least)
        elif self._highest >= self.limit - 1:
            self.limit = min(self.limit + RAISE, self._most)
        else:
            self.limit = min(self.limit * RAISE_UNUSED, self._most)
        self._next(now)

    def _start_anew(self, now: float) -> None:
        self.limit = self._most
        self._next(now)

    def _next(self, now: float) -> None:
        self._samples.clear()
        self._highest = self.active
        self._looked_at = now


class Turn:
    """One request's way from its head to its hold. Leaving twice is harmless."""

    __slots__ = ("_is_over", "_resting", "_since", "_took_s", "turns")

    def __init__(self, turns: Turns, now: float) -> None:
        self.turns = turns
        self._since = now
        self._took_s = 0.0
        self._resting = 0
        self._is_over = False
        turns.begun()

    def rest(self) -> None:
        """What follows is waiting: it is not counted until `resume`. May be nested, and overlap."""
        self._resting += 1
        if self._resting == 1 and not self._is_over:
            self._took_s += self.turns.now() - self._since
            self.turns.ended(None)

    def resume(self) -> None:
        self._resting -= 1
        if self._resting == 0 and not self._is_over:
            self._since = self.turns.now()
            self.turns.begun()

    def arrived(self) -> None:
        """The hold is placed."""
        self._end(is_sample=True)

    def leave(self) -> None:
        """The request is answered, whatever came of it."""
        self._end(is_sample=False)

    def _end(self, *, is_sample: bool) -> None:
        if self._is_over:
            return
        self._is_over = True
        if not self._resting:
            took_s = self._took_s + self.turns.now() - self._since
            self.turns.ended(took_s if is_sample else None)


@contextmanager
def taking(turn: Turn) -> Iterator[None]:
    """Make ``turn`` the one that `resting` and `hold_is_placed` mean in this context, and leave it at the end."""
    token = _current.set(turn)
    try:
        yield
    finally:
        _current.reset(token)
        turn.leave()


@contextmanager
def resting() -> Iterator[None]:
    """Wait for something that is not our work. Without a turn (a worker, a script) nothing happens."""
    turn = _current.get()
    if turn is None:
        yield
        return
    turn.rest()
    try:
        yield
    finally:
        turn.resume()


@contextmanager
def finishing() -> Iterator[None]:
    """Take a place for the work on an upstream's answer. Without a turn (a worker, a script) nothing happens."""
    turn = _current.get()
    if turn is None:
        yield
        return
    turn.turns.begun()
    try:
        yield
    finally:
        turn.turns.ended(None)


def hold_is_placed() -> None:
    """End the current turn, if there is one: what comes now waits for an upstream."""
    turn = _current.get()
    if turn is not None:
        turn.arrived()
