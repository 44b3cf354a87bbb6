"""The page of API keys: what a reader's keys may do, and that a secret is shown once."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from app.accounts.keys import Owner
from app.accounts.principal import USER_SCOPES
from app.errors import InvalidParameter
from app.generation.journal import AuditSearch
from app.values import Credits
from tests.console.pages import Page, make_user, sign_in
from tests.factories import make_key

HOSTILE = "<script>alert('x')</script>"


def secret_of(page: Page) -> str:
    found = page.root.one("code", id="secret").text
    assert re.fullmatch(r"sk-mg_\w{46}", found)
    return found


async def audited(services, key_id: int) -> list[str]:
    found, _more = await services.audit_log.search(AuditSearch(target=f"key:{key_id}"))
    return [row.action for row in found]


async def test_the_form_as_it_is_shown_makes_a_useful_key_and_shows_it_once(client, services):
    tab = await sign_in(client, services)

    page = await tab.post("/console/keys", {"name": "Laptop"}, on="/console/keys")

    secret = secret_of(page)
    assert page.response.headers["cache-control"] == "no-store"
    me = await client.get("/v1/me", headers={"authorization": f"Bearer {secret}"})
    assert me.json()["key"]["name"] == "Laptop"
    for snippet in page.root.all(role="tabpanel"):
        assert secret in snippet.one("code").raw
        assert "http://gateway.test/v1" in snippet.one("code").raw
    after = await tab.get("/console/keys")
    assert secret not in after.html
    assert ["Laptop" in row and secret[-4:] in row for row in after.rows] == [True]


async def test_a_form_that_is_sent_again_makes_no_second_key(client, services):
    tab = await sign_in(client, services)
    form = (await tab.get("/console/keys")).form("/console/keys")
    sent = {name: form.all(name_=name)[0]["value"] for name in ("csrf", "form_id")} | {"scopes": list(USER_SCOPES)}

    first = await tab.send("/console/keys", sent)
    again = await tab.send("/console/keys", sent)

    assert (first.status, again.status) == (200, 409)
    assert "sk-mg_" not in again.html
    assert len(await services.keys.list(tab.account.id)) == 1


async def test_an_owner_lowers_what_a_key_may_do_and_raises_nothing(client, services, monkeypatch):
    tab = await sign_in(client, services)
    key = await make_key(services.engine, tab.account, rpm=30)
    await services.keys.set_limits(key.id, budget=None, max_in_flight=3, rpm=30)
    at = f"/console/keys/{key.public_id}"

    raised = await tab.post(f"{at}/limits", {"rpm": "31", "max_in_flight": "3"}, on=at)
    freed = await tab.post(f"{at}/limits", {"rpm": "30", "max_in_flight": ""}, on=at)
    await tab.post(f"{at}/limits", {"rpm": "20", "max_in_flight": "2"}, on=at)
    monkeypatch.setattr("app.accounts.keys.MAX_OWN_KEYS", 1)
    more = await tab.post("/console/keys", {"name": "one more"}, on="/console/keys")

    assert (raised.status, freed.status, more.status) == (400, 400, 400)
    assert "may be at most 30 here" in raised.html.replace("&#39;", "'")
    now = await services.keys.get(key.id)
    assert (now.rpm, now.max_in_flight) == (20, 2)
    with pytest.raises(InvalidParameter, match="at most 60"):
        await services.keys.mint(tab.account.id, rpm=61, owner=Owner(60))


async def test_limits_are_taken_over_and_can_be_changed(client, services):
    tab = await sign_in(client, services)
    chosen = {
        "name": HOSTILE,
        "scopes": ["images:write", "tasks:read"],
        "models": ["gpt-image-2"],
        "cidrs": "192.0.2.0/24\n2001:db8::/32",
        "budget": "1,000",
        "period": "day",
        "rpm": "30",
        "expires_in": "30",
    }

    made = await tab.post("/console/keys", chosen, on="/console/keys")
    [key] = await services.keys.list(tab.account.id)
    changed = await tab.post(
        f"/console/keys/{key.public_id}/limits", {"budget": "", "rpm": "5"}, on=f"/console/keys/{key.public_id}"
    )

    assert (key.name, key.scopes, key.models) == (HOSTILE, ("images:write", "tasks:read"), ("gpt-image-2",))
    assert (key.cidrs, key.budget, key.period) == (("192.0.2.0/24", "2001:db8::/32"), Credits(1000), "day")
    assert (key.rpm, round((key.expires_at - key.created_at) / timedelta(days=1))) == (30, 30)
    now = await services.keys.get(key.id)
    assert (now.budget, now.period, now.rpm) == (None, "day", 5)
    assert changed.status == 200
    assert HOSTILE in changed.text
    assert HOSTILE not in made.html + changed.html
    assert await audited(services, key.id) == ["key.limits", "key.create"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"budget": "lots"}, "whole number"),
        ({"budget": "-1"}, "0 or more"),
        ({"rpm": "0"}, "between 1 and"),
        ({"cidrs": "192.0.2.1/24"}, "networks"),
        ({"period": "hour"}, "Period"),
        ({"expires_in": "5"}, "Expires"),
        ({"models": "gpt-image-9"}, "does not exist"),
        ({"scopes": []}, "Choose at least one permission"),
        ({"scopes": ["admin:*"]}, "administrators"),
        ({"name": "x" * 101}, "100"),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_a_wrong_value_is_named_and_the_form_keeps_what_was_typed(client, services, wrong, says):
    tab = await sign_in(client, services)

    page = await tab.post("/console/keys", {"name": "Kept", **wrong}, on="/console/keys")

    assert page.status in (400, 404)
    assert says in page.alert
    assert page.root.one("dialog")["id"] == "new-key"
    assert "data-open" in page.root.one("dialog")
    assert page.form("/console/keys").one(name_="name")["value"] == wrong.get("name", "Kept")
    assert await services.keys.list(tab.account.id) == []


async def test_rotation_keeps_the_old_key_for_as_long_as_is_chosen(client, services):
    tab = await sign_in(client, services)
    old = await make_key(services.engine, tab.account, name="Old", budget=50)
    at = f"/console/keys/{old.public_id}"

    page = await tab.post(f"{at}/rotate", {"overlap": "1"}, on=at)

    secret = secret_of(page)
    before = await services.keys.get(old.id)
    assert 0 < (before.expires_at - before.created_at).total_seconds() < 3700
    for one in (secret, old.secret):
        assert (await client.get("/v1/me", headers={"authorization": f"Bearer {one}"})).status_code == 200
    refused = await tab.post(f"{at}/rotate", on=at)
    assert "replaced by" in refused.alert
    assert await audited(services, old.id) == ["key.rotate", "key.create"]


async def test_a_revoked_key_works_no_more(client, services):
    tab = await sign_in(client, services)
    key = await make_key(services.engine, tab.account, name="Lost")
    at = f"/console/keys/{key.public_id}"

    page = await tab.post(f"{at}/revoke", on=at)

    assert page.url == "/console/keys?done=revoked"
    assert "Revoked" in page.rows[0]
    assert (await client.get("/v1/me", headers={"authorization": f"Bearer {key.secret}"})).status_code == 401
    assert not (await tab.get(at)).forms(f"{at}/rotate")
    assert (await services.audit_log.search(AuditSearch(target=f"key:{key.id}")))[0][
        0
    ].actor == f"{tab.account.email} (console)"


async def test_the_keys_of_others_and_the_console_s_own_are_not_there(client, services):
    tab = await sign_in(client, services)
    other = await make_user(services)
    foreign = await make_key(services.engine, other)
    own = (await services.sessions.list(tab.account.id))[0].key_id
    page = await tab.get("/console/keys")
    token = {"csrf": page.form("/console/keys").one(name_="csrf")["value"]}

    for key in (foreign.public_id, f"key_{own}", "key_999999999", "x"):
        assert (await tab.get(f"/console/keys/{key}")).status == 404
        for action in ("limits", "rotate", "revoke"):
            answer = await tab.send(f"/console/keys/{key}/{action}", token)
            assert answer.status == 404
    assert (await services.keys.get(foreign.id)).state == "live"
    assert page.rows == []


async def test_an_administrator_may_make_a_key_for_administration(client, services):
    tab = await sign_in(client, services, is_admin=True)

    await tab.post("/console/keys", {"scopes": ["admin:*"]}, on="/console/keys")

    assert [key.scopes for key in await services.keys.list(tab.account.id)] == [("admin:*",)]


async def test_the_list_is_filtered_on_the_server_and_comes_as_a_spreadsheet(client, services):
    tab = await sign_in(client, services)
    for name in ("=1+1", "Phone"):
        await make_key(services.engine, tab.account, name=name)

    found = await tab.get("/console/keys?q=phone")
    none = await tab.get("/console/keys?state=revoked")
    csv = await tab.get("/console/keys?format=csv")

    assert ["Phone" in row for row in found.rows] == [True]
    assert "No key matches" in none.text
    assert csv.response.headers["content-type"].startswith("text/csv")
    assert "'=1+1" in csv.response.text
    assert len(csv.response.text.splitlines()) == 3
