"""What an event says. The outbox row is written by the database; here it becomes the bytes that are sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.values import public_id, task_public_id

EVENT_TYPES = ("video.completed", "video.failed", "image.completed", "image.failed", "credits.low")
LOW_CREDITS = "credits.low"
EVENT_PREFIX = "evt_"
SAMPLE_TASK = task_public_id(UUID(int=0))
"""What a test event is about: no task has this id."""


@dataclass(frozen=True, slots=True)
class Event:
    id: UUID
    type: str
    task_id: UUID | None
    data: Mapping[str, Any]
    """Of an event that is about no task."""
    created_at: datetime

    @property
    def public_id(self) -> str:
        return public_id(EVENT_PREFIX, self.id)

    def body(self) -> bytes:
        """Return the same bytes at each try."""
        data = dict(self.data) if self.task_id is None else {"id": task_public_id(self.task_id)}
        document = {
            "id": self.public_id,
            "object": "event",
            "type": self.type,
            "created_at": int(self.created_at.timestamp()),
            "data": data,
        }
        return json.dumps(document, separators=(",", ":")).encode()
