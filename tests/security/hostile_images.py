"""Forty images that mean harm, made by code: every one of them must be refused, and cost nearly nothing."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width: int, height: int, *, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(*chunks: bytes) -> bytes:
    return PNG + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(size_bytes: int) -> bytes:
    """Compress that many zeros: a thousandth remains."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(size_bytes >> 20)]
    return b"".join(parts) + packer.flush()


def saved(format: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(out, format, **options)
    return out.getvalue()


def animated(format: str) -> bytes:
    out = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), (shade, 0, 0)) for shade in (0, 100, 200)]
    frames[0].save(out, format, save_all=True, append_images=frames[1:])
    return out.getvalue()


def with_size(content: bytes, width: int, height: int) -> bytes:
    """Let a JPEG's header claim another size."""
    at = next(i for i in range(2, len(content)) if content[i] == 0xFF and content[i + 1] in (0xC0, 0xC2))
    return content[: at + 5] + struct.pack(">HH", height, width) + content[at + 9 :]


def riff(*parts: bytes, claims: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body) if claims is None else claims) + body


def webp_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def vp8x(width: int, height: int, flags: int = 0) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)


def exif(entries: int) -> bytes:
    """A TIFF directory that claims more entries than there are, and whose next directory is itself."""
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", entries) + struct.pack("<HHII", 0x8769, 4, 1, 8) * 4


def hostile_images() -> Iterator[tuple[str, bytes]]:
    noise = random.Random(4).randbytes
    line = zlib.compress(b"\0" + b"\x55" * 64 * 3)
    jpeg, whole_png, webp = saved("JPEG"), saved("PNG"), saved("WEBP", lossless=True)

    # bombs
    yield "a PNG of 13,000 pixels square", png(header(13_000, 13_000), chunk(b"IDAT", zeros(16 << 20)))
    yield "a PNG of two thousand million pixels", png(header(2**31 - 1, 1), chunk(b"IDAT", line))
    yield "a PNG one pixel too wide", png(header(16_385, 1), chunk(b"IDAT", line))
    yield (
        "a bilevel PNG of 200 megapixels",
        png(header(16_000, 12_500, depth=1, colour=0), chunk(b"IDAT", zeros(26 << 20))),
    )
    yield "an interlaced PNG of 60 megapixels", png(header(8000, 7500, interlace=1), chunk(b"IDAT", zeros(8 << 20)))
    yield "a JPEG of 65,500 pixels square", with_size(jpeg, 65_500, 65_500)
    yield "a JPEG of no height", with_size(jpeg, 64, 0)
    yield "a progressive JPEG of 65,500 pixels", with_size(saved("JPEG", progressive=True), 65_500, 65_500)
    yield "a WebP of 16 million pixels a side", riff(vp8x(1 << 24, 1 << 24), webp_chunk(b"VP8L", noise(90)))
    yield "a lossless WebP that claims 16,384 square", webp[:21] + struct.pack("<I", 0x0FFFFFFF) + webp[25:]
    yield "text that unpacks to 256 MiB", png(header(8, 8), chunk(b"zTXt", b"a\0\0" + zeros(256 << 20)), whole_png[33:])
    yield (
        "a colour profile that unpacks to 256 MiB",
        png(header(8, 8), chunk(b"iCCP", b"a\0\0" + zeros(256 << 20)), chunk(b"IDAT", line)),
    )
    yield (
        "international text that unpacks to 128 MiB",
        png(header(8, 8), chunk(b"iTXt", b"a\0\x01\0\0\0" + zeros(128 << 20)), chunk(b"IDAT", line)),
    )
    yield (
        "two hundred texts of a MiB",
        png(header(8, 8), *(chunk(b"zTXt", b"a\0\0" + zeros(1 << 20)) for _ in range(200)), chunk(b"IDAT", line)),
    )

    # several pictures in one
    yield "an animated PNG", animated("PNG")
    yield "an animated WebP", animated("WEBP")
    yield "an animated GIF as .png", animated("GIF")
    yield (
        "a PNG that claims four thousand million frames",
        png(header(8, 8), chunk(b"acTL", struct.pack(">II", 2**32 - 1, 0)), chunk(b"IDAT", line)),
    )

    # cut off and damaged
    yield "half a PNG", whole_png[: len(whole_png) // 2]
    yield "half a JPEG", jpeg[: len(jpeg) // 2]
    yield "a JPEG that is only its beginning", jpeg[:20]
    yield (
        "a PNG whose header has a wrong check sum",
        PNG + header(64, 48)[:-1] + b"?" + chunk(b"IDAT", line) + chunk(b"IEND", b""),
    )
    yield "a PNG without pixels", png(header(64, 48))
    yield "a PNG whose chunk is longer than the file", PNG + header(64, 48) + b"\x7f\xff\xff\xffIDAT" + noise(100)
    yield "a PNG of an unknown colour type", png(header(64, 48, colour=5), chunk(b"IDAT", line))
    yield (
        "a palette PNG without a palette's end",
        png(header(64, 48, colour=3), chunk(b"PLTE", noise(3 * 300)), chunk(b"IDAT", line)),
    )
    yield (
        "a WebP whose RIFF claims four gigabytes and is noise",
        riff(webp_chunk(b"VP8 ", noise(200)), claims=2**32 - 2),
    )
    yield "a CMYK JPEG cut inside its scan", saved("JPEG", mode="CMYK")[:700]
    yield "a JPEG whose second component is missing", jpeg.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x08\x08", 1)
    yield "a JPEG of twelve bits", jpeg.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c", 1)
    yield (
        "a JPEG of only EXIF, 4 MiB",
        b"\xff\xd8"
        + b"".join(b"\xff\xe1" + struct.pack(">H", 65_533) + exif(65_535).ljust(65_531, b"\1") for _ in range(64)),
    )
    yield "a JPEG of endless markers", b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000

    # something else under a picture's name
    yield "an HTML page with a picture in it", b"<html><script>alert(1)</script>" + whole_png
    yield "a PDF that is also a JPEG", b"%PDF-1.7\n" + jpeg
    yield "a ZIP with a PNG behind it", b"PK\x03\x04" + bytes(26) + whole_png
    yield (
        "an SVG that names a file",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    )
    yield "a TIFF", saved("TIFF")
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"
    yield "an ICO that points at itself", b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, 2**31, 6)
    yield "a PNG's signature and then a JPEG", PNG + jpeg
