"""Reads answers while they arrive: one JSON document, or server-sent events, their images going to files."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from app.media.base64_stream import DivertedValue, JsonScanner, ScanError
from app.upstreams.http import ERROR_BODY_BYTES, PIECE, Answer, Limits, lost

IMAGE_KEY = frozenset({"b64_json"})
MAX_EVENTS = 64
_LINE_BYTES = 4096
_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event. Diverted values of ``document`` lie in files, as in `Answer`."""

    name: str
    document: Any


def is_stream(response: aiohttp.ClientResponse) -> bool:
    return response.status == 200 and response.content_type == "text/event-stream"


async def read_answer(response: aiohttp.ClientResponse, folder: Path, limits: Limits) -> Answer:
    """Read a whole answer to a submit; ``b64_json`` and every data: URL of a success go to files in ``folder``.

    Raises: UpstreamOutcomeUnknown for a success that cannot be read.
    """
    if not 200 <= response.status < 300:
        return await read_short(response)
    headers = {name.lower(): value for name, value in response.headers.items()}
    try:
        with _scanner(folder, limits) as scanner:
            async for piece in response.content.iter_chunked(PIECE):
                scanner.push(piece)
            scanned = scanner.finish()
    except (ScanError, RecursionError) as error:
        raise lost("submit", f"status {response.status}, unreadable: {type(error).__name__}") from None
    return Answer(response.status, headers, scanned.document, "", tuple(scanned.values))


async def read_short(response: aiohttp.ClientResponse) -> Answer:
    """Read an answer that is short, or not worth more than its beginning; it may be empty."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    raw = bytearray()
    async for piece in response.content.iter_chunked(PIECE):
        raw += piece
        if len(raw) >= ERROR_BODY_BYTES:
            break
    text = bytes(raw[:ERROR_BODY_BYTES]).decode("utf-8", "replace")
    try:
        return Answer(response.status, headers, json.loads(text), text)
    except (ValueError, RecursionError):
        return Answer(response.status, headers, None, text)


async def read_events(response: aiohttp.ClientResponse, folder: Path, limits: Limits) -> AsyncGenerator[Event, None]:
    """Yield the events of a stream until it ends or says ``[DONE]``.

    Raises: UpstreamOutcomeUnknown for one that cannot be read, or for too many.
    """
    reader = _EventReader(folder, limits)
    try:
        async for piece in response.content.iter_any():
            for event in reader.push(piece):
                yield event
            if reader.is_done:
                return
        last = reader.finish()
        if last is not None:
            yield last
    except ScanError as error:
        raise lost("submit", f"an event, unreadable: {type(error).__name__}") from None
    finally:
        reader.close()


class _EventReader:
    """Splits a stream into lines; what follows ``data:`` goes straight into a scanner, whatever its length."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._line = bytearray()
        self._in_data = False
        self._scanner: JsonScanner | None = None
        self._head = b""
        """The first bytes of the data, until it is clear that they are not ``[DONE]``."""
        self._name = ""
        self._count = 0
        self.is_done = False

    def push(self, piece: bytes) -> list[Event]:
        """Take the next bytes and return the events that are complete. Raises: ScanError, UpstreamOutcomeUnknown."""
        found = []
        start = 0
        while start < len(piece) and not self.is_done:
            end = piece.find(b"\n", start)
            part = piece[start:] if end < 0 else piece[start:end]
            self._take(part)
            if end < 0:
                break
            event = self._end_line()
            if event is not None:
                found.append(event)
            start = end + 1
        return found

    def finish(self) -> Event | None:
        """Return the event that the end of the stream completes, where its blank line is missing. Raises: ScanError."""
        self._end_line()
        return self._end_event()

    def close(self) -> None:
        if self._scanner is not None:
            self._scanner.close()

    def _take(self, part: bytes) -> None:
        if self._in_data:
            self._push_data(part)
            return
        room = _LINE_BYTES - len(self._line)
        if len(self._line) < 5:
            self._line += part[:room]
            if self._line.startswith(b"data:"):
                rest = bytes(self._line[5:]) + part[room:]
                self._line.clear()
                self._in_data = True
                self._begin_data(rest)
        else:
            self._line += part[:room]

    def _begin_data(self, rest: bytes) -> None:
        if self._scanner is None:
            self._count += 1
            if self._count > MAX_EVENTS:
                raise lost("submit", f"more than {MAX_EVENTS} events")
            folder = self._folder / f"event-{self._count}"
            folder.mkdir()
            self._scanner = _scanner(folder, self._limits)
            self._head = b""
        else:
            rest = b"\n" + rest
        self._push_data(rest)

    def _push_data(self, part: bytes) -> None:
        assert self._scanner is not None  # noqa: S101 - only reached after _begin_data
        if len(self._head) <= len(_DONE) + 2:
            self._head += part[:16]
        self._scanner.push(part)

    def _end_line(self) -> Event | None:
        if self._in_data:
            self._in_data = False
            return None
        line = bytes(self._line).rstrip(b"\r")
        self._line.clear()
        if line.startswith(b"event:"):
            self._name = line[6:].decode("utf-8", "replace").strip()
        return None if line else self._end_event()

    def _end_event(self) -> Event | None:
        name, self._name = self._name, ""
        scanner, self._scanner = self._scanner, None
        if scanner is None:
            return None
        with scanner:
            if self._head.strip().startswith(_DONE):
                self.is_done = True
                return None
            return Event(name, scanner.finish().document)


def image_file(value: Any) -> Path | None:
    """Return the file of a diverted value that holds something."""
    return value.file if isinstance(value, DivertedValue) and value.size_bytes else None


def _scanner(folder: Path, limits: Limits) -> JsonScanner:
    return JsonScanner(
        folder,
        data_urls=True,
        keys=IMAGE_KEY,
        value_bytes=limits.value_bytes,
        document_bytes=limits.document_bytes,
    )
