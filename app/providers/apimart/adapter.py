"""Submits tasks to APIMart, and polls them until they hold a URL.

Options of the account:
- ``families``: model id -> family, for ids that `families` does not list;
- ``inputs: upload | public``: pictures are uploaded (the default), or given under our own signed URLs;
- ``image_poll_s``, ``image_wait_s``: how often and how long one call looks for its image;
- ``prices``: see `wire.cost_of`.
Option of the route: ``quality``, the official image model's own knob.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from app.providers.apimart import wire
from app.providers.apimart.bodies import UrlOf, image_body, video_body
from app.providers.apimart.families import ImageFamily, VideoFamily, family_of
from app.providers.apimart.given import GivenUrls, prune
from app.providers.apimart.picky import UPLOAD_TYPES, why_not_image, why_not_video
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.upstreams.http import HASTY, MIB, POLL, PROBE, Answer, Limits, Part
from app.upstreams.protocols import (
    Call,
    Capabilities,
    Finished,
    ImageResult,
    PartialSink,
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
    UpstreamRejected,
    Verdict,
    VideoResult,
)
from app.upstreams.wording import cleaned

log = structlog.get_logger(__name__)

BASE_URL = "https://api.apimart.ai"
RESPONSE_VERSION = "2026-07-27"
SUBMIT = Limits(read_s=45.0, total_s=60.0)
UPLOAD = Limits(read_s=120.0, total_s=180.0)
UPLOAD_BYTES = 20 * MIB
IMAGE_POLL_S, IMAGE_WAIT_S = 2.0, 600.0
PRUNE_EVERY_S = 3600.0
_TOKEN = re.compile(r"[!-~]{1,191}")


class ApimartProvider:
    """One account is one key. An image is a task too: `generate_image` polls it itself."""

    name = "apimart"
    capabilities = Capabilities(
        operations=frozenset(Operation),
        submit=SubmitSafety.IDEMPOTENT,
        result_lifetime=timedelta(hours=24),
        fetches=frozenset({"videos", "audios"}),
        poll_s=10.0,
    )

    def __init__(self) -> None:
        self._words: set[str] = set()
        self._pruned_at = float("-inf")

    def why_not(self, request: ImageRequest | VideoRequest, model: str, upstream: Upstream) -> str | None:
        """See `Picky`."""
        family = family_of(model, upstream)
        if isinstance(request, ImageRequest):
            return (
                why_not_image(request, family) if isinstance(family, ImageFamily) else "This upstream makes no images."
            )
        return why_not_video(request, family) if isinstance(family, VideoFamily) else "This upstream makes no videos."

    async def generate_image(
        self, request: ImageRequest, call: Call, on_partial: PartialSink | None = None
    ) -> ImageResult:
        """Submit, poll and fetch.

        Once accepted nothing but the task's own end is definite: whatever else happens is UpstreamOutcomeUnknown, and
        the same token leads back to the same task.
        """
        family = family_of(call.model, call.upstream)
        if not isinstance(family, ImageFamily):
            raise UpstreamDenied("the model is not one of the account's image models")
        body = await image_body(request, call.model, family, call.options, self._url_of(call))
        task = await self._submit(call, "/images/generations", body)
        try:
            record = await self._finished(task, call)
            out = call.out_dir / "image"
            await _fetch(call, "images", out, record)
        except (UpstreamRejected, UpstreamFailed):
            raise
        except UpstreamError as error:
            raise UpstreamOutcomeUnknown(f"accepted, then: {error}", http_status=error.http_status) from None
        return ImageResult(out, cost=wire.cost_of(record, call.upstream.options.get("prices")))

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        """Create the task, or the extension of one."""
        family = family_of(call.model, call.upstream)
        if not isinstance(family, VideoFamily):
            raise UpstreamDenied("the model is not one of the account's video models")
        path = "/videos/generations"
        if request.operation is Operation.VIDEO_REMIX:
            if not request.source_upstream_id:
                raise UpstreamRejected(public="The original of this remix is not known to this upstream.")
            path = f"/videos/{quote(request.source_upstream_id, safe='')}/remix"
        body = await video_body(request, call.model, family, self._url_of(call))
        task = await self._submit(call, path, body, is_remix=request.operation is Operation.VIDEO_REMIX)
        if task.id is None:
            raise UpstreamOutcomeUnknown("accepted, without an id")
        return UpstreamJob(task.id)

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        """Read the task's record."""
        record = await _record(job.id, call)
        progress = self._judge(record, call)
        if progress is None:
            _first_url(record, "videos")
            return Finished()
        return progress

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        """Read the record again, and fetch what it leads to. A thumbnail or GIF that cannot be read is left out."""
        record = await _record(job.id, call)
        if self._judge(record, call) is not None:
            raise UpstreamError("the task is not done any more")
        video = call.out_dir / "video.mp4"
        await _fetch(call, "videos", video, record)
        thumbnail = await _extra(call, wire.url_of(record, "thumbnail_url"), "thumbnail")
        gif = await _extra(call, wire.url_of(record, "gif_url") or wire.url_of(record, "gifs"), "animation.gif")
        cost = wire.cost_of(record, call.upstream.options.get("prices"))
        return VideoResult(video=video, thumbnail=thumbnail, gif=gif, cost=cost)

    def needs_secret(self, upstream: Upstream) -> bool:
        """See `Probe`."""
        return True

    async def probe(self, call: Call, models: Collection[str]) -> Probed:
        """Ask for the balance, which servers of its kind may not tell, and for the list of models."""
        answer = await _asked(call, "/user/balance", PROBE)
        has_balance = answer.status not in (404, 405)
        balance = wire.balance_of(wire.checked(answer, "read")) if has_balance else None
        if balance == 0:
            raise UpstreamDenied("the balance is 0", is_spent=True, http_status=answer.status)
        try:
            listed = wire.models_of(wire.checked(await _asked(call, "/models", HASTY), "read"))
        except UpstreamError:
            if balance is None:
                raise
            listed = frozenset()
        if not listed.intersection(models):  # a list that knows none of them is of another kind
            listed = frozenset()
        missing = tuple(model for model in models if model not in listed) if listed else None
        return Probed(Verdict.ACCEPTED, missing=missing, balance=None if balance is None else f"{balance:.2f} USD")

    async def _submit(self, call: Call, path: str, body: Mapping[str, Any], *, is_remix: bool = False) -> wire.Accepted:
        headers = {
            **_headers(call),
            "Idempotency-Key": _token(call),
            "X-APIMart-Response-Version": RESPONSE_VERSION,
        }
        answer = await call.http.send(
            "POST", _url(call, path), phase="submit", headers=headers, json=body, limits=SUBMIT
        )
        if answer.headers.get("idempotency-replayed", "").lower() == "true":
            log.info("upstream.replayed", provider=self.name, upstream=call.upstream.name)
        return wire.accepted(answer, is_remix=is_remix)

    async def _finished(self, task: wire.Accepted, call: Call) -> Mapping[str, Any]:
        """Return the record of the finished task, polling until it is. Raises: UpstreamError when time is up."""
        if task.id is None or (wire.is_result(task.record) and wire.urls_of(task.record, "images")):
            return task.record
        options = call.upstream.options
        pause_s, wait_s = (
            _seconds(options, "image_poll_s", IMAGE_POLL_S),
            _seconds(options, "image_wait_s", IMAGE_WAIT_S),
        )
        until, trouble = time.monotonic() + wait_s, ""
        while True:
            try:
                record = await _record(task.id, call)
                if self._judge(record, call) is None:
                    return record
                trouble = f"still {cleaned(wire.status_of(record))}"
            except (UpstreamRejected, UpstreamFailed):
                raise
            except UpstreamError as error:
                trouble = str(error)
            if time.monotonic() + pause_s > until:
                raise UpstreamOutcomeUnknown(f"not done after {wait_s:g} s: {trouble}")
            await asyncio.sleep(pause_s)

    def _judge(self, record: Mapping[str, Any], call: Call) -> Progress | None:
        """Return how far the task is; None: done. Raises: UpstreamFailed, UpstreamRejected."""
        status = wire.status_of(record)
        if status in wire.DONE:
            return None
        if status in wire.FAILED:
            raise wire.failure_of(record, call.upstream.options.get("prices"))
        if status in wire.GONE:
            raise UpstreamFailed(f"the task is {status}")
        if status not in wire.WAITING | wire.RUNNING and status not in self._words and len(self._words) < 100:
            self._words.add(status)
            log.warning("upstream.unknown_status", provider=self.name, status=cleaned(status))
        return Progress(wire.percent_of(record), started=status not in wire.WAITING)

    def _url_of(self, call: Call) -> UrlOf:
        """Return what gives a file of ours a URL that the upstream can read, the same one at every resend."""
        folder = call.upstream.work_dir / "given"
        given = GivenUrls(folder, call.client_token)

        async def make(file: MediaFile) -> str:
            if time.monotonic() - self._pruned_at > PRUNE_EVERY_S:
                self._pruned_at = time.monotonic()
                await asyncio.to_thread(prune, folder, now=time.time())
            can_upload = file.mime in UPLOAD_TYPES and file.size_bytes <= UPLOAD_BYTES
            if can_upload and call.upstream.options.get("inputs") != "public":
                return await _upload(file, call)
            return call.public_url(file)

        async def url_of(file: MediaFile) -> str:
            return await given.url(file, make)

        return url_of


