"""Inside the child: judge a foreign image, and turn one into another format. The header is read before any pixel."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from app.media.signatures import read_head, sniff

MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384
MIMES = {"PNG": "image/png", "JPEG": "image/jpeg", "WebP": "image/webp"}
WEBP_METHOD = 2  # measured: 4 takes twice as long for 4 % less
PREVIEW_SIDE = 480
PREVIEW_QUALITY = 80
PROFILE_BYTES = 4096
"""A larger colour profile would outweigh a small picture."""

Image.MAX_IMAGE_PIXELS = None  # we count ourselves, before decoding, and say what we found


class Refused(Exception):
    """What is wrong with the file, as the end of a sentence: ``is an empty file``."""


def inspect(path: Path) -> dict[str, Any]:
    """Return the facts of an image, or ``{"refused": why}``. Every pixel is decoded."""
    try:
        with _open(path) as image:
            _decode(image)
            return _facts(image)
    except Refused as refused:
        return {"refused": str(refused)}


def verify(path: Path) -> dict[str, Any]:
    """As `inspect`, without decoding more than it takes to see that the file is whole.

    For 16 megapixels 10 ms (PNG: its checksums), 50 ms (JPEG, at an eighth of its size), 500 ms (WebP).
    """
    try:
        with _open(path) as image:
            facts = _facts(image)
            if image.format == "PNG":
                _guarded(image.verify)
            else:
                image.draft(image.mode, (image.width // 8, image.height // 8))
                _guarded(image.load)
            return facts
    except Refused as refused:
        return {"refused": str(refused)}


def transcode(
    path: Path, out: Path, *, format: str, quality: int | None, crop: tuple[int, int] | None
) -> dict[str, Any]:
    """Write the image upright in ``format`` (png, jpeg, webp), cut to ``crop`` around its centre."""
    try:
        with _open(path) as image:
            _decode(image)
            picture = ImageOps.exif_transpose(image)
            if crop is not None:
                picture = _cut(picture, *crop)
            save(picture, out, format, quality, icc_profile=image.info.get("icc_profile"))
        return inspect(out)
    except Refused as refused:
        return {"refused": str(refused)}


def preview(path: Path, out: Path) -> dict[str, Any]:
    """Write the image upright as a small WebP, at most 480 pixels a side; what was transparent stays so."""
    try:
        with _open(path) as image:
            image.draft(image.mode, (PREVIEW_SIDE, PREVIEW_SIDE))  # a JPEG is decoded at a part of its size
            _decode(image)
            profile = image.info.get("icc_profile", b"") if image.mode in ("RGB", "RGBA", "P") else b""
            small = _in_colour(image)
            small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
            small = ImageOps.exif_transpose(small)
    except Refused as refused:
        return {"refused": str(refused)}
    save(small, out, "webp", PREVIEW_QUALITY, icc_profile=profile if 0 < len(profile) <= PROFILE_BYTES else None)
    return {"width": small.width, "height": small.height}


def save(
    image: Image.Image, out: Path, format: str, quality: int | None = None, *, icc_profile: bytes | None = None
) -> None:
    """Write ``image`` quickly; ``quality`` 0..100 counts for jpeg and webp. Transparency becomes white in a jpeg."""
    if format == "png":
        image.save(out, "PNG", compress_level=1, icc_profile=icc_profile)
    elif format == "jpeg":
        flat = flatten(image) if image.mode not in ("RGB", "L", "CMYK") else image
        flat.save(out, "JPEG", quality=90 if quality is None else quality, icc_profile=icc_profile)
    elif format == "webp":
        plain = (
            image if image.mode in ("RGB", "RGBA") else image.convert("RGBA" if image.has_transparency_data else "RGB")
        )
        quality = 90 if quality is None else quality
        plain.save(out, "WEBP", quality=quality, method=WEBP_METHOD, icc_profile=icc_profile)
    else:
        raise ValueError(f"unknown image format {format!r}")


def flatten(image: Image.Image) -> Image.Image:
    """Return the image in RGB, on white where it was transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _in_colour(image: Image.Image) -> Image.Image:
    """Return the image in RGB or RGBA: palettes cannot be scaled well."""
    if image.mode.startswith("I"):  # 16 bits of grey, which a conversion would cut off instead of scaling
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)  # no copy of what may be 200 MB


def _open(path: Path) -> Image.Image:
    """Read the header only, and refuse by it."""
    kind = sniff(read_head(path))
    if kind not in MIMES:
        raise Refused(f"is {kind}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = Image.open(path, formats=[kind.upper()])
            frames = getattr(image, "n_frames", 1)
    except UnidentifiedImageError:
        raise Refused(f"begins like {kind} but its header is damaged") from None
    except (OSError, SyntaxError, ValueError, Warning) as error:
        raise Refused(f"begins like {kind} but cannot be read ({error})") from None
    width, height = image.size
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        image.close()
        raise Refused(
            f"is {width}x{height} pixels; at most {MAX_PIXELS // 1_000_000} megapixels "
            f"and {MAX_SIDE:,} on a side are allowed"
        )
    # A JPEG with further pictures behind the first (MPO: phones put depth and gain maps there) is one image to us.
    if frames != 1 and kind != "JPEG":
        image.close()
        raise Refused(f"is an animated {kind} of {frames} frames; only still images are allowed")
    return image


def _decode(image: Image.Image) -> None:
    _guarded(image.load)


def _guarded(read: Callable[[], object]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read()
    except MemoryError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Warning) as error:
        raise Refused(f"is damaged or cut off ({error})") from None


def _facts(image: Image.Image) -> dict[str, Any]:
    mime = MIMES["WebP" if image.format == "WEBP" else "PNG" if image.format == "PNG" else "JPEG"]
    return {
        "mime": mime,
        "width": image.width,
        "height": image.height,
        "has_alpha": image.has_transparency_data,
        "frames": 1,
    }


def _cut(image: Image.Image, width: int, height: int) -> Image.Image:
    if width > image.width or height > image.height:
        raise Refused(f"is {image.width}x{image.height} pixels: too small to cut {width}x{height} out of it")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
