"""Figures of the whole gateway: counted right, and without a gap in time. Settings: what is set, and from where."""

from __future__ import annotations

import pytest

from app.db import make_engine, once
from app.generation.statistics import Statistics
from app.settings import explain_settings, load_settings
from tests.administrator import Administrator
from tests.factories import accept_task, finish_task, make_account, make_key


@pytest.fixture
async def admin(client, services) -> Administrator:
    return await Administrator.make(client, services)


async def test_a_small_gateway_is_counted_right(fresh_database, settings):
    engine = make_engine(fresh_database(migrated=True), pool_size=2)
    settings.storage_dir.mkdir(parents=True, exist_ok=True)
    figures = Statistics(engine, settings)
    account = await make_account(engine, credits=1000)
    key = await make_key(engine, account)
    done = [await finish_task(engine, key, hold=10) for _ in range(3)]
    failed, cancelled, queued = [await accept_task(engine, key, hold=5, model="model-b") for _ in range(3)]
    await once(engine, "SELECT mg_settle($1, NULL, 'failed', 0, 'upstream_error')", (failed,))
    await once(engine, "SELECT mg_settle($1, NULL, 'cancelled', 0)", (cancelled,))
    await once(
        engine, "UPDATE task_attempts SET upstream_cost = 250000, cost_currency = 'USD' WHERE task_id = $1", (done[0],)
    )

    minutes, backlog, money = await figures.minutes(), await figures.backlog(), await figures.money(days=7)
    models = {row.group: row for row in await figures.outcomes("1h")}
    [upstream] = await figures.outcomes("30d", by="upstream")
    [top] = await figures.top_accounts("24h")
    storage = await figures.storage()
    await engine.dispose()

    assert (len(minutes), sum(m.succeeded for m in minutes), sum(m.failed for m in minutes)) == (60, 3, 1)
    assert (models["model-a"].ended, models["model-a"].success_rate) == (3, 1.0)
    assert (models["model-b"].failed, models["model-b"].cancelled, models["model-b"].success_rate) == (1, 1, 0.0)
    assert models["model-a"].p95_s is not None
    assert models["model-a"].p95_s >= models["model-a"].p50_s >= 0
    assert models["model-b"].p50_s is None
    assert (upstream.group, upstream.ended, upstream.success_rate) == ("test", 5, 0.75)
    assert [(pool.pool, pool.queued, pool.running, pool.held) for pool in backlog.pools] == [("test/model-b", 1, 0, 5)]
    assert backlog.queued == 1
    assert len(money.days) == 7
    today = money.days[-1]
    assert (today.sold, today.captured, today.refunded, dict(today.costs)) == (1000, 30, 0, {"USD": 250_000})
    assert (money.days[0].sold, money.posted, money.held) == (0, 970, 5)
    assert (top.account_id, top.tasks, top.credits) == (account.id, 3, 30)
    assert [(kind.role, kind.state, kind.files) for kind in storage.kinds] == [("result", "ready", 3)]
    assert (sum(day.files for day in storage.expiry), storage.ready_bytes > 0) == (3, True)
    assert storage.disk_total_bytes > storage.disk_free_bytes > 0
    assert queued


async def test_the_figures_are_read_over_http_and_as_a_spreadsheet(admin):
    whole = await admin.call("GET", "/statistics", params={"period": "7d"})
    money = await admin.call("GET", "/statistics/money", params={"days": 3})
    storage = await admin.call("GET", "/statistics/storage")
    sheet = await admin.client.get("/admin/v1/statistics/money", headers=admin.headers | {"accept": "text/csv"})

    assert (whole["period"], len(whole["minutes"]), len(money["data"])) == ("7d", 60, 3)
    assert (storage["result_ttl_s"], storage["keep_free_bytes"]) == (604800, 0)
    assert sheet.text.startswith("day,sold,granted,captured,refunded,expired,adjusted")
    assert (await admin.error("GET", "/statistics", params={"period": "1y"}))["param"] == "period"
    assert (await admin.error("GET", "/statistics/money", params={"days": 0}))["param"] == "days"


async def test_settings_are_told_without_a_secret(admin, settings):
    listed = {row["name"]: row for row in (await admin.call("GET", "/settings"))["data"]}

    assert len(listed) == len(type(settings).model_fields)
    assert listed["MEDIAGATE_KEY_PEPPER"] == {
        "name": "MEDIAGATE_KEY_PEPPER", "value": "set", "source": "given", "is_secret": True
    }  # fmt: skip
    assert listed["MEDIAGATE_RESULT_TTL_S"]["source"] == "default"
    for name in ("key_pepper", "link_secret", "secrets_key", "database_url", "redis_url"):
        assert getattr(settings, name).get_secret_value() not in str(listed)


def test_a_setting_tells_where_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIAGATE_PORT", "8123")
    monkeypatch.setenv("MEDIAGATE_DATA", str(tmp_path))
    monkeypatch.delenv("MEDIAGATE_KEY_PEPPER", raising=False)

    told = {setting.name: setting for setting in explain_settings(load_settings())}

    assert (told["MEDIAGATE_PORT"].value, told["MEDIAGATE_PORT"].source) == ("8123", "environment")
    assert (told["MEDIAGATE_KEY_PEPPER"].value, told["MEDIAGATE_KEY_PEPPER"].source) == ("set", "secrets.json")
    assert (told["MEDIAGATE_METRICS_TOKEN"].value, told["MEDIAGATE_METRICS_TOKEN"].source) == ("not set", "default")
    assert (told["MEDIAGATE_FETCH_PORTS"].value, told["MEDIAGATE_FETCH_PORTS"].source) == ("80,443", "default")