async def _upload(file: MediaFile, call: Call) -> str:
    """Upload a picture. Nothing is charged and nothing was submitted yet, so a lost answer is only a delay."""
    name = f"{file.sha256.hex()[:32]}.{file.mime.removeprefix('image/').replace('jpeg', 'jpg')}"
    try:
        answer = await call.http.send(
            "POST",
            _url(call, "/uploads/images"),
            phase="read",
            headers=_headers(call),
            form=[Part("file", file.path, filename=name, content_type=file.mime)],
            limits=UPLOAD,
        )
    except UpstreamBusy:
        raise
    except UpstreamError as error:
        raise UpstreamBusy(f"upload: {error}") from None
    try:
        document = wire.checked(answer, "submit")
    except UpstreamOutcomeUnknown as error:
        raise UpstreamBusy(f"upload: {error}", http_status=error.http_status) from None
    nested = document.get("data")
    url = (nested if isinstance(nested, dict) else document).get("url")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise UpstreamBusy("upload: an answer without a URL")
    return url


async def _asked(call: Call, path: str, limits: Limits) -> Answer:
    return await call.http.send("GET", _url(call, path), phase="read", headers=_headers(call), limits=limits)


async def _record(task_id: str, call: Call) -> Mapping[str, Any]:
    """Return the task's record. Raises: UpstreamFailed when it is gone, UpstreamError."""
    answer = await call.http.send(
        "GET",
        _url(call, f"/tasks/{quote(task_id, safe='')}"),
        phase="read",
        headers=_headers(call),
        params={"language": "en"},
        limits=POLL,
    )
    return wire.record_of(answer)


