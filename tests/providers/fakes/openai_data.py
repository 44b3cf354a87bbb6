"""What the fake of OpenAI says and remembers: its errors, its files, the form of a request that arrived."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

SECRET_ECHO = "https://api.openai.com/v1 req_0123456789abcdef host 10.1.2.3"
MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(range(256)) * 8
USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 20},
    "output_tokens": 1000,
    "total_tokens": 1030,
}
GENERATION_FIELDS = frozenset(
    {
        *("model", "prompt", "n", "size", "quality", "output_format", "output_compression", "background"),
        *("moderation", "safety_identifier", "user", "stream", "partial_images"),
    }
)
EDIT_FIELDS = GENERATION_FIELDS - {"moderation"}
VIDEO_SIZES = ("720x1280", "1280x720", "1024x1792", "1792x1024")


def error(message: str, type: str = "invalid_request_error", code: Any = None, param: str | None = None) -> Any:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


MODERATED = error(
    "Your request was rejected by the safety system.", "image_generation_user_error", "moderation_blocked"
)
MODERATED["error"]["moderation_details"] = {"moderation_stage": "input", "categories": ["violence"]}
SUBMIT_ERRORS: dict[str, tuple[int, Any, dict[str, str]]] = {
    "busy": (429, error("Rate limit reached", "requests", "rate_limit_exceeded"), {}),
    "busy 2": (429, error("Rate limit reached", "requests", "rate_limit_exceeded"), {"retry-after": "2"}),
    "quota": (429, error("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), {}),
    "bad_request": (400, error("The mask is not square. See https://help.openai.com for more."), {}),
    "moderated": (400, MODERATED, {}),
    "retired": (404, error("The model does not exist", code="model_not_found"), {}),
    "error 500": (500, error("The server had an error", "server_error"), {}),
    "error 502": (502, "<html><body>502 Bad Gateway nginx</body></html>", {"content-type": "text/html"}),
    "error 503": (503, error("Overloaded", "server_error"), {}),
}


def picture(size: tuple[int, int] = (8, 8), format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, format)
    return out.getvalue()


PNG = picture()


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    json: Any = None
    form: list[tuple[str, str | None, str | None, bytes]] = field(default_factory=list)
    """name, filename, content type, value."""

    def texts(self) -> dict[str, str]:
        return {name: value.decode() for name, filename, _, value in self.form if filename is None}

    def files(self) -> list[tuple[str, str | None, str | None, bytes]]:
        return [part for part in self.form if part[1] is not None]


@dataclass
class Style:
    """What differs between servers of this kind."""

    is_strict: bool = True
    result: str = "b64_json"
    """b64_json, url (a file server elsewhere), own_url, relative, data."""
    video: str = "content"
    """content, redirect, url, metadata."""
    inner: bool = False
    """The video object lies in ``data``."""
    models: tuple[str, ...] = ("gpt-image-2", "sora-2", "sora-2-pro")
    open_list: bool = False
    """The list of models is shown to anybody."""
