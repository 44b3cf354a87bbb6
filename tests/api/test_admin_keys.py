"""API keys over the administration's API: the secret is in one answer, and what a key may do is set and taken away."""

from __future__ import annotations

import pytest

from app.db import once
from tests.administrator import Administrator
from tests.factories import make_account


@pytest.fixture
async def admin(client, services) -> Administrator:
    return await Administrator.make(client, services)


async def test_a_key_lives_from_its_one_answer_to_its_revocation(admin, services, client):
    account = await make_account(services.engine)
    body = {"name": "laptop", "budget": 50, "period": "day", "models": ["gpt-image-2"], "cidrs": ["127.0.0.0/8"]}

    made = await admin.call("POST", f"/accounts/{account.email}/keys", body, status=201)
    limited = await admin.call("PUT", f"/keys/{made['id']}/limits", {"budget": 9, "rpm": 60})
    rotated = await admin.call("POST", f"/keys/{made['id']}/rotate", {"overlap_hours": 1}, status=201)
    revoked = await admin.call("POST", f"/keys/{made['id']}/revoke", {"reason": "stolen"})
    read = await admin.call("GET", f"/keys/{rotated['id']}")

    assert (made["last4"], made["state"]) == (made["secret"][-4:], "live")
    assert (made["models"], made["cidrs"]) == (["gpt-image-2"], ["127.0.0.0/8"])
    assert (limited["budget"], limited["period"], limited["rpm"]) == (9, "total", 60)
    assert (rotated["replaces"], rotated["secret"] != made["secret"]) == (made["id"], True)
    assert (revoked["state"], read["state"]) == ("revoked", "live")
    assert rotated["secret"] not in str(read)
    rows = await admin.audit(f"key:{made['id'].removeprefix('key_')}")
    assert [row["action"] for row in rows] == ["key.revoke", "key.rotate", "key.limits", "key.create"]
    assert rows[0]["reason"] == "stolen"
    assert made["secret"] not in str(rows)


async def test_keys_are_found_by_word_account_and_state_page_by_page(admin, services):
    account = await make_account(services.engine)
    ids = []
    for number in range(3):
        minted = await services.keys.mint(account.id, name=f"robot {number}")
        ids.append(minted.public_id)
    await services.keys.revoke(minted.id)
    search = {"account": account.public_id, "limit": 2}

    first = await admin.call("GET", "/keys", params=search)
    second = await admin.call("GET", "/keys", params=search | {"after": first["last_id"]})
    live = await admin.call("GET", "/keys", params=search | {"state": "live", "q": "ROBOT"})
    by_mail = await admin.call("GET", "/keys", params={"q": account.email})
    sheet = await admin.client.get("/admin/v1/keys", params=search, headers=admin.headers | {"accept": "text/csv"})

    assert [key["id"] for key in first["data"] + second["data"]] == ids[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [key["id"] for key in live["data"]] == ids[1::-1]
    assert [key["id"] for key in by_mail["data"]] == ids[::-1]
    assert sheet.text.splitlines()[1].startswith(f"{ids[2]},{account.public_id},{account.email},robot 2,")


async def test_the_consoles_own_key_is_neither_listed_nor_changed(admin, services):
    account = await make_account(services.engine)
    minted = await services.keys.mint(account.id)
    await once(services.engine, "UPDATE api_keys SET is_console = true WHERE id = $1", (minted.id,))
    path = f"/keys/{minted.public_id}"

    listed = await admin.call("GET", "/keys", params={"account": account.public_id})
    refused = [
        await admin.error("POST", f"{path}/revoke", {"reason": "r"}, status=404),
        await admin.error("POST", f"{path}/rotate", {}, status=404),
        await admin.error("PUT", f"{path}/limits", {}, status=404),
    ]

    assert listed["data"] == []
    assert {error["reason"] for error in refused} == {"key_not_found"}
    assert (await services.keys.get(minted.id)).state == "live"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"models": ["no-such-model"]}, 404, "model"),
        ({"scopes": ["admin:*"]}, 400, "scopes"),
        ({"cidrs": ["here"]}, 400, "cidrs"),
        ({"rpm": 0}, 400, "rpm"),
        ({"expires_at": 10**15}, 400, "expires_at"),
        ({"secret": "sk-mg_mine"}, 400, "secret"),
    ],
)
async def test_bad_input_names_the_field(admin, services, body, status, param):
    account = await make_account(services.engine, credits=0)

    error = await admin.error("POST", f"/accounts/{account.public_id}/keys", body, status=status)

    assert error["param"] == param
    assert await services.keys.list(account.id) == []


async def test_a_revocation_wants_a_reason(admin, caller):
    error = await admin.error("POST", f"/keys/{caller.key.public_id}/revoke", {"reason": " "})

    assert (error["param"], (await caller.services.keys.get(caller.key.id)).state) == ("reason", "live")
