"""The provider: what it can do, and where each call goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import timedelta

from app.providers.openai import images, videos
from app.providers.openai.probe import probe
from app.requests import ImageRequest, Operation, VideoRequest
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
    UpstreamJob,
    VideoResult,
)


class OpenAIProvider:
    """Stateless but for the pace each running video's server asked for; any process may poll what another submitted."""

    name = "openai"
    capabilities = Capabilities(
        operations=frozenset(
            {Operation.IMAGE_GENERATE, Operation.IMAGE_EDIT, Operation.VIDEO_GENERATE, Operation.VIDEO_REMIX}
        ),
        submit=SubmitSafety.BLIND,  # no header is honoured as a client token, and the list has nothing of ours to match
        cancel=True,
        result_lifetime=timedelta(hours=1),
        poll_s=None,
    )

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, retry_s: float = 0.5) -> None:
        self._pace = videos.Pace(clock)
        self._unheard: set[str] = set()
        self._retry_s = retry_s

    def why_not(self, request: ImageRequest | VideoRequest, model: str, upstream: Upstream) -> str | None:
        """See `Picky`."""
        if isinstance(request, ImageRequest):
            return images.why_not_image(request, model, upstream)
        return videos.why_not_video(request, model, upstream)

    async def generate_image(
        self, request: ImageRequest, call: Call, on_partial: PartialSink | None = None
    ) -> ImageResult:
        """See `ImageGenerator`."""
        return await images.generate_image(request, call, on_partial, retry_s=self._retry_s)

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        """See `VideoSubmitter`."""
        return await videos.submit_video(request, call)

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        """See `VideoSubmitter`."""
        return await videos.poll_video(job, call, self._pace, self._unheard)

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        """See `VideoSubmitter`."""
        return await videos.fetch_video(job, call)

    async def cancel_video(self, job: UpstreamJob, call: Call) -> bool:
        """See `VideoCanceller`."""
        return await videos.cancel_video(job, call)

    def needs_secret(self, upstream: Upstream) -> bool:
        """OpenAI itself takes nobody without; a server of one's own may."""
        return upstream.base_url is None

    async def probe(self, call: Call, models: Collection[str]) -> Probed:
        """See `Probe`."""
        return await probe(call, models)
