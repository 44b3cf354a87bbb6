"""The Google provider asks for Veo videos and takes their files, in both shapes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.upstreams.contract.harness import SECRET
from app.upstreams.protocols import (
    Finished,
    Progress,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamRejected,
)
from tests.providers.fakes.google import RAI, Raw, error
from tests.providers.google_calls import (
    AGENT,
    BEARER,
    GEMINI,
    Desk,
    video_request,
)

SHAPES = pytest.mark.parametrize("options", [AGENT, BEARER, GEMINI], ids=["express", "bearer", "gemini"])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Desk.opened(tmp_path) as made:
        yield made


async def submitted(desk: Desk, options: Mapping[str, Any] = AGENT) -> UpstreamJob:
    return await desk.google.submit_video(video_request(), desk.video_call(options))


async def polled(desk: Desk, options: Mapping[str, Any] = AGENT) -> Progress | Finished:
    return await desk.google.poll_video(await submitted(desk, options), desk.video_call(options))


# --- poll -------------------------------------------------------------------------------------------------------------


@SHAPES
async def test_a_video_runs_and_is_done(desk: Desk, options: Mapping[str, Any]) -> None:
    job = await submitted(desk, options)
    desk.fake.will("pending", "running")

    states = [await desk.google.poll_video(job, desk.video_call(options)) for _ in range(3)]

    assert states == [Progress(), Progress(), Finished()]


async def test_a_poll_posts_the_name_to_the_model_that_the_name_holds(desk: Desk) -> None:
    job = await submitted(desk)

    await desk.google.poll_video(job, desk.call("another-model-by-now"))

    seen = desk.fake.seen[-1]
    assert (seen.method, seen.body) == ("POST", {"operationName": job.id})
    assert seen.path == f"/v1beta1/{job.id.rpartition('/operations/')[0]}:fetchPredictOperation"


async def test_a_poll_keeps_nothing_of_an_inline_video(desk: Desk) -> None:
    job, call = await submitted(desk), desk.video_call()

    assert await desk.google.poll_video(job, call) == Finished()

    assert list(call.out_dir.iterdir()) == []


def done(**fields: Any) -> Raw:
    return Raw(200, {"done": True, **fields})


def failed(code: Any, message: str = "Something.") -> Raw:
    return done(error={"code": code, "message": message})


ENDS: list[tuple[Raw, type[UpstreamError]]] = [
    (done(response=RAI), UpstreamModerated),
    (done(response={"rai_media_filtered_count": "2"}), UpstreamModerated),
    (done(response={"generateVideoResponse": RAI}), UpstreamModerated),
    (failed(3), UpstreamRejected),
    (failed("INVALID_ARGUMENT"), UpstreamRejected),
    (failed(3, "The prompt goes against our usage guidelines."), UpstreamModerated),
    (failed(3, "Blocked by our safety filters."), UpstreamModerated),
    (failed(9), UpstreamRejected),
    (failed(7), UpstreamFailed),
    (failed(8), UpstreamFailed),
    (failed(13), UpstreamFailed),
    (failed(14), UpstreamFailed),
    (failed(None), UpstreamFailed),
    (done(error="boom"), UpstreamFailed),
    (done(), UpstreamFailed),
    (done(response={"videos": []}), UpstreamFailed),
    (done(response={"videos": [{"bytesBase64Encoded": ""}]}), UpstreamFailed),
    (done(response={"videos": [{"gcsUri": "gs://bucket/x.mp4"}]}), UpstreamFailed),
    (done(response={"generateVideoResponse": {"generatedSamples": [{"video": {"uri": "gs://x"}}]}}), UpstreamFailed),
    (error(404, "NOT_FOUND", "Operation not found."), UpstreamFailed),
    (error(401, "UNAUTHENTICATED", "no"), UpstreamDenied),
    (error(429, "RESOURCE_EXHAUSTED", "no"), UpstreamBusy),
    (error(400, "INVALID_ARGUMENT", "no"), UpstreamError),
    (error(500, "INTERNAL", "no"), UpstreamError),
    (error(503, "UNAVAILABLE", "no"), UpstreamError),
    (Raw(502, "<html>Bad Gateway</html>"), UpstreamError),
    (Raw(200, "<html>"), UpstreamError),
    (Raw(200, []), UpstreamError),
    (done(response={"videos": [{"bytesBase64Encoded": "***"}]}), UpstreamError),
]


@pytest.mark.parametrize(("answer", "kind"), ENDS)
@pytest.mark.parametrize("options", [AGENT, GEMINI], ids=["agent", "gemini"])
async def test_every_end_and_every_bad_poll_has_its_class(
    desk: Desk, options: Mapping[str, Any], answer: Raw, kind: type[UpstreamError]
) -> None:
    desk.fake.tell(answer)

    with pytest.raises(UpstreamError) as caught:
        await polled(desk, options)

    assert type(caught.value) is kind


async def test_the_filters_reasons_are_told_without_codes(desk: Desk) -> None:
    desk.fake.will("moderated_late")

    with pytest.raises(UpstreamModerated) as caught:
        await polled(desk)

    assert caught.value.public == (
        "The request was refused by the content policy: Veo could not make this video: it violates usage guidelines."
    )


async def test_a_cut_poll_is_asked_again(desk: Desk) -> None:
    desk.fake.will("poll cut")

    with pytest.raises(UpstreamError) as caught:
        await polled(desk)

    assert type(caught.value) is UpstreamError


async def test_a_handle_that_is_no_name_goes_nowhere(desk: Desk) -> None:
    with pytest.raises(UpstreamFailed):
        await desk.google.poll_video(UpstreamJob("../../files/x"), desk.video_call(GEMINI))

    assert not desk.fake.seen


# --- fetch ------------------------------------------------------------------------------------------------------------


@SHAPES
async def test_the_video_arrives_and_may_be_fetched_again(desk: Desk, options: Mapping[str, Any]) -> None:
    job, call = await submitted(desk, options), desk.video_call(options)
    await desk.google.poll_video(job, call)

    results = [await desk.google.fetch_video(job, call) for _ in range(2)]

    assert [result.video.read_bytes() for result in results] == [desk.fake.video] * 2
    assert all(result.video.is_relative_to(call.out_dir) for result in results)
    assert results[0].gif is None
    assert desk.fake.accepted == 1


async def test_tens_of_megabytes_come_inline(desk: Desk) -> None:
    desk.fake.video = random.Random(3).randbytes(40 * 1024 * 1024 + 1)
    job = await submitted(desk)

    result = await desk.google.fetch_video(job, desk.video_call())

    assert result.video.read_bytes() == desk.fake.video


async def test_the_keyed_download_follows_its_own_server_with_the_key(desk: Desk) -> None:
    await desk.google.fetch_video(await submitted(desk, GEMINI), desk.video_call(GEMINI))

    downloads = [seen for seen in desk.fake.seen if "/files/" in seen.path]
    assert [seen.path for seen in downloads] == [
        "/v1beta/files/op-1:download",
        "/download/v1beta/files/op-1:download",
    ]
    assert all(seen.headers.get("x-goog-api-key") == SECRET for seen in downloads)


async def test_the_key_does_not_follow_to_another_server(desk: Desk) -> None:
    desk.fake.download_to = f"http://localhost:{desk.fake.port}/bucket/files/op-1"

    result = await desk.google.fetch_video(await submitted(desk, GEMINI), desk.video_call(GEMINI))

    assert result.video.read_bytes() == desk.fake.video
    assert desk.fake.seen[-1].path == "/bucket/files/op-1"
    assert SECRET not in str(desk.fake.seen[-1].headers)


async def test_a_video_on_another_server_is_fetched_without_the_key(desk: Desk) -> None:
    uri = f"http://localhost:{desk.fake.port}/bucket/files/op-1"
    job = await submitted(desk, GEMINI)
    desk.fake.tell(done(response={"generatedVideos": [{"video": {"uri": uri}}]}))

    result = await desk.google.fetch_video(job, desk.video_call(GEMINI))

    assert result.video.read_bytes() == desk.fake.video
    assert SECRET not in str(desk.fake.seen[-1].headers)


@pytest.mark.parametrize("uri", ["http://", "http://10.1.2.3/x", "https://[::1/x"])
async def test_an_address_that_leads_nowhere_public_is_not_followed(desk: Desk, uri: str) -> None:
    job = await submitted(desk, GEMINI)
    desk.fake.tell(done(response={"generatedVideos": [{"video": {"uri": uri}}]}))

    with pytest.raises(UpstreamError):
        await desk.google.fetch_video(job, desk.video_call(GEMINI))


@pytest.mark.parametrize("how", ["refused", "empty", "running"])
async def test_a_result_that_is_not_there_is_never_a_video(desk: Desk, how: str) -> None:
    job = await submitted(desk, GEMINI)
    if how == "empty":
        desk.fake.video = b""
    else:
        desk.fake.will({"refused": "result 403", "running": "running"}[how])

    with pytest.raises(UpstreamError) as caught:
        await desk.google.fetch_video(job, desk.video_call(GEMINI))

    assert SECRET not in str(caught.value)
