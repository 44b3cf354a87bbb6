"""One image: the request as the account's switches want it, and the result from wherever the answer put it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from app.media.base64_stream import Base64Of
from app.providers.openai.errors import error_of, find_fault
from app.providers.openai.options import Options, Prices, base_url, headers_of, own_name, read_options
from app.providers.openai.wire import image_file, is_stream, read_answer, read_events
from app.requests import ImageRequest, MediaFile
from app.upstreams.http import MIB, Answer, Limits, Part
from app.upstreams.protocols import (
    Call,
    Cost,
    ImageResult,
    PartialSink,
    Upstream,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamOutcomeUnknown,
)

IMAGE_BYTES = 50 * MIB
MASK_BYTES = 4 * MIB
RESULT_BYTES = 128 * MIB
FETCH_TRIES = 3
TAG_ROUNDS = 8
EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
# https://github.com/leejet/stable-diffusion.cpp, examples/server: settings that ride inside a prompt
_PROMPT_TAG = re.compile(r"<\s*/?\s*sd_cpp_extra_args\b[^>]*>?", re.IGNORECASE)
_PROMPT_ARGS = re.compile(r"<\s*sd_cpp_extra_args\b[^>]*>.*?(?:<\s*/\s*sd_cpp_extra_args\b[^>]*>|\Z)", re.I | re.DOTALL)
_GPT_IMAGE = "gpt-image-"
_NO_RESULT = "The upstream's result could not be read."


def why_not_image(request: ImageRequest, model: str, upstream: Upstream) -> str | None:
    """Return why this account cannot make the image, as a sentence for the caller; None: it can."""
    try:
        options = read_options(upstream, model)
    except UpstreamDenied:
        return None  # the operator's mistake, not the caller's: the call itself tells it
    return _why_not_size(request, model, options) or _why_not_files(request, options)


async def generate_image(
    request: ImageRequest, call: Call, on_partial: PartialSink | None, *, retry_s: float
) -> ImageResult:
    """Make one image; ``retry_s`` is the pause before a result's URL is asked for again. See `ImageGenerator`."""
    options = read_options(call.upstream, call.model, call.options)
    limits = Limits(read_s=options.timeout_s, total_s=options.timeout_s + 60, value_bytes=RESULT_BYTES)
    fields = _fields(request, call.model, options)
    if request.partial_images and on_partial is not None and options.stream:
        fields |= {"stream": True, "partial_images": request.partial_images}
    path, form = "/images/generations", None
    if request.images and options.reference_style == "multipart":
        path, form = "/images/edits", _form(fields, request)
    elif request.images:
        path = options.reference_path
        fields |= _references(request, call, options)
    async with call.http.stream(
        "POST",
        base_url(call.upstream) + path,
        phase="submit",
        headers=headers_of(call, options),
        json=fields if form is None else None,
        form=form,
        limits=limits,
    ) as response:
        if is_stream(response):
            answer = await _read_stream(response, call, limits, on_partial)
        else:
            answer = await read_answer(response, call.out_dir, limits)
    if not answer.is_ok or find_fault(answer.document) is not None:
        raise error_of(answer, "submit", call, refusals=options.refusal_statuses)
    return await _result(answer.document, call, options, retry_s=retry_s)


def safety_identifier(hints: Mapping[str, Any]) -> str | None:
    """Return a hash that stands for the caller's own end user; 64 characters, the most OpenAI takes."""
    said = hints.get("safety_identifier") or hints.get("user")
    return hashlib.sha256(f"mediagate:{said}".encode()).hexdigest() if said else None


def without_tags(prompt: str) -> str:
    """Return the prompt without the settings that stable-diffusion.cpp would read out of it.

    In rounds: what remains around a removed tag may be one itself.
    """
    for _ in range(TAG_ROUNDS):
        cleaned = _PROMPT_ARGS.sub("", prompt)
        if cleaned == prompt:
            cleaned = _PROMPT_TAG.sub("", prompt)
        if cleaned == prompt:
            return prompt
        prompt = cleaned
    return prompt.replace("<", "")


def inline_or_url(file: MediaFile, call: Call, style: str) -> Base64Of | str:
    if style == "url":
        return call.public_url(file)
    return Base64Of(file.path, file.size_bytes, f"data:{file.mime};base64,")


def file_part(name: str, file: MediaFile, stem: str) -> Part:
    return Part(name, file.path, f"{stem}.{EXTENSIONS.get(file.mime, 'bin')}", file.mime)


def text_parts(fields: Mapping[str, Any]) -> list[Part]:
    """Return a form's text parts: booleans as JSON spells them."""
    return [Part(name, str(value).lower() if isinstance(value, bool) else str(value)) for name, value in fields.items()]


