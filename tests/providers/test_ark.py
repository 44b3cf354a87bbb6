"""Seedance: the vendor's own SDK against the fake, then what our provider sends, and what it cannot serve."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.providers.ark import provider as make_provider
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
from tests.providers.ark_calls import PNG, ArkHarness, Desk, film, open_desk, public_url
from tests.providers.calls import make_call
from tests.providers.fakes.ark import FAST, MODEL, VIDEO, Refuse, judge


def harness() -> Harness:
    """For the suite that all providers share."""
    return ArkHarness()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as opened:
        yield opened


def test_it_offers_what_the_registry_asks_for() -> None:
    made = make_provider()

    assert made.name == "ark"
    assert isinstance(made, VideoSubmitter)
    assert isinstance(made, VideoCanceller)
    assert isinstance(made, SubmitFinder)
    assert isinstance(made, Picky)


# --- the fake is as the vendor's SDK expects it -----------------------------------------------------------------------


async def test_the_vendors_sdk_works_against_the_fake(desk: Desk) -> None:
    from volcenginesdkarkruntime import Ark

    def use_it() -> None:
        with Ark(api_key=SECRET, base_url=desk.fake.url, max_retries=0) as client:
            tasks = client.content_generation.tasks
            text: Any = [{"type": "text", "text": "a fox"}]
            first = tasks.create(model=MODEL, content=text, resolution="720p", duration=6, seed=3)
            assert tasks.get(task_id=first.id).status == "succeeded"
            found = tasks.get(task_id=first.id)
            assert found.content.video_url.endswith(f"{first.id}.mp4")
            assert (found.framespersecond, found.seed, found.usage.total_tokens) == (24, 3, 129_600)
            second = tasks.create(model=MODEL, content=text)
            third = tasks.create(model=MODEL, content=text)
            listed = tasks.list(page_size=10, model=MODEL, task_ids=[first.id, second.id])
            assert [item.id for item in listed.items] == [second.id, first.id]
            tasks.delete(second.id)
            assert desk.fake.tasks[second.id].status == "cancelled"
            desk.fake.tasks[third.id].status = "running"
            with pytest.raises(Exception, match="RunningTaskDeletion"):
                tasks.delete(third.id)

    await asyncio.to_thread(use_it)

    assert desk.fake.bodies[0]["callback_url"] is None  # its explicit nulls are accepted
    assert desk.fake.deletes[0] == {}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"resolution": "720P"}, "InvalidParameter"),
        ({"duration": 16}, "InvalidParameter"),
        ({"size": "16:9"}, "InvalidParameter"),
        ({"model": FAST, "resolution": "1080p"}, "InvalidParameter"),
        ({"content": []}, "MissingParameter"),
        ({"content": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA=="}}]}, "InvalidParameter"),
        ({"model": "gone"}, "InvalidEndpointOrModel.NotFound"),
    ],
)
def test_the_fake_is_strict(change: dict[str, Any], code: str) -> None:
    body = {"model": MODEL, "content": [{"type": "text", "text": "a fox"}]}
    judge(body)

    with pytest.raises(Refuse, match=code):
        judge(body | change)


# --- submit -----------------------------------------------------------------------------------------------------------


async def test_text_becomes_a_video(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.will("pending", "running")
    seen = [await desk.poll(job) for _ in range(3)]
    result = await desk.provider.fetch_video(job, desk.call())

    body = dict(desk.fake.bodies[0])
    assert 86_400 < body.pop("execution_expires_after") <= 172_800
    assert body == {
        "model": MODEL,
        "content": [{"type": "text", "text": "the ferry leaves the pier"}],
        "resolution": "720p",
        "ratio": "16:9",
        "duration": 6,
        "generate_audio": True,
        "watermark": False,
        "seed": 7,
    }
    assert seen == [Progress(started=False), Progress(), Finished()]
    assert result.video.read_bytes() == VIDEO
    assert result.cost is None


async def test_a_first_frame_travels_inline(desk: Desk) -> None:
    await desk.submit(film(prompt="", first_frame=desk.file("first_frame_image"), params={"generate_audio": False}))

    body = desk.fake.bodies[0]
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert body["content"] == [{"type": "image_url", "image_url": {"url": url}, "role": "first_frame"}]
    assert body["generate_audio"] is False


async def test_two_images_can_be_first_and_last_frame(desk: Desk) -> None:
    images = (desk.file("image_urls"), desk.file("image_urls"))

    await desk.submit(film(images=images, params={"generation_type": "frame"}))

    assert [item.get("role") for item in desk.fake.bodies[0]["content"]] == [None, "first_frame", "last_frame"]


async def test_references_keep_their_order_and_films_and_sounds_are_given_as_our_urls(desk: Desk) -> None:
    images = tuple(desk.file("image_urls") for _ in range(2))
    videos = (desk.file("video_urls", "video/mp4"),)
    audios = (desk.file("audio_urls", "audio/mpeg"),)

    await desk.submit(film(images=images, videos=videos, audios=audios, params={"hints": {"safety_identifier": "u1"}}))

    body = desk.fake.bodies[0]
    assert [item["type"] for item in body["content"]] == ["text", "image_url", "image_url", "video_url", "audio_url"]
    assert body["content"][3] == {
        "type": "video_url",
        "video_url": {"url": public_url(videos[0])},
        "role": "reference_video",
    }
    assert body["content"][4] == {
        "type": "audio_url",
        "audio_url": {"url": public_url(audios[0])},
        "role": "reference_audio",
    }
    assert body["safety_identifier"] == "u1"


async def test_too_many_bytes_of_pictures_are_given_as_our_urls(desk: Desk) -> None:
    images = tuple(replace(desk.file("image_urls"), size_bytes=25 * 1024 * 1024) for _ in range(2))

    await desk.submit(film(images=images))

    assert [item["image_url"]["url"] for item in desk.fake.bodies[0]["content"][1:]] == [public_url(f) for f in images]


async def test_without_apublic_url_address_a_reference_film_is_refused_before_anything_is_sent(desk: Desk) -> None:
    call = make_call(desk.upstream, MODEL, desk.root / "out", desk.http)

    with pytest.raises(UpstreamRejected) as refused:
        await desk.provider.submit_video(film(videos=(desk.file("video_urls", "video/mp4"),)), call)

    assert "video_urls" in refused.value.public
    assert not desk.fake.bodies


async def test_a_seed_left_open_is_made_from_the_token(desk: Desk) -> None:
    for token, seed in (("a:1", None), ("a:1", -1), ("a:2", None)):
        await desk.submit(film(params={"seed": seed}), token=token)

    first, again, other = (body["seed"] for body in desk.fake.bodies)
    assert first == again != other
    assert "execution_expires_after" not in desk.fake.bodies[0]


REFUSED = [
    ("refuse 400 MissingParameter", UpstreamRejected),
    ("refuse 400 InvalidParameter", UpstreamRejected),
    ("refuse 400 InvalidParameter.TaskTypeConstraint", UpstreamRejected),
    ("refuse 400 InvalidImageURL.EmptyURL", UpstreamRejected),
    ("refuse 400 SomethingNew", UpstreamRejected),
    ("refuse 400 InputTextSensitiveContentDetected", UpstreamModerated),
    ("refuse 400 InputImageSensitiveContentDetected.PrivacyInformation", UpstreamModerated),
    ("refuse 400 OutputVideoSensitiveContentDetected.PolicyViolation", UpstreamModerated),
    ("refuse 400 InputVideoRiskDetection", UpstreamModerated),
    ("refuse 401 AuthenticationError", UpstreamDenied),
    ("refuse 403 AccessDenied", UpstreamDenied),
    ("refuse 404 ModelNotOpen", UpstreamDenied),
    ("refuse 404 InvalidEndpointOrModel.NotFound", UpstreamDenied),
    ("refuse 400 InvalidEndpoint.ClosedEndpoint", UpstreamDenied),
    ("refuse 403 AccountOverdueError", UpstreamDenied),
    ("refuse 429 QuotaExceeded", UpstreamDenied),
    ("refuse 429 SetLimitExceeded", UpstreamDenied),
    ("refuse 429 RateLimitExceeded.EndpointTPMExceeded", UpstreamBusy),
    ("refuse 429 ModelAccountRpmRateLimitExceeded", UpstreamBusy),
    ("refuse 429 ModelAccountTpmRateLimitExceeded", UpstreamBusy),
    ("refuse 429 ServerOverloaded", UpstreamBusy),
    ("refuse 429 ModelLoadingError", UpstreamBusy),
    ("refuse 429 SomethingNew", UpstreamBusy),
    ("refuse 500 InternalServiceError", UpstreamOutcomeUnknown),
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
    for secret in (SECRET, "0217abcdef", "2100123456789", "127.0.0.1"):
        assert secret not in said


async def test_a_refusal_says_what_was_wrong(desk: Desk) -> None:
    desk.fake.will("bad_request", "refuse 400 InputImageSensitiveContentDetected.PrivacyInformation")

    with pytest.raises(UpstreamRejected) as bad:
        await desk.submit(film())
    with pytest.raises(UpstreamModerated) as face:
        await desk.submit(film())

    assert bad.value.public == "The upstream refused this request: The parameter `duration` is not valid"
    assert face.value.public == "The request was refused by the content policy: an image may show a real person."


# --- what it cannot serve ---------------------------------------------------------------------------------------------

IMAGE = MediaFile(Path(), "image/png", 1000, b"", "image_urls", 1000, 1000)
FILM = MediaFile(Path(), "video/mp4", 1000, b"", "video_urls", duration_s=6.0)
SOUND = MediaFile(Path(), "audio/mpeg", 1000, b"", "audio_urls", duration_s=6.0)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"operation": Operation.VIDEO_EDIT}, "edits"),
        ({"resolution": "8k"}, "resolution"),
        ({"ratio": "5:4"}, "size"),
        ({"duration_s": 3}, "duration"),
        ({"params": {"seed": 2**32}}, "seed"),
        ({"params": {"enable_gif": True}}, "enable_gif"),
        ({"params": {"audio_setting": "origin"}}, "audio_setting"),
        ({"prompt": ""}, "prompt"),
        ({"images": (IMAGE,) * 10}, "image_urls"),
        ({"videos": (FILM,) * 4}, "video_urls"),
        ({"images": (IMAGE,), "audios": (SOUND,) * 4}, "audio_urls"),
        ({"audios": (SOUND,)}, "audio_urls"),
        ({"first_frame": IMAGE, "images": (IMAGE,)}, "first_frame_image"),
        ({"first_frame": IMAGE, "videos": (FILM,)}, "first frame"),
        ({"images": (IMAGE,) * 3, "params": {"generation_type": "frame"}}, "image_urls"),
        ({"images": (replace(IMAGE, mime="image/gif"),)}, "image_urls"),
        ({"images": (replace(IMAGE, size_bytes=31 * 2**20),)}, "image_urls"),
        ({"images": (replace(IMAGE, width=200),)}, "image_urls"),
        ({"images": (replace(IMAGE, width=3000),)}, "image_urls"),
        ({"videos": (replace(FILM, mime="video/webm"),)}, "video_urls"),
        ({"videos": (replace(FILM, size_bytes=51 * 2**20),)}, "video_urls"),
        ({"videos": (replace(FILM, duration_s=1.0),)}, "video_urls"),
        ({"videos": (FILM,) * 3}, "video_urls"),
    ],
)
def test_it_says_why_it_cannot(said: dict[str, Any], field: str) -> None:
    why = make_provider().why_not(film(**said), MODEL, Upstream("ark-main", "ark"))

    assert why is not None
    assert field in why


@pytest.mark.parametrize("model", [FAST, "doubao-seedance-2-0-mini-260615"])
def test_the_fast_models_make_nothing_large(model: str) -> None:
    made, upstream = make_provider(), Upstream("ark-main", "ark")

    assert made.why_not(film(resolution="1080p"), model, upstream)
    assert not made.why_not(film(resolution="480p"), model, upstream)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"first_frame": IMAGE, "prompt": ""},
        {"images": (IMAGE,) * 9, "videos": (FILM,) * 2, "audios": (SOUND,) * 2},
        {"images": (IMAGE,) * 2, "params": {"generation_type": "frame"}},
    ],
)
def test_it_can_all_else(said: dict[str, Any]) -> None:
    assert make_provider().why_not(film(**said), MODEL, Upstream("ark-main", "ark")) is None
