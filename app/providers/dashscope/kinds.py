"""One public model, four of the vendor's: which one the inputs ask for, and what each of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from app.requests import MediaFile, Operation, VideoRequest
from app.upstreams.http import MIB
from app.upstreams.protocols import UpstreamDenied

RESOLUTIONS = frozenset({"720p", "1080p"})
RATIOS = frozenset({"16:9", "9:16", "1:1", "4:3", "3:4"})
VIDEO_TYPES = frozenset({"video/mp4", "video/quicktime"})
PROMPT_WIDTH = 5000
"""Characters, of which a Chinese one counts as two. The vendor cuts off the rest without a word."""


class Kind(StrEnum):
    """The value ends the upstream's model id, and is its key in the route's option ``ids``."""

    TEXT = "t2v"
    FRAME = "i2v"
    REFERENCES = "r2v"
    EDIT = "video-edit"

    @property
    def takes_ratio(self) -> bool:
        return self in (Kind.TEXT, Kind.REFERENCES)

    @property
    def takes_duration(self) -> bool:
        return self is not Kind.EDIT


def kind_of(request: VideoRequest) -> Kind:
    if request.operation is Operation.VIDEO_EDIT or request.videos:
        return Kind.EDIT
    if request.first_frame:
        return Kind.FRAME
    return Kind.REFERENCES if request.images else Kind.TEXT


def model_id(model: str, kind: Kind, options: Mapping[str, Any]) -> str:
    """Return the upstream's id: the route's ``ids``, else ``model`` itself if it is of that kind, else with the suffix.

    Raises: UpstreamDenied when the route has none for it.
    """
    ids = options.get("ids") or {}
    if kind.value in ids:
        if not isinstance(ids[kind.value], str):
            raise UpstreamDenied(f"the route has no model for {kind}")
        return str(ids[kind.value])
    fixed = fixed_kind(model)
    if fixed not in (None, kind):
        raise UpstreamDenied(f"the route has only the model for {fixed}")
    return model if fixed else f"{model}-{kind}"


def fixed_kind(model: str) -> Kind | None:
    """Return the kind whose suffix the route's model already has."""
    return next((kind for kind in Kind if model.endswith(f"-{kind}")), None)


def why_not(request: VideoRequest, model: str) -> str | None:
    """See `Picky`."""
    kind = kind_of(request)
    if request.operation is Operation.VIDEO_REMIX:
        return "This upstream does not extend videos."
    if fixed_kind(model) not in (None, kind):
        return "These inputs are not possible with this model's upstream."
    return _why_not_params(request, kind) or _why_not_inputs(request, kind)


def _why_not_params(request: VideoRequest, kind: Kind) -> str | None:
    params = request.params
    if request.resolution.lower() not in RESOLUTIONS:
        return f"'resolution' {request.resolution} is not made by this upstream."
    if kind.takes_ratio and request.ratio not in RATIOS:
        return f"'size' {request.ratio} is not made by this upstream."
    if kind.takes_duration and not 3 <= request.duration_s <= 15:
        return "'duration' must be 3 to 15 seconds with this upstream."
    for name in ("generate_audio", "generation_type"):
        if params.get(name) is not None:
            return f"'{name}' is not possible with this upstream."
    if params.get("enable_gif"):
        return "'enable_gif' is not possible with this upstream."
    if kind is not Kind.EDIT and params.get("audio_setting") not in (None, "auto"):
        return "'audio_setting' is only possible with 'video_url'."
    seed = params.get("seed")
    if seed is not None and not 0 <= seed <= 2_147_483_647:
        return "'seed' must be 0 to 2147483647 with this upstream."
    if not request.prompt and kind is not Kind.FRAME:
        return "'prompt' is needed without 'first_frame_image'."
    if sum(1 if ord(char) < 0x1100 else 2 for char in request.prompt) > PROMPT_WIDTH:
        return f"'prompt' must not be longer than {PROMPT_WIDTH} characters (Chinese: half of it) with this upstream."
    return None


def _why_not_inputs(request: VideoRequest, kind: Kind) -> str | None:
    if request.audios:
        return "'audio_urls' is not possible with this upstream."
    if request.first_frame and (request.images or request.videos):
        return "'first_frame_image' excludes 'image_urls' and 'video_url' with this upstream."
    if len(request.images) > (most := 5 if kind is Kind.EDIT else 9):
        return f"'image_urls' holds more than {most} files, the most this upstream takes."
    if kind is not Kind.EDIT:
        return None
    if len(request.videos) != 1:
        return "'video_url' must be one video for this upstream."
    return _why_not_source(request.videos[0])


def _why_not_source(source: MediaFile) -> str | None:
    if source.mime not in VIDEO_TYPES:
        return f"'{source.field}' must be MP4 or MOV for this upstream."
    if source.size_bytes > 100 * MIB:
        return f"'{source.field}' must not be larger than 100 MiB for this upstream."
    if source.duration_s is not None and not 2.9 <= source.duration_s <= 60.1:
        return f"'{source.field}' must last 3 to 60 seconds for this upstream."
    return None
