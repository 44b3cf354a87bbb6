"""Redeem codes over HTTP: an administrator makes them, a user redeems one, and nobody reads one again."""

from __future__ import annotations

import pytest

from app.credits.redeem import WRONG_CODES
from tests.administrator import Administrator


@pytest.fixture
async def admin(client, services) -> Administrator:
    return await Administrator.make(client, services)


async def redeem(client, caller, code):
    return await client.post("/v1/me/redeem", json={"code": code}, headers=caller.headers)


async def test_a_code_is_made_redeemed_and_told_about(admin, client, make_caller):
    caller, other = await make_caller(credits=0), await make_caller(credits=0)
    body = {"count": 2, "amount": 100, "note": "Spring fair"}
    batch = await admin.call("POST", "/codes", body, status=201)
    code = batch["codes"][0]

    first = await redeem(client, caller, f" {code.lower().replace('-', ' ')} ")
    again = await redeem(client, caller, code)
    late = await redeem(client, other, code)
    listed = await admin.call("GET", "/codes", params={"batch": batch["id"]})
    found = await admin.call("GET", "/codes", params={"q": caller.account.email, "state": "redeemed"})

    assert (first.status_code, first.json()["credits"], first.json()["balance"]) == (200, 100, 100)
    assert (first.json()["replayed"], again.json()["replayed"]) == (False, True)
    assert (late.status_code, late.json()["error"]["reason"]) == (400, "redeem_code_refused")
    assert [row["state"] for row in listed["data"]] == ["open", "redeemed"]
    assert [row["account"] for row in found["data"]] == [caller.account.public_id]
    assert code not in str(listed)
    [entry] = (await caller.services.statements.ledger(caller.account.id)).entries
    assert (entry.kind, entry.reference, entry.note) == ("grant", first.json()["reference"], "Spring fair")
    [row, *_] = await admin.audit(f"account:{caller.account.id}")
    assert (row["action"], row["after"]["code"], code in str(row)) == ("credits.redeem", found["data"][0]["id"], False)


async def test_a_key_that_only_reads_redeems_nothing(admin, client, make_caller):
    reader = await make_caller(credits=0, scopes=["account:read", "tasks:read"])
    maker = await make_caller(credits=0, scopes=["account:read", "videos:write"])
    code = (await admin.call("POST", "/codes", {"amount": 5}, status=201))["codes"][0]

    refused, taken = await redeem(client, reader, code), await redeem(client, maker, code)

    assert (refused.status_code, refused.json()["error"]["reason"]) == (403, "scope_missing")
    assert (taken.status_code, taken.json()["credits"]) == (200, 5)


async def test_what_nobody_has_redeemed_is_revoked_with_a_reason(admin, client, caller):
    batch = await admin.call("POST", "/codes", {"count": 3, "amount": 5}, status=201)
    used = await redeem(client, caller, batch["codes"][0])
    listed = await admin.call("GET", "/codes", params={"batch": batch["id"], "limit": 2})
    newest, spent = listed["data"][0]["id"], f"code_{used.json()['reference'].removeprefix('redeem:')}"

    one = await admin.call("POST", f"/codes/{newest}/revoke", {"reason": "the wrong address"})
    rest = await admin.call("POST", f"/codes/batches/{batch['id']}/revoke", {"reason": "the fair is over"})
    refused = await admin.error("POST", f"/codes/{spent}/revoke", {"reason": "too late"})
    none = await admin.error("POST", f"/codes/{newest}/revoke", {})
    answer = await redeem(client, caller, batch["codes"][2])

    assert (listed["has_more"], one["state"], rest["revoked"]) == (True, "revoked", 1)
    assert (refused["reason"], none["param"]) == ("redeem_code_used", "reason")
    assert answer.json()["error"]["message"] == "This code was withdrawn."


async def test_wrong_codes_are_counted_by_key_and_then_none_is_looked_at(admin, client, make_caller):
    guesser, bystander = await make_caller(credits=0), await make_caller(credits=0)
    code = (await admin.call("POST", "/codes", {"amount": 5}, status=201))["codes"][0]

    wrong = [(await redeem(client, guesser, "GUESS")).json()["error"]["reason"] for _ in range(WRONG_CODES)]
    right = await redeem(client, guesser, code)
    other = await redeem(client, bystander, code)

    assert set(wrong) == {"redeem_code_refused"}
    assert (right.status_code, right.json()["error"]["reason"]) == (429, "too_many_requests")
    assert (other.status_code, other.json()["balance"]) == (200, 5)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"count": 1001, "amount": 1}, "count"),
        ({"count": 1, "amount": 0}, "amount"),
        ({"amount": 1, "kind": "adjust"}, "kind"),
        ({"amount": 1, "expires_at": 1}, "expires_at"),
        ({"amount": 1, "note": "two\nlines"}, "note"),
    ],
)
async def test_bad_input_names_the_field(admin, body, param):
    assert (await admin.error("POST", "/codes", body))["param"] == param


async def test_a_code_that_is_no_text_or_no_code_is_refused(client, caller):
    for code in ("\u0000", "'; DROP TABLE redeem_codes", "💣"):
        assert (await redeem(client, caller, code)).json()["error"]["reason"] == "redeem_code_refused"
    for body in ({"code": 5}, {"code": ""}, {}, {"code": "x", "account": "acct_1"}):
        assert (await client.post("/v1/me/redeem", json=body, headers=caller.headers)).status_code == 400
