"""The administrators' pages of users, credits, keys, codes, the audit, storage, settings, and the dashboard."""

from __future__ import annotations

import re

import pytest

from app import db
from app.console.admin.setting_words import MEANINGS
from app.credits.audit import STORAGE_LOCK
from app.errors import InvalidParameter
from app.generation.journal import AuditSearch
from app.journal import Actor
from app.settings import explain_settings
from app.values import task_public_id
from tests.console.pages import PASSWORD, Tab, filled, make_user, sign_in
from tests.factories import PEPPER, accept_task, finish_task, make_key

HOSTILE = "<script>alert('x')</script>"
USERS, KEYS, CODES = "/console/admin/users", "/console/admin/keys", "/console/admin/codes"
LISTS = [USERS, KEYS, CODES, "/console/admin/audit", "/console/admin/storage", "/console/admin/settings"]
FORMS = [f"{USERS}/new", f"{KEYS}/new", f"{CODES}/new"]
OF_USER = ["", "/edit", "/link", "/credits", "/adjust", "/ledger", "/state/suspend", "/state/sign-out", "/state/close"]
OF_KEY = ["", "/rotate", "/revoke"]


@pytest.fixture
async def boss(client, services) -> Tab:
    return await sign_in(client, services, is_admin=True, credits=0)


def address(account) -> str:
    return f"{USERS}/{account.public_id}"


async def audited(services, target: str) -> list[tuple[str, str | None]]:
    """What was done to it, with its reasons, newest first."""
    rows, _more = await services.audit_log.search(AuditSearch(target=target))
    return [(row.action, row.reason) for row in rows]


async def test_to_everybody_else_no_page_of_an_administrator_is_there(client, services, boss):
    tab = await sign_in(client, services)
    key = await make_key(services.engine, boss.account)
    one = address(boss.account)
    paths = ["/console/admin", "/console/admin/figures", *LISTS, *FORMS]
    paths += [one + more for more in OF_USER] + [f"{KEYS}/{key.public_id}{more}" for more in OF_KEY]

    found = {path: ((await tab.get(path)).status, (await boss.get(path)).status) for path in paths}

    assert {path: statuses for path, statuses in found.items() if statuses != (404, 200)} == {}
    csrf = (await tab.get("/console")).root.one("meta", name_="csrf")["content"]
    for path in (f"{one}/adjust/confirm", f"{one}/credits", f"{one}/state/close", f"{KEYS}/new", f"{CODES}/new"):
        page = await tab.send(path, {"csrf": csrf, "amount": "1", "reason": "Mine"})
        assert page.status == 404, path
    assert (await services.accounts.get(boss.account.id)).state == "active"


async def test_what_does_not_exist_is_not_found(boss):
    paths = [f"{USERS}/acct_999999999", f"{USERS}/acct_%00", f"{USERS}/mei@example.test", f"{KEYS}/key_999999999"]
    paths += [f"{KEYS}/%00", f"{CODES}/code_999999999/revoke", f"{CODES}/%00/revoke"]
    paths += [f"{address(boss.account)}/state/delete"]

    assert {path: (await boss.get(path)).status for path in paths} == dict.fromkeys(paths, 404)


# --- users ----------------------------------------------------------------------------------------------------------


async def test_a_new_user_gets_credits_and_a_link_that_is_shown_once_and_works(client, services, boss):
    fields = {"email": "new@example.test", "name": HOSTILE, "credits": "250", "reference": "INV-7", "kind": "topup"}
    sent = filled((await boss.get(f"{USERS}/new")).form(f"{USERS}/new"))

    page = await boss.post(f"{USERS}/new", fields)
    again = await boss.send(f"{USERS}/new", sent | fields)

    assert (page.status, again.status) == (200, 409)
    link = page.root.one("p", id="link").text
    assert re.fullmatch(r"http://gateway\.test/console/join/[\w-]{43,}", link)
    assert link not in again.html
    account = await services.accounts.get("new@example.test")
    assert (account.credits, account.is_admin, account.name) == (250, False, HOSTILE)
    assert await services.invitations.accept(link.rpartition("/")[2], PASSWORD) == account.id
    assert HOSTILE not in (await boss.get(address(account))).html
    assert boss.page.title == "new@example.test"
    assert [action for action, _reason in await audited(services, f"account:{account.id}")] == [
        "account.password", "account.link", "credits.topup", "account.create",
    ]  # fmt: skip


