"""HappyHorse: the vendor's own SDK against the fake, then what our provider sends, and what it cannot serve."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.providers.dashscope import provider as make_provider
from app.providers.dashscope.uploads import INLINE_BYTES
from app.requests import MediaFile, Operation
from app.upstreams.contract.harness import SECRET, Harness
from app.upstreams.protocols import (
    Finished,
    Picky,
    Progress,
    SubmitFinder,
    Upstream,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
    VideoCanceller,
    VideoSubmitter,
)
from tests.providers.dashscope_calls import PNG, DashScopeHarness, Desk, film, open_desk, public_url
from tests.providers.fakes.ark import VIDEO
from tests.providers.fakes.dashscope import MODEL


def harness() -> Harness:
    """For the suite that all providers share."""
    return DashScopeHarness()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as opened:
        yield opened


def test_it_offers_what_the_registry_asks_for() -> None:
    made = make_provider()

    assert made.name == "dashscope"
    assert isinstance(made, VideoSubmitter)
    assert isinstance(made, VideoCanceller)
    assert isinstance(made, SubmitFinder)
    assert isinstance(made, Picky)


# --- the fake is as the vendor's SDK expects it -----------------------------------------------------------------------


async def test_the_vendors_sdk_works_against_the_fake(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import dashscope
    from dashscope import VideoSynthesis
    from dashscope.client.base_api import BaseAsyncApi

    monkeypatch.setattr(dashscope, "base_http_api_url", f"{desk.fake.url}/api/v1")
    source = desk.file("street.mp4", "video/mp4", VIDEO)

    def use_it() -> None:
        text = f"{MODEL}-t2v"
        first = VideoSynthesis.async_call(text, "a fox", api_key=SECRET, resolution="720P", ratio="16:9", duration=4)
        assert first.status_code == HTTPStatus.OK, first.message
        assert first.output.task_status == "PENDING"
        found = VideoSynthesis.fetch(first.output.task_id, api_key=SECRET)
        assert found.output.task_status == "SUCCEEDED"
        assert ".mp4" in found.output.video_url
        assert found.usage.output_video_duration == 4
        media = [{"type": "video", "url": f"file://{source.path}"}]
        edit = VideoSynthesis.async_call(f"{MODEL}-video-edit", "snow", api_key=SECRET, media=media, watermark=False)
        assert edit.status_code == HTTPStatus.OK, edit.message
        listed = BaseAsyncApi.list(api_key=SECRET)
        assert [item["task_id"] for item in listed.output["data"]] == [edit.output.task_id, first.output.task_id]
        assert VideoSynthesis.cancel(edit.output.task_id, api_key=SECRET).status_code == HTTPStatus.OK
        assert VideoSynthesis.cancel(first.output.task_id, api_key=SECRET).code == "UnsupportedOperation"
        refused = VideoSynthesis.async_call(text, "a fox", api_key=SECRET, resolution="720p")
        assert (refused.status_code, refused.code) == (400, "InvalidParameter")
        assert VideoSynthesis.async_call(text, "a fox", api_key="of another region").code == "InvalidApiKey"
        from dashscope.api_entities.http_request import close_shared_sync_session

        close_shared_sync_session()

    await asyncio.to_thread(use_it)

    assert [kept for _, kept in desk.fake.uploads.values()] == [VIDEO]
    assert desk.fake.tasks[list(desk.fake.tasks)[1]].status == "CANCELED"


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        ("video-edit", {"ratio": "16:9"}, "InvalidParameter"),
        ("video-edit", {"duration": 5}, "InvalidParameter"),
        ("i2v", {"ratio": "16:9"}, "InvalidParameter"),
        ("t2v", {"resolution": "720p"}, "InvalidParameter"),
        ("t2v", {"audio_setting": "auto"}, "InvalidParameter"),
        ("s2v", {}, "ModelNotFound"),
    ],
)
async def test_the_fake_is_strict(desk: Desk, kind: str, change: dict[str, Any], code: str) -> None:
    media = {"i2v": [{"type": "first_frame", "url": "https://a.example/a.png"}]}.get(kind)
    body = {"model": f"{MODEL}-{kind}", "input": {"prompt": "a fox", "media": media}, "parameters": change}
    headers = {"Authorization": f"Bearer {SECRET}"}
    url = f"{desk.fake.url}/api/v1/services/aigc/video-generation/video-synthesis"

    waiting = await desk.http.send("POST", url, phase="submit", headers=headers, json=body)
    refused = await desk.http.send(
        "POST", url, phase="submit", headers=headers | {"X-DashScope-Async": "enable"}, json=body
    )

    assert (waiting.status, waiting.document["code"]) == (403, "AccessDenied")
    assert refused.document["code"] == code


# --- submit -----------------------------------------------------------------------------------------------------------


async def test_text_becomes_a_video(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.will("pending", "running")
    seen = [await desk.poll(job) for _ in range(3)]
    result = await desk.provider.fetch_video(job, desk.call())

    assert desk.fake.bodies == [
        {
            "model": f"{MODEL}-t2v",
            "input": {"prompt": "make it snow"},
            "parameters": {"resolution": "720P", "ratio": "9:16", "duration": 5, "watermark": False, "seed": 11},
        }
    ]
    assert seen == [Progress(started=False), Progress(), Finished()]
    assert result.video.read_bytes() == VIDEO
    assert result.cost is None


async def test_a_first_frame_gives_the_shape(desk: Desk) -> None:
    await desk.submit(film(prompt="", first_frame=desk.file("first_frame_image"), params={"seed": None}))

    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert desk.fake.bodies == [
        {
            "model": f"{MODEL}-i2v",
            "input": {"media": [{"type": "first_frame", "url": url}]},
            "parameters": {"resolution": "720P", "duration": 5, "watermark": False},
        }
    ]


async def test_references_keep_their_shape_parameter(desk: Desk) -> None:
    images = tuple(desk.file("image_urls") for _ in range(3))

    await desk.submit(film(images=images, resolution="1080P", params={"watermark": True}))

    body = desk.fake.bodies[0]
    assert body["model"] == f"{MODEL}-r2v"
    assert [item["type"] for item in body["input"]["media"]] == ["reference_image"] * 3
    assert body["parameters"] == {
        "resolution": "1080P",
        "ratio": "9:16",
        "duration": 5,
        "watermark": True,
        "seed": 11,
    }


async def test_an_edit_uploads_its_source_and_sends_neither_ratio_nor_duration(desk: Desk) -> None:
    request = film(
        operation=Operation.VIDEO_EDIT,
        videos=(desk.file("video_url", "video/mp4", VIDEO),),
        images=(desk.file("image_urls"),),
        params={"audio_setting": "origin"},
    )

    await desk.submit(request)

    ((oss, (model, kept)),) = desk.fake.uploads.items()
    body = desk.fake.bodies[0]
    assert (model, kept) == (f"{MODEL}-video-edit", VIDEO)
    assert body["model"] == f"{MODEL}-video-edit"
    assert [item["type"] for item in body["input"]["media"]] == ["video", "reference_image"]
    assert body["input"]["media"][0]["url"] == oss
    assert body["parameters"] == {
        "resolution": "720P",
        "audio_setting": "origin",
        "watermark": False,
        "seed": 11,
    }


async def test_large_pictures_are_uploaded_too(desk: Desk) -> None:
    large = PNG + bytes(INLINE_BYTES // 2)

    await desk.submit(film(images=tuple(desk.file("image_urls", content=large) for _ in range(2))))

    media = desk.fake.bodies[0]["input"]["media"]
    assert [item["url"] for item in media] == list(desk.fake.uploads)
    assert [kept for _, kept in desk.fake.uploads.values()] == [large, large]


async def test_our_own_urls_can_take_the_place_of_uploads(desk: Desk) -> None:
    source = desk.file("video_url", "video/mp4", VIDEO)

    await desk.submit(film(operation=Operation.VIDEO_EDIT, videos=(source,)), inputs="url")

    assert desk.fake.bodies[0]["input"]["media"] == [{"type": "video", "url": public_url(source)}]
    assert not desk.fake.uploads


@pytest.mark.parametrize("host", ["http://127.0.0.1:1/store", "https://oss.aliyuncs.com.evil.example/", "nowhere"])
async def test_an_upload_goes_to_the_vendors_store_only(desk: Desk, host: str) -> None:
    desk.fake.upload_host = host

    with pytest.raises((UpstreamDenied, UpstreamBusy)):
        await desk.submit(film(operation=Operation.VIDEO_EDIT, videos=(desk.file("video_url", "video/mp4", VIDEO),)))

    assert not desk.fake.bodies


async def test_an_upload_that_fails_means_that_nothing_was_asked_for(desk: Desk) -> None:
    desk.fake.upload_status = 503
    request = film(operation=Operation.VIDEO_EDIT, videos=(desk.file("video_url", "video/mp4", VIDEO),))

    with pytest.raises(UpstreamBusy):
        await desk.submit(request)
    desk.fake.upload_status, desk.fake.max_file_size_mb = 200, 0
    with pytest.raises(UpstreamRejected) as refused:
        await desk.submit(request)

    assert "video_url" in refused.value.public
    assert not desk.fake.bodies


async def test_the_route_may_name_each_model(desk: Desk) -> None:
    await desk.submit(film(), model="horse", ids={"t2v": f"{MODEL}-t2v"})
    await desk.submit(film(), model=f"{MODEL}-t2v")
    for how in ({"ids": {"t2v": None}}, {"model": f"{MODEL}-i2v"}):
        with pytest.raises(UpstreamDenied):
            await desk.submit(film(), **how)

    assert [body["model"] for body in desk.fake.bodies] == [f"{MODEL}-t2v"] * 2


REFUSED = [
    ("refuse 400 InvalidParameter", UpstreamRejected),
    ("refuse 400 InvalidParameter.DataInspection", UpstreamRejected),
    ("refuse 400 InvalidURL", UpstreamRejected),
    ("refuse 400 BadRequest.EmptyInput", UpstreamRejected),
    ("refuse 400 UnsupportedOperation", UpstreamRejected),
    ("refuse 413 BadRequest.TooLarge", UpstreamRejected),
    ("refuse 400 SomethingNew", UpstreamRejected),
    ("refuse 400 DataInspectionFailed", UpstreamModerated),
    ("refuse 400 IPInfringementSuspect", UpstreamModerated),
    ("refuse 400 Arrearage", UpstreamDenied),
    ("refuse 429 Throttling.AllocationQuota", UpstreamDenied),
    ("refuse 401 InvalidApiKey", UpstreamDenied),
    ("refuse 403 AccessDenied", UpstreamDenied),
    ("refuse 403 AccessDenied.Unpurchased", UpstreamDenied),
    ("refuse 404 ModelNotFound", UpstreamDenied),
    ("refuse 429 Throttling", UpstreamBusy),
    ("refuse 429 Throttling.RateQuota", UpstreamBusy),
    ("refuse 429 TooManyRequests", UpstreamBusy),
    ("refuse 408 RequestTimeOut", UpstreamOutcomeUnknown),
    ("refuse 500 InternalError", UpstreamOutcomeUnknown),
    ("refuse 500 InternalError.Timeout", UpstreamOutcomeUnknown),
    ("refuse 500 InvalidParameter", UpstreamOutcomeUnknown),
    ("error 502", UpstreamOutcomeUnknown),
    ("error 503", UpstreamOutcomeUnknown),
]


@pytest.mark.parametrize(("word", "kind"), REFUSED)
async def test_each_refusal_is_of_its_class(desk: Desk, word: str, kind: type[UpstreamError]) -> None:
    desk.fake.will(word)

    with pytest.raises(UpstreamError) as refused:
        await desk.submit(film())

    assert type(refused.value) is kind
    assert not desk.fake.bodies


async def test_a_key_of_another_region_is_ours_to_mend(desk: Desk) -> None:
    desk.upstream = replace(desk.upstream, secret=SecretStr("sk-of-another-region"))

    with pytest.raises(UpstreamDenied):
        await desk.submit(film())
    with pytest.raises(UpstreamDenied):  # at the upload, too
        await desk.submit(film(operation=Operation.VIDEO_EDIT, videos=(desk.file("video_url", "video/mp4", VIDEO),)))


async def test_retry_after_is_read_where_it_is_sent(desk: Desk) -> None:
    waits = []
    for word in ("busy", "busy 2"):
        desk.fake.will(word)
        with pytest.raises(UpstreamBusy) as busy:
            await desk.submit(film())
        waits.append(busy.value.retry_after_s)

    assert waits == [None, 2.0]


@pytest.mark.parametrize("word", ["unauthorized", "quota", "bad_request", "moderated", "retired", "error 500"])
async def test_no_error_holds_the_key_an_id_or_an_address(desk: Desk, word: str) -> None:
    desk.fake.will(word)

    with pytest.raises(UpstreamError) as refused:
        await desk.submit(film())

    said = f"{refused.value} {refused.value!r} {refused.value.public}"
    for secret in (SECRET, "help.example.com", "request_id", "127.0.0.1"):
        assert secret not in said


async def test_a_refusal_says_what_was_wrong(desk: Desk) -> None:
    desk.fake.will("bad_request")

    with pytest.raises(UpstreamRejected) as bad:
        await desk.submit(film())

    assert bad.value.public == "The upstream refused this request: the size is not match ..."


# --- what it cannot serve ---------------------------------------------------------------------------------------------

IMAGE = MediaFile(Path(), "image/png", 1000, b"", "image_urls", 1000, 1000)
FILM = MediaFile(Path(), "video/mp4", 1000, b"", "video_url", duration_s=6.0)
EDIT = Operation.VIDEO_EDIT


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"operation": Operation.VIDEO_REMIX}, "extend"),
        ({"resolution": "480p"}, "resolution"),
        ({"ratio": "21:9"}, "size"),
        ({"duration_s": 2}, "duration"),
        ({"params": {"seed": 2**31}}, "seed"),
        ({"params": {"enable_gif": True}}, "enable_gif"),
        ({"params": {"generate_audio": True}}, "generate_audio"),
        ({"params": {"generation_type": "frame"}}, "generation_type"),
        ({"params": {"audio_setting": "origin"}}, "audio_setting"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "雪" * 2501}, "prompt"),
        ({"prompt": "x" * 5001}, "prompt"),
        ({"images": (IMAGE,) * 10}, "image_urls"),
        ({"audios": (FILM,)}, "audio_urls"),
        ({"first_frame": IMAGE, "images": (IMAGE,)}, "first_frame_image"),
        ({"operation": EDIT}, "video_url"),
        ({"operation": EDIT, "videos": (FILM,), "images": (IMAGE,) * 6}, "image_urls"),
        ({"operation": EDIT, "videos": (FILM,), "first_frame": IMAGE}, "first_frame_image"),
        ({"operation": EDIT, "videos": (replace(FILM, mime="video/webm"),)}, "video_url"),
        ({"operation": EDIT, "videos": (replace(FILM, size_bytes=101 * 2**20),)}, "video_url"),
        ({"operation": EDIT, "videos": (replace(FILM, duration_s=2.0),)}, "video_url"),
    ],
)
def test_it_says_why_it_cannot(said: dict[str, Any], field: str) -> None:
    why = make_provider().why_not(film(**said), MODEL, Upstream("dashscope-main", "dashscope"))

    assert why is not None
    assert field in why


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"prompt": "", "first_frame": IMAGE, "ratio": "21:9"},
        {"images": (IMAGE,) * 9},
        {"operation": EDIT, "videos": (FILM,), "images": (IMAGE,) * 5, "duration_s": 60, "ratio": "1:3"},
    ],
)
def test_it_can_all_else(said: dict[str, Any]) -> None:
    assert make_provider().why_not(film(**said), MODEL, Upstream("dashscope-main", "dashscope")) is None


def test_a_route_of_one_kind_serves_no_other() -> None:
    made, upstream = make_provider(), Upstream("dashscope-main", "dashscope")

    assert made.why_not(film(), f"{MODEL}-i2v", upstream)
    assert made.why_not(film(first_frame=IMAGE), f"{MODEL}-i2v", upstream) is None
