"""From a shape and a tier to pixels: the size tables, and what happens to a ratio that is on none of their rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import log, sqrt
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from app.catalog.frozen import Frozen

_PIXELS = re.compile(r"([0-9]{1,5})\s*[xX×]\s*([0-9]{1,5})")
_RATIO = re.compile(r"([0-9]{1,4})\s*:\s*([0-9]{1,4})")
STEP = 16
"""Edges of a computed picture are multiples of this."""
VIDEO_TOLERANCE = 0.03
"""How far WIDTHxHEIGHT may be from a ratio a video model has: 854x480 means 16:9."""


class SizeError(ValueError):
    """This shape cannot be made; the message says why, as the end of a sentence."""


class Limits(Frozen):
    """What an upstream accepts; checked for every entry of the table, and kept by computed sizes."""

    multiple: int = Field(1, ge=1)
    max_ratio: float | None = Field(None, ge=1)
    max_edge: int | None = Field(None, ge=1)
    min_pixels: int = Field(1, ge=1)
    max_pixels: int | None = Field(None, ge=1)

    def complaint(self, width: int, height: int) -> str | None:
        """Say what is wrong with these pixels, or None."""
        long, short = max(width, height), min(width, height)
        if width % self.multiple or height % self.multiple:
            return f"edges must be multiples of {self.multiple}"
        if self.max_ratio is not None and long > short * self.max_ratio:
            return f"the ratio must be within {self.max_ratio:g}:1"
        if self.max_edge is not None and long > self.max_edge:
            return f"edges must be at most {self.max_edge}"
        if width * height < self.min_pixels:
            return f"at least {self.min_pixels} pixels are needed"
        if self.max_pixels is not None and width * height > self.max_pixels:
            return f"at most {self.max_pixels} pixels are possible"
        return None


class SizeTable(Frozen):
    """Pixels by ratio and tier, and the rule for other ratios."""

    pixels: dict[str, dict[str, str]] = Field(min_length=1)
    off_table: Literal["nearest16", "crop", "refuse"] = "refuse"
    limits: Limits = Limits()
    _parsed: dict[tuple[str, str], tuple[int, int]] = PrivateAttr(default_factory=dict)
    _rows: dict[Fraction, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _parse(self) -> Self:
        for ratio, tiers in self.pixels.items():
            value = parse_ratio(ratio)
            if value is not None:
                self._rows.setdefault(value, ratio)
            for tier, text in tiers.items():
                pixels = parse_pixels(text)
                if pixels is not None:
                    self._parsed[ratio, tier] = pixels
        return self

    def complaints(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield what is wrong with entries, each with its place below ``pixels``. The loader lets none through."""
        for ratio, tiers in self.pixels.items():
            value = parse_ratio(ratio)
            if value is None:
                yield (ratio,), f"'{ratio}' is no ratio"
            elif self._rows[value] != ratio:
                yield (ratio,), f"'{ratio}' and '{self._rows[value]}' are the same ratio"
            for tier, text in tiers.items():
                pixels = self._parsed.get((ratio, tier))
                if pixels is None:
                    yield (ratio, tier), f"'{text}' is not WIDTHxHEIGHT"
                elif (complaint := self.limits.complaint(*pixels)) is not None:
                    yield (ratio, tier), f"{text}: {complaint}"

    def at(self, ratio: str, tier: str) -> tuple[int, int]:
        """Return width and height of one entry. Raises: KeyError."""
        return self._parsed[ratio, tier]

    def row(self, ratio: Fraction) -> str | None:
        return self._rows.get(ratio)

    def entry_of(self, width: int, height: int) -> tuple[str, str] | None:
        """Return ratio and tier of exactly these pixels: a caller may send back a size that we reported."""
        return next((entry for entry, pixels in self._parsed.items() if pixels == (width, height)), None)


@dataclass(frozen=True, slots=True)
class ImageSize:
    """What to make, and what to cut out of its centre when the upstream cannot make the asked shape."""

    width: int
    height: int
    ratio: str
    """The shape of what is made; ``auto``: the upstream may choose."""
    crop: tuple[int, int] | None = None
    crop_ratio: str | None = None
    """The asked shape, when something is cut."""

    @property
    def final(self) -> tuple[int, int]:
        return self.crop or (self.width, self.height)

    def as_params(self) -> dict[str, Any]:
        width, height = self.final
        params: dict[str, Any] = {"size": f"{width}x{height}", "ratio": self.ratio}
        params |= {"width": self.width, "height": self.height}
        if self.crop is not None:
            params |= {"crop_width": self.crop[0], "crop_height": self.crop[1], "crop_ratio": self.crop_ratio}
        return params


def parse_pixels(text: str) -> tuple[int, int] | None:
    match = _PIXELS.fullmatch(text.strip())
    if match is None:
        return None
    width, height = int(match[1]), int(match[2])
    return (width, height) if width and height else None


def parse_ratio(text: str) -> Fraction | None:
    match = _RATIO.fullmatch(text.strip())
    if match is None:
        return None
    width, height = int(match[1]), int(match[2])
    return Fraction(width, height) if width and height else None


