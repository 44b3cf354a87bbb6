"""What the story of a task says, in a reader's language: the events' names, and the sentences that are ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.console import wording
from app.console.wording import _
from app.generation.timeline import Event
from app.requests import Operation

EVENTS: Mapping[str, str] = {
    "accepted": _("Accepted"),
    "hold": _("Held"),
    "release": _("Released"),
    "attempt.sent": _("Attempt sent"),
    "attempt.resolved": _("Attempt ended"),
    "attempt.late": _("Late result"),
    "cancel.requested": _("Cancellation requested"),
    "delivered": _("Answer delivered"),
    "webhook.made": _("Webhook made"),
    "webhook.delivered": _("Webhook delivered"),
    "deleted": _("Deleted"),
    "task.cancel": _("Cancelled by hand"),
    "task.resolve": _("Resolved by hand"),
    "task.refund": _("Refunded by hand"),
}
ATTEMPT_STATES: Mapping[str, str] = {
    "sending": _("Being sent"),
    "accepted": _("Accepted"),
    "done": _("Done"),
    "refused": _("Rejected"),
    "failed": _("Failed"),
    "uncertain": _("Uncertain"),
    "lost": _("Lost"),
}
FAULTS: Mapping[str, str] = {
    "busy": _("Busy"),
    "refused": _("Rejected"),
    "denied": _("Access denied"),
    "rejected": _("Rejected"),
    "moderation": _("Content filter"),
    "failed": _("Failed"),
    "uncertain": _("Uncertain"),
    "lost": _("Lost"),
    "deadline": _("Deadline passed"),
    "absent": _("Not in the upstream's list"),
    "poison": _("Given up after several tries"),
    "resolved": _("Resolved by hand"),
}
REASONS: Mapping[str, str] = {
    "provider_unavailable": _("No upstream took it in time"),
    "upstream_error": _("The upstream failed"),
    "content_policy_violation": _("The content filter refused it"),
    "invalid_parameter": _("The upstream refused a parameter"),
    "result_unavailable": _("The result could not be fetched or stored"),
    "internal_error": _("An error of our own"),
}
"""Why a task failed, by the code of its error."""
TYPES: Mapping[str, str] = {one.task_type: text for one in Operation if (text := wording.OPERATIONS.get(one.value))}
"""What was asked for, as the task object calls it."""
SENTENCES: Mapping[re.Pattern[str], str] = {
    re.compile(pattern): text
    for pattern, text in {
        r"(?P<num>\d+) credits put aside": _("%(num)s credits"),
        r"(?P<num>\d+) credits of the hold": _("%(num)s credits of the hold"),
        r"(?P<num>\d+) credits, ledger row (?P<row>\d+) \(line (?P<line>\d+) of the account\)": _(
            "%(num)s credits, ledger row %(row)s (line %(line)s of the account)"
        ),
        r"attempt (?P<num>\d+) at (?P<pool>.+)": _("attempt %(num)s at %(pool)s"),
        r"(?P<num>\d+): done after all": _("%(num)s: done after all"),
        r"the answer's last byte was handed over": _("the answer's last byte was handed over"),
        r"by its owner; its files go": _("by its owner; its files go"),
        r"for (?P<receiver>\S+)": _("for %(receiver)s"),
        r"to (?P<receiver>\S+)": _("to %(receiver)s"),
        r"(?P<what>(?:image|video)\.[a-z]+) with (?P<model>.+)": _("%(what)s with %(model)s"),
        r"(?P<email>\S+) with (?P<key>key_.+)": _("%(email)s with %(key)s"),
    }.items()
}


@dataclass(frozen=True, slots=True)
class Told:
    what: str
    text: str
    by: str


def words_of(event: Event, gettext: Callable[[str], str]) -> Told:
    """Return an event's name and text; what people or upstreams wrote stays as it is."""
    known = EVENTS.get(event.what) or wording.KINDS.get(event.what)
    if known is None and event.what in wording.STATES:
        known = wording.STATES[event.what][0]
    if event.what.startswith("task."):
        text = event.text  # somebody's reason
    elif event.what == "attempt.resolved":
        text = _outcome(event.text, gettext)
    else:
        text = _sentence(event.text, gettext)
    return Told(gettext(known) if known else event.what, text, _sentence(event.by or "", gettext))


def _outcome(text: str, gettext: Callable[[str], str]) -> str:
    """Say how an attempt ended: its number, its state, what went wrong; then the upstream's own words."""
    number, _colon, parts = text.partition(": ")
    told = parts.split(", ")
    for place, words in ((0, ATTEMPT_STATES), (1, FAULTS)):
        if place < len(told) and told[place] in words:
            told[place] = gettext(words[told[place]])
    return f"{number}: {', '.join(dict.fromkeys(told))}"


def _sentence(text: str, gettext: Callable[[str], str]) -> str:
    for pattern, known in SENTENCES.items():
        found = pattern.fullmatch(text)
        if found:
            values = found.groupdict()
            if "what" in values:
                values["what"] = gettext(TYPES.get(values["what"], values["what"]))
            return gettext(known) % values
    return text