def size_text(request: ImageRequest) -> str:
    return f"{request.width}x{request.height}"


async def fetch_result(url: str, call: Call, options: Options, out: Path, *, max_bytes: int) -> None:
    """Write what a result's URL leads to; with our key only where it stays at the API's own origin.

    Raises: UpstreamError; UpstreamFailed when it is no URL.
    """
    base = URL(base_url(call.upstream))
    try:
        target = base.join(URL(url))
        is_own = target.scheme in ("http", "https") and target.origin() == base.origin()
    except ValueError:
        raise UpstreamFailed("a result that is no URL", public=_NO_RESULT) from None
    if is_own:
        headers = headers_of(call, options)
        await call.http.download(
            str(target), out, upstream=call.upstream, headers=headers, max_bytes=max_bytes, follow_with_headers=True
        )
    else:
        await call.http.fetch(str(target), out, upstream=call.upstream, max_bytes=max_bytes)


# --- what cannot be served --------------------------------------------------------------------------------------------


def _why_not_size(request: ImageRequest, model: str, options: Options) -> str | None:
    width, height, size = request.width, request.height, size_text(request)
    if request.ratio == "auto" and options.auto_size == "pass":
        return None
    if options.size_style == "ratio":
        if options.ratios is not None and request.ratio not in options.ratios:
            return f"'size': this upstream does not make the ratio {request.ratio}."
        return None
    if options.sizes is not None:
        return None if size in options.sizes else f"'size': this upstream does not make {size}."
    max_edge, max_pixels = options.max_edge, options.max_pixels
    if own_name(model).startswith(_GPT_IMAGE):
        long, short = max(width, height), min(width, height)
        if width % 16 or height % 16:
            return f"'size': {size} is not in multiples of 16."
        if long > 3 * short:
            return f"'size': {size} is longer than 3:1."
        if width * height < 655_360:
            return f"'size': {size} is smaller than 655,360 pixels."
        max_edge, max_pixels = min(max_edge or 3840, 3840), min(max_pixels or 8_294_400, 8_294_400)
    if max_edge is not None and max(width, height) > max_edge:
        return f"'size': {size} is longer than the {max_edge} pixels this upstream makes."
    if max_pixels is not None and width * height > max_pixels:
        return f"'size': {size} is more than the {max_pixels:,} pixels this upstream makes."
    return None


def _why_not_files(request: ImageRequest, options: Options) -> str | None:
    if len(request.images) > options.max_images:
        return f"'image': this upstream takes at most {options.max_images}."
    for file in request.images:
        if file.mime not in EXTENSIONS:
            return f"'{file.field}': this upstream takes PNG, JPEG and WebP, not {file.mime}."
        if file.size_bytes >= IMAGE_BYTES:
            return f"'{file.field}': this upstream takes less than {IMAGE_BYTES // MIB} MiB for each file."
    mask = request.mask
    if mask is None:
        return None
    if options.reference_style != "multipart" and options.mask_field is None:
        return "'mask': this upstream takes no mask."
    if mask.mime != "image/png" or mask.size_bytes >= MASK_BYTES:
        return f"'mask': this upstream takes a PNG of less than {MASK_BYTES // MIB} MiB."
    first = request.images[0] if request.images else None
    if first is not None and (first.width, first.height) != (mask.width, mask.height):
        return "'mask': it must be as large as the first image."
    return None


# --- the request ------------------------------------------------------------------------------------------------------


def _fields(request: ImageRequest, model: str, options: Options) -> dict[str, Any]:
    hints = request.hints
    found: dict[str, Any] = {
        "model": model,
        "prompt": without_tags(request.prompt) if options.strip_prompt_tags else request.prompt,
        "n": 1,
    }
    found |= _size(request, options)
    has_loss = request.output_format in ("jpeg", "webp")
    is_gpt_image = own_name(model).startswith(_GPT_IMAGE)
    identifier = safety_identifier(hints)
    known: dict[str, Any] = {
        "quality": options.quality_of(request.quality),
        "background": request.background,
        "moderation": None if request.images else hints.get("moderation"),
        "output_format": request.output_format,
        "output_compression": request.output_compression if has_loss else None,
        "style": None if request.images or is_gpt_image else hints.get("style"),
        "input_fidelity": hints.get("input_fidelity") if request.images and "gpt-image-2" not in model else None,
        "safety_identifier": identifier,
        "user": identifier,
    }
    found |= {name: value for name, value in known.items() if name in options.fields and value is not None}
    if options.send_response_format != "never" and not is_gpt_image:
        found["response_format"] = options.send_response_format
    return found | options.extra


