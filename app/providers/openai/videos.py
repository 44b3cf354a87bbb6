"""The Videos protocol: multipart or JSON submit, poll at the server's pace, content with our key, delete as cancel."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from app.fetch.sniff import HEAD_BYTES, sniff
from app.providers.openai.errors import Fault, error_of, find_fault, task_error
from app.providers.openai.images import fetch_result, file_part, inline_or_url, text_parts
from app.providers.openai.options import Options, base_url, headers_of, read_options
from app.providers.openai.wire import read_short
from app.requests import MediaFile, Operation, VideoRequest
from app.upstreams.http import MIB, POLL, Answer, Limits
from app.upstreams.protocols import (
    Call,
    Cost,
    Finished,
    Progress,
    Upstream,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
    VideoResult,
)

log = structlog.get_logger(__name__)

SUBMIT = Limits(read_s=30.0, total_s=180.0)
VIDEO_BYTES = 512 * MIB
POLL_AFTER_MAX_S = 60.0
PACES = 10_000
QUEUED = frozenset({"queued", "pending", "submitted", "created"})
RUNNING = frozenset({"in_progress", "processing", "running", "generating"})
DONE = frozenset({"completed", "succeeded", "success"})
ENDED = frozenset({"failed", "failure", "error", "cancelled", "canceled", "expired"})
_ID = re.compile(r"[\x21-\x7e]{1,255}")
_PERCENT = re.compile(r"\s*(\d{1,3})(?:\.\d+)?\s*%?\s*")
_URLS = (("url",), ("video_url",), ("metadata", "url"), ("output", "url"), ("result", "url"), ("result_url",))
_GONE = "The upstream no longer has this video."
# What a parameter says when it asks for nothing that this protocol lacks; sound is the servers' own affair.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "seed": (None, -1),
    "generate_audio": (None, True),
    "audio_setting": (None, "auto"),
    "generation_type": (None, "frame"),
    "official_fallback": (None, True, False),
    "hints": (),
}


class Pace:
    """Remembers what `openai-poll-after-ms` asked for, and answers for the server until then. Of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], tuple[float, Progress]] = {}

    def early(self, key: tuple[str, str]) -> Progress | None:
        """Return what is known while it is too early to ask."""
        until, progress = self._until.get(key, (0.0, None))
        return progress if progress is not None and self._clock() < until else None

    def note(self, key: tuple[str, str], answer: Answer, progress: Progress) -> None:
        self._until.pop(key, None)
        millis = answer.headers.get("openai-poll-after-ms", "")
        if not (millis.isascii() and millis.isdecimal()):
            return
        if len(self._until) >= PACES:
            self._until.pop(next(iter(self._until)))
        self._until[key] = (self._clock() + min(int(millis[:9]) / 1000, POLL_AFTER_MAX_S), progress)

    def forget(self, key: tuple[str, str]) -> None:
        self._until.pop(key, None)


def why_not_video(request: VideoRequest, model: str, upstream: Upstream) -> str | None:
    """Return why this account cannot make the video, as a sentence for the caller; None: it can."""
    try:
        options = read_options(upstream, model)
    except UpstreamDenied:
        return None  # the operator's mistake, not the caller's: the call itself tells it
    if request.operation is Operation.VIDEO_REMIX:
        if not options.remix:
            return "This upstream cannot remix."
        if request.params.get("raw"):
            return "'raw': this upstream makes the whole shot anew."
        return None
    if request.operation is Operation.VIDEO_EDIT or request.videos:
        return "'video_url': this upstream takes no video."
    if request.audios:
        return "'audio_urls': this upstream takes no sound."
    return _why_not_params(request, options) or _why_not_images(request, options) or _why_not_shape(request, options)


async def submit_video(request: VideoRequest, call: Call) -> UpstreamJob:
    """See `VideoSubmitter`."""
    options = read_options(call.upstream, call.model, call.options)
    base, headers = base_url(call.upstream), headers_of(call, options)
    is_remix = request.operation is Operation.VIDEO_REMIX
    if is_remix:
        if not request.source_upstream_id:
            raise UpstreamRejected("a remix without its source", public=_GONE)
        url = f"{base}/videos/{quote(request.source_upstream_id, safe='')}/remix"
        answer = await call.http.send(
            "POST", url, phase="submit", headers=headers, json={"prompt": request.prompt}, limits=SUBMIT
        )
    else:
        fields = _fields(request, call.model, options)
        files = _files(request)
        if options.video_body == "json":
            body = fields | _references(files, call, options)
            answer = await call.http.send(
                "POST", f"{base}/videos", phase="submit", headers=headers, json=body, limits=SUBMIT
            )
        else:
            form = text_parts(fields)
            form += [file_part(options.video_reference_field, file, "reference") for file in files]
            answer = await call.http.send(
                "POST", f"{base}/videos", phase="submit", headers=headers, form=form, limits=SUBMIT
            )
    if is_remix and answer.status in (404, 410):
        raise UpstreamRejected(f"remix: status {answer.status}", public=_GONE, http_status=answer.status)
    return UpstreamJob(_accepted(answer, call, options))


