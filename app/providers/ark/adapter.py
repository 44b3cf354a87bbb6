"""Seedance on Volcengine Ark (and BytePlus ModelArk): one task per video, polled until its record holds a URL.

There is no client token. What stands in for one is the seed: the caller's choice, or one made from our token, which the
record repeats; so a submit whose answer was lost is found again in the list.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import structlog

from app.media.base64_stream import Base64Of
from app.providers.ark.errors import error_of, failed, not_accepted, not_read
from app.providers.ark.limits import why_not
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.upstreams.http import MIB, POLL, PROBE, Answer, Limits
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

BASE_URL = "https://ark.cn-beijing.volces.com/api/v3"
TASKS = "/contents/generations/tasks"
SUBMIT = Limits(read_s=30.0, total_s=180.0)
INLINE_CHARS = 60 * MIB
"""Of pictures in one body: Ark takes 64 MB in all. Beyond it they are given as URLs."""

LIST_PAGE, LIST_PAGES = 100, 20
LIST_BACK_S = 600.0
"""How far before the sending the list is read: their clock may differ from ours."""
WINDOW_S = 120.0
UNTOLD = float("inf")
EXPIRES_S, EXPIRES_SPREAD_S = 172_800, 86_400


class ArkProvider:
    """Account options: ``prices`` (see `_cost`). The key is the account's secret."""

    name = "ark"
    capabilities = Capabilities(
        operations=frozenset({Operation.VIDEO_GENERATE}),
        submit=SubmitSafety.LISTABLE,
        cancel=True,
        result_lifetime=timedelta(hours=24),
        fetches=frozenset({"videos", "audios"}),
        poll_s=10.0,
    )

    def __init__(self) -> None:
        self._words: set[str] = set()

    def why_not(self, request: ImageRequest | VideoRequest, model: str, upstream: Upstream) -> str | None:
        """See `Picky`."""
        if not isinstance(request, VideoRequest):
            return "This upstream makes no images."
        return why_not(request, model)

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        """Create the task. Never sent twice: Ark knows no idempotency."""
        body = {
            "model": call.model,
            "content": _content(request, call),
            "resolution": request.resolution,
            "ratio": request.ratio,
            "duration": request.duration_s,
            "generate_audio": request.params.get("generate_audio") is not False,
            "watermark": request.params.get("watermark") is True,
            **_tag(request, call),
        }
        identifier = (request.params.get("hints") or {}).get("safety_identifier")
        if isinstance(identifier, str) and identifier:
            body["safety_identifier"] = identifier[:64]
        answer = await call.http.send(
            "POST", _url(call), phase="submit", headers=_headers(call), json=body, limits=SUBMIT
        )
        if not answer.is_ok:
            raise not_accepted(answer)
        return UpstreamJob(_id_of(answer))

    async def find_submitted(self, request: VideoRequest, call: Call, sent_at: datetime) -> UpstreamJob | None:
        """Look for the task that repeats our tag.

        Raises: UpstreamError also when the list cannot tell: several fit, or one may fit that repeats no seed.
        """
        tag, sent = _tag(request, call), sent_at.timestamp()
        fits: set[str] = set()
        is_unclear = False
        async for item in _newest(call, since=sent - LIST_BACK_S):
            said = {name: item.get(name) for name in tag}
            if said == tag and isinstance(item.get("id"), str):
                fits.add(item["id"])
            elif None in said.values() and _is_near(item, sent) and _is_model(item, call.model):
                is_unclear |= all(said[name] in (None, value) for name, value in tag.items())
        if len(fits) == 1:
            return UpstreamJob(fits.pop())
        if fits or is_unclear:
            raise UpstreamError(f"the list does not tell: {len(fits)} fit")
        return None

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        """Read the task's record. It tells no percentage."""
        record = await _record(job, call)
        match record["status"]:
            case "queued":
                return Progress(started=False)
            case "running":
                return Progress()
            case "succeeded":
                _result_url(record)
                return Finished()
            case "failed":
                raise failed(record)
            case "cancelled" | "expired" as word:
                raise UpstreamFailed(f"the task is {word}")
            case word:
                if word not in self._words and len(self._words) < 100:
                    self._words.add(word)
                    log.warning("upstream.unknown_status", provider=self.name, status=cleaned(word))
                return Progress()

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        """Read the record again, for a URL that is as fresh as can be, and fetch what it leads to."""
        record = await _record(job, call)
        if record["status"] == "failed":
            raise failed(record)
        out = call.out_dir / "video.mp4"
        await call.http.fetch(_result_url(record), out, upstream=call.upstream)
        return VideoResult(video=out, cost=_cost(record, call))

    async def cancel_video(self, job: UpstreamJob, call: Call) -> bool:
        """Cancel a task that still waits. A running one cannot be; to delete a finished one would lose its result."""
        status = (await _record(job, call))["status"]
        if status != "queued":
            return bool(status == "cancelled")
        answer = await call.http.send(
            "DELETE", _url(call, job), phase="read", headers=_headers(call), json={}, limits=POLL
        )
        if answer.is_ok:
            return True
        error = not_read(answer)
        if isinstance(error, UpstreamBusy | UpstreamDenied) or answer.status >= 500:
            raise error
        return False

    def needs_secret(self, upstream: Upstream) -> bool:
        """See `Probe`."""
        return True

    async def probe(self, call: Call, models: Collection[str]) -> Probed:
        """Read the first line of the list of tasks. Which models are open to the account, Ark tells nobody."""
        params = {"page_num": "1", "page_size": "1"}
        answer = await call.http.send(
            "GET", _url(call), phase="read", headers=_headers(call), params=params, limits=PROBE
        )
        if not answer.is_ok:
            raise not_read(answer)
        document = answer.document
        if not isinstance(document, dict) or not ("total" in document or isinstance(document.get("items"), list)):
            raise UpstreamError("a list of tasks of another form")
        return Probed(Verdict.ACCEPTED)