async def test_a_user_that_cannot_be_made_leaves_the_form_as_it_was(services, boss):
    taken = boss.account.email
    for fields, problem in (
        ({"email": taken}, "There is an account"),
        ({"email": HOSTILE}, "is not an e-mail address"),
        ({"email": "x@example.test", "credits": "0"}, "must be between 1 and"),
        ({"email": "x@example.test", "credits": "many"}, "must be a whole number"),
    ):
        page = await boss.post(f"{USERS}/new", {"name": "Kept", **fields}, on=f"{USERS}/new")
        assert page.status == 400
        assert problem in page.alert
        assert page.root.one("input", name_="name")["value"] == "Kept"
        assert HOSTILE not in page.html


async def test_users_are_found_by_what_is_known_of_them(services, boss):
    wanted = await make_user(services, email="needle@example.test")
    await services.accounts.suspend(wanted.id, reason="x")

    assert "needle@example.test" in (await boss.get(f"{USERS}?q=NEEDLE&state=suspended&admin=no")).text
    assert "Nobody matches" in (await boss.get(f"{USERS}?q=needle&admin=yes")).text
    csv = (await boss.get(f"{USERS}?q=needle&format=csv")).response.text.splitlines()
    assert csv[0].startswith("id,email,name,state")
    assert [line.split(",")[:2] for line in csv[1:]] == [[wanted.public_id, "needle@example.test"]]


async def test_a_state_is_changed_for_a_reason(services, boss):
    user = await make_user(services, credits=0)

    page = await boss.post(f"{address(user)}/state/suspend", {"reason": " "}, on=f"{address(user)}/state/suspend")
    assert (page.status, (await services.accounts.get(user.id)).state) == (400, "active")
    for change, state in (("suspend", "suspended"), ("resume", "active"), ("close", "closed")):
        path = f"{address(user)}/state/{change}"
        page = await boss.post(path, {"reason": f"{change} {HOSTILE}"}, on=path)
        assert page.url.startswith(address(user))
        assert (await services.accounts.get(user.id)).state == state

    reasons = [reason for _action, reason in await audited(services, f"account:{user.id}")]
    assert reasons[:3] == [f"{change} {HOSTILE}" for change in ("close", "resume", "suspend")]
    page = await boss.get(f"/console/admin/audit?target=account:{user.id}")
    assert HOSTILE not in page.html
    assert f"suspend {HOSTILE}" in page.text


async def test_a_user_is_edited(services, boss):
    user = await make_user(services)
    path = f"{address(user)}/edit"

    await boss.post(path, {"name": "Mei", "max_in_flight": "3", "is_admin": "on"}, on=path)
    account = await services.accounts.get(user.id)
    assert (account.name, account.max_in_flight, account.is_admin) == ("Mei", 3, True)
    await boss.post(path, {"max_in_flight": "-1"}, on=path)
    assert "must be between" in boss.page.alert
    await boss.post(path, on=path, without=["is_admin"])
    assert not (await services.accounts.get(user.id)).is_admin


async def test_another_password_needs_a_reason(services, boss):
    user = await make_user(services, password=PASSWORD)
    path = f"{address(user)}/link"

    refused = await boss.post(path, on=path)
    page = await boss.post(path, {"reason": "Forgotten"})

    assert (refused.status, page.status) == (400, 200)
    assert "/console/join/" in page.root.one("p", id="link").text
    assert (await audited(services, f"account:{user.id}"))[0] == ("account.link", "Forgotten")


# --- credits --------------------------------------------------------------------------------------------------------


