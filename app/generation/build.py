"""Builds the neutral request of a provider from what a task row remembers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.requests import ImageRequest, MediaFile, Operation, VideoRequest

_SHAPE = frozenset({"width", "height", "ratio", "resolution", "duration", "size"})


def image_request(request: Mapping[str, Any], inputs: Iterable[MediaFile]) -> ImageRequest:
    params = request["params"]
    files = tuple(inputs)
    return ImageRequest(
        operation=Operation(request["operation"]),
        prompt=request["prompt"],
        width=params["width"],
        height=params["height"],
        ratio=params["ratio"],
        quality=params["quality"],
        output_format=params["output_format"],
        output_compression=params.get("output_compression"),
        background=params["hints"].get("background"),
        images=tuple(file for file in files if file.field != "mask"),
        mask=next((file for file in files if file.field == "mask"), None),
        partial_images=params.get("partial_images") or 0,
        hints=params["hints"],
    )


def video_request(
    request: Mapping[str, Any], inputs: Iterable[MediaFile], source: MediaFile | None = None
) -> VideoRequest:
    params = request["params"]
    files = tuple(inputs)

    def of(*fields: str) -> tuple[MediaFile, ...]:
        return tuple(file for file in files if file.field in fields)

    return VideoRequest(
        operation=Operation(request["operation"]),
        prompt=request["prompt"],
        resolution=params["resolution"],
        width=params["width"],
        height=params["height"],
        ratio=params["ratio"],
        duration_s=params["duration"],
        images=of("image_urls"),
        first_frame=next(iter(of("first_frame_image")), None),
        videos=(source,) if source else of("video_url", "video_urls"),
        audios=of("audio_urls"),
        params={name: value for name, value in params.items() if name not in _SHAPE},
        source_upstream_id=request.get("source", {}).get("upstream_id"),
    )
