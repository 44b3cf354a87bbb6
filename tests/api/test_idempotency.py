"""The same request sent again: one task, one charge, the same answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx2 import AsyncClient

from app import db
from app.errors import DatabaseUnavailable
from app.intake import Sent
from app.tasks.idempotency import Idempotency, fingerprint
from app.values import Credits, find_task_id, new_id
from tests.api.bodies import serving
from tests.api.samples import jpeg, png
from tests.api.test_image_stream import frames_of
from tests.factories import make_key, request_of
from tests.ledger.test_money_functions import is_waiting, until
from tests.plugins.gateway import Caller, no_trace, stored_files

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"
VIDEOS = "/v1/videos/generations"
FOX = {"prompt": "a fox"}
REPLAYED = "idempotent-replayed"
MANY = 64


@pytest.fixture
def send(client, caller):
    """Send a body with a key, by default the test's own account's."""

    async def send(path: str, body: dict[str, Any], key: str = "order-7", **headers: str) -> Any:
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.post(path, json=body, headers={**caller.headers, "idempotency-key": key, **more})

    return send


async def tasks_of(caller: Caller) -> list[str]:
    rows = await db.once(
        caller.services.engine, "SELECT id FROM tasks WHERE account_id = $1 ORDER BY id", (caller.account.id,)
    )
    return [str(row["id"]) for row in rows]


async def keys_of(caller: Caller) -> int:
    sql = "SELECT count(*) AS n FROM idempotency WHERE account_id = $1"
    return (await db.once(caller.services.engine, sql, (caller.account.id,)))[0]["n"]


def error_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["reason"]


async def test_an_image_that_is_asked_for_again_is_the_same_and_is_charged_once(send, caller):
    first = await send(GENERATIONS, FOX)
    again = await send(GENERATIONS, FOX)

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert again.headers["x-task-id"] == first.headers["x-task-id"]
    assert again.headers["x-credits-charged"] == first.headers["x-credits-charged"] == "1"
    assert (first.headers.get(REPLAYED), again.headers.get(REPLAYED)) == (None, "true")
    assert await caller.ledger_kinds() == ["capture", "topup"]
    assert "warnings" not in first.json()


async def test_the_field_means_the_same_as_the_header(client, send, caller):
    first = await send(GENERATIONS, FOX)
    again = await client.post(GENERATIONS, json={**FOX, "idempotency_key": "order-7"}, headers=caller.headers)

    assert again.headers[REPLAYED] == "true"
    assert again.json()["id"] == first.json()["id"]


async def test_a_key_for_another_request_is_refused_and_nothing_happens(send, caller):
    await send(GENERATIONS, FOX)

    async with no_trace(caller):
        other = await send(GENERATIONS, {"prompt": "another fox"})
        elsewhere = await send(VIDEOS, FOX)

    assert error_of(other) == error_of(elsewhere) == (400, "idempotency_key_reused")
    assert other.json()["error"]["param"] == "idempotency_key"
    assert "x-task-id" not in other.headers
    assert len(await tasks_of(caller)) == 1


async def test_keys_belong_to_an_account_and_survive_the_rotation_of_its_api_key(client, send, caller, make_caller):
    first = await send(GENERATIONS, FOX)
    rotated = await make_key(caller.services.engine, caller.account)
    stranger = await make_caller()

    again = await send(GENERATIONS, FOX, authorization=f"Bearer {rotated.secret}")
    theirs = await send(GENERATIONS, FOX, **stranger.headers)

    assert again.json()["id"] == first.json()["id"]
    assert theirs.status_code == 200
    assert theirs.json()["id"] != first.json()["id"]
    assert REPLAYED not in theirs.headers


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"models": ["veo3.1-fast"]}, "model_not_allowed"), ({"scopes": ["videos:write"]}, "scope_missing")],
)
async def test_a_key_that_may_not_use_the_model_or_the_route_learns_nothing(send, caller, limits, reason):
    first = await send(GENERATIONS, FOX)
    narrow = await make_key(caller.services.engine, caller.account, **limits)

    again = await send(GENERATIONS, FOX, authorization=f"Bearer {narrow.secret}")

    assert error_of(again) == (403, reason)
    assert first.json()["id"] not in again.text + str(again.headers)


async def test_a_form_is_known_again_by_its_fields_and_files(client, caller):
    headers = {**caller.headers, "idempotency-key": "order-7"}
    form = {"prompt": "make it night", "size": "16:9"}
    first = await client.post(EDITS, data=form, files={"image": ("a.png", png())}, headers=headers)
    before = stored_files(caller.services)

    again = await client.post(
        EDITS, data=dict(reversed(form.items())), files={"image": ("b.bin", png())}, headers=headers
    )
    other = await client.post(EDITS, data=form, files={"image": ("a.png", jpeg())}, headers=headers)

    assert first.status_code == 200
    assert again.content == first.content
    assert error_of(other) == (400, "idempotency_key_reused")
    assert stored_files(caller.services) == before


async def test_references_are_not_fetched_again(send, caller, file_server):
    url = file_server.url(f"{uuid4().hex}.png", png())
    first = await send(EDITS, {"prompt": "make it night", "image": url})
    hits = len(file_server.hits)
    file_server.files.clear()

    again = await send(EDITS, {"prompt": "make it night", "image": url})

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert len(file_server.hits) == hits


async def test_a_stream_that_is_asked_for_again_ends_with_the_same_image(send, caller):
    body = {**FOX, "stream": True, "partial_images": 2}
    first = await send(GENERATIONS, body)
    again = await send(GENERATIONS, body)

    (name, made), (_, repeated) = frames_of(first.text)[-1], frames_of(again.text)[-1]
    assert [frame[0] for frame in frames_of(again.text)] == [name]
    assert (repeated["id"], repeated["b64_json"]) == (made["id"], made["b64_json"])
    assert (again.headers[REPLAYED], again.headers["x-task-id"]) == ("true", made["id"])
    assert await caller.ledger_kinds() == ["capture", "topup"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (GENERATIONS, {**FOX, "async": True}, 202),
        (VIDEOS, FOX, 200),
        ("/v1/videos", FOX, 200),
    ],
    ids=["async", "task", "openai"],
)
async def test_a_task_that_is_asked_for_again_is_shown_as_it_stands(client, send, caller, path, body, status):
    first = await send(path, body)
    again = await send(path, body)
    await client.post(f"/v1/tasks/{first.json()['id']}/cancel", headers=caller.headers)
    ended = await send(path, body)

    assert [answer.status_code for answer in (first, again, ended)] == [status] * 3
    assert again.json() == first.json()
    assert first.json()["status"] == "queued"
    assert ended.json()["status"] == ("failed" if path == "/v1/videos" else "cancelled")
    assert (again.headers[REPLAYED], ended.headers[REPLAYED]) == ("true", "true")
    assert len(await tasks_of(caller)) == 1


async def test_a_failure_that_is_asked_for_again_is_the_same_failure(send, caller):
    body = {"prompt": "a fox [[fail]]"}
    first = await send(GENERATIONS, body)
    again = await send(GENERATIONS, body)

    assert error_of(first) == error_of(again) == (502, "upstream_error")
    assert again.headers["x-task-id"] == first.headers["x-task-id"]
    assert (again.headers[REPLAYED], again.headers["x-should-retry"]) == ("true", "false")
    assert len(await tasks_of(caller)) == 1
    assert (await caller.balance()).credits == 1000


async def test_what_was_not_accepted_is_judged_afresh(send, caller, services, make_caller):
    poor = await make_caller(credits=0)
    refused = await send(GENERATIONS, FOX, **poor.headers)
    wrong = await send(GENERATIONS, {"prompt": "a fox", "n": 2}, **poor.headers)
    left = await keys_of(poor)
    await services.ledger.top_up(poor.account.id, Credits(5), ref=uuid4().hex, actor="test")

    made = await send(GENERATIONS, FOX, **poor.headers)

    assert error_of(refused) == (402, "insufficient_credits")
    assert wrong.status_code == 400
    assert left == 0
    assert made.status_code == 200
    assert REPLAYED not in made.headers


async def test_a_task_that_its_owner_deleted_is_gone_for_its_key_too(client, send, caller):
    first = await send(GENERATIONS, FOX)
    await client.delete(f"/v1/tasks/{first.json()['id']}", headers=caller.headers)

    again = await send(GENERATIONS, FOX)

    assert error_of(again) == (410, "result_expired")
    assert len(await tasks_of(caller)) == 1


async def test_a_remix_is_known_by_its_source_too(send, caller):
    """The sources do not exist: the second one is judged, not taken for the first."""
    answers = [await send(f"/v1/videos/task_{letter * 26}/remix", FOX) for letter in "01"]

    assert [error_of(answer) for answer in answers] == [(404, "task_not_found")] * 2
    assert await keys_of(caller) == 0


async def test_many_at_once_make_one_task_and_all_get_the_same_answer(app, caller):
    headers = {**caller.headers, "idempotency-key": "order-7"}
    async with serving(app) as port, AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        answers = await asyncio.gather(*(client.post(GENERATIONS, json=FOX, headers=headers) for _ in range(MANY)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum(REPLAYED in answer.headers for answer in answers) == MANY - 1
    assert len(await tasks_of(caller)) == 1
    assert await caller.ledger_kinds() == ["capture", "topup"]
    assert (await caller.balance()).credits == 999


async def test_of_many_at_once_with_files_the_losers_leave_nothing_behind(client, caller):
    before = stored_files(caller.services)
    headers = {**caller.headers, "idempotency-key": "order-7"}

    answers = await asyncio.gather(
        *(client.post(EDITS, data={"prompt": "night"}, files={"image": png()}, headers=headers) for _ in range(8))
    )

    assert {answer.status_code for answer in answers} == {200}
    assert len(stored_files(caller.services) - before) == 2  # the input, the result


async def test_of_different_requests_at_once_with_one_key_one_is_made(client, caller):
    headers = {**caller.headers, "idempotency-key": "order-7"}

    answers = await asyncio.gather(
        *(client.post(VIDEOS, json={"prompt": f"a river {number % 4}"}, headers=headers) for number in range(16))
    )

    made = [answer for answer in answers if answer.status_code == 200]
    assert len({answer.json()["id"] for answer in made}) == 1
    assert {error_of(answer) for answer in answers if answer not in made} == {(400, "idempotency_key_reused")}
    assert (len(made), len(await tasks_of(caller))) == (4, 1)


async def test_of_many_without_credit_each_is_refused_and_none_is_kept(client, make_caller):
    poor = await make_caller(credits=0)
    headers = {**poor.headers, "idempotency-key": "order-7"}

    answers = await asyncio.gather(*(client.post(GENERATIONS, json=FOX, headers=headers) for _ in range(8)))

    assert {error_of(answer) for answer in answers} == {(402, "insufficient_credits")}
    assert (await tasks_of(poor), await keys_of(poor)) == ([], 0)


async def test_a_first_request_that_does_not_end_lets_the_second_try_later(client, send, caller, services):
    async with services.engine.connect() as connection:  # the first one's transaction: open, and then rolled back
        await connection.exec_driver_sql(
            "INSERT INTO idempotency (account_id, idem_key, fingerprint, task_id) VALUES ($1, 'order-7', 'x', $2)",
            (caller.account.id, uuid4()),
        )
        started_at = time.monotonic()
        busy = await send(GENERATIONS, FOX)
        waited_s = time.monotonic() - started_at
    made = await send(GENERATIONS, FOX)

    assert error_of(busy) == (503, "database_unavailable")
    assert (busy.headers["retry-after"], busy.headers["x-should-retry"]) == ("1", "true")
    assert waited_s < 4
    assert made.status_code == 200


async def test_keys_are_forgotten_after_two_days_when_their_results_are_gone(send, caller, services):
    made = await send(GENERATIONS, FOX, key="made")
    failed = await send(GENERATIONS, {"prompt": "a fox [[fail]]"}, key="failed")
    open_task = await send(VIDEOS, FOX, key="open")
    await send(VIDEOS, FOX, key="young")
    await db.once(
        services.engine,
        "UPDATE idempotency SET created_at = now() - interval '49 hours' WHERE account_id = $1 AND idem_key <> 'young'",
        (caller.account.id,),
    )

    await services.retention.run_once()
    left = await keys_of(caller)
    await db.once(
        services.engine,
        "UPDATE files SET expires_at = now() - interval '1 second' WHERE task_id = $1",
        (find_task_id(made.json()["id"]),),
    )
    await services.retention.run_once()

    assert failed.status_code == 502
    assert open_task.json()["status"] == "queued"
    assert (left, await keys_of(caller)) == (3, 2)


async def test_the_document_has_the_header_of_the_request_and_of_the_answer_on_every_route_that_makes_a_task(client):
    paths = (await client.get("/openapi.json")).json()["paths"]

    keyed = {
        (path, status)
        for path, methods in paths.items()
        for operation in methods.values()
        if "Idempotency-Key" in {parameter["name"] for parameter in operation.get("parameters", ())}
        for status, answer in operation["responses"].items()
        if REPLAYED in answer.get("headers", {})
    }
    assert keyed == {
        (GENERATIONS, "200"),
        (GENERATIONS, "202"),
        (EDITS, "200"),
        (EDITS, "202"),
        ("/v1/videos", "200"),
        (VIDEOS, "200"),
        ("/v1/videos/{video_id}/remix", "200"),
    }


# --- an SDK's own retry, which has no key ---------------------------------------------------------------------------


async def unheard(caller: Caller, *ids: str) -> None:
    """Let the answers about these tasks have been lost on their way."""
    await caller.services.idempotency.close()  # marks what has left
    await db.once(
        caller.services.engine,
        "UPDATE tasks SET delivered_at = NULL WHERE id = ANY($1::uuid[])",
        ([find_task_id(task_id) for task_id in ids],),
    )


@pytest.fixture
def retry(client, caller):
    async def retry(path: str, body: dict[str, Any], **headers: str) -> Any:
        return await client.post(path, json=body, headers={**caller.headers, "x-stainless-retry-count": "1", **headers})

    return retry


async def test_a_retry_whose_first_answer_was_lost_gets_it(client, caller, retry, services):
    first = await client.post(GENERATIONS, json=FOX, headers=caller.headers)
    await unheard(caller, first.json()["id"])
    joins = services.idempotency.joins

    again = await retry(GENERATIONS, FOX)

    assert again.content == first.content
    assert again.headers[REPLAYED] == "true"
    assert services.idempotency.joins == joins + 1
    assert await caller.ledger_kinds() == ["capture", "topup"]


async def test_a_retry_whose_first_answer_arrived_is_a_new_request(client, caller, retry, services):
    first = await client.post(GENERATIONS, json=FOX, headers=caller.headers)
    async with asyncio.timeout(30):
        while not await is_delivered(caller, first.json()["id"]):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)

    again = await retry(GENERATIONS, FOX)

    assert REPLAYED not in again.headers
    assert again.json()["id"] != first.json()["id"]


async def is_delivered(caller: Caller, public_id: str) -> bool:
    rows = await db.once(
        caller.services.engine, "SELECT delivered_at FROM tasks WHERE id = $1", (find_task_id(public_id),)
    )
    return rows[0]["delivered_at"] is not None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GENERATIONS, FOX),
        (GENERATIONS, {**FOX, "stream": True}),
        (GENERATIONS, {**FOX, "async": True}),
        (GENERATIONS, {"prompt": "a fox [[fail]]"}),
        (VIDEOS, FOX),
    ],
    ids=["image", "stream", "async", "error", "video"],
)
async def test_every_answer_about_a_task_counts_as_delivered_once_it_has_left(client, caller, services, path, body):
    answer = await client.post(path, json=body, headers=caller.headers)
    await services.idempotency.close()

    assert await is_delivered(caller, answer.headers["x-task-id"])


async def test_two_identical_requests_are_two_tasks_and_their_retries_get_one_each(client, caller, retry):
    firsts = await asyncio.gather(*(client.post(VIDEOS, json=FOX, headers=caller.headers) for _ in range(2)))
    ids = {answer.json()["id"] for answer in firsts}
    await unheard(caller, *ids)

    retries = await asyncio.gather(*(retry(VIDEOS, FOX) for _ in range(2)))

    assert len(ids) == 2
    assert {answer.json()["id"] for answer in retries} == ids
    assert len(await tasks_of(caller)) == 2


async def test_a_retry_after_a_failure_gets_the_failure_and_no_second_try(client, caller, retry):
    body = {"prompt": "a fox [[fail]]"}
    first = await client.post(GENERATIONS, json=body, headers=caller.headers)
    await unheard(caller, first.headers["x-task-id"])

    again = await retry(GENERATIONS, body)

    assert error_of(again) == (502, "upstream_error")
    assert again.headers["x-task-id"] == first.headers["x-task-id"]
    assert (await caller.balance()).credits == 1000


@pytest.mark.parametrize(
    "change",
    [
        "created_at = now() - interval '16 minutes'",
        "cancel_requested_at = now()",
        "deleted_at = now()",
        "delivered_at = now()",
    ],
    ids=["old", "to be cancelled", "deleted", "delivered"],
)
async def test_a_task_that_is_past_joining_is_left_alone(client, caller, retry, services, change):
    first = await client.post(VIDEOS, json=FOX, headers=caller.headers)
    await unheard(caller, first.json()["id"])
    owner = db.make_engine(services.settings.database_url.get_secret_value(), role=None, pooled=False)
    await db.once(owner, f"UPDATE tasks SET {change} WHERE id = $1", (find_task_id(first.json()["id"]),))  # noqa: S608
    await owner.dispose()

    assert (await retry(VIDEOS, FOX)).json()["id"] != first.json()["id"]


@asynccontextmanager
async def on_its_way(caller: Caller) -> AsyncIterator[tuple[UUID, Any]]:
    """The first request's hold in a transaction that is still open."""
    task_id, sent = new_id(), fingerprint("POST", VIDEOS, FOX)
    async with caller.services.engine.connect() as connection:
        await connection.exec_driver_sql(
            "SELECT mg_accept($1, $2, 'video', 'seedance-2.0', 'demo/x', 1, 900.0, $3::text::jsonb, '[]', NULL, $4)",
            (task_id, caller.key.id, json.dumps(request_of("video.generate")), sent),
        )
        yield task_id, connection


