"""What the API read from a request body, before anything was judged; and what became of it, for the answer's head."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID


class CallerLeft(Exception):
    """The caller hung up before anything was promised, and has no key to ask for it by: nothing is promised."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file we received, as a multipart part or a decoded data: URL; complete in its request's spool folder."""

    path: Path
    size_bytes: int
    sha256: bytes
    filename: str | None = None


MediaRef: TypeAlias = str | Upload
"""An http(s) URL, or a file that came along."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How a request is known again when it is sent a second time."""

    fingerprint: bytes
    key: str | None = None
    """The caller's own word for it."""
    is_retry: bool = False
    """The caller's SDK says that it sends this again."""


@dataclass(slots=True)
class Intake:
    """One request body. Nulls are gone; media fields hold a MediaRef or a list of them."""

    fields: dict[str, Any]
    spool: Path
    """This request's own folder; the router removes it when the answer is done."""
    sent: Sent | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the caller has hung up."""
    task_id: UUID | None = None
    """The task this request made, or joined: from then on every answer is about it."""
    request_id: str | None = None
    """By which people find what our log says about this request."""
    is_replay: bool = False
    """The task is that of an earlier request."""

    @property
    def has_key(self) -> bool:
        return self.sent is not None and self.sent.key is not None

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody can ask for the outcome any more: the caller has left, and has no key to come back with."""
        return self.gone.is_set() and not self.has_key
