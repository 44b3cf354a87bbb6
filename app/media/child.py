"""The child process that opens foreign images, videos and sounds: ``python -m app.media.child``.

What it finds wrong with a file is an ordinary answer, ``{"refused": what it is}``; only a mistake of ours raises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.media.child_runtime import serve


def image(path: str) -> dict[str, Any]:
    from app.media import pictures

    return pictures.inspect(Path(path))


def verify(path: str) -> dict[str, Any]:
    from app.media import pictures

    return pictures.verify(Path(path))


def transcode(path: str, out: str, format: str, quality: int | None, crop: list[int] | None) -> dict[str, Any]:
    from app.media import pictures

    box = (crop[0], crop[1]) if crop else None
    return pictures.transcode(Path(path), Path(out), format=format, quality=quality, crop=box)


def preview(path: str, out: str) -> dict[str, Any]:
    from app.media import pictures

    return pictures.preview(Path(path), Path(out))


def video(path: str) -> dict[str, Any]:
    from app.media import recordings

    return recordings.inspect_video(Path(path))


def audio(path: str) -> dict[str, Any]:
    from app.media import recordings

    return recordings.inspect_audio(Path(path))


def thumbnail(path: str, out: str) -> dict[str, Any]:
    from app.media import recordings

    return recordings.thumbnail(Path(path), Path(out))


if __name__ == "__main__":
    serve(
        {
            "image": image,
            "verify": verify,
            "transcode": transcode,
            "preview": preview,
            "video": video,
            "audio": audio,
            "thumbnail": thumbnail,
        },
    )
