"""Writes down what administrators change: who, what, before and after; in the transaction of the change itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import InvalidParameter

MAX_REASON_CHARS = 500


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, and in which request."""

    name: str
    """``cli:user``, an administrator's e-mail and key, or a part of ours such as ``seed``."""
    request_id: str | None = None


SYSTEM = Actor("system")
"""Nobody in particular: what has no operator's name."""


async def note(
    connection: AsyncConnection,
    actor: Actor,
    action: str,
    target: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Add a row that nobody can change any more. What is given must hold no secret."""
    await connection.exec_driver_sql(
        """INSERT INTO audit (actor, action, target, before, after, request_id)
           VALUES ($1, $2, $3, $4::text::jsonb, $5::text::jsonb, $6)""",
        (actor.name, action, target, _text(before), _text(after), actor.request_id),
    )


def checked_reason(text: str) -> str:
    """Return why something is done, as the audit keeps it. Raises: InvalidParameter."""
    text = text.strip()
    if not 1 <= len(text) <= MAX_REASON_CHARS or not text.isprintable():
        raise InvalidParameter(f"'reason' must be 1 to {MAX_REASON_CHARS} printable characters.", param="reason")
    return text


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what differs, as it was and as it is."""
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def _text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"no JSON form of {type(value).__name__}")
