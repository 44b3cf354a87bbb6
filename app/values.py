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
_TASK_ID = re.compile(rf"{TASK_PREFIX}[0-7][{_ALPHABET}]{{25}}")


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


def task_public_id(task_id: UUID) -> str:
    """Return the id a client sees: ``task_`` and 26 letters of base32."""
    value, letters = task_id.int, []
    for _ in range(26):
        value, digit = divmod(value, 32)
        letters.append(_ALPHABET[digit])
    return TASK_PREFIX + "".join(reversed(letters))


def find_task_id(public_id: str) -> UUID | None:
    """Return the task id inside ``public_id``, or None when it is not one of ours."""
    if not _TASK_ID.fullmatch(public_id):
        return None
    value = 0
    for letter in public_id.removeprefix(TASK_PREFIX):
        value = value * 32 + _VALUES[letter]
    return UUID(int=value)
