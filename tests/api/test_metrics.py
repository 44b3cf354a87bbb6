"""The metrics: who may read them, that they are true, and that no caller can make them grow."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request

from app import db
from app.api.metrics import Gauges, check_access
from app.credits.audit import Audit
from app.errors import MetricsClosed, WrongMetricsToken
from app.generation.watch import LOCK, Watch, read_figures
from app.settings import Settings
from tests.factories import accept_task, finish_task, make_account, make_key

TOKEN = "a metrics token that only tests use.."

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


async def read(client: AsyncClient) -> Samples:
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def labels(**values: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(values.items()))


# --- who may read ---------------------------------------------------------------------------------------------------


def request(peer: str | None = "127.0.0.1", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "client": (peer, 1) if peer else None})


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer x{TOKEN}", TOKEN]
)
def test_with_a_token_nothing_else_opens(authorization: str):
    settings = Settings(metrics_token=SecretStr(TOKEN))

    check_access(request("203.0.113.9", authorization=f"Bearer {TOKEN}"), settings)
    with pytest.raises(WrongMetricsToken):
        check_access(request(authorization=authorization), settings)


@pytest.mark.parametrize("peer", ["203.0.113.9", "10.0.0.1", None, "testclient"])
def test_without_a_token_only_this_machine_reads_in_development(peer: str | None):
    check_access(request("127.0.0.1"), Settings())
    check_access(request("::1"), Settings())
    with pytest.raises(MetricsClosed):
        check_access(request(peer), Settings())


@pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded", "x_real_ip"])
def test_a_proxy_on_this_machine_is_not_this_machine(header: str):
    with pytest.raises(MetricsClosed):
        check_access(request("127.0.0.1", **{header: "203.0.113.9"}), Settings())


def test_in_production_nobody_reads_without_a_token():
    with pytest.raises(MetricsClosed):
        check_access(request("127.0.0.1"), Settings(env="production"))


async def test_a_refusal_is_in_the_envelope(app: FastAPI):
    async with AsyncClient(
        transport=ASGITransport(app=app, client=("203.0.113.9", 1)), base_url="http://gateway.test"
    ) as far:
        answer = await far.get("/metrics")

    assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "metrics_closed")


# --- this process ---------------------------------------------------------------------------------------------------


async def test_requests_are_counted_by_their_route_and_not_by_their_path(client: AsyncClient, caller):
    route = labels(route="/v1/tasks/{task_id}", method="GET", status="404")
    before = (await read(client)).get("mediagate_requests_total", {}).get(route, 0)

    for _ in range(3):
        await client.get(f"/v1/tasks/task_{uuid4().hex}", headers=caller.headers)
        await client.request("BREW", f"/{uuid4().hex}")
    found = await read(client)

    assert found["mediagate_requests_total"][route] == before + 3
    assert found["mediagate_requests_total"][labels(route="other", method="other", status="404")] >= 3
    assert found["mediagate_request_seconds_count"][labels(route="/v1/tasks/{task_id}", method="GET")] >= before + 3
    assert found["mediagate_request_errors_total"][labels(reason="task_not_found")] >= 3
    assert not re.search(r"task_[0-9a-f]{32}", str(found))
    assert found["mediagate_requests_open"][()] == 1


async def test_a_repeated_request_is_counted_as_a_join(client: AsyncClient, caller):
    before = (await read(client))["mediagate_idempotent_joins_total"][()]

    for _ in range(2):
        made = await client.post(
            "/v1/videos/generations",
            json={"prompt": "a fox", "model": "veo3.1-fast"},
            headers=caller.headers | {"idempotency-key": caller.account.email},
        )
        assert made.status_code == 200, made.text

    assert (await read(client))["mediagate_idempotent_joins_total"][()] == before + 1


async def test_the_process_shows_itself(client: AsyncClient, app: FastAPI):
    found = await read(client)

    assert found["process_resident_memory_bytes"][()] > 0
    assert found["mediagate_redis_failures_total"][()] == app.state.services.queue.failures
    assert found["mediagate_database_up"][()] == 1
    assert "mediagate_event_loop_lag_seconds_count" in found


async def test_a_database_that_is_away_leaves_the_process_s_own_metrics(client: AsyncClient, app: FastAPI):
    kept = app.state.gauges
    app.state.gauges = Gauges(Settings(database_url="postgresql://nobody@127.0.0.1:1/nowhere"))
    try:
        found = await read(client)
    finally:
        app.state.gauges = kept

    assert found["mediagate_database_up"][()] == 0
    assert "mediagate_credits" not in found
    assert found["mediagate_requests_open"][()] == 1


# --- the gateway ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def engine(fresh_database: Callable[..., str]) -> AsyncIterator[AsyncEngine]:
    engine = db.make_engine(fresh_database(migrated=True), pool_size=4)
    yield engine
    await engine.dispose()


@pytest.fixture
def watch(engine: AsyncEngine) -> Watch:
    return Watch(engine, Audit(engine), audit_every_s=300)


async def test_what_ended_is_counted_once(engine: AsyncEngine, watch: Watch):
    key = await make_key(engine, await make_account(engine))
    await finish_task(engine, key, hold=30, charge=20)
    given_up = await finish_task(engine, key, hold=5)
    lost = await accept_task(engine, key, hold=9)
    await db.once(
        engine,
        "INSERT INTO task_attempts (task_id, attempt_no, provider, client_token) VALUES ($1, 1, 'test', 'lost:1')",
        (lost,),
    )
    await db.once(engine, "SELECT mg_fail($1, NULL, 'upstream_error', 'gone', NULL, 'cut')", (lost,))
    await db.once(engine, "UPDATE task_attempts SET late_at = now() WHERE task_id = $1", (given_up,))
    await accept_task(engine, key, hold=7)

    for _ in range(2):
        assert await watch.count(lag_s=0)
    found = await read_figures(engine)

    ended = {(row["status"], row["reason"]): (row["tasks"], row["credits"]) for row in found.ended}
    assert ended == {("succeeded", ""): (2, 25), ("failed", "upstream_error"): (1, 0)}
    attempts = {row["state"]: (row["attempts"], row["credits"]) for row in found.attempts}
    assert attempts == {"done": (2, 35), "lost": (1, 9)}
    assert [(row["pool"], row["status"], row["tasks"], row["credits"]) for row in found.open_tasks] == [
        ("test/model-a", "queued", 1, 7)
    ]
    assert (found.posted, found.held, [row["attempts"] for row in found.late]) == (975, 7, [1])
    assert [(row["kind"], row["credits"]) for row in found.entries] == [("topup", 1000)]
    assert found.queues[0]["oldest_s"] >= 0
    assert found.counted_age_s is not None


async def test_what_ended_a_moment_ago_waits_for_the_next_count(engine: AsyncEngine, watch: Watch):
    await finish_task(engine, await make_key(engine, await make_account(engine)))

    await watch.count()

    assert (await read_figures(engine)).ended == []


async def test_one_worker_counts_at_a_time(engine: AsyncEngine, watch: Watch):
    async with db.transaction(engine) as connection:
        await connection.exec_driver_sql("SELECT 1 FROM watch FOR UPDATE")

        assert not await watch.count()

    assert await watch.count()


async def test_after_a_long_absence_all_days_are_counted(engine: AsyncEngine, watch: Watch):
    await finish_task(engine, await make_key(engine, await make_account(engine)))
    await db.once(engine, "UPDATE watch SET counted_to = now() - interval '100 hours'")

    assert await watch.count(lag_s=0)

    found = await read_figures(engine)
    assert ([row["tasks"] for row in found.ended], found.counted_age_s < 60) == ([1], True)


async def test_a_count_may_take_longer_than_a_statement_of_the_hot_path(engine: AsyncEngine):
    url = engine.url.render_as_string(hide_password=False)
    hasty = db.make_engine(url, session={"statement_timeout": "0.1s"})
    watch = Watch(hasty, Audit(hasty), audit_every_s=300)
    async with db.transaction(engine) as connection:
        await connection.exec_driver_sql("LOCK TABLE task_counts")
        counting = asyncio.create_task(watch.count())
        await asyncio.wait([counting], timeout=0.1 + db.SILENCE_S + 0.2)
        assert not counting.done()

    assert await counting
    await hasty.dispose()


async def test_a_count_that_fails_does_not_stop_the_audit(engine: AsyncEngine):
    watch = Watch(engine, Audit(engine), audit_every_s=300, statement_s=0.1)
    async with db.transaction(engine) as connection:
        await connection.exec_driver_sql("LOCK TABLE task_counts")
        running = asyncio.create_task(watch.run())
        async with asyncio.timeout(20):
            while (await audited_at(engine)) is None:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)
        assert not running.done()
        running.cancel()


async def audited_at(engine: AsyncEngine) -> object:
    [row] = await db.once(engine, "SELECT audited_at FROM watch")
    return row["audited_at"]


async def test_an_overdue_step_shows_how_long_it_waits(engine: AsyncEngine):
    task = await accept_task(engine, await make_key(engine, await make_account(engine)))
    await db.once(
        engine,
        "UPDATE tasks SET status = 'submitting', lease_token = 1, wake_at = now() - interval '90 s' WHERE id = $1",
        (task,),
    )

    assert 90 <= (await read_figures(engine)).oldest_due_s < 120


async def test_the_imbalance_is_absent_then_0_then_what_the_audit_found(
    engine: AsyncEngine, watch: Watch, fresh_database: Callable[..., str]
):
    account = await make_account(engine)
    before = (await read_figures(engine)).imbalance
    clean = await watch.audit()
    healthy = (await read_figures(engine)).imbalance
    owner = db.make_engine(engine.url.render_as_string(hide_password=False), role=None, pooled=False)
    await db.once(owner, "UPDATE accounts SET posted = posted + 1 WHERE id = $1", (account.id,))
    await owner.dispose()

    too_early = await watch.audit()
    found = await watch.audit(now=True)
    figures = await read_figures(engine)

    assert (before, healthy, too_early) == (None, 0, None)
    assert clean is not None
    assert found is not None
    assert set(clean) == {f"I{number}" for number in range(1, 10)}
    assert (found["I1"], figures.imbalance) == (1, 1)
    assert figures.audit_age_s is not None
    assert figures.audit_age_s < 60


async def test_two_workers_never_audit_at_once(engine: AsyncEngine, watch: Watch):
    async with db.only_one(engine, LOCK) as is_ours:
        assert is_ours
        assert await watch.audit(now=True) is None

    assert await watch.audit(now=True) is not None


async def test_an_audit_can_be_switched_off(engine: AsyncEngine):
    assert await Watch(engine, Audit(engine), audit_every_s=0).audit() is None