async def poll_video(job: UpstreamJob, call: Call, pace: Pace, unheard: set[str]) -> Progress | Finished:
    """See `VideoSubmitter`. ``unheard`` remembers the words of status that were logged."""
    key = (call.upstream.name, job.id)
    early = pace.early(key)
    if early is not None:
        return early
    pace.forget(key)
    options = read_options(call.upstream, call.model, call.options)
    answer, video = await _video(job, call, options)
    state = _state(video, unheard)
    if state is None:
        raise task_error(_fault(video), call)
    if isinstance(state, Progress):
        pace.note(key, answer, state)
    return state


async def fetch_video(job: UpstreamJob, call: Call) -> VideoResult:
    """See `VideoSubmitter`."""
    options = read_options(call.upstream, call.model, call.options)
    _, video = await _video(job, call, options)
    state = _state(video, set())
    if state is None:
        raise task_error(_fault(video), call)
    if not isinstance(state, Finished):
        raise UpstreamError("not finished")
    out = call.out_dir / "video"
    url = _url(video) if options.video_result == "auto" else None
    try:
        if url is not None:
            await fetch_result(url, call, options, out, max_bytes=VIDEO_BYTES)
        else:
            await call.http.download(
                f"{_address(job, call)}/content",
                out,
                upstream=call.upstream,
                headers=headers_of(call, options),
                max_bytes=VIDEO_BYTES,
                follow_with_headers=True,
            )
    except UpstreamError as error:
        if error.http_status in (404, 410):
            raise UpstreamFailed(str(error), public=_GONE, http_status=error.http_status) from None
        raise
    _check(out)
    return VideoResult(out, cost=_cost(video, options))


async def cancel_video(job: UpstreamJob, call: Call) -> bool:
    """Delete it. True when the server says it is gone. Raises: UpstreamError."""
    options = read_options(call.upstream, call.model, call.options)
    async with call.http.stream(
        "DELETE", _address(job, call), phase="read", headers=headers_of(call, options), limits=POLL
    ) as response:
        answer = await read_short(response)
    if answer.is_ok:
        document = answer.document
        return find_fault(document) is None and not (isinstance(document, dict) and document.get("deleted") is False)
    if answer.status in (400, 404, 405, 409, 410, 422):
        return False  # too late, not known, or not a thing this server does
    raise error_of(answer, "read", call)


# --- what cannot be served --------------------------------------------------------------------------------------------


def _why_not_params(request: VideoRequest, options: Options) -> str | None:
    for name, value in request.params.items():
        if name in options.video_fields or value in _HARMLESS.get(name, (None, False)) or name == "hints":
            continue
        return f"'{name}': this upstream does not have it."
    return None


def _why_not_images(request: VideoRequest, options: Options) -> str | None:
    files = _files(request)
    if len(files) > options.max_video_images:
        return f"'image_urls': this upstream takes {options.max_video_images}."
    for file in files:
        if not file.mime.startswith("image/"):
            return f"'{file.field}': this upstream takes images only."
    return None


def _why_not_shape(request: VideoRequest, options: Options) -> str | None:
    seconds, sizes = options.video_seconds, options.video_sizes
    if seconds is not None and request.duration_s not in seconds and not options.nearest_seconds:
        allowed = ", ".join(str(one) for one in sorted(seconds))
        return f"'duration': this upstream makes {allowed} seconds, not {request.duration_s}."
    size = f"{request.width}x{request.height}"
    if sizes is not None and options.video_size_style == "pixels" and size not in sizes:
        return f"'resolution', 'size': this upstream does not make {size}."
    return None


# --- the request ------------------------------------------------------------------------------------------------------


def _files(request: VideoRequest) -> list[MediaFile]:
    return [*([request.first_frame] if request.first_frame else []), *request.images]


