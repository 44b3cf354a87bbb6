"""A video, step by step: submit, poll, store, and every way it can end."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from app import db
from app.errors import InvalidParameter, TaskNotFound, TaskNotReady
from app.intake import Intake
from app.upstreams.health import MIN_CALLS
from app.upstreams.protocols import (
    Call,
    Progress,
    SubmitSafety,
    UpstreamBusy,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    VideoResult,
)
from app.wiring import Services
from tests.fakes import FakeProvider, write_png
from tests.workers.conftest import Caller, assert_books_balance, make_due, make_overdue

PRICE = 40  # 5 s at 480p of the default model


async def test_a_video_holds_its_price_and_is_charged_when_it_is_stored(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    fake.polls.extend([Progress(30), Progress(20)])

    view = await caller.video()
    assert (view.public_status, await caller.balance()) == ("queued", (1000 - PRICE, PRICE))
    view = await caller.step(view)
    assert (view.status, view.public_status) == ("running", "in_progress")
    view = await caller.step(view)
    assert view.progress == 30
    view = await caller.step(view)
    assert view.progress == 30  # it never goes back
    view = await caller.step(view)

    assert (view.public_status, view.progress, view.charge) == ("completed", 100, PRICE)
    assert {file.role for file in view.files} == {"result", "thumbnail"}
    assert await caller.balance() == (1000 - PRICE, 0)
    await assert_books_balance(services)


async def test_fewer_seconds_than_asked_cost_only_what_was_delivered(caller: Caller, fake: FakeProvider) -> None:
    fake.seconds = 3

    view = await caller.to_the_end(await caller.video())

    assert view.charge == 3 * 8
    assert await caller.balance() == (1000 - 24, 0)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [(UpstreamModerated(), "content_policy_violation"), (UpstreamFailed("boom"), "upstream_error")],
)
async def test_a_video_that_fails_at_the_upstream_costs_nothing(
    caller: Caller, services: Services, fake: FakeProvider, raised: Exception, reason: str
) -> None:
    fake.polls.append(raised)

    view = await caller.to_the_end(await caller.video())

    assert (view.public_status, view.error_code) == ("failed", reason)
    assert await caller.attempts(view) == ["failed"]
    assert await caller.balance() == (1000, 0)
    await assert_books_balance(services)


async def test_errors_while_polling_mean_nothing_until_the_deadline(caller: Caller, fake: FakeProvider) -> None:
    fake.polls.extend([UpstreamError("503"), UpstreamBusy()])

    view = await caller.to_the_end(await caller.video())

    assert view.public_status == "completed"


async def test_a_video_past_its_deadline_fails_and_releases(caller: Caller, services: Services) -> None:
    view = await caller.step(await caller.video())
    await make_overdue(services, view.id)

    await services.advancer.advance(view.id)

    view = await caller.task(view.id)
    assert (view.status, view.error_code) == ("failed", "upstream_error")
    assert await caller.balance() == (1000, 0)


async def test_a_queued_video_nobody_took_in_time_fails_and_releases(caller: Caller, services: Services) -> None:
    view = await caller.video()
    await make_overdue(services, view.id)

    await services.advancer.advance(view.id)

    view = await caller.task(view.id)
    assert (view.status, view.error_code) == ("failed", "provider_unavailable")
    assert await caller.balance() == (1000, 0)


async def test_a_result_that_cannot_be_read_is_fetched_again_then_given_up_without_a_charge(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    fake.seconds = 0

    view = await caller.to_the_end(await caller.video())

    assert (view.status, view.error_code) == ("failed", "result_unavailable")
    assert await caller.balance() == (1000, 0)
    assert list(services.storage.walk()) == []


async def test_a_fetch_that_fails_once_is_repeated(caller: Caller, fake: FakeProvider) -> None:
    fake.fetches.append(UpstreamError("cut"))

    view = await caller.to_the_end(await caller.video())

    assert view.public_status == "completed"


@pytest.mark.parametrize("safety", [SubmitSafety.IDEMPOTENT, SubmitSafety.BLIND])
async def test_the_worker_that_submitted_died_before_it_wrote_the_handle(
    caller: Caller, services: Services, fake: FakeProvider, safety: SubmitSafety
) -> None:
    fake.submit = safety
    view = await caller.video()
    found = await services.advancer.claim(view.id)  # the worker dies here: attempt row written, nothing known
    assert found is not None
    fake.accepted[found[0].client_token] += 1  # the upstream got it

    view = await caller.to_the_end(await caller.task(view.id))

    if safety is SubmitSafety.IDEMPOTENT:
        assert (view.public_status, fake.accepted[found[0].client_token]) == ("completed", 2)
    else:
        assert (view.public_status, fake.accepted[found[0].client_token]) == ("failed", 1)
        assert await caller.attempts(view) == ["lost"]
        assert await caller.balance() == (1000, 0)
    await assert_books_balance(services)


async def test_an_outcome_that_stays_unknown_is_given_up(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    fake.submits.extend(UpstreamOutcomeUnknown("cut") for _ in range(20))

    view = await caller.video()
    for _ in range(8):
        view = await caller.step(view)
        assert view.status == "uncertain"
    await make_overdue(services, view.id)
    await services.advancer.advance(view.id)
    view = await caller.task(view.id)

    assert (view.public_status, view.error_code) == ("failed", "upstream_error")
    assert len(fake.accepted) == 1
    assert await caller.balance() == (1000, 0)


@pytest.mark.parametrize(("tried_s", "wait_s"), [(0.1, 0.5), (12, 12), (200, 30)])
async def test_a_submit_is_sent_again_after_as_long_as_it_was_tried_already(
    caller: Caller, services: Services, fake: FakeProvider, tried_s: float, wait_s: float
) -> None:
    fake.submits.extend([UpstreamOutcomeUnknown("cut"), UpstreamOutcomeUnknown("502")])
    view = await caller.step(await caller.video())
    assert await _due_in(services, view.id) == pytest.approx(0.5, abs=0.5)
    sent = "UPDATE task_attempts SET sent_at = now() - $2 * interval '1 second' WHERE task_id = $1"
    await db.once(services.engine, sent, (view.id, tried_s))

    view = await caller.step(view)

    assert await _due_in(services, view.id) == pytest.approx(wait_s, abs=0.5)


async def test_a_provider_that_always_breaks_while_it_submits_is_poison(caller: Caller, fake: FakeProvider) -> None:
    fake.submits.extend(RuntimeError("a bug") for _ in range(20))

    view = await caller.to_the_end(await caller.video(), steps=6)

    assert (view.public_status, view.error_code) == ("failed", "upstream_error")
    assert await caller.balance() == (1000, 0)


async def _due_in(services: Services, task_id: UUID) -> float:
    sql = "SELECT extract(epoch FROM wake_at - clock_timestamp())::float8 AS due_s FROM tasks WHERE id = $1"
    [row] = await db.once(services.engine, sql, (task_id,))
    return float(row["due_s"])


async def test_failed_polls_say_nothing_about_submits(caller: Caller, services: Services, fake: FakeProvider) -> None:
    fake.polls.extend(UpstreamError("503") for _ in range(MIN_CALLS + 1))
    view = await caller.step(await caller.video())

    while fake.polls:
        view = await caller.step(view)

    assert await services.health.blocked([view.pool]) == {}


@pytest.mark.parametrize("is_good", [True, False])
async def test_a_bad_thumbnail_or_gif_of_the_upstream_costs_no_video(
    caller: Caller, fake: FakeProvider, is_good: bool
) -> None:
    fetch = fake.fetch_video

    async def with_extras(job: UpstreamJob, call: Call) -> VideoResult:
        found = await fetch(job, call)
        thumbnail, gif = write_png(call.out_dir / "thumbnail", 20, 10), call.out_dir / "gif"
        gif.write_bytes(b"GIF89a..." if is_good else b"<html>not found</html>")
        if not is_good:
            thumbnail.write_bytes(thumbnail.read_bytes()[:-20])
        return replace(found, thumbnail=thumbnail, gif=gif)

    fake.fetch_video = with_extras  # type: ignore[method-assign]
    view = await caller.to_the_end(await caller.video())

    assert view.public_status == "completed"
    assert {file.role for file in view.files} == {"result", "thumbnail"} | ({"gif"} if is_good else set())
    [thumbnail] = view.files_of("thumbnail")
    assert (thumbnail.mime, thumbnail.width) == (("image/png", 20) if is_good else ("image/webp", 64))


async def test_a_step_that_always_breaks_is_poison_and_ends(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    view = await caller.step(await caller.video())
    fake.polls.extend(RuntimeError("a bug") for _ in range(20))

    view = await caller.to_the_end(view)

    assert (view.public_status, view.error_code) == ("failed", "internal_error")
    assert await caller.balance() == (1000, 0)


async def test_cancelling_a_queued_video_is_free_and_final(caller: Caller, services: Services) -> None:
    view = await caller.video()

    cancelled = await services.tasks.cancel(caller.principal, view.public_id)
    again = await services.tasks.cancel(caller.principal, view.public_id)

    assert cancelled.public_status == again.public_status == "cancelled"
    assert await caller.balance() == (1000, 0)
    await services.advancer.advance(view.id)
    assert (await caller.task(view.id)).status == "cancelled"


@pytest.mark.parametrize("stops", [True, False])
async def test_cancelling_a_running_video_is_best_effort(
    caller: Caller, services: Services, fake: FakeProvider, stops: bool
) -> None:
    fake.stops = stops
    fake.polls.append(Progress(10))
    view = await caller.step(await caller.video())

    asked = await services.tasks.cancel(caller.principal, view.public_id)
    assert asked.public_status == "in_progress"
    view = await caller.to_the_end(asked)

    assert fake.cancels >= 1
    assert view.public_status == ("cancelled" if stops else "completed")
    assert await caller.balance() == ((1000, 0) if stops else (1000 - PRICE, 0))


async def test_deleting_a_running_video_cancels_it_and_hides_it(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    fake.stops = False
    view = await caller.step(await caller.video())

    await services.tasks.delete(caller.principal, view.public_id)
    view = await caller.to_the_end(view)
    await services.retention.run_once()

    with pytest.raises(TaskNotFound):
        await services.tasks.get(caller.principal, view.public_id)
    assert list(services.storage.walk()) == []
    assert view.charge == PRICE  # the upstream had made it: the ledger keeps its row
    await assert_books_balance(services)


async def test_a_remix_goes_to_the_account_that_made_its_source_and_knows_its_handle(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    source = await caller.to_the_end(await caller.video(model="veo3.1-fast", resolution="720p"))
    remix = await services.videos.remix(caller.principal, source.public_id, Intake({"prompt": "on"}, caller.spool))

    view = await caller.to_the_end(remix)

    request = fake.requests[-1]
    assert (view.public_status, view.charge, view.pool) == ("completed", 73, source.pool)
    assert request.source_upstream_id == source.upstream_id
    assert [file.mime for file in request.videos] == ["video/mp4"]


async def test_a_remix_needs_a_finished_video_of_the_same_model_and_account(caller: Caller, services: Services) -> None:
    source = await caller.video(model="veo3.1-fast", resolution="720p")
    prompt = {"prompt": "on"}

    with pytest.raises(TaskNotReady):
        await services.videos.remix(caller.principal, source.public_id, Intake(prompt, caller.spool))
    await caller.to_the_end(source)
    with pytest.raises(InvalidParameter, match=r"veo3\.1-fast"):
        await services.videos.remix(
            caller.principal, source.public_id, Intake(prompt | {"model": "veo3.1-lite"}, caller.spool)
        )
    with pytest.raises(TaskNotFound):
        await services.videos.remix(caller.principal, "task_unknown", Intake(prompt, caller.spool))


async def test_the_next_in_line_is_woken_when_a_place_becomes_free(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    views = [await caller.video() for _ in range(9)]  # the upstream takes 8 at once
    fake.polls.extend(Progress(1) for _ in range(8))

    for view in views:
        await services.advancer.advance(view.id)
    states = [(await caller.task(view.id)).status for view in views]
    assert sorted(states) == ["queued"] + ["running"] * 8

    await make_due(services, views[0].id)
    fake.polls.clear()
    await services.advancer.advance(views[0].id)
    assert await services.lifecycle.next_queued(views[0].pool) == views[states.index("queued")].id
    await services.advancer.advance(views[states.index("queued")].id)
    assert (await caller.task(views[states.index("queued")].id)).status == "running"


async def test_a_cancel_that_comes_while_the_upstream_refuses_is_not_forgotten(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    view = await caller.video()

    async def cancelled() -> None:
        await services.tasks.cancel(caller.principal, view.public_id)
        raise UpstreamBusy(retry_after_s=0.05)

    fake.submits.append(cancelled)
    view = await caller.step(view)

    assert view.public_status == "cancelled"
    assert await caller.balance() == (1000, 0)
    assert sum(fake.accepted.values()) == 1


async def test_a_queued_task_whose_cancel_was_cut_off_is_never_sent(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    view = await caller.video()
    await services.lifecycle.request_cancel(view.id)

    view = await caller.step(view)

    assert view.public_status == "cancelled"
    assert fake.accepted == {}
