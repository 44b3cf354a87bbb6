"""Makes an upstream's own words fit to be shown and logged: no address, key, host or id, and not long."""

from __future__ import annotations

import re

MAX_CHARS = 200
_AFTER = re.compile(r"[\s,;.(\[]*\b(?:request|trace|log)[ _-]?id\b.*", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(
    r"""
    \b(?:[a-z][a-z0-9+.-]*://|data:)[^\s"'<>]+            # addresses, data: URLs
    | \bBearer\s+\S+ | \b(?:sk|ak|key)-[\w.*-]+             # keys, also masked ones
    | \b[\w.+-]+@[\w-]+(?:\.[\w-]+)+                        # mail addresses
    | \b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?:/\S*)?           # IPv4
    | \b(?:[a-z0-9-]+\.)+(?:com|cn|net|org|io|ai|dev|app|cloud|local|internal)\b(?::\d+)?(?:/\S*)?  # hosts
    | (?<![\w-])(?=[\w+/=-]*\d)(?=[\w+/=-]*[a-z])[\w+/=-]{16,}(?![\w-])      # ids and keys without a known form
    | (?<![\w-])\d{9,}(?![\w-])                             # numbers of accounts
    """,
    re.IGNORECASE | re.VERBOSE,
)


def cleaned(message: object) -> str:
    """Return the message without what gives something away, in at most 200 characters; empty when it says nothing."""
    if not isinstance(message, str):
        return ""
    text = _SECRET.sub("...", _AFTER.sub("", message[:4000]))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(text) > MAX_CHARS:
        text = text[: MAX_CHARS - 3].rsplit(" ", 1)[0] + "..."
    return text if sum(c.isalpha() for c in text) >= 3 else ""


def refusal(message: object) -> str | None:
    """Return the sentence for a caller whose request was refused with these words; None when they say nothing."""
    text = cleaned(message)
    return f"The upstream refused this request: {text}" if text else None
