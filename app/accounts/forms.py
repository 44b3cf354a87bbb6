"""Which showings of a form were sent already: each is done once, however often a browser sends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import is_transient, may_have_committed, once, read, retried
from app.errors import DatabaseUnavailable, MediagateError, OutcomeUnknown

log = structlog.get_logger()

KEEP = timedelta(days=8)
"""Longer than a session lives, and with it the page that holds the form."""
LOOKS_S = (0.2, 0.8)
"""A button pressed twice: the second one waits so long for the first."""


class SentBefore(Exception):
    """This showing of a form was sent before, and is not done again."""

    def __init__(self, back: str, *, is_done: bool) -> None:
        super().__init__(back)
        self.back = back
        """Where to see what it did."""
        self.is_done = is_done
        """False: it is still on its way, or nobody knows what became of it."""


@dataclass(slots=True)
class Sending:
    made: str
    """Where its reader finds what it made."""


class Forms:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def once(self, account_id: int, form_id: str, *, back: str) -> AsyncIterator[Sending]:
        """Do what a form asks for in this block; of two at once, one does. What is no id of a form was sent before.

        The claim is there before the work: after a crash in between, a form sent again is refused, not done twice. It
        is given back where the work is known not to be done, so that it may be sent again. Raises: SentBefore.
        """
        try:
            number = UUID(form_id)
        except ValueError:
            raise SentBefore(back, is_done=False) from None
        claim = (number, account_id, uuid4())
        while not await retried(lambda: once(self._engine, _CLAIM, claim)):
            first = await self._first(number, account_id)
            if first is not None:
                raise SentBefore(first["made"] or back, is_done=first["is_done"])
        sending = Sending(back)
        try:
            yield sending
        except Exception as error:
            if _is_undone(error):
                await self._settle(_GIVE_BACK, (number,))
            raise
        await self._settle(_DONE, (number, sending.made))

    async def _first(self, number: UUID, account_id: int) -> Any:
        """Return what the first sending came to, which may be about to end; None: it was given back."""
        for wait_s in (*LOOKS_S, 0.0):
            rows = await read(self._engine, _FIRST, (number, account_id))
            if not rows or rows[0]["is_done"] or not rows[0]["is_new"]:
                return rows[0] if rows else None
            await asyncio.sleep(wait_s)
        return rows[0]

    async def _settle(self, sql: str, arguments: tuple[Any, ...]) -> None:
        """Note what became of it. Where that fails, it counts as not known: the work's own answer matters more."""
        try:
            await retried(lambda: once(self._engine, sql, arguments))
        except DatabaseUnavailable as error:
            log.warning("form.not_settled", error=error.message)

    async def sweep(self, *, keep: timedelta = KEEP) -> int:
        """Forget forms that no living page can hold. Returns how many."""
        return len(await retried(lambda: once(self._engine, _SWEEP, (keep,))))


def _is_undone(error: Exception) -> bool:
    """Whether the work certainly left nothing behind; of what nobody foresaw, that is not known."""
    if isinstance(error, MediagateError):
        return error.status < 500 or (isinstance(error, DatabaseUnavailable) and not isinstance(error, OutcomeUnknown))
    return is_transient(error) and not may_have_committed(error)


_CLAIM = """
INSERT INTO console_forms AS f (form_id, account_id, claim) VALUES ($1, $2, $3)
ON CONFLICT (form_id) DO UPDATE SET claim = $3 WHERE f.claim = $3 RETURNING form_id"""
_FIRST = """
SELECT done_at IS NOT NULL AND account_id = $2 AS is_done, CASE WHEN account_id = $2 THEN made END AS made,
       sent_at > now() - interval '10 seconds' AS is_new
  FROM console_forms WHERE form_id = $1"""
_DONE = "UPDATE console_forms SET done_at = now(), made = $2 WHERE form_id = $1"
_GIVE_BACK = "DELETE FROM console_forms WHERE form_id = $1 AND done_at IS NULL"
_SWEEP = "DELETE FROM console_forms WHERE sent_at < now() - $1::interval RETURNING form_id"
