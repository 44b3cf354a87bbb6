"""The administrators' pages of models and prices, upstreams, routes, and all accounts' tasks."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from pydantic import SecretStr

from app.catalog.exchange import dump
from app.catalog.inspection import SENTENCES
from app.console.admin.upstreams import FOUND
from app.generation.journal import AuditSearch
from app.journal import Actor
from app.requests import Operation
from app.values import task_public_id
from tests.console.pages import Page, Tab, filled, sign_in
from tests.factories import accept_task, finish_task, make_key

HOSTILE = "<script>alert('x')</script>"
MODELS, CATALOGUE = "/console/admin/models", "/console/admin/catalogue"
UPSTREAMS, ROUTES, TASKS = "/console/admin/upstreams", "/console/admin/routes", "/console/admin/tasks"
MODEL, OTHER, THIRD, WITHDRAWN = "gpt-image-2", "gemini-3-pro-image-preview", "veo3.1-fast", "veo3.1-lite"
SECRET = "sk-nobody-may-ever-read-this"


@pytest.fixture
async def boss(client, services) -> Tab:
    return await sign_in(client, services, is_admin=True, credits=50)


async def audited(services, target: str) -> list[tuple[str, str | None]]:
    """What was done to it, with its reasons, newest first."""
    rows, _more = await services.audit_log.search(AuditSearch(target=target))
    return [(row.action, row.reason) for row in rows]


async def credits(services, model: str, **fields: str) -> int:
    return int((await services.model_versions.simulate(model, fields)).quote.credits)


async def resend(tab: Tab, path: str, fields: dict[str, str] | None = None) -> Page:
    """Send the form of the last page, fill it in, and send the very same once more."""
    assert tab.page is not None
    sent = filled(tab.page.form(path)) | (fields or {})
    assert (await tab.send(path, sent)).status == 200
    return await tab.send(path, sent)


async def test_to_everybody_else_no_page_of_an_administrator_is_there(client, services, boss):
    tab = await sign_in(client, services)
    task = await finish_task(services.engine, await make_key(services.engine, boss.account), hold=5, charge=5)
    [route, *_] = await services.book.routes.list(MODEL)
    account = route.entry.upstream
    paths = [MODELS, *(f"{MODELS}/{MODEL}{more}" for more in ("", "/entry", "/simulate", "/withdraw", "/file"))]
    paths += [f"{CATALOGUE}/{page}" for page in ("new", "import", "export")]
    paths += [UPSTREAMS, f"{UPSTREAMS}/new", f"{UPSTREAMS}/{account}", f"{ROUTES}/new", f"{ROUTES}/{route.public_id}"]
    paths += [TASKS, f"{TASKS}/{task_public_id(task)}"]

    found = {path: ((await tab.get(path)).status, (await boss.get(path)).status) for path in paths}

    assert {path: statuses for path, statuses in found.items() if statuses != (404, 200)} == {}
    csrf = (await tab.get("/console")).root.one("meta", name_="csrf")["content"]
    for path in (
        f"{MODELS}/{MODEL}/price", f"{MODELS}/{MODEL}/price/apply", f"{MODELS}/{MODEL}/withdraw",
        f"{CATALOGUE}/import/apply", f"{UPSTREAMS}/{account}/disable", f"{UPSTREAMS}/{account}/secret",
        f"{ROUTES}/{route.public_id}/delete", f"{TASKS}/{task_public_id(task)}/refund",
    ):  # fmt: skip
        assert (await tab.send(path, {"csrf": csrf, "reason": "Mine", "secret": "x"})).status == 404, path
    missing = [f"{MODELS}/nothing", f"{MODELS}/nothing/entry", f"{UPSTREAMS}/nothing", f"{ROUTES}/route_999999"]
    missing += [f"{ROUTES}/nothing", f"{TASKS}/nothing", f"{MODELS}/%00"]
    assert {path: (await boss.get(path)).status for path in missing} == dict.fromkeys(missing, 404)


# --- models and prices ----------------------------------------------------------------------------------------------


async def test_a_changed_price_is_seen_explained_and_done_once(services, boss):
    path, apply = f"{MODELS}/{MODEL}/price", f"{MODELS}/{MODEL}/price/apply"
    before = await credits(services, MODEL, quality="hd")
    wanted = {"price.credits.hd": str(before + 40)}

    same = await boss.post(path, on=f"{MODELS}/{MODEL}")
    wrong = await boss.post(path, {"price.credits.hd": "0"}, on=f"{MODELS}/{MODEL}")
    shown = await boss.post(path, wanted, on=f"{MODELS}/{MODEL}")

    assert (same.status, "No number was changed" in same.alert) == (400, True)
    assert (wrong.status, "must be a whole number from 1" in wrong.alert) == (400, True)
    assert any(f"{before} {before + 40} +40" in row for row in shown.rows)
    assert await credits(services, MODEL, quality="hd") == before
    unsaid = await boss.post(apply, {"reason": " "})
    assert (unsaid.status, "'Reason' must say why" in unsaid.alert) == (400, True)
    unsure = await boss.post(apply, {"reason": "x", "at": "2030-01-01T00:00"})
    assert (unsure.status, "choose it above" in unsure.alert) == (400, True)
    past = await boss.post(apply, {"reason": "x", "when": "at", "at": "2020-01-01T00:00"})
    assert (past.status, "lies in the past" in past.alert) == (400, True)
    assert await credits(services, MODEL, quality="hd") == before

    again = await resend(boss, apply, {"reason": f"Dearer {HOSTILE}", "when": "now", "at": ""})
    assert again.status == 409
    assert await credits(services, MODEL, quality="hd") == before + 40
    assert [reason for _action, reason in await audited(services, f"model:{MODEL}")] == [f"Dearer {HOSTILE}"]
    page = await boss.get(f"{MODELS}/{MODEL}")
    assert HOSTILE not in page.html
    assert [row.split()[:3] for row in page.rows] == [["1", "In", "force"], ["The", "file", "Replaced"]]
    sums = await boss.get(f"{MODELS}/{MODEL}/simulate?quality=hd&version=0&price.credits.hd=7")
    assert [row.split(" 1 image")[0] for row in sums.rows] == [
        f"Now {MODEL}@1 {before + 40}", f"The file {services.catalogs.files.version} {before}", "Draft draft 7",
    ]  # fmt: skip


async def test_a_change_is_scheduled_and_cancelled_and_nobody_overtakes_another(services, boss):
    later = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%M}"
    path, apply = f"{MODELS}/{THIRD}/price", f"{MODELS}/{THIRD}/price/apply"
    before = await credits(services, THIRD)

    await boss.post(path, {"price.credits.720p": "500"}, on=f"{MODELS}/{THIRD}")
    page = await boss.post(apply, {"reason": "From Thursday", "when": "at", "at": later})

    assert page.url.startswith(f"{MODELS}/{THIRD}?done=scheduled")
    assert f"{later.replace('T', ' ')}:00 UTC" in page.text
    assert await credits(services, THIRD) == before
    assert f"changes {later.replace('T', ' ')}:00" in (await boss.get(f"{MODELS}?q={THIRD}")).text
    page = await boss.post(f"{MODELS}/{THIRD}/versions/1/cancel", on=f"{MODELS}/{THIRD}")
    assert page.rows[0].startswith("1 Cancelled")
    assert [action for action, _ in await audited(services, f"model:{THIRD}")] == [
        "model.version_cancel", "model.version",
    ]  # fmt: skip

    await boss.post(path, {"price.credits.720p": "600"}, on=f"{MODELS}/{THIRD}")
    sent = filled(boss.page.form(apply)) | {"reason": "Late"}
    await boss.post(path, {"price.credits.720p": "700"}, on=f"{MODELS}/{THIRD}")
    await boss.post(apply, {"reason": "First"})
    page = await boss.send(apply, sent)
    assert (page.status, "changed meanwhile" in page.alert) == (400, True)
    assert await credits(services, THIRD) == 700


async def test_an_entry_is_edited_as_yaml_and_a_mistake_is_named(services, boss):
    path = f"{MODELS}/{OTHER}/entry"
    text = (await boss.get(path)).root.one("textarea", name_="document").raw

    for broken, problem in (
        ("type: [", "document:1:"),
        (text.replace("unit: image", "unit: hours"), "unit"),
        (text, "Nothing differs"),
    ):
        page = await boss.post(path, {"document": broken}, on=path)
        assert (page.status, problem in page.alert) == (400, True), page.alert
        assert page.root.one("textarea", name_="document").raw.strip() == broken.strip()
    entry = dict((await services.model_versions.get(OTHER)).entry) | {"title": HOSTILE, "description": "Kept\n\nwhole"}
    page = await boss.post(path, {"document": dump(entry).replace("\n", "\r\n")})
    assert "title" in page.text
    assert HOSTILE not in page.html
    again = await resend(boss, f"{path}/apply", {"reason": "A better name"})
    assert again.status == 409
    state = await services.model_versions.get(OTHER)
    assert (state.title, state.number, state.entry["description"]) == (HOSTILE, 1, "Kept\n\nwhole")
    for shown in (MODELS, f"{MODELS}/{OTHER}", path, f"{MODELS}/{OTHER}/simulate"):
        assert HOSTILE not in (await boss.get(shown)).html


async def test_a_model_is_withdrawn_brought_back_and_as_in_the_file(services, boss):
    here = f"{MODELS}/{WITHDRAWN}"
    page = await boss.post(f"{here}/withdraw", {"reason": ""}, on=f"{here}/withdraw")
    assert (page.status, "'Reason' must say why" in page.alert) == (400, True)

    for move, state in (("withdraw", "withdrawn"), ("restore", "offered"), ("file", "offered")):
        await boss.get(f"{here}/{move}")
        assert (await resend(boss, f"{here}/{move}", {"reason": move})).status == 409
        assert (await services.model_versions.get(WITHDRAWN)).state == state
    assert not (await services.model_versions.get(WITHDRAWN)).differs
    assert [reason for _action, reason in await audited(services, f"model:{WITHDRAWN}")][:3] == [
        "file", "restore", "withdraw",
    ]  # fmt: skip
    page = await boss.post(f"{MODELS}/{MODEL}/withdraw", {"reason": "x"}, on=f"{MODELS}/{MODEL}/withdraw")
    assert (page.status, "default model" in page.alert) == (400, True)


async def test_a_file_goes_out_and_comes_in_after_a_look(services, boss):
    export = await boss.get(f"{CATALOGUE}/export")
    assert export.response.headers["content-disposition"] == 'attachment; filename="models.yaml"'
    text = export.html
    path = f"{CATALOGUE}/import"

    page = await boss.post(path, {"yaml": text}, on=path, files={})
    assert "Nothing differs" in page.text
    page = await boss.post(path, {"yaml": "models: ["}, on=path, files={})
    assert (page.status, "import.yaml:1:" in page.alert) == (400, True)
    page = await boss.post(path, on=path, files={"file": ("m.yaml", b"\xff\xfe")})
    assert (page.status, "no text in UTF-8" in page.alert) == (400, True)
    dearer = text.replace("title: HappyHorse 1.0", f'title: "{HOSTILE}"')
    page = await boss.post(path, on=path, files={"file": ("models.yaml", dearer.encode())})
    assert (page.status, "1 model differs" in page.text, HOSTILE in page.html) == (200, True, False)
    sent = filled(page.form(f"{path}/apply"))
    assert (await boss.send(f"{path}/apply", sent, files={})).status == 400
    sent = filled(boss.page.form(f"{path}/apply")) | {"reason": ["Names"]}
    assert (await boss.send(f"{path}/apply", sent, files={})).url.startswith(f"{MODELS}?done=imported")
    assert (await boss.send(f"{path}/apply", sent, files={})).status == 409
    assert (await services.model_versions.get("happyhorse-1.0")).title == HOSTILE
    assert len(await services.model_versions.versions("happyhorse-1.0")) == 2


async def test_a_new_model_is_added_by_its_entry(services, boss):
    entry = dict((await services.model_versions.get(OTHER)).entry) | {"title": "Newcomer"}
    path = f"{CATALOGUE}/new"

    page = await boss.post(path, {"model": OTHER, "document": dump(entry)}, on=path)
    assert (page.status, "known already" in page.alert) == (400, True)
    await boss.post(path, {"model": "newcomer-1", "document": dump(entry)})
    page = await boss.post(f"{MODELS}/newcomer-1/entry/apply", {"reason": "A new one"})

    assert (page.status, page.title) == (200, "Newcomer")
    assert "No active route serves" in page.text


# --- upstreams and routes -------------------------------------------------------------------------------------------


async def test_an_upstream_and_its_route_live_and_die_and_the_secret_is_never_shown(services, boss):
    here = f"{UPSTREAMS}/second"
    fields = {"name": "second", "provider": "demo", "secret": SECRET, "options": "{"}
    page = await boss.post(f"{UPSTREAMS}/new", fields, on=f"{UPSTREAMS}/new")
    assert (page.status, "must be a JSON object" in page.alert, SECRET in page.html) == (400, True, False)
    assert (await resend(boss, f"{UPSTREAMS}/new", fields | {"options": "{}"})).status == 409
    assert (await services.book.upstreams.get("second")).has_secret
    page = await boss.post(f"{here}/secret", {"secret": f"{SECRET}-2"}, on=here)
    assert "Set, version 2" in page.text

    wanted = {"model": MODEL, "upstream": "second", "upstream_model": HOSTILE, "priority": "7"}
    wrong = await boss.post(f"{ROUTES}/new", wanted | {"weight": "many"}, on=f"{ROUTES}/new")
    assert (wrong.status, "must be a whole number" in wrong.alert) == (400, True)
    assert (await resend(boss, f"{ROUTES}/new", wanted | {"weight": "2"})).status == 409
    [route] = [one for one in await services.book.routes.list(MODEL) if one.entry.upstream == "second"]
    at = f"{ROUTES}/{route.public_id}"
    page = await boss.post(at, {"priority": "3", "operations": [Operation.IMAGE_EDIT.value]}, on=at)
    changed = (await services.book.routes.get(route.id)).entry
    assert (changed.priority, changed.operations) == (3, frozenset({Operation.IMAGE_EDIT}))
    assert f"second,{HOSTILE}" in (await boss.get(f"{UPSTREAMS}?model={MODEL}&format=csv")).response.text

    checks = await boss.post(f"{here}/test", on=here)
    assert "Nothing was sent that costs anything" in checks.text
    assert "Vendor This provider works on this machine" in checks.text
    for verb, state in (("drain", "draining"), ("enable", "active"), ("disable", "disabled")):
        await boss.post(f"{here}/{verb}", on=here)
        assert (await services.book.upstreams.get("second")).state == state
    for path in (UPSTREAMS, here, at, f"{UPSTREAMS}?model={MODEL}", "/console/admin/audit?q=second"):
        page = await boss.get(path)
        assert (page.status, SECRET in page.html, HOSTILE in page.html) == (200, False, False), path
    await boss.post(f"{at}/delete", on=at)
    assert (await boss.get(at)).status == 404
    page = await boss.post(f"{here}/delete", {"confirm": "first"}, on=here)
    assert (page.status, "Write the account's name" in page.alert) == (400, True)
    assert (await boss.post(f"{here}/delete", {"confirm": "second"})).url.startswith(f"{UPSTREAMS}?done=deleted")
    assert {action for action, _ in await audited(services, "upstream:second")} >= {
        "upstream.add", "upstream.rotate", "upstream.delete",
    }  # fmt: skip
    assert [action for action, _ in await audited(services, f"route:{route.id}")] == [
        "route.remove", "route.update", "route.add",
    ]  # fmt: skip


async def test_a_vendor_s_answer_is_shown_with_its_time_and_in_the_reader_s_language(client, services, boss):
    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {SECRET}":
            return web.json_response({"error": {"code": "invalid_api_key", "message": HOSTILE}}, status=401)
        return web.json_response({"data": [{"id": "theirs"}]})

    app = web.Application()
    app.router.add_get("/v1/models", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    here, url = f"{UPSTREAMS}/asked", f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await services.book.upstreams.add(
        "asked", provider="openai", base_url=url, secret=SecretStr(SECRET), actor=Actor("test")
    )
    for model, theirs in ((MODEL, "theirs"), (OTHER, HOSTILE)):
        await services.book.routes.add(model, "asked", theirs, actor=Actor("test"))

    good = await boss.post(f"{here}/test", on=here)
    await services.book.upstreams.rotate("asked", SecretStr("sk-wrong-0123456789"), actor=Actor("test"))
    refused = await boss.post(f"{here}/test", on=here)
    await services.logins.set_preferences(boss.account.id, "zh_CN", "system")
    chinese = await boss.post(f"{here}/test", on=here)
    await runner.cleanup()

    assert re.search(r"Vendor The vendor accepted the secret\. \d+ ms", good.text)
    assert f"Not in the vendor's list: {HOSTILE} ({OTHER})." in good.text
    assert "Bad" in [icon["aria-label"] for icon in good.root.all("svg")]
    assert "Vendor The vendor refused the secret: status 401: invalid_api_key" in refused.text
    assert "厂商拒绝了" in chinese.text
    for page in (good, refused, chinese):
        assert (SECRET in page.html, HOSTILE in page.html) == (False, False)
    await services.book.upstreams.delete("asked", actor=Actor("test"))


async def test_an_upstream_s_secret_is_write_only_and_leaves_for_no_open_network(services, boss, monkeypatch):
    monkeypatch.setattr(services.book.upstreams, "_needs_https", True)  # as in production
    path, here = f"{UPSTREAMS}/new", f"{UPSTREAMS}/guarded"
    fields = {"name": "guarded", "provider": "openai", "secret": SECRET, "base_url": "http://api.example.com/v1"}

    refused = await boss.post(path, fields, on=path)
    made = await boss.post(path, {"base_url": "http://127.0.0.1:9/v1", "secret": SECRET})
    moved = await boss.post(here, {"base_url": "http://api.example.com/v1", "secret": SECRET}, on=here)
    unsealed = await boss.post(here, {"base_url": "https://api.example.com/v1"}, on=here)

    for page, status in ((refused, 400), (made, 200), (moved, 400), (unsealed, 400)):
        assert (page.status, SECRET in page.html) == (status, False)
        held = [one for one in page.root.all("input") if one["name"] == "secret"]
        assert held
        assert {(one["type"], one["value"], one["autocomplete"]) for one in held} == {("password", "", "off")}
    for page in (refused, moved):
        assert "must be an https:// address" in page.text
    assert "give the secret again" in unsealed.text
    assert (await services.book.upstreams.get("guarded")).base_url == "http://127.0.0.1:9/v1"
    await services.book.upstreams.delete("guarded", actor=Actor("test"))


def test_every_sentence_of_an_inspection_is_translated():
    assert set(SENTENCES) == FOUND


# --- tasks ----------------------------------------------------------------------------------------------------------


async def test_tasks_are_put_right_for_a_reason_once_each(client, services, boss):
    owner = await sign_in(client, services, credits=100)
    key = await make_key(services.engine, owner.account)
    charged = task_public_id(await finish_task(services.engine, key, hold=30, charge=30))
    queued = [task_public_id(await accept_task(services.engine, key, hold=10)) for _ in range(2)]

    for task, verb, fields, action in (
        (queued[0], "cancel", {}, "task.cancel"),
        (queued[1], "resolve", {"end": "cancelled"}, "task.resolve"),
        (charged, "refund", {"credits": "12"}, "task.refund"),
    ):
        at, path = f"{TASKS}/{task}", f"{TASKS}/{task}/{verb}"
        page = await boss.post(path, fields | {"reason": " "}, on=at)
        assert (page.status, "Reason" in page.alert) == (400, True), page.text
        assert (await resend(boss, path, fields | {"reason": f"{verb} {HOSTILE}"})).status == 409
        assert await audited(services, f"task:{task}") == [(action, f"{verb} {HOSTILE}")]
        assert HOSTILE not in (await boss.get(at)).html
    assert (await services.ledger.balance(owner.account.id)).credits == 100 - 30 + 12
    page = await boss.post(f"{TASKS}/{charged}/refund", {"credits": "900", "reason": "Greedy"}, on=f"{TASKS}/{charged}")
    assert page.status == 400
    assert (await services.ledger.balance(owner.account.id)).credits == 82
    rows = (await boss.get(f"{TASKS}?account={owner.account.email}&state=cancelled")).rows
    assert len(rows) == 2
    assert "No task matches" in (await boss.get(f"{TASKS}?account=nobody@example.test")).text
    assert charged in (await boss.get(f"{TASKS}?q={charged}&format=csv")).response.text
    assert f"{TASKS}/{charged}" in (await boss.get(f"/console/admin/audit?target=task:{charged}")).links


async def test_what_moved_since_a_tab_was_opened_is_refused(services, boss):
    task = await finish_task(services.engine, await make_key(services.engine, boss.account), hold=9, charge=9)
    page, path = f"{TASKS}/{task_public_id(task)}", f"{TASKS}/{task_public_id(task)}/refund"
    tabs = [filled((await boss.get(page)).form(path)) | {"credits": ["3"], "reason": ["Blurred"]} for _ in range(2)]
    move = f"{MODELS}/veo3.1-quality/withdraw"
    stale = filled((await boss.get(move)).form(move)) | {"reason": ["Dear"]}
    await boss.post(move, {"reason": "Gone"}, on=move)

    answers = [await boss.send(path, tab) for tab in tabs]
    moved = await boss.send(move, stale)

    assert [one.status for one in answers] == [200, 400]
    assert "refunded meanwhile" in answers[1].alert
    assert (await services.timelines.get(task_public_id(task))).refunded == 3
    assert moved.status == 400
    assert "changed meanwhile" in moved.alert
    deep = await boss.post(f"{ROUTES}/new", {"options": "[" * 200_000}, on=f"{ROUTES}/new")
    assert deep.status == 400
