"""Words of the catalogue's error messages: what was given, in short, and what is allowed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable

from app.errors import InvalidParameter

_GIVEN_CHARS = 60
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def shown(value: object) -> str:
    """Return what a caller sent in a few dozen printable characters, safe for any encoder and for the database."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        cut = value if len(value) <= _GIVEN_CHARS else value[:_GIVEN_CHARS] + "..."
        return json.dumps(printable(cut), ensure_ascii=False)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "a number of more than 20 digits"
    return "a file"


def printable(text: str) -> str:
    """Replace what PostgreSQL or UTF-8 cannot hold (NUL, lone surrogates) and other control characters."""
    return _UNPRINTABLE.sub("?", text)


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold this text: no NUL, and no half of a surrogate pair."""
    return _UNSTORABLE.search(text) is None


def listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)


def invalid(param: str, given: object, *, allowed: str, model: str, why: str | None = None) -> InvalidParameter:
    """Return the error every refused value gets: the field, what was given, what is allowed, and where."""
    reason = f" ({why})" if why else ""
    return InvalidParameter(
        f"Invalid value for '{param}': {shown(given)}{reason}. Allowed for '{model}': {allowed}.", param=param
    )


def whole_number(value: object) -> int | None:
    """Return an integer as JSON has them: 5 and 5.0, never a bool, a text or 5.5."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value)
