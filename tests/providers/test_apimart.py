"""The APIMart provider against a strict fake: bodies, answers in every form, replayed keys, every error row."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.providers.apimart import provider
from app.providers.apimart.given import GivenUrls, prune
from app.requests import Operation
from app.upstreams.protocols import (
    Cost,
    Finished,
    ImageGenerator,
    Picky,
    Progress,
    SubmitSafety,
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
from tests.providers.apimart_calls import ApimartHarness, Desk, image_request, stand_in, video_request
from tests.providers.fakes.apimart import FILM, Refused, png
from tests.providers.harness import SECRET

EDIT, REMIX = Operation.VIDEO_EDIT, Operation.VIDEO_REMIX


def harness() -> ApimartHarness:
    return ApimartHarness()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Desk.opened(tmp_path) as desk:
        yield desk


def test_it_says_what_it_can_do() -> None:
    made = provider()

    assert made.name == "apimart"
    assert made.capabilities.submit is SubmitSafety.IDEMPOTENT
    assert made.capabilities.operations == frozenset(Operation)
    assert isinstance(made, ImageGenerator)
    assert isinstance(made, VideoSubmitter)
    assert isinstance(made, Picky)


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


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url_form", ["list", "string"])
@pytest.mark.parametrize("envelope", ["object", "array", "clone"])
@pytest.mark.parametrize("word", ["completed", "success", "SUCCEEDED"])
async def test_every_form_of_an_answer_is_read(desk: Desk, envelope: str, url_form: str, word: str) -> None:
    desk.fake.envelope, desk.fake.url_form, desk.fake.status_word = envelope, url_form, word

    image = await desk.apimart.generate_image(image_request(), desk.call())
    call = desk.call("veo3.1-fast", token="task-2:1")
    job = await desk.apimart.submit_video(video_request(), call)
    video = await desk.apimart.fetch_video(job, call)

    assert image.path.read_bytes() == png()
    assert video.video.read_bytes() == FILM


async def test_a_synchronous_result_is_taken_as_it_comes(desk: Desk) -> None:
    url = f"{desk.fake.url}/files/now.png"
    data = {"object": "generation.result", "status": "completed", "images": [{"url": url}], "cost": 0.01}
    desk.fake.answer = (200, {"code": 200, "data": data})

    result = await desk.apimart.generate_image(image_request(), desk.call())

    assert result.path.read_bytes() == png()
    assert result.cost == Cost(10_000)
    assert not any("/tasks/" in seen.path for seen in desk.fake.seen)


async def test_an_image_is_waited_for_whatever_the_polls_say_in_between(desk: Desk) -> None:
    desk.fake.will("pending", "running 70", "running 30", "unknown_word", "poll 500", "poll cut")

    with structlog.testing.capture_logs() as logs:
        result = await desk.apimart.generate_image(image_request(), desk.call(options={"image_wait_s": 20}))

    assert result.path.read_bytes() == png()
    assert desk.fake.accepted == 1
    assert [entry["status"] for entry in logs if entry["event"] == "upstream.unknown_status"] == ["pondering"]


@pytest.mark.parametrize(
    ("behaviour", "state"),
    [
        ("pending", Progress(0, started=False)),
        ("running 70", Progress(70)),
        ("running 100", Progress(99)),
        ("running -5", Progress(0)),
        ("unknown_word", Progress(40)),
    ],
)
async def test_progress_is_told(desk: Desk, behaviour: str, state: Progress) -> None:
    call = desk.call("veo3.1-fast")
    job = await desk.apimart.submit_video(video_request(), call)
    desk.fake.will(behaviour)

    assert await desk.apimart.poll_video(job, call) == state


@pytest.mark.parametrize(("said", "percent"), [("30%", 30), ("x", None), (None, None), (True, None), (1e400, None)])
async def test_a_strange_percentage_does_no_harm(desk: Desk, said: object, percent: int | None) -> None:
    call = desk.call("veo3.1-fast")
    job = await desk.apimart.submit_video(video_request(), call)
    desk.fake.record = {"status": "processing", "progress": said if said != 1e400 else "1e400"}

    assert await desk.apimart.poll_video(job, call) == Progress(percent)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"status": "failed", "error": {"code": 500, "message": "boom"}}, UpstreamFailed),
        ({"status": "failed", "error": "boom"}, UpstreamFailed),
        ({"status": "FAILURE"}, UpstreamFailed),
        ({"status": "failed", "error": {"message": "content policy violation"}}, UpstreamModerated),
        ({"status": "failed", "error": {"code": 400, "message": "bad ratio"}}, UpstreamRejected),
        ({"status": "failed", "error": {"type": "invalid_request_error", "message": "bad"}}, UpstreamRejected),
        ({"status": "cancelled"}, UpstreamFailed),
        ({"status": "expired"}, UpstreamFailed),
        ({"result": {}}, UpstreamFailed),
        ({"result": {"videos": [{"url": []}]}}, UpstreamFailed),
        ({"result": {"videos": [{"url": "javascript:1"}]}}, UpstreamFailed),
        ({"result": None}, UpstreamFailed),
    ],
)
async def test_the_ends_of_a_task(desk: Desk, record: dict[str, Any], expected: type[UpstreamError]) -> None:
    call = desk.call("veo3.1-fast")
    job = await desk.apimart.submit_video(video_request(), call)
    desk.fake.record = record

    with pytest.raises(UpstreamError) as caught:
        await desk.apimart.poll_video(job, call)

    assert type(caught.value) is expected


async def test_a_failure_tells_what_it_cost(desk: Desk) -> None:
    call = desk.call("veo3.1-fast", {"prices": {"credit": 0.1}})
    job = await desk.apimart.submit_video(video_request(), call)
    desk.fake.record = {"status": "failed", "error": {"message": "boom"}, "cost": None, "credits_cost": 0.5}

    with pytest.raises(UpstreamFailed) as caught:
        await desk.apimart.poll_video(job, call)

    assert caught.value.cost == Cost(50_000)


async def test_an_expired_result_is_a_definite_failure(desk: Desk) -> None:
    desk.fake.files = {"task_"}
    desk.fake.record = {"expires_at": int(time.time()) - 10, "result": {"images": f"{desk.fake.url}/files/task_.png"}}

    with pytest.raises(UpstreamFailed, match="expired"):
        await desk.apimart.generate_image(image_request(), desk.call())


async def test_a_thumbnail_that_cannot_be_read_is_left_out(desk: Desk) -> None:
    desk.fake.files = {"thumb-"}
    call = desk.call("veo3.1-fast")
    job = await desk.apimart.submit_video(video_request(), call)

    result = await desk.apimart.fetch_video(job, call)

    assert result.video.read_bytes() == FILM
    assert result.thumbnail is None


async def test_a_gif_is_fetched_where_the_record_names_one(desk: Desk) -> None:
    call = desk.call("veo3.1-fast")
    job = await desk.apimart.submit_video(video_request(), call)
    files = f"{desk.fake.url}/files"
    desk.fake.record = {"result": {"videos": [{"url": f"{files}/a.mp4"}], "gif_url": f"{files}/a.png"}}

    result = await desk.apimart.fetch_video(job, call)

    assert result.gif is not None
    assert result.gif.read_bytes() == png()


# --- errors -----------------------------------------------------------------------------------------------------------

ROWS: list[tuple[int, str, str, type[UpstreamError]]] = [
    (400, "invalid_request_error", "image_urls exceeds max 16", UpstreamRejected),
    (400, "mixed_media_not_allowed", "media cannot be mixed", UpstreamRejected),
    (400, "invalid_request_error", "prompt failed moderation", UpstreamModerated),
    (400, "invalid_request_error", "提示词包含敏感内容", UpstreamModerated),
    (400, "invalid_request_error", "model veo9 is not supported", UpstreamDenied),
    (401, "authentication_error", "bad key", UpstreamDenied),
    (402, "payment_required", "no balance", UpstreamDenied),
    (403, "permission_error", "no access", UpstreamDenied),
    (404, "not_found_error", "no such asset", UpstreamRejected),
    (404, "", "page not found", UpstreamDenied),
    (408, "timeout", "too slow", UpstreamOutcomeUnknown),
    (409, "conflict", "in flight", UpstreamOutcomeUnknown),
    (413, "invalid_request_error", "too large", UpstreamRejected),
    (422, "invalid_request_error", "bad", UpstreamRejected),
    (429, "rate_limit_error", "slow down", UpstreamBusy),
    (451, "", "", UpstreamModerated),
    (500, "server_error", "oops", UpstreamOutcomeUnknown),
    (502, "bad_gateway", "oops", UpstreamOutcomeUnknown),
    (503, "service_unavailable", "oops", UpstreamOutcomeUnknown),
    (504, "timeout", "oops", UpstreamOutcomeUnknown),
    (400, "invalid_request_error", "Idempotency-Key was used with another body", UpstreamOutcomeUnknown),
]


@pytest.mark.parametrize("inside", [False, True], ids=["status", "body"])
@pytest.mark.parametrize(("status", "kind", "message", "expected"), ROWS)
async def test_every_row_of_the_error_table(
    desk: Desk, status: int, kind: str, message: str, expected: type[UpstreamError], inside: bool
) -> None:
    """Also with status 200 and the code in the body."""
    error = {"code": status, "message": f"{message} {SECRET} https://x.apimart.ai/1", "type": kind}
    document = {"code": status, "error": error} if inside else {"error": error}
    desk.fake.answer = (200 if inside else status, document)

    with pytest.raises(UpstreamError) as caught:
        await desk.apimart.submit_video(video_request(), desk.call("veo3.1-fast"))

    assert type(caught.value) is expected
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.public}"
    assert "apimart.ai" not in caught.value.public


@pytest.mark.parametrize(
    "document",
    [
        {"code": 200, "data": []},
        {"code": 200, "data": None},
        {"code": 200, "data": {"object": "generation.task", "status": "submitted"}},
        {"code": 200, "data": [{"task_id": ""}]},
        {"code": 200, "data": [{"task_id": 7}]},
        {"code": 9999, "message": "?"},
        {"success": False, "message": "?"},
        {},
        [],
        "task_1",
    ],
)
async def test_a_2xx_that_names_no_task_leaves_the_outcome_open(desk: Desk, document: Any) -> None:
    desk.fake.answer = (200, document)

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.apimart.submit_video(video_request(), desk.call("veo3.1-fast"))


async def test_a_wait_asked_for_is_passed_on(desk: Desk) -> None:
    desk.fake.will("busy 2")

    with pytest.raises(UpstreamBusy) as caught:
        await desk.apimart.generate_image(image_request(), desk.call())

    assert caught.value.retry_after_s == 2.0


async def test_a_wrong_or_missing_key_is_ours_to_mend(desk: Desk) -> None:
    for secret in ("sk-wrong", None):
        with pytest.raises(UpstreamDenied):
            await desk.apimart.generate_image(image_request(), desk.call(secret=secret))


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [("upload 413", UpstreamRejected), ("upload 500", UpstreamBusy), ("upload cut", UpstreamBusy)],
)
async def test_a_failed_upload_is_no_submit(desk: Desk, behaviour: str, expected: type[UpstreamError]) -> None:
    desk.fake.polls.append(behaviour)

    with pytest.raises(UpstreamError) as caught:
        await desk.apimart.generate_image(image_request(images=(desk.picture(),)), desk.call())

    assert type(caught.value) is expected
    assert desk.fake.accepted == 0


# --- the same token ---------------------------------------------------------------------------------------------------


async def test_a_lost_answer_is_found_again_with_the_same_key_and_body(desk: Desk) -> None:
    """The pictures too: an upload cannot be repeated to the letter, nor can a signed URL."""
    film = desk.file(FILM, "video/mp4", "video_urls")
    request = video_request(images=(desk.picture(),), videos=(film,))
    desk.fake.will("cut")
    signatures = iter(["https://gate.example/1", "https://gate.example/2"])

    def call() -> Any:
        return desk.call("doubao-seedance-2.0", public_url=lambda file: next(signatures))

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.apimart.submit_video(request, call())
    first = desk.fake.sent
    job = await provider().submit_video(request, call())  # type: ignore[attr-defined]

    assert desk.fake.sent == first
    assert desk.fake.accepted == 1
    assert job.id in desk.fake.tasks
    assert len(desk.fake.uploads) == 1


async def test_an_image_goes_on_where_the_first_call_gave_up(desk: Desk) -> None:
    desk.fake.record = {"status": "processing"}

    with pytest.raises(UpstreamOutcomeUnknown, match="not done"):
        await desk.apimart.generate_image(image_request(), desk.call(options={"image_wait_s": 0.01}))
    desk.fake.record = None
    await desk.apimart.generate_image(image_request(), desk.call())

    assert desk.fake.accepted == 1


@pytest.mark.parametrize("behaviour", ["poll 500", "poll cut", "result 403"])
async def test_after_acceptance_trouble_is_never_a_refusal(desk: Desk, behaviour: str) -> None:
    desk.fake.will(*[behaviour] * 50)

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.apimart.generate_image(image_request(), desk.call(options={"image_wait_s": 0.01}))


async def test_a_server_that_goes_away_after_acceptance_is_no_refusal_either(desk: Desk) -> None:
    """A refused connection alone is UpstreamBusy: to send again with another token would make the image twice."""
    url = "http://127.0.0.1:9/gone.png"
    desk.fake.record = {"result": {"images": [{"url": url}]}}

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.apimart.generate_image(image_request(), desk.call())


@pytest.mark.parametrize("token", ["täsk:1", "a b", "x" * 192, ""])
async def test_a_token_that_is_no_key_is_sent_as_its_digest(desk: Desk, token: str) -> None:
    await desk.apimart.submit_video(video_request(), desk.call("veo3.1-fast", token=token))
    await desk.apimart.submit_video(video_request(), desk.call("veo3.1-fast", token=token))

    assert len(desk.fake.seen[0].headers["Idempotency-Key"]) == 64
    assert desk.fake.accepted == 1


async def test_urls_are_remembered_for_three_days(tmp_path: Path) -> None:
    folder, file = tmp_path / "given", stand_in()

    async def make(file: Any) -> str:
        return "https://x/1"

    await GivenUrls(folder, "task:1").url(file, make)
    prune(folder, now=time.time())
    assert len(list(folder.iterdir())) == 1
    old = time.time() - 73 * 3600
    os.utime(next(folder.iterdir()), (old, old))
    prune(folder, now=time.time())
    assert list(folder.iterdir()) == []


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


async def test_a_task_that_is_gone_is_a_definite_failure(desk: Desk) -> None:
    with pytest.raises(UpstreamFailed):
        await desk.apimart.poll_video(UpstreamJob("task_gone"), desk.call("veo3.1-fast"))


def test_the_fake_refuses_what_the_vendor_refuses() -> None:
    """One word of its strictness; the rest shows in the tests above."""
    from tests.providers.fakes.apimart import _check_video

    with pytest.raises(Refused, match="mixed"):
        _check_video({"video_url": "https://x", "first_frame_image": "https://x"}, "happyhorse-1.0")
