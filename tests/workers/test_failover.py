"""Several accounts behind one model: fail-over, breakers, lists, rotation and deletion while tasks run."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from uuid import UUID

import pytest
from pydantic import SecretStr

from app import db
from app.errors import ProviderUnavailable, UpstreamErrorPublic
from app.intake import Intake
from app.journal import Actor
from app.requests import ImageRequest, VideoRequest
from app.settings import Settings
from app.upstreams.health import MIN_CALLS
from app.upstreams.protocols import (
    Call,
    Cost,
    Finished,
    ImageResult,
    PartialSink,
    Progress,
    SubmitSafety,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
)
from app.wiring import Services, first_look, open_services
from tests.fakes import FakeProvider, Step, _take
from tests.workers.conftest import Caller, assert_books_balance, make_due, make_overdue

WHO = Actor("test")
MODEL = "gpt-image-2"
VIDEO_MODEL = "doubao-seedance-2.0-fast"


class Fleet(FakeProvider):
    """One provider behind several accounts, each told apart by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.behaviour: dict[str, deque[Step]] = defaultdict(deque)
        self.went_to: list[tuple[str, str]] = []
        """(account, secret) of every submit."""
        self.polled_with: dict[str, set[str]] = defaultdict(set)
        """job -> secrets it was asked about with."""
        self.listed: dict[str, UpstreamJob] = {}
        self.hangs: set[str] = set()
        self.finished = asyncio.Event()

    async def generate_image(
        self, request: ImageRequest, call: Call, on_partial: PartialSink | None = None
    ) -> ImageResult:
        self.went_to.append((call.upstream.name, _secret(call)))
        await _take(self.behaviour[call.upstream.name])
        return await super().generate_image(request, call, on_partial)

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        self.went_to.append((call.upstream.name, _secret(call)))
        job = UpstreamJob(f"{call.upstream.name}-{call.client_token}")
        self.listed[call.client_token] = job
        await _take(self.behaviour[call.upstream.name])
        self.accepted[call.client_token] += 1
        return job

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        self.polled_with[job.id].add(_secret(call))
        if call.upstream.name in self.hangs:
            await asyncio.Event().wait()
        return Finished() if self.finished.is_set() else Progress(10)

    async def find_submitted(self, request: VideoRequest, call: Call, sent_at: datetime) -> UpstreamJob | None:
        return self.listed.get(call.client_token)


def _secret(call: Call) -> str:
    return call.upstream.secret.get_secret_value() if call.upstream.secret else ""


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
async def services(settings: Settings, fleet: Fleet) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings, providers={"fake": fleet}))
        await first_look(services)
        services.start_listening()
        yield services


@pytest.fixture
async def second(services: Services, settings: Settings) -> str:
    """A second account, for when the first one cannot; named so that pools of other tests are not meant."""
    name = f"second-{settings.data.parent.name.replace('_', '-')}"
    await services.book.upstreams.add(name, provider="fake", actor=WHO, secret=SecretStr("sk-second"), concurrency=500)
    for model in (MODEL, VIDEO_MODEL):
        await services.book.routes.add(model, name, "theirs", actor=WHO, priority=9)
    await services.book.refresh(services.registry)
    return name


async def all_settled(services: Services, ids: list[UUID]) -> None:
    async with asyncio.timeout(60):
        looks = await services.queries.looks(ids)
        while not all(look.is_final for look in looks.values()):
            await asyncio.sleep(0.05)
            looks = await services.queries.looks(ids)


def first_of(services: Services) -> str:
    return services.registry.routes_of(MODEL)[0].upstream


@pytest.mark.parametrize("refusal", [UpstreamBusy(http_status=429), UpstreamBusy(), UpstreamDenied("401")])
async def test_what_one_account_certainly_did_not_accept_goes_to_the_next_at_once(
    caller: Caller, services: Services, fleet: Fleet, second: str, refusal: Exception
) -> None:
    fleet.behaviour[first_of(services)].append(refusal)

    view = await caller.image()

    assert [name for name, _ in fleet.went_to] == [first_of(services), second]
    assert await caller.attempts(view) == ["refused", "done"]
    assert await caller.balance() == (999, 0)


