"""Judge the files that clients send and upstreams answer, in limited child processes."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from app.errors import InvalidMedia
from app.media.processes import ChildFailed, ChildPool

log = structlog.get_logger()

WALL_S = 15.0
GIB = 1024 * 1024 * 1024
IMAGE_FORMATS = "PNG, JPEG, WebP"
VIDEO_FORMATS = "MP4, MOV, WebM, MKV"
AUDIO_FORMATS = "WAV, MP3, M4A"

# A child that dies, or needs more than its limits, does so because of the file it looks at.
_FAULTS_OF_THE_FILE = {
    "timeout": "takes too long to decode",
    "cpu": "takes too long to decode",
    "memory": "takes too much memory to decode",
    "crashed": "cannot be decoded",
}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    mime: str
    width: int
    height: int
    has_alpha: bool
    frames: int


@dataclass(frozen=True, slots=True)
class VideoFacts:
    mime: str
    width: int
    height: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class AudioFacts:
    mime: str
    duration_s: float


def open_pool(size: int) -> ChildPool:
    """Return a pool with the limits that checks need: 1 GiB of address space, 10 s of CPU per file."""
    return ChildPool("app.media.child", size=size, memory_bytes=GIB, cpu_s=10, file_bytes=GIB // 4)


class Checker:
    """Every check opens one file that may be hostile. A bad one is InvalidMedia, naming ``param`` and what was found.

    Raises: OSError when the disk is full; ChildFailed only for mistakes of ours, and when the pool is closed.
    """

    def __init__(self, pool: ChildPool, *, tries: int = 1) -> None:
        self._pool = pool
        self._tries = tries

    def for_results(self) -> Checker:
        """Return a checker for files that were paid for: a child that dies is replaced and asked once more.

        It may have died of something else, and what a client sends is not worth a second one.
        """
        return Checker(self._pool, tries=2)

    async def check_image(self, path: Path, *, param: str | None) -> ImageFacts:
        """Decode a whole PNG, JPEG or WebP: at most 50 megapixels, 16,384 a side, one frame."""
        return ImageFacts(**await self._ask("image", param, IMAGE_FORMATS, path=str(path)))

    async def verify_image(self, path: Path, *, param: str | None) -> ImageFacts:
        """As `check_image`, much quicker: a PNG by its checksums, a JPEG at an eighth of its size; a WebP decoded."""
        return ImageFacts(**await self._ask("verify", param, IMAGE_FORMATS, path=str(path)))

    async def check_mask(self, path: Path, *, param: str | None, size: tuple[int, int], max_bytes: int) -> ImageFacts:
        """A mask is a PNG with an alpha channel, of the same size as the first image."""
        found = path.stat().st_size  # noqa: ASYNC240 - one call on a local disk
        if found > max_bytes:
            raise InvalidMedia(f"{_name(param)} is {found} bytes; at most {max_bytes} are allowed.", param=param)
        facts = ImageFacts(**await self._ask("image", param, "PNG with an alpha channel", path=str(path)))
        if facts.mime != "image/png":
            raise InvalidMedia(f"{_name(param)} is {facts.mime}. Allowed: PNG with an alpha channel.", param=param)
        if not facts.has_alpha:
            message = f"{_name(param)} has no alpha channel. Its transparent pixels say what to change."
            raise InvalidMedia(message, param=param)
        if (facts.width, facts.height) != size:
            message = f"{_name(param)} is {facts.width}x{facts.height}, the first image is {size[0]}x{size[1]}."
            raise InvalidMedia(f"{message} They must be equal.", param=param)
        return facts

    async def probe_video(self, path: Path, *, param: str | None) -> VideoFacts:
        """Seconds are what is really there or what the file claims, whichever is more."""
        return VideoFacts(**await self._ask("video", param, VIDEO_FORMATS, path=str(path)))

    async def probe_audio(self, path: Path, *, param: str | None) -> AudioFacts:
        return AudioFacts(**await self._ask("audio", param, AUDIO_FORMATS, path=str(path)))

    async def thumbnail(self, video_path: Path, out_path: Path) -> tuple[int, int]:
        """Write the first frame as a WebP of at most 512 pixels a side; return its width and height."""
        made = await self._ask("thumbnail", None, VIDEO_FORMATS, path=str(video_path), out=str(out_path))
        return made["width"], made["height"]

    async def preview(self, path: Path, out: Path) -> tuple[int, int]:
        """Write an image upright as a WebP of at most 480 pixels a side; return its width and height."""
        made = await self._ask("preview", None, IMAGE_FORMATS, path=str(path), out=str(out))
        return made["width"], made["height"]

    async def transcode_image(
        self, path: Path, out: Path, format: str, *, quality: int | None = None, crop: tuple[int, int] | None = None
    ) -> ImageFacts:
        """Write an image upright as ``png``, ``jpeg`` or ``webp``, cut to ``crop`` pixels around its centre."""
        args = {"path": str(path), "out": str(out), "format": format, "quality": quality, "crop": crop}
        return ImageFacts(**await self._ask("transcode", None, IMAGE_FORMATS, **args))

    async def _ask(self, op: str, param: str | None, allowed: str, **args: Any) -> dict[str, Any]:
        for tries_left in reversed(range(self._tries)):
            try:
                answer = await self._pool.call(op, timeout_s=WALL_S, **args)
                break
            except ChildFailed as failed:
                if failed.reason == "room":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
                if failed.reason not in _FAULTS_OF_THE_FILE:
                    raise
                log.warning("media.check_died", op=op, reason=failed.reason, tries_left=tries_left)
                answer = {"refused": _FAULTS_OF_THE_FILE[failed.reason]}
        if "refused" in answer:
            raise InvalidMedia(f"{_name(param)} {answer['refused']}. Allowed: {allowed}.", param=param)
        return answer


def _name(param: str | None) -> str:
    return f"'{param}'" if param else "The file"
