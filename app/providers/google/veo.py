"""Veo videos: the request in both shapes, and what an operation tells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from app.media.base64_stream import Base64Of, DivertedValue
from app.providers.google.errors import cleaned, operation_error, with_words
from app.providers.google.wire import number, objects, pick, text
from app.requests import MediaFile, Operation, VideoRequest
from app.upstreams.protocols import Progress, UpstreamError, UpstreamFailed, UpstreamModerated

DIVERTED = frozenset({"bytesBase64Encoded", "bytes_base64_encoded", "encodedVideo", "encoded_video"})
RATIOS = ("16:9", "9:16")
RESOLUTIONS = ("720p", "1080p", "4k")
SECONDS = (4, 6, 8)
FULL_S = 8
MAX_REFERENCES = 3
EXTENDABLE = "720p"
_LITE = re.compile(r"(?:^|[-.])lite(?:[-.]|$)")


def why_not(request: VideoRequest, model: str, *, gemini: bool) -> str | None:
    """Return why the model cannot serve the request, as a sentence that names the field."""
    is_remix = request.operation is Operation.VIDEO_REMIX
    return (
        _why_not_shape(request)
        or (_LITE.search(model) and _why_not_lite(request))
        or _why_not_inputs(request, is_remix=is_remix)
        or _why_not_params(request, gemini=gemini)
        or (_why_not_extended(request) if is_remix else None)
        or None
    )


def body(
    request: VideoRequest, *, gemini: bool, source_uri: str | None = None, person_generation: str | None = None
) -> dict[str, Any]:
    """Return the request's JSON. ``source_uri``: in the Gemini shape, where the upstream keeps a remix's source."""
    instance: dict[str, Any] = {"prompt": request.prompt} if request.prompt else {}
    if request.operation is Operation.VIDEO_REMIX:
        instance["video"] = {"uri": source_uri} if gemini else _inline(request.videos[0])
    elif request.first_frame is not None:
        instance["image"] = _inline(request.first_frame)
    elif _are_references(request):
        instance["referenceImages"] = [{"image": _inline(file), "referenceType": "ASSET"} for file in request.images]
    else:
        instance |= {name: _inline(file) for name, file in zip(("image", "lastFrame"), request.images, strict=False)}
    parameters: dict[str, Any] = {
        "aspectRatio": request.ratio,
        "resolution": request.resolution,
        "durationSeconds": request.duration_s,
        "sampleCount": 1,
    }
    if person_generation:
        parameters["personGeneration"] = person_generation
    if not gemini:
        given = {"generateAudio": request.params.get("generate_audio"), "seed": request.params.get("seed")}
        parameters |= {name: value for name, value in given.items() if value is not None}
    return {"instances": [instance], "parameters": parameters}


@dataclass(frozen=True, slots=True)
class Clip:
    """Where the video of a finished operation is: exactly one of the two."""

    file: DivertedValue | None = None
    uri: str | None = None


def read_operation(document: Any, secret: str) -> Progress | Clip:
    """Return what an operation tells.

    Raises: UpstreamModerated, UpstreamRejected or UpstreamFailed when it ended without a video; UpstreamError when
    this is no operation.
    """
    if not isinstance(document, dict):
        raise UpstreamError("no operation")
    if pick(document, "done") is not True:
        return Progress()  # neither a percentage nor a queue is told of
    error = pick(document, "error")
    if error:
        raise operation_error(error, secret)
    response = pick(document, "response")
    inner = pick(response, "generateVideoResponse") or response
    videos = objects(inner, "videos")
    samples = objects(inner, "generatedSamples") + objects(inner, "generatedVideos")
    videos += [video for sample in samples if isinstance(video := pick(sample, "video"), dict)]
    for video in videos:
        data = pick(video, "bytesBase64Encoded") or pick(video, "encodedVideo")
        if isinstance(data, DivertedValue) and data.size_bytes:
            return Clip(file=data)
        uri = text(video, "uri")
        if uri.startswith(("https://", "http://")):
            return Clip(uri=uri)
    if number(inner, "raiMediaFilteredCount"):
        reasons = pick(inner, "raiMediaFilteredReasons")
        words = [reason for reason in reasons if isinstance(reason, str)] if isinstance(reasons, list) else []
        public = with_words(UpstreamModerated.public, cleaned(" ".join(words), secret))
        raise UpstreamModerated("filtered", public=public)
    raise UpstreamFailed("done, but without a video that can be read")


def _are_references(request: VideoRequest) -> bool:
    kind = request.params.get("generation_type")
    return bool(request.images) and (kind == "reference" or (kind is None and len(request.images) > 2))


def _why_not_shape(request: VideoRequest) -> str | None:
    if request.ratio not in RATIOS:
        return f"'size' {request.ratio} is not available: this upstream makes {' and '.join(RATIOS)}."
    if request.resolution not in RESOLUTIONS:
        return f"'resolution' {request.resolution} is not available: this upstream makes {', '.join(RESOLUTIONS)}."
    needs_full = (
        request.resolution != "720p" or len(request.images) > 1 or _are_references(request) or bool(request.videos)
    )
    if request.duration_s not in SECONDS or (needs_full and request.duration_s != FULL_S):
        allowed = f"{FULL_S}" if needs_full else ", ".join(map(str, SECONDS))
        return f"'duration' {request.duration_s} is not available: this upstream makes {allowed} seconds here."
    return None


def _why_not_lite(request: VideoRequest) -> str | None:
    if request.resolution == "4k":
        return "'resolution' 4k is not available: the upstream's lite model does not make it."
    if request.operation is Operation.VIDEO_REMIX:
        return "A remix is not available: the upstream's lite model extends no videos."
    if _are_references(request):
        return "'generation_type' reference is not available: the upstream's lite model takes one start image only."
    if len(request.images) > 1:
        return "'image_urls' may hold one image only: the upstream's lite model takes no last frame."
    return None


def _why_not_inputs(request: VideoRequest, *, is_remix: bool) -> str | None:
    if request.audios:
        return "'audio_urls' is not available: this upstream takes no sounds."
    if request.videos and not is_remix:
        return "'video_urls' is not available: this upstream takes no reference videos."
    if request.first_frame is not None and request.images:
        return "'first_frame_image' is not available beside 'image_urls' at this upstream."
    if _are_references(request):
        if len(request.images) > MAX_REFERENCES:
            return f"'image_urls' may hold {MAX_REFERENCES} references at most: this upstream takes no more."
        return None if request.prompt else "'prompt' is missing: this upstream needs one beside references."
    if len(request.images) > 2:
        return "'image_urls' may hold two frames at most: the first and the last."
    return None


def _why_not_params(request: VideoRequest, *, gemini: bool) -> str | None:
    params = request.params
    if params.get("watermark") is True:
        return "'watermark' is not available: this upstream puts no visible mark on its videos."
    if params.get("audio_setting") is not None:
        return "'audio_setting' is not available at this upstream."
    if gemini and params.get("seed") is not None:
        return "'seed' is not available at this upstream."
    if gemini and params.get("generate_audio") is False:
        return "'generate_audio' cannot be switched off: this upstream always makes sound."
    if params.get("enable_gif") is True:
        return "'enable_gif' is not available at this upstream."
    if params.get("raw") is True:
        return "'raw' is not available: this upstream returns the whole extended video, not the added part."
    return None


def _why_not_extended(request: VideoRequest) -> str | None:
    if request.resolution != EXTENDABLE:
        return f"'resolution' must be {EXTENDABLE}: this upstream extends no other videos."
    source = next(iter(request.videos), None)
    if source is not None and source.width and source.height and min(source.width, source.height) != 720:
        return f"The source is not a {EXTENDABLE} video: this upstream extends no other."
    return None


def _inline(file: MediaFile) -> dict[str, Any]:
    return {"bytesBase64Encoded": Base64Of(file.path, file.size_bytes), "mimeType": file.mime}
