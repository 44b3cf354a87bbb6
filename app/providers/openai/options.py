"""The switches of one account and route, over the defaults of their profile; the package tells what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.upstreams.protocols import Call, Upstream, UpstreamDenied

BASE_URL = "https://api.openai.com/v1"
_OWN_HEADERS = frozenset({"authorization", "content-type", "content-length", "host"})
_SORA = re.compile(r"sora-2(?:-|$)")
Word = Literal[
    "quality",
    "background",
    "moderation",
    "output_format",
    "output_compression",
    "style",
    "input_fidelity",
    "safety_identifier",
    "user",
]
_ALL = ("quality", "background", "moderation", "output_format", "output_compression")
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "openai": {"fields": (*_ALL, "safety_identifier"), "stream": True},
    "compatible": {"fields": _ALL},
    "sd.cpp": {
        "fields": ("output_format", "output_compression"),
        "auto_size": "resolve",
        "strip_prompt_tags": True,
    },
    "sglang": {
        "fields": (),
        "auto_size": "resolve",
        "send_response_format": "b64_json",
        "video_result": "content",  # its objects name a path of its own disk
    },
}


class Prices(BaseModel):
    """Of one unit each, in ``currency``: a million tokens, an image, a second."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str = "USD"
    text_input: float = 0
    image_input: float = 0
    output: float = 0
    image: float = 0
    second: float = 0


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: Literal["openai", "compatible", "sd.cpp", "sglang"] = "openai"
    headers: dict[str, str] = Field(default_factory=dict)
    timeout_s: float = Field(600.0, gt=0)
    refusal_statuses: frozenset[int] = frozenset()
    prices: Prices | None = None
    result_hosts: frozenset[str] | None = None
    """Read by the client for results."""

    fields: frozenset[Word]
    quality: str | dict[str, str] = "auto"
    send_response_format: Literal["never", "b64_json", "url"] = "never"
    size_style: Literal["pixels", "ratio"] = "pixels"
    resolutions: dict[str, str] = Field(default_factory=lambda: {"standard": "1k", "hd": "2k", "uhd": "4k"})
    auto_size: Literal["pass", "resolve"] = "pass"
    sizes: frozenset[str] | None = None
    ratios: frozenset[str] | None = None
    max_edge: int | None = None
    max_pixels: int | None = None
    reference_style: Literal["multipart", "image", "images", "image_urls"] = "multipart"
    reference_path: str = "/images/generations"
    reference_data: Literal["inline", "url"] = "inline"
    mask_field: str | None = None
    max_images: int = 16
    stream: bool = False
    strip_prompt_tags: bool = False
    extra: dict[str, Any] = Field(default_factory=dict)
    mode: Literal["sync"] = "sync"

    video_body: Literal["multipart", "json"] = "multipart"
    video_size_style: Literal["pixels", "ratio"] = "pixels"
    video_sizes: frozenset[str] | None = None
    video_seconds: frozenset[int] | None = None
    nearest_seconds: bool = False
    video_reference_field: str = "input_reference"
    max_video_images: int = 1
    video_fields: dict[str, str] = Field(default_factory=dict)
    video_result: Literal["auto", "content"] = "auto"
    remix: bool = True
    video_extra: dict[str, Any] = Field(default_factory=dict)

    def quality_of(self, tier: str) -> str:
        return self.quality if isinstance(self.quality, str) else self.quality.get(tier, "auto")


def read_options(upstream: Upstream, model: str, route: Mapping[str, Any] | None = None) -> Options:
    """Return the switches that apply to ``model``. Raises: UpstreamDenied when they are not valid."""
    own = dict(upstream.options)
    models = own.pop("models", None)
    of_model = models.get(model, {}) if isinstance(models, Mapping) else {}
    said = {**own, **of_model, **(route or {})}
    defaults: dict[str, Any] = dict(PROFILES.get(str(said.get("profile", "openai")), PROFILES["openai"]))
    if _SORA.match(own_name(model)):
        defaults["video_seconds"] = (4, 8, 12)
        defaults["video_sizes"] = ("720x1280", "1280x720")
        if own_name(model).startswith("sora-2-pro"):
            defaults["video_sizes"] += ("1024x1792", "1792x1024")
    try:
        return Options(**{**defaults, **said})
    except ValidationError as error:
        names = sorted({str(fault["loc"][0]) for fault in error.errors() if fault["loc"]})
        raise UpstreamDenied(f"options of upstream {upstream.name}: {', '.join(names)}") from None
    except TypeError:  # a key that is no text
        raise UpstreamDenied(f"options of upstream {upstream.name}") from None


def own_name(model: str) -> str:
    """Return the model's name without a relay's prefix: ``azure/gpt-image-2``."""
    return model.rsplit("/", 1)[-1].lower()


def base_url(upstream: Upstream) -> str:
    return (upstream.base_url or BASE_URL).rstrip("/")


def headers_of(call: Call, options: Options) -> dict[str, str]:
    """Return the headers for the upstream's API host, and for nothing else."""
    found = {name: value for name, value in options.headers.items() if name.lower() not in _OWN_HEADERS}
    if call.upstream.secret is not None:
        found["Authorization"] = f"Bearer {call.upstream.secret.get_secret_value()}"
    return found
