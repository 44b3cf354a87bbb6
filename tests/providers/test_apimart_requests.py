"""What APIMart is asked for: the keys of each family, inputs and remixes; and what it cannot be asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.providers.apimart import provider
from app.requests import Operation
from app.upstreams.protocols import (
    Cost,
    Finished,
    UpstreamRejected,
)
from tests.providers.apimart_calls import ApimartHarness, Desk, image_request, stand_in, video_request
from tests.providers.fakes.apimart import FILM, png

EDIT, REMIX = Operation.VIDEO_EDIT, Operation.VIDEO_REMIX


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Desk.opened(tmp_path) as desk:
        yield desk


# --- bodies -----------------------------------------------------------------------------------------------------------

IMAGES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("gpt-image-2", {}, {}, {"size": "16:9", "resolution": "1k"}),
    ("gpt-image-2", {"ratio": "auto", "quality": "uhd"}, {}, {"size": "auto", "resolution": "4k"}),
    ("gpt-image-2", {"ratio": "7:5", "width": 1216, "height": 864}, {}, {"size": "1216x864", "resolution": "1k"}),
    (
        "gpt-image-2",
        {"hints": {"official_fallback": True, "moderation": "low"}, "output_format": "webp"},
        {"quality": "high"},
        {"size": "16:9", "resolution": "1k", "official_fallback": True},
    ),
    (
        "gpt-image-2-official",
        {
            "hints": {"moderation": "low", "official_fallback": True},
            "background": "transparent",
            "output_format": "webp",
            "output_compression": 80,
        },
        {"quality": "high"},
        {
            "size": "16:9",
            "resolution": "1k",
            "quality": "high",
            "moderation": "low",
            "background": "transparent",
            "output_format": "webp",
            "output_compression": 80,
        },
    ),
    ("gemini-3-pro-image-preview", {"quality": "hd"}, {}, {"size": "16:9", "resolution": "2K"}),
    (
        "gemini-3.1-flash-lite-image",
        {"hints": {"official_fallback": True}},
        {},
        {"size": "16:9", "resolution": "1K"},
    ),
]


@pytest.mark.parametrize(("model", "fields", "route", "body"), IMAGES)
async def test_an_image_is_asked_for_with_the_keys_of_its_family(
    desk: Desk, model: str, fields: dict[str, Any], route: dict[str, Any], body: dict[str, Any]
) -> None:
    request = image_request(**fields)
    call = desk.call(model, route=route)
    assert desk.apimart.why_not(request, model, call.upstream) is None

    result = await desk.apimart.generate_image(request, call)

    assert result.path.read_bytes() == png()
    assert result.cost == Cost(64_000)
    assert desk.fake.sent == {"model": model, "prompt": "a tram in the rain", "n": 1, **body}
    headers = desk.fake.seen[0].headers
    assert headers["Idempotency-Key"] == "task:1"
    assert headers["X-APIMart-Response-Version"] == "2026-07-27"


VIDEOS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "doubao-seedance-2.0",
        {"params": {"generate_audio": False, "watermark": False, "seed": 7}, "resolution": "1080p"},
        {"resolution": "1080p", "duration": 8, "size": "16:9", "generate_audio": False, "seed": 7},
    ),
    (
        "veo3.1-fast",
        {"params": {"generate_audio": True, "enable_gif": True, "official_fallback": True}},
        {
            "resolution": "720p",
            "duration": 8,
            "aspect_ratio": "16:9",
            "enable_gif": True,
            "official_fallback": True,
        },
    ),
    (
        "veo3.1-lite",
        {"params": {"enable_gif": False}},
        {"resolution": "720p", "duration": 8, "aspect_ratio": "16:9", "enable_gif": False},
    ),
    (
        "veo3.1-fast-official",
        {"params": {"generate_audio": False, "seed": 3, "official_fallback": True}},
        {"resolution": "720p", "duration": 8, "aspect_ratio": "16:9", "generate_audio": False, "seed": 3},
    ),
    (
        "happyhorse-1.0",
        {"params": {"seed": 4, "audio_setting": "auto"}, "resolution": "1080p"},
        {"resolution": "1080P", "duration": 8, "size": "16:9", "watermark": False, "seed": 4},
    ),
]


@pytest.mark.parametrize(("model", "fields", "body"), VIDEOS)
async def test_a_video_is_asked_for_with_the_keys_of_its_family(
    desk: Desk, model: str, fields: dict[str, Any], body: dict[str, Any]
) -> None:
    request = video_request(**fields)
    call = desk.call(model)
    assert desk.apimart.why_not(request, model, call.upstream) is None

    job = await desk.apimart.submit_video(request, call)
    state = await desk.apimart.poll_video(job, call)
    result = await desk.apimart.fetch_video(job, call)

    assert desk.fake.sent == {"model": model, "prompt": "a ferry leaves", **body}
    assert isinstance(state, Finished)
    assert result.video.read_bytes() == FILM
    assert result.thumbnail is not None
    assert result.thumbnail.read_bytes() == png()
    assert result.cost == Cost(64_000)


async def sent(desk: Desk, model: str, **fields: Any) -> dict[str, Any]:
    """The media keys of the body that this request leads to."""
    request = video_request(**fields)
    call = desk.call(model, public_url=lambda file: f"https://gate.example/{file.field}")
    assert desk.apimart.why_not(request, model, call.upstream) is None
    await desk.apimart.submit_video(request, call)
    return {k: v for k, v in desk.fake.sent.items() if "_url" in k or "frame" in k or "roles" in k or "type" in k}


def up(number: int) -> str:
    return f"https://cdn.example/uploads/{number}.png"


async def test_pictures_of_a_video_are_uploaded_once_and_named_as_the_family_wants(desk: Desk) -> None:
    red, blue = desk.picture("red"), desk.picture("blue")

    assert await sent(desk, "doubao-seedance-2.0", images=(red, blue, red)) == {"image_urls": [up(1), up(2), up(1)]}
    assert desk.fake.uploads == [png("red"), png("blue")]


async def test_a_first_frame_goes_where_the_family_wants_it(desk: Desk) -> None:
    red, blue = desk.picture("red"), desk.picture("blue")
    frame = {"generation_type": "frame"}

    roles = [{"url": up(1), "role": "first_frame"}]
    assert await sent(desk, "doubao-seedance-2.0", first_frame=red) == {"image_with_roles": roles}
    desk.fake._by_key.clear()
    assert await sent(desk, "happyhorse-1.0", first_frame=red, prompt="") == {"first_frame_image": up(1)}
    assert not {"size", "prompt"} & set(desk.fake.sent)
    desk.fake._by_key.clear()
    expected = {"image_urls": [up(1)], "generation_type": "frame"}
    assert await sent(desk, "veo3.1-fast", first_frame=red, params=frame) == expected
    desk.fake._by_key.clear()
    expected_pair = {"first_frame_image": up(1), "last_frame_image": up(2)}
    assert await sent(desk, "veo3.1-fast-official", images=(red, blue), params=frame) == expected_pair


async def test_veo_pictures_are_frames_or_references(desk: Desk) -> None:
    three = tuple(desk.picture(colour) for colour in ("red", "blue", "green"))

    both = await sent(desk, "veo3.1-fast", images=three)

    assert both == {"image_urls": [up(1), up(2), up(3)], "generation_type": "reference"}


async def test_films_and_sounds_are_given_under_our_own_urls(desk: Desk) -> None:
    film, sound = desk.file(FILM, "video/mp4", "video_urls"), desk.file(b"RIFF", "audio/wav", "audio_urls")

    expected = {"video_urls": ["https://gate.example/video_urls"], "audio_urls": ["https://gate.example/audio_urls"]}
    assert await sent(desk, "doubao-seedance-2.0", videos=(film,), audios=(sound,)) == expected


async def test_an_edit_has_neither_ratio_nor_duration(desk: Desk) -> None:
    film = desk.file(FILM, "video/mp4", "video_url")

    media = await sent(
        desk,
        "happyhorse-1.0",
        operation=EDIT,
        videos=(film,),
        images=(desk.picture(),),
        params={"audio_setting": "origin"},
    )

    assert media == {"video_url": "https://gate.example/video_url", "image_urls": [up(1)]}
    assert desk.fake.sent["audio_setting"] == "origin"
    assert not {"size", "duration"} & set(desk.fake.sent)


async def test_without_a_public_address_a_film_is_refused(desk: Desk) -> None:
    request = video_request(operation=EDIT, videos=(desk.file(FILM, "video/mp4", "video_url"),))

    with pytest.raises(UpstreamRejected) as caught:
        await desk.apimart.submit_video(request, desk.call("happyhorse-1.0"))

    assert "public address" in caught.value.public
    assert desk.fake.accepted == 0


async def test_a_mask_goes_to_the_official_model(desk: Desk) -> None:
    request = image_request(images=(desk.picture(),), mask=desk.picture("blue", "mask"))

    await desk.apimart.generate_image(request, desk.call("gpt-image-2-official"))

    assert (desk.fake.sent["image_urls"], desk.fake.sent["mask_url"]) == ([up(1)], up(2))


async def test_pictures_may_be_given_under_our_own_urls_instead(desk: Desk) -> None:
    call = desk.call(options={"inputs": "public"}, public_url=lambda file: "https://gate.example/signed")

    await desk.apimart.generate_image(image_request(images=(desk.picture(),)), call)

    assert desk.fake.sent["image_urls"] == ["https://gate.example/signed"]
    assert desk.fake.uploads == []


# --- remix ------------------------------------------------------------------------------------------------------------


async def test_a_remix_extends_a_task_of_the_same_model(desk: Desk) -> None:
    first = await desk.apimart.submit_video(video_request(), desk.call("veo3.1-fast"))
    request = video_request(operation=REMIX, source_upstream_id=first.id, params={"raw": True})

    second = await desk.apimart.submit_video(request, desk.call("veo3.1-fast", token="task-2:1"))

    assert second.id != first.id
    assert desk.fake.seen[-1].path == f"/v1/videos/{first.id}/remix"
    expected = {"prompt": "a ferry leaves", "raw": True, "aspect_ratio": "16:9", "resolution": "720p"}
    assert desk.fake.sent == {"model": "veo3.1-fast", **expected}


async def test_the_refusals_of_a_remix_are_told(desk: Desk) -> None:
    first = await desk.apimart.submit_video(video_request(), desk.call("veo3.1-fast"))

    async def refusal(source: str, model: str) -> str:
        request = video_request(operation=REMIX, source_upstream_id=source)
        with pytest.raises(UpstreamRejected) as caught:
            await desk.apimart.submit_video(request, desk.call(model, token="task-2:1"))
        return caught.value.public

    assert "no longer known" in await refusal("task_gone", "veo3.1-fast")
    assert "original" in await refusal(first.id, "veo3.1-quality")
    desk.fake.tasks[first.id].is_done = False
    assert "not completed" in await refusal(first.id, "veo3.1-fast")
    assert desk.fake.accepted == 1


# --- what it cannot do ------------------------------------------------------------------------------------------------

IMAGE_NO: list[tuple[str, dict[str, Any], str]] = [
    ("veo3.1-fast", {}, "images"),
    ("unheard-of", {}, "images"),
    ("gemini-3-pro-image-preview", {"ratio": "2:1"}, "'size' 2:1"),
    ("gpt-image-2", {"quality": "8k"}, "'quality'"),
    ("gpt-image-2", {"images": (stand_in(),) * 17}, "more than 16"),
    ("gpt-image-2", {"images": (stand_in(),), "mask": stand_in("mask")}, "'mask'"),
    ("gpt-image-2", {"images": (stand_in(mime="image/heic"),)}, "'image_urls' must be"),
    ("gemini-3-pro-image-preview", {"images": (stand_in(size=11 * 1024 * 1024),)}, "10 MiB"),
]
FRAME = {"generation_type": "frame"}
VIDEO_NO: list[tuple[str, dict[str, Any], str]] = [
    ("gpt-image-2", {}, "videos"),
    ("doubao-seedance-2.0-fast", {"resolution": "1080p"}, "'resolution'"),
    ("happyhorse-1.0", {"resolution": "480p"}, "'resolution'"),
    ("veo3.1-fast", {"ratio": "1:1"}, "'size' 1:1"),
    ("veo3.1-fast", {"duration_s": 5}, "'duration' must be 8 to 8"),
    ("doubao-seedance-2.0", {"duration_s": 3}, "'duration'"),
    ("doubao-seedance-2.0", {"params": {"watermark": True}}, "'watermark'"),
    ("veo3.1-fast", {"params": {"seed": 4}}, "'seed'"),
    ("veo3.1-fast", {"params": {"generate_audio": False}}, "'generate_audio'"),
    ("veo3.1-fast", {"params": {"enable_gif": True}, "resolution": "1080p"}, "'enable_gif'"),
    ("doubao-seedance-2.0", {"params": {"enable_gif": True}}, "'enable_gif'"),
    ("doubao-seedance-2.0", {"params": {"audio_setting": "origin"}}, "'audio_setting'"),
    ("veo3.1-lite", {"images": (stand_in(),)}, "'image_urls'"),
    ("veo3.1-lite", {"first_frame": stand_in("first_frame_image")}, "'image_urls'"),
    ("veo3.1-fast", {"images": (stand_in(),) * 4}, "more than 3"),
    ("veo3.1-fast", {"images": (stand_in(),) * 3, "params": FRAME}, "at most 2"),
    ("veo3.1-quality", {"images": (stand_in(),), "params": {"generation_type": "reference"}}, "'generation_type'"),
    ("veo3.1-fast", {"videos": (stand_in("video_urls"),)}, "'video_urls'"),
    ("doubao-seedance-2.0", {"videos": (stand_in("video_urls", duration_s=9.0),) * 2}, "15 seconds"),
    ("doubao-seedance-2.0", {"videos": (stand_in("video_urls"),) * 4}, "more than 3"),
    ("doubao-seedance-2.0", {"audios": (stand_in("audio_urls"),)}, "'audio_urls' needs"),
    ("doubao-seedance-2.0", {"first_frame": stand_in(), "images": (stand_in(),)}, "exclude each other"),
    ("doubao-seedance-2.0", {"prompt": ""}, "'prompt'"),
    ("veo3.1-fast", {"operation": EDIT, "videos": (stand_in("video_url"),)}, "'video_url'"),
    ("happyhorse-1.0", {"operation": EDIT, "images": (stand_in(),) * 6}, "more than 5"),
    ("veo3.1-lite", {"operation": REMIX, "source_upstream_id": "task_1"}, "extend"),
    ("veo3.1-fast", {"operation": REMIX}, "original"),
]


@pytest.mark.parametrize(("model", "fields", "words"), IMAGE_NO)
def test_it_says_why_an_image_cannot_be_made(model: str, fields: dict[str, Any], words: str) -> None:
    said = provider().why_not(image_request(**fields), model, ApimartHarness().upstream)  # type: ignore[attr-defined]

    assert said is not None
    assert words in said


@pytest.mark.parametrize(("model", "fields", "words"), VIDEO_NO)
def test_it_says_why_a_video_cannot_be_made(model: str, fields: dict[str, Any], words: str) -> None:
    said = provider().why_not(video_request(**fields), model, ApimartHarness().upstream)  # type: ignore[attr-defined]

    assert said is not None
    assert words in said


def test_an_account_may_name_the_family_of_another_id(tmp_path: Path) -> None:
    from app.upstreams.protocols import Upstream

    upstream = Upstream("clone", "apimart", options={"families": {"banana": "gemini-image"}})

    assert provider().why_not(image_request(), "banana", upstream) is None  # type: ignore[attr-defined]
