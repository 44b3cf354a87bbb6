"""What a caller wants, in neutral form: neither the wire of our API nor any upstream's."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Operation(StrEnum):
    """What a model can do, and what a provider can serve."""

    IMAGE_GENERATE = "image.generate"
    IMAGE_EDIT = "image.edit"
    VIDEO_GENERATE = "video.generate"
    VIDEO_EDIT = "video.edit"
    VIDEO_REMIX = "video.remix"

    @property
    def kind(self) -> str:
        """``image`` or ``video``: the word in the tasks table."""
        return self.value.split(".", 1)[0]

    @property
    def task_type(self) -> str:
        """The task object's ``type``, as the contract spells it."""
        return {
            Operation.IMAGE_GENERATE: "image.generation",
            Operation.IMAGE_EDIT: "image.edit",
            Operation.VIDEO_GENERATE: "video.generation",
            Operation.VIDEO_EDIT: "video.edit",
            Operation.VIDEO_REMIX: "video.remix",
        }[self]


@dataclass(frozen=True, slots=True)
class MediaFile:
    """One file on our disk, already checked. Bytes never travel in a request."""

    path: Path
    mime: str
    size_bytes: int
    sha256: bytes
    field: str
    """The public field it came from: ``image``, ``mask``, ``image_urls``, ``video_url``, ``first_frame_image``..."""
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image to make or edit. Pixels are final: the size table was applied."""

    operation: Operation
    prompt: str
    width: int
    height: int
    ratio: str
    """``16:9``, or ``auto``: then width and height are the tier's square and the upstream may choose."""
    quality: str
    """``standard``, ``hd`` or ``uhd``."""
    output_format: str = "png"
    output_compression: int | None = None
    background: str | None = None
    images: tuple[MediaFile, ...] = ()
    mask: MediaFile | None = None
    partial_images: int = 0
    hints: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """One video to make, edit or extend."""

    operation: Operation
    prompt: str
    resolution: str
    width: int
    height: int
    ratio: str
    """``adaptive`` was resolved against the first input, or 16:9."""
    duration_s: int
    images: tuple[MediaFile, ...] = ()
    """References, in the caller's order."""
    first_frame: MediaFile | None = None
    videos: tuple[MediaFile, ...] = ()
    """Reference videos; for an edit, or a remix, the one source."""
    audios: tuple[MediaFile, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    """The model's other parameters, validated: seed, watermark, generate_audio, generation_type, enable_gif, raw..."""
    source_upstream_id: str | None = None
    """A remix: the upstream's own id of the source."""
