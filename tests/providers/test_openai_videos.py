"""The Videos protocol of the ``openai`` provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.providers.openai.adapter import OpenAIProvider
from app.requests import MediaFile, Operation
from app.upstreams.contract.harness import SECRET
from app.upstreams.protocols import (
    Cost,
    Finished,
    Progress,
    Upstream,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)
from tests.providers.fakes.openai_data import MP4, Style
from tests.providers.openai_calls import Desk, close_desk, image_request, open_desk, video_request


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = await open_desk(tmp_path)
    yield desk
    await close_desk(desk)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = await open_desk(tmp_path, Style(is_strict=False))
    yield desk
    await close_desk(desk)


async def submit(desk: Desk, model: str = "sora-2", **options: Any) -> UpstreamJob:
    return await desk.provider.submit_video(video_request(), desk.call(model, **options))


async def test_a_video_is_submitted_as_a_form_with_seconds_as_text(desk: Desk) -> None:
    frame = desk.media(field="first_frame_image")

    job = await desk.provider.submit_video(video_request(first_frame=frame), desk.call("sora-2"))

    (seen,) = desk.fake.seen
    assert (seen.method, seen.path) == ("POST", "/v1/videos")
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert seen.texts() == {"model": "sora-2", "prompt": "a fox", "seconds": "8", "size": "1280x720"}
    assert seen.files() == [("input_reference", "reference.png", "image/png", frame.path.read_bytes())]
    assert job == UpstreamJob("video_1")


async def test_a_video_goes_from_queued_to_our_disk(desk: Desk) -> None:
    job = await submit(desk)
    desk.fake.polls += ["pending", "running"]

    states = [await desk.provider.poll_video(job, desk.call("sora-2")) for _ in range(3)]
    result = await desk.provider.fetch_video(job, desk.call("sora-2", prices={"second": 0.1}))

    assert states == [Progress(0, started=False), Progress(42), Finished()]
    assert result.video.read_bytes() == MP4
    assert result.cost == Cost(800_000)
    assert desk.fake.seen[-1].path == "/v1/videos/video_1/content"
    assert desk.fake.seen[-1].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("video", ["redirect", "url", "metadata"])
@pytest.mark.parametrize("inner", [False, True])
async def test_a_relays_own_place_of_the_result_is_found_and_never_sees_our_key(
    relay: Desk, video: str, inner: bool
) -> None:
    relay.fake.style.video, relay.fake.style.inner = video, inner
    job = await submit(relay)

    result = await relay.provider.fetch_video(job, relay.call("sora-2"))

    assert result.video.read_bytes() == MP4
    assert [hit.get("authorization") for hit in relay.fake.file_hits] == [None]


async def test_an_operator_may_prefer_the_content_over_a_url(relay: Desk) -> None:
    relay.fake.style.video = "url"
    job = await submit(relay)

    await relay.provider.fetch_video(job, relay.call("sora-2", video_result="content"))

    assert relay.fake.file_hits == []


async def test_the_server_is_not_asked_before_it_wishes(desk: Desk) -> None:
    now = [100.0]
    provider = OpenAIProvider(clock=lambda: now[0])
    job = await submit(desk)
    desk.fake.poll_after_ms = 8000
    desk.fake.polls += ["running"]

    first = await provider.poll_video(job, desk.call("sora-2"))
    now[0] += 7.9
    early = await provider.poll_video(job, desk.call("sora-2"))
    asked = len(desk.fake.seen)
    now[0] += 0.2
    late = await provider.poll_video(job, desk.call("sora-2"))

    assert (first, early, late) == (Progress(42), Progress(42), Finished())
    assert (asked, len(desk.fake.seen)) == (2, 3)


async def test_a_wish_for_an_hour_is_a_minute(desk: Desk) -> None:
    now = [0.0]
    provider = OpenAIProvider(clock=lambda: now[0])
    job = await submit(desk)
    desk.fake.poll_after_ms = 3_600_000
    desk.fake.polls += ["running"]
    await provider.poll_video(job, desk.call("sora-2"))

    now[0] += 60

    assert await provider.poll_video(job, desk.call("sora-2")) == Finished()


async def test_an_unknown_word_of_status_is_logged_once_and_the_video_stays(desk: Desk) -> None:
    job = await submit(desk)
    desk.fake.polls += ["unknown_word", "unknown_word"]

    with capture_logs() as logs:
        states = [await desk.provider.poll_video(job, desk.call("sora-2")) for _ in range(2)]

    assert states == [Progress(43), Progress(43)]
    assert [entry["word"] for entry in logs] == ["dreaming"]


@pytest.mark.parametrize(
    ("video", "state"),
    [
        ({"status": "QUEUED", "progress": None}, Progress(None, started=False)),
        ({"status": "submitted"}, Progress(0, started=False)),
        ({"status": "processing", "progress": "37%"}, Progress(37)),
        ({"status": "in_progress", "progress": 100}, Progress(99)),
        ({"status": "running", "progress": 12.7}, Progress(12)),
        ({"status": "running", "progress": "soon"}, Progress(None)),
        ({"status": "success"}, Finished()),
        ({"status": "SUCCEEDED"}, Finished()),
    ],
)
async def test_words_and_percentages_of_relays_are_understood(desk: Desk, video: Any, state: Any) -> None:
    job = await submit(desk)
    desk.fake.polls.append(video)

    assert await desk.provider.poll_video(job, desk.call("sora-2")) == state


@pytest.mark.parametrize(
    ("order", "kind"),
    [
        ("failed", UpstreamFailed),
        ("moderated_late", UpstreamModerated),
        ("expired", UpstreamFailed),
        ("poll 500", UpstreamError),
        ("poll cut", UpstreamError),
        ({"status": "failed", "error": "rejected by the safety system"}, UpstreamModerated),
        ({"status": "failed", "error": {"code": "content_policy_violation"}}, UpstreamModerated),
        ({"status": "failed", "error": {"type": "invalid_request_error", "message": "too wide"}}, UpstreamRejected),
        ({"status": "failed", "error": None, "fail_reason": "out of memory"}, UpstreamFailed),
        ({"status": "cancelled"}, UpstreamFailed),
        ({"status": "expired"}, UpstreamFailed),
        ({"status": None}, UpstreamError),
        ((410, {}), UpstreamFailed),
        ((401, {"error": {"message": f"bad key {SECRET}"}}), UpstreamDenied),
        ((200, {"error": {"message": "task not found", "type": "invalid_request_error"}}), UpstreamError),
        ((200, "<html>later</html>"), UpstreamError),
        ((429, {}), UpstreamError),
    ],
)
async def test_each_poll_that_does_not_go_on_is_sorted(desk: Desk, order: Any, kind: type[UpstreamError]) -> None:
    job = await submit(desk)
    desk.fake.polls.append(order)

    with pytest.raises(kind) as raised:
        await desk.provider.poll_video(job, desk.call("sora-2"))

    if kind is UpstreamError:
        assert not isinstance(raised.value, UpstreamFailed | UpstreamRejected)
    else:
        assert type(raised.value) is kind
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("no_result", UpstreamFailed), ("result 403", UpstreamError), ("gone", UpstreamFailed), ("html", UpstreamError)],
)
async def test_a_result_that_is_none_never_counts_as_one(desk: Desk, answer: str, kind: type[UpstreamError]) -> None:
    job = await submit(desk)
    desk.fake.content_answer = answer

    with pytest.raises(UpstreamError) as raised:
        await desk.provider.fetch_video(job, desk.call("sora-2"))

    assert type(raised.value) is kind


@pytest.mark.parametrize("order", ["cut", "garbage", "no_id", "error 500", "error 502"])
async def test_a_lost_answer_is_an_unknown_outcome_and_one_submit(desk: Desk, order: str) -> None:
    desk.fake.submits.append(order)

    with pytest.raises(UpstreamOutcomeUnknown):
        await submit(desk)

    assert [seen.method for seen in desk.fake.seen] == ["POST"]


@pytest.mark.parametrize(
    ("body", "id"),
    [
        ({"task_id": "t-1", "status": "submitted"}, "t-1"),
        ({"code": 200, "data": [{"task_id": "t-2", "status": "submitted"}]}, "t-2"),
        ({"code": "success", "data": {"id": 77}}, "77"),
        ({"id": "a/../b?c", "status": "queued"}, "a/../b?c"),
    ],
)
async def test_a_relays_id_is_found_and_stays_inside_its_path(relay: Desk, body: Any, id: str) -> None:
    relay.fake.submits.append((200, body))

    job = await submit(relay)
    with pytest.raises(UpstreamFailed):
        await relay.provider.poll_video(job, relay.call("sora-2"))

    assert job.id == id
    assert relay.fake.seen[-1].path == f"/v1/videos/{id}"


async def test_a_submit_that_failed_at_once_says_so(relay: Desk) -> None:
    relay.fake.submits.append((200, {"id": "v", "status": "failed", "error": {"code": "moderation_blocked"}}))

    with pytest.raises(UpstreamModerated):
        await submit(relay)


async def test_a_remix_sends_the_prompt_to_its_source(desk: Desk) -> None:
    source = await submit(desk)
    request = video_request("at night", operation=Operation.VIDEO_REMIX, source_upstream_id=source.id)

    job = await desk.provider.submit_video(request, desk.call("sora-2"))

    assert job.id == "video_2"
    assert (desk.fake.seen[-1].path, desk.fake.seen[-1].json) == ("/v1/videos/video_1/remix", {"prompt": "at night"})


@pytest.mark.parametrize("source", [None, "video_9"])
async def test_a_remix_of_what_is_gone_is_the_callers_to_know(desk: Desk, source: str | None) -> None:
    request = video_request(operation=Operation.VIDEO_REMIX, source_upstream_id=source)

    with pytest.raises(UpstreamRejected) as raised:
        await desk.provider.submit_video(request, desk.call("sora-2"))

    assert raised.value.public == "The upstream no longer has this video."
    assert desk.fake.accepted == 0


@pytest.mark.parametrize(
    ("order", "stopped"),
    [
        (None, True),
        ((204, ""), True),
        ((200, {"deleted": False}), False),
        ((200, {"error": "too late"}), False),
        ((409, {}), False),
        ((404, {}), False),
        ((405, {}), False),
    ],
)
async def test_cancelling_deletes(desk: Desk, order: Any, stopped: bool) -> None:
    job = await submit(desk)
    if order is not None:
        desk.fake.polls.append(order)

    assert await desk.provider.cancel_video(job, desk.call("sora-2")) is stopped

    assert (desk.fake.seen[-1].method, desk.fake.seen[-1].path) == ("DELETE", "/v1/videos/video_1")


async def test_a_cancel_that_got_no_answer_is_an_error(desk: Desk) -> None:
    job = await submit(desk)
    desk.fake.polls.append((500, {}))

    with pytest.raises(UpstreamError):
        await desk.provider.cancel_video(job, desk.call("sora-2"))


@pytest.mark.parametrize("style", ["inline", "url"])
async def test_a_relay_may_want_json_and_other_names(relay: Desk, style: str) -> None:
    def public_url(file: MediaFile) -> str:
        return "https://our.example/a.png"

    request = video_request(
        images=(relay.media(field="image_urls"), relay.media(field="image_urls")),
        params={"seed": 7, "watermark": False, "generate_audio": True},
    )
    call = relay.call(
        "wan",
        video_body="json",
        video_size_style="ratio",
        video_reference_field="images",
        max_video_images=2,
        reference_data=style,
        video_fields={"seed": "seed", "generate_audio": "with_audio"},
        video_extra={"metadata": {"tier": "flex"}},
        public_url=public_url,
    )

    await relay.provider.submit_video(request, call)

    sent = relay.fake.seen[0].json
    images = sent.pop("images")
    assert sent == {
        "model": "wan",
        "prompt": "a fox",
        "seconds": "8",
        "aspect_ratio": "16:9",
        "resolution": "720p",
        "seed": 7,
        "with_audio": True,
        "metadata": {"tier": "flex"},
    }
    start = "data:image/png;base64,iVBOR" if style == "inline" else "https://our.example/"
    assert len(images) == 2
    assert all(image.startswith(start) for image in images)


@pytest.mark.parametrize(("asked", "sent"), [(3, "4"), (6, "8"), (9, "8"), (15, "12")])
async def test_the_nearest_length_is_taken_where_the_operator_allows(desk: Desk, asked: int, sent: str) -> None:
    await desk.provider.submit_video(video_request(duration_s=asked), desk.call("sora-2", nearest_seconds=True))

    assert desk.fake.seen[0].texts()["seconds"] == sent


def test_what_cannot_be_served_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    desk = Desk(tmp_path, None, None)  # type: ignore[arg-type] # nothing is sent
    png = desk.media(field="image_urls")
    video = replace(png, mime="video/mp4", field="video_url")
    remix = Operation.VIDEO_REMIX
    cases: list[tuple[Any, str, dict[str, Any], str | None]] = [
        (video_request(), "sora-2", {}, None),
        (video_request(size=(720, 1280)), "sora-2", {}, None),
        (video_request(duration_s=5), "sora-2", {}, "4, 8, 12 seconds, not 5"),
        (video_request(duration_s=5), "sora-2", {"nearest_seconds": True}, None),
        (video_request(duration_s=5), "wan", {}, None),
        (video_request(duration_s=5), "wan", {"video_seconds": [6]}, "6 seconds"),
        (video_request(size=(1792, 1024)), "sora-2", {}, "1792x1024"),
        (video_request(size=(1792, 1024)), "sora-2-pro", {}, None),
        (video_request(size=(1792, 1024)), "wan", {}, None),
        (video_request(images=(png,)), "sora-2", {}, None),
        (video_request(images=(png, png)), "sora-2", {}, "'image_urls'"),
        (video_request(images=(png, png)), "wan", {"max_video_images": 2}, None),
        (video_request(videos=(video,)), "wan", {}, "no video"),
        (video_request(operation=Operation.VIDEO_EDIT, videos=(video,)), "wan", {}, "no video"),
        (video_request(audios=(replace(png, mime="audio/wav"),)), "wan", {}, "no sound"),
        (video_request(params={"seed": 7}), "sora-2", {}, "'seed'"),
        (video_request(params={"seed": 7}), "wan", {"video_fields": {"seed": "seed"}}, None),
        (video_request(params={"seed": -1, "watermark": False, "generate_audio": True}), "sora-2", {}, None),
        (video_request(params={"generate_audio": False}), "sora-2", {}, "'generate_audio'"),
        (video_request(params={"watermark": True}), "sora-2", {}, "'watermark'"),
        (video_request(params={"enable_gif": True}), "sora-2", {}, "'enable_gif'"),
        (video_request(params={"official_fallback": True, "hints": {"style": "vivid"}}), "sora-2", {}, None),
        (video_request(images=(png,), params={"generation_type": "frame"}), "sora-2", {}, None),
        (video_request(images=(png,), params={"generation_type": "reference"}), "sora-2", {}, "'generation_type'"),
        (video_request(params={"audio_setting": "origin"}), "sora-2", {}, "'audio_setting'"),
        (video_request(operation=remix, videos=(video,), duration_s=5), "sora-2", {}, None),
        (video_request(operation=remix), "sora-2", {"remix": False}, "cannot remix"),
        (video_request(operation=remix, params={"raw": True}), "sora-2", {}, "'raw'"),
        (image_request(), "gpt-image-2", {}, None),
    ]
    for request, model, options, words in cases:
        said = desk.provider.why_not(request, model, Upstream("main", "openai", options=options))
        assert (said is None) if words is None else (said is not None and words in said), (model, options, said)
