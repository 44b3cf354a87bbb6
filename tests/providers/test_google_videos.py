"""The Google provider makes videos with Veo, on the Agent Platform and in the older Gemini shape."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.providers.google.adapter import GoogleProvider
from app.requests import Operation, VideoRequest
from app.upstreams.contract.harness import SECRET
from app.upstreams.protocols import (
    Upstream,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)
from tests.providers.fakes.google import PER_DAY, Raw, error, quota_failure, retry_info
from tests.providers.google_calls import (
    AGENT,
    BEARER,
    GEMINI,
    LITE,
    VIDEO_MODEL,
    Desk,
    remix_request,
    video_request,
)

SHAPES = pytest.mark.parametrize("options", [AGENT, BEARER, GEMINI], ids=["express", "bearer", "gemini"])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Desk.opened(tmp_path) as made:
        yield made


async def submitted(desk: Desk, options: Mapping[str, Any] = AGENT) -> UpstreamJob:
    return await desk.google.submit_video(video_request(), desk.video_call(options))


def inline(data: bytes, mime: str = "image/png") -> dict[str, str]:
    return {"bytesBase64Encoded": base64.b64encode(data).decode(), "mimeType": mime}


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "path", "header"),
    [
        (AGENT, f"/v1beta1/publishers/google/models/{VIDEO_MODEL}:predictLongRunning", "x-goog-api-key"),
        (
            BEARER,
            "/v1beta1/projects/acme-media/locations/us-central1/publishers/google/models/"
            f"{VIDEO_MODEL}:predictLongRunning",
            "Authorization",
        ),
        (GEMINI, f"/v1beta/models/{VIDEO_MODEL}:predictLongRunning", "x-goog-api-key"),
    ],
    ids=["express", "bearer", "gemini"],
)
async def test_the_body_of_a_video_is_exactly_this(
    desk: Desk, options: Mapping[str, Any], path: str, header: str
) -> None:
    params = {"generate_audio": True, "enable_gif": False, "official_fallback": True}

    await desk.google.submit_video(video_request(params=params, ratio="9:16"), desk.video_call(options))

    seen = desk.fake.seen[0]
    assert seen.path == path
    assert SECRET in seen.headers[header]
    more = {} if options is GEMINI else {"generateAudio": True}
    assert seen.body == {
        "instances": [{"prompt": "a kite over dunes"}],
        "parameters": {"aspectRatio": "9:16", "resolution": "720p", "durationSeconds": 8, "sampleCount": 1, **more},
    }


@SHAPES
async def test_frames_become_image_and_last_frame(desk: Desk, options: Mapping[str, Any]) -> None:
    one, two = desk.picture("red"), desk.picture("blue")

    await desk.google.submit_video(video_request(images=(one, two), resolution="1080p"), desk.video_call(options))
    frames = desk.sent["instances"][0]
    await desk.google.submit_video(video_request(images=(one,)), desk.video_call(options))
    alone = desk.sent["instances"][0]

    assert frames == {
        "prompt": "a kite over dunes",
        "image": inline(one.path.read_bytes()),
        "lastFrame": inline(two.path.read_bytes()),
    }
    assert set(alone) == {"prompt", "image"}


@pytest.mark.parametrize(("count", "params"), [(1, {"generation_type": "reference"}), (3, {})])
@SHAPES
async def test_references_are_assets(
    desk: Desk, options: Mapping[str, Any], count: int, params: dict[str, Any]
) -> None:
    pictures = tuple(desk.picture() for _ in range(count))

    await desk.google.submit_video(video_request(images=pictures, params=params), desk.video_call(options))

    assert desk.sent["instances"][0] == {
        "prompt": "a kite over dunes",
        "referenceImages": [{"image": inline(p.path.read_bytes()), "referenceType": "ASSET"} for p in pictures],
    }


async def test_a_first_frame_is_the_image_and_needs_no_prompt(desk: Desk) -> None:
    first = desk.picture("red", "first_frame_image")

    await desk.google.submit_video(video_request(prompt="", first_frame=first), desk.video_call())

    assert desk.sent["instances"] == [{"image": inline(first.path.read_bytes())}]


async def test_sound_and_seed_are_sent_to_the_agent_platform(desk: Desk) -> None:
    request = video_request(params={"generate_audio": False, "seed": 0})

    await desk.google.submit_video(request, desk.video_call(route={"person_generation": "allow_all"}))

    parameters = desk.sent["parameters"]
    assert (parameters["generateAudio"], parameters["seed"]) == (False, 0)
    assert parameters["personGeneration"] == "allow_all"


async def test_a_remix_sends_our_copy_of_the_source_to_the_agent_platform(desk: Desk) -> None:
    source = desk.film(desk.fake.video)

    await desk.google.submit_video(remix_request(source, source_upstream_id="gone"), desk.video_call())

    assert len(desk.fake.seen) == 1
    assert desk.sent["instances"] == [
        {"prompt": "a kite over dunes", "video": inline(source.path.read_bytes(), "video/mp4")}
    ]


async def test_a_remix_in_the_gemini_shape_names_the_video_that_is_kept_there(desk: Desk) -> None:
    source = await submitted(desk, GEMINI)

    request = remix_request(desk.film(desk.fake.video), source_upstream_id=source.id)
    await desk.google.submit_video(request, desk.video_call(GEMINI))

    assert desk.sent["instances"][0]["video"] == {"uri": f"{desk.fake.url}/v1beta/files/op-1:download?alt=media"}
    assert desk.fake.accepted == 2


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("expired", UpstreamRejected),
        ("failed", UpstreamRejected),
        ("running", UpstreamRejected),
        ("poll 500", UpstreamBusy),
        ("poll cut", UpstreamBusy),
    ],
)
async def test_a_source_that_cannot_be_asked_for_leaves_nothing_unknown(
    desk: Desk, word: str, kind: type[UpstreamError]
) -> None:
    source = await submitted(desk, GEMINI)
    desk.fake.will(word)

    with pytest.raises(UpstreamError) as caught:
        await desk.google.submit_video(remix_request(None, source_upstream_id=source.id), desk.video_call(GEMINI))

    assert type(caught.value) is kind
    assert desk.fake.accepted == 1


@pytest.mark.parametrize("options", [AGENT, GEMINI])
async def test_a_remix_without_a_source_is_refused_before_anything_is_sent(
    desk: Desk, options: Mapping[str, Any]
) -> None:
    with pytest.raises(UpstreamRejected):
        await desk.google.submit_video(remix_request(None), desk.video_call(options))

    assert not desk.fake.seen


# --- submit: refusals and losses --------------------------------------------------------------------------------------

STATUSES: list[tuple[Raw, type[UpstreamError], float | None]] = [
    (error(400, "INVALID_ARGUMENT", "Bad image."), UpstreamRejected, None),
    (error(400, "FAILED_PRECONDITION", "Not a Veo video."), UpstreamRejected, None),
    (error(400, "INVALID_ARGUMENT", "It violates our usage guidelines."), UpstreamModerated, None),
    (error(400, "FAILED_PRECONDITION", "Blocked by safety filters."), UpstreamModerated, None),
    (error(400, "INVALID_ARGUMENT", 'Unknown name "safetySettings"'), UpstreamRejected, None),
    (error(401, "UNAUTHENTICATED", "no"), UpstreamDenied, None),
    (error(403, "PERMISSION_DENIED", "no"), UpstreamDenied, None),
    (error(404, "NOT_FOUND", "Publisher model was not found."), UpstreamDenied, None),
    (error(429, "RESOURCE_EXHAUSTED", "slow"), UpstreamBusy, None),
    (error(429, "RESOURCE_EXHAUSTED", "slow", retry_info("12s")), UpstreamBusy, 12.0),
    (error(429, "RESOURCE_EXHAUSTED", "no more", quota_failure(PER_DAY)), UpstreamDenied, None),
    (error(500, "INTERNAL", "no"), UpstreamOutcomeUnknown, None),
    (error(503, "UNAVAILABLE", "no"), UpstreamOutcomeUnknown, None),
    (error(504, "DEADLINE_EXCEEDED", "no"), UpstreamOutcomeUnknown, None),
]


@pytest.mark.parametrize(("answer", "kind", "wait_s"), STATUSES)
async def test_every_status_of_a_submit_has_its_class(
    desk: Desk, answer: Raw, kind: type[UpstreamError], wait_s: float | None
) -> None:
    desk.fake.say(answer)

    with pytest.raises(UpstreamError) as caught:
        await submitted(desk)

    assert type(caught.value) is kind
    assert getattr(caught.value, "retry_after_s", None) == wait_s
    assert desk.fake.accepted == 0


@pytest.mark.parametrize("word", ["cut", "garbage", "no_id"])
@SHAPES
async def test_a_lost_or_nameless_answer_is_unknown_and_never_sent_again(
    desk: Desk, options: Mapping[str, Any], word: str
) -> None:
    desk.fake.will(word)

    with pytest.raises(UpstreamOutcomeUnknown):
        await submitted(desk, options)

    assert desk.fake.accepted == 1


@pytest.mark.parametrize("name", ["../../x", "https://evil.example/operations/1", "x?key=1", 7, ""])
async def test_a_name_that_is_none_is_unknown_too(desk: Desk, name: Any) -> None:
    desk.fake.say(Raw(200, {"name": name}))

    with pytest.raises(UpstreamOutcomeUnknown):
        await submitted(desk, GEMINI)


# --- what cannot be served --------------------------------------------------------------------------------------------


def why_not(request: VideoRequest, model: str = VIDEO_MODEL, options: Mapping[str, Any] = AGENT) -> str | None:
    return GoogleProvider().why_not(request, model, Upstream("google", "google", options=options))


def count_of(count: int) -> dict[str, Any]:
    return {"images": (Desk.stand_in("image_urls"),) * count}


REFERENCE = {"params": {"generation_type": "reference"}}
REMIX = {"operation": Operation.VIDEO_REMIX}


@pytest.mark.parametrize(
    ("fields", "model", "options", "named"),
    [
        ({}, VIDEO_MODEL, AGENT, None),
        ({}, LITE, AGENT, None),
        ({"params": {"enable_gif": False, "official_fallback": True, "watermark": False}}, VIDEO_MODEL, AGENT, None),
        ({"resolution": "4k"}, VIDEO_MODEL, AGENT, None),
        ({"resolution": "4k"}, LITE, AGENT, "'resolution' 4k"),
        ({"resolution": "480p"}, VIDEO_MODEL, AGENT, "'resolution' 480p"),
        ({"ratio": "1:1"}, VIDEO_MODEL, AGENT, "'size' 1:1"),
        ({"duration_s": 5}, VIDEO_MODEL, AGENT, "'duration' 5"),
        ({"duration_s": 4}, VIDEO_MODEL, AGENT, None),
        ({"duration_s": 4, "resolution": "1080p"}, VIDEO_MODEL, AGENT, "'duration' 4"),
        ({"duration_s": 6, **count_of(1)}, VIDEO_MODEL, AGENT, None),
        ({"duration_s": 6, **count_of(2)}, VIDEO_MODEL, AGENT, "'duration' 6"),
        ({"duration_s": 6, **count_of(1), **REFERENCE}, VIDEO_MODEL, AGENT, "'duration' 6"),
        (count_of(1), LITE, AGENT, None),
        (count_of(2), LITE, AGENT, "'image_urls' may hold one"),
        (count_of(1) | REFERENCE, LITE, AGENT, "'generation_type' reference"),
        (count_of(3), LITE, AGENT, "'generation_type' reference"),
        (count_of(3), VIDEO_MODEL, AGENT, None),
        (count_of(4), VIDEO_MODEL, AGENT, "'image_urls' may hold 3"),
        (count_of(3) | {"params": {"generation_type": "frame"}}, VIDEO_MODEL, AGENT, "'image_urls' may hold two"),
        (count_of(1) | REFERENCE | {"prompt": ""}, VIDEO_MODEL, AGENT, "'prompt'"),
        (count_of(1) | {"first_frame": Desk.stand_in("first_frame_image")}, VIDEO_MODEL, AGENT, "'first_frame_image'"),
        ({"videos": (Desk.stand_in("video_urls"),)}, VIDEO_MODEL, AGENT, "'video_urls'"),
        ({"audios": (Desk.stand_in("audio_urls"),)}, VIDEO_MODEL, AGENT, "'audio_urls'"),
        ({"params": {"watermark": True}}, VIDEO_MODEL, AGENT, "'watermark'"),
        ({"params": {"audio_setting": "origin"}}, VIDEO_MODEL, AGENT, "'audio_setting'"),
        ({"params": {"seed": 3, "generate_audio": False}}, VIDEO_MODEL, AGENT, None),
        ({"params": {"seed": 3}}, VIDEO_MODEL, GEMINI, "'seed'"),
        ({"params": {"generate_audio": False}}, VIDEO_MODEL, GEMINI, "'generate_audio'"),
        ({"params": {"generate_audio": True}}, VIDEO_MODEL, GEMINI, None),
        (REMIX, VIDEO_MODEL, AGENT, None),
        (REMIX, LITE, AGENT, "A remix"),
        (REMIX | {"resolution": "1080p"}, VIDEO_MODEL, AGENT, "'resolution' must be 720p"),
        ({"params": {"enable_gif": True}}, VIDEO_MODEL, AGENT, "'enable_gif'"),
        (REMIX | {"params": {"raw": True}}, VIDEO_MODEL, AGENT, "'raw'"),
        (REMIX | {"videos": (Desk.stand_in("result", 720, 1280),)}, VIDEO_MODEL, AGENT, None),
        (REMIX | {"videos": (Desk.stand_in("result", 1920, 1080),)}, VIDEO_MODEL, AGENT, "The source"),
        ({"params": {"seed": 3}}, VIDEO_MODEL, {"api": "nonsense"}, None),  # the operator is told at the call
    ],
)
def test_what_cannot_be_served_is_named(
    fields: dict[str, Any], model: str, options: Mapping[str, Any], named: str | None
) -> None:
    said = why_not(video_request(**fields), model, options)

    assert said is None if named is None else (said or "").startswith(named)
