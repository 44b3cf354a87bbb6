"""A task's story for its owner, in plain words: no upstream, no attempt's error, no operator's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.console.i18n import Texts
from app.console.wording import _
from app.generation.timeline import Move, Timeline

MOVES: Mapping[str, str] = {
    "queued": _("Waiting for a free place"),
    "submitting": _("Sent to the model"),
    "running": _("The model works on it"),
    "uncertain": _("No clear answer yet: we find out what became of it"),
    "storing": _("Checking and storing the result"),
    "succeeded": _("Done"),
    "failed": _("Failed"),
    "cancelled": _("Cancelled"),
}
AGAIN: Mapping[str, str] = {
    "queued": _("Waiting for another try"),
    "submitting": _("Sent again: another try"),
}
ENDS = ("succeeded", "failed", "cancelled")
TONES: Mapping[str, str] = {"succeeded": "good", "failed": "bad"}


@dataclass(frozen=True, slots=True)
class Line:
    at: datetime
    text: str
    tone: str = ""
    seq: int | None = None
    """Of the ledger's line that says the same."""
    is_booked: bool = False
    """It is a charge, or what is left of the hold."""
    is_end: bool = False


def story(timeline: Timeline, texts: Texts) -> list[Line]:
    """Return what happened, in order of time."""
    lines = list(_lines(timeline, texts))
    end = max((move.at for move in timeline.moves if move.status in ENDS), default=None)

    def place(line: Line) -> tuple[datetime, bool]:
        """What is booked with the end stands before it: readers see seconds, and the books' clock is another one."""
        if end is None or not (line.is_end or line.is_booked) or not _same_second(line.at, end):
            return line.at, False
        return end, line.is_end

    return sorted(lines, key=place)


def _same_second(one: datetime, other: datetime) -> bool:
    return one.replace(microsecond=0) == other.replace(microsecond=0)


def _lines(timeline: Timeline, texts: Texts) -> Iterator[Line]:
    task, ngettext = timeline.task, texts.ngettext

    def told(text: str, amount: int) -> str:
        return text % {"amount": texts.number(amount)}

    accepted = ngettext("Accepted: %(amount)s credit held", "Accepted: %(amount)s credits held", task.hold)
    yield Line(task.created_at, told(accepted, task.hold))
    yield from _moves(timeline.moves, texts.gettext)
    if task.cancel_requested_at is not None:
        yield Line(task.cancel_requested_at, texts.gettext("Cancellation requested"))
    for entry in timeline.entries:
        amount = abs(entry.amount)
        if entry.kind == "capture":
            text = ngettext("%(amount)s credit charged", "%(amount)s credits charged", amount)
        else:
            text = ngettext("%(amount)s credit refunded", "%(amount)s credits refunded", amount)
        yield Line(entry.created_at, told(text, amount), seq=entry.seq, is_booked=entry.kind == "capture")
    released = task.hold - (task.charge or 0)
    if task.settled_at is not None and released:
        given_back = ngettext("%(amount)s credit released", "%(amount)s credits released", released)
        yield Line(task.settled_at, told(given_back, released), is_booked=True)
    for notice in timeline.notices:
        if notice.delivered_at is not None:
            yield Line(notice.delivered_at, texts.gettext("Webhook delivered"))


def _moves(moves: Sequence[Move], _t: Callable[[str], str]) -> Iterator[Line]:
    seen: set[str] = set()
    last = ""
    for move in moves:
        known = AGAIN.get(move.status) if move.status in seen else None
        seen.add(move.status)
        if move.status != last:
            text, tone = _t(known or MOVES.get(move.status, move.status)), TONES.get(move.status, "")
            yield Line(move.at, text, tone, is_end=move.status in ENDS)
        last = move.status
