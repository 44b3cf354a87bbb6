"""JSON Schemas of the bodies that are read by hand, and examples. What a model allows is told by /v1/models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.generation.quotes import ENDPOINTS

Json = dict[str, Any]

IMAGE_EXAMPLES: Json = {
    "smallest": {"prompt": "A paper boat in the rain"},
    "wide": {"prompt": "一只纸船在雨中", "size": "16:9", "quality": "hd", "output_format": "webp"},
    "in the background": {"prompt": "A paper boat in the rain", "async": True, "max_credits": 5},
}
EDIT_EXAMPLES: Json = {
    "from URLs": {"prompt": "Make it night", "images": [{"image_url": "https://example.com/harbour.png"}]},
}
VIDEO_EXAMPLES: Json = {
    "text": {"prompt": "A paper boat in the rain", "resolution": "720p", "duration": 5},
    "references": {
        "prompt": "The boat from the pictures, seen from above",
        "image_urls": ["https://example.com/boat.png"],
        "aspect_ratio": "9:16",
        "metadata": {"order": "1042"},
    },
}
OPENAI_VIDEO_EXAMPLES: Json = {
    "as the SDK sends it": {"prompt": "A paper boat in the rain", "seconds": "5", "size": "1280x720"}
}
REMIX_EXAMPLES: Json = {"extend": {"prompt": "The boat sails on into the sunset"}}
QUOTE_EXAMPLES: Json = {
    "video": {"endpoint": "videos/generations", "prompt": "A paper boat in the rain", "duration": 5},
}

STRING: Json = {"type": "string"}
BOOLEAN: Json = {"type": "boolean"}
FILE: Json = {"type": "string", "format": "binary"}


def _text(description: str, **more: Any) -> Json:
    return {"type": "string", "description": description, **more}


def _refs(description: str, maximum: int) -> Json:
    return {
        "description": description,
        "anyOf": [STRING, {"type": "array", "items": STRING, "maxItems": maximum}],
    }


PROMPT: Json = _text("What to make; any language.", minLength=1, maxLength=32_000)
COMMON: Json = {
    "max_credits": {
        "type": "integer",
        "minimum": 0,
        "description": "Refuse with 400 `price_above_max` when it costs more.",
    },
    "metadata": {
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 512},
        "description": "Your own pairs; echoed in the task.",
    },
    "webhook_url": _text(
        "A public URL that is told when this task ends, beside the account's webhook endpoints.", maxLength=2048
    ),
}
IMAGE: Json = {
    "size": _text(
        "`WxH`, a ratio such as `16:9`, or `auto`. The pixels are decided by `quality`: `WxH` is read as its ratio; "
        "the reply states the true ones.",
        default="1024x1024",
    ),
    "quality": _text(
        "The tier: `standard` (1K), `hd` (2K), `uhd` (4K); also `low`, `medium`, `high`, `auto`, `1k`, `2k`, `4k`.",
        default="standard",
    ),
    "n": {"type": "integer", "const": 1, "default": 1, "description": "One image for each request."},
    "response_format": _text("Absent: the reply has both.", enum=["url", "b64_json"]),
    "output_format": _text("The file's kind.", enum=["png", "jpeg", "webp"], default="png"),
    "output_compression": {"type": "integer", "minimum": 0, "maximum": 100, "description": "For jpeg and webp."},
    "background": _text("`transparent` needs png or webp.", examples=["transparent", "opaque", "auto"]),
    "stream": BOOLEAN | {"default": False, "description": "Answer with server-sent events."},
    "partial_images": {"type": "integer", "minimum": 0, "maximum": 3, "default": 0, "description": "With `stream`."},
    "async": BOOLEAN
    | {"default": False, "description": "Answer 202 with the task at once; so does `Prefer: respond-async`."},
    "moderation": _text("A hint."),
    "style": _text("A hint."),
    "input_fidelity": _text("A hint."),
    "user": _text("Your own id of your user; never sent on."),
    "safety_identifier": _text("The same."),
}
VIDEO: Json = {
    "resolution": _text("What the model offers: `480p`, `720p`, `1080p`, `4k`.", default="720p"),
    "duration": {"type": "integer", "description": "Seconds; what the model offers."},
    "size": _text("The aspect ratio; the same as `aspect_ratio`. `WxH` gives resolution and ratio."),
    "aspect_ratio": _text("Such as `16:9`, `9:16`, `1:1`; `adaptive` where the model has it."),
    "image_urls": _refs("Reference images: public URLs or data: URLs.", 9),
    "video_urls": _refs("Reference videos: public URLs.", 3),
    "audio_urls": _refs("Reference sounds: public URLs; not alone.", 3),
    "first_frame_image": _text("The first frame: a public URL or a data: URL."),
    "video_url": _text("The video to edit: a public URL. Billed by its seconds."),
    "audio_setting": _text("Of an edit.", enum=["auto", "origin"]),
    "watermark": BOOLEAN,
    "generate_audio": BOOLEAN,
    "generation_type": _text("How `image_urls` are meant.", enum=["frame", "reference"]),
    "enable_gif": BOOLEAN | {"description": "The result also has a GIF."},
    "official_fallback": BOOLEAN | {"description": "Allow the vendor's own route when ours fails."},
    "seed": {"type": "integer"},
}


def bodies(
    *,
    image_models: Sequence[str],
    video_models: Sequence[str],
    default_image_model: str,
    default_video_model: str,
) -> Json:
    """Return every body by its name, with the names of the models that this gateway has."""
    image_model = _text("See /v1/models.", examples=list(image_models), default=default_image_model)
    video_model = _text("See /v1/models.", examples=list(video_models), default=default_video_model)
    references = _refs("At most 5 together: URLs or data: URLs.", 5)
    edit: Json = {"prompt": PROMPT, "model": image_model, **IMAGE, **COMMON}
    openai: Json = {
        "prompt": PROMPT,
        "model": video_model,
        "seconds": _text("The duration; the same as `duration`.", examples=["5"]),
        **VIDEO,
        **COMMON,
    }
    return {
        "ImageGeneration": _object(
            {"prompt": PROMPT, "model": image_model, "image": references, "image_urls": references, **IMAGE, **COMMON}
        ),
        "ImageEdit": _object(
            {
                **edit,
                "image": references,
                "image_urls": references,
                "images": {
                    "type": "array",
                    "maxItems": 5,
                    "items": {"type": "object", "properties": {"image_url": STRING}, "required": ["image_url"]},
                    "description": "OpenAI's JSON form of `image`.",
                },
                "mask": _text("PNG with alpha, as large as the first image: its transparent pixels may change."),
            }
        ),
        "ImageEditForm": _object(
            {
                **edit,
                "image": {
                    "description": "1 to 5 files of at most 50 MiB; also as `image[]`.",
                    "type": "array",
                    "items": FILE,
                },
                "mask": FILE | {"description": "PNG with alpha, as large as the first image."},
            },
            required=("prompt", "image"),
        ),
        "VideoGeneration": _object({"prompt": PROMPT, "model": video_model, **VIDEO, **COMMON}),
        "OpenAIVideo": _object({**openai, "input_reference": _text("The first frame: a URL or a data: URL.")}),
        "OpenAIVideoForm": _object({**openai, "input_reference": FILE | {"description": "The first frame."}}),
        "VideoRemix": _object(
            {
                "prompt": PROMPT,
                "model": _text("When given, the source's."),
                "raw": BOOLEAN | {"default": False, "description": "Only the added part."},
                "aspect_ratio": VIDEO["aspect_ratio"],
                "resolution": VIDEO["resolution"],
                **COMMON,
            }
        ),
        "Quote": _object(
            {
                "endpoint": _text("Where the request would go.", examples=list(ENDPOINTS)),
                "id": _text("A remix: its source's id."),
            },
            required=("endpoint",),
        ),
    }


def _object(properties: Json, *, required: Sequence[str] = ("prompt",)) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": True,
    }