def _size(request: ImageRequest, options: Options) -> dict[str, str]:
    is_auto = request.ratio == "auto" and options.auto_size == "pass"
    if options.size_style == "ratio":
        ratio = "1:1" if request.ratio == "auto" and not is_auto else request.ratio
        return {"size": ratio, "resolution": options.resolutions.get(request.quality, request.quality)}
    return {"size": "auto" if is_auto else size_text(request)}


def _form(fields: Mapping[str, Any], request: ImageRequest) -> list[Part]:
    name = "image" if len(request.images) == 1 else "image[]"
    parts = text_parts(fields)
    parts += [file_part(name, file, f"image-{number}") for number, file in enumerate(request.images, 1)]
    if request.mask is not None:
        parts.append(file_part("mask", request.mask, "mask"))
    return parts


def _references(request: ImageRequest, call: Call, options: Options) -> dict[str, Any]:
    files = [inline_or_url(file, call, options.reference_data) for file in request.images]
    is_one = options.reference_style == "image" and len(files) == 1
    found: dict[str, Any] = {options.reference_style: files[0] if is_one else files}
    if request.mask is not None and options.mask_field is not None:
        found[options.mask_field] = inline_or_url(request.mask, call, options.reference_data)
    return found


# --- the answer -------------------------------------------------------------------------------------------------------


async def _read_stream(
    response: aiohttp.ClientResponse, call: Call, limits: Limits, on_partial: PartialSink | None
) -> Answer:
    """Hand interim images on while they come; return the last event in the form of a plain answer."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    index = 0
    async with aclosing(read_events(response, call.out_dir, limits)) as events:
        async for event in events:
            document = event.document
            if not isinstance(document, dict):
                continue
            kind = str(document.get("type") or event.name)
            if event.name == "error" or kind in ("error", "response.failed") or find_fault(document) is not None:
                fault = document if document.get("error") else {"error": document}
                return Answer(200, headers, fault, "")
            file = image_file(document.get("b64_json"))
            if kind.endswith(".partial_image"):
                if file is not None and on_partial is not None:
                    await on_partial(index, file)
                    index += 1
            elif isinstance(document.get("data"), list):
                return Answer(200, headers, document, "")
            elif kind.endswith(".completed") or (not kind and file is not None):
                return Answer(200, headers, {"data": [document], "usage": document.get("usage")}, "")
    raise UpstreamOutcomeUnknown("the stream ended without an image")


async def _result(document: Any, call: Call, options: Options, *, retry_s: float) -> ImageResult:
    data = document.get("data") if isinstance(document, dict) else None
    first = data[0] if isinstance(data, list) and data else data
    if not isinstance(first, dict):
        raise UpstreamOutcomeUnknown("a success without an image")
    cost = _cost(document.get("usage"), options.prices)
    prompt = first.get("revised_prompt")
    revised = prompt if isinstance(prompt, str) and prompt else None
    for name in ("b64_json", "url"):
        file = image_file(first.get(name))
        if file is not None:
            return ImageResult(file, revised, cost)
    url = first.get("url")
    if not isinstance(url, str) or not url.strip():
        raise UpstreamOutcomeUnknown("a success without an image")
    out = call.out_dir / "result"
    await _fetched(url.strip(), call, options, out, cost, retry_s=retry_s)
    return ImageResult(out, revised, cost)


async def _fetched(url: str, call: Call, options: Options, out: Path, cost: Cost | None, *, retry_s: float) -> None:
    """Fetch at once: nobody will tell this URL again."""
    for left in reversed(range(FETCH_TRIES)):
        try:
            await fetch_result(url, call, options, out, max_bytes=RESULT_BYTES)
            if out.stat().st_size:  # noqa: ASYNC240 - one file of ours
                return
            said = "empty"
        except UpstreamFailed:
            raise
        except UpstreamError as error:
            said = str(error)
        out.unlink(missing_ok=True)  # noqa: ASYNC240 - as above
        if left:
            await asyncio.sleep(retry_s)
    raise UpstreamFailed(f"the result's URL: {said}", public=_NO_RESULT, cost=cost)


def _cost(usage: Any, prices: Prices | None) -> Cost | None:
    """Return what ``usage`` costs. A price per million tokens is micros per token."""
    if prices is None:
        return None
    micros = prices.image * 1_000_000
    if isinstance(usage, dict):
        details = usage.get("input_tokens_details")
        details = details if isinstance(details, dict) else {}
        image = _count(details.get("image_tokens"))
        text = _count(details.get("text_tokens")) if details else _count(usage.get("input_tokens"))
        micros += text * prices.text_input + image * prices.image_input
        micros += _count(usage.get("output_tokens")) * prices.output
    return Cost(round(micros), prices.currency) if micros else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
