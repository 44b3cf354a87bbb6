"""Read films back: their frames at our frame rate, their last picture, their sound."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import av
from PIL import Image

from app.media.recordings import open_video, picture
from app.providers.demo.planes import Planes, even

FPS = 24
SAMPLE_RATE = 48_000
BYTES_PER_SECOND = SAMPLE_RATE * 4  # 16 bits, two channels
TAIL_S = 3.0


def frames(path: Path, size: tuple[int, int]) -> Iterator[Planes]:
    """Yield the film's pictures at 24 per second, cut and scaled to ``size``, until it ends."""
    with open_video(path) as (container, stream):
        start: float | None = None
        shown = 0
        last: Planes | None = None
        for frame in container.decode(stream):
            start = frame.time if start is None else start
            due = round((frame.time - start) * FPS)
            while last is not None and shown < due:
                yield last
                shown += 1
            last = _covering(frame, size)
        if last is not None:
            yield last


def first_picture(path: Path) -> Image.Image:
    with open_video(path) as (container, stream):
        return picture(next(iter(container.decode(stream))))


def last_picture(path: Path) -> Image.Image:
    with open_video(path) as (container, stream):
        if container.duration:
            container.seek(max(0, container.duration - int(TAIL_S * av.time_base)))
        tail = deque(container.decode(stream), maxlen=1)
        if not tail:
            raise ValueError("no picture at the end")
        return picture(tail[0])


def seconds(path: Path) -> float:
    """How long the pictures run, by the container."""
    with open_video(path) as (container, stream):
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return (container.duration or 0) / av.time_base


def sound(path: Path) -> bytes:
    """Return the film's sound as 16-bit stereo at 48 kHz; empty when it has none."""
    with open_video(path) as (container, _):
        if not container.streams.audio:
            return b""
        resampler = av.AudioResampler(format="s16", layout="stereo", rate=SAMPLE_RATE)
        pieces = []
        for frame in container.decode(container.streams.audio[0]):
            pieces += [bytes(made.planes[0])[: made.samples * 4] for made in resampler.resample(frame)]
        pieces += [bytes(made.planes[0])[: made.samples * 4] for made in resampler.resample(None)]
        return b"".join(pieces)


def _covering(frame: av.VideoFrame, size: tuple[int, int]) -> Planes:
    if (frame.width, frame.height) == size:
        return Planes.of_frame(frame)
    scale = max(size[0] / frame.width, size[1] / frame.height)
    width, height = max(size[0], even(frame.width * scale)), max(size[1], even(frame.height * scale))
    scaled = Planes.of_frame(frame, (width, height))
    return scaled.crop(even((width - size[0]) / 2), even((height - size[1]) / 2), *size)
