"""What Google refuses in a request. Keys are camel-case here: `camel` reads both spellings."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RATIOS = {"1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"}
FLASH_RATIOS = {"1:4", "4:1", "1:8", "8:1"}
AGENT_IMAGE = {"personGeneration", "prominentPeople", "imageOutputOptions"}
TYPES = {"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"}
VIDEO_PARAMETERS = {
    *("sampleCount", "durationSeconds", "aspectRatio", "resolution", "personGeneration", "negativePrompt"),
    "enhancePrompt",
}
AGENT_PARAMETERS = {"seed", "generateAudio", "compressionQuality", "resizeMode", "storageUri"}


@dataclass
class Refused(Exception):
    status: int
    word: str
    message: str
    details: tuple[Mapping[str, Any], ...] = ()


def camel(node: Any) -> Any:
    """Return the document with camel-case keys, as protobuf's JSON reads both."""
    if isinstance(node, list):
        return [camel(item) for item in node]
    if not isinstance(node, dict):
        return node
    found: dict[str, Any] = {}
    for key, value in node.items():
        first, *rest = key.split("_")
        found[first + "".join(word.capitalize() for word in rest)] = camel(value)
    return found


def check_image(body: Any, model: str, *, gemini: bool) -> None:
    """Raises: Refused."""
    _only(body, {"contents", "generationConfig", "safetySettings", "systemInstruction"}, "")
    contents = body.get("contents")
    _must(isinstance(contents, list) and len(contents) == 1, "contents: one is needed.")
    _only(contents[0], {"role", "parts"}, "contents[0]")
    _must(contents[0].get("role") == "user", "Please use a valid role: user, model.")
    parts = contents[0].get("parts")
    _must(isinstance(parts, list) and bool(parts), "contents.parts must not be empty.")
    images = 0
    for part in parts:
        _only(part, {"text", "inlineData"}, "parts")
        _must(len(part) == 1, "oneof field 'data' is already set.")
        if "inlineData" in part:
            images += 1
            _media(part["inlineData"], "data", max_bytes=7 * 1024 * 1024)
    _must(images <= 14, "Too many images.")
    config = body.get("generationConfig", {})
    _only(
        config,
        {"responseModalities", "imageConfig", "candidateCount", "temperature", "topP", "seed"},
        "generation_config",
    )
    _must(config.get("candidateCount", 1) == 1, "Multiple candidates is not enabled for this model.")
    _must(config.get("responseModalities") in (["IMAGE"], ["TEXT", "IMAGE"]), "response_modalities: IMAGE is needed.")
    image = config.get("imageConfig", {})
    _only(image, {"aspectRatio", "imageSize"} | (set() if gemini else AGENT_IMAGE), "image_config")
    _must(image.get("imageSize", "1K") in ("1K", "2K", "4K"), f"Invalid image_size {image.get('imageSize')}.")
    allowed = RATIOS | (FLASH_RATIOS if "flash" in model else set())
    _must(image.get("aspectRatio", "1:1") in allowed, f"Invalid aspect_ratio {image.get('aspectRatio')}.")


def check_video(body: Any, model: str, *, gemini: bool) -> None:
    """Raises: Refused."""
    _only(body, {"instances", "parameters"} | ({"webhookConfig"} if gemini else {"labels"}), "")
    instances = body.get("instances")
    _must(isinstance(instances, list) and len(instances) == 1, "instances: exactly one is needed.")
    one, parameters = instances[0], body.get("parameters", {})
    _only(
        one, {"prompt", "image", "lastFrame", "video", "referenceImages"} | (set() if gemini else {"mask"}), "instances"
    )
    _only(parameters, VIDEO_PARAMETERS | (set() if gemini else AGENT_PARAMETERS), "parameters")

    ratio, resolution = parameters.get("aspectRatio", "16:9"), parameters.get("resolution", "720p")
    seconds = parameters.get("durationSeconds", 8)
    _must(ratio in ("16:9", "9:16"), f"Unsupported aspect ratio {ratio}.")
    _must(resolution in ("720p", "1080p", "4k"), f"Unsupported resolution {resolution}.")
    _must(type(seconds) is int and seconds in (4, 6, 8), f"Unsupported duration {seconds}.")
    _must(parameters.get("sampleCount", 1) in (1, 2, 3, 4), "sampleCount must be 1 to 4.")
    _must(type(parameters.get("generateAudio", True)) is bool, "generateAudio must be a bool.")
    seed = parameters.get("seed", 0)
    _must(type(seed) is int and 0 <= seed < 2**32, "seed must be a uint32.")

    references = one.get("referenceImages", [])
    for item in references:
        _only(item, {"image", "referenceType"}, "referenceImages")
        _must(item.get("referenceType") == "ASSET", "Unsupported reference type.")
        _media(item.get("image"), "bytesBase64Encoded")
    for name in ("image", "lastFrame"):
        if name in one:
            _media(one[name], "bytesBase64Encoded")
    others = {"image", "video", "lastFrame"} & set(one)
    _must(len(references) <= 3, "At most 3 reference images.")
    _must(not (references and others), "Reference images cannot be used with image, video or last frame.")
    _must(not references or bool(one.get("prompt")), "A prompt is required with reference images.")
    _must("lastFrame" not in one or "image" in one, "lastFrame needs image.")
    _must(bool(one.get("prompt") or one.get("image")), "A prompt or an image is needed.")
    if "video" in one:
        _must("image" not in one and "lastFrame" not in one, "video excludes image.")
        _must(resolution == "720p", "Only 720p videos can be extended.")
        if gemini:
            _only(one["video"], {"uri"}, "video")
            _must("/files/" in str(one["video"].get("uri")), "Not a video of this API.")
        else:
            _media(one["video"], "bytesBase64Encoded", types={"video/mp4"})
    if resolution != "720p" or references or {"lastFrame", "video"} & set(one):
        _must(seconds == 8, "durationSeconds must be 8 here.")
    if "lite" in model:
        _must(resolution != "4k", "4k is not supported by this model.")
        _must(not references and not {"lastFrame", "video"} & set(one), "Not supported by this model.")


def _media(node: Any, key: str, *, max_bytes: int = 2**28, types: set[str] = TYPES) -> None:
    _only(node, {key, "mimeType"}, "media")
    _must(node.get("mimeType") in types, f"Unsupported MIME type: {node.get('mimeType')}.")
    try:
        size = len(base64.b64decode(node[key].replace("-", "+").replace("_", "/"), validate=True))
    except (binascii.Error, AttributeError, KeyError):
        raise Refused(400, "INVALID_ARGUMENT", "Base64 decoding failed.") from None
    _must(0 < size <= max_bytes, "The file is too large.")


def _only(node: Any, allowed: set[str], where: str) -> None:
    _must(isinstance(node, dict), f"Invalid value at '{where}'.")
    for key, value in node.items():
        _must(key in allowed, f"Invalid JSON payload received. Unknown name \"{key}\" at '{where}': Cannot find field.")
        _must(value is not None, f"Invalid value at '{where}.{key}'.")


def _must(is_so: bool, message: str) -> None:
    if not is_so:
        raise Refused(400, "INVALID_ARGUMENT", message)
