"""The shipped catalogue, and small ones written for one test."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from app.catalog.load import Catalog, load_catalog
from app.requests import Operation
from app.upstreams.protocols import Capabilities, SubmitSafety
from app.upstreams.registry import Registry, discover

CONFIG = Path(__file__).parents[2] / "config"
EVERYTHING = Capabilities(frozenset(Operation), SubmitSafety.IDEMPOTENT)
URL = "https://files.example/a.png"

UPSTREAMS = """\
upstreams:
  demo:
    provider: demo
"""

MODELS = """\
version: "1"
default_image_model: painter
default_video_model: filmer
size_tables:
  images:
    pixels:
      "1:1": {small: 64x64, large: 128x128}
      "2:1": {small: 128x64, large: 256x128}
  videos:
    pixels:
      "16:9": {720p: 1280x720}
families:
  moving:
    type: video
    title: Filmer
    operations: [video.generate]
    sizes: {table: videos, tier: resolution}
    parameters:
      resolution: {kind: choice, values: [720p], default: 720p}
      size: {kind: size, values: ["16:9"], default: "16:9"}
      duration: {kind: integer, minimum: 1, maximum: 5, default: 2}
models:
  painter:
    type: image
    title: Painter
    operations: [image.generate]
    sizes: {table: images, tier: quality}
    parameters:
      quality: {kind: choice, values: [small, large], default: small}
      size: {kind: size, values: ["1:1"], default: "1:1"}
    price: {unit: image, by: quality, credits: {small: 1, large: 2}}
    routes:
      - {upstream: demo, model: painter-1}
  filmer:
    family: moving
    price: {unit: second, credits: 3}
    routes:
      - {upstream: demo, model: filmer-1}
"""


@cache
def shipped() -> Catalog:
    return load_catalog(CONFIG, providers=Registry(discover()).capabilities)


def written(folder: Path, *, models: str = MODELS, upstreams: str = UPSTREAMS) -> Catalog:
    """Load a catalogue from text; the only provider is ``demo``, and it can do everything."""
    (folder / "models.yaml").write_text(models, encoding="utf-8")
    (folder / "upstreams.yaml").write_text(upstreams, encoding="utf-8")
    return load_catalog(folder, providers={"demo": EVERYTHING})
