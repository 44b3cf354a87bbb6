"""Builds APIMart's request bodies: for each family only the keys it lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from app.providers.apimart.families import ImageFamily, VideoFamily
from app.providers.apimart.picky import is_frames
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest

UrlOf = Callable[[MediaFile], Awaitable[str]]


async def image_body(
    request: ImageRequest, model: str, family: ImageFamily, options: Mapping[str, Any], url_of: UrlOf
) -> dict[str, Any]:
    """``options`` are the route's: ``quality`` is the official model's own knob."""
    is_listed = request.ratio == "auto" or request.ratio in family.ratios
    wanted: dict[str, Any] = {
        "quality": options.get("quality"),
        "background": request.background,
        "moderation": request.hints.get("moderation"),
        "output_format": request.output_format,
        "output_compression": request.output_compression if request.output_format != "png" else None,
        "official_fallback": request.hints.get("official_fallback"),
        "image_urls": [await url_of(file) for file in request.images] or None,
        "mask_url": await url_of(request.mask) if request.mask else None,
    }
    return {
        "model": model,
        "prompt": request.prompt,
        "size": request.ratio if is_listed else f"{request.width}x{request.height}",
        "resolution": family.tiers[request.quality],
        "n": 1,
        **_listed(wanted, family.keys),
    }


async def video_body(request: VideoRequest, model: str, family: VideoFamily, url_of: UrlOf) -> dict[str, Any]:
    params = request.params
    if request.operation is Operation.VIDEO_REMIX:
        extra = {"raw": True} if params.get("raw") is True else {}
        ratio = {"aspect_ratio": request.ratio} if request.ratio in family.ratios else {}
        resolution = family.resolutions[request.resolution]
        return {"model": model, "prompt": request.prompt, **extra, **ratio, "resolution": resolution}
    is_edit = request.operation is Operation.VIDEO_EDIT
    follows_input = is_edit or (request.first_frame is not None and "first_frame_image" in family.keys)
    wanted: dict[str, Any] = {
        "duration": None if is_edit else request.duration_s,
        family.ratio_key: None if follows_input and not family.frames else request.ratio,
        "generate_audio": params.get("generate_audio"),
        "watermark": params.get("watermark") is True,
        "seed": params.get("seed"),
        "enable_gif": params.get("enable_gif"),
        "official_fallback": params.get("official_fallback"),
        "audio_setting": (params.get("audio_setting") or "auto") if is_edit else None,
        "video_url": await url_of(request.videos[0]) if is_edit and request.videos else None,
        "video_urls": None if is_edit else [await url_of(file) for file in request.videos] or None,
        "audio_urls": [await url_of(file) for file in request.audios] or None,
        **await _pictures(request, family, url_of),
    }
    prompt = {"prompt": request.prompt} if request.prompt else {}
    return {
        "model": model,
        **prompt,
        "resolution": family.resolutions[request.resolution],
        **_listed(wanted, family.keys),
    }


async def _pictures(request: VideoRequest, family: VideoFamily, url_of: UrlOf) -> dict[str, Any]:
    first = await url_of(request.first_frame) if request.first_frame else None
    images = [await url_of(file) for file in request.images]
    if family.frames:
        together = [first, *images] if first else images
        if "first_frame_image" in family.keys:
            names = ("first_frame_image", "last_frame_image")
            return dict(zip(names, together, strict=False))
        kind = "frame" if is_frames(request) else "reference"
        return {"image_urls": together, "generation_type": kind} if together else {}
    if first and "image_with_roles" in family.keys:
        return {"image_with_roles": [{"url": first, "role": "first_frame"}]}
    return {"first_frame_image": first, "image_urls": images or None}


def _listed(wanted: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if name in keys and value is not None}
