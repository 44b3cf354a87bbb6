"""Render one film in the child: H.264 and AAC in an MP4 of exactly the asked frames and pixels, a thumbnail, a GIF."""

from __future__ import annotations

import hashlib
import itertools
import math
from array import array
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from PIL import Image, ImageOps

from app.media.pictures import flatten, save
from app.media.recordings import picture
from app.providers.demo import drawing, sources
from app.providers.demo.planes import WHITE, Overlay, Planes, even
from app.providers.demo.sources import BYTES_PER_SECOND, FPS, SAMPLE_RATE

THUMBNAIL_SIDE = 512
GIF_WIDTH = 320
GIF_EVERY = 3  # 8 frames a second
TINT = 30, -24
PAN_PART = 4  # the canvas is a quarter wider than the picture
TRACK_LUMA = 70
CHECK_EVERY = 6  # frames between two looks at progress, cancellation and waiting images

Film = Iterator[Planes]
Heartbeat = Callable[[int], None]
"""Called with the percent done, several times per second of film; may raise to stop the work."""


class _Made:
    """What the frames become besides the film: a thumbnail, and small pictures for a GIF."""

    def __init__(self, *, gif: bool) -> None:
        self.thumbnail: Image.Image | None = None
        self.gif: list[Image.Image] | None = [] if gif else None
        self._palette: Image.Image | None = None

    def see(self, number: int, frame: av.VideoFrame) -> None:
        if self.thumbnail is None:
            self.thumbnail = _small(frame, THUMBNAIL_SIDE / max(frame.width, frame.height))
        if self.gif is not None and number % GIF_EVERY == 0:
            small = _small(frame, GIF_WIDTH / frame.width)
            if self._palette is None:
                self._palette = small.quantize(128)
            self.gif.append(small.quantize(palette=self._palette, dither=Image.Dither.NONE))


