"""Small real files for request bodies."""

from __future__ import annotations

import base64
import io
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
from PIL import Image

Size = tuple[int, int]


@cache
def png(size: Size = (64, 48), color: str = "teal") -> bytes:
    return _encoded(Image.new("RGB", size, color), "PNG")


@cache
def jpeg(size: Size = (64, 48)) -> bytes:
    return _encoded(Image.new("RGB", size, "orange"), "JPEG")


@cache
def mask(size: Size = (64, 48)) -> bytes:
    """Return a PNG whose left half is transparent: that is what may change."""
    image = Image.new("RGBA", size, (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    return _encoded(image, "PNG")


@cache
def mp4(seconds: int = 4, size: Size = (320, 180)) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_image(Image.new("RGB", size, "navy"))
            for index in range(seconds * 10):
                frame.pts, frame.time_base = index, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


def data_url(content: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def size_of(content: bytes) -> Size:
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