# --- the request --------------------------------------------------------------------------------------------------


def _content(request: VideoRequest, call: Call) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}] if request.prompt else []
    pictures = list(_pictures(request))
    is_inline = sum(_inline(file).chars for _, file in pictures) <= INLINE_CHARS
    for role, file in pictures:
        items.append(_item("image_url", _inline(file) if is_inline else call.public_url(file), role))
    items += [_item("video_url", call.public_url(file), "reference_video") for file in request.videos]
    items += [_item("audio_url", call.public_url(file), "reference_audio") for file in request.audios]
    return items


def _pictures(request: VideoRequest) -> Iterator[tuple[str, MediaFile]]:
    if request.params.get("generation_type") == "frame":
        frames = (*((request.first_frame,) if request.first_frame else ()), *request.images)
        yield from zip(("first_frame", "last_frame"), frames, strict=False)
        return
    if request.first_frame:
        yield "first_frame", request.first_frame
    for file in request.images:
        yield "reference_image", file


def _item(kind: str, url: str | Base64Of, role: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}, "role": role}


def _inline(file: MediaFile) -> Base64Of:
    return Base64Of(file.path, file.size_bytes, prefix=f"data:{file.mime};base64,")


def _tag(request: VideoRequest, call: Call) -> dict[str, int]:
    """Return what the record will repeat, so that this attempt can be told from others.

    A seed that the caller left open is made from our token. One that was chosen may be everybody's 42; then the time
    after which the task expires, one to two days, tells them apart.
    """
    number = int.from_bytes(hashlib.sha256(call.client_token.encode()).digest()[:8])
    seed = request.params.get("seed")
    if seed is None or seed < 0:
        return {"seed": number % 4_294_967_295}
    return {"seed": seed, "execution_expires_after": EXPIRES_S - number % EXPIRES_SPREAD_S}


def _url(call: Call, job: UpstreamJob | None = None) -> str:
    base = (call.upstream.base_url or BASE_URL).rstrip("/") + TASKS
    return base if job is None else f"{base}/{quote(job.id, safe='')}"


