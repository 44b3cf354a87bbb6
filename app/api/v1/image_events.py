"""Images as server-sent events, in the shapes that OpenAI's SDKs parse: one family of names per route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.api.v1 import wire
from app.api.v1.files import stored_path
from app.generation.images import Completed, Partial, Started
from app.media.base64_stream import Base64Of, Rendered, render_event
from app.media.headers import read_image_header
from app.requests import Operation
from app.values import utcnow
from app.wiring import Services

QUALITY_WORDS = {"standard": "low", "hd": "medium", "uhd": "high"}
"""The SDKs' strict mode knows neither our words nor ``auto`` as an answer about what was made."""
FAMILIES = {Operation.IMAGE_GENERATE: "image_generation", Operation.IMAGE_EDIT: "image_edit"}
NO_USAGE: dict[str, Any] = {
    "total_tokens": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}


Event = Started | Partial | Completed


def headers(event: Event) -> dict[str, str]:
    """Name the task as soon as the answer begins: a caller who loses the connection can fetch the image by it."""
    return {"x-task-id": event.public_id} if isinstance(event, Started) else {}


class Frames:
    """Renders the events of one request."""

    def __init__(self, services: Services, sign: wire.Sign, operation: Operation, fields: Mapping[str, Any]) -> None:
        self._services = services
        self._sign = sign
        self._family = FAMILIES[operation]
        self._asked_quality = str(fields.get("quality", "")).lower()
        self._background = "transparent" if fields.get("background") == "transparent" else "opaque"

    def frame(self, event: Event) -> Rendered | None:
        """Return one event; the start itself is silent. Raises: ResultExpired, ResultUnavailable."""
        if isinstance(event, Started):
            return None
        return self._partial(event) if isinstance(event, Partial) else self._completed(event)

    def _partial(self, event: Partial) -> Rendered:
        header = read_image_header(event.path)
        body = {
            "partial_image_index": event.index,
            "b64_json": Base64Of(event.path, event.path.stat().st_size),
            "created_at": wire.unix(utcnow()),
            "size": f"{header.width}x{header.height}" if header else "auto",
            # What the caller asked for, where that is one of OpenAI's words: the plan is not known here.
            "quality": self._asked_quality if self._asked_quality in QUALITY_WORDS.values() else "auto",
            "background": self._background,
            "output_format": header.mime.removeprefix("image/") if header else "png",
        }
        return self._event("partial_image", body)

    def _completed(self, event: Completed) -> Rendered:
        view, file = event.view, event.view.files_of("result")[0]
        path = stored_path(self._services, file, task_id=view.public_id)
        reply = wire.images_reply(view, self._sign)
        body: dict[str, Any] = {
            "b64_json": Base64Of(path, file.size_bytes),
            "url": reply["data"][0]["url"],
            "created_at": reply["created"],
            "size": reply["size"],
            "quality": QUALITY_WORDS.get(view.request["params"].get("quality", ""), "auto"),
            "background": self._background,
            "output_format": reply["output_format"],
            "usage": NO_USAGE,
            **{name: reply[name] for name in ("id", "model", "credits", "warnings") if name in reply},
        }
        return self._event("completed", body)

    def _event(self, name: str, body: dict[str, Any]) -> Rendered:
        kind = f"{self._family}.{name}"
        return render_event(kind, {"type": kind, **body})