@pytest.mark.parametrize("raised", [UpstreamModerated(), UpstreamFailed("boom")])
async def test_a_refusal_of_the_content_goes_nowhere_else(
    caller: Caller, services: Services, fleet: Fleet, second: str, raised: Exception
) -> None:
    fleet.behaviour[first_of(services)].append(raised)

    with pytest.raises(Exception, match="No credits were charged"):
        await caller.image()

    assert len(fleet.went_to) == 1
    assert await services.health.blocked([f"{first_of(services)}/{MODEL}"]) == {}


async def test_an_unknown_outcome_never_moves_to_another_account(
    caller: Caller, services: Services, fleet: Fleet, second: str
) -> None:
    fleet.submit = SubmitSafety.BLIND
    fleet.behaviour[first_of(services)].append(UpstreamOutcomeUnknown("cut"))

    with pytest.raises(UpstreamErrorPublic):
        await caller.image()

    assert [name for name, _ in fleet.went_to] == [first_of(services)]


async def test_a_broken_account_is_left_alone_and_without_another_one_nothing_is_held(
    caller: Caller, services: Services, fleet: Fleet
) -> None:
    pool = services.registry.routes_of(MODEL)[0].pool
    for _ in range(MIN_CALLS):
        await services.health.note(pool, is_ok=False)

    with pytest.raises(ProviderUnavailable) as caught:
        await caller.image()

    assert caught.value.retry_after_s is not None
    assert fleet.went_to == []
    assert await caller.balance() == (1000, 0)


async def test_queued_work_leaves_an_account_that_pauses(
    caller: Caller, services: Services, fleet: Fleet, second: str
) -> None:
    view = await caller.video()
    await services.health.pause(view.pool, 60)

    view = await caller.step(view)

    assert (view.status, view.pool.split("/")[0]) == ("running", second)


async def test_a_lost_answer_is_found_in_the_upstreams_list_and_sent_once(
    caller: Caller, services: Services, fleet: Fleet
) -> None:
    fleet.submit = SubmitSafety.LISTABLE
    fleet.finished.set()
    fleet.behaviour[first_of(services)].append(UpstreamOutcomeUnknown("cut"))

    view = await caller.to_the_end(await caller.video())

    assert view.public_status == "completed"
    assert len(fleet.went_to) == 1


async def test_what_the_list_does_not_show_after_two_minutes_was_never_made_and_is_sent_again(
    caller: Caller, services: Services, fleet: Fleet
) -> None:
    fleet.submit = SubmitSafety.LISTABLE
    fleet.finished.set()
    fleet.behaviour[first_of(services)].append(UpstreamOutcomeUnknown("cut"))
    view = await caller.step(await caller.video())
    fleet.listed.clear()

    view = await caller.step(view)
    assert (view.status, len(fleet.went_to)) == ("uncertain", 1)
    await db.once(
        services.engine,
        "UPDATE task_attempts SET sent_at = now() - interval '3 minutes' WHERE task_id = $1",
        (view.id,),
    )
    view = await caller.to_the_end(view)

    assert view.public_status == "completed"
    assert await caller.attempts(view) == ["refused", "done"]


async def test_a_job_that_another_task_has_is_not_taken_twice(caller: Caller, services: Services, fleet: Fleet) -> None:
    fleet.submit = SubmitSafety.LISTABLE
    first = await caller.step(await caller.video())
    fleet.behaviour[first_of(services)].append(UpstreamOutcomeUnknown("cut"))
    other = await caller.step(await caller.video())
    [token] = [token for token in fleet.listed if token.startswith(str(other.id))]
    fleet.listed[token] = UpstreamJob(first.upstream_id or "")

    other = await caller.step(other)

    assert (other.status, other.upstream_id) == ("uncertain", None)


async def test_what_an_attempt_cost_us_is_kept_even_when_it_failed(
    caller: Caller, services: Services, fleet: Fleet
) -> None:
    fleet.behaviour[first_of(services)].append(UpstreamFailed("boom", cost=Cost(40_000)))

    with pytest.raises(UpstreamErrorPublic) as caught:
        await caller.image()

    view = await services.tasks.get(caller.principal, caught.value.task_id or "")
    [attempt] = await services.queries.attempts(view.id)
    assert (attempt["upstream_cost"], attempt["cost_currency"]) == (40_000, "USD")


