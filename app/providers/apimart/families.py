"""What each family of models at APIMart takes. A key that a family does not list is refused there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from app.upstreams.protocols import Upstream

_GPT_RATIOS: Final = frozenset(
    {"1:1", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "16:9", "9:16", "2:1", "1:2", "3:1", "1:3", "21:9", "9:21"}
)
_GEMINI_RATIOS: Final = frozenset({"1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"})
_VIDEO_RATIOS: Final = frozenset({"16:9", "9:16", "1:1", "4:3", "3:4"})
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ImageFamily:
    keys: frozenset[str]
    """Beside ``model, prompt, size, resolution, n``."""
    ratios: frozenset[str]
    tiers: Mapping[str, str]
    max_images: int
    input_bytes: int = 20 * MIB
    any_size: bool = False
    """WIDTHxHEIGHT is taken too."""


@dataclass(frozen=True, slots=True)
class VideoFamily:
    keys: frozenset[str]
    """Beside ``model, prompt, resolution``."""
    ratios: frozenset[str]
    resolutions: Mapping[str, str]
    """Our word -> theirs."""
    seconds: range
    ratio_key: str = "size"
    max_images: int = 0
    input_bytes: int = 20 * MIB
    can_remix: bool = False
    frames: bool = False
    """``image_urls`` may be the first and the last frame: ``generation_type``."""
    references: bool = True
    fixed: Mapping[str, object] = field(default_factory=dict)
    """What the family does whether one asks for it or not: a parameter that cannot be sent must have this value."""


Family = ImageFamily | VideoFamily


def _same(*words: str) -> dict[str, str]:
    return {word: word for word in words}


_GPT = ImageFamily(
    keys=frozenset({"image_urls", "official_fallback"}),
    ratios=_GPT_RATIOS,
    tiers={"standard": "1k", "hd": "2k", "uhd": "4k"},
    max_images=16,
    any_size=True,
)
_GPT_OFFICIAL = replace(
    _GPT,
    keys=frozenset(
        {"image_urls", "mask_url", "quality", "background", "moderation", "output_format", "output_compression"}
    ),
)
_GEMINI = ImageFamily(
    keys=frozenset({"image_urls", "official_fallback"}),
    ratios=_GEMINI_RATIOS,
    tiers={"standard": "1K", "hd": "2K", "uhd": "4K"},
    max_images=14,
    input_bytes=10 * MIB,
)
_GEMINI_OFFICIAL = replace(_GEMINI, keys=frozenset({"image_urls"}))
_FLASH = replace(_GEMINI, ratios=_GEMINI_RATIOS | {"1:4", "4:1", "1:8", "8:1"})
_FLASH_OFFICIAL = replace(_FLASH, keys=frozenset({"image_urls"}))

_SEEDANCE_FAST = VideoFamily(
    keys=frozenset(
        {
            *("duration", "size", "image_urls", "image_with_roles", "video_urls", "audio_urls"),
            *("generate_audio", "seed"),
        }
    ),
    ratios=_VIDEO_RATIOS | {"21:9"},
    resolutions=_same("480p", "720p"),
    seconds=range(4, 16),
    max_images=9,
    fixed={"watermark": False},
)
_SEEDANCE = replace(_SEEDANCE_FAST, resolutions=_same("480p", "720p", "1080p"))
_VEO_LITE = VideoFamily(
    keys=frozenset({"duration", "aspect_ratio", "enable_gif"}),
    ratios=frozenset({"16:9", "9:16"}),
    resolutions=_same("720p", "1080p", "4k"),
    seconds=range(8, 9),
    ratio_key="aspect_ratio",
    input_bytes=10 * MIB,
    references=False,
    fixed={"generate_audio": True, "watermark": False},
)
_VEO_FAST = replace(
    _VEO_LITE,
    keys=_VEO_LITE.keys | {"image_urls", "generation_type", "official_fallback"},
    max_images=3,
    can_remix=True,
    frames=True,
    references=True,
)
_VEO_QUALITY = replace(_VEO_FAST, references=False)
_VEO_OFFICIAL = replace(
    _VEO_LITE,
    keys=frozenset({"duration", "aspect_ratio", "first_frame_image", "last_frame_image", "seed", "generate_audio"}),
    frames=True,
    fixed={"watermark": False},
)
_HAPPYHORSE = VideoFamily(
    keys=frozenset(
        {
            *("duration", "size", "first_frame_image", "image_urls", "video_url"),
            *("audio_setting", "watermark", "seed"),
        }
    ),
    ratios=_VIDEO_RATIOS,
    resolutions={"720p": "720P", "1080p": "1080P"},
    seconds=range(3, 16),
    max_images=9,
)

FAMILIES: Final[Mapping[str, Family]] = {
    "gpt-image": _GPT,
    "gpt-image-official": _GPT_OFFICIAL,
    "gemini-image": _GEMINI,
    "gemini-image-official": _GEMINI_OFFICIAL,
    "gemini-flash-image": _FLASH,
    "gemini-flash-image-official": _FLASH_OFFICIAL,
    "seedance": _SEEDANCE,
    "seedance-fast": _SEEDANCE_FAST,
    "veo": _VEO_FAST,
    "veo-quality": _VEO_QUALITY,
    "veo-lite": _VEO_LITE,
    "veo-official": _VEO_OFFICIAL,
    "happyhorse": _HAPPYHORSE,
}

_MODELS: Final[Mapping[str, str]] = {
    "gpt-image-2": "gpt-image",
    "gpt-image-2-official": "gpt-image-official",
    "gemini-3-pro-image-preview": "gemini-image",
    "gemini-3-pro-image-preview-official": "gemini-image-official",
    "gemini-3.1-flash-image-preview": "gemini-flash-image",
    "gemini-3.1-flash-image-preview-official": "gemini-flash-image-official",
    "gemini-3.1-flash-lite-image": "gemini-flash-image-official",
    "doubao-seedance-2.0": "seedance",
    "doubao-seedance-2.0-face": "seedance",
    "doubao-seedance-2.0-fast": "seedance-fast",
    "doubao-seedance-2.0-fast-face": "seedance-fast",
    "veo3.1-fast": "veo",
    "veo3.1-quality": "veo-quality",
    "veo3.1-lite": "veo-lite",
    "veo3.1-fast-official": "veo-official",
    "veo3.1-quality-official": "veo-official",
    "happyhorse-1.0": "happyhorse",
}


def family_of(model: str, upstream: Upstream) -> Family | None:
    """Return the family of the upstream's model: of the account's option ``families``, else of our own list."""
    named = upstream.options.get("families")
    name = (named.get(model) if isinstance(named, Mapping) else None) or _MODELS.get(model)
    return FAMILIES.get(str(name))
