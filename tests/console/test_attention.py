"""What the administrators' pages say when something is wrong: which, why, and where to go."""

from __future__ import annotations

from uuid import uuid4

import pytest

from app.db import once
from app.generation.attention import Attention, Concern
from app.generation.faults import Faults
from app.journal import SYSTEM
from app.upstreams.health import MIN_CALLS
from tests.console.pages import Tab, sign_in
from tests.factories import accept_task, make_key, request_of

DASHBOARD, UPSTREAMS, TASKS = "/console/admin", "/console/admin/upstreams", "/console/admin/tasks"
MODEL, OTHER = "gpt-image-2", "veo3.1-fast"
SECRET = "sk-live-0123456789abcdef0123456789abcdef"


@pytest.fixture
async def boss(client, services) -> Tab:
    return await sign_in(client, services, is_admin=True, credits=1000)


@pytest.fixture
async def sick(services):
    """A vendor's account that is the only one for a model; it is gone afterwards, so that the stand-in serves again."""
    book, name = services.book, f"sick-{uuid4().hex[:8]}"
    await book.upstreams.add(name, provider="demo", actor=SYSTEM)
    route = await book.routes.add(MODEL, name, "theirs", actor=SYSTEM)
    await book.refresh(services.registry)
    yield route
    await book.upstreams.delete(name, actor=SYSTEM)
    await book.refresh(services.registry)


async def break_down(services, pool: str) -> None:
    for _ in range(MIN_CALLS):
        await services.health.note(pool, is_ok=False)


async def fail(services, task, pool: str, error: str) -> None:
    """Send a task to a pool that answers with an error, and let it fail."""
    await once(
        services.engine, "UPDATE tasks SET status = 'submitting', attempt_no = 1, pool = $2 WHERE id = $1", (task, pool)
    )
    await once(
        services.engine,
        """INSERT INTO task_attempts
          (task_id, attempt_no, provider, client_token, state, error, http_status, resolved_at)
        VALUES ($1::uuid, 1, 'demo', $1::uuid || ':1', 'failed', $2, 502, now())""",
        (task, error),
    )
    await once(services.engine, "SELECT mg_settle($1, NULL, 'failed', 0, 'upstream_error')", (task,))


async def test_an_upstream_that_is_cut_off_is_told_with_its_cause_and_the_next_try(services, boss, sick):
    steps = (await boss.get(DASHBOARD)).text
    assert "Let it serve a model The upstream" not in steps
    key = await make_key(services.engine, boss.account)
    task = await accept_task(services.engine, key, model=MODEL, pool=sick.entry.pool)
    await fail(services, task, sick.entry.pool, f"UpstreamBusy: 502 from the vendor, Bearer {SECRET}")
    await break_down(services, sick.entry.pool)

    page = await boss.get(DASHBOARD)
    part = await boss.get(f"{DASHBOARD}/figures", headers={"hx-request": "true"})
    account = await boss.get(f"{UPSTREAMS}/{sick.entry.upstream}")

    for one in (page, part):
        told = one.root.one("section", id="concerns").text
        assert f"These models stand still: {MODEL}" in told
        assert f"{sick.entry.pool} is cut off after errors" in told
        assert "UpstreamBusy: 502 from the vendor" in told
        assert "The upstream failed" in one.text
    assert f"Let it serve a model The upstream does not work now: {sick.entry.upstream}" in page.text
    assert "No problem is known" not in page.text
    assert "What it said last" in account.text
    assert SECRET not in page.html + part.html + account.html


async def test_an_accounts_health_is_that_of_all_its_routes_whatever_the_filter_shows(services, boss, sick):
    await break_down(services, sick.entry.pool)

    everything, filtered = await boss.get(UPSTREAMS), await boss.get(f"{UPSTREAMS}?model={OTHER}")
    csv = (await boss.get(f"{UPSTREAMS}?model={MODEL}&format=csv")).response.text
    await services.book.upstreams.set_state(sick.entry.upstream, "draining", actor=SYSTEM)
    drained = await boss.get(UPSTREAMS)

    for page in (everything, filtered):
        assert any(
            sick.entry.upstream in row and "Paused by errors" in row and "next try in" in row for row in page.rows
        )
    assert not any(MODEL in row for row in filtered.rows)
    assert any("demo" in row and "stand-in" in row and "Not in use" in row for row in everything.rows)
    assert f"{sick.public_id},{MODEL},{sick.entry.upstream},theirs,0,1,True,open," in csv
    assert any(sick.entry.upstream in row and "Draining" in row and "Not in use" in row for row in drained.rows)