async def test_a_correction_is_looked_at_first_and_then_done_once(services, boss):
    user = await make_user(services, credits=1000)
    path, reason = f"{address(user)}/adjust", f"Charged twice {HOSTILE}"

    page = await boss.post(path, {"amount": "-250", "reason": reason}, on=path)
    assert (await services.ledger.balance(user.id)).credits == 1000
    assert ["Balance 1,000 -250 750" in row for row in page.rows] == [True, False]
    assert HOSTILE not in page.html
    sent = filled(page.form(f"{path}/confirm"))
    done = await boss.send(f"{path}/confirm", sent)
    again = await boss.send(f"{path}/confirm", sent)

    assert (done.status, again.status) == (200, 409)
    assert "The balance was changed." in done.root.one("div", id="toasts").text
    assert (await services.ledger.balance(user.id)).credits == 750
    [row, *_rest], _more = await services.audit_log.search(AuditSearch(target=f"account:{user.id}"))
    assert (row.action, row.reason, row.actor) == ("credits.adjust", reason, f"{boss.account.email} (console)")
    ledger = await boss.get(f"{address(user)}/ledger?kind=adjust")
    assert HOSTILE not in ledger.html
    assert [reason in line and boss.account.email in line for line in ledger.rows] == [True]
    csv = (await boss.get(f"{address(user)}/ledger?kind=adjust&format=csv")).response.text
    assert csv.splitlines()[1].split(",")[2:5] == ["adjust", "-250", "750"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"amount": "-1001", "reason": "x"}, "cannot be lowered"),
        ({"amount": "0", "reason": "x"}, "and not 0"),
        ({"amount": "ten", "reason": "x"}, "must be a whole number"),
        ({"amount": "1", "reason": ""}, "'Reason' must be"),
    ],
)
async def test_a_correction_that_cannot_be_is_refused_before_it_is_confirmed(services, boss, fields, problem):
    user = await make_user(services, credits=1000)

    page = await boss.post(f"{address(user)}/adjust", fields, on=f"{address(user)}/adjust")

    assert page.status == 400
    assert problem in page.alert
    assert page.forms(f"{address(user)}/adjust/confirm") == []


async def test_a_reference_adds_once_however_often_the_form_is_filled_in(services, boss):
    user = await make_user(services, credits=0)
    path, fields = f"{address(user)}/credits", {"amount": "100", "reference": "INV-8", "expires_at": "2099-01-31"}

    first = await boss.post(path, fields, on=path)
    again = await boss.post(path, fields, on=path)
    wrong = await boss.post(path, fields | {"amount": "-5"}, on=path)

    assert (first.url.rpartition("=")[2], again.url.rpartition("=")[2]) == ("credits-changed", "credits-known")
    assert wrong.status == 400
    assert (await services.ledger.balance(user.id)).credits == 100


# --- keys and codes -------------------------------------------------------------------------------------------------


async def test_a_key_of_any_user_is_made_limited_rotated_and_revoked(client, services, boss):
    user = await make_user(services)
    refused = await boss.post(f"{KEYS}/new", {"account": "nobody@example.test"}, on=f"{KEYS}/new")
    page = await boss.post(f"{KEYS}/new", {"account": user.email, "name": HOSTILE, "models": ["gpt-image-2"]})
    secret = page.root.one("p", id="secret").text
    [key] = await services.keys.list(user.id)
    one = f"{KEYS}/{key.public_id}"

    assert (refused.status, page.status) == (404, 200)
    me = await client.get("/v1/me", headers={"authorization": f"Bearer {secret}"})
    assert me.status_code == 200
    page = await boss.get(one)
    assert secret not in page.html
    assert HOSTILE not in page.html
    await boss.post(f"{one}/limits", {"budget": "500", "period": "month", "rpm": "30"})
    assert await services.keys.get(key.id) != key
    page = await boss.post(f"{one}/rotate", {"overlap": "0"}, on=f"{one}/rotate")
    assert page.root.one("p", id="secret").text != secret
    successor = max(await services.keys.list(user.id), key=lambda found: found.id)
    assert (successor.budget, successor.period, successor.rpm) == (500, "month", 30)
    two = f"{KEYS}/{successor.public_id}"
    assert (await boss.post(f"{two}/revoke", {"reason": ""}, on=f"{two}/revoke")).status == 400
    await boss.post(f"{two}/revoke", {"reason": "Leaked"})
    assert (await services.keys.get(successor.id)).state == "revoked"
    assert (await audited(services, f"key:{successor.id}"))[0] == ("key.revoke", "Leaked")
    listed = await boss.get(f"{KEYS}?account={user.public_id}&state=revoked")
    assert [successor.public_id in row for row in listed.rows] == [True]
    assert user.email in (await boss.get(f"{KEYS}?account={user.public_id}&format=csv")).response.text


