"""What every provider must do, against its own fake upstream: one suite for all.

A vendor's tests hand over their fake with ``harness()``. The demo provider has no wire, and tests of its own.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from yarl import URL

from app.fetch.client import SafeFetcher
from app.requests import ImageRequest, Operation, VideoRequest
from app.settings import Settings
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import (
    Call,
    Finished,
    ImageGenerator,
    Picky,
    Progress,
    SubmitFinder,
    SubmitSafety,
    Upstream,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
    VideoSubmitter,
)
from app.values import utcnow
from tests.providers.calls import make_call
from tests.providers.harness import SECRET, Harness
from tests.providers.meddler import SPOILT, Meddler, SmallHttp

IMAGES = ("openai", "google", "apimart", "comfyui")
VIDEOS = ("openai", "google", "ark", "dashscope", "apimart", "comfyui")
KINDS = [*((vendor, "image") for vendor in IMAGES), *((vendor, "video") for vendor in VIDEOS)]

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

Classes = tuple[type[UpstreamError], ...]
UNKNOWN: Classes = (UpstreamOutcomeUnknown,)
REFUSALS: dict[str, Classes] = {
    "busy": (UpstreamBusy,),
    "busy 2": (UpstreamBusy,),
    "unauthorized": (UpstreamDenied,),
    "quota": (UpstreamDenied,),
    "bad_request": (UpstreamRejected,),
    "moderated": (UpstreamModerated,),
    "retired": (UpstreamDenied,),
}
LOST: dict[str, Classes] = {
    "error 500": UNKNOWN,
    "error 502": UNKNOWN,
    "error 503": (UpstreamOutcomeUnknown, UpstreamBusy),  # where the vendor says that a 503 made nothing
    "cut": UNKNOWN,
    "garbage": UNKNOWN,
    "no_id": UNKNOWN,
}
ANSWERED: Classes = (UpstreamOutcomeUnknown, UpstreamFailed)
"""An image without an image in a whole answer: made or not, there is nothing to come."""
ASK_AGAIN: Classes = (UpstreamError, UpstreamBusy)
ENDS: dict[str, Classes] = {
    "failed": (UpstreamFailed,),
    "moderated_late": (UpstreamModerated,),
    "expired": (UpstreamFailed,),
    "no_result": (UpstreamFailed,),
}


@dataclass(slots=True)
class Bench:
    """One harness with what it takes to call its provider."""

    vendor: Harness
    http: UpstreamHttp
    small: SmallHttp
    root: Path
    _numbers: count[int] = field(default_factory=count)

    def call(self, kind: str, *, upstream: Upstream | None = None, token: str = "task:1") -> Call:  # noqa: S107
        """A call with an empty folder. Another ``upstream`` has the small limits."""
        model = self.vendor.image_model if kind == "image" else self.vendor.video_model
        assert model is not None
        http = self.http if upstream is None else self.small
        folder = self.root / f"out-{next(self._numbers)}"
        return make_call(upstream or self.vendor.upstream, model, folder, http, token)

    async def submit(self, kind: str, call: Call) -> Any:
        provider: Any = self.vendor.provider
        return await (provider.generate_image(IMAGE, call) if kind == "image" else provider.submit_video(VIDEO, call))

    async def poll(self, job: UpstreamJob, *, upstream: Upstream | None = None) -> Progress | Finished:
        provider = cast(VideoSubmitter, self.vendor.provider)
        return await provider.poll_video(job, self.call("video", upstream=upstream))

    async def finish(self, job: UpstreamJob, *, polls: int = 20) -> Path:
        """Poll until it is done, and return the film."""
        for _ in range(polls):
            if isinstance(await self.poll(job), Finished):
                provider = cast(VideoSubmitter, self.vendor.provider)
                return (await provider.fetch_video(job, self.call("video"))).video
        raise AssertionError("never done")

    async def resolve(self, kind: str) -> Any:
        """Do what the engine does after a submit of unknown outcome; None: it is given up."""
        match self.vendor.provider.capabilities.submit:
            case SubmitSafety.IDEMPOTENT:
                return await self.submit(kind, self.call(kind))
            case SubmitSafety.LISTABLE:
                assert isinstance(self.vendor.provider, SubmitFinder)
                return await self.vendor.provider.find_submitted(VIDEO, self.call(kind), utcnow())
            case _:
                return None


@asynccontextmanager
async def opened(vendor: str, root: Path) -> AsyncIterator[Bench]:
    harness: Harness = import_module(f"tests.providers.test_{vendor}").harness()
    await harness.start()
    host = (harness.upstream.base_url or "").split("/")[2]
    fetcher = SafeFetcher(Settings(fetch_allow_hosts=(host,)))
    http, small = UpstreamHttp(fetcher), SmallHttp(fetcher)
    try:
        yield Bench(harness, http, small, root)
    finally:
        await http.close()
        await small.close()
        await fetcher.close()
        await harness.stop()


@asynccontextmanager
async def spoilt(bench: Bench, spoil: str, where: Any) -> AsyncIterator[tuple[Meddler, Upstream]]:
    meddler = Meddler(bench.vendor.upstream.base_url or "", lambda: bench.vendor.accepted, spoil, where)
    await meddler.start()
    try:
        yield meddler, replace(bench.vendor.upstream, base_url=meddler.url)
    finally:
        await meddler.stop()


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test does, no line of the log may hold the secret."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as entries:
        yield
    assert SECRET not in repr(entries)
    assert SECRET not in caplog.text


def check(error: UpstreamError, expected: Classes) -> None:
    """Its kind is one of these (a provider's own kinds count as what they derive from), and it gives nothing away."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == UpstreamError.__module__)
    assert kind in expected
    assert SECRET not in "".join(traceback.format_exception(error))
    assert SECRET not in f"{error!r} {error} {error.public}"
    assert "127.0.0.1" not in error.public
    assert len(error.public) < 300


def skip_if_lacking(bench: Bench, behaviour: str) -> None:
    if bench.vendor.lacks(behaviour):
        pytest.skip("this vendor's wire has no such case")


# --- what goes well ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", sorted({*IMAGES, *VIDEOS}))
async def test_a_harness_serves_what_its_provider_can(vendor: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        provider = bench.vendor.provider
        assert provider.name == vendor
        assert (bench.vendor.image_model is not None) is (vendor in IMAGES) is isinstance(provider, ImageGenerator)
        assert (bench.vendor.video_model is not None) is (vendor in VIDEOS) is isinstance(provider, VideoSubmitter)
        assert isinstance(provider, SubmitFinder) is (provider.capabilities.submit is SubmitSafety.LISTABLE)


@pytest.mark.parametrize("vendor", IMAGES)
async def test_an_image_is_made(vendor: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        call = bench.call("image")
        if isinstance(bench.vendor.provider, Picky):
            assert bench.vendor.provider.why_not(IMAGE, call.model, call.upstream) is None

        result = await bench.submit("image", call)

        assert result.path.stat().st_size > 0
        assert result.path.is_relative_to(call.out_dir)
        assert bench.vendor.accepted == 1


@pytest.mark.parametrize("vendor", VIDEOS)
async def test_a_video_is_made(vendor: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        call = bench.call("video")
        if isinstance(bench.vendor.provider, Picky):
            assert bench.vendor.provider.why_not(VIDEO, call.model, call.upstream) is None
        bench.vendor.will("pending", "running")

        film = await bench.finish(await bench.submit("video", call))

        assert film.stat().st_size > 0
        assert film.is_relative_to(tmp_path)
        assert bench.vendor.accepted == 1


# --- submits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", REFUSALS)
@pytest.mark.parametrize(("vendor", "kind"), KINDS)
async def test_a_refused_submit_made_nothing(vendor: str, kind: str, behaviour: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        skip_if_lacking(bench, behaviour)
        bench.vendor.will(behaviour)

        with pytest.raises(UpstreamError) as caught:
            await bench.submit(kind, bench.call(kind))

        check(caught.value, REFUSALS[behaviour])
        assert bench.vendor.accepted == 0 or behaviour == "moderated"
        if isinstance(caught.value, UpstreamBusy):
            assert caught.value.retry_after_s == (2.0 if behaviour == "busy 2" else None)


@pytest.mark.parametrize("behaviour", LOST)
@pytest.mark.parametrize(("vendor", "kind"), KINDS)
async def test_a_lost_submit_is_not_made_twice(vendor: str, kind: str, behaviour: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        skip_if_lacking(bench, behaviour)
        bench.vendor.will(behaviour)

        with pytest.raises(UpstreamError) as caught:
            await bench.submit(kind, bench.call(kind))
        accepted = bench.vendor.accepted
        found = await bench.resolve(kind)

        is_whole = kind == "image" and behaviour in ("garbage", "no_id")
        check(caught.value, ANSWERED if is_whole else LOST[behaviour])
        safety = bench.vendor.provider.capabilities.submit
        if behaviour == "cut":
            assert accepted == 1
            assert (found is None) is (safety is SubmitSafety.BLIND)
        if safety is SubmitSafety.IDEMPOTENT:
            assert found is not None
        assert bench.vendor.accepted == (1 if safety is SubmitSafety.IDEMPOTENT else accepted)
        if isinstance(found, UpstreamJob):
            assert (await bench.finish(found)).stat().st_size > 0


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize(("vendor", "kind"), KINDS)
async def test_a_spoilt_answer_to_a_submit_leaves_the_outcome_open(
    vendor: str, kind: str, spoil: str, tmp_path: Path
) -> None:
    async with opened(vendor, tmp_path) as bench:
        async with spoilt(bench, spoil, "submit") as (meddler, upstream):
            with pytest.raises(UpstreamError) as caught:
                await bench.submit(kind, bench.call(kind, upstream=upstream))
            assert meddler.spoilt == 1
        assert bench.vendor.accepted == 1

        found = await bench.resolve(kind)

        check(caught.value, ANSWERED if kind == "image" and spoil in ("text", "null", "list") else UNKNOWN)
        assert bench.vendor.accepted == 1
        assert (found is None) is (bench.vendor.provider.capabilities.submit is SubmitSafety.BLIND)


@pytest.mark.parametrize(("vendor", "kind"), KINDS)
async def test_without_a_server_nothing_was_accepted(vendor: str, kind: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        closed = str(URL(bench.vendor.upstream.base_url or "").with_port(9))
        upstream = replace(bench.vendor.upstream, base_url=closed)

        with pytest.raises(UpstreamError) as caught:
            await bench.submit(kind, bench.call(kind, upstream=upstream))

        check(caught.value, (UpstreamBusy,))


# --- polls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["pending", "running", "unknown_word"])
@pytest.mark.parametrize("vendor", VIDEOS)
async def test_a_job_that_goes_on_is_not_done(vendor: str, behaviour: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        skip_if_lacking(bench, behaviour)
        job = await bench.submit("video", bench.call("video"))
        bench.vendor.will(behaviour)

        state = await bench.poll(job)

        assert isinstance(state, Progress)
        assert state.percent is None or 0 <= state.percent <= 99
        assert bench.vendor.accepted == 1


@pytest.mark.parametrize("behaviour", ["poll 500", "poll cut"])
@pytest.mark.parametrize("vendor", VIDEOS)
async def test_a_poll_that_went_wrong_is_asked_again(vendor: str, behaviour: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        skip_if_lacking(bench, behaviour)
        job = await bench.submit("video", bench.call("video"))
        bench.vendor.will(behaviour)

        with pytest.raises(UpstreamError) as caught:
            await bench.poll(job)

        check(caught.value, ASK_AGAIN)
        assert (await bench.finish(job)).stat().st_size > 0
        assert bench.vendor.accepted == 1


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("vendor", VIDEOS)
async def test_a_spoilt_answer_to_a_poll_is_asked_for_again(vendor: str, spoil: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        job = await bench.submit("video", bench.call("video"))
        async with spoilt(bench, spoil, "poll") as (meddler, upstream):
            with pytest.raises(UpstreamError) as caught:
                await bench.poll(job, upstream=upstream)
            assert meddler.spoilt

        check(caught.value, ASK_AGAIN)
        assert (await bench.finish(job)).stat().st_size > 0
        assert bench.vendor.accepted == 1


@pytest.mark.parametrize("behaviour", ENDS)
@pytest.mark.parametrize("vendor", VIDEOS)
async def test_a_job_that_ended_badly_is_never_completed(vendor: str, behaviour: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        skip_if_lacking(bench, behaviour)
        job = await bench.submit("video", bench.call("video"))
        bench.vendor.will(behaviour)

        with pytest.raises(UpstreamError) as caught:
            await bench.finish(job, polls=1)

        check(caught.value, ENDS[behaviour])


@pytest.mark.parametrize("vendor", VIDEOS)
async def test_a_result_that_is_refused_is_an_error(vendor: str, tmp_path: Path) -> None:
    async with opened(vendor, tmp_path) as bench:
        skip_if_lacking(bench, "result 403")
        job = await bench.submit("video", bench.call("video"))
        bench.vendor.will("result 403")

        with pytest.raises(UpstreamError) as caught:
            await bench.finish(job)

        check(caught.value, (UpstreamError, UpstreamFailed, UpstreamDenied))