async def test_rotating_and_deleting_an_account_with_two_hundred_running_tasks_loses_none(
    caller: Caller, services: Services, fleet: Fleet, second: str
) -> None:
    await services.accounts.set_limits(caller.account_id, max_in_flight=300)
    await services.ledger.top_up(caller.account_id, 20_000, ref=f"more:{caller.account_id}", actor="test")  # type: ignore[arg-type]
    await services.book.upstreams.set_state(first_of(services), "disabled", actor=WHO)
    await services.book.refresh(services.registry)
    views = [await caller.video() for _ in range(200)]
    for view in views[:120]:
        await services.advancer.advance(view.id)

    await services.book.upstreams.rotate(second, SecretStr("sk-rotated"), actor=WHO)
    await services.book.refresh(services.registry)
    for view in views[120:]:
        await services.advancer.advance(view.id)
    await services.book.upstreams.delete(second, actor=WHO)
    await services.book.refresh(services.registry)
    with pytest.raises(ProviderUnavailable):
        await caller.video()
    fleet.finished.set()
    services.start(services.poller.run)
    for view in views:
        await make_due(services, view.id)
    await all_settled(services, [view.id for view in views])

    ends = Counter([(await caller.task(view.id)).status for view in views])
    assert ends == {"succeeded": 200}
    assert Counter(secret for _, secret in fleet.went_to) == {"sk-second": 120, "sk-rotated": 80}
    assert all(len(secrets) == 1 for secrets in fleet.polled_with.values())  # never asked about with another key
    assert set(fleet.accepted.values()) == {1}
    await assert_books_balance(services)


async def test_an_account_that_hangs_keeps_no_other_from_being_asked(
    caller: Caller, services: Services, fleet: Fleet, second: str
) -> None:
    await services.accounts.set_limits(caller.account_id, max_in_flight=500)
    await services.ledger.top_up(caller.account_id, 20_000, ref=f"more:{caller.account_id}", actor="test")  # type: ignore[arg-type]
    hanging, healthy = first_of(services), second
    await services.book.upstreams.update(hanging, actor=WHO, concurrency=500)
    await services.book.refresh(services.registry)
    fleet.hangs.add(hanging)
    stuck = [await caller.video() for _ in range(250)]
    for view in stuck:
        await services.advancer.advance(view.id)
    await services.health.pause(stuck[0].pool, 600)
    quick = [await caller.video() for _ in range(20)]
    for view in quick:
        await services.advancer.advance(view.id)
    assert Counter(name for name, _ in fleet.went_to) == {hanging: 250, healthy: 20}

    services.start(services.poller.run)
    fleet.finished.set()
    await all_settled(services, [view.id for view in quick])

    assert {(await caller.task(view.id)).status for view in quick} == {"succeeded"}
    assert {(await caller.task(view.id)).status for view in stuck} == {"running"}


async def test_a_remix_stays_with_the_account_that_made_its_source(
    caller: Caller, services: Services, fleet: Fleet, second: str
) -> None:
    fleet.finished.set()
    source = await caller.to_the_end(await caller.video(model="veo3.1-fast", resolution="720p"))
    await services.book.routes.add("veo3.1-fast", second, "theirs", actor=WHO, priority=0)
    await services.book.refresh(services.registry)
    view = await services.videos.remix(caller.principal, source.public_id, Intake({"prompt": "on"}, caller.spool))
    await services.health.pause(view.pool, 60)

    view = await caller.step(view)

    assert (view.status, view.pool) == ("queued", source.pool)


async def test_a_late_success_is_recorded_for_the_operator_and_charged_to_nobody(
    caller: Caller, services: Services, fleet: Fleet
) -> None:
    view = await caller.step(await caller.video())
    await make_overdue(services, view.id)
    view = await caller.step(view)
    assert (view.status, view.error_code) == ("failed", "upstream_error")

    assert await services.poller.look_at_given_up() == 0
    fleet.finished.set()
    assert await services.poller.look_at_given_up() == 1
    assert await services.poller.look_at_given_up() == 0

    [attempt] = await services.queries.attempts(view.id)
    assert attempt["late_at"] is not None
    assert await caller.balance() == (1000, 0)