def _first_url(record: Mapping[str, Any], kind: str) -> str:
    """Raises: UpstreamFailed when a task that is done has none."""
    urls = wire.urls_of(record, kind)
    if not urls:
        raise UpstreamFailed("done, without a result")
    return urls[0]


async def _fetch(call: Call, kind: str, out: Path, record: Mapping[str, Any]) -> None:
    """Fetch the first result. Raises: UpstreamFailed when there is none, or none any more; UpstreamError."""
    try:
        await call.http.fetch(_first_url(record, kind), out, upstream=call.upstream)
    except UpstreamFailed:
        raise
    except UpstreamError as error:
        if (wire.expires_at(record, kind) or float("inf")) < time.time():
            raise UpstreamFailed("the result has expired", public="The upstream's result has expired.") from error
        raise


async def _extra(call: Call, url: str | None, name: str) -> Path | None:
    if url is None:
        return None
    out = call.out_dir / name
    try:
        await call.http.fetch(url, out, upstream=call.upstream, max_bytes=64 * MIB)
    except UpstreamError as error:
        log.info("upstream.extra_not_fetched", provider=ApimartProvider.name, what=name, error=str(error))
        return None
    return out


def _token(call: Call) -> str:
    """The client token, where it is one to 191 visible ASCII characters; else its digest."""
    token = call.client_token
    return token if _TOKEN.fullmatch(token) else hashlib.sha256(token.encode()).hexdigest()


def _seconds(options: Mapping[str, Any], name: str, default: float) -> float:
    value = options.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else default


def _url(call: Call, path: str) -> str:
    base = (call.upstream.base_url or BASE_URL).rstrip("/").removesuffix("/v1")
    return f"{base}/v1{path}"


def _headers(call: Call) -> dict[str, str]:
    if call.upstream.secret is None:
        raise UpstreamDenied("the account has no key")
    return {"Authorization": f"Bearer {call.upstream.secret.get_secret_value()}"}
