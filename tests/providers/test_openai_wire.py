"""Server-sent events with base64 inside, cut into pieces anywhere."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from app.media.base64_stream import DivertedValue, MalformedJson, ValueTooLarge
from app.providers.openai.wire import MAX_EVENTS, Event, _EventReader
from app.upstreams.http import Limits
from app.upstreams.protocols import UpstreamOutcomeUnknown

PICTURE = bytes(range(256)) * 3
LIMITS = Limits(value_bytes=1024, document_bytes=4096)
DATA = json.dumps({"type": "a.partial_image", "b64_json": base64.b64encode(PICTURE).decode()})


def read(folder: Path, text: bytes, size: int) -> list[Event]:
    reader = _EventReader(folder, LIMITS)
    try:
        found = [event for start in range(0, len(text), size) for event in reader.push(text[start : start + size])]
        last = reader.finish()
    finally:
        reader.close()
    return [*found, last] if last is not None else found


def plain(event: Event) -> tuple[str, Any]:
    return event.name, {
        name: value.file.read_bytes() if isinstance(value, DivertedValue) else value
        for name, value in event.document.items()
    }


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 64, 1000, 100_000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_events_are_the_same_whatever_the_pieces(tmp_path: Path, size: int, newline: bytes) -> None:
    lines = [
        b": a comment that says data: {}",
        b"event: first",
        b"id: 7",
        b"data: " + DATA.encode(),
        b"",
        b"",
        b'data:{"two":',
        b"data: 2}",
        b"",
        b"event: nothing",
        b"",
        b"x" * 9000,
        b'data: {"three": 3}',
        b"",
        b"data: [DONE]",
        b"",
        b"data: this is never read",
        b"",
    ]

    events = read(tmp_path, newline.join(lines) + newline, size)

    assert [plain(event) for event in events] == [
        ("first", {"type": "a.partial_image", "b64_json": PICTURE}),
        ("", {"two": 2}),
        ("", {"three": 3}),
    ]


def test_a_last_event_needs_no_blank_line(tmp_path: Path) -> None:
    assert [plain(event) for event in read(tmp_path, b'data: {"a": 1}', 4)] == [("", {"a": 1})]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"data: <html>\n\n", MalformedJson),
        (b'data: {"b64_json": "AAAA\n\n', MalformedJson),
        (b'data: {"b64_json": "' + b"AAAA" * 400 + b'"}\n\n', ValueTooLarge),
        (b'data: {"a": 1}\n\n' * (MAX_EVENTS + 1), UpstreamOutcomeUnknown),
    ],
)
def test_what_cannot_be_read_is_an_error(tmp_path: Path, text: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(tmp_path, text, 100)