def render(job: Path, request: dict[str, Any], heartbeat: Heartbeat) -> None:
    """Write ``result.mp4``, ``thumbnail.webp`` and, where asked, ``result.gif`` into the job's folder."""
    size = request["width"], request["height"]
    film, kept, frames = _film(job, request, size)
    sound = _sound(job, request, frames) if request["sound"] else None
    overlays = _overlays(job, request, size)
    made = _Made(gif=request["gif"])

    part = job / "result.mp4.part"
    with av.open(part, "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        video = _video_stream(container, size)
        audio = _audio_stream(container) if sound is not None else None
        for number, planes in enumerate(itertools.islice(_held(film), frames)):
            if number >= kept:
                for overlay in overlays:
                    overlay.lay_on(planes)
                _progress_bar(planes, number + 1, frames)
            frame = planes.frame()
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            made.see(number, frame)
            container.mux(video.encode(frame))
            if audio is not None and sound is not None and number % FPS == 0:
                container.mux(audio.encode(_audio_frame(sound, number // FPS)))
            if number % CHECK_EVERY == 0:
                heartbeat(number * 100 // frames)
        container.mux(video.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    if made.thumbnail is not None:
        save(made.thumbnail, job / "thumbnail.webp", "webp", 80)
    if made.gif:
        first, *rest = made.gif
        options = {"duration": 1000 * GIF_EVERY // FPS, "loop": 0, "optimize": False}
        first.save(job / "result.gif", "GIF", save_all=True, append_images=rest, **options)
    part.replace(job / "result.mp4")


def _film(job: Path, request: dict[str, Any], size: tuple[int, int]) -> tuple[Film, int, int]:
    """Return the pictures without decoration, how many of them stay so, and how many to take."""
    frames = (request["short"] or request["seconds"]) * FPS
    source = job / request["source"] if request["source"] else None
    if request["operation"] == "video.edit" and source is not None:
        return (planes.tint(*TINT) for planes in sources.frames(source, size)), 0, frames
    if request["operation"] == "video.remix" and source is not None:
        added = _pan(_canvas(sources.last_picture(source), size), size, frames)
        if request["raw"]:
            return added, 0, frames
        before = _source_frames(request, source)
        film = itertools.chain(itertools.islice(_held(sources.frames(source, size)), before), added)
        return film, before, before + frames
    if request["first_frame"] is not None:
        first = _canvas(_picture(job / request["first_frame"]), size)
        last = (
            Planes.of_image(drawing.cover(_picture(job / request["last_frame"]), size))
            if request["last_frame"]
            else None
        )
        return _pan(first, size, frames, last), 0, frames
    wide = size[0] + even(size[0] / PAN_PART), size[1]
    return _pan(Planes.of_image(drawing.gradient(request["prompt"], request["seed"], wide)), size, frames), 0, frames


def _source_frames(request: dict[str, Any], source: Path) -> int:
    """A film that is extended keeps its whole seconds, so that the sum is exact."""
    return max(1, round(sources.seconds(source))) * FPS


def _canvas(picture: Image.Image, size: tuple[int, int]) -> Planes:
    """Return the picture with its right part mirrored beside it: the pan starts with exactly the picture."""
    picture = drawing.cover(picture.convert("RGB"), size)
    extra = even(size[0] / PAN_PART)
    canvas = Image.new("RGB", (size[0] + extra, size[1]))
    canvas.paste(picture, (0, 0))
    canvas.paste(ImageOps.mirror(picture.crop((size[0] - extra, 0, *size))), (size[0], 0))
    return Planes.of_image(canvas)


def _pan(canvas: Planes, size: tuple[int, int], frames: int, last: Planes | None = None) -> Film:
    """Move over the canvas, slow at both ends; fade to ``last`` during the second half if given."""
    way = canvas.size[0] - size[0]
    for number in range(frames):
        part = number / max(1, frames - 1)
        left = even(way * (1 - math.cos(math.pi * part)) / 2)
        planes = canvas.crop(left, 0, *size)
        if last is not None and part > 0.5:
            planes = planes.blend(last, part * 2 - 1)
        yield planes


def _held(film: Film) -> Film:
    """Never end: hold the last picture. Each planes object is the receiver's own, to draw on."""
    last: Planes | None = None
    for last in film:
        yield last.crop(0, 0, *last.size)
    if last is None:
        raise ValueError("a film without pictures")
    while True:
        yield last.crop(0, 0, *last.size)


def _overlays(job: Path, request: dict[str, Any], size: tuple[int, int]) -> list[Overlay]:
    width, height = size
    bar = _bar_height(height)
    panel = drawing.caption(request["prompt"], (width * 9 // 10, height // 3), min(size) // 16)
    low = even(height - bar - height / 30) - (panel.height if panel is not None else 0)
    top = even(height / 30) if request["source"] else low  # a film of ours has its own caption below
    layers = [] if panel is None else [Overlay(panel, ((width - panel.width) // 2, top))]
    insets = [_picture(job / name) for name in request["images"]]
    insets += [sources.first_picture(job / name) for name in request["videos"]]
    strip = drawing.inset_strip(insets, (width * 9 // 10, height // 3))
    if strip is not None:
        layers.append(Overlay(strip, ((width - strip.width) // 2, max(0, (low - strip.height) // 2))))
    return layers


def _bar_height(height: int) -> int:
    return max(4, even(height / 60))


def _progress_bar(planes: Planes, done: int, of: int) -> None:
    width, height = planes.size
    top = height - _bar_height(height)
    end = even(width * done / of)
    planes.bar(0, top, end, height, WHITE)
    planes.bar(end, top, width, height, TRACK_LUMA)


def _video_stream(container: av.container.OutputContainer, size: tuple[int, int]) -> VideoStream:
    stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "28"})
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.time_base = Fraction(1, FPS)
    stream.codec_context.gop_size = 2 * FPS
    stream.codec_context.thread_count = 1
    return stream


def _audio_stream(container: av.container.OutputContainer) -> AudioStream:
    stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
    stream.codec_context.bit_rate = 96_000
    return stream


def _sound(job: Path, request: dict[str, Any], frames: int) -> bytes:
    """Return the whole sound: the source's where it is kept, then a quiet tone."""
    length = frames * BYTES_PER_SECOND // FPS
    kept = b""
    if request["operation"] == "video.edit" and request["source"]:
        kept = sources.sound(job / request["source"])[:length]
        return kept.ljust(length, b"\0") if kept else _tone(request["prompt"], length)
    if request["operation"] == "video.remix" and not request["raw"]:
        before = _source_frames(request, job / request["source"]) * BYTES_PER_SECOND // FPS
        kept = sources.sound(job / request["source"])[:before].ljust(before, b"\0")
    return kept + _tone(request["prompt"], length - len(kept))


def _tone(prompt: str, length: int) -> bytes:
    """Two quiet whole-numbered frequencies from the prompt's hash, one for each ear: a second of them repeats."""
    digest = hashlib.sha256(prompt.encode(errors="replace")).digest()
    left, right = 180 + digest[0], 240 + digest[1]
    step = 2 * math.pi / SAMPLE_RATE
    second = array("h")
    for sample in range(SAMPLE_RATE):
        second.append(int(2500 * math.sin(step * left * sample)))
        second.append(int(2500 * math.sin(step * right * sample)))
    return (second.tobytes() * (length // BYTES_PER_SECOND + 1))[:length]


def _audio_frame(sound: bytes, second: int) -> av.AudioFrame:
    piece = sound[second * BYTES_PER_SECOND : (second + 1) * BYTES_PER_SECOND]
    frame = av.AudioFrame(format="s16", layout="stereo", samples=len(piece) // 4)
    plane = frame.planes[0]
    plane.update(piece.ljust(plane.buffer_size, b"\0"))
    frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
    frame.pts = second * SAMPLE_RATE
    return frame


def _small(frame: av.VideoFrame, scale: float) -> Image.Image:
    scale = min(1.0, scale)
    size = max(2, even(frame.width * scale)), max(2, even(frame.height * scale))
    return picture(frame.reformat(width=size[0], height=size[1], format="rgb24"))


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return flatten(image)
