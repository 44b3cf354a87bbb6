"""Draw one image in the child: a gradient with the prompt, or the caller's own picture changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from app.media.pictures import flatten, save
from app.providers.demo import drawing

TINT = (255, 120, 40)
TINT_PART = 0.45
CORNER_PART = 0.12


def draw(job: Path, request: dict[str, Any]) -> Image.Image:
    """Return the image of a request, of exactly its pixels."""
    size = request["width"], request["height"]
    if not request["images"]:
        return _generated(request, size)
    with Image.open(job / request["images"][0]) as source:
        source.load()
    keeps_alpha = request["transparent"] and source.has_transparency_data
    base = drawing.cover(source.convert("RGBA") if keeps_alpha else flatten(source), size)
    others = [_load(job / name) for name in request["images"][1:]]
    if request["mask"] is None:
        return _edited(base, request, others)
    with Image.open(job / request["mask"]) as mask:
        kept = drawing.cover(mask.convert("RGBA").getchannel("A"), size)
    return _edited_inside(base, ImageChops.invert(kept), request, others)


def draw_partial(job: Path, request: dict[str, Any], *, index: int) -> Image.Image:
    """Return an interim state of the image: soft at first, sharper with each index."""
    final = draw(job, request)
    return final.filter(ImageFilter.BoxBlur(max(final.size) / (32 << index)))


def write(image: Image.Image, out: Path, request: dict[str, Any]) -> None:
    save(image, out, request["format"], request["compression"])


def _generated(request: dict[str, Any], size: tuple[int, int]) -> Image.Image:
    image = drawing.gradient(request["prompt"], request["seed"], size)
    if request["transparent"]:
        shape = Image.new("L", size, 0)
        ImageDraw.Draw(shape).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), CORNER_PART * min(size), fill=255)
        image.putalpha(shape)
    room = size[0] * 9 // 10, size[1] * 9 // 10
    panel = drawing.caption(request["prompt"], room, min(size) // 16)
    if panel is not None:
        drawing.put(image, panel, ((size[0] - panel.width) // 2, (size[1] - panel.height) // 2))
    return image


def _edited(base: Image.Image, request: dict[str, Any], others: list[Image.Image]) -> Image.Image:
    """The picture stays visible; the prompt runs along the bottom, further references sit in the corner above it."""
    _decorate(base, (0, 0, *base.size), request["prompt"], others, font_px=min(base.size) // 24)
    return base


def _edited_inside(
    base: Image.Image, change: Image.Image, request: dict[str, Any], others: list[Image.Image]
) -> Image.Image:
    """The change shows only where the mask is transparent; elsewhere every pixel is the source's."""
    area = change.getbbox()
    if area is None:
        return base
    edited = Image.blend(base, Image.new(base.mode, base.size, TINT), TINT_PART)
    _decorate(edited, area, request["prompt"], others, font_px=(area[3] - area[1]) // 8)
    return Image.composite(edited, base, change)


def _decorate(image: Image.Image, area: drawing.Box, prompt: str, others: list[Image.Image], *, font_px: int) -> None:
    left, top, right, bottom = area
    width, height = right - left, bottom - top
    panel = drawing.caption(prompt, (width, height // 3), font_px)
    strip = drawing.inset_strip(others, (width, height // 4))
    low = bottom - (panel.height if panel is not None else 0)
    drawing.put(image, panel, (left, low))
    if strip is not None:
        drawing.put(image, strip, (right - strip.width, low - strip.height))


def _load(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.draft("RGB", (1024, 1024))
        return flatten(image)
