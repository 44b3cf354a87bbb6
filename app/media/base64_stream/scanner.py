"""A JSON document in pieces of any size, with its long base64 strings diverted into files while it arrives.

What is not diverted is copied and parsed by the standard library at the end, so this scanner need not judge grammar:
it only has to know where strings begin and end, and which of them are values. A diverted value leaves a placeholder
that no sender can guess, so that a document is valid exactly when its copy is.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from app.media.base64_stream.errors import (
    BadBase64,
    DocumentTooComplex,
    DocumentTooLarge,
    DuplicateKey,
    MalformedJson,
    ScanError,
)
from app.media.base64_stream.sink import Base64Sink

DATA_URL = re.compile(r"data:([^,\"\s]*?);base64,", re.IGNORECASE)
"""The start of a base64 data: URL, up to and with its comma; group 1 is the media type with its parameters."""
MAX_DIGITS = 400
"""Python itself refuses to read integers of several times as many, in words of its own."""
MAX_HEAD = 512
"""A data: URL whose comma comes later than this is an ordinary string."""

_QUOTE, _COMMA, _COLON = b'",:'
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{}[]"
# Possessive: nothing to go back to, so a megabyte of escapes costs no memory.
_INSIDE_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_BETWEEN_STRINGS = re.compile(rb'[^"\[\]{}:,]*+')
_HEAD_END = re.compile(rb",|\\u002[cC]")
_HALF_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_ASCII_ESCAPE = re.compile(rb"\\u00([0-7][0-9a-fA-F])")


@dataclass(frozen=True, slots=True)
class DivertedValue:
    """A string value that became a file."""

    path: str
    """Where it stood: ``image[1]``, ``images[0].image_url``."""
    file: Path
    size_bytes: int
    sha256: bytes
    mime: str
    """The media type that a data: URL declares, in lower case, maybe with parameters; otherwise empty."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """A whole document. In ``document`` each diverted value stands as its DivertedValue."""

    document: Any
    values: tuple[DivertedValue, ...]


@dataclass(slots=True)
class _Frame:
    """An open object or array."""

    is_object: bool
    position: str | int
    wants_key: bool


class JsonScanner:
    """Push bytes, then ``finish()``. Use as a context manager: leaving it closes an unfinished file.

    ``data_urls`` diverts every string value that starts as a base64 data: URL; ``keys`` every string value under one
    of these keys, as plain base64. ``value_bytes`` bounds one decoded value, ``document_bytes`` all the rest.
    Memory stays at one piece of base64 and the rest of the document, whatever the size of the values.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data_urls: bool = False,
        keys: frozenset[str] = frozenset(),
        value_bytes: int,
        document_bytes: int,
        max_values: int = 64,
        max_depth: int = 64,
        max_steps: int = 50_000,
        refuse_duplicates: bool = False,
    ) -> None:
        self._folder = folder
        self._data_urls = data_urls
        self._keys = keys
        self._value_bytes = value_bytes
        self._document_bytes = document_bytes
        self._max_values = max_values
        self._max_depth = max_depth
        self._steps_left = max_steps
        self._refuse_duplicates = refuse_duplicates

        self._state: Callable[[bytes, int], int] = self._between
        self._carry = b""  # bytes that mean nothing without those that follow
        self._out = bytearray()
        self._frames: list[_Frame] = []
        self._key = bytearray()
        self._head = bytearray()

        self._nonce = secrets.token_hex(16)
        self._values: dict[str, DivertedValue] = {}
        self._shifts: list[tuple[int, int]] = []  # end of a placeholder in the copy, characters it stands for
        self._sink: Base64Sink | None = None
        self._mime = ""
        self._raw_chars = 0
        self._half_escape = b""

    def __enter__(self) -> JsonScanner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of a file that is still open."""
        if self._sink is not None:
            self._sink.close()

    def push(self, data: bytes) -> None:
        """Take the next bytes. Raises: BadBase64, ValueTooLarge, DocumentTooLarge, DocumentTooComplex."""
        if self._carry:
            data, self._carry = self._carry + data, b""
        position = 0
        while position < len(data):
            state, start = self._state, position
            position = state(data, position)
            if position == start and self._state == state:
                self._carry = data[position:]
                return

    def finish(self) -> Scanned:
        """Return the document. Raises: MalformedJson, DuplicateKey."""
        if self._state != self._between or self._carry:
            self._malformed("ends inside a string", len(self._text()))
        text = self._text()
        try:
            document = json.loads(
                text,
                object_pairs_hook=_without_duplicates if self._refuse_duplicates else None,
                parse_constant=_no_constants,
                parse_float=_finite,
                parse_int=_integer,
            )
        except json.JSONDecodeError as error:
            self._malformed(error.msg, error.pos)
        except ValueError as error:  # a number without end, NaN
            raise MalformedJson(str(error), line=1, column=1) from None
        return Scanned(self._restored(document), tuple(self._values.values()))

    # --- states: each takes the data and a position, and returns where it stopped ------------------------------------

    def _between(self, data: bytes, position: int) -> int:
        end = _end(_BETWEEN_STRINGS, data, position)
        if end == len(data):
            self._keep(data[position:end])
            return end
        mark = data[end]
        self._steps_left -= 1
        if self._steps_left < 0:
            raise DocumentTooComplex("too many values", path=self._path())
        if mark == _QUOTE:
            self._keep(data[position:end])
            self._begin_string()
            return end + 1
        self._keep(data[position : end + 1])
        frame = self._frames[-1] if self._frames else None
        if mark in (_OPEN_OBJECT, _OPEN_ARRAY):
            if len(self._frames) == self._max_depth:
                raise DocumentTooComplex("nested too deep", path=self._path())
            is_object = mark == _OPEN_OBJECT
            self._frames.append(_Frame(is_object, "" if is_object else 0, wants_key=is_object))
        elif mark in (_CLOSE_OBJECT, _CLOSE_ARRAY):
            if frame is not None:
                self._frames.pop()
        elif mark == _COMMA and frame is not None:
            frame.wants_key = frame.is_object
            if isinstance(frame.position, int):
                frame.position += 1
        return end + 1

    def _begin_string(self) -> None:
        frame = self._frames[-1] if self._frames else None
        if frame is not None and frame.wants_key:
            self._keep(b'"')
            self._key.clear()
            self._state = self._in_key
        elif frame is not None and frame.is_object and frame.position in self._keys:
            self._begin_value(mime="", raw_chars=1)
        elif self._data_urls:
            self._head.clear()
            self._state = self._in_head
        else:
            self._keep(b'"')
            self._state = self._in_string

    def _in_string(self, data: bytes, position: int) -> int:
        end = _string_end(data, position)
        if _is_quote(data, end):
            end += 1
            self._state = self._between
        self._keep(data[position:end])
        return end

    def _in_key(self, data: bytes, position: int) -> int:
        end = _string_end(data, position)
        self._keep(data[position:end])
        self._key += data[position:end]
        if not _is_quote(data, end):
            return end
        self._keep(b'"')
        frame = self._frames[-1]
        frame.position = _unescaped(bytes(self._key)) or ""
        frame.wants_key = False
        self._state = self._between
        return end + 1

    def _in_head(self, data: bytes, position: int) -> int:
        """At the start of a value: is it a data: URL?"""
        end = _string_end(data, position)
        self._head += data[position:end]
        head = bytes(self._head)
        plain = head.split(b"\\", 1)[0]
        may_be_url = plain[:5].lower() == b"data:"[: len(plain)]
        comma = _HEAD_END.search(head, 0, MAX_HEAD)
        if may_be_url and comma is None and len(head) < MAX_HEAD and not _is_quote(data, end):
            return end
        found = None
        if may_be_url and comma is not None:
            found = DATA_URL.fullmatch(_unescaped(head[: comma.end()]) or "")
        if found is None or comma is None:
            self._keep(b'"' + head)
            self._state = self._in_string
            return end
        self._begin_value(mime=found[1].lower(), raw_chars=1 + comma.end())
        self._take(head[comma.end() :])
        return end

    def _in_value(self, data: bytes, position: int) -> int:
        end = _string_end(data, position)
        self._take(data[position:end])
        if not _is_quote(data, end):
            return end
        self._end_value()
        self._state = self._between
        return end + 1

    # --- diverted values ----------------------------------------------------------------------------------------------

    def _begin_value(self, *, mime: str, raw_chars: int) -> None:
        if len(self._values) == self._max_values:
            raise DocumentTooComplex(f"more than {self._max_values} base64 values", path=self._path())
        self._sink = Base64Sink(self._folder / f"value-{len(self._values)}", max_bytes=self._value_bytes)
        self._mime = mime
        self._raw_chars = raw_chars
        self._half_escape = b""
        self._state = self._in_value

    def _take(self, raw: bytes) -> None:
        """Give JSON string content to the open file. What can be escaped in base64 is ``+``, ``/`` and ``=``."""
        self._raw_chars += len(raw)
        text = self._half_escape + raw
        half = _HALF_ESCAPE.search(text[-6:])
        self._half_escape = half[0] if half else b""
        text = text[: len(text) - len(self._half_escape)]
        if b"\\" in text:  # in this order, and once each: a backslash that was itself escaped stays, and is refused
            text = text.replace(b"\\/", b"/").replace(b"\\u002B", b"+").replace(b"\\u002b", b"+")
            text = _ASCII_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text)
        assert self._sink is not None  # noqa: S101 - only reached between _begin_value and _end_value
        try:
            self._sink.push(text)
        except ScanError as error:
            error.path = self._path()
            raise

    def _end_value(self) -> None:
        assert self._sink is not None  # noqa: S101 - as above
        try:
            if self._half_escape:
                raise BadBase64("not standard base64")
            written = self._sink.finish()
        except ScanError as error:
            error.path = self._path()
            raise
        self._sink = None
        name = f"{self._nonce}:{len(self._values)}"
        self._values[name] = DivertedValue(
            self._path(), written.file, written.size_bytes, written.sha256, mime=self._mime
        )
        placeholder = f'"{name}"'.encode()
        self._keep(placeholder)
        self._shifts.append((len(self._out), self._raw_chars + 1 - len(placeholder)))

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _keep(self, piece: bytes) -> None:
        self._out += piece
        if len(self._out) > self._document_bytes:
            raise DocumentTooLarge(limit=self._document_bytes)

    def _path(self) -> str:
        path = ""
        for frame in self._frames:
            path += f"[{frame.position}]" if isinstance(frame.position, int) else f".{frame.position}"
        return path.removeprefix(".")

    def _text(self) -> str:
        try:
            return bytes(self._out).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line, column = self._place(bytes(self._out[: error.start]).decode("utf-8-sig"))
            raise MalformedJson("not UTF-8", line=line, column=column) from None

    def _malformed(self, message: str, position: int) -> NoReturn:
        line, column = self._place(self._text()[:position])
        raise MalformedJson(message, line=line, column=column) from None

    def _place(self, before: str) -> tuple[int, int]:
        """Return line and column in what was sent, where ``before`` is the copy up to there."""
        line_start = before.rfind("\n") + 1
        first, last = len(before[:line_start].encode()), len(before.encode())
        shift = sum(chars for end, chars in self._shifts if first < end <= last)
        return before.count("\n") + 1, len(before) - line_start + 1 + shift

    def _restored(self, node: Any) -> Any:
        if isinstance(node, str):
            return self._values.get(node, node)
        if isinstance(node, list):
            return [self._restored(item) for item in node]
        if isinstance(node, dict):
            return {key: self._restored(item) for key, item in node.items()}
        return node


def _end(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    """Where ``pattern``, which also matches nothing, stops."""
    match = pattern.match(data, position)
    return position if match is None else match.end()


def _string_end(data: bytes, position: int) -> int:
    """Where string content stops: at its quote, at the end of the data, or at half of an escape there."""
    quote = data.find(b'"', position)
    end = len(data) if quote < 0 else quote
    if data.find(b"\\", position, end) < 0:  # megabytes of base64 take this way
        return end
    return _end(_INSIDE_STRING, data, position)


def _is_quote(data: bytes, position: int) -> bool:
    return position < len(data) and data[position] == _QUOTE


def _unescaped(raw: bytes) -> str | None:
    """Return what a JSON string's raw content means, or None when it means nothing."""
    try:
        value = json.loads(f'"{raw.decode()}"')
    except ValueError:  # a bad escape, or not UTF-8
        return None
    return value if isinstance(value, str) else None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DuplicateKey("given twice", path=key)
        found[key] = value
    return found


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("a number is too long")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
