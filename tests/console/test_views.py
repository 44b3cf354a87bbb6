"""What an account sees of itself: home, its tasks, its usage, its ledger, and the prices."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event

from app.console import tables
from app.journal import Actor
from app.values import find_task_id, task_public_id, utcnow
from tests.console.pages import sign_in
from tests.factories import accept_task, finish_task, make_key, request_of

HOSTILE = "<script>alert('x')</script>"
FORMULA = "=HYPERLINK(1)"
QUOTE = {"unit": "image", "quantity": 1, "unit_credits": 10, "credits": 10}
PART = {"hx-request": "true", "hx-request-type": "partial"}
ADMIN = Actor("admin@example.com")


@pytest.fixture
async def tab(client, services):
    return await sign_in(client, services, credits=1000)


@pytest.fixture
async def key(services, tab):
    return await make_key(services.engine, tab.account, name="Shop")


def asked(prompt="a fox", **more):
    return request_of(prompt=prompt, quote=QUOTE, **more)


def table_of(page):
    return list(csv.DictReader(io.StringIO(page.response.text)))


# --- home -----------------------------------------------------------------------------------------------------------


async def test_home_says_a_newcomer_what_to_do_first_until_that_is_hidden(tab):
    page = await tab.get("/console")

    assert "0 of 3 done" in page.text
    assert "Your images and videos appear here" in page.text
    hidden = await tab.post("/console/first-steps")
    assert "First steps" not in hidden.text


async def test_home_ticks_what_was_done_and_shows_what_runs(tab, services, key):
    await finish_task(services.engine, key, hold=30)
    running = task_public_id(await accept_task(services.engine, key, request=asked(HOSTILE), hold=20))

    page = await tab.get("/console")
    part = await tab.get("/console", headers=PART)

    assert "2 of 3 done" in page.text
    assert "Credits spent in 14 days: 30" in page.text
    for shown in (page, part):
        assert "Can be spent 950" in shown.text
        assert f"/console/tasks/{running}" in shown.links
        assert HOSTILE in shown.text
        assert HOSTILE not in shown.html
    assert not part.root.all("main")


async def test_home_warns_of_a_suspension_and_of_credits_that_expire_or_are_gone(client, services):
    tab = await sign_in(client, services, credits=0)
    soon = utcnow() + timedelta(days=3)

    assert "no credits left" in (await tab.get("/console")).text
    await services.ledger.post(tab.account.id, "grant", 5, actor=ADMIN, reference="gift", expires_at=soon)
    await services.accounts.suspend(tab.account.id, reason="A test.", actor=ADMIN)
    page = await tab.get("/console")

    assert "5 credits expire soon" in page.text
    assert "This account is suspended" in page.text


# --- tasks ----------------------------------------------------------------------------------------------------------


async def test_the_list_is_filtered_paged_and_downloaded_and_holds_only_what_is_ours(
    tab, services, key, make_caller, monkeypatch
):
    monkeypatch.setattr(tables, "PAGE_ROWS", 2)
    stranger = await make_caller()
    theirs = task_public_id(await accept_task(services.engine, stranger.key))
    other = await make_key(services.engine, tab.account, name="Other")
    done = [task_public_id(await finish_task(services.engine, key)) for _ in range(3)]
    waiting = task_public_id(await accept_task(services.engine, other, request=asked(FORMULA)))

    async def ids(query=""):
        page = await tab.get(f"/console/tasks{query}")
        return [row["id"].removeprefix("row-") for row in page.root.one("tbody").all("tr")]

    assert await ids() == [waiting, done[2]]
    assert await ids(f"?after={done[2]}") == [done[1], done[0]]
    assert await ids("?status=queued") == [waiting]
    assert await ids(f"?key={other.public_id}") == [waiting]
    assert await ids("?type=image&model=model-a&from=2020-01-01&status=completed") == [done[2], done[1]]
    assert await ids(f"?q={done[0].removeprefix('task_').upper()}") == [done[0]]
    assert "No task matches" in (await tab.get(f"/console/tasks?q={theirs}")).text
    prompt = (await tab.get(f"/console/tasks/{done[0]}")).root.all("p", class_="prompt")[0].text
    assert await ids(f"?q={prompt.upper()}&key={key.public_id}") == [done[2], done[1]]
    assert "No task matches" in (await tab.get("/console/tasks?to=2020-01-01")).text

    rows = table_of(await tab.get("/console/tasks?format=csv"))
    assert [row["id"] for row in rows] == [waiting, *reversed(done)]
    assert rows[0]["prompt"] == f"'{FORMULA}"


async def test_the_list_asks_again_while_something_runs(tab, services, key):
    await accept_task(services.engine, key, request=asked())

    page = await tab.get("/console/tasks")
    part = await tab.get("/console/tasks", headers=PART)

    assert page.root.one(id="task-rows")["hx-trigger"] == "every 3s"
    assert part.root.one(id="task-rows")["hx-get"] == "/console/tasks"
    assert not part.root.all("main")


async def test_a_task_tells_its_story_without_what_is_the_operators(tab, services, key):
    task_id = await finish_task(services.engine, key, hold=30, charge=20)
    at = f"/console/tasks/{task_public_id(task_id)}"

    page = await tab.get(at)

    for words in ("Accepted: 30 credits held", "Sent to the model", "20 credits charged", "10 credits released"):
        assert words in page.text
    assert "/console/ledger?after=3" in page.links  # its line is the second
    assert "test/model-a" not in page.html  # the upstream's account
    assert f"/api/jobs/{task_public_id(task_id)}/image" in page.links


async def test_a_waiting_task_says_its_place_and_is_cancelled_then_deleted(tab, services, key):
    await accept_task(services.engine, key, request=asked(), pool="test/line")
    task_id = await accept_task(services.engine, key, request=asked(HOSTILE), pool="test/line")
    at = f"/console/tasks/{task_public_id(task_id)}"

    part = await tab.get(at, headers=PART)
    assert "1 task ahead of this one" in part.text
    assert (part.root.one(id="task")["hx-trigger"], HOSTILE in part.html) == ("every 2s", False)

    cancelled = await tab.post(f"{at}/cancel", on=at)
    assert "Cancelled" in cancelled.text
    assert "hx-trigger" not in cancelled.root.one(id="task")
    assert (await tab.get(at, headers=PART)).response.headers["hx-trigger"] == "balance"

    deleted = await tab.post(f"{at}/delete", on=at)
    assert deleted.url.startswith("/console/tasks?")
    assert (await tab.get(at)).status == 404


async def test_a_long_queue_is_not_counted_to_its_end(tab, services, key, monkeypatch):
    for place in ("app.tasks.queries", "app.console.user.tasks", "app.console.user.playground"):
        monkeypatch.setattr(f"{place}.MOST_AHEAD", 2)
    ids = [await accept_task(services.engine, key, request=asked(), pool="test/long") for _ in range(5)]
    at = [task_public_id(task_id) for task_id in ids]

    assert [await services.queries.ahead(task_id) for task_id in ids] == [0, 1, 2, 3, 3]
    assert "2 tasks ahead of this one" in (await tab.get(f"/console/tasks/{at[2]}")).text
    assert "More than 2 tasks ahead of this one" in (await tab.get(f"/console/tasks/{at[4]}")).text
    for number, told in ((2, {"ahead": 2, "isMore": False}), (4, {"ahead": 2, "isMore": True})):
        assert (await tab.get(f"/console/playground/{at[number]}/ahead")).response.json() == told


async def test_what_asks_every_few_seconds_reads_no_more_keys_than_it_shows(tab, services, key):
    await accept_task(services.engine, key, request=asked())
    for number in range(3):
        await make_key(services.engine, tab.account, name=f"Other {number}")
    asked_for = list[str]()

    def note(_connection, _cursor, statement, *_):
        asked_for.append(statement)

    event.listen(services.engine.sync_engine, "before_cursor_execute", note)
    try:
        pages = [await tab.get(path, headers=PART) for path in ("/console", "/console/tasks")]
        whole = await tab.get("/console/tasks")
    finally:
        event.remove(services.engine.sync_engine, "before_cursor_execute", note)

    assert not [statement for statement in asked_for if "key_budgets" in statement]
    assert ["Other 1" in page.html for page in (*pages, whole)] == [False, False, True]
    assert "Shop (.." in pages[1].text
    assert {found.name for found in await services.keys.names(tab.account.id, of=[key.id, 1])} == {"Shop"}


async def test_a_failed_task_names_the_request_that_made_it_and_the_api_says_no_more_than_before(
    client, services, make_caller
):
    caller = await make_caller()
    tab = await sign_in(client, services, caller.account)
    body = {"model": "veo3.1-fast", "prompt": "a fox"}
    made = await client.post(
        "/v1/videos/generations", json=body, headers=caller.headers | {"x-request-id": "req_by_which_we_find_it"}
    )
    await services.ledger.fail(find_task_id(made.json()["id"]), None, reason="upstream_error", message="No.")

    page = await tab.get(f"/console/tasks/{made.json()['id']}")
    told = await client.get(f"/v1/tasks/{made.json()['id']}", headers=caller.headers)

    assert "req_by_which_we_find_it" in page.text
    assert "req_by_which_we_find_it" not in told.text


async def test_a_failed_task_says_why(tab, services, key):
    task_id = await accept_task(services.engine, key, request=asked())
    await services.ledger.fail(task_id, None, reason="content_policy_violation", message=f"Refused: {HOSTILE}")

    page = await tab.get(f"/console/tasks/{task_public_id(task_id)}")

    assert "The content filter refused this request." in page.alert
    assert f"Refused: {HOSTILE}" in page.alert
    assert HOSTILE not in page.html


async def test_another_accounts_task_is_not_there(tab, services, make_caller):
    stranger = await make_caller()
    task_id = await accept_task(services.engine, stranger.key)
    at = f"/console/tasks/{task_public_id(task_id)}"
    await tab.get("/console/tasks")
    token = {"csrf": tab.page.root.one("meta", name_="csrf")["content"]}

    assert (await tab.get(at)).status == 404
    assert (await tab.send(f"{at}/cancel", token)).status == 404
    assert (await tab.send(f"{at}/delete", token)).status == 404
    assert (await services.queries.find(task_id)).status == "queued"


# --- usage ----------------------------------------------------------------------------------------------------------


async def test_usage_is_told_by_day_model_and_key(tab, services, key):
    await finish_task(services.engine, key, hold=30)
    await finish_task(services.engine, key, hold=10, model="model-b")
    today = utcnow().date().isoformat()

    page = await tab.get("/console/usage?days=7")
    rows = table_of(await tab.get("/console/usage?days=7&format=csv"))
    by_key = table_of(await tab.get("/console/usage?days=7&format=csv&by=key"))

    assert f"{today} 30 10" in page.rows  # the chart's table
    assert "model-a 1 30 75%" in page.rows
    assert any(row.startswith("Shop (..") and row.endswith("2 40 100%") for row in page.rows)
    assert [(row["model"], row["credits"]) for row in rows] == [("model-a", "30"), ("model-b", "10")]
    assert [(row["key"], row["tasks"]) for row in by_key] == [(key.public_id, "2")]
    assert "Nothing was spent" in (await tab.get("/console/usage?from=2020-01-01&to=2020-01-31")).text
    assert (await tab.get("/console/usage?from=nonsense&to=0001-01-01")).status == 200


# --- ledger ---------------------------------------------------------------------------------------------------------


async def test_the_ledger_shows_each_line_with_its_balance_what_is_held_and_what_expires(tab, services, key):
    await finish_task(services.engine, key, hold=30)
    await accept_task(services.engine, key, request=asked(), hold=70)
    soon = utcnow() + timedelta(days=30)
    await services.ledger.post(tab.account.id, "grant", 5, actor=ADMIN, reference=FORMULA, expires_at=soon)

    page = await tab.get("/console/ledger")
    grants = await tab.get("/console/ledger?kind=grant")
    rows = table_of(await tab.get("/console/ledger?format=csv"))

    assert "Can be spent 905" in page.text
    assert "Held by running tasks" in page.text
    assert "5 until" in page.text
    assert [row["balance"] for row in rows] == ["975", "970", "1000"]
    assert (rows[0]["reference"], rows[1]["amount"]) == (f"'{FORMULA}", "-30")
    assert "-30 970" in " ".join(page.rows)
    assert "-30 970" not in " ".join(grants.rows)


async def test_a_code_is_redeemed_once(tab, services):
    batch = await services.codes.create(count=2, amount=250, actor=ADMIN, note=HOSTILE)
    at = "/console/ledger"

    wrong = await tab.post(at, {"code": "NO-SUCH-CODE"}, on=at)
    assert (wrong.status, "not known here" in wrong.alert) == (400, True)

    form = (await tab.get(at)).form(at)
    sent = {name: form.one("input", name_=name)["value"] for name in ("csrf", "form_id")}
    done = await tab.send(at, {**sent, "code": batch.codes[0].lower()})
    again = await tab.send(at, {**sent, "code": batch.codes[1]})
    known = await tab.post(at, {"code": batch.codes[0]}, on=at)

    assert "Can be spent 1,250" in done.text
    assert HOSTILE not in done.html
    assert again.status == 409
    assert "You redeemed this code before" in known.root.one(id="toasts").text
    assert (await services.ledger.balance(tab.account.id)).credits == 1250


# --- prices ---------------------------------------------------------------------------------------------------------


async def test_prices_are_listed_in_whole_credits_and_searched(tab, services):
    model = services.catalog.models[services.catalog.default_image_model]

    page = await tab.get("/console/prices")
    found = await tab.get(f"/console/prices?q={model.id.upper()}")
    rows = table_of(await tab.get("/console/prices?format=csv"))

    assert len(page.rows) == len(services.catalog.models)
    assert model.id in found.text
    assert "No model matches" in (await tab.get("/console/prices?q=nothing-like-it")).text
    assert {row["model"] for row in rows} == set(services.catalog.models)
    assert all(row["credits"].isdigit() for row in rows)


async def test_prices_without_any_model_say_so(tab, services, monkeypatch):
    monkeypatch.setattr(services.catalogs, "_current", replace(services.catalog, models={}))

    page, part = await tab.get("/console/prices"), await tab.get("/console/prices?model=x", headers=PART)

    for shown in (page, part):
        assert (shown.status, "No model is offered" in shown.text) == (200, True)


async def test_the_quote_tool_prices_every_model_as_the_gateway_would(tab, services):
    for model in services.catalog.models.values():
        page = await tab.get(f"/console/prices?model={model.id}", headers=PART)
        assert page.root.all("p", class_="figure-value"), (model.id, page.text)


async def test_the_quote_tool_says_how_a_price_comes_about_and_what_is_wrong(tab, services):
    model = services.catalog.default_video_model
    at = f"/console/prices?model={model}&asked={model}"

    ten = await tab.get(f"{at}&duration=10", headers=PART)
    wrong = await tab.get(f"{at}&duration=99&input_seconds=nan&resolution={HOSTILE}", headers=PART)
    another = await tab.get(f"{at.replace('asked=', 'asked=another-')}&duration=99", headers=PART)

    assert "10 s ×" in ten.text
    assert "99" in wrong.text
    assert "Duration" in wrong.root.one("div", class_="alert").text
    assert another.root.all("p", class_="figure-value")
