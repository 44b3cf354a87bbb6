"""Graphs, requests and calls for the tests of the ComfyUI provider, and its harness for the shared suite."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import SecretStr

from app.fetch.client import SafeFetcher
from app.providers.comfyui import provider
from app.providers.comfyui.adapter import ComfyuiProvider
from app.settings import Settings
from app.upstreams.contract.harness import SECRET
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Call, Upstream
from tests.providers.calls import make_call
from tests.providers.fakes.comfyui import FakeComfyui

QUICK: Mapping[str, Any] = {"image_poll_s": 0.001, "image_wait_s": 0.25}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


STILL = {
    "3": node("KSampler", seed=1, positive=["6", 0], negative=["7", 0], latent_image=["5", 0], model=["4", 0]),
    "4": node("CheckpointLoaderSimple", ckpt_name="flux.safetensors"),
    "5": node("EmptyLatentImage", width=512, height=512, batch_size=1),
    "6": node("CLIPTextEncode", text=""),
    "7": node("CLIPTextEncode", text=""),
    "9": node("SaveImage", filename_prefix="mediagate", images=["3", 0]),
}
EDIT = {**STILL, "10": node("LoadImage", image="")}
INPAINT = {**EDIT, "12": node("LoadImageMask", image="", channel="alpha")}
FILM = {
    "4": node("CheckpointLoaderSimple", ckpt_name="flux.safetensors"),
    "6": node("CLIPTextEncode", text=""),
    "40": node("WanImageToVideo", length=1, width=64, height=64),
    "41": node("CreateVideo", fps=1, images=["40", 0]),
    "9": node("SaveVideo", filename_prefix="mediagate", video=["41", 0]),
}
FRAMES = {**FILM, "20": node("LoadImage", image=""), "21": node("LoadImage", image="")}
SOURCE = {**FILM, "30": node("LoadVideo", file="")}

STILL_INPUTS = {
    "prompt": "6.text",
    "negative": "7.text",
    "width": "5.width",
    "height": "5.height",
    "seed": "3.seed",
}
FILM_INPUTS = {"prompt": "6.text", "width": "40.width", "height": "40.height", "frames": "40.length", "fps": "41.fps"}
BINDINGS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "still": (STILL, {"inputs": STILL_INPUTS, "negative": "blurry", "output": ["9"]}),
    "edit": (EDIT, {"inputs": {**STILL_INPUTS, "images": "10.image"}}),
    "inpaint": (INPAINT, {"inputs": {**STILL_INPUTS, "images": ["10.image"], "mask": "12.image"}}),
    "film": (FILM, {"inputs": FILM_INPUTS, "fps": 16, "frames_step": 4}),
    "frames": (FRAMES, {"inputs": {**FILM_INPUTS, "first_frame": "20.image", "last_frame": "21.image"}}),
    "source": (SOURCE, {"inputs": {**FILM_INPUTS, "videos": "30.file"}}),
}
MODELS = {"flux": ("still", "edit", "inpaint"), "wan": ("film", "frames", "source")}


def write_graphs(folder: Path) -> dict[str, Any]:
    """Write the files; return the account's option ``graphs``."""
    folder.mkdir(exist_ok=True)
    pairs = {}
    for name, (graph, binding) in BINDINGS.items():
        files = folder / f"{name}.graph.json", folder / f"{name}.json"
        files[0].write_text(json.dumps(graph))
        files[1].write_text(json.dumps(binding))
        pairs[name] = {"graph": str(files[0]), "binding": str(files[1])}
    return {model: [pairs[name] for name in names] for model, names in MODELS.items()}


class ComfyuiHarness:
    image_model: str | None = "flux"
    video_model: str | None = "wan"

    def __init__(self) -> None:
        self.fake = FakeComfyui()
        self.provider = provider()
        self.upstream = Upstream(name="comfyui", provider="comfyui")
        self._folder: TemporaryDirectory[str] | None = None

    async def start(self) -> None:
        await self.fake.start()
        self._folder = TemporaryDirectory()
        options = {**QUICK, "graphs": write_graphs(Path(self._folder.name))}
        self.upstream = Upstream("comfyui", "comfyui", self.fake.url, SecretStr(SECRET), options)

    async def stop(self) -> None:
        await self.fake.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def will(self, *behaviours: str) -> None:
        self.fake.will(*behaviours)

    @property
    def accepted(self) -> int:
        return self.fake.accepted

    def lacks(self, behaviour: str) -> bool:
        """It has no balance, no filter, and no status word that could be unknown."""
        return behaviour in ("quota", "moderated", "moderated_late", "unknown_word")


@dataclass(slots=True)
class Desk:
    """Hands out calls to the fake, each with a folder of its own."""

    fake: FakeComfyui
    http: UpstreamHttp
    root: Path
    comfyui: ComfyuiProvider = field(default_factory=ComfyuiProvider)
    _numbers: count[int] = field(default_factory=count)

    @classmethod
    @asynccontextmanager
    async def opened(cls, root: Path) -> AsyncIterator[Desk]:
        fake = FakeComfyui()
        await fake.start()
        fetcher = SafeFetcher(Settings())
        http = UpstreamHttp(fetcher)
        try:
            yield cls(fake, http, root)
        finally:
            await http.close()
            await fetcher.close()
            await fake.stop()

    def call(
        self,
        model: str = "flux",
        options: Mapping[str, Any] | None = None,
        *,
        token: str = "task:1",  # noqa: S107 - no secret
        secret: str | None = SECRET,
        route: Mapping[str, Any] | None = None,
    ) -> Call:
        graphs = write_graphs(self.root / "graphs")
        key = SecretStr(secret) if secret else None
        upstream = Upstream("comfyui", "comfyui", self.fake.url, key, {**QUICK, "graphs": graphs, **(options or {})})
        return make_call(upstream, model, self.root / f"out-{next(self._numbers)}", self.http, token, options=route)

    @property
    def sent(self) -> dict[str, Any]:
        """The graph of the last submit."""
        graph = next(seen.body for seen in reversed(self.fake.seen) if seen.path == "/prompt")["prompt"]
        assert isinstance(graph, dict)
        return graph
