"""Images by ``generateContent``: the request, and the many ways to refuse with status 200.

The account's option ``prices`` makes an answer's ``usageMetadata`` a cost: US dollars for a million tokens, as in
``{gemini-3-pro-image: {input: 2, text: 12, image: 120}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.media.base64_stream import Base64Of, DivertedValue
from app.providers.google.errors import cleaned, with_words
from app.providers.google.wire import number, objects, pick, text
from app.requests import ImageRequest, MediaFile
from app.upstreams.http import MIB, Answer
from app.upstreams.protocols import (
    Cost,
    ImageResult,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)

DIVERTED = frozenset({"data"})
SIZES = {"standard": "1K", "hd": "2K", "uhd": "4K"}
RATIOS = frozenset({"1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"})
FLASH_RATIOS = RATIOS | {"1:4", "4:1", "1:8", "8:1"}
INPUT_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"})
INPUT_BYTES = 7 * MIB
MAX_INPUTS = 14
MASK_WORDS = (
    "The following image is a mask for the first image, of the same size. Change the first image only where the mask "
    "is transparent, and keep everything else exactly as it is. Do not show the mask."
)
MODERATED = frozenset(
    {
        *("SAFETY", "BLOCKLIST", "SPII", "RECITATION", "ESCALATION", "MODEL_ARMOR", "PROHIBITED_CONTENT"),
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
    }
)
NOT_MADE = frozenset({"NO_IMAGE", "IMAGE_OTHER", "OTHER", "MALFORMED_RESPONSE"})
NOT_SERVED = frozenset({"MAX_TOKENS", "LANGUAGE"})


def why_not(request: ImageRequest, model: str) -> str | None:
    """Return why the model cannot serve the request, as a sentence that names the field."""
    if request.quality not in SIZES:
        return f"'quality' {request.quality} is not available: this upstream makes {', '.join(SIZES)}."
    if request.ratio != "auto" and request.ratio not in (FLASH_RATIOS if "flash" in model else RATIOS):
        return f"'size' {request.ratio} is not available: this upstream does not make that ratio."
    files = _inputs(request)
    if len(files) > MAX_INPUTS:
        return f"'image' may be given {MAX_INPUTS} times at most, with the mask: this upstream takes no more."
    for file in files:
        if file.mime not in INPUT_TYPES:
            return f"'{file.field}' is {file.mime}, which this upstream does not read."
        if file.size_bytes > INPUT_BYTES:
            return f"'{file.field}' is larger than {INPUT_BYTES // MIB} MiB, the most this upstream takes."
    return None


def body(request: ImageRequest) -> dict[str, Any]:
    """Return the request's JSON. An ``auto`` shape is left to the model; a mask is asked for in words."""
    parts: list[dict[str, Any]] = [{"text": request.prompt}, *map(_inline, request.images)]
    if request.mask is not None:
        parts += [{"text": MASK_WORDS}, _inline(request.mask)]
    image: dict[str, Any] = {"imageSize": SIZES[request.quality]}
    if request.ratio != "auto":
        image["aspectRatio"] = request.ratio
    config: dict[str, Any] = {"responseModalities": ["IMAGE"], "imageConfig": image}
    seed = request.hints.get("seed")
    if isinstance(seed, int) and not isinstance(seed, bool):
        config["seed"] = seed
    return {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}


def result(answer: Answer, *, secret: str, prices: Mapping[str, Any]) -> ImageResult:
    """Return the image of a 2xx answer: the last that is no draft.

    Raises: by the order of the contract, UpstreamModerated, UpstreamDenied, UpstreamRejected, UpstreamFailed;
    UpstreamOutcomeUnknown for what is no answer of this API.
    """
    document = answer.document
    cost = _cost(pick(document, "usageMetadata"), prices)
    candidates = objects(document, "candidates")
    feedback = pick(document, "promptFeedback")
    if not candidates:
        blocked = text(feedback, "blockReason")
        if blocked:
            said = cleaned(text(feedback, "blockReasonMessage"), secret)
            raise UpstreamModerated(f"prompt: {blocked}", public=with_words(UpstreamModerated.public, said), cost=cost)
        if not isinstance(pick(document, "candidates"), list) and not isinstance(feedback, dict):
            raise UpstreamOutcomeUnknown("200, but no answer of this API")
        raise UpstreamFailed("no candidate", public="The upstream returned no image.", cost=cost)

    candidate = candidates[0]
    parts = [part for part in objects(pick(candidate, "content"), "parts") if pick(part, "thought") is not True]
    finish = text(candidate, "finishReason")
    said = cleaned(text(candidate, "finishMessage"), secret)
    if finish in MODERATED:
        raise UpstreamModerated(f"finish: {finish}", public=with_words(UpstreamModerated.public, said), cost=cost)
    if finish == "PUP_LIMITED_DISABLED":
        raise UpstreamDenied(f"finish: {finish}", cost=cost)
    files = [data for part in parts if isinstance(data := pick(pick(part, "inlineData"), "data"), DivertedValue)]
    files = [file for file in files if file.size_bytes]
    if finish in NOT_SERVED:
        raise UpstreamRejected(f"finish: {finish}", public=with_words(UpstreamRejected.public, said), cost=cost)
    if finish in NOT_MADE or not files:
        said = said or cleaned(" ".join(text(part, "text") for part in parts), secret)
        raise UpstreamFailed(
            f"finish: {finish[:40] or 'unset'}", public=with_words("The upstream returned no image.", said), cost=cost
        )
    return ImageResult(files[-1].file, cost=cost)


def _inputs(request: ImageRequest) -> tuple[MediaFile, ...]:
    return (*request.images, request.mask) if request.mask else request.images


def _inline(file: MediaFile) -> dict[str, Any]:
    return {"inlineData": {"mimeType": file.mime, "data": Base64Of(file.path, file.size_bytes)}}


def _cost(usage: Any, prices: Mapping[str, Any]) -> Cost | None:
    """A dollar for a million tokens is a millionth of a dollar for one: the products are the cost in micros."""
    if not prices or not isinstance(usage, dict):
        return None
    made = number(usage, "candidatesTokenCount")
    details = objects(usage, "candidatesTokensDetails")
    images = sum(number(one, "tokenCount") for one in details if text(one, "modality") == "IMAGE") if details else made
    texts = max(made - images, 0) + number(usage, "thoughtsTokenCount")
    try:
        rates = [float(prices.get(name, 0)) for name in ("input", "text", "image")]
    except (TypeError, ValueError):
        return None
    counts = (number(usage, "promptTokenCount"), texts, images)
    return Cost(round(sum(rate * count for rate, count in zip(rates, counts, strict=True))))
