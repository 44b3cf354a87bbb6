"""What an error says to a reader: its sentence in the reader's language, with its values, and fields by their labels.

Errors of our services are English sentences of the API. `sentences` has them with placeholders; what none of them fits
is said by its reason (`wording.ERRORS`), and what has no words there either is shown as it is. Scripts do the same
with what `script` gives them (``said`` in ``static/app.js``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from app.console.i18n import Texts, texts
from app.console.sentences import FORMS, PHRASES, REQUESTS, WARNINGS
from app.console.user.playground_form import FIELDS
from app.console.wording import ERRORS, _
from app.errors import NOT_CHARGED, MediagateError

LABELS: Mapping[str, str] = {name: words[0] for name, words in FIELDS.items()} | {
    "account": _("User"),
    "amount": _("Credits"),
    "at": _("Date and time, UTC"),
    "base_url": _("Address"),
    "batch": _("Batch"),
    "budget": _("Budget in credits"),
    "cidrs": _("IP networks"),
    "code": _("Code"),
    "concurrency": _("Tasks of one model at once"),
    "count": _("How many"),
    "credits": _("Credits"),
    "document": _("Entry"),
    "email": _("E-mail"),
    "event_type": _("Event"),
    "event_types": _("Events"),
    "expires_at": _("Last day"),
    "expires_in": _("Expires"),
    "image": _("Pictures"),
    "input_seconds": _("Seconds of reference videos"),
    "kind": _("Kind"),
    "low_credits": _("Threshold in credits"),
    "max_in_flight": _("Tasks at once"),
    "model": _("Model"),
    "models": _("Models"),
    "name": _("Name"),
    "note": _("Note"),
    "operations": _("Operations"),
    "options": _("Options"),
    "overlap": _("The old key works on for"),
    "period": _("Period"),
    "price": _("Price"),
    "priority": _("Priority"),
    "prompt": _("Prompt"),
    "provider": _("Provider"),
    "reason": _("Reason"),
    "reference": _("Reference"),
    "rpm": _("Requests a minute"),
    "scopes": _("Permissions"),
    "secret": _("Secret"),
    "upstream": _("Upstream"),
    "upstream_model": _("Upstream's model"),
    "url": _("URL"),
    "weight": _("Weight"),
}
"""What fields are called on our pages."""

FIELD_NAMES = frozenset({"field", "other"})
PHRASED = frozenset({"allowed", "found", "given", "kind", "kinds", "reasons", "why"})
NAMES = frozenset({"code", "email", "id", "key", "model", "models", "name", "pool", "task"})
"""What they hold is never a number, though it may look like one."""
QUOTED, OR = _("'%(name)s'"), _(" or ")
REST = _("%(said)s No credits were charged.")
"""Of what an upstream or a vendor says in words of their own."""

_PLACEHOLDER = re.compile(r"%\((\w+)\)s")
_SEVERAL = re.compile(r"'([^']+)'")
_PLACE = re.compile(r"(\w+)\[([0-9]+)\]")
_NUMBER = re.compile(r"-?[0-9]+(,[0-9]{3})*")

Shape = tuple[re.Pattern[str], str]


def pattern(sentence: str) -> str:
    """Return the regular expression of a sentence, in Python's syntax. A placeholder that comes again is the same."""
    parts, seen, end = [], set(), 0
    for found in _PLACEHOLDER.finditer(sentence):
        name = found[1]
        parts.append(re.escape(sentence[end : found.start()]))
        parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{_value(name)})")
        seen.add(name)
        end = found.end()
    return "".join(parts) + re.escape(sentence[end:])


def _value(name: str) -> str:
    if name in FIELD_NAMES:
        return "[^']+"
    return "-?[0-9][0-9,.]*" if name in ("num", "least", "most", "count", "limit", "days") else r"[\s\S]+?"


@cache
def _shapes(*groups: tuple[str, ...]) -> tuple[Shape, ...]:
    return tuple((re.compile(pattern(sentence)), sentence) for group in groups for sentence in group)


def of_error(error: MediagateError, words: Texts) -> str:
    """Return what went wrong, and what to do, as a reader of this language is told it."""
    found = said(error.message, words)
    if found is None and error.reason in ERRORS:
        found = words.gettext(ERRORS[error.reason])
    return found or _fill(error.message, _shapes((REST,)), words) or error.message


def said(message: str, words: Texts) -> str | None:
    """Return a sentence of our services in this language; None: it is none that we know."""
    return _fill(message, _shapes(tuple(REQUESTS), tuple(FORMS), tuple(WARNINGS)), words)


def foreign(error: MediagateError, words: Texts) -> str | None:
    """Return what an upstream or a vendor said in words of their own; None: `of_error` tells all of it."""
    told = of_error(error, words)
    is_told = told == error.message or said(error.message, words) is not None
    return None if is_told else error.message.removesuffix(NOT_CHARGED).strip() or None


def label_of(name: str, words: Texts) -> str:
    """Return what a field is called: ``image_urls[1]`` is the second picture."""
    place = _PLACE.fullmatch(name)
    if place:
        return f"{label_of(place[1], words)} {int(place[2]) + 1}"
    return words.gettext(LABELS[name]) if name in LABELS else name


def _fill(text: str, shapes: Iterable[Shape], words: Texts) -> str | None:
    for shape, sentence in shapes:
        found = shape.fullmatch(text)
        if found:
            values = {name: _shown(name, value, words) for name, value in found.groupdict().items()}
            return words.gettext(sentence) % values
    return None


def _shown(name: str, value: str, words: Texts) -> str:
    if name in FIELD_NAMES:
        return label_of(value, words)
    if name == "fields":
        return _SEVERAL.sub(lambda one: words.gettext(QUOTED) % {"name": label_of(one[1], words)}, value).replace(
            OR, words.gettext(OR)
        )
    if name in PHRASED:
        parts = value.split("; ") if name == "reasons" else [value]
        return "; ".join(_fill(part, _shapes(tuple(PHRASES)), words) or part for part in parts)
    is_number = name not in NAMES and _NUMBER.fullmatch(value)
    return words.number(int(value.replace(",", ""))) if is_number else value


# --- for scripts ----------------------------------------------------------------------------------------------------


def script(language: str) -> str:
    """Return the part of the scripts' texts that `said` in ``app.js`` reads: it is to find what `of_error` finds."""
    words = texts(language)
    data = {
        "sentences": _spelt([*REQUESTS, *WARNINGS], words.gettext),
        "phrases": _spelt(PHRASES, words.gettext),
        "rest": _spelt([REST], words.gettext),
        "reasons": {reason: words.gettext(text) for reason, text in ERRORS.items()},
        "labels": {name: words.gettext(text) for name, text in LABELS.items()},
        "phrased": sorted(PHRASED),
        "names": sorted(NAMES),
        "free": NOT_CHARGED,
        "or": words.gettext(OR),
        "quoted": words.gettext(QUOTED),
    }
    return f"export const refusals = {json.dumps(data, ensure_ascii=False, sort_keys=True)};\n"


def _spelt(sentences: Iterable[str], gettext: Callable[[str], str]) -> list[tuple[str, str]]:
    """Return each sentence's regular expression in JavaScript's syntax, and its translation."""
    return [
        (re.sub(r"\(\?P=(\w+)\)", r"\\k<\1>", pattern(one)).replace("(?P<", "(?<"), gettext(one)) for one in sentences
    ]
