"""Tasks in an administrator's hands: found, told whole, cancelled, resolved and refunded, all audited."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx2 import AsyncClient

from app import db
from app.credits.lines import Balance
from app.errors import DatabaseUnavailable
from app.generation.timeline import fault_of
from app.values import Credits, new_id, task_public_id
from tests.factories import accept_task, finish_task, make_account, make_key, request_of
from tests.plugins.gateway import Caller

PATHS = [("GET", ""), ("GET", "/x"), *(("POST", f"/x/{word}") for word in ("cancel", "resolve", "refund"))]


@dataclass
class Admin:
    client: AsyncClient
    services: Any
    name: str
    """What the audit calls this administrator."""

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        if body is not None:
            more["content"] = json.dumps(body)
        answer = await self.client.request(method, f"/admin/v1/tasks{path}", **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def error(self, method: str, path: str, body: Any = None, *, status: int = 400, **more: Any) -> Any:
        return (await self.call(method, path, body, status=status, **more))["error"]

    async def ids(self, **query: Any) -> list[str]:
        return [task["id"] for task in (await self.call("GET", "", params=query))["data"]]

    async def audit_of(self, task: str) -> list[dict[str, Any]]:
        rows = await db.once(
            self.services.engine, "SELECT * FROM audit WHERE target = $1 ORDER BY id", (f"task:{task}",)
        )
        return [dict(row) for row in rows]


@pytest.fixture
async def admin(client: AsyncClient, services: Any) -> AsyncIterator[Admin]:
    account = await make_account(services.engine, is_admin=True)
    key = await make_key(services.engine, account, scopes=["admin:*"])
    client.headers["authorization"] = f"Bearer {key.secret}"
    return Admin(client, services, f"{account.email} (key_{key.id})")


async def finished(caller: Caller, **more: Any) -> str:
    return task_public_id(await finish_task(caller.services.engine, caller.key, **more))


async def waiting(caller: Caller, **more: Any) -> str:
    return task_public_id(await accept_task(caller.services.engine, caller.key, **more))


async def submitted(caller: Caller, *, hold: int = 10, sent: bool = True) -> UUID:
    """A task whose one attempt is on its way, by a process that is gone."""
    task_id = new_id()
    await db.once(
        caller.services.engine,
        "SELECT mg_begin($1, $2, 'image', 'model-a', 'test/model-a', $3, 900.0, $4::text::jsonb, '[]', 'test', 'gone', "
        "60, 900, 1000)",
        (task_id, caller.key.id, hold, json.dumps(request_of())),
    )
    return task_id


async def make_uncertain(caller: Caller) -> str:
    task_id = await submitted(caller)
    await db.once(caller.services.engine, "UPDATE tasks SET status = 'uncertain' WHERE id = $1", (task_id,))
    await db.once(
        caller.services.engine,
        "UPDATE task_attempts SET state = 'uncertain', error = 'UpstreamOutcomeUnknown: cut' WHERE task_id = $1",
        (task_id,),
    )
    return task_public_id(task_id)


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_only_a_key_with_the_scope_gets_in(client: AsyncClient, caller: Caller, method: str, path: str):
    nobody = await client.request(method, f"/admin/v1/tasks{path}")
    user = await client.request(method, f"/admin/v1/tasks{path}", headers=caller.headers, content=b"not even read")

    assert nobody.status_code == 401
    assert (user.status_code, user.json()["error"]["reason"]) == (403, "scope_missing")


async def test_a_search_finds_a_task_by_everything_that_is_known_of_it(admin: Admin, caller: Caller):
    model = f"model-{uuid4().hex[:8]}"
    done = await finished(caller, model=model)
    open_one = await waiting(caller, model=model, pool=f"other/{model}")
    token = (await admin.call("GET", f"/{done}"))["attempts"][0]["client_token"]
    job = f"job-{uuid4().hex}"
    await db.once(
        admin.services.engine, "UPDATE task_attempts SET upstream_id = $1 WHERE client_token = $2", (job, token)
    )
    await admin.call("POST", f"/{open_one}/resolve", {"reason": "gone", "as": "failed"})

    assert await admin.ids(model=model) == [open_one, done]
    assert (
        await admin.ids(account=caller.account.email) == await admin.ids(key=f"key_{caller.key.id}") == [open_one, done]
    )
    assert await admin.ids(model=model, status="completed") == await admin.ids(model=model, state="succeeded") == [done]
    assert await admin.ids(model=model, status="completed", state="failed") == []
    assert await admin.ids(pool=f"other/{model}") == await admin.ids(upstream="other", model=model) == [open_one]
    assert await admin.ids(upstream_id=job) == await admin.ids(client_token=token) == [done]
    assert await admin.ids(model=model, reason="upstream_error") == [open_one]
    for name in ("upstream", "pool", "reason"):  # a name that is empty is nobody's
        assert await admin.ids(model=model, **{name: ""}) == []
    assert await admin.ids(model=model, status="queued") == []
    assert await admin.ids(model=model, type="image.generation", **{"from": "2026-01-01", "to": "2199-01-01"}) != []
    assert await admin.ids(model=model, to="2025-01-01") == []


async def test_pages_follow_each_other_and_a_spreadsheet_has_the_same_lines(admin: Admin, caller: Caller):
    model = f"model-{uuid4().hex[:8]}"
    tasks = [await waiting(caller, model=model) for _ in range(3)]

    first = await admin.call("GET", "", params={"model": model, "limit": 2})
    second = await admin.call("GET", "", params={"model": model, "limit": 2, "after": first["last_id"]})
    sheet = await admin.client.get("/admin/v1/tasks", params={"model": model}, headers={"accept": "text/csv"})

    assert [task["id"] for task in first["data"] + second["data"]] == tasks[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert sheet.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(sheet.text)))
    assert [(line["id"], line["hold"], line["charge"]) for line in lines] == [(task, "10", "") for task in tasks[::-1]]


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ({"after": "task_x"}, 400, "after"),
        ({"limit": 1001}, 400, "limit"),
        ({"state": "odd"}, 400, "state"),
        ({"from": "yesterday"}, 400, "from"),
        ({"model": "a\x00b"}, 400, "model"),
        ({"account": "nobody@example.test"}, 404, None),
        ({"key": "sk-mg_oops"}, 404, None),
    ],
)
async def test_a_search_that_makes_no_sense_names_the_field(
    admin: Admin, query: dict[str, Any], status: int, param: Any
):
    assert (await admin.error("GET", "", status=status, params=query))["param"] == param


async def test_a_task_tells_its_whole_story(admin: Admin, caller: Caller):
    task = await finished(caller, hold=30, charge=20)
    await admin.call("POST", f"/{task}/refund", {"reason": "too dark", "credits": 5})

    told = await admin.call("GET", f"/{task}")

    assert (told["email"], told["key"], told["hold"], told["charge"]) == (
        caller.account.email,
        f"key_{caller.key.id}",
        30,
        20,
    )
    assert (told["state"], told["refunded"], told["wake_at"]) == ("succeeded", 5, None)
    [attempt] = told["attempts"]
    assert (attempt["attempt_no"], attempt["provider"], attempt["pool"]) == (1, "test", "test/model-a")
    assert (attempt["state"], attempt["fault"]) == ("done", None)
    assert [(line["kind"], line["amount"], line["actor"]) for line in told["ledger"]] == [
        ("capture", -20, "system"),
        ("refund", 5, admin.name),
    ]
    assert [(deed["action"], deed["actor"], deed["after"]["reason"]) for deed in told["actions"]] == [
        ("task.refund", admin.name, "too dark")
    ]
    assert [file["role"] for file in told["files"]] == ["result"]
    events = [event["what"] for event in told["events"]]
    assert events[:2] == ["accepted", "hold"]
    assert {"submitting", "attempt.sent", "storing", "succeeded", "attempt.resolved", "capture", "release"} <= set(
        events
    )
    assert events.index("storing") < events.index("succeeded") < events.index("task.refund")
    assert [event["at"] for event in told["events"]] == sorted(event["at"] for event in told["events"])
    assert "a fox" not in json.dumps(told)  # the prompt is its owner's


async def test_a_task_that_is_not_there_is_404(admin: Admin):
    missing = task_public_id(new_id())
    for method, path, body in (
        ("GET", "", None),
        ("POST", "/cancel", {"reason": "x"}),
        ("POST", "/resolve", {"reason": "x", "as": "failed"}),
        ("POST", "/refund", {"reason": "x"}),
    ):
        assert (await admin.error(method, f"/{missing}{path}", body, status=404))["reason"] == "task_not_found"
        assert (await admin.error(method, f"/nonsense{path}", body, status=404))["reason"] == "task_not_found"


async def test_a_queued_task_is_cancelled_at_once_and_noted_with_its_money(admin: Admin, caller: Caller):
    task = await waiting(caller, hold=7)

    told = await admin.call("POST", f"/{task}/cancel", {"reason": "asked by mail"}, headers={"x-request-id": "req_1"})
    again = await admin.call("POST", f"/{task}/cancel", {"reason": "asked by mail"})

    assert told["status"] == again["status"] == "cancelled"
    assert await caller.balance() == Balance(Credits(1000), Credits(0))
    [noted] = await admin.audit_of(task)
    assert (noted["actor"], noted["action"], noted["request_id"]) == (admin.name, "task.cancel", "req_1")
    assert noted["before"] == {"status": "queued", "hold": 7, "charge": None}
    assert noted["after"] == {"status": "cancelled", "hold": 7, "charge": 0, "reason": "asked by mail"}


async def test_a_submitted_task_is_asked_to_stop(admin: Admin, caller: Caller):
    task = task_public_id(await submitted(caller))

    told = await admin.call("POST", f"/{task}/cancel", {"reason": "asked by mail"})

    assert (told["status"], told["cancel_requested_at"] is not None) == ("in_progress", True)
    assert [row["action"] for row in await admin.audit_of(task)] == ["task.cancel"]


async def test_an_uncertain_task_is_ended_by_hand_as_failed_only(admin: Admin, caller: Caller):
    task = await make_uncertain(caller)

    refused = await admin.error("POST", f"/{task}/resolve", {"reason": "lost", "as": "cancelled"})
    told = await admin.call("POST", f"/{task}/resolve", {"reason": "the vendor lost it", "as": "failed"})
    late = await admin.error("POST", f"/{task}/resolve", {"reason": "again", "as": "failed"})

    assert (refused["param"], late["reason"]) == ("as", "task_ended")
    assert (told["status"], told["charge"], told["error"]["reason"]) == ("failed", 0, "upstream_error")
    assert "No credits were charged" in told["error"]["message"]
    assert (told["attempts"][0]["state"], told["attempts"][0]["fault"]) == ("lost", "lost")
    assert (await caller.balance()).held == 0
    [noted] = await admin.audit_of(task)
    assert (noted["action"], noted["before"]["status"], noted["after"]["released"]) == ("task.resolve", "uncertain", 10)


@pytest.mark.parametrize(("word", "more"), [("cancel", {}), ("resolve", {"as": "failed"})])
async def test_a_deed_whose_result_cannot_be_read_is_not_sent_again(
    admin: Admin, caller: Caller, monkeypatch: pytest.MonkeyPatch, word: str, more: dict[str, str]
):
    async def gone(public_id: str) -> None:
        raise DatabaseUnavailable("The database is not reachable just now. Try again.", retry_after_s=2)

    task = await waiting(caller)
    monkeypatch.setattr(admin.services.timelines, "get", gone)

    answer = await admin.client.post(f"/admin/v1/tasks/{task}/{word}", content=json.dumps({"reason": "x"} | more))

    assert (answer.status_code, answer.headers["x-should-retry"], answer.headers["x-task-id"]) == (503, "false", task)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_a_queued_task_is_resolved_either_way(admin: Admin, caller: Caller, end: str):
    task = await waiting(caller)

    assert (await admin.call("POST", f"/{task}/resolve", {"reason": "stuck", "as": end}))["status"] == end


async def test_a_refund_is_given_once_and_never_above_the_charge(admin: Admin, caller: Caller):
    task = await finished(caller, hold=30, charge=20)
    part = {"reason": "too dark", "credits": 5}

    first = await admin.call("POST", f"/{task}/refund", part)
    repeat = await admin.call("POST", f"/{task}/refund", part)
    other = await admin.call("POST", f"/{task}/refund", part | {"reference": "ticket 2"})
    above = await admin.error("POST", f"/{task}/refund", {"reason": "more", "credits": 11})
    reused = await admin.error("POST", f"/{task}/refund", {"reason": "x", "credits": 6, "reference": "ticket 2"})
    named = await admin.call("POST", f"/{task}/refund", {"reason": "x", "credits": 1, "reference": "5"})
    named_rest = await admin.call("POST", f"/{task}/refund", {"reason": "x", "credits": 1, "reference": "rest"})
    rest = await admin.call("POST", f"/{task}/refund", {"reason": "all of it"})
    rest_again = await admin.call("POST", f"/{task}/refund", {"reason": "all of it"})
    nothing = await admin.error("POST", f"/{task}/refund", {"reason": "more", "credits": 1})

    assert (first["credits"], first["replayed"], repeat["replayed"]) == (5, False, True)
    assert repeat["ledger_id"] == first["ledger_id"] != other["ledger_id"]
    assert above["param"] == reused["param"] == "credits"
    assert (named["replayed"], named_rest["replayed"], rest["replayed"]) == (False, False, False)
    assert (rest["credits"], rest_again["credits"], rest_again["replayed"]) == (8, 8, True)
    assert nothing["reason"] == "nothing_to_refund"
    assert (await caller.balance()).credits == 1000
    noted = await admin.audit_of(task)
    assert [row["after"]["refund"] for row in noted] == [5, 5, 1, 1, 8]
    assert (noted[0]["before"], noted[0]["after"]["balance"]) == ({"charge": 20, "balance": 980}, 985)


async def test_what_was_never_charged_is_not_refunded(admin: Admin, caller: Caller):
    task = await waiting(caller)

    assert (await admin.error("POST", f"/{task}/refund", {"reason": "x"}))["reason"] == "nothing_to_refund"
    assert await admin.audit_of(task) == []


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("cancel", {}, "reason"),
        ("cancel", {"reason": "  "}, "reason"),
        ("cancel", {"reason": "a\nb"}, "reason"),
        ("resolve", {"reason": "x"}, "as"),
        ("resolve", {"reason": "x", "as": "succeeded"}, "as"),
        ("refund", {"reason": "x" * 501}, "reason"),
        ("refund", {"reason": "x", "credits": 0}, "credits"),
        ("refund", {"reason": "x", "credits": 1.5}, "credits"),
        ("refund", {"reason": "x", "reference": "\x07"}, "reference"),
        ("refund", {"reason": "x", "amount": 5}, "amount"),
    ],
)
async def test_an_order_that_makes_no_sense_moves_nothing(
    admin: Admin, caller: Caller, path: str, body: dict[str, Any], param: str
):
    task = await finished(caller)
    before = await caller.balance()

    assert (await admin.error("POST", f"/{task}/{path}", body))["param"] == param
    assert (await caller.balance(), await admin.audit_of(task)) == (before, [])


# --- races ----------------------------------------------------------------------------------------------------------


async def test_one_refund_asked_for_many_times_at_once_is_given_once(admin: Admin, caller: Caller):
    task = await finished(caller, hold=20)

    replies = await asyncio.gather(
        *(admin.call("POST", f"/{task}/refund", {"reason": "too dark", "credits": 8}) for _ in range(8))
    )

    assert sorted(reply["replayed"] for reply in replies) == [False] + [True] * 7
    assert (await caller.balance()).credits == 988
    assert len(await admin.audit_of(task)) == 1


async def test_different_refunds_at_once_stay_within_the_charge(admin: Admin, caller: Caller):
    task = await finished(caller, hold=20)

    async def refund(number: int) -> int:
        body = {"reason": "too dark", "credits": 8, "reference": f"ticket {number}"}
        answer = await admin.client.post(f"/admin/v1/tasks/{task}/refund", content=json.dumps(body))
        return answer.status_code

    statuses = await asyncio.gather(*(refund(number) for number in range(6)))

    assert sorted(statuses) == [200, 200, 400, 400, 400, 400]
    assert (await caller.balance()).credits == 996


async def test_a_task_that_is_resolved_while_its_worker_finishes_is_settled_once(admin: Admin, caller: Caller):
    engine = caller.services.engine

    async def finish(task_id: UUID) -> bool:
        file = {
            "id": str(uuid4()), "role": "result", "position": 0, "storage_key": f"aa/{task_id.hex}",
            "mime": "image/png", "bytes": 9, "sha256": "00" * 32, "width": 8, "height": 8, "ttl_s": 60.0,
        }  # fmt: skip
        rows = await db.once(
            engine, "SELECT mg_finish($1, 1, 10, $2::text::jsonb, '{}') AS ok", (task_id, json.dumps([file]))
        )
        return bool(rows[0]["ok"])

    async def resolve(task_id: UUID) -> bool:
        body = json.dumps({"reason": "stuck", "as": "failed"})
        answer = await admin.client.post(f"/admin/v1/tasks/{task_public_id(task_id)}/resolve", content=body)
        return answer.status_code == 200

    tasks = [await submitted(caller) for _ in range(12)]
    won = [await asyncio.gather(finish(task), resolve(task)) for task in tasks]

    assert all(sorted(pair) == [False, True] for pair in won)
    captured = sum(by_worker for by_worker, _ in won)
    balance = await caller.balance()
    assert (balance.credits, balance.held) == (1000 - 10 * captured, 0)
    assert [line for line in await caller.services.audit.run() if not line.is_clean] == []


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "error", "task_error", "fault"),
    [
        ("done", None, None, None),
        ("accepted", "UpstreamBusy: 429", None, None),
        ("refused", "UpstreamBusy: 429", None, "busy"),
        ("refused", "UpstreamDenied: 401", None, "denied"),
        ("refused", "not in the list", None, "absent"),
        ("refused", None, None, "refused"),
        ("failed", "UpstreamModerated: no", None, "moderation"),
        ("failed", "said no", "content_policy_violation", "moderation"),
        ("failed", "deadline", None, "deadline"),
        ("failed", "given up after 5 claims", None, "poison"),
        ("failed", "resolved by cli:ada", None, "resolved"),
        ("failed", "anything else", None, "failed"),
        ("lost", "UpstreamOutcomeUnknown: cut", None, "lost"),
        ("uncertain", "UpstreamOutcomeUnknown: cut", None, "uncertain"),
    ],
)
def test_a_fault_is_one_word(state: str, error: str | None, task_error: str | None, fault: str | None):
    assert fault_of(state, error, task_error) == fault