def _headers(call: Call) -> dict[str, str]:
    if call.upstream.secret is None:
        raise UpstreamDenied("the account has no key")
    return {"Authorization": f"Bearer {call.upstream.secret.get_secret_value()}"}


# --- the answers ------------------------------------------------------------------------------------------------------


async def _record(job: UpstreamJob, call: Call) -> dict[str, Any]:
    """Return the task's record; ``status`` is text. Raises: UpstreamFailed when it is gone, UpstreamError."""
    answer = await call.http.send("GET", _url(call, job), phase="read", headers=_headers(call), limits=POLL)
    if answer.status == 404 and error_of(answer.document)[0]:
        raise UpstreamFailed("the task's record is gone", http_status=404)
    if not answer.is_ok:
        raise not_read(answer)
    record = answer.document
    if not isinstance(record, dict) or not isinstance(record.get("status"), str):
        raise UpstreamError("a record without a status")
    return record


async def _newest(call: Call, *, since: float) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the account's tasks, newest first, until they are older than ``since``.

    No filter is sent: an endpoint id in place of a model may not match it, and an empty list would mean "not accepted".
    """
    seen = 0
    for page in range(1, LIST_PAGES + 1):
        params = {"page_num": str(page), "page_size": str(LIST_PAGE)}
        answer = await call.http.send(
            "GET", _url(call), phase="read", headers=_headers(call), params=params, limits=POLL
        )
        if not answer.is_ok:
            raise not_read(answer)
        items = answer.document.get("items") if isinstance(answer.document, dict) else None
        if items is None and isinstance(answer.document, dict) and answer.document.get("total") == 0:
            return
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise UpstreamError("a list without items")
        for item in items:
            yield item
        times = [_created(item) for item in items]
        if not items or (times == sorted(times, reverse=True) and times[-1] < since):
            return
        seen += len(items)
        if seen >= (answer.document.get("total") or float("inf")):
            return
    raise UpstreamError("the list is too long to be read")


def _created(item: Mapping[str, Any]) -> float:
    """Return the unix time; one that is missing sorts as the newest, so that nothing is passed over."""
    value = item.get("created_at")
    return float(value) if isinstance(value, int | float) else UNTOLD


def _is_near(item: Mapping[str, Any], sent: float) -> bool:
    return _created(item) == UNTOLD or abs(_created(item) - sent) <= WINDOW_S


def _is_model(item: Mapping[str, Any], model: str) -> bool:
    """Whether the record may be of this model; an endpoint's id does not tell which one it stands for."""
    return model.startswith("ep-") or str(item.get("model") or model).startswith(model)


def _id_of(answer: Answer) -> str:
    found = answer.document.get("id") if isinstance(answer.document, dict) else None
    if not isinstance(found, str) or not 0 < len(found) <= 200:
        raise UpstreamOutcomeUnknown("accepted, but without an id", http_status=answer.status)
    return found


def _result_url(record: Mapping[str, Any]) -> str:
    """Raises: UpstreamFailed when there is none, or none any more."""
    content = record.get("content")
    url = content.get("video_url") if isinstance(content, dict) else None
    if record["status"] != "succeeded" or not isinstance(url, str) or not url:
        raise UpstreamFailed(f"{cleaned(record['status'])}, without a video")
    return url


def _cost(record: Mapping[str, Any], call: Call) -> Cost | None:
    """Price the tokens of the record by ``prices`` of the account, if that knows the model.

    ``{currency: CNY, million_tokens: {<upstream's model>: 46}}``, or a price per resolution: ``{720p: 46, 1080p: 51}``.
    """
    prices = call.upstream.options.get("prices")
    usage = record.get("usage")
    tokens = (usage.get("total_tokens") or usage.get("completion_tokens")) if isinstance(usage, dict) else None
    if not isinstance(prices, Mapping) or not isinstance(tokens, int) or tokens < 0:
        return None
    price = (prices.get("million_tokens") or {}).get(call.model)
    if isinstance(price, Mapping):
        price = price.get(record.get("resolution"))
    if not isinstance(price, int | float):
        return None
    return Cost(round(tokens * price), str(prices.get("currency", "CNY")))
