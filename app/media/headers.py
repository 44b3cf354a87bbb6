"""Reads an image's kind and size from its first bytes, without decoding it: cheap enough for the event loop."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

HEAD_BYTES = 32
"""A PNG and a WebP begin with their size; a JPEG may have megabytes of profiles and manifests before it."""
JPEG_SEGMENTS = 4096
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})


@dataclass(frozen=True, slots=True)
class ImageHeader:
    mime: str
    width: int
    height: int


def read_image_header(path: Path) -> ImageHeader | None:
    """Return what the header of a PNG, JPEG or WebP claims, or None for anything else."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        try:
            return _png(head) or _webp(head) or _jpeg(file, head)
        except (struct.error, ValueError):
            return None


def _png(head: bytes) -> ImageHeader | None:
    if not head.startswith(_PNG) or head[12:16] != b"IHDR":
        return None
    return ImageHeader("image/png", *struct.unpack(">II", head[16:24]))


def _jpeg(file: BinaryIO, head: bytes) -> ImageHeader | None:
    if not head.startswith(b"\xff\xd8\xff"):
        return None
    file.seek(2)
    for _ in range(JPEG_SEGMENTS):
        start, marker = file.read(2)
        if start != 0xFF:
            return None
        if marker == 0xFF:  # a fill byte
            file.seek(-1, os.SEEK_CUR)
        elif marker in _JPEG_SIZES:
            height, width = struct.unpack(">3xHH", file.read(7))
            return ImageHeader("image/jpeg", width, height)
        elif marker not in _JPEG_ALONE:
            [size] = struct.unpack(">H", file.read(2))
            file.seek(size - 2, os.SEEK_CUR)
    return None


def _webp(head: bytes) -> ImageHeader | None:
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(head[24:27], "little") + 1
        height = int.from_bytes(head[27:30], "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack("<HH", head[26:30]))
    else:
        return None
    return ImageHeader("image/webp", width, height)
