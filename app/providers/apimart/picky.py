"""What APIMart cannot serve, said before anything is promised."""

from __future__ import annotations

from app.providers.apimart.families import MIB, ImageFamily, VideoFamily
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest

UPLOAD_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


def why_not_image(request: ImageRequest, family: ImageFamily) -> str | None:
    if request.quality not in family.tiers:
        return f"'quality' {request.quality} is not made by this upstream."
    if request.ratio != "auto" and request.ratio not in family.ratios and not family.any_size:
        return f"'size' {request.ratio} is not made by this upstream."
    if len(request.images) > family.max_images:
        return f"'image_urls' holds more than {family.max_images} files, the most this upstream takes."
    if request.mask is not None and "mask_url" not in family.keys:
        return "'mask' is not possible with this upstream."
    return why_not_files((*request.images, *((request.mask,) if request.mask else ())), family.input_bytes)


def why_not_files(files: tuple[MediaFile, ...], most: int) -> str | None:
    for file in files:
        if file.mime not in UPLOAD_TYPES:
            return f"'{file.field}' must be JPEG, PNG, GIF or WebP for this upstream."
        if file.size_bytes > most:
            return f"'{file.field}' must not be larger than {most // MIB} MiB for this upstream."
    return None


def why_not_video(request: VideoRequest, family: VideoFamily) -> str | None:
    if request.resolution not in family.resolutions:
        return f"'resolution' {request.resolution} is not made by this upstream."
    if request.operation is Operation.VIDEO_REMIX:
        if not family.can_remix:
            return "This upstream does not extend videos of this model."
        return None if request.source_upstream_id else "The original of this remix is not known to this upstream."
    return (
        _why_not_shape(request, family)
        or _why_not_params(request, family)
        or _why_not_inputs(request, family)
        or why_not_files(
            (*request.images, *((request.first_frame,) if request.first_frame else ())), family.input_bytes
        )
    )


def _why_not_shape(request: VideoRequest, family: VideoFamily) -> str | None:
    if request.operation is Operation.VIDEO_EDIT:
        return None if "video_url" in family.keys else "'video_url' is not possible with this upstream."
    if request.first_frame is None and request.ratio not in family.ratios:
        return f"'size' {request.ratio} is not made by this upstream."
    if request.duration_s not in family.seconds:
        least, most = family.seconds[0], family.seconds[-1]
        return f"'duration' must be {least} to {most} seconds with this upstream."
    return None


def _why_not_params(request: VideoRequest, family: VideoFamily) -> str | None:
    params = request.params
    for name, idle in (("seed", None), ("watermark", False), ("generate_audio", None), ("enable_gif", False)):
        value = params.get(name)
        if name not in family.keys and value not in (None, idle, family.fixed.get(name, idle)):
            return f"'{name}' {str(value).lower()} is not possible with this upstream."
    if params.get("audio_setting") not in (None, "auto") and "audio_setting" not in family.keys:
        return "'audio_setting' is not possible with this upstream."
    if params.get("enable_gif") and request.resolution != "720p":
        return "'enable_gif' is possible only at 720p with this upstream."
    return None


def _why_not_inputs(request: VideoRequest, family: VideoFamily) -> str | None:
    pictures = len(request.images) + (request.first_frame is not None)
    if pictures and not family.max_images and not family.frames:
        return "'image_urls' is not possible with this upstream."
    most = 5 if request.operation is Operation.VIDEO_EDIT else (family.max_images or 2)
    if len(request.images) > most:
        return f"'image_urls' holds more than {most} files, the most this upstream takes."
    if family.frames and is_frames(request) and pictures > 2:
        return "'image_urls' can be the first and the last frame: at most 2."
    if family.frames and not family.references and pictures and not is_frames(request):
        return "'generation_type' reference is not possible with this upstream."
    for files, field in ((request.videos, "video_urls"), (request.audios, "audio_urls")):
        if files and field not in family.keys and request.operation is not Operation.VIDEO_EDIT:
            return f"'{field}' is not possible with this upstream."
        if len(files) > 3:
            return f"'{field}' holds more than 3 files, the most this upstream takes."
        if sum(file.duration_s or 0.0 for file in files) > 15.1 and field in family.keys:
            return f"'{field}' must not last more than 15 seconds in all for this upstream."
    if request.first_frame and (request.images or request.videos or request.audios) and not family.frames:
        return "'first_frame_image' and other inputs exclude each other with this upstream."
    if request.audios and not (request.images or request.videos):
        return "'audio_urls' needs an image or a video beside it with this upstream."
    if not request.prompt and not request.first_frame:
        return "'prompt' is needed with this upstream."
    return None


def is_frames(request: VideoRequest) -> bool:
    """Whether the pictures are the first and the last frame; where nothing was said, up to two are."""
    kind = request.params.get("generation_type")
    if kind is None:
        return len(request.images) + (request.first_frame is not None) <= 2
    return bool(kind == "frame")
