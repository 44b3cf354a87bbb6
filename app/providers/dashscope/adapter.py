"""HappyHorse on Alibaba DashScope: one of four models by the inputs, one task per video, polled until it has a URL.

There is no client token, and a task repeats only its prompt; so a submit whose answer was lost is found again by model,
time and prompt. The times without a zone that a task's record holds are never computed with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import structlog

from app.media.base64_stream import Base64Of
from app.providers.dashscope.errors import failed, not_accepted, not_read
from app.providers.dashscope.kinds import Kind, kind_of, model_id, why_not
from app.providers.dashscope.uploads import addresses
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.upstreams.http import POLL, PROBE, Limits
from app.upstreams.protocols import (
    Call,
    Capabilities,
    Cost,
    Finished,
    Probed,
    Progress,
    SubmitSafety,
    Upstream,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamOutcomeUnknown,
    Verdict,
    VideoResult,
)
from app.upstreams.wording import cleaned

log = structlog.get_logger(__name__)

BASE_URL = "https://dashscope.aliyuncs.com"
SUBMIT_PATH = "/services/aigc/video-generation/video-synthesis"
SUBMIT = Limits(read_s=30.0, total_s=90.0)
LIST_PAGE, LIST_PAGES = 50, 20
WINDOW_S = 120.0
UNTOLD = float("inf")
LOOK_INTO = 50
"""Tasks of the right model and time whose prompts are read to find a lost one."""
CUT_PROMPT = 2000
"""A prompt that the record repeats may be cut off, but not before this many characters."""


class DashScopeProvider:
    """Account options: ``prices`` (see `_cost`), ``inputs: url`` (our URLs, no upload). Route option: ``ids``."""

    name = "dashscope"
    capabilities = Capabilities(
        operations=frozenset({Operation.VIDEO_GENERATE, Operation.VIDEO_EDIT}),
        submit=SubmitSafety.LISTABLE,
        cancel=True,
        result_lifetime=timedelta(hours=24),
        poll_s=15.0,
    )

    def __init__(self) -> None:
        self._words: set[str] = set()

    def why_not(self, request: ImageRequest | VideoRequest, model: str, upstream: Upstream) -> str | None:
        """See `Picky`."""
        if not isinstance(request, VideoRequest):
            return "This upstream makes no images."
        return why_not(request, model)

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        """Upload what must be, then create the task. Never sent twice: DashScope knows no idempotency."""
        kind = kind_of(request)
        model = model_id(call.model, kind, call.options)
        headers = _headers(call)
        media = await _media(request, kind, model, call)
        if any(str(item["url"]).startswith("oss://") for item in media):
            headers["X-DashScope-OssResourceResolve"] = "enable"
        body = {
            "model": model,
            "input": {
                **({"prompt": request.prompt} if request.prompt else {}),
                **({"media": media} if media else {}),
            },
            "parameters": _parameters(request, kind),
        }
        answer = await call.http.send(
            "POST",
            _url(call) + SUBMIT_PATH,
            phase="submit",
            headers={**headers, "X-DashScope-Async": "enable"},
            json=body,
            limits=SUBMIT,
        )
        if not answer.is_ok:
            raise not_accepted(answer)
        output = answer.document.get("output") if isinstance(answer.document, dict) else None
        found = output.get("task_id") if isinstance(output, dict) else None
        if not isinstance(found, str) or not 0 < len(found) <= 200:
            raise UpstreamOutcomeUnknown("accepted, but without an id", http_status=answer.status)
        return UpstreamJob(found)

    async def find_submitted(self, request: VideoRequest, call: Call, sent_at: datetime) -> UpstreamJob | None:
        """Look among the tasks of that model and time for the one with our prompt.

        Raises: UpstreamError also when nobody can tell (yet): several fit, or one near has no prompt to compare.
        """
        model, sent = model_id(call.model, kind_of(request), call.options), sent_at.timestamp()
        near = [
            item["task_id"]
            async for item in _newest(call, since=sent - WINDOW_S)
            if item.get("model_name") == model
            and isinstance(item.get("task_id"), str)
            and (_created(item) == UNTOLD or abs(_created(item) - sent) <= WINDOW_S)
        ]
        near = list(dict.fromkeys(near))
        if len(near) > LOOK_INTO:
            raise UpstreamError(f"the list does not tell: {len(near)} tasks near")
        judged = {task_id: await _is_ours(task_id, request.prompt, call) for task_id in near}
        ours = [task_id for task_id, is_ours in judged.items() if is_ours]
        if None in judged.values() or len(ours) > 1:
            raise UpstreamError(f"the list does not tell: {len(ours)} of {len(near)} fit")
        return UpstreamJob(ours[0]) if ours else None

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        """Read the task. It tells no percentage."""
        output = (await _task(job, call))["output"]
        match output["task_status"]:
            case "PENDING":
                return Progress(started=False)
            case "RUNNING" | "SUSPENDED":
                return Progress()
            case "SUCCEEDED":
                _result_url(output)
                return Finished()
            case "FAILED":
                raise failed(output)
            case "CANCELED" | "UNKNOWN" as word:
                raise UpstreamFailed("the task was cancelled" if word == "CANCELED" else "the task's record is gone")
            case word:
                if word not in self._words and len(self._words) < 100:
                    self._words.add(word)
                    log.warning("upstream.unknown_status", provider=self.name, status=cleaned(word))
                return Progress()

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        """Read the task again and fetch what its URL leads to."""
        task = await _task(job, call)
        output = task["output"]
        if output["task_status"] == "FAILED":
            raise failed(output)
        out = call.out_dir / "video.mp4"
        await call.http.fetch(_result_url(output), out, upstream=call.upstream)
        return VideoResult(video=out, cost=_cost(task.get("usage"), call))

    async def cancel_video(self, job: UpstreamJob, call: Call) -> bool:
        """Cancel a task that still waits; the upstream refuses it for any other."""
        answer = await call.http.send(
            "POST", f"{_task_url(job, call)}/cancel", phase="read", headers=_headers(call), limits=POLL
        )
        if answer.is_ok:
            return True
        error = not_read(answer)
        if isinstance(error, UpstreamBusy | UpstreamDenied) or answer.status >= 500:
            raise error
        return bool((await _task(job, call))["output"]["task_status"] == "CANCELED")

    def needs_secret(self, upstream: Upstream) -> bool:
        """See `Probe`."""
        return True

    async def probe(self, call: Call, models: Collection[str]) -> Probed:
        """Read the first line of the list of tasks. Which models are open to the account, it does not tell."""
        params = {"page_no": "1", "page_size": "1"}
        answer = await call.http.send(
            "GET", f"{_url(call)}/tasks", phase="read", headers=_headers(call), params=params, limits=PROBE
        )
        if not answer.is_ok:
            raise not_read(answer)
        document = answer.document
        if not isinstance(document, dict) or not ("total" in document or isinstance(document.get("data"), list)):
            raise UpstreamError("a list of tasks of another form")
        return Probed(Verdict.ACCEPTED)


# --- the request ------------------------------------------------------------------------------------------------------


def _parameters(request: VideoRequest, kind: Kind) -> dict[str, Any]:
    params = request.params
    said: dict[str, Any] = {"resolution": request.resolution.upper()}
    if kind.takes_ratio:
        said["ratio"] = request.ratio
    if kind.takes_duration:
        said["duration"] = request.duration_s
    if kind is Kind.EDIT:
        said["audio_setting"] = params.get("audio_setting") or "auto"
    said["watermark"] = params.get("watermark") is True  # unsaid, it is on
    if params.get("seed") is not None:
        said["seed"] = params["seed"]
    return said


async def _media(request: VideoRequest, kind: Kind, model: str, call: Call) -> list[dict[str, str | Base64Of]]:
    files: list[tuple[str, MediaFile]] = []
    if kind is Kind.EDIT:
        files += [("video", file) for file in request.videos]
    elif request.first_frame:
        files.append(("first_frame", request.first_frame))
    files += [("reference_image", file) for file in request.images]
    urls = await addresses([file for _, file in files], model=model, call=call, url=_url(call), headers=_headers(call))
    return [{"type": role, "url": url} for (role, _), url in zip(files, urls, strict=True)]


def _url(call: Call) -> str:
    base = (call.upstream.base_url or BASE_URL).rstrip("/")
    return base if base.endswith("/api/v1") else f"{base}/api/v1"


def _task_url(job: UpstreamJob, call: Call) -> str:
    return f"{_url(call)}/tasks/{quote(job.id, safe='')}"


def _headers(call: Call) -> dict[str, str]:
    if call.upstream.secret is None:
        raise UpstreamDenied("the account has no key")
    return {"Authorization": f"Bearer {call.upstream.secret.get_secret_value()}"}


# --- the answers ------------------------------------------------------------------------------------------------------


async def _task(job: UpstreamJob, call: Call) -> dict[str, Any]:
    """Return the task; ``output.task_status`` is text. Raises: UpstreamError."""
    answer = await call.http.send("GET", _task_url(job, call), phase="read", headers=_headers(call), limits=POLL)
    if not answer.is_ok:
        raise not_read(answer)
    task = answer.document
    output = task.get("output") if isinstance(task, dict) else None
    if not isinstance(output, dict) or not isinstance(output.get("task_status"), str):
        raise UpstreamError("a task without a status")
    return dict(task)


async def _newest(call: Call, *, since: float) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the account's tasks of a day, newest first, until they are older than ``since``.

    No filter is sent: one that the upstream reads otherwise would empty the list, which means "not accepted".
    """
    seen = 0
    for page in range(1, LIST_PAGES + 1):
        params = {"page_no": str(page), "page_size": str(LIST_PAGE)}
        answer = await call.http.send(
            "GET", f"{_url(call)}/tasks", phase="read", headers=_headers(call), params=params, limits=POLL
        )
        if not answer.is_ok:
            raise not_read(answer)
        document = answer.document if isinstance(answer.document, dict) else {}
        items = document.get("data")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise UpstreamError("a list of another form")
        for item in items:
            yield item
        times = [_created(item) for item in items]
        seen += len(items)
        if not items or (times == sorted(times, reverse=True) and times[-1] < since):
            return
        if seen >= (document.get("total") or float("inf")):
            return
    raise UpstreamError("the list is too long to be read")


