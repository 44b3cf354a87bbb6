"""Pictures as the three planes of yuv420p: panning, pasting and tinting them costs no colour conversion per frame."""

from __future__ import annotations

from dataclasses import dataclass

import av
from PIL import Image

WHITE, BLACK, NEUTRAL = 235, 16, 128


def even(value: float) -> int:
    return int(value) // 2 * 2


@dataclass(slots=True)
class Planes:
    """Luma in full size, both chroma planes in half; all sides even."""

    y: Image.Image
    u: Image.Image
    v: Image.Image

    @classmethod
    def of_image(cls, image: Image.Image) -> Planes:
        frame: av.VideoFrame = av.VideoFrame.from_image(image.convert("RGB"))  # type: ignore[no-untyped-call]
        return cls.of_frame(frame)

    @classmethod
    def of_frame(cls, frame: av.VideoFrame, size: tuple[int, int] | None = None) -> Planes:
        """Convert any frame, scaled to ``size`` first if given."""
        width, height = size or (frame.width, frame.height)
        converted = frame.reformat(width=width, height=height, format="yuv420p")
        y, u, v = (
            Image.frombytes("L", (plane.width, plane.height), bytes(plane), "raw", "L", plane.line_size, 1)
            for plane in converted.planes
        )
        return cls(y, u, v)

    @property
    def size(self) -> tuple[int, int]:
        return self.y.size

    def crop(self, left: int, top: int, width: int, height: int) -> Planes:
        """Return a copy of a part; every number is even."""
        half = (left // 2, top // 2, (left + width) // 2, (top + height) // 2)
        return Planes(self.y.crop((left, top, left + width, top + height)), self.u.crop(half), self.v.crop(half))

    def blend(self, other: Planes, part: float) -> Planes:
        return Planes(
            Image.blend(self.y, other.y, part), Image.blend(self.u, other.u, part), Image.blend(self.v, other.v, part)
        )

    def tint(self, blue: int, red: int) -> Planes:
        """Shift the colours; the brightness stays, so that the picture stays visible."""
        return Planes(
            self.y,
            self.u.point([max(BLACK, min(240, value + blue)) for value in range(256)]),
            self.v.point([max(BLACK, min(240, value + red)) for value in range(256)]),
        )

    def bar(self, left: int, top: int, right: int, bottom: int, luma: int) -> None:
        """Fill a grey rectangle in place; every number is even."""
        if right > left and bottom > top:
            half = (left // 2, top // 2, right // 2, bottom // 2)
            self.y.paste(luma, (left, top, right, bottom))
            self.u.paste(NEUTRAL, half)
            self.v.paste(NEUTRAL, half)

    def frame(self) -> av.VideoFrame:
        frame = av.VideoFrame(*self.size, "yuv420p")
        for plane, image in zip(frame.planes, (self.y, self.u, self.v), strict=True):
            plane.update(image.tobytes("raw", "L", plane.line_size, 1))
        return frame


class Overlay:
    """A translucent picture prepared once and pasted onto many frames."""

    def __init__(self, layer: Image.Image, at: tuple[int, int]) -> None:
        self._at = even(at[0]), even(at[1])
        width, height = layer.width + layer.width % 2, layer.height + layer.height % 2
        padded = Image.new("RGBA", (width, height), (0, 0, 0, 0))
        padded.paste(layer, (0, 0))
        self._planes = Planes.of_image(padded)
        self._mask = padded.getchannel("A")
        self._half = self._mask.resize((width // 2, height // 2), Image.Resampling.BOX)

    def lay_on(self, planes: Planes) -> None:
        left, top = self._at
        planes.y.paste(self._planes.y, (left, top), self._mask)
        planes.u.paste(self._planes.u, (left // 2, top // 2), self._half)
        planes.v.paste(self._planes.v, (left // 2, top // 2), self._half)
