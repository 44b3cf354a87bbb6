"""From a request to what a graph's bound inputs are filled with."""

from __future__ import annotations

import hashlib
from typing import Any

from app.providers.comfyui.graph import Binding, Name
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest

Files = dict[Name, tuple[MediaFile, ...]]
_FIELDS: dict[Name, str] = {
    "images": "image_urls",
    "mask": "mask",
    "first_frame": "first_frame_image",
    "last_frame": "image_urls",
    "videos": "video_urls",
    "audios": "audio_urls",
}


def files_of(request: ImageRequest | VideoRequest, binding: Binding) -> Files:
    """Return the input files by the name they are bound to; names without a file are left out."""
    if isinstance(request, ImageRequest):
        files: Files = {"images": request.images, "mask": (request.mask,) if request.mask else ()}
    else:
        first = (request.first_frame,) if request.first_frame else ()
        images: tuple[MediaFile, ...] = request.images
        last: tuple[MediaFile, ...] = ()
        if request.params.get("generation_type") == "frame":
            frames = (*first, *images)
            first, last, images = frames[:1], frames[1:2], frames[2:]
        if first and not binding.takes("first_frame"):
            first, images = (), (*first, *images)
        files = {
            "images": images,
            "first_frame": first,
            "last_frame": last,
            "videos": request.videos,
            "audios": request.audios,
        }
    return {name: given for name, given in files.items() if given}


def why_not(request: ImageRequest | VideoRequest, binding: Binding) -> str | None:
    """Return why the graph cannot serve this request, as a sentence that names the field.

    An input that is bound must be given: the graph would go on with the file of whoever saved it.
    """
    if isinstance(request, VideoRequest):
        if request.operation is Operation.VIDEO_REMIX and not request.videos:
            return "The original of this remix is needed as a file by this upstream."
        if request.params.get("enable_gif"):
            return "'enable_gif' is not possible with this upstream."
    given = files_of(request, binding)
    for name, field in _FIELDS.items():
        takes, has = binding.takes(name), len(given.get(name, ()))
        if name in ("mask", "first_frame", "last_frame"):
            takes = min(takes, 1)
        field = given[name][0].field if has else field
        if has > takes:
            return f"'{field}' is not possible with this upstream." if not takes else _count(field, takes)
        if has < takes:
            return f"'{field}' is needed by this upstream." if not has else _count(field, takes)
    return None


def _count(field: str, takes: int) -> str:
    return f"'{field}' must hold {takes} {'file' if takes == 1 else 'files'} for this upstream."


def values_of(request: ImageRequest | VideoRequest, binding: Binding, token: str) -> dict[str, Any]:
    """Return the values of the inputs that are no files. A seed that was left open is made from the token."""
    given = request.hints if isinstance(request, ImageRequest) else request.params
    seed = given.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        seed = int.from_bytes(hashlib.sha256(token.encode()).digest()[:6])
    values = {
        "prompt": request.prompt,
        "negative": binding.negative,
        "width": request.width,
        "height": request.height,
        "seed": seed,
    }
    if isinstance(request, VideoRequest):
        values |= {"frames": binding.frames_of(request.duration_s), "fps": binding.fps}
    return values
