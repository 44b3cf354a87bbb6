"""HappyHorse: lost answers, polls, results, cancellation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.requests import Operation
from app.upstreams.protocols import (
    Cost,
    Finished,
    Progress,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)
from app.values import utcnow
from tests.providers.dashscope_calls import Desk, film, open_desk
from tests.providers.fakes.ark import VIDEO
from tests.providers.fakes.dashscope import MODEL


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as opened:
        yield opened


# --- outcomes nobody saw ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["cut", "garbage", "no_id"])
async def test_a_submit_whose_answer_was_lost_is_found_by_its_prompt(desk: Desk, word: str) -> None:
    sent_at = utcnow()
    await desk.submit(film(prompt="another"))
    desk.fake.will(word)

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.submit(film())
    found = await desk.provider.find_submitted(film(), desk.call(), sent_at)

    assert found is not None
    assert found.id == list(desk.fake.tasks)[1]
    assert len(desk.fake.bodies) == 2


async def test_only_the_right_model_and_time_count(desk: Desk) -> None:
    desk.fake.page_limit = 2
    text = f"{MODEL}-t2v"
    for age_s in (400, 300, 200):
        desk.fake.add(model=text, prompt="make it snow", age_s=age_s)
    for _ in range(3):
        desk.fake.add(model=f"{MODEL}-r2v", prompt="make it snow")
        desk.fake.add(model=text, prompt="make it rain")

    assert await desk.provider.find_submitted(film(), desk.call(), utcnow()) is None

    ours = desk.fake.add(model=text, prompt="make it snow ", age_s=60)
    assert await desk.provider.find_submitted(film(), desk.call(), utcnow()) == UpstreamJob(ours.id)


async def test_an_empty_list_means_that_it_never_arrived(desk: Desk) -> None:
    assert await desk.provider.find_submitted(film(), desk.call(), utcnow() - timedelta(seconds=1)) is None


async def test_a_task_that_does_not_tell_its_prompt_yet_leaves_it_open(desk: Desk) -> None:
    sent_at = utcnow()
    job = await desk.submit(film())
    desk.fake.will("running")

    with pytest.raises(UpstreamError, match="does not tell"):
        await desk.provider.find_submitted(film(), desk.call(), sent_at)
    assert await desk.provider.find_submitted(film(), desk.call(), sent_at) == job


async def test_two_that_fit_are_not_told_apart(desk: Desk) -> None:
    for _ in range(2):
        await desk.submit(film())

    with pytest.raises(UpstreamError, match="2 of 2"):
        await desk.provider.find_submitted(film(), desk.call(), utcnow())


async def test_a_frame_without_a_prompt_could_be_anybodys(desk: Desk) -> None:
    request = film(prompt="", first_frame=desk.file("first_frame_image"))
    await desk.submit(request)

    with pytest.raises(UpstreamError, match="does not tell"):
        await desk.provider.find_submitted(request, desk.call(), utcnow())


# --- poll, fetch, cancel ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("poll 500", UpstreamError),
        ("poll cut", UpstreamError),
        ("failed", UpstreamFailed),
        ("moderated_late", UpstreamModerated),
        ("expired", UpstreamFailed),
        ("no_result", UpstreamFailed),
    ],
)
async def test_each_bad_poll_is_of_its_class(desk: Desk, word: str, kind: type[UpstreamError]) -> None:
    job = await desk.submit(film())
    desk.fake.will(word)

    with pytest.raises(UpstreamError) as refused:
        await desk.poll(job)

    assert type(refused.value) is kind


async def test_a_suspended_task_goes_on(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.tasks[job.id].status = "SUSPENDED"

    assert await desk.poll(job) == Finished()  # the fake's next look


async def test_a_cancelled_task_has_failed(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.tasks[job.id].status = "CANCELED"

    with pytest.raises(UpstreamFailed, match="cancelled"):
        await desk.poll(job)


async def test_a_file_that_could_not_be_read_is_no_moderation(desk: Desk) -> None:
    job = await desk.submit(film())
    task = desk.fake.tasks[job.id]
    task.status, task.error = "FAILED", ("InvalidParameter.DataInspection", "Unable to download the media resource.")

    with pytest.raises(UpstreamRejected) as refused:
        await desk.poll(job)
    with pytest.raises(UpstreamRejected):
        await desk.provider.fetch_video(job, desk.call())

    assert type(refused.value) is UpstreamRejected


async def test_an_unknown_word_changes_nothing_and_is_logged_once(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.will("unknown_word", "unknown_word")

    with capture_logs() as logs:
        assert [await desk.poll(job), await desk.poll(job)] == [Progress(), Progress()]

    assert [line["status"] for line in logs if line["event"] == "upstream.unknown_status"] == ["GALLOPING"]


async def test_a_result_that_is_refused_can_be_asked_for_again(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.will("result 403")

    with pytest.raises(UpstreamError) as refused:
        await desk.provider.fetch_video(job, desk.call())

    assert type(refused.value) is UpstreamError
    assert "http" not in str(refused.value)


async def test_a_result_that_is_gone_is_a_failure(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.will("expired")

    with pytest.raises(UpstreamFailed):
        await desk.provider.fetch_video(job, desk.call())


@pytest.mark.parametrize(
    ("prices", "is_edit", "cost"),
    [
        ({"second": {MODEL: {"720p": 0.9, "1080p": 1.6}}}, False, Cost(4_500_000, "CNY")),
        ({"currency": "USD", "second": {MODEL: {"720p": 0.154}}}, True, Cost(1_540_000, "USD")),
        ({"second": {MODEL: 1}}, False, Cost(5_000_000, "CNY")),
        ({"second": {MODEL: {"1080p": 1.6}}}, False, None),
        ({"second": {"another": 1}}, False, None),
        ({}, False, None),
    ],
)
async def test_seconds_are_priced_by_the_accounts_list(
    desk: Desk, prices: dict[str, Any], is_edit: bool, cost: Cost | None
) -> None:
    source = (desk.file("video_url", "video/mp4", VIDEO),)
    job = await desk.submit(film(operation=Operation.VIDEO_EDIT, videos=source) if is_edit else film())

    result = await desk.provider.fetch_video(job, desk.call(prices=prices))

    assert result.cost == cost


async def test_only_a_waiting_task_is_cancelled(desk: Desk) -> None:
    waiting, running = await desk.submit(film()), await desk.submit(film())
    desk.fake.tasks[running.id].status = "RUNNING"

    stopped = [await desk.provider.cancel_video(job, desk.call()) for job in (waiting, running, waiting)]

    assert stopped == [True, False, True]
    assert desk.fake.tasks[waiting.id].status == "CANCELED"


@pytest.mark.parametrize("document", [{}, [], {"output": {}}, {"data": 3}, {"data": [3]}])
async def test_an_answer_of_another_form_is_asked_for_again(desk: Desk, document: Any) -> None:
    desk.fake.instead = document

    with pytest.raises(UpstreamError) as polled:
        await desk.poll(UpstreamJob("0385dc79-1"))
    with pytest.raises(UpstreamError) as listed:
        await desk.provider.find_submitted(film(), desk.call(), utcnow())

    assert type(polled.value) is type(listed.value) is UpstreamError