def image_pixels(table: SizeTable, size: str, tier: str) -> ImageSize:
    """Return the pixels for ``size`` (a ratio, WIDTHxHEIGHT or ``auto``) at ``tier``.

    WIDTHxHEIGHT only means its ratio: the tier decides the pixels. Raises: SizeError.
    """
    word = size.strip().lower()
    if word == "auto":
        width, height = table.at("1:1", tier)
        return ImageSize(width, height, "auto")
    pixels = parse_pixels(word)
    if pixels is not None:
        entry = table.entry_of(*pixels)
        asked: Fraction | None = parse_ratio(entry[0]) if entry else Fraction(*pixels)
    else:
        asked = parse_ratio(word)
    if asked is None:
        raise SizeError("it is neither a ratio nor WIDTHxHEIGHT")
    row = table.row(asked)
    if row is not None:
        return ImageSize(*table.at(row, tier), row)
    name = f"{asked.numerator}:{asked.denominator}" if pixels else word
    limit = table.limits.max_ratio
    if limit is not None and max(asked, 1 / asked) > limit:
        raise SizeError(f"the ratio must be within {limit:g}:1")
    if table.off_table == "nearest16":
        return ImageSize(*_nearest_multiple(table, asked, tier), name)
    if table.off_table == "crop":
        return _cropped(table, asked, tier, name)
    raise SizeError("this ratio is not in the model's size table")


def video_shape(table: SizeTable, size: str, ratios: Iterable[str]) -> str:
    """Return which of ``ratios`` the shape (a ratio or WIDTHxHEIGHT) is. Raises: SizeError."""
    allowed = tuple(ratios)
    pixels = parse_pixels(size)
    if pixels is None:
        asked = parse_ratio(size)
        row = table.row(asked) if asked is not None else None
        if row is None or row not in allowed:
            raise SizeError("this ratio is not available")
        return row
    ratio = nearest_ratio(*pixels, allowed)
    if abs(log(Fraction(*pixels) / _fraction(ratio))) > VIDEO_TOLERANCE:
        raise SizeError("this shape is not available")
    return ratio


def video_pixels(table: SizeTable, resolution: str, ratio: str) -> tuple[int, int]:
    """Return width and height. Raises: KeyError for what the loader did not find in the table."""
    return table.at(ratio, resolution)


def short_edges(table: SizeTable, tiers: Iterable[str]) -> dict[str, int]:
    """Return the short edge of each tier: that of its squarest shape."""
    return {tier: max(min(pixels) for (_, t), pixels in table._parsed.items() if t == tier) for tier in tiers}


def nearest_ratio(width: int, height: int, allowed: Iterable[str]) -> str:
    """Return the allowed ratio closest to a picture of this size; words such as ``adaptive`` are passed over.

    Raises: ValueError when nothing is allowed.
    """
    asked = Fraction(width, height)
    ratios = [ratio for ratio in allowed if parse_ratio(ratio) is not None]
    return min(ratios, key=lambda ratio: abs(log(asked / _fraction(ratio))))


def _fraction(ratio: str) -> Fraction:
    value = parse_ratio(ratio)
    if value is None:
        raise ValueError(f"'{ratio}' is no ratio")
    return value


def _nearest_multiple(table: SizeTable, asked: Fraction, tier: str) -> tuple[int, int]:
    """Return edges in multiples of 16 close to ``asked``, at the area of the tier's square, within the limits."""
    square = table.at("1:1", tier)
    area, limits = square[0] * square[1], table.limits
    width, height = sqrt(area * asked), sqrt(area / asked)
    if limits.max_edge is not None and max(width, height) > limits.max_edge:
        shrink = limits.max_edge / max(width, height)
        width, height = width * shrink, height * shrink
    nearest = (_step(width), _step(height))
    if limits.complaint(*nearest) is None:
        return nearest
    around = [
        (nearest[0] + x * STEP, nearest[1] + y * STEP)
        for x in (-2, -1, 0, 1)
        for y in (-2, -1, 0, 1)
        if nearest[0] + x * STEP > 0 and nearest[1] + y * STEP > 0
    ]
    legal = [pixels for pixels in around if limits.complaint(*pixels) is None]
    if not legal:
        raise SizeError("no size of this ratio is within the model's limits")
    return min(legal, key=lambda p: (abs(log(p[0] / p[1] / asked)), -p[0] * p[1]))


def _step(edge: float) -> int:
    return max(STEP, int(edge / STEP + 0.5) * STEP)


def _cropped(table: SizeTable, asked: Fraction, tier: str, name: str) -> ImageSize:
    """Return the entry that loses the least when its centre is cut to ``asked``."""
    made = {ratio: table.at(ratio, tier) for ratio in table.pixels}

    def kept(ratio: str) -> Fraction:
        have = Fraction(*made[ratio])
        return min(have / asked, asked / have)

    ratio = max(made, key=kept)
    width, height = made[ratio]
    if Fraction(width, height) > asked:
        crop = (max(1, _rounded(height * asked)), height)
    else:
        crop = (width, max(1, _rounded(width / asked)))
    if crop == (width, height):
        return ImageSize(width, height, ratio)
    return ImageSize(width, height, ratio, crop=crop, crop_ratio=name)


def _rounded(value: Fraction) -> int:
    return int(value + Fraction(1, 2))
