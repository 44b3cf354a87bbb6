"""Reads an image's kind and size from its first bytes, without decoding it: cheap enough for the event loop."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 64 * 1024
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
        return _png(head) or _jpeg(head) or _webp(head)
    except (struct.error, IndexError):
        return None


def _png(head: bytes) -> ImageHeader | None:
    if not head.startswith(_PNG) or head[12:16] != b"IHDR":
        return None
    return ImageHeader("image/png", *struct.unpack(">II", head[16:24]))


def _jpeg(head: bytes) -> ImageHeader | None:
    if not head.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    while True:
        while head[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker = head[at + 1]
        if head[at] != 0xFF:
            return None
        if marker in _JPEG_SIZES:
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return ImageHeader("image/jpeg", width, height)
        at += 2 if marker in _JPEG_ALONE else 2 + struct.unpack(">H", head[at + 2 : at + 4])[0]


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
