"""Calls Google's APIs for neutral requests; the shapes are in the other modules of this package."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from app.providers.google import images, veo
from app.providers.google.api import Api, is_gemini, is_operation_name
from app.providers.google.errors import http_error
from app.providers.google.probe import probe
from app.requests import ImageRequest, Operation, VideoRequest
from app.upstreams.http import IMAGE, INLINE_VIDEO, Limits
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
    VideoResult,
)

SUBMIT = Limits(read_s=60.0, total_s=300.0)  # images, or a whole video to extend, go along


class GoogleProvider:
    """Gemini images and Veo videos. Nothing is kept here: no answer of a submit can be found again."""

    name = "google"
    capabilities = Capabilities(
        operations=frozenset(
            {Operation.IMAGE_GENERATE, Operation.IMAGE_EDIT, Operation.VIDEO_GENERATE, Operation.VIDEO_REMIX}
        ),
        submit=SubmitSafety.BLIND,
        result_lifetime=timedelta(days=2),
        poll_s=10.0,
    )

    def why_not(self, request: ImageRequest | VideoRequest, model: str, upstream: Upstream) -> str | None:
        """Return what this model or API lacks for the request; None: it can."""
        if isinstance(request, ImageRequest):
            return images.why_not(request, model)
        try:
            gemini = is_gemini(upstream, video=True)
        except UpstreamDenied:
            return None  # said when it is called, to the operator
        return veo.why_not(request, model, gemini=gemini)

    async def generate_image(
        self, request: ImageRequest, call: Call, on_partial: PartialSink | None = None
    ) -> ImageResult:
        """Make or edit one image. There are no interim images: the drafts among the answer's parts come at its end."""
        api = Api.of(call.upstream, video=False)
        answer = await call.http.send(
            "POST",
            api.method(call.model, "generateContent"),
            phase="submit",
            headers=api.headers,
            json=images.body(request),
            limits=IMAGE,
            divert=images.DIVERTED,
            folder=call.out_dir,
        )
        secret = _secret(call)
        if not answer.is_ok:
            raise http_error(answer, "submit", video=False, secret=secret)
        return images.result(answer, secret=secret, prices=_prices(call))

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        """Start a video; the handle is the operation's name. A remix extends the source.

        The Agent Platform gets our copy of the source. The Gemini shape knows only videos it still keeps itself.
        """
        api = Api.of(call.upstream, video=True)
        source_uri = None
        if request.operation is Operation.VIDEO_REMIX:
            if api.is_gemini:
                source_uri = await self._kept_source(request, call, api)
            elif not request.videos:
                raise UpstreamRejected("no source", public="The source video is missing.")
        person = call.options.get("person_generation") or call.upstream.options.get("person_generation")
        answer = await call.http.send(
            "POST",
            api.method(call.model, "predictLongRunning"),
            phase="submit",
            headers=api.headers,
            json=veo.body(request, gemini=api.is_gemini, source_uri=source_uri, person_generation=person),
            limits=SUBMIT,
        )
        if not answer.is_ok:
            raise http_error(answer, "submit", video=True, secret=_secret(call))
        name = answer.document.get("name") if isinstance(answer.document, dict) else None
        if not is_operation_name(name):
            raise UpstreamOutcomeUnknown("accepted, but without the name of an operation")
        return UpstreamJob(name)

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        """Ask once. An inline video comes with the answer and is dropped: `fetch_video` asks for it again."""
        with TemporaryDirectory(dir=call.out_dir, prefix="poll-") as folder:
            state = await self._operation(job, call, Api.of(call.upstream, video=True), Path(folder))
        return state if isinstance(state, Progress) else Finished()

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        """Take the video out of the operation, or from where the upstream keeps it."""
        api = Api.of(call.upstream, video=True)
        folder = Path(mkdtemp(dir=call.out_dir, prefix="fetch-"))  # a fetch may be repeated
        clip = await self._operation(job, call, api, folder)
        if isinstance(clip, Progress):
            raise UpstreamError("the operation is not done any more")
        if clip.file is not None:
            return VideoResult(clip.file.file)
        out = folder / "video"
        url = clip.uri or ""
        if api.serves(url):
            size = await call.http.download(
                url, out, upstream=call.upstream, headers=api.headers, follow_with_headers=True
            )
        else:  # the key belongs to the API's host alone
            size = (await call.http.fetch(url, out, upstream=call.upstream)).size_bytes
        if not size:
            raise UpstreamFailed("the video is empty")
        return VideoResult(out)

    def needs_secret(self, upstream: Upstream) -> bool:
        """See `Probe`."""
        return True

    async def probe(self, call: Call, models: Collection[str]) -> Probed:
        """See `Probe`."""
        return await probe(call, models)

    async def _operation(self, job: UpstreamJob, call: Call, api: Api, folder: Path) -> Progress | veo.Clip:
        if not is_operation_name(job.id):
            raise UpstreamFailed("not the name of an operation")
        if api.is_gemini:
            method, url, json = "GET", api.operation(job.id), None
        else:
            method, url, json = "POST", api.fetch_operation(job.id, call.model), {"operationName": job.id}
        answer = await call.http.send(
            method,
            url,
            phase="read",
            headers=api.headers,
            json=json,
            limits=INLINE_VIDEO,
            divert=veo.DIVERTED,
            folder=folder,
        )
        if not answer.is_ok:
            raise http_error(answer, "read", video=True, secret=_secret(call))
        return veo.read_operation(answer.document, _secret(call))

    async def _kept_source(self, request: VideoRequest, call: Call, api: Api) -> str:
        """Return where the upstream keeps a remix's source. Nothing is submitted yet, and no error says otherwise."""
        gone = UpstreamRejected("no source", public="The upstream no longer keeps the source video.")
        if request.source_upstream_id is None:
            raise gone
        try:
            with TemporaryDirectory(dir=call.out_dir, prefix="source-") as folder:
                clip = await self._operation(UpstreamJob(request.source_upstream_id), call, api, Path(folder))
        except (UpstreamRejected, UpstreamFailed):
            raise gone from None
        except (UpstreamBusy, UpstreamDenied):
            raise
        except UpstreamError as error:
            raise UpstreamBusy(f"the source could not be asked for: {error}", http_status=error.http_status) from None
        if isinstance(clip, Progress) or clip.uri is None:
            raise gone
        return clip.uri


def _secret(call: Call) -> str:
    return call.upstream.secret.get_secret_value() if call.upstream.secret else ""


def _prices(call: Call) -> Mapping[str, Any]:
    prices = call.upstream.options.get("prices")
    found = prices.get(call.model) if isinstance(prices, Mapping) else None
    return found if isinstance(found, Mapping) else {}