async def test_a_retry_waits_for_a_first_request_whose_hold_is_on_its_way(caller, retry, services):
    async with on_its_way(caller) as (task_id, connection):
        asking = asyncio.create_task(retry(VIDEOS, FOX))
        await until(lambda: is_waiting(services.engine, connection))
        await connection.commit()
        again = await asking

    assert find_task_id(again.json()["id"]) == task_id
    assert await tasks_of(caller) == [str(task_id)]


async def test_a_retry_whose_first_request_s_hold_does_not_end_is_told_to_come_back(caller, services):
    url = services.settings.database_url.get_secret_value()
    hasty = db.make_engine(url, pooled=False, session={"lock_timeout": "20ms"})
    retry = Sent(fingerprint("POST", VIDEOS, FOX), is_retry=True)

    async with on_its_way(caller):
        with pytest.raises(DatabaseUnavailable) as caught:
            await Idempotency(hasty, joins_retries=True).find(retry, account_id=caller.account.id, key_id=caller.key.id)

    assert caught.value.retry_after_s == 1


async def test_a_retry_by_another_key_or_of_another_request_is_a_new_one(client, caller, retry):
    first = await client.post(VIDEOS, json=FOX, headers=caller.headers)
    await unheard(caller, first.json()["id"])
    other_key = await make_key(caller.services.engine, caller.account)

    answers = [
        await retry(VIDEOS, FOX, authorization=f"Bearer {other_key.secret}"),
        await retry(VIDEOS, {"prompt": "another fox"}),
        await retry("/v1/videos", FOX),
        await retry(VIDEOS, FOX, **{"idempotency-key": "order-7"}),
    ]

    assert first.json()["id"] not in {answer.json()["id"] for answer in answers}
    assert len(await tasks_of(caller)) == 5


