"""Inside the child: judge foreign videos and sounds. What a header claims is compared with what is really there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image

from app.media.pictures import Refused, save
from app.media.signatures import read_head, sniff

MAX_PIXELS = 8192 * 4352
MAX_STREAMS = 8
THUMBNAIL_SIDE = 512
VIDEO_MIMES = {"MP4": "video/mp4", "MOV": "video/quicktime", "WebM": "video/webm", "MKV": "video/x-matroska"}
AUDIO_MIMES = {"WAV": "audio/wav", "MP3": "audio/mpeg", "M4A": "audio/mp4", "MP4": "audio/mp4"}
VIDEO_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4")

# Claimed but missing: up to this much is rounding, a long last frame or a padded sound; beyond, the file was cut.
MISSING_S = 1.0
MISSING_PART = 0.05

# Titles in some old encoding are no reason to refuse a film; from 19 on PyAV thinks so too, and has no such argument.
_LENIENT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


def inspect_video(path: Path) -> dict[str, Any]:
    """Return the facts of a video, or ``{"refused": why}``.

    Seconds are the largest of the container's claim, the streams' claims and the end of the last packet that is there:
    no header can understate them. A file that claims much more than it holds was cut, and is refused.
    """
    try:
        with open_video(path) as (container, stream):
            seconds = _seconds(container, stream)
            width, height = stream.codec_context.width, stream.codec_context.height
    except Refused as refused:
        return {"refused": str(refused)}
    return {"mime": VIDEO_MIMES[sniff(read_head(path))], "width": width, "height": height, "duration_s": seconds}


def inspect_audio(path: Path) -> dict[str, Any]:
    """Return the facts of a sound, or ``{"refused": why}``."""
    try:
        kind = _kind(path, AUDIO_MIMES)
        with path.open("rb") as file, _open(file, kind) as container:
            if not container.streams.audio:
                raise Refused(f"is {kind} without any sound")
            seconds = _seconds(container, None)
    except Refused as refused:
        return {"refused": str(refused)}
    return {"mime": AUDIO_MIMES[kind], "duration_s": seconds}


def thumbnail(path: Path, out: Path) -> dict[str, Any]:
    """Write the first frame as a WebP of at most 512 pixels a side."""
    try:
        with open_video(path) as (container, stream):
            frame = next(iter(container.decode(stream)), None)
            if frame is None:
                raise Refused("holds no picture that can be decoded")
            image = picture(frame)
    except Refused as refused:
        return {"refused": str(refused)}
    except av.FFmpegError as error:
        return {"refused": f"cannot be decoded ({error.strerror})"}
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    save(image, out, "webp", 80)
    return {"width": image.width, "height": image.height}


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video with every guard of this module. Raises: Refused."""
    kind = _kind(path, VIDEO_MIMES)
    with path.open("rb") as file, _open(file, kind) as container:
        yield container, _video_stream(container)


def picture(frame: av.VideoFrame) -> Image.Image:
    """Return a decoded frame in RGB."""
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    return image


def _kind(path: Path, allowed: dict[str, str]) -> str:
    kind = sniff(read_head(path))
    if kind == "M4A" and kind not in allowed:
        raise Refused("is M4A, a sound")
    if kind not in allowed:
        raise Refused(f"is {kind}")
    return kind


def _open(file: Any, kind: str) -> InputContainer:
    """Open a file object, so that nothing inside it can name another file or address."""
    formats = {"WAV": "wav", "MP3": "mp3", "WebM": "matroska", "MKV": "matroska"}
    only = {"format_whitelist": formats.get(kind, "mov"), "protocol_whitelist": "none"}
    try:
        container: InputContainer = av.open(file, mode="r", options=only, **_LENIENT)
    except (av.FFmpegError, ValueError) as error:
        raise Refused(f"begins like {kind} but cannot be read: damaged or cut off ({_words(error)})") from None
    for stream in container.streams:
        if stream.codec_context is not None:
            stream.codec_context.thread_count = 1
    if len(container.streams) > MAX_STREAMS:
        raise Refused(f"holds {len(container.streams)} streams; at most {MAX_STREAMS} are allowed")
    return container


def _video_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:  # the cover of a sound
            continue
        context = stream.codec_context
        codec = "something unknown" if context is None else context.codec.canonical_name
        if codec not in VIDEO_CODECS:
            raise Refused(f"is encoded as {codec}; allowed are {', '.join(VIDEO_CODECS)}")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height == 0 or width * height > MAX_PIXELS:
            raise Refused(f"is {width}x{height} pixels; at most 8192x4352 are allowed")
        return stream
    raise Refused("holds no moving picture")


def _seconds(container: InputContainer, video: VideoStream | None) -> float:
    """Read the whole file without decoding it, then decode its first and its last key frame."""
    streams: list[Any] = [*([] if video is None else [video]), *container.streams.audio]
    ends: dict[int, Fraction] = {}
    last_key: int | None = None
    try:
        for packet in container.demux(streams):
            if packet.pts is None or packet.size == 0 or packet.is_corrupt:
                continue
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            ends[packet.stream_index] = max(end, ends.get(packet.stream_index, end))
            if video is not None and packet.stream_index == video.index and packet.is_keyframe:
                last_key = packet.pts
    except av.FFmpegError as error:
        raise Refused(f"is damaged or cut off ({_words(error)})") from None
    present = float(max(ends.values(), default=Fraction(0)))
    claims = [float(s.duration * s.time_base) for s in streams if s.duration is not None and s.time_base is not None]
    if container.duration is not None:
        claims.append(container.duration / av.time_base)
    claimed = max(claims, default=present)
    if claimed - present > max(MISSING_S, MISSING_PART * claimed):
        raise Refused(f"is cut off: it claims {claimed:.1f} s but holds {present:.1f} s")
    if video is not None:
        if last_key is None:
            raise Refused("holds no key frame: damaged or cut off")
        _decode_at(container, video, 0)
        _decode_at(container, video, last_key)
    seconds = max(claimed, present)
    if seconds <= 0:
        raise Refused("has no duration")
    return seconds


def _decode_at(container: InputContainer, video: VideoStream, pts: int) -> None:
    try:
        container.seek(pts, stream=video)
        if next(iter(container.decode(video)), None) is None:
            raise Refused("holds pictures that cannot be decoded")
    except av.FFmpegError as error:
        raise Refused(f"holds pictures that cannot be decoded ({_words(error)})") from None


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
