"""The APIMart provider against a strict fake: answers in every form, replayed keys, every error row."""

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
from app.upstreams.contract.harness import SECRET
from app.upstreams.protocols import (
    Cost,
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


async def test_a_task_that_is_gone_is_a_definite_failure(desk: Desk) -> None:
    with pytest.raises(UpstreamFailed):
        await desk.apimart.poll_video(UpstreamJob("task_gone"), desk.call("veo3.1-fast"))


def test_the_fake_refuses_what_the_vendor_refuses() -> None:
    """One word of its strictness; the rest shows in the tests above."""
    from tests.providers.fakes.apimart import _check_video

    with pytest.raises(Refused, match="mixed"):
        _check_video({"video_url": "https://x", "first_frame_image": "https://x"}, "happyhorse-1.0")