async def test_joining_retries_can_be_switched_off(client, caller, retry, services, monkeypatch):
    first = await client.post(VIDEOS, json=FOX, headers=caller.headers)
    await unheard(caller, first.json()["id"])
    monkeypatch.setattr(services.idempotency, "_joins_retries", False)

    assert (await retry(VIDEOS, FOX)).json()["id"] != first.json()["id"]


# --- whether to send it again ---------------------------------------------------------------------------------------


async def test_an_answer_that_fails_after_the_promise_names_the_task_and_forbids_a_retry(
    client, caller, services, monkeypatch
):
    async def gone(task_id: UUID, *, account_id: int | None = None) -> None:
        raise ConnectionResetError("the connection broke")

    monkeypatch.setattr(services.queries, "find", gone)

    answer = await client.post(VIDEOS, json=FOX, headers=caller.headers)

    [task_id] = await tasks_of(caller)
    assert error_of(answer) == (503, "database_unavailable")
    assert answer.headers["x-should-retry"] == "false"
    assert find_task_id(answer.headers["x-task-id"]) == UUID(task_id)
    assert answer.json()["error"]["task_id"] == answer.headers["x-task-id"]


@pytest.mark.parametrize(("credits", "key"), [(10, "order-7"), (0, None)], ids=["key", "penniless"])
async def test_a_look_before_the_promise_that_fails_may_be_tried_again(client, make_caller, monkeypatch, credits, key):
    once = db.once
    caller = await make_caller(credits=credits)
    headers = caller.headers | ({"idempotency-key": key} if key else {})

    async def broken(engine: Any, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        if "FROM idempotency" in sql:
            raise ConnectionResetError("the connection broke")
        return await once(engine, sql, arguments)

    with monkeypatch.context() as patch:
        patch.setattr(db, "once", broken)
        async with no_trace(caller):
            answer = await client.post(GENERATIONS, json=FOX, headers=headers)

    assert error_of(answer) == (503, "database_unavailable")
    assert answer.headers["x-should-retry"] == "true"
