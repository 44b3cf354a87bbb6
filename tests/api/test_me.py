"""The caller's account: credits, ledger, usage; as JSON and as a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest


@pytest.fixture
async def spender(client, make_caller):
    """An account with 10 credits that bought one image of each tier: 1, 2 and 3 credits."""
    caller = await make_caller(credits=10, name="ci", budget=100)
    for quality in ("standard", "hd", "uhd"):
        made = await client.post(
            "/v1/images/generations",
            json={"prompt": "a fox", "quality": quality, "response_format": "url", "output_format": "jpeg"},
            headers=caller.headers,
        )
        assert made.status_code == 200, made.text
    return caller


async def test_me_says_who_pays_and_with_what(client, spender):
    me = (await client.get("/v1/me", headers=spender.headers)).json()

    assert me["id"] == spender.account.public_id
    assert (me["email"], me["credits"], me["held"]) == (spender.account.email, 4, 0)
    assert me["key"]["id"] == spender.key.public_id
    assert (me["key"]["name"], me["key"]["last4"]) == ("ci", spender.key.secret[-4:])
    assert (me["key"]["budget"], me["key"]["spent"], me["key"]["expires_at"]) == (100, 6, None)
    assert spender.key.secret not in str(me)


async def test_held_credits_are_not_spendable(client, caller):
    made = await client.post("/v1/videos", json={"prompt": "a boat"}, headers=caller.headers)

    me = (await client.get("/v1/me", headers=caller.headers)).json()

    assert (me["credits"], me["held"]) == (875, 125)
    await client.delete(f"/v1/videos/{made.json()['id']}", headers=caller.headers)


async def test_the_ledger_shows_every_price_with_a_running_balance(client, spender):
    ledger = (await client.get("/v1/me/ledger", headers=spender.headers)).json()

    lines = ledger["data"]
    assert [(line["kind"], line["amount"], line["balance"]) for line in lines] == [
        ("capture", -3, 4),
        ("capture", -2, 7),
        ("capture", -1, 9),
        ("topup", 10, 10),
    ]
    assert [line["seq"] for line in lines] == [4, 3, 2, 1]
    assert (lines[0]["type"], lines[0]["model"]) == ("image.generation", "gpt-image-2")
    assert (lines[0]["key_id"], lines[3]["key_id"]) == (spender.key.public_id, None)
    assert lines[0]["task_id"].startswith("task_")
    assert (ledger["has_more"], ledger["last_seq"]) == (False, 1)


async def test_the_ledger_comes_in_pages(client, spender):
    first = (await client.get("/v1/me/ledger?limit=3", headers=spender.headers)).json()
    second = (await client.get(f"/v1/me/ledger?limit=3&after={first['last_seq']}", headers=spender.headers)).json()

    assert (len(first["data"]), first["has_more"]) == (3, True)
    assert [line["kind"] for line in second["data"]] == ["topup"]
    assert second["has_more"] is False


async def test_the_ledger_is_a_spreadsheet_too(client, spender):
    answer = await client.get("/v1/me/ledger", headers={**spender.headers, "accept": "text/csv"})

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="ledger.csv"'
    assert [row["amount"] for row in rows] == ["-3", "-2", "-1", "10"]


@pytest.mark.parametrize("by", ["day", "model", "key"])
async def test_usage_adds_up_to_what_was_spent(client, spender, by):
    usage = (await client.get(f"/v1/me/usage?by={by}", headers=spender.headers)).json()

    assert (usage["by"], usage["credits"]) == (by, 6)
    assert [(row["tasks"], row["credits"]) for row in usage["data"]] == [(3, 6)]
    expected = {"model": "gpt-image-2", "key": spender.key.public_id}
    assert by == "day" or usage["data"][0]["group"] == expected[by]


async def test_usage_keeps_to_its_period(client, spender):
    today = (await client.get("/v1/me/usage", headers=spender.headers)).json()["data"][0]["group"]

    on_the_day = (await client.get(f"/v1/me/usage?from={today}&to={today}", headers=spender.headers)).json()
    before = (await client.get("/v1/me/usage?from=2020-01-01&to=2020-12-31T10:00:00Z", headers=spender.headers)).json()
    as_csv = await client.get("/v1/me/usage?by=model", headers={**spender.headers, "accept": "text/csv"})

    assert on_the_day["credits"] == 6
    assert before == {"object": "list", "by": "day", "data": [], "credits": 0}
    assert as_csv.text.splitlines() == ["model,tasks,credits", "gpt-image-2,3,6"]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("ledger?limit=0", "limit"),
        ("ledger?after=0", "after"),
        ("ledger?after=99999999999999999999", "after"),
        ("usage?by=hour", "by"),
        ("usage?from=yesterday", "from"),
        ("usage?to=2026-13-01", "to"),
        ("usage?from=2026-02-01&to=2026-01-01", "from"),
        ("usage?from=99999999999999999", "from"),
    ],
)
async def test_a_bad_question_is_400_and_named(client, caller, path, param):
    answer = await client.get(f"/v1/me/{path}", headers=caller.headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["reason"], error["param"]) == (400, "invalid_parameter", param)
