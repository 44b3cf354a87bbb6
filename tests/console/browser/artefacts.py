"""Pictures of pages: all of them as artefacts of a run, and small ones for the READMEs."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

from PIL import Image
from playwright.async_api import Page

from tests.plugins.gateway import ROOT

README_FOLDER = ROOT / "docs" / "images"
README_BYTES = 1_500_000
"""All of its pictures together."""
COLOURS = 256


def folder() -> Path:
    """Return where a run keeps its pictures: MEDIAGATE_ARTEFACTS, or a folder that git ignores."""
    return Path(os.environ.get("MEDIAGATE_ARTEFACTS") or ROOT / ".artefacts").absolute()


async def shoot(page: Page, name: str, *, full_page: bool = True) -> Path:
    """Keep a picture of a page; ``name`` may hold folders."""
    path = folder() / f"{re.sub(r'[^A-Za-z0-9_./-]', '-', name)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=path, full_page=full_page, animations="disabled", caret="hide")
    return path


def quantised(png: bytes) -> bytes:
    """Return a picture with a palette: about a third of the bytes, and hardly to be told from the other."""
    packed = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT).save(
        packed, "PNG", optimize=True
    )
    return packed.getvalue()
