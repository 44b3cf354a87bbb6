"""The outbox: the settlement itself writes the event, for whoever wants it, once; a rollback takes it back."""

from __future__ import annotations

import json

import pytest

from app import db
from app.credits.ledger import Ledger
from app.values import new_id
from tests.factories import accept_task, finish_task, request_of


async def kinds(hooks, caller):
    return [row["type"] for row in await hooks.rows(caller)]


@pytest.mark.parametrize(
    ("operation", "status", "expected"),
    [
        ("image.generate", "succeeded", "image.completed"),
        ("image.generate", "failed", "image.failed"),
        ("image.generate", "cancelled", "image.failed"),
        ("video.generate", "failed", "video.failed"),
        ("video.generate", "cancelled", "video.failed"),
    ],
)
async def test_each_end_of_a_task_is_one_event(hooks, caller, operation, status, expected):
    every = [f"{kind}.{end}" for kind in ("image", "video") for end in ("completed", "failed")]
    await hooks.endpoint(caller, *every)

    if status == "succeeded":
        task_id = await finish_task(hooks.services.engine, caller.key)
    else:
        task_id = await accept_task(hooks.services.engine, caller.key, request=request_of(operation))
        await db.once(hooks.services.engine, "SELECT mg_settle($1, NULL, $2, 0, 'x')", (task_id, status))

    [row] = await hooks.rows(caller)
    assert (row["type"], row["task_id"], row["state"]) == (expected, task_id, "pending")


async def test_no_endpoint_and_no_url_means_no_event(hooks, caller, make_caller):
    await hooks.endpoint(await make_caller())
    await hooks.endpoint(caller, "video.completed")

    await finish_task(hooks.services.engine, caller.key)

    assert await hooks.rows(caller) == []
    events = "SELECT id FROM webhook_events WHERE account_id = $1"
    assert await db.once(hooks.services.engine, events, (caller.account.id,)) == []


async def test_each_endpoint_that_wants_it_gets_one_delivery_and_so_does_a_one_off_url(hooks, caller):
    for types in (("image.failed",), ("image.failed", "video.failed"), ("image.completed",)):
        await hooks.endpoint(caller, *types)
    url = hooks.receiver.url()

    await hooks.failed_task(caller, webhook_url=url)

    rows = await hooks.rows(caller)
    assert [row["type"] for row in rows] == ["image.failed"] * 3
    assert len({row["event_id"] for row in rows}) == 1
    assert [row["url"] for row in rows if row["endpoint_id"] is None] == [url]


@pytest.mark.parametrize("change", ["disabled", "deleted"])
async def test_an_endpoint_that_takes_no_more_gets_nothing_more(hooks, caller, change):
    endpoint, _, _ = await hooks.endpoint(caller)
    await hooks.failed_task(caller)

    if change == "deleted":
        await hooks.services.webhooks.delete(caller.account.id, endpoint)
    else:
        await hooks.services.webhooks.update(caller.account.id, endpoint, status="disabled")
    await hooks.failed_task(caller)

    [row] = await hooks.rows(caller)
    assert (row["state"], row["last_error"]) == ("failed", "endpoint_disabled")


async def test_a_settlement_that_is_rolled_back_leaves_no_event(hooks, caller):
    await hooks.endpoint(caller)
    task_id = await accept_task(hooks.services.engine, caller.key)

    async with hooks.services.engine.connect() as connection:
        await connection.exec_driver_sql("SELECT mg_settle($1, NULL, 'cancelled', 0)", (task_id,))
        inside = await connection.exec_driver_sql("SELECT 1 FROM webhook_events WHERE task_id = $1", (task_id,))
        assert inside.first() is not None
        await connection.rollback()

    assert await hooks.rows(caller) == []
    assert (await caller.balance()).held == 10


async def test_a_second_settlement_writes_no_second_event(hooks, caller):
    await hooks.endpoint(caller)
    task_id = await hooks.failed_task(caller)

    [row] = await db.once(hooks.services.engine, "SELECT mg_settle($1, NULL, 'failed', 0) AS ok", (task_id,))

    assert row["ok"] is False
    assert len(await hooks.rows(caller)) == 1


