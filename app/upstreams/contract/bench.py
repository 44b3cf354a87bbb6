"""One harness with what it takes to call its provider, and the words with which a check fails."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal, cast

from app.fetch.client import SafeFetcher
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.settings import Settings
from app.upstreams.contract.harness import SECRET, Harness
from app.upstreams.contract.meddler import IMPATIENT, SMALL, WAITED_FOR, Meddler, SmallHttp
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import (
    Call,
    Finished,
    Progress,
    SubmitFinder,
    SubmitSafety,
    Upstream,
    UpstreamError,
    UpstreamJob,
    UpstreamRejected,
    VideoSubmitter,
)
from app.values import utcnow

Kind = Literal["image", "video"]
Classes = tuple[type[UpstreamError], ...]
PUBLIC_CHARS = 300

IMAGE = ImageRequest(
    operation=Operation.IMAGE_GENERATE,
    prompt="a fox at dawn",
    width=1536,
    height=864,
    ratio="16:9",
    quality="standard",
)
VIDEO = VideoRequest(
    operation=Operation.VIDEO_GENERATE,
    prompt="a fox at dawn",
    resolution="720p",
    width=1280,
    height=720,
    ratio="16:9",
    duration_s=8,
)


class CheckFailed(Exception):
    """The provider broke the contract. The message says how, without the secret."""


class NotApplicable(Exception):
    """This check asks for what the vendor does not have."""


def expect(is_so: bool, otherwise: str) -> None:
    """Raises: CheckFailed with ``otherwise``, unless it is so."""
    if not is_so:
        raise CheckFailed(otherwise)


async def error_of(work: Awaitable[Any], expected: Classes) -> UpstreamError:
    """Return the error that ``work`` ends with: one of ``expected``, which gives nothing away. Raises: CheckFailed.

    A provider's own kinds count as what they derive from.
    """
    wanted = " or ".join(kind.__name__ for kind in expected)
    try:
        await work
    except UpstreamError as error:
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == UpstreamError.__module__)
        shown = f"{error!r} {error} {error.public} {''.join(traceback.format_exception(error))}"
        expect(SECRET not in shown, f"the secret is in {kind.__name__}, or in an error behind it")
        expect(kind in expected, f"raised {kind.__name__}, must be {wanted}")
        expect("127.0.0.1" not in error.public, "the upstream's address is in the public text")
        expect(len(error.public) < PUBLIC_CHARS, f"the public text has {len(error.public)} characters")
        return error
    raise CheckFailed(f"raised nothing, must be {wanted}")


@dataclass(slots=True)
class Bench:
    """Calls of one provider to its fake."""

    vendor: Harness
    http: UpstreamHttp
    small: SmallHttp
    root: Path
    _numbers: count[int] = field(default_factory=count)

    @property
    def safety(self) -> SubmitSafety:
        return self.vendor.provider.capabilities.submit

    def request(self, kind: Kind) -> ImageRequest | VideoRequest:
        found: ImageRequest | VideoRequest = getattr(
            self.vendor, f"{kind}_request", IMAGE if kind == "image" else VIDEO
        )
        return found

    def call(self, kind: Kind, *, upstream: Upstream | None = None) -> Call:
        """Return a call with an empty folder. Another ``upstream`` has the small limits."""
        model = self.vendor.image_model if kind == "image" else self.vendor.video_model
        if model is None:
            raise CheckFailed(f"the harness names no {kind}_model")
        folder = self.root / f"out-{next(self._numbers)}"
        folder.mkdir(parents=True)
        return Call(
            upstream=upstream or self.vendor.upstream,
            model=model,
            client_token="task:1",  # noqa: S106 - no secret
            attempt_no=1,
            out_dir=folder,
            http=self.http if upstream is None else self.small,
            public_url=_no_public_url,
        )

    async def submit(self, kind: Kind, call: Call) -> Any:
        provider: Any = self.vendor.provider
        work = provider.generate_image if kind == "image" else provider.submit_video
        return await work(self.request(kind), call)

    async def poll(self, job: UpstreamJob, *, upstream: Upstream | None = None) -> Progress | Finished:
        provider = cast(VideoSubmitter, self.vendor.provider)
        return await provider.poll_video(job, self.call("video", upstream=upstream))

    async def finish(self, job: UpstreamJob, *, polls: int = 20) -> Path:
        """Poll until it is done, and return the film."""
        for _ in range(polls):
            if isinstance(await self.poll(job), Finished):
                provider = cast(VideoSubmitter, self.vendor.provider)
                call = self.call("video")
                film = (await provider.fetch_video(job, call)).video
                _expect_file(film, call)
                return film
        raise CheckFailed(f"the job was not done after {polls} polls")

    async def find(self, *, upstream: Upstream | None = None) -> UpstreamJob | None:
        provider, request = cast(SubmitFinder, self.vendor.provider), cast(VideoRequest, self.request("video"))
        return await provider.find_submitted(request, self.call("video", upstream=upstream), utcnow())

    async def resolve(self, kind: Kind) -> Any:
        """Do what the engine does after a submit of unknown outcome; None: it is given up."""
        if self.safety is SubmitSafety.IDEMPOTENT:
            return await self.submit(kind, self.call(kind))
        if self.safety is SubmitSafety.LISTABLE and kind == "video":
            return await self.find()
        return None

    def expect_accepted(self, times: int) -> None:
        """Raises: CheckFailed."""
        found = self.vendor.accepted
        expect(found == times, f"the upstream accepted {found} submits, must be {times}")

    def need(self, behaviour: str) -> None:
        """Raises: NotApplicable when the vendor's wire has no such case."""
        if self.vendor.lacks(behaviour):
            raise NotApplicable("this vendor's wire has no such case")

    @asynccontextmanager
    async def spoilt(self, spoil: str, where: Literal["submit", "later"]) -> AsyncIterator[Upstream]:
        """Yield the upstream behind a proxy that spoils one answer. Raises: CheckFailed when nothing was asked."""
        meddler = Meddler(self.vendor.upstream.base_url or "", lambda: self.vendor.accepted, spoil, where)
        self.small.limits = IMPATIENT if spoil in WAITED_FOR else SMALL
        await meddler.start()
        try:
            yield replace(self.vendor.upstream, base_url=meddler.url)
        finally:
            await meddler.stop()
        expect(meddler.spoilt == 1, "the upstream was not asked, or at another address than base_url")


@asynccontextmanager
async def open_bench(harness: Harness, root: Path) -> AsyncIterator[Bench]:
    """Start the fake, and stop it in the end. Raises: CheckFailed when it is nowhere."""
    await harness.start()
    try:
        host = (harness.upstream.base_url or "").partition("://")[2].partition("/")[0]
        expect(bool(host), "the harness's upstream has no base_url after start()")
        fetcher = SafeFetcher(Settings(fetch_allow_hosts=(host,)))
        http, small = UpstreamHttp(fetcher), SmallHttp(fetcher)
        try:
            yield Bench(harness, http, small, root)
        finally:
            await http.close()
            await small.close()
            await fetcher.close()
    finally:
        await harness.stop()


def _expect_file(path: Path, call: Call) -> None:
    expect(path.is_relative_to(call.out_dir), "the result is not under call.out_dir")
    expect(path.is_file() and path.stat().st_size > 0, "the result's file is empty or missing")


def expect_image(result: Any, call: Call) -> None:
    """Raises: CheckFailed unless the result's file is there."""
    _expect_file(result.path, call)


def _no_public_url(file: MediaFile) -> str:
    raise UpstreamRejected(public=f"'{file.field}' needs a public address of this server, and it has none.")