def _created(item: Mapping[str, Any]) -> float:
    """Return the unix time: ``gmt_create`` is in milliseconds. One that is missing sorts as the newest."""
    value = item.get("gmt_create")
    return value / 1000 if isinstance(value, int | float) else UNTOLD


async def _is_ours(task_id: str, prompt: str, call: Call) -> bool | None:
    """Whether the task has our prompt; None when it does not tell: still waiting, or there is none to compare."""
    said = (await _task(UpstreamJob(task_id), call))["output"].get("orig_prompt")
    ours = prompt.strip()
    if not isinstance(said, str):
        return None
    said = said.strip()
    if not said and not ours:
        return None  # a video of a first frame alone: of whose?
    return said == ours or (len(said) >= CUT_PROMPT and ours.startswith(said))


def _result_url(output: Mapping[str, Any]) -> str:
    """Raises: UpstreamFailed when there is none."""
    url = output.get("video_url")
    if output["task_status"] != "SUCCEEDED" or not isinstance(url, str) or not url:
        raise UpstreamFailed(f"{cleaned(output['task_status'])}, without a video")
    return url


def _cost(usage: Any, call: Call) -> Cost | None:
    """Price the seconds of ``usage`` by ``prices`` of the account, if that knows the route's model.

    ``{currency: CNY, second: {<route's model>: {720p: 0.9, 1080p: 1.6}}}``. An edit is metered on input and output.
    """
    prices = call.upstream.options.get("prices")
    if not isinstance(prices, Mapping) or not isinstance(usage, Mapping):
        return None
    table = (prices.get("second") or {}).get(call.model)
    price = table.get(f"{str(usage.get('SR')).lower().rstrip('p')}p") if isinstance(table, Mapping) else table
    made, read = usage.get("output_video_duration"), usage.get("input_video_duration") or 0
    seconds = made + read if isinstance(made, int | float) else usage.get("duration")
    if not isinstance(price, int | float) or not isinstance(seconds, int | float):
        return None
    return Cost(round(seconds * price * 1_000_000), str(prices.get("currency", "CNY")))