async def test_low_credits_are_told_once_for_each_crossing(hooks, caller):
    services, account = hooks.services, caller.account.id
    await hooks.endpoint(caller, "credits.low")
    assert (await services.webhooks.settings(account)).low_credits == services.settings.low_credits == 100

    await accept_task(services.engine, caller.key, hold=900)
    assert await kinds(hooks, caller) == []
    task_id = await accept_task(services.engine, caller.key, hold=1)
    await db.once(services.engine, "SELECT mg_settle($1, NULL, 'failed', 0)", (task_id,))
    await accept_task(services.engine, caller.key, hold=5)
    assert await kinds(hooks, caller) == ["credits.low"]

    await Ledger(services.engine).top_up(account, 1000, ref=f"again:{account}", actor="test")
    assert await kinds(hooks, caller) == ["credits.low"]
    await accept_task(services.engine, caller.key, hold=1050)

    rows = await db.once(
        services.engine, "SELECT data FROM webhook_events WHERE account_id = $1 ORDER BY id", (account,)
    )
    told = [json.loads(row["data"]) if isinstance(row["data"], str) else row["data"] for row in rows]
    assert told == [
        {"id": caller.account.public_id, "credits": 99, "threshold": 100},
        {"id": caller.account.public_id, "credits": 45, "threshold": 100},
    ]


async def test_a_threshold_above_the_balance_is_told_at_once_and_null_is_silence(hooks, caller):
    await hooks.endpoint(caller, "credits.low")

    await hooks.services.webhooks.set_low_credits(caller.account.id, 5000)
    assert await kinds(hooks, caller) == ["credits.low"]
    await hooks.services.webhooks.set_low_credits(caller.account.id, None)
    await accept_task(hooks.services.engine, caller.key, hold=999)

    assert await kinds(hooks, caller) == ["credits.low"]


async def test_ids_made_by_the_database_are_version_7_and_sort_by_time(hooks):
    rows = await db.once(hooks.services.engine, "SELECT mg_uuid7() AS id FROM generate_series(1, 50)")

    ids = [row["id"] for row in rows]
    assert len(set(ids)) == 50
    assert {(found.version, found.variant) for found in ids} == {(7, "specified in RFC 4122")}
    assert abs((ids[0].int >> 80) - (new_id().int >> 80)) < 60_000


async def test_old_events_are_pruned_with_their_deliveries_and_what_is_on_its_way_stays(hooks, caller):
    await hooks.endpoint(caller)
    old, pending, young = [await hooks.failed_task(caller) for _ in range(3)]
    engine = hooks.services.engine
    await db.once(
        engine,
        "UPDATE webhook_events SET created_at = now() - interval '31 days' WHERE task_id = ANY($1::uuid[])",
        ([old, pending],),
    )
    await db.once(
        engine,
        """UPDATE webhook_deliveries SET state = 'failed' WHERE event_id IN
           (SELECT id FROM webhook_events WHERE task_id = ANY($1::uuid[]))""",
        ([old, young],),
    )

    await hooks.services.webhook_log.prune()

    assert {row["task_id"] for row in await hooks.rows(caller)} == {pending, young}


async def test_credits_that_come_while_holds_keep_the_balance_low_arm_the_warning_for_when_they_are_released(
    hooks, caller
):
    services, account = hooks.services, caller.account.id
    await hooks.endpoint(caller, "credits.low")
    task_id = await accept_task(services.engine, caller.key, hold=990)
    await services.webhooks.set_low_credits(account, 500)
    await Ledger(services.engine).top_up(account, 100, ref=f"some:{account}", actor="test")
    small = await accept_task(services.engine, caller.key, hold=1)
    told_while_low = await kinds(hooks, caller)

    for one in (task_id, small):
        await db.once(services.engine, "SELECT mg_settle($1, NULL, 'failed', 0)", (one,))
    told_when_risen = await kinds(hooks, caller)
    again = await accept_task(services.engine, caller.key, hold=1000)
    await db.once(services.engine, "SELECT mg_settle($1, NULL, 'failed', 0)", (again,))
    await accept_task(services.engine, caller.key, hold=1000)

    assert told_while_low == told_when_risen
    assert len(await kinds(hooks, caller)) == len(told_when_risen) + 1
