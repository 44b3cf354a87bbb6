"""What Seedance takes, as far as the vendor tells: asked before anything is promised to a caller."""

from __future__ import annotations

from collections.abc import Iterator

from app.requests import Operation, VideoRequest
from app.upstreams.http import MIB

RESOLUTIONS = frozenset({"480p", "720p", "1080p", "4k"})
LARGE = frozenset({"1080p", "4k"})
RATIOS = frozenset({"16:9", "4:3", "1:1", "3:4", "9:16", "21:9"})
IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp"})
VIDEO_TYPES = frozenset({"video/mp4", "video/quicktime"})
AUDIO_TYPES = frozenset({"audio/wav", "audio/x-wav", "audio/wave", "audio/mpeg", "audio/mp3"})


def why_not(request: VideoRequest, model: str) -> str | None:
    """See `Picky`."""
    return _why_not_shape(request, model) or _why_not_inputs(request) or next(_why_not_files(request), None)


def _why_not_shape(request: VideoRequest, model: str) -> str | None:
    params = request.params
    if request.operation is not Operation.VIDEO_GENERATE:
        return "This upstream neither edits nor extends videos."
    if request.resolution not in RESOLUTIONS:
        return f"'resolution' {request.resolution} is not made by this upstream."
    if request.resolution in LARGE and ("-fast" in model or "-mini" in model):
        return f"'resolution' {request.resolution} is not made by the fast model."
    if request.ratio not in RATIOS:
        return f"'size' {request.ratio} is not made by this upstream."
    if not 4 <= request.duration_s <= 15:
        return "'duration' must be 4 to 15 seconds with this upstream."
    if params.get("enable_gif"):
        return "'enable_gif' is not possible with this upstream."
    if params.get("audio_setting") not in (None, "auto"):
        return "'audio_setting' is not possible with this upstream."
    seed = params.get("seed")
    if seed is not None and not -1 <= seed <= 4_294_967_295:
        return "'seed' must be -1 to 4294967295 with this upstream."
    return None


def _why_not_inputs(request: VideoRequest) -> str | None:
    is_frames = request.params.get("generation_type") == "frame"
    if is_frames and len(request.images) + bool(request.first_frame) > 2:
        return "'image_urls' can be the first and the last frame: at most 2."
    if (request.first_frame or is_frames) and (request.videos or request.audios):
        return "A first frame and 'video_urls' or 'audio_urls' exclude each other with this upstream."
    if request.first_frame and request.images and not is_frames:
        return "'first_frame_image' and 'image_urls' exclude each other with this upstream."
    for files, field, most in (
        (request.images, "image_urls", 9),
        (request.videos, "video_urls", 3),
        (request.audios, "audio_urls", 3),
    ):
        if len(files) > most:
            return f"'{field}' holds more than {most} files, the most this upstream takes."
    if request.audios and not (request.images or request.videos):
        return "'audio_urls' needs an image or a video beside it with this upstream."
    if not (request.prompt or request.images or request.first_frame or request.videos):
        return "'prompt' is needed without an image."
    return None


def _why_not_files(request: VideoRequest) -> Iterator[str]:
    for file in (*request.images, *((request.first_frame,) if request.first_frame else ())):
        if file.mime not in IMAGE_TYPES:
            yield f"'{file.field}' must be JPEG, PNG or WebP for this upstream."
        if file.size_bytes > 30 * MIB:
            yield f"'{file.field}' must not be larger than 30 MiB for this upstream."
        if file.width and file.height:
            if min(file.width, file.height) < 300 or max(file.width, file.height) > 6000:
                yield f"'{file.field}' must measure 300 to 6000 pixels a side for this upstream."
            if not 0.4 <= file.width / file.height <= 2.5:
                yield f"'{file.field}' must be no longer than 2.5 times its width or height for this upstream."
    for files, types, kinds, most in (
        (request.videos, VIDEO_TYPES, "MP4 or MOV", 50),
        (request.audios, AUDIO_TYPES, "WAV or MP3", 15),
    ):
        for file in files:
            if file.mime not in types:
                yield f"'{file.field}' must be {kinds} for this upstream."
            if file.size_bytes > most * MIB:
                yield f"'{file.field}' must not be larger than {most} MiB for this upstream."
            if file.duration_s is not None and not 1.9 <= file.duration_s <= 15.1:
                yield f"'{file.field}' must last 2 to 15 seconds for this upstream."
        if sum(file.duration_s or 0.0 for file in files) > 15.1:
            yield f"'{files[0].field}' must not last more than 15 seconds in all for this upstream."
