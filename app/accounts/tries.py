"""Counts failed tries by whom and from where, in the database: the counts hold across processes and restarts.

A try counts as failed before its password is looked at, and is taken back when it was right: a thousand at once are
no way around the wait.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import TooManyTries

LONGEST_WAIT_S = 15 * 60
MOST_COUNTED = 20
"""Beyond the free ones: who goes on for a week is not remembered for a year."""
KEEP = timedelta(days=7)
"""Longer than any count takes to be forgotten."""
KNOWN_FOR = timedelta(days=30)
"""How long a place is known as one that a person signed in from."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What tries are counted under, how many are free of a wait, and how soon one of them is forgotten."""

    subject: str
    free: int
    forget: timedelta

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.subject.encode("utf-8", "replace")).digest()


async def count(connection: AsyncConnection, marks: Sequence[Mark], *, now: datetime | None = None) -> None:
    """Count one try under each mark. Raises: TooManyTries, and the caller's transaction then counts nothing."""
    for mark in sorted(marks, key=lambda mark: mark.digest):  # in one order: two never wait for each other in a circle
        arguments = (mark.digest, mark.free, now, LONGEST_WAIT_S, mark.forget, MOST_COUNTED)
        if (await connection.exec_driver_sql(_COUNT, arguments)).first() is None:
            left = (await connection.exec_driver_sql(_LEFT, (mark.digest, now))).scalar()
            raise TooManyTries(max(math.ceil(left or 0), 1))


async def forget(connection: AsyncConnection, marks: Sequence[Mark], *, wholly: bool) -> None:
    """Take this try back: it was right. ``wholly``: and those before it."""
    for mark in sorted(marks, key=lambda mark: mark.digest):
        await connection.exec_driver_sql(_FORGET if wholly else _TAKE_BACK, (mark.digest,))


# One more, and what time has not forgotten.
_NOW_COUNTED = """
1 + least(greatest(t.tries - floor(extract(epoch FROM excluded.last_at - t.last_at) / extract(epoch FROM $5::interval)),
                   0),
          $2::int + $6::int)::int"""

# After ``free`` tries: 1 s, 2 s, 4 s ... A row that is blocked is not changed, and none comes back.
_COUNT = f"""
INSERT INTO sign_in_tries AS t (mark, tries, last_at, blocked_until)
VALUES ($1, 1, coalesce($3::timestamptz, now()), coalesce($3::timestamptz, now()))
ON CONFLICT (mark) DO UPDATE SET tries = {_NOW_COUNTED}, last_at = excluded.last_at,
  blocked_until = excluded.last_at + CASE WHEN {_NOW_COUNTED} < $2::int THEN interval '0'
    ELSE make_interval(secs => least(2.0 ^ ({_NOW_COUNTED} - $2::int), $4::int)) END
WHERE t.blocked_until <= excluded.last_at
RETURNING tries"""  # noqa: S608 - our own words

_LEFT = """
SELECT extract(epoch FROM blocked_until - coalesce($2::timestamptz, now()))::float8
  FROM sign_in_tries WHERE mark = $1"""

_FORGET = "DELETE FROM sign_in_tries WHERE mark = $1"
_TAKE_BACK = "UPDATE sign_in_tries SET tries = greatest(tries - 1, 1), blocked_until = last_at WHERE mark = $1"
