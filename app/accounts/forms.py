"""Which showings of a form were sent already: each is done once, however often a browser sends it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import once, retried

KEEP = timedelta(days=8)
"""Longer than a session lives, and with it the page that holds the form."""


class Forms:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def claim(self, account_id: int, form_id: str) -> bool:
        """Whether this is the first time; of two at once, one is. False for what is no id of a form.

        It is said before the work is done: after a crash in between, a form sent again is refused, not done twice.
        """
        try:
            number = UUID(form_id)
        except ValueError:
            return False
        return bool(await retried(lambda: once(self._engine, _CLAIM, (number, account_id))))

    async def sweep(self, *, keep: timedelta = KEEP) -> int:
        """Forget forms that no living page can hold. Returns how many."""
        return len(await retried(lambda: once(self._engine, _SWEEP, (keep,))))


_CLAIM = """
INSERT INTO console_forms (form_id, account_id) VALUES ($1, $2) ON CONFLICT (form_id) DO NOTHING RETURNING form_id"""
_SWEEP = "DELETE FROM console_forms WHERE sent_at < now() - $1::interval RETURNING form_id"
