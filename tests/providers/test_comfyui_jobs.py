"""ComfyUI's jobs: found again by their id, waited for, cancelled, and their files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.providers.comfyui import provider
from app.providers.comfyui.adapter import job_id
from app.upstreams.contract.harness import SECRET
from app.upstreams.protocols import (
    Progress,
    UpstreamBusy,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamOutcomeUnknown,
)
from tests.providers.apimart_calls import image_request, video_request
from tests.providers.comfyui_calls import Desk
from tests.providers.fakes.apimart import png
from tests.providers.fakes.comfyui import NO_MEMORY


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Desk.opened(tmp_path) as desk:
        yield desk


def posts(desk: Desk, path: str = "/prompt") -> int:
    return sum(seen.method == "POST" and seen.path == path for seen in desk.fake.seen)


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "state"), [("pending", Progress(started=False)), ("running", Progress(started=True))]
)
async def test_the_queue_tells_how_far_a_job_is(desk: Desk, behaviour: str, state: Progress) -> None:
    call = desk.call("wan")
    job = await desk.comfyui.submit_video(video_request(), call)
    desk.fake.will(behaviour)

    assert await desk.comfyui.poll_video(job, call) == state


@pytest.mark.parametrize("place", ["running", "pending", None])
async def test_a_lost_answer_is_found_again(desk: Desk, place: str | None) -> None:
    desk.fake.stays = place
    desk.fake.will("cut")

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.comfyui.submit_video(video_request(), desk.call("wan"))
    job = await provider().submit_video(video_request(), desk.call("wan"))  # type: ignore[attr-defined]

    assert job.id == job_id("task:1")
    assert (desk.fake.accepted, posts(desk)) == (1, 1)


async def test_a_submit_that_did_not_arrive_is_sent_again(desk: Desk) -> None:
    desk.fake.will("error 502")

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.comfyui.submit_video(video_request(), desk.call("wan"))
    await desk.comfyui.submit_video(video_request(), desk.call("wan"))

    assert (desk.fake.accepted, posts(desk)) == (1, 2)


async def test_nothing_is_sent_while_nobody_can_tell_whether_it_arrived(desk: Desk) -> None:
    """The look into the queue fails: the resend must wait."""
    desk.fake.will("cut", "poll 500")

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.comfyui.submit_video(video_request(), desk.call("wan"))
    with pytest.raises(UpstreamError) as caught:
        await desk.comfyui.submit_video(video_request(), desk.call("wan"))

    assert type(caught.value) is UpstreamError
    assert posts(desk) == 1


async def test_a_server_that_ignores_our_id_is_given_up(desk: Desk) -> None:
    desk.fake.is_old, desk.fake.stays = True, "pending"

    with pytest.raises(UpstreamFailed, match="too old"):
        await desk.comfyui.submit_video(video_request(), desk.call("wan"))

    assert desk.fake.pending == []


async def test_an_image_is_waited_for(desk: Desk) -> None:
    desk.fake.will("pending", "running", "poll 500", "poll cut", "running")

    result = await desk.comfyui.generate_image(image_request(), desk.call(options={"image_wait_s": 20}))

    assert result.path.read_bytes() == png()
    assert desk.fake.accepted == 1


async def test_an_image_goes_on_where_the_first_call_gave_up(desk: Desk) -> None:
    desk.fake.stays = "running"

    with pytest.raises(UpstreamOutcomeUnknown, match="not done"):
        await desk.comfyui.generate_image(image_request(), desk.call(options={"image_wait_s": 0.01}))
    desk.fake.finish(job_id("task:1"))
    await desk.comfyui.generate_image(image_request(), desk.call())

    assert (desk.fake.accepted, posts(desk)) == (1, 1)


async def test_a_job_that_ends_badly_is_a_definite_failure(desk: Desk) -> None:
    for number, (behaviour, words) in enumerate(
        (("failed", "KSampler failed"), ("interrupted", "interrupted"), ("expired", "not known"))
    ):
        token = f"task:{number}"
        call = desk.call("wan", token=token)
        job = await desk.comfyui.submit_video(video_request(), call)
        desk.fake.will(behaviour)
        with pytest.raises(UpstreamFailed, match=words) as caught:
            await desk.comfyui.poll_video(job, call)
        assert SECRET not in f"{caught.value} {caught.value.public}"
        desk.fake.graphs.clear()


async def test_out_of_memory_is_busy_for_an_image_and_the_end_of_a_film(desk: Desk) -> None:
    """An image may be made elsewhere; a film that is being polled has no way back into the queue."""
    desk.fake.error = NO_MEMORY
    call = desk.call("wan")
    job = await desk.comfyui.submit_video(video_request(), call)
    desk.fake.will("failed")
    with pytest.raises(UpstreamFailed) as caught:
        await desk.comfyui.poll_video(job, call)
    assert caught.value.public == "The upstream ran out of memory."

    desk.fake.graphs.clear()
    desk.fake.will("failed")
    with pytest.raises(UpstreamBusy):
        await desk.comfyui.generate_image(image_request(), desk.call(token="task:2"))


def saved(name: str, kind: str = "output") -> dict[str, str]:
    return {"filename": name, "subfolder": "video" if name.endswith(".mp4") else "", "type": kind}


@pytest.mark.parametrize("key", ["images", "gifs", "videos"])
async def test_a_film_is_found_under_whatever_word(desk: Desk, key: str) -> None:
    call = desk.call("wan")
    desk.fake.outputs = {
        "1": {"images": [saved("preview.png", "temp")], "text": ["x"]},
        "2": {key: [saved("draft.mp4", "temp"), saved("a.mp4")]},
    }
    job = await desk.comfyui.submit_video(video_request(), call)

    await desk.comfyui.fetch_video(job, call)

    assert "filename=a.mp4&subfolder=video&type=output" in desk.fake.seen[-1].path


async def test_the_bound_output_alone_counts(desk: Desk) -> None:
    desk.fake.outputs = {"8": {"images": [saved("other.png")]}, "9": {"images": [saved("right.png")]}}

    await desk.comfyui.generate_image(image_request(), desk.call())

    assert "filename=right.png" in desk.fake.seen[-1].path


@pytest.mark.parametrize(
    "outputs", [{}, {"9": {"text": ["no file"]}}, {"9": {"images": [saved("a.txt")]}}, {"9": None}]
)
async def test_an_end_without_a_file_is_a_failure(desk: Desk, outputs: dict[str, Any]) -> None:
    desk.fake.outputs = outputs

    with pytest.raises(UpstreamFailed):
        await desk.comfyui.generate_image(image_request(), desk.call())


# --- cancel -----------------------------------------------------------------------------------------------------------


async def test_a_waiting_job_is_taken_out_of_the_queue(desk: Desk) -> None:
    desk.fake.stays = "pending"
    job = await desk.comfyui.submit_video(video_request(), desk.call("wan"))

    assert await desk.comfyui.cancel_video(job, desk.call("wan"))
    assert desk.fake.pending == []


async def test_a_running_job_is_interrupted_by_its_id(desk: Desk) -> None:
    desk.fake.stays = "running"
    job = await desk.comfyui.submit_video(video_request(), desk.call("wan"))

    assert await desk.comfyui.cancel_video(job, desk.call("wan"))
    assert desk.fake.running == []
    with pytest.raises(UpstreamFailed, match="interrupted"):
        await desk.comfyui.poll_video(job, desk.call("wan"))


async def test_a_finished_job_is_not_cancelled(desk: Desk) -> None:
    job = await desk.comfyui.submit_video(video_request(), desk.call("wan"))

    assert not await desk.comfyui.cancel_video(job, desk.call("wan"))
    assert await desk.comfyui.cancel_video(UpstreamJob("unheard-of"), desk.call("wan"))