def _fields(request: VideoRequest, model: str, options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {"model": model, "prompt": request.prompt, "seconds": str(_seconds(request, options))}
    if options.video_size_style == "ratio":
        found |= {"aspect_ratio": request.ratio, "resolution": request.resolution}
    else:
        found["size"] = f"{request.width}x{request.height}"
    for name, theirs in options.video_fields.items():
        if request.params.get(name) is not None:
            found[theirs] = request.params[name]
    return found | options.video_extra


def _seconds(request: VideoRequest, options: Options) -> int:
    if not options.video_seconds:
        return request.duration_s
    return min(options.video_seconds, key=lambda legal: (abs(legal - request.duration_s), -legal))


def _references(files: list[MediaFile], call: Call, options: Options) -> dict[str, Any]:
    if not files:
        return {}
    values = [inline_or_url(file, call, options.reference_data) for file in files]
    name = options.video_reference_field
    return {name: values if name.endswith("s") else values[0]}


# --- the answers ------------------------------------------------------------------------------------------------------


def _address(job: UpstreamJob, call: Call) -> str:
    return f"{base_url(call.upstream)}/videos/{quote(job.id, safe='')}"


def _accepted(answer: Answer, call: Call, options: Options) -> str:
    """Return the id of what was accepted. Raises: UpstreamError."""
    document = answer.document
    if not answer.is_ok:
        raise error_of(answer, "submit", call, refusals=options.refusal_statuses)
    video = _inner(document)
    found = next((video[name] for name in ("id", "task_id", "video_id") if video.get(name)), None)
    if str(video.get("status") or "").lower() in ENDED:
        raise task_error(_fault(video), call)
    if isinstance(found, int | str) and not isinstance(found, bool) and _ID.fullmatch(str(found)):
        return str(found)
    if find_fault(document) is not None:
        raise error_of(answer, "submit", call, refusals=options.refusal_statuses)
    raise UpstreamOutcomeUnknown("accepted without an id", http_status=answer.status)


async def _video(job: UpstreamJob, call: Call, options: Options) -> tuple[Answer, Mapping[str, Any]]:
    """Ask for the object. Raises: UpstreamFailed when it is gone, UpstreamError to ask again."""
    answer = await call.http.send(
        "GET", _address(job, call), phase="read", headers=headers_of(call, options), limits=POLL
    )
    if answer.status in (404, 410):
        raise UpstreamFailed(f"poll: status {answer.status}", public=_GONE, http_status=answer.status)
    if not answer.is_ok:
        raise error_of(answer, "read", call)
    video = _inner(answer.document)
    if not video.get("status"):
        if find_fault(answer.document) is not None:
            raise error_of(answer, "read", call)
        raise UpstreamError("an answer without a status")
    return answer, video


def _inner(document: Any) -> Mapping[str, Any]:
    """Return the object itself: some relays put it, or a list of it, into ``data``."""
    if not isinstance(document, dict):
        return {}
    data = document.get("data")
    if isinstance(data, list) and data:
        data = data[0]
    if isinstance(data, dict) and not document.get("status"):
        return data
    return document


def _state(video: Mapping[str, Any], unheard: set[str]) -> Progress | Finished | None:
    """Return where the video is; None when it ended without a result."""
    word = str(video["status"]).strip().lower()
    if word in DONE:
        return Finished()
    if word in ENDED:
        return None
    if word in QUEUED:
        return Progress(_percent(video.get("progress")), started=False)
    if word not in RUNNING and word[:40] not in unheard and len(unheard) < 100:
        unheard.add(word[:40])
        log.warning("videos.unknown_status", word=word[:40])
    return Progress(_percent(video.get("progress")))


def _percent(value: Any) -> int | None:
    match = None if value is None or isinstance(value, bool) else _PERCENT.fullmatch(str(value))
    return min(int(match[1]), 99) if match else None


def _fault(video: Mapping[str, Any]) -> Fault:
    found = find_fault(video) or find_fault({"error": dict(video)})
    return found or Fault("")


def _url(video: Mapping[str, Any]) -> str | None:
    for path in _URLS:
        node: Any = video
        for name in path:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, str) and node.strip():
            return node.strip()
    return None


def _check(path: Path) -> None:
    """Raises: UpstreamFailed for nothing, UpstreamError for something that is no video (a page that says why)."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise UpstreamFailed("an empty result", public="The upstream's result could not be read.")
    if not (sniff(head) or "").startswith("video/"):
        raise UpstreamError("the result is no video")


def _cost(video: Mapping[str, Any], options: Options) -> Cost | None:
    prices = options.prices
    if prices is None or not prices.second:
        return None
    match = re.fullmatch(r"\d{1,4}(?:\.\d+)?", str(video.get("seconds") or ""))
    return Cost(round(float(match[0]) * prices.second * 1_000_000), prices.currency) if match else None
