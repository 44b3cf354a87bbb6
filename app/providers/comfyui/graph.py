"""The operator's two files: a graph in ComfyUI's API format, and which of its inputs are filled from a request.

A binding file is YAML or JSON::

    inputs:                    # neutral name -> "<node id>.<input name>", or a list of them
      prompt: 6.text
      negative: 7.text
      width: 5.width
      height: 5.height
      seed: 3.seed
      images: [10.image, 11.image]     # LoadImage nodes, one for each picture
      mask: 12.image                   # LoadImage or LoadImageMask: alpha 0 is repainted
      first_frame: 20.image
      last_frame: 21.image
      videos: [30.video]
      audios: [31.audio]
      frames: 40.length
      fps: 41.fps
    output: ["9"]              # nodes whose files are the result; absent: any node's
    negative: blurry, text     # what ``negative`` is filled with
    fps: 16                    # ``frames`` is seconds times this, and ``fps`` is filled with it
    frames_step: 4             # frames come as a multiple of this plus 1
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.upstreams.protocols import UpstreamDenied

Name = Literal[
    "prompt",
    "negative",
    "width",
    "height",
    "seed",
    "images",
    "mask",
    "first_frame",
    "last_frame",
    "videos",
    "audios",
    "frames",
    "fps",
]
LISTS = frozenset({"images", "videos", "audios"})
"""Names whose targets take one file each; all targets of another name take the same value."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Targets = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]


class Binding(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: dict[Name, Targets]
    output: tuple[str, ...] = ()
    negative: str = ""
    fps: int = Field(16, ge=1, le=240)
    frames_step: int = Field(1, ge=1)

    def takes(self, name: Name) -> int:
        """How many files, or whether at all."""
        return len(self.inputs.get(name, ()))

    def frames_of(self, seconds: int) -> int:
        frames = seconds * self.fps
        return frames if self.frames_step == 1 else round(frames / self.frames_step) * self.frames_step + 1


@dataclass(frozen=True, slots=True)
class Workflow:
    graph: Mapping[str, Any]
    binding: Binding

    def filled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of the graph with the values in their places; what is not bound is left out."""
        graph = copy.deepcopy(dict(self.graph))
        for name, targets in self.binding.inputs.items():
            if name not in values:
                continue
            value = values[name]
            for target, one in zip(targets, value if name in LISTS else [value] * len(targets), strict=False):
                node, key = target.split(".", 1)
                graph[node]["inputs"][key] = one
        return graph


def load(graph: str, binding: str) -> Workflow:
    """Return the workflow of two files, read anew when one changes. Raises: UpstreamDenied, naming the mistake."""
    try:
        stamps = [Path(name).stat().st_mtime_ns for name in (graph, binding)]
    except OSError as error:
        raise UpstreamDenied(f"graph or binding file: {error.strerror}") from None
    return _load(graph, binding, *stamps)


@lru_cache(maxsize=64)
def _load(graph: str, binding: str, graph_at: int, binding_at: int) -> Workflow:
    try:
        nodes = json.loads(Path(graph).read_text())
        bound = Binding.model_validate(yaml.safe_load(Path(binding).read_text()))
    except (OSError, ValueError, ValidationError, yaml.YAMLError) as error:
        raise UpstreamDenied(f"graph or binding file: {type(error).__name__}: {error}"[:300]) from None
    if not isinstance(nodes, dict) or "nodes" in nodes:
        raise UpstreamDenied("the graph file is not in API format: use ComfyUI's 'Export (API)'")
    if "prompt" not in bound.inputs:
        raise UpstreamDenied("the binding file does not bind 'prompt'")
    for targets in bound.inputs.values():
        for target in targets:
            node, _, key = target.partition(".")
            if not key or not isinstance(nodes.get(node), dict) or not isinstance(nodes[node].get("inputs"), dict):
                raise UpstreamDenied(f"the binding file names '{target}', which is no input of the graph")
    if not set(bound.output) <= set(nodes):
        raise UpstreamDenied("the binding file names an output that is no node of the graph")
    return Workflow(nodes, bound)
