"""Forty films that mean harm, made by code from one honest film: every one of them must be refused.

A hostile MP4 lies in its tables; `edit` changes one box of the honest film and leaves everything else as it is.
"""

from __future__ import annotations

import gzip
import random
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"moof", b"traf")


def film(*, codec: str = "libx264", format: str = "mp4", seconds: int = 2, movflags: str = "+faststart") -> bytes:
    """An honest film of noise, with its tables in front."""
    options = {"movflags": movflags} if format == "mp4" else {}
    with tempfile.NamedTemporaryFile() as out, av.open(out.name, "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.thread_count = 1
        for number in range(seconds * 10):
            frame = av.VideoFrame.from_image(Image.effect_noise((64, 48), 80).convert("RGB"))
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        container.close()
        return Path(out.name).read_bytes()


def box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + name + body


def edit(content: bytes, name: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return the film with the body of every box ``name`` changed, and all sizes above it made right."""
    out, at = b"", 0
    while at + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + size]
        if kind in HOLDERS and kind != name:
            body = edit(body, name, change)
        out += box(kind, change(body) if kind == name else body)
        at += size
    return out


def put(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda body: body[:at] + value + body[at + len(value) :]


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def full(*values: int) -> bytes:
    """A full box's body: version and flags 0, then these."""
    return bytes(4) + b"".join(u32(value) for value in values)


def replace(value: bytes) -> Callable[[bytes], bytes]:
    return lambda _: value


def hostile_films() -> Iterator[tuple[str, bytes]]:
    noise = random.Random(4).randbytes
    honest, start = film(), box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41")
    moov_at = honest.index(b"moov") - 4
    moov = honest[moov_at : moov_at + struct.unpack(">I", honest[moov_at : moov_at + 4])[0]]

    # durations that lie, tables that are longer than the world
    pieces = film(seconds=4, movflags="+frag_keyframe+empty_moov+default_base_moof")
    yield "a fragment of four thousand million pictures", edit(pieces, b"trun", put(4, u32(2**32 - 1)))
    yield "half a film in fragments", pieces[: len(pieces) // 2]
    yield "a film whose first picture is gone", edit(honest, b"stss", replace(full(1, 19)))
    yield "a sound of four gigabytes", b"RIFF" + b"\xff" * 4 + b"WAVEfmt \x10\0\0\0\1\0\1\0" + noise(40)
    yield "a size table of four thousand million", edit(honest, b"stsz", put(8, u32(2**32 - 1)))
    yield "samples of two gigabytes each", edit(honest, b"stsz", replace(full(2**31 - 1, 20)))
    yield "a thousand million samples of one size", edit(honest, b"stsz", replace(full(1, 10**9)))
    yield "a time table of four thousand million", edit(honest, b"stts", put(4, u32(2**32 - 1)))
    yield "a thousand million pictures in one time entry", edit(honest, b"stts", replace(full(1, 10**9, 1)))
    yield "a map of chunks of four thousand million", edit(honest, b"stsc", put(4, u32(2**32 - 1)))
    yield "chunks behind the end of the file", edit(honest, b"stco", replace(full(1, 2**31)))
    yield "no chunks at all", edit(honest, b"stco", replace(full(0)))
    yield "no times at all", edit(honest, b"stts", replace(full(0)))
    yield "no description", edit(honest, b"stsd", replace(full(0)))

    # boxes that nest, loop, and have no size or too much of it
    nested = b""
    for _ in range(20_000):
        nested = struct.pack(">I", 8 + len(nested)) + b"moov" + nested if len(nested) < 160_000 else nested
    yield "boxes in boxes, twenty thousand deep", start + nested
    yield "a first box without a size", start + u32(0) + b"moov" + noise(64)
    yield "a box smaller than its own header", start + u32(4) + b"moov" + moov[8:]
    yield "a box of eight exabytes", start + u32(1) + b"moov" + struct.pack(">Q", 2**63 - 1) + moov[8:]
    yield "a box that ends before it begins", start + u32(1) + b"moov" + struct.pack(">Q", 3) + moov[8:]
    yield "a header of four gigabytes", start + u32(2**32 - 1) + b"moov" + moov[8:]
    yield "only the name of the format", start
    yield "ten thousand empty headers", start + box(b"moov") * 10_000
    yield (
        "a packed header that unpacks to 256 MiB",
        start
        + box(
            b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", u32(256 << 20), zlib.compress(bytes(256 << 20))))
        ),
    )
    trak = moov[moov.index(b"trak") - 4 :]
    trak = trak[: struct.unpack(">I", trak[:4])[0]]
    mvhd = moov[8 : 8 + struct.unpack(">I", moov[8:12])[0]]
    yield "two hundred tracks", start + box(b"moov", mvhd, trak * 200) + box(b"mdat", noise(64))

    # what lies elsewhere
    elsewhere = full(1) + box(b"url ", bytes(4) + b"http://127.0.0.1:9/canary.mp4\0")
    yield "pictures behind a URL", edit(honest, b"dref", replace(elsewhere))[: moov_at + len(moov) + 40]
    alias = full(1) + box(b"alis", bytes(4) + bytes(150) + struct.pack(">hH", 2, 11) + b"/etc/passwd\0")
    yield "pictures in a file of ours", edit(honest, b"dref", replace(alias))[: moov_at + len(moov) + 40]
    yield "an HLS playlist", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    yield "a list of files to join", b"ffconcat version 1.0\nfile /etc/passwd\n"
    yield "a DASH manifest", b'<?xml version="1.0"?><MPD><Period><BaseURL>http://127.0.0.1:9/</BaseURL></Period></MPD>'
    yield "a session description", b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"

    # cut off, damaged, or something else
    yield "half a film", honest[: len(honest) // 2]
    yield "tables without pictures", honest[: moov_at + len(moov)]
    yield "pictures that are all zero", honest[: moov_at + len(moov)] + box(b"mdat", bytes(len(honest)))
    yield "pictures that are noise", honest[: moov_at + len(moov)] + box(b"mdat", noise(len(honest)))
    yield "an unknown codec", honest.replace(b"avc1", b"zzzz")
    yield "a codec that is not allowed", film(codec="mjpeg", format="mov")
    yield "a Matroska of endless size", b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 7 + noise(4000)
    yield "half a WebM", (webm := film(codec="libvpx", format="webm"))[: len(webm) // 2]
    yield "a film that was packed again", gzip.compress(honest)
    yield "sixteen MiB of zeros under its name", start + bytes(16 << 20)
