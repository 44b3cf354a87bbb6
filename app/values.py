"""Nouns smaller than a table: credits, ids that sort by time, the clock."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import NewType
from uuid import UUID

Credits = NewType("Credits", int)
"""Whole credits. Money is never a float."""
MAX_CREDITS = 2**53 - 1
"""Above this, JSON numbers lose their last digits; no account needs more."""

TASK_PREFIX = "task_"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32 keeps the order of the bytes
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_LETTERS = re.compile(rf"[0-7][{_ALPHABET}]{{25}}")


def utcnow() -> datetime:
    """The one reading of the clock; everything below the edges takes the time as an argument."""
    return datetime.now(UTC)


def new_id(now: datetime | None = None) -> UUID:
    """Mint a UUIDv7 (RFC 9562): unguessable, and sorted by its millisecond."""
    millis = int((now or utcnow()).timestamp() * 1000)
    random = int.from_bytes(os.urandom(10), "big")
    value = (millis << 80) | random
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return UUID(int=value)


def first_id(moment: datetime) -> UUID:
    """Return the smallest id that could be minted at a moment: the border of a range of time."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def task_public_id(task_id: UUID) -> str:
    """Return the id a client sees."""
    return public_id(TASK_PREFIX, task_id)


def find_task_id(public_id: str) -> UUID | None:
    """Return the task id inside ``public_id``, or None when it is not one of ours."""
    return find_id(TASK_PREFIX, public_id)


def public_id(prefix: str, value: UUID) -> str:
    """Spell an id as clients see it: a prefix and 26 letters of base32."""
    number, letters = value.int, []
    for _ in range(26):
        number, digit = divmod(number, 32)
        letters.append(_ALPHABET[digit])
    return prefix + "".join(reversed(letters))


def find_id(prefix: str, text: str) -> UUID | None:
    """Return the id inside ``text``, or None when it is not of this kind."""
    letters = text.removeprefix(prefix)
    if letters == text or not _LETTERS.fullmatch(letters):
        return None
    number = 0
    for letter in letters:
        number = number * 32 + _VALUES[letter]
    return UUID(int=number)
