"""Reading the shape of a picture from a request: a ratio, WIDTHxHEIGHT or a word, under one name or two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.catalog.parameters import Size
from app.catalog.sizes import (
    ImageSize,
    SizeError,
    SizeTable,
    image_pixels,
    parse_pixels,
    parse_ratio,
    short_edges,
    video_pixels,
    video_shape,
)
from app.catalog.wording import invalid, listed, shown
from app.errors import InvalidParameter

ADAPTIVE = "adaptive"
"""The shape of the first input; the generation resolves it when that input was measured."""


@dataclass(frozen=True, slots=True)
class AskedShape:
    """What the caller wrote, and under which names."""

    text: str
    param: str
    pixels: str | None = None
    """WIDTHxHEIGHT, where it was given: beside a ratio it still says how large."""
    pixels_param: str | None = None


def read_shape(spec: Size, name: str, fields: Mapping[str, Any], *, model: str) -> AskedShape | None:
    """Return the asked shape, or None. A ratio wins over WIDTHxHEIGHT; two that differ are refused.

    Raises: InvalidParameter.
    """
    shapes: dict[str, str] = {}
    sizes: dict[str, str] = {}
    for public in (name, *spec.also):
        if public not in fields:
            continue
        value = fields[public]
        if not isinstance(value, str):
            raise invalid(public, value, allowed=spec.allowed(), model=model)
        text = value.strip().lower()
        (shapes if parse_pixels(text) is None else sizes)[public] = text
    for group in (shapes, sizes):
        if len({parse_ratio(text) or parse_pixels(text) or text for text in group.values()}) > 1:
            given = listed(f"'{public}' {shown(text)}" for public, text in group.items())
            last = list(group)[-1]
            raise InvalidParameter(
                f"{given} contradict each other. Allowed for '{model}': one of them, {spec.allowed()}.", param=last
            )
    if not shapes and not sizes:
        return None
    pixels_param, pixels = next(iter(sizes.items()), (None, None))
    param, text = next(iter((shapes or sizes).items()))
    return AskedShape(text, param, pixels, pixels_param)


def image_shape(
    spec: Size, asked: AskedShape | None, *, name: str, table: SizeTable, tier: str, model: str
) -> ImageSize:
    """Return the pixels of an image at this tier. Raises: InvalidParameter."""
    text, param = (asked.text, asked.param) if asked else (spec.default, name)
    try:
        if parse_pixels(text) is None and parse_ratio(text) is None and text not in spec.words:
            raise SizeError("it is neither a ratio nor WIDTHxHEIGHT")
        return image_pixels(table, text, tier)
    except SizeError as error:
        raise invalid(param, text, allowed=spec.allowed(), model=model, why=str(error)) from None


def video_ratio(
    spec: Size, asked: AskedShape, *, table: SizeTable, tiers: Iterable[str], model: str
) -> tuple[str, str | None]:
    """Return the ratio (or ``adaptive``) and the tier whose short edge the asked pixels have, if they have one.

    Raises: InvalidParameter.
    """
    tiers = tuple(tiers)
    try:
        if asked.text in spec.words:
            return asked.text, size_tier(asked, table, tiers)
        return video_shape(table, asked.text, spec.values), size_tier(asked, table, tiers)
    except SizeError as error:
        edges = listed(short_edges(table, tiers).values())
        allowed = f"{spec.allowed()} of these ratios with a short edge of {edges}"
        raise invalid(asked.param, asked.text, allowed=allowed, model=model, why=str(error)) from None


def size_tier(asked: AskedShape, table: SizeTable, tiers: Iterable[str]) -> str | None:
    """Return the tier with the short edge of the asked pixels, or None."""
    pixels = parse_pixels(asked.pixels) if asked.pixels else None
    if pixels is None:
        return None
    return next((tier for tier, edge in short_edges(table, tiers).items() if edge == min(pixels)), None)


def no_tier(spec: Size, asked: AskedShape, *, table: SizeTable, tiers: Iterable[str], model: str) -> InvalidParameter:
    """Return the error for pixels whose short edge no tier has."""
    edges = listed(short_edges(table, tiers).values())
    allowed = f"WIDTHxHEIGHT with a short edge of {edges}, or a ratio: {listed((*spec.values, *spec.words))}"
    return invalid(asked.pixels_param or asked.param, asked.pixels, allowed=allowed, model=model)


def fallback_ratio(spec: Size) -> str:
    """Return the ratio of an adaptive video that has nothing to adapt to."""
    return spec.default if parse_ratio(spec.default) is not None else spec.values[0]


def video_size_params(spec: Size, *, ratio: str, table: SizeTable, tier: str) -> dict[str, Any]:
    """Return the size keys of a video's params; those of ``adaptive`` are provisional, at the fallback ratio."""
    width, height = video_pixels(table, tier, fallback_ratio(spec) if ratio == ADAPTIVE else ratio)
    return {"size": f"{width}x{height}", "ratio": ratio, "width": width, "height": height}
