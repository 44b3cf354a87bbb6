"""Seedance: lost answers, polls, results, cancellation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from app.upstreams.protocols import (
    Cost,
    Progress,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)
from app.values import utcnow
from tests.providers.ark_calls import Desk, film, open_desk
from tests.providers.fakes.ark import FAST, MODEL


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as opened:
        yield opened


# --- outcomes nobody saw ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["cut", "garbage", "no_id"])
@pytest.mark.parametrize("seed", [None, 42])
async def test_a_submit_whose_answer_was_lost_is_found_by_its_tag(desk: Desk, word: str, seed: int | None) -> None:
    request, sent_at = film(params={"seed": seed}), utcnow()
    await desk.submit(request, token="before:1")
    desk.fake.will(word)

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.submit(request, token="lost:1")
    await desk.submit(request, token="after:1")
    found = await desk.provider.find_submitted(request, desk.call("lost:1"), sent_at)

    assert found is not None
    assert found.id == list(desk.fake.tasks)[1]
    assert len(desk.fake.bodies) == 3


async def test_what_never_arrived_is_not_found_on_any_page(desk: Desk) -> None:
    desk.fake.page_limit = 2
    for number in range(7):
        desk.fake.add(model=MODEL, seed=number)

    assert await desk.provider.find_submitted(film(), desk.call(), utcnow()) is None


async def test_a_lost_one_is_found_on_a_later_page(desk: Desk) -> None:
    desk.fake.page_limit = 2
    job = await desk.submit(film())
    for number in range(7):
        desk.fake.add(model=MODEL, seed=number)

    assert await desk.provider.find_submitted(film(), desk.call(), utcnow()) == job


async def test_an_empty_list_means_that_it_never_arrived(desk: Desk) -> None:
    assert await desk.provider.find_submitted(film(), desk.call(), utcnow()) is None


async def test_the_list_is_read_no_further_than_needed(desk: Desk) -> None:
    desk.fake.page_limit = 100
    now = utcnow()
    for number in range(3000):
        desk.fake.add(model=MODEL, seed=number + 100, created_at=int(now.timestamp()) - 30_000 + number)

    assert await desk.provider.find_submitted(film(), desk.call(), now) is None


async def test_a_list_that_repeats_no_seed_tells_nothing(desk: Desk) -> None:
    desk.fake.echo_seed = False
    sent_at = utcnow()
    await desk.submit(film(params={"seed": None}))
    call = desk.call()

    with pytest.raises(UpstreamError, match="does not tell"):
        await desk.provider.find_submitted(film(params={"seed": None}), call, sent_at)
    later = sent_at + timedelta(minutes=5)
    assert await desk.provider.find_submitted(film(params={"seed": None}), call, later) is None
    other = desk.call(model="doubao-seedance-9")
    assert await desk.provider.find_submitted(film(params={"seed": None}), other, sent_at) is None


async def test_two_that_fit_are_not_told_apart(desk: Desk) -> None:
    for _ in range(2):
        await desk.submit(film())

    with pytest.raises(UpstreamError, match="2 fit"):
        await desk.provider.find_submitted(film(), desk.call(), utcnow())


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


@pytest.mark.parametrize("status", ["cancelled", "expired"])
async def test_a_task_that_ended_otherwise_has_failed(desk: Desk, status: str) -> None:
    job = await desk.submit(film())
    desk.fake.tasks[job.id].status = status

    with pytest.raises(UpstreamFailed, match=status):
        await desk.poll(job)


async def test_a_failed_task_whose_input_was_bad_says_so(desk: Desk) -> None:
    job = await desk.submit(film())
    task = desk.fake.tasks[job.id]
    task.status, task.error = "failed", {"code": "InvalidParameter", "message": "The image is too dark."}

    with pytest.raises(UpstreamRejected, match="too dark"):
        await desk.poll(job)
    with pytest.raises(UpstreamRejected):
        await desk.provider.fetch_video(job, desk.call())


async def test_an_unknown_word_changes_nothing_and_is_logged_once(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.will("unknown_word", "unknown_word")

    with capture_logs() as logs:
        assert [await desk.poll(job), await desk.poll(job)] == [Progress(), Progress()]

    assert [line["status"] for line in logs if line["event"] == "upstream.unknown_status"] == ["contemplating"]


async def test_a_poll_with_a_key_that_was_withdrawn_asks_again(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.upstream = replace(desk.upstream, secret=SecretStr("another"))

    with pytest.raises(UpstreamDenied):
        await desk.poll(job)


async def test_a_result_that_is_refused_can_be_asked_for_again(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.will("result 403")

    with pytest.raises(UpstreamError) as refused:
        await desk.provider.fetch_video(job, desk.call())

    assert type(refused.value) is UpstreamError
    assert "http" not in str(refused.value)


async def test_a_result_that_is_gone_is_a_failure(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.will("no_result")

    with pytest.raises(UpstreamFailed):
        await desk.provider.fetch_video(job, desk.call())


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({"million_tokens": {MODEL: 46}}, Cost(129_600 * 46, "CNY")),
        ({"currency": "USD", "million_tokens": {MODEL: {"720p": 6.4, "1080p": 7}}}, Cost(829_440, "USD")),
        ({"million_tokens": {MODEL: {"480p": 46}}}, None),
        ({"million_tokens": {FAST: 37}}, None),
        ({}, None),
    ],
)
async def test_tokens_are_priced_by_the_accounts_list(desk: Desk, prices: dict[str, Any], cost: Cost | None) -> None:
    job = await desk.submit(film())

    result = await desk.provider.fetch_video(job, desk.call(prices=prices))

    assert result.cost == cost


@pytest.mark.parametrize(
    ("word", "stopped", "deletes"), [("pending", True, [{}]), ("running", False, []), ("no_result", False, [])]
)
async def test_only_a_waiting_task_is_cancelled(desk: Desk, word: str, stopped: bool, deletes: list[Any]) -> None:
    job = await desk.submit(film())
    desk.fake.will(word)

    assert await desk.provider.cancel_video(job, desk.call()) is stopped

    assert desk.fake.deletes == deletes
    assert job.id in desk.fake.tasks  # to delete a finished task would lose its result


async def test_a_cancelled_task_can_be_cancelled_again(desk: Desk) -> None:
    job = await desk.submit(film())
    desk.fake.tasks[job.id].status = "cancelled"

    assert await desk.provider.cancel_video(job, desk.call()) is True


@pytest.mark.parametrize(("status", "error"), [(400, None), (404, None), (503, UpstreamError), (429, UpstreamBusy)])
async def test_a_cancel_that_came_too_late_is_none(desk: Desk, status: int, error: type[UpstreamError] | None) -> None:
    job = await desk.submit(film())
    desk.fake.will("pending")
    desk.fake.refuse_delete = status

    if error is None:
        assert await desk.provider.cancel_video(job, desk.call()) is False
    else:
        with pytest.raises(error):
            await desk.provider.cancel_video(job, desk.call())


@pytest.mark.parametrize("document", [{}, [], {"status": None}, {"items": 3}, {"items": [3]}])
async def test_an_answer_of_another_form_is_asked_for_again(desk: Desk, document: Any) -> None:
    desk.fake.instead = document

    with pytest.raises(UpstreamError) as polled:
        await desk.poll(UpstreamJob("cgt-1"))
    with pytest.raises(UpstreamError) as listed:
        await desk.provider.find_submitted(film(), desk.call(), utcnow())

    assert type(polled.value) is type(listed.value) is UpstreamError
