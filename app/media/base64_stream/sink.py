"""Base64 text in pieces of any size, decoded into one file while it arrives."""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path

import pybase64

from app.media.base64_stream.errors import BadBase64, ValueTooLarge

PIECE_CHARS = 256 * 1024
"""How much text is decoded at once; a multiple of 4."""


@dataclass(frozen=True, slots=True)
class Written:
    """A complete file of ours."""

    file: Path
    size_bytes: int
    sha256: bytes


class Base64Sink:
    """Decodes strictly (standard alphabet, padded, no white space), hashes and writes; holds at most one piece.

    The file must not exist yet. After an error it holds part of the value: whoever owns its folder removes it.
    """

    def __init__(self, file: Path, *, max_bytes: int) -> None:
        self._path = file
        self._file = file.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self._max_bytes = max_bytes
        self._size = 0
        self._pending = bytearray()
        self._is_padded = False

    def push(self, text: bytes) -> None:
        """Take the next characters. Raises: BadBase64, ValueTooLarge."""
        self._pending += text
        if self._size + len(self._pending) // 4 * 3 > self._max_bytes + 2:  # 2: what the padding may still take off
            raise ValueTooLarge(limit=self._max_bytes)
        if len(self._pending) >= PIECE_CHARS:
            self._decode(len(self._pending) // 4 * 4)

    def finish(self) -> Written:
        """Close the file and tell what was written. Raises: BadBase64, ValueTooLarge."""
        if len(self._pending) % 4:
            raise BadBase64("the length is not a multiple of 4")
        self._decode(len(self._pending))
        self.close()
        return Written(self._path, self._size, self._hash.digest())

    def close(self) -> None:
        """Let go of the file; for callers that give up."""
        self._file.close()

    def _decode(self, length: int) -> None:
        if not length:
            return
        if self._is_padded:
            raise BadBase64("characters follow the padding")
        text = bytes(self._pending[:length])
        del self._pending[:length]
        try:
            raw = pybase64.b64decode(text, validate=True)
        except binascii.Error:
            raise BadBase64("not standard base64") from None
        self._is_padded = len(raw) < length // 4 * 3
        self._size += len(raw)
        if self._size > self._max_bytes:
            raise ValueTooLarge(limit=self._max_bytes)
        self._hash.update(raw)
        rest = memoryview(raw)
        while rest:  # a raw file may take less than it was given
            rest = rest[self._file.write(rest) :]
