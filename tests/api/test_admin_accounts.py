"""Accounts over HTTP: made, found, suspended and closed, with a reason, and never the last administrator."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from app.accounts.users import Accounts
from app.db import make_engine, once
from tests.administrator import Administrator
from tests.factories import accept_task, make_account, make_key


@pytest.fixture
async def admin(client, services) -> Administrator:
    return await Administrator.make(client, services)


async def test_an_account_is_made_found_changed_suspended_and_resumed(admin, services):
    word = uuid4().hex
    made = await admin.call("POST", "/accounts", {"email": f"{word}@example.test", "name": "Ada 100%_"}, status=201)
    path = f"/accounts/{made['id']}"

    changed = await admin.call("PATCH", path, {"name": "Ada L.", "max_in_flight": 7})
    suspended = await admin.call("POST", f"{path}/suspend", {"reason": "an unpaid invoice"})
    resumed = await admin.call("POST", f"{path}/resume", {"reason": "it is paid"})
    found = await admin.call("GET", "/accounts", params={"q": word.upper()})
    by_id = await admin.call("GET", "/accounts", params={"q": made["id"], "state": "active", "is_admin": "false"})

    assert (made["credits"], made["state"], made["is_admin"]) == (0, "active", False)
    assert (changed["name"], changed["max_in_flight"]) == ("Ada L.", 7)
    assert (suspended["state"], resumed["state"]) == ("suspended", "active")
    assert found["data"] == by_id["data"] == [resumed]
    rows = await admin.audit(f"account:{made['id'].removeprefix('acct_')}")
    assert [(row["action"], row["reason"]) for row in rows] == [
        ("account.resume", "it is paid"),
        ("account.suspend", "an unpaid invoice"),
        ("account.update", None),
        ("account.create", None),
    ]
    assert all(row["actor"].startswith(admin.account.email) and row["request_id"] for row in rows)


async def test_lists_are_paged_newest_first_and_a_spreadsheet_too(admin, services):
    word = uuid4().hex
    made = [
        (await make_account(services.engine, credits=0, email=f"{word}-{n}@example.test")).public_id for n in range(3)
    ]

    first = await admin.call("GET", "/accounts", params={"q": word, "limit": 2})
    second = await admin.call("GET", "/accounts", params={"q": word, "limit": 2, "after": first["last_id"]})
    sheet = await admin.client.get(
        "/admin/v1/accounts", params={"q": word}, headers=admin.headers | {"accept": "text/csv"}
    )

    assert [row["id"] for row in first["data"] + second["data"]] == made[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [line.split(",")[0] for line in sheet.text.splitlines()] == ["id", *made[::-1]]


async def test_a_closed_account_has_no_way_in_and_keeps_its_books(admin, services, make_caller, client):
    caller = await make_caller()
    path = f"/accounts/{caller.account.public_id}"
    await accept_task(services.engine, caller.key, hold=5)

    busy = await admin.error("POST", f"{path}/close", {"reason": "gone"})
    await once(
        services.engine,
        "SELECT mg_settle(id, NULL, 'cancelled', 0) FROM tasks WHERE account_id = $1",
        (caller.account.id,),
    )
    closed = await admin.call("POST", f"{path}/close", {"reason": "gone"})
    key = await services.keys.get(caller.key.id)
    knock = await client.get("/v1/me", headers=caller.headers)
    again = await admin.error("POST", f"{path}/resume", {"reason": "a mistake"}, status=404)

    assert (busy["reason"], "hold 5 credits" in busy["message"]) == ("account_busy", True)
    assert (closed["state"], closed["credits"], key.state) == ("closed", 1000, "revoked")
    assert (knock.status_code, again["reason"]) == (401, "account_not_found")
    [row, *_] = await admin.audit(f"account:{caller.account.id}")
    assert row["after"] == {"state": "closed", "reason": "gone", "revoked_keys": 1}


async def test_the_last_administrator_stays_one(admin, services):
    others = await once(services.engine, "SELECT id FROM accounts WHERE is_admin AND id <> $1", (admin.account.id,))
    for other in others:
        await services.accounts.update(other["id"], is_admin=False)
    path = f"/accounts/{admin.account.public_id}"

    refused = [
        await admin.error("PATCH", path, {"is_admin": False}),
        await admin.error("POST", f"{path}/suspend", {"reason": "r"}),
        await admin.error("POST", f"{path}/close", {"reason": "r"}),
    ]
    second = await make_account(services.engine, credits=0)
    await admin.call("PATCH", f"/accounts/{second.public_id}", {"is_admin": True})
    demoted = await admin.call("PATCH", path, {"is_admin": False})

    assert {error["reason"] for error in refused} == {"last_admin"}
    assert demoted["is_admin"] is False
    assert (await admin.error("GET", path, status=401))["reason"] == "invalid_api_key"  # it had no other scope


async def test_of_two_administrators_who_demote_each_other_one_stays(fresh_database):
    engine = make_engine(fresh_database(migrated=True), pool_size=4)
    accounts = Accounts(engine)
    one, two = [await make_account(engine, credits=0, is_admin=True) for _ in range(2)]

    results = await asyncio.gather(
        accounts.update(one.id, is_admin=False),
        accounts.suspend(two.id),
        return_exceptions=True,
    )
    left = await once(engine, "SELECT id FROM accounts WHERE is_admin AND state = 'active'")
    await engine.dispose()

    assert sorted(type(result).__name__ for result in results) == ["Account", "LastAdmin"]
    assert len(left) == 1


async def test_the_key_of_a_suspended_administrator_administers_nothing(admin, services):
    other = await Administrator.make(admin.client, services)
    await other.call("GET", "/accounts", params={"limit": 1})

    await admin.call("POST", f"/accounts/{other.account.public_id}/suspend", {"reason": "on leave"})
    refused = await other.error("GET", "/accounts", status=403)
    await admin.call("POST", f"/accounts/{other.account.public_id}/resume", {"reason": "back"})

    assert refused["reason"] == "scope_missing"
    await other.call("GET", "/accounts", params={"limit": 1})


async def test_all_sessions_of_an_account_are_ended_with_a_reason(admin, services):
    account = await make_account(services.engine, credits=0)
    opened = await services.sessions.open(account.id, user_agent=None, peer=None)

    ended = await admin.call("POST", f"/accounts/{account.public_id}/sign-out", {"reason": "a stolen laptop"})
    missing = await admin.error("POST", f"/accounts/{account.public_id}/sign-out", {})

    assert ended == {"object": "sign_out", "account": account.public_id, "sessions": 1}
    assert missing["param"] == "reason"
    assert await services.sessions.find(opened.token) is None
    [row, *_] = await admin.audit(f"account:{account.id}")
    assert (row["action"], row["reason"]) == ("account.sign_out", "a stolen laptop")


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "", {"email": "no address"}, "email"),
        ("POST", "", {}, "email"),
        ("POST", "/{id}/suspend", {}, "reason"),
        ("POST", "/{id}/suspend", {"reason": "  "}, "reason"),
        ("POST", "/{id}/close", {"reason": "two\nlines"}, "reason"),
        ("PATCH", "/{id}", {"max_in_flight": -1}, "max_in_flight"),
        ("PATCH", "/{id}", {"name": "\u0000"}, "name"),
        ("PATCH", "/{id}", {"credits": 5}, "credits"),
    ],
)
async def test_bad_input_names_the_field(admin, method, path, body, param):
    error = await admin.error(method, "/accounts" + path.format(id=admin.account.public_id), body)

    assert error["param"] == param


async def test_an_unknown_account_and_a_strange_word_are_no_fault_of_ours(admin):
    assert (await admin.error("GET", "/accounts/acct_999999999", status=404))["reason"] == "account_not_found"
    assert (await admin.error("GET", "/accounts", params={"after": "nonsense"}))["param"] == "after"
    assert (await admin.call("GET", "/accounts", params={"q": "\x00%'\\"}))["data"] == []
    assert (await make_key(admin.services.engine, admin.account)).secret not in str(await admin.call("GET", "/keys"))