async def test_the_consoles_own_key_is_nobodys_to_change(services, boss):
    assert (await boss.get(f"{KEYS}/key_{(await services.sessions.find(boss.cookies['mg'])).key_id}")).status == 404


async def test_codes_are_shown_once_and_can_be_redeemed_until_they_are_revoked(services, boss):
    fields = {"count": "3", "amount": "40", "note": HOSTILE}
    page = await boss.post(f"{CODES}/new", fields, on=f"{CODES}/new")
    codes = page.root.one("pre").raw.split()
    batch = page.root.all("a", class_="button")[-1]["href"].rpartition("=")[2]
    user = await make_user(services, credits=0)

    assert len(codes) == 3
    assert all(code in page.root.one("a", download=f"{batch}.csv")["href"] for code in codes)
    await services.codes.redeem(
        user.id, codes[0], key_id=(await make_key(services.engine, user)).id, actor=Actor(boss.account.email)
    )
    listed = await boss.get(f"{CODES}?batch={batch}")
    assert HOSTILE not in listed.html
    assert not any(code in listed.html for code in codes)
    assert sorted("Unused" in row for row in listed.rows) == [False, True, True]
    path = f"{CODES}/batches/{batch}/revoke"
    assert (await boss.post(path, {"reason": ""}, on=path)).status == 400
    await boss.post(path, {"reason": "Printed wrongly"})
    assert sorted(row.count("Revoked") for row in boss.page.rows) == [0, 1, 1]
    assert (await audited(services, f"batch:{batch}"))[0] == ("codes.revoke", "Printed wrongly")
    assert "redeemed" in (await boss.get(f"{CODES}?batch={batch}&format=csv")).response.text


# --- what is only read ----------------------------------------------------------------------------------------------


async def test_the_audit_shows_what_was_before_and_what_is_now(services, boss):
    user = await make_user(services)
    await services.accounts.update(user.id, name=f"=1+1 {HOSTILE}", actor=Actor(boss.account.email))

    page = await boss.get(f"/console/admin/audit?q={user.id}&action=account.update&actor={boss.account.email}")
    [change] = page.root.all("dl", class_="diff")
    assert (change.one("del").text, change.one("ins").text) == (f"before {user.name}", f"after =1+1 {HOSTILE}")
    assert address(user) in page.links
    assert HOSTILE not in page.html
    assert "Nothing matches" in (await boss.get("/console/admin/audit?from=2001-01-01&to=2001-01-31")).text
    csv = await boss.get(f"/console/admin/audit?target=account:{user.id}&format=csv")
    assert csv.response.headers["content-type"].startswith("text/csv")
    assert "account.update" in csv.response.text


async def test_the_audit_shows_no_field_that_stayed_as_it_was(services, boss):
    await services.ledger.top_up(boss.account.id, 100, ref=f"audit:{boss.account.id}", actor="test")
    task = await accept_task(services.engine, await make_key(services.engine, boss.account))
    await services.repairs.cancel(task_public_id(task), reason="Asked for", actor=Actor("test"))

    page = await boss.get(f"/console/admin/audit?target=task:{task_public_id(task)}&action=task.cancel")

    [change] = page.root.all("dl", class_="diff")
    assert {line.one("dt").text for line in change.all("div")} == {"charge", "status"}  # and not the hold


async def test_settings_say_what_they_are_for_and_where_from_and_hold_no_secret(boss, settings):
    page = await boss.get("/console/admin/settings")
    csv = await boss.get("/console/admin/settings?format=csv")

    for text in (page.html, csv.response.text):
        assert PEPPER.get_secret_value() not in text
    assert any("MEDIAGATE_KEY_PEPPER" in row and "Set" in row for row in page.rows)
    found = await boss.get("/console/admin/settings?q=public_url")
    assert ["http://gateway.test" in row for row in found.rows] == [True]
    assert any(
        "MEDIAGATE_RESULT_TTL_S" in row and "How long results are kept" in row and "7 days" in row for row in page.rows
    )
    assert {setting.name for setting in explain_settings(settings)} == set(MEANINGS)


