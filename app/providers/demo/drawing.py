"""Gradients, captions and inset pictures: what the demo provider's images and films are made of.

Pure functions of their arguments: the same prompt always gives the same pixels.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

FONT = Path(__file__).parent / "fonts" / "MediagateSansSC-Regular.ttf"
MIN_FONT_PX = 8
MAX_FONT_PX = 160
MAX_CHARACTERS = 2000  # no caption shows more
PANEL = (10, 12, 18, 150)
Box = tuple[int, int, int, int]


def gradient(prompt: str, seed: int | None, size: tuple[int, int]) -> Image.Image:
    """Return 4x4 colours from the prompt's hash, scaled up smoothly."""
    digest = hashlib.shake_256(f"{seed or 0}:{prompt}".encode(errors="replace")).digest(48)
    colours = bytes(40 + value * 170 // 255 for value in digest)  # neither black nor white: the text stays readable
    return Image.frombytes("RGB", (4, 4), colours).resize(size, Image.Resampling.BICUBIC)


@lru_cache(maxsize=16)
def font(pixels: int) -> ImageFont.FreeTypeFont:
    # The basic layout is the same everywhere; the other one depends on what is installed.
    return ImageFont.truetype(FONT, pixels, layout_engine=ImageFont.Layout.BASIC)


def clean(text: str) -> str:
    """Return what can be drawn: no control characters, no lone surrogates; what the font lacks becomes its box."""
    kept = []
    for character in text[:MAX_CHARACTERS]:
        category = unicodedata.category(character)
        if character == "\n":
            kept.append(character)
        elif category == "Cs":
            kept.append("\ufffd")
        elif category in ("Cc", "Zs", "Zl", "Zp"):
            kept.append(" ")
        elif category not in ("Cf", "Mn", "Me"):
            kept.append(character)
    return "".join(kept).strip()


def caption(text: str, room: tuple[int, int], font_px: int) -> Image.Image | None:
    """Return a dark translucent panel with the wrapped text in white, no larger than ``room``.

    The letters get smaller until the text fits, and at the smallest size it ends in an ellipsis. None when there is
    no text, or no room for a single letter.
    """
    text = clean(text)
    pixels = max(MIN_FONT_PX, min(MAX_FONT_PX, font_px))
    while True:
        face, pad, line_px = font(pixels), max(2, pixels // 2), round(pixels * 1.35)
        width, height = room[0] - 2 * pad, room[1] - 2 * pad
        if text and width >= pixels and height >= line_px:
            lines = wrap(text, face, width)
            fits = height // line_px
            if len(lines) <= fits or pixels <= MIN_FONT_PX:
                break
        elif pixels <= MIN_FONT_PX:
            return None
        pixels = max(MIN_FONT_PX, pixels * 3 // 4)
    if len(lines) > fits:
        lines = [*lines[: fits - 1], lines[fits - 1][:-1] + "…"]
    widest = max(round(face.getlength(line)) for line in lines)
    size = min(room[0], widest + 2 * pad), min(room[1], len(lines) * line_px + 2 * pad)
    panel = Image.new("RGBA", size, PANEL)
    draw = ImageDraw.Draw(panel)
    for number, line in enumerate(lines):
        draw.text((pad, pad + number * line_px), line, font=face, fill=(255, 255, 255, 255))
    return panel


def wrap(text: str, face: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break lines at spaces, and anywhere between characters that are written without them."""
    lines = []
    for paragraph in text.split("\n"):
        line, used = "", 0.0
        for word in _words(paragraph):
            length = _length(word, face)
            if line and used + length > width:
                lines.append(line.rstrip())
                line, used = "", 0.0
                if word == " ":
                    continue
            while length > width and len(word) > 1:  # longer than a whole line
                cut = max(1, int(len(word) * width / length))
                lines.append(word[:cut])
                word = word[cut:]
                length = _length(word, face)
            line, used = line + word, used + length
        lines.append(line.rstrip())
    return lines


def _words(paragraph: str) -> list[str]:
    words: list[str] = []
    joins = False  # whether the next letter belongs to the last word
    for character in paragraph:
        is_letter = character != " " and ord(character) < 0x2E80
        if is_letter and joins:
            words[-1] += character
        else:
            words.append(character)
        joins = is_letter
    return words


def _length(text: str, face: ImageFont.FreeTypeFont) -> float:
    return sum(_advance(character, face) for character in text)


@lru_cache(maxsize=4096)
def _advance(character: str, face: ImageFont.FreeTypeFont) -> float:
    return face.getlength(character)


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale and cut an image so that it fills ``size``; one of this size stays as it is."""
    if image.size == size:
        return image
    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)


def inset_strip(images: Sequence[Image.Image], room: tuple[int, int]) -> Image.Image | None:
    """Return small framed copies side by side, no larger than ``room``."""
    if not images:
        return None
    side = min(room[1], room[0] // len(images))
    frame = max(1, side // 40)
    inner = side - 4 * frame
    if inner < 4:
        return None
    strip = Image.new("RGBA", (side * len(images), side), (0, 0, 0, 0))
    for number, image in enumerate(images):
        small = image.convert("RGB")
        small.thumbnail((inner, inner))
        framed = ImageOps.expand(small, frame, "white")
        strip.paste(framed, (number * side + (side - framed.width) // 2, (side - framed.height) // 2))
    return strip


def put(image: Image.Image, layer: Image.Image | None, at: tuple[int, int]) -> None:
    """Lay a translucent picture over an RGB or RGBA image."""
    if layer is None:
        return
    if image.mode == "RGBA":
        image.alpha_composite(layer, at)
    else:
        image.paste(layer, at, layer)
