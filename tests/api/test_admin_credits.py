"""Credits by hand over the administration's API: once per reference, audited, and a correction says why."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from app.db import make_engine, once
from app.errors import BelowHeld
from app.journal import Actor
from app.values import task_public_id, utcnow
from tests.administrator import Administrator
from tests.factories import accept_task, finish_task, make_account, make_key


@pytest.fixture
async def admin(client, services) -> Administrator:
    return await Administrator.make(client, services)


async def test_credits_are_sold_given_and_corrected_once_per_reference(admin, services):
    account = await make_account(services.engine, credits=0)
    path, ref = f"/accounts/{account.public_id}/credits", f"invoice-{account.id}"

    sold = await admin.call("POST", path, {"kind": "topup", "amount": 100, "reference": ref})
    again = await admin.call("POST", path, {"kind": "topup", "amount": 100, "reference": ref})
    given = await admin.call("POST", path, {"kind": "grant", "amount": 5, "reason": "welcome"})
    lowered = await admin.call("POST", path, {"kind": "adjust", "amount": -30, "reason": "a mistake"})
    other = await admin.error("POST", path, {"kind": "topup", "amount": 101, "reference": ref})

    assert (sold["balance"], sold["replayed"], again["id"], again["replayed"]) == (100, False, sold["id"], True)
    assert (given["balance"], lowered["balance"], lowered["seq"]) == (105, 75, 3)
    assert "used before" in other["message"]
    rows = await admin.audit(f"account:{account.id}")
    assert [(row["action"], row["reason"]) for row in rows[:3]] == [
        ("credits.adjust", "a mistake"),
        ("credits.grant", "welcome"),
        ("credits.topup", None),
    ]
    assert (rows[0]["before"]["balance"], rows[0]["after"]["balance"]) == (105, 75)


async def test_a_key_adds_once_and_stands_for_one_request_alone(admin, services):
    account, other = [await make_account(services.engine, credits=0) for _ in range(2)]
    path, body = f"/accounts/{account.public_id}/credits", {"kind": "topup", "amount": 100}
    again = {"headers": {**admin.headers, "idempotency-key": "top up 42"}}
    colleague = await Administrator.make(admin.client, services)

    first = await admin.client.post(f"/admin/v1{path}", json=body, **again)
    repeats = await asyncio.gather(*(admin.client.post(f"/admin/v1{path}", json=body, **again) for _ in range(3)))
    changed = [
        await admin.client.post(f"/admin/v1{path}", json=body | more, **again)
        for more in (
            {"amount": 101},
            {"kind": "grant"},
            {"reason": "another"},
            {"expires_at": int(utcnow().timestamp()) + 3600},
        )
    ]
    elsewhere = await admin.client.post(f"/admin/v1/accounts/{other.public_id}/credits", json=body, **again)
    theirs = await admin.client.post(
        f"/admin/v1{path}", json=body, headers={**colleague.headers, "idempotency-key": "top up 42"}
    )
    twice_named = await admin.client.post(f"/admin/v1{path}", json=body | {"reference": "r"}, **again)
    no_key = await admin.client.post(
        f"/admin/v1{path}", json=body, headers={**admin.headers, "idempotency-key": "x" * 256}
    )

    assert "idempotent-replayed" not in first.headers
    for repeat in repeats:
        assert repeat.json() == first.json() | {"replayed": True}
        assert repeat.headers["idempotent-replayed"] == "true"
    for refused in (*changed, elsewhere):
        assert (refused.status_code, refused.json()["error"]["reason"]) == (400, "idempotency_key_reused")
    assert (theirs.status_code, theirs.json()["replayed"]) == (200, False)
    assert (twice_named.status_code, no_key.status_code) == (400, 400)
    assert (await services.ledger.balance(account.id)).credits == 200
    assert (await services.ledger.balance(other.id)).credits == 0


async def test_a_refund_is_repeated_by_its_key(admin, services):
    account = await make_account(services.engine, credits=50)
    key = await make_key(services.engine, account)
    tasks = [task_public_id(await finish_task(services.engine, key, charge=10)) for _ in range(2)]
    again = {"headers": {**admin.headers, "idempotency-key": f"refund {account.id}"}}

    async def refund(task, **body):
        return await admin.client.post(f"/admin/v1/tasks/{task}/refund", json={"reason": "r", **body}, **again)

    first, repeat = await refund(tasks[0], credits=4), await refund(tasks[0], credits=4)
    other, elsewhere = await refund(tasks[0], credits=5), await refund(tasks[1], credits=4)
    rest = await refund(tasks[0])

    assert (first.json()["replayed"], repeat.json()["replayed"]) == (False, True)
    assert repeat.headers["idempotent-replayed"] == "true"
    for refused in (other, elsewhere, rest):
        assert refused.json()["error"]["reason"] == "idempotency_key_reused"


async def test_a_refund_of_all_that_is_left_is_repeated_as_such_and_as_no_number(admin, services):
    account = await make_account(services.engine, credits=50)
    key = await make_key(services.engine, account)
    task = task_public_id(await finish_task(services.engine, key, charge=10))
    again = {"headers": {**admin.headers, "idempotency-key": f"rest {account.id}"}}
    path = f"/admin/v1/tasks/{task}/refund"

    first, repeat = [await admin.client.post(path, json={"reason": "r"}, **again) for _ in range(2)]
    number = await admin.client.post(path, json={"reason": "r", "credits": 10}, **again)

    assert (first.json()["credits"], repeat.json()) == (10, first.json() | {"replayed": True})
    assert number.json()["error"]["reason"] == "idempotency_key_reused"


async def test_credits_that_have_expired_since_are_still_what_their_key_stands_for(admin, services, monkeypatch):
    account, ends = await make_account(services.engine, credits=0), int(utcnow().timestamp()) + 3600
    path = f"/admin/v1/accounts/{account.public_id}/credits"
    body = {"kind": "grant", "amount": 5, "expires_at": ends}
    again = {"headers": {**admin.headers, "idempotency-key": f"expires {account.id}"}}

    first = await admin.client.post(path, json=body, **again)
    monkeypatch.setattr("app.credits.lines.utcnow", lambda: utcnow() + timedelta(hours=2))
    repeat = await admin.client.post(path, json=body, **again)
    new = await admin.client.post(path, json=body, headers=admin.headers)

    assert (first.status_code, repeat.json()["replayed"]) == (200, True)
    assert (new.status_code, new.json()["error"]["param"]) == (400, "expires_at")


async def test_a_key_is_refused_where_a_repeat_could_not_be_answered(admin, services):
    account = await make_account(services.engine)
    key = await make_key(services.engine, account)
    paths = [
        "/accounts",
        f"/accounts/{account.public_id}/keys",
        f"/accounts/{account.public_id}/link",
        f"/keys/{key.public_id}/rotate",
        "/codes",
        "/upstreams",
        "/routes",
        "/models/sora-2/versions",
    ]

    for path in paths:
        answer = await admin.client.post(
            f"/admin/v1{path}", json={}, headers={**admin.headers, "idempotency-key": "mine"}
        )
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key"), path
        assert "Leave the header out" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"kind": "adjust", "amount": 5}, "reason"),
        ({"kind": "adjust", "amount": 5, "reason": " "}, "reason"),
        ({"kind": "adjust", "amount": 0, "reason": "r"}, "amount"),
        ({"kind": "topup", "amount": -5}, "amount"),
        ({"kind": "topup", "amount": 2**53}, "amount"),
        ({"kind": "topup", "amount": 1.5}, "amount"),
        ({"kind": "gift", "amount": 5}, "kind"),
        ({"kind": "topup", "amount": 5, "reference": "\u0007"}, "reference"),
        ({"kind": "topup", "amount": 5, "expires_at": 1}, "expires_at"),
    ],
)
async def test_bad_input_names_the_field_and_moves_nothing(admin, services, body, param):
    account = await make_account(services.engine, credits=50)

    error = await admin.error("POST", f"/accounts/{account.public_id}/credits", body)

    assert (error["param"], (await services.ledger.balance(account.id)).credits) == (param, 50)


async def test_a_preview_tells_what_a_correction_would_do_and_what_is_held_stays(admin, services):
    account = await make_account(services.engine, credits=50)
    await accept_task(services.engine, await make_key(services.engine, account), hold=20)

    fine = await services.ledger.preview(account.id, -30)
    too_much = await services.ledger.preview(account.id, -31)
    error = await admin.error(
        "POST", f"/accounts/{account.public_id}/credits", {"kind": "adjust", "amount": -31, "reason": "r"}
    )

    assert (fine.before.credits, fine.after.credits, fine.after.held, fine.problem) == (30, 0, 20, None)
    assert isinstance(too_much.problem, BelowHeld)
    assert (error["reason"], error["message"]) == ("below_held", too_much.problem.message)


async def test_credits_with_a_date_are_taken_away_after_it_but_for_what_is_held(services, settings):
    account = await make_account(services.engine, credits=0)
    soon = utcnow() + timedelta(hours=1)
    await services.ledger.post(account.id, "grant", 100, actor=Actor("test"), expires_at=soon)
    await accept_task(services.engine, await make_key(services.engine, account), hold=40)
    owner = make_engine(settings.database_url.get_secret_value(), role=None, pooled=False)
    await once(owner, "UPDATE credit_lots SET expires_at = now() WHERE account_id = $1", (account.id,))
    await owner.dispose()

    await services.ledger.expire_due()
    await services.ledger.expire_due()

    balance = await services.ledger.balance(account.id)
    assert (balance.credits, balance.held) == (0, 40)
    assert [entry.amount for entry in (await services.statements.ledger(account.id)).entries] == [-60, 100]


async def test_the_ledger_is_filtered_paged_and_a_spreadsheet(admin, services):
    account = await make_account(services.engine, credits=100)
    key = await make_key(services.engine, account)
    for _ in range(2):
        await finish_task(services.engine, key, hold=7)
    path = f"/accounts/{account.public_id}/ledger"

    first = await admin.call("GET", path, params={"limit": 2})
    second = await admin.call("GET", path, params={"limit": 2, "after": first["last_id"]})
    sold = await admin.call("GET", path, params={"kind": "topup", "from": "2020-01-01"})
    past = await admin.call("GET", path, params={"to": "2020-01-01"})
    sheet = await admin.client.get(f"/admin/v1{path}", headers=admin.headers | {"accept": "text/csv"})
    unknown = await admin.error("GET", path, params={"kind": "gift"})

    assert [line["balance"] for line in first["data"] + second["data"]] == [86, 93, 100]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [(line["kind"], line["actor"]) for line in sold["data"]] == [("topup", "test")]
    assert (past["data"], unknown["param"]) == ([], "kind")
    assert len(sheet.text.splitlines()) == 4


async def test_usage_is_told_by_day_and_model_or_key(admin, services):
    account = await make_account(services.engine, credits=100)
    key = await make_key(services.engine, account)
    for model in ("model-a", "model-a", "model-b"):
        await finish_task(services.engine, key, hold=7, model=model)
    path = f"/accounts/{account.public_id}/usage"

    by_model = await admin.call("GET", path)
    by_key = await admin.call("GET", path, params={"by": "key"})
    sheet = await admin.client.get(f"/admin/v1{path}", headers=admin.headers | {"accept": "text/csv"})

    assert [(cell["group"], cell["tasks"], cell["credits"]) for cell in by_model["data"]] == [
        ("model-a", 2, 14),
        ("model-b", 1, 7),
    ]
    assert [(cell["group"], cell["credits"]) for cell in by_key["data"]] == [(key.public_id, 21)]
    assert sheet.text.splitlines()[0] == "day,model,tasks,credits"