async def test_the_storage_is_compared_with_the_disk_when_somebody_asks(services, boss):
    key = await make_key(services.engine, boss.account)
    await services.ledger.top_up(boss.account.id, 100, ref=f"storage:{boss.account.id}", actor="test")
    await finish_task(services.engine, key)  # its file's object does not exist

    page = await boss.post("/console/admin/storage/check", on="/console/admin/storage")

    assert page.status == 200
    assert "but its object" in page.text
    assert any("Results Ready" in row for row in page.rows)
    async with db.only_one(services.engine, STORAGE_LOCK):  # somebody else, in another process
        page = await boss.post("/console/admin/storage/check", on="/console/admin/storage")
    assert "Somebody else compares" in page.text
    assert "but its object" not in page.text


async def test_the_dashboard_tells_how_it_goes_and_whether_the_books_are_right(services, boss):
    key = await make_key(services.engine, boss.account)
    await services.ledger.top_up(boss.account.id, 100, ref=f"dashboard:{boss.account.id}", actor="test")
    await finish_task(services.engine, key, model="gpt-image-2")

    page = await boss.post("/console/admin/books", on="/console/admin?period=1h")
    assert "The books are right." in page.text
    assert any("gpt-image-2" in row and "100%" in row for row in page.rows)
    assert boss.account.email in page.text
    part = await boss.get("/console/admin/figures?period=7d", headers={"hx-request": "true"})
    assert "period=7d" in part.root.one("div", id="figures")["hx-get"]
    for table, column in (("model", "group"), ("upstream", "p95_s"), ("money", "captured"), ("accounts", "email")):
        csv = (await boss.get(f"/console/admin?format=csv&table={table}")).response.text.splitlines()
        assert column in csv[0].split(",")
        assert len(csv) > 1


async def test_what_is_to_be_set_up_is_ticked_by_what_the_data_say(services, boss):
    def done(page) -> str:
        return " ".join(step.text for step in page.root.all("li", class_="done"))

    before = done(await boss.get("/console/admin"))
    await services.logins.set_password(boss.account.id, PASSWORD)
    boss.cookies["mg"] = (await services.sessions.open(boss.account.id, user_agent=None, peer=None)).token
    after = done(await boss.get("/console/admin"))

    assert ("MEDIAGATE_PUBLIC_URL" in before, "MEDIAGATE_METRICS_TOKEN" in before) == (True, False)
    assert ("a password of your own" in before, "a password of your own" in after) == (False, True)


async def test_books_that_do_not_balance_are_shown_in_red(services, boss):
    await services.watch.audit(now=True)
    await db.once(services.engine, """UPDATE watch SET violations = '{"I1": 2, "I7": 0}' RETURNING 1""")

    page = await boss.get("/console/admin")

    assert "The books do not balance. I1: 2." in page.alert


async def test_a_stale_tab_saves_only_what_was_changed_in_it(client, services, boss):
    other = await make_user(services, is_admin=True)
    path = f"{address(other)}/edit"
    stale = filled((await boss.get(path)).form(path))
    await services.accounts.update(other.id, is_admin=False)

    await boss.send(path, stale | {"name": ["Renamed"]})
    clash = await boss.send(path, stale | {"name": ["Again"]})

    found = await services.accounts.get(other.id)
    assert (found.name, found.is_admin) == ("Renamed", False)
    assert clash.status == 400
    assert "changed this meanwhile" in clash.alert
    assert filled(clash.form(path))["name"] == ["Renamed"]


async def test_a_closed_account_takes_no_new_credits_and_our_references_are_ours(services, boss):
    closed = await make_user(services, credits=70)
    page = await boss.get(f"{address(closed)}/state/close")
    await services.accounts.close(closed.id, reason="Gone", actor=Actor("t"))

    with pytest.raises(InvalidParameter, match="closed"):
        await services.ledger.post(closed.id, "grant", 5, actor=Actor("t"))
    await services.ledger.post(closed.id, "adjust", -5, actor=Actor("t"), reason="Paid back")
    with pytest.raises(InvalidParameter, match="reference"):
        await services.ledger.post(boss.account.id, "grant", 5, actor=Actor("t"), reference="Redeem:7")

    assert "Credits left, which nobody can spend then: 70." in page.text
    assert (await services.ledger.balance(closed.id)).credits == 65
