"""JSON answers and server-sent events with base64 of stored files inside, encoded from disk in pieces."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pybase64

PIECE_BYTES = 192 * 1024
"""A multiple of 3, so that pieces join without padding; 256 KiB of text each."""


@dataclass(frozen=True, slots=True)
class Base64Of:
    """Stands in a document for the base64 of a file's bytes. ``size_bytes`` must be true: it becomes Content-Length."""

    path: Path
    size_bytes: int
    prefix: str = ""
    """ASCII that stands before it, such as ``data:image/png;base64,``."""

    @property
    def chars(self) -> int:
        """How long its base64 is, with the prefix."""
        return len(self.prefix) + -(-self.size_bytes // 3) * 4


class FileChanged(OSError):
    """A stored file is not as long as its record says. The answer must break off: its length was promised."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Bytes to send, of which the long parts still lie in files."""

    segments: tuple[bytes | Base64Of, ...]

    @property
    def size_bytes(self) -> int:
        """The exact Content-Length."""
        return sum(part.chars if isinstance(part, Base64Of) else len(part) for part in self.segments)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield everything in order, a few hundred KiB at a time. Raises: FileChanged, OSError."""
        text = b""
        for part in self.segments:
            if isinstance(part, bytes):
                text += part
                continue
            text += part.prefix.encode("ascii")
            left = part.size_bytes
            with part.path.open("rb", buffering=0) as file:
                while left:
                    raw = file.read(min(left, PIECE_BYTES))
                    while len(raw) % 3 and len(raw) < left:  # a short read must not end up as padding in the middle
                        more = file.read(min(left - len(raw), PIECE_BYTES))
                        if not more:
                            break
                        raw += more
                    if not raw or (len(raw) % 3 and len(raw) < left):
                        raise FileChanged(f"{part.path.name} is shorter than {part.size_bytes} bytes")
                    left -= len(raw)
                    yield text + pybase64.b64encode(raw)
                    text = b""
                if file.read(1):
                    raise FileChanged(f"{part.path.name} is longer than {part.size_bytes} bytes")
        if text:
            yield text


def render_json(document: Any) -> Rendered:
    """Render a document whose values may be Base64Of."""
    return Rendered(_segments(document))


def render_event(event: str, document: Any) -> Rendered:
    """Render one server-sent event: ``event:``, one ``data:`` line, and the blank line that clients wait for."""
    return Rendered((f"event: {event}\ndata: ".encode(), *_segments(document), b"\n\n"))


def _segments(document: Any) -> tuple[bytes | Base64Of, ...]:
    mark = secrets.token_hex(16)  # not to be guessed: a prompt in the answer may say anything
    files: list[Base64Of] = []

    def place(value: object) -> str:
        if not isinstance(value, Base64Of):
            raise TypeError(f"{type(value).__name__} does not belong in an answer")
        files.append(value)
        return mark

    try:
        text = json.dumps(document, default=place, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: only an escape can carry it
        files.clear()
        text = json.dumps(document, default=place, separators=(",", ":")).encode()
    texts = text.split(mark.encode())
    segments: list[bytes | Base64Of] = [texts[0]]
    for file, rest in zip(files, texts[1:], strict=True):
        segments += [file, rest]
    return tuple(segments)