async def test_what_nobody_can_make_is_urgent_and_what_is_on_trial_is_not(services, sick):
    async def look() -> list[Concern]:
        concerns = await services.attention.look()
        return [one for one in concerns if MODEL in one.models]

    assert await look() == []
    await break_down(services, sick.entry.pool)
    assert [(one.kind, one.is_urgent) for one in await look()] == [("stopped", True), ("broken", True)]
    await services.redis.delete(f"mediagate:blocked:{sick.entry.pool}")
    services.health._asked.clear()
    [trial] = await look()
    assert (trial.kind, trial.is_urgent, trial.upstream) == ("trying", False, sick.entry.upstream)
    await services.health.note(sick.entry.pool, is_ok=True)
    assert await look() == []
    await services.health.pause(sick.entry.pool, 2.0)
    assert await look() == []
    await services.book.routes.update(sick.id, is_enabled=False, actor=SYSTEM)
    await services.book.upstreams.set_state("demo", "disabled", actor=SYSTEM)
    await services.book.refresh(services.registry)
    [unrouted] = await look()
    await services.book.upstreams.set_state("demo", "active", actor=SYSTEM)
    assert (unrouted.kind, unrouted.is_urgent, len(unrouted.models) > 1) == ("unrouted", True, True)


async def test_failures_and_work_that_nobody_takes_are_told(services, settings, boss):
    attention = Attention(
        services.catalogs.current,
        services.registry,
        services.health,
        services.statistics,
        Faults(services.engine, settings),
        idle_s=0.0,
    )
    key = await make_key(services.engine, boss.account)
    for _ in range(5):
        task = await accept_task(services.engine, key, pool="shaky/model-a")
        await fail(services, task, "shaky/model-a", "UpstreamFailed: no")
    waits = await accept_task(services.engine, key, pool="idle/model-a")

    found = {(one.kind, one.upstream or one.pool): one for one in await attention.look()}
    await once(services.engine, "SELECT mg_settle($1, NULL, 'cancelled', 0)", (waits,))

    assert found["failing", "shaky"].failed == found["failing", "shaky"].ended == 5
    assert found["idle", "idle/model-a"].seconds > 0


async def test_work_that_is_put_off_or_whose_vendor_asked_us_to_wait_is_no_fault_of_the_worker(
    services, settings, boss, sick
):
    attention = Attention(
        services.catalogs.current,
        services.registry,
        services.health,
        services.statistics,
        Faults(services.engine, settings),
    )
    key = await make_key(services.engine, boss.account)
    put_off = await accept_task(services.engine, key, pool="later/model-a")
    paused = await accept_task(services.engine, key, model=MODEL, pool=sick.entry.pool)
    left = await accept_task(services.engine, key, pool="left/model-a")
    old = "UPDATE tasks SET wake_at = now() + $2 * interval '1 second' WHERE id = $1"
    for task, seconds in ((put_off, 30.0), (paused, -90.0), (left, -90.0)):
        await once(services.engine, old, (task, seconds))
    await services.health.pause(sick.entry.pool, 5.0)

    idle = {one.pool for one in await attention.look() if one.kind == "idle"}
    for task in (put_off, paused, left):
        await once(services.engine, "SELECT mg_settle($1, NULL, 'cancelled', 0)", (task,))

    assert "left/model-a" in idle
    assert not {"later/model-a", sick.entry.pool} & idle


async def test_an_account_whose_vendor_wants_a_secret_and_has_none_is_told(services, boss):
    book, name = services.book, f"bare-{uuid4().hex[:8]}"
    await book.upstreams.add(name, provider="openai", actor=SYSTEM)
    await book.routes.add(MODEL, name, "gpt-image-2", actor=SYSTEM)
    await book.refresh(services.registry)

    page = await boss.get(DASHBOARD)
    await book.upstreams.delete(name, actor=SYSTEM)
    await book.refresh(services.registry)

    assert f"{name} has no secret" in page.root.one("section", id="concerns").text
    assert "No problem is known" not in page.text


async def test_a_task_is_found_by_the_request_that_made_it_and_by_why_it_failed(services, boss):
    key = await make_key(services.engine, boss.account)
    request = request_of(request_id="req_0123456789abcdef01234567")
    wanted = await accept_task(services.engine, key, pool="lost/model-a", request=request)
    other = await accept_task(services.engine, key, pool="lost/model-a")
    await fail(services, wanted, "lost/model-a", "UpstreamFailed: no")

    by_request = await boss.get(f"{TASKS}?q=req_0123456789abcdef01234567")
    by_reason = await boss.get(f"{TASKS}?state=failed&reason=upstream_error&upstream=lost")
    not_ended = await boss.get(f"{TASKS}?state=open&upstream=lost")

    assert [len(page.rows) for page in (by_request, by_reason, not_ended)] == [1, 1, 1]
    assert "Failed The upstream failed" in " ".join(by_request.rows[0].split())
    assert "Queued" in not_ended.rows[0]
    assert "req_0123456789abcdef01234567" in (await boss.get(f"{TASKS}?q=req_0123456789abcdef01234567&format=csv")).url
    assert other
