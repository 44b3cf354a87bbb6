"""Tasks over HTTP: reading, waiting, listing, watching, stopping."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import event

from app.db import once
from app.errors import TooManyRequests
from app.generation.tasks import MOST_WATCHED
from app.values import find_task_id, new_id, task_public_id

VIDEO = {"prompt": "a paper boat", "resolution": "480p", "duration": 4}
FIELDS = {
    "id", "task_id", "object", "type", "model", "status", "progress", "prompt", "resolution", "quality", "size",
    "aspect_ratio", "duration", "credits", "credits_held", "created_at", "started_at", "completed_at", "expires_at",
    "image_url", "video_url", "result", "error", "warnings", "metadata",
}  # fmt: skip


@pytest.fixture
async def queued(client, caller):
    """Return a video task that nobody works on."""
    made = await client.post(
        "/v1/videos/generations", json={**VIDEO, "metadata": {"order": "1042"}, "sparkle": 1}, headers=caller.headers
    )
    return made.json()


async def test_a_task_says_everything_there_is_to_say(client, caller, queued):
    task = (await client.get(f"/v1/tasks/{queued['id']}", headers=caller.headers)).json()

    assert set(task) == FIELDS
    assert task == queued
    assert task["metadata"] == {"order": "1042"}
    assert task["warnings"] == ["Unknown field 'sparkle' was ignored."]
    assert (task["result"], task["error"], task["completed_at"], task["video_url"]) == (None, None, None, None)


async def test_a_finished_image_task_has_its_result(client, caller):
    made = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=caller.headers)

    task = (await client.get(f"/v1/tasks/{made.json()['id']}", headers=caller.headers)).json()

    image = task["result"]["images"][0]
    assert (task["type"], task["status"], task["progress"]) == ("image.generation", "completed", 100)
    assert (task["credits"], task["credits_held"], task["quality"]) == (1, 0, "standard")
    assert (image["width"], image["height"], image["content_type"]) == (1024, 1024, "image/png")
    assert task["image_url"] == image["url"]
    assert (await client.get(task["image_url"])).headers["content-length"] == str(image["size_bytes"])
    assert 7 * 86400 - 60 < task["expires_at"] - task["completed_at"] <= 7 * 86400 + 1
    assert task["created_at"] <= task["started_at"] <= task["completed_at"]


async def test_one_id_works_on_every_route(client, caller):
    made = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=caller.headers)
    image_id = made.json()["id"]

    for path in (f"/v1/tasks/{image_id}", f"/v1/images/{image_id}", f"/v1/videos/{image_id}"):
        answer = await client.get(path, headers=caller.headers)
        assert (answer.status_code, answer.json()["id"]) == (200, image_id), path


async def test_a_video_s_id_at_the_images_route_says_where_to_look(client, caller, queued):
    answer = await client.get(f"/v1/images/{queued['id']}", headers=caller.headers)

    assert answer.status_code == 400
    assert f"/v1/videos/{queued['id']}" in answer.json()["error"]["message"]


async def test_every_answer_about_a_task_names_it(client, caller, queued):
    task_id, headers = queued["id"], caller.headers
    await client.post(f"/v1/tasks/{task_id}/cancel", headers=headers)
    running = (await client.post("/v1/videos/generations", json=VIDEO, headers=headers)).json()["id"]
    refusals = {
        "unfinished job": (running, await client.get(f"/api/jobs/{running}/video", headers=headers)),
        "unfinished content": (running, await client.get(f"/v1/videos/{running}/content", headers=headers)),
        "a video as an image": (running, await client.get(f"/v1/images/{running}", headers=headers)),
        "unfinished source": (
            running,
            await client.post(f"/v1/videos/{running}/remix", json={"prompt": "on"}, headers=headers),
        ),
        "failed source": (
            task_id,
            await client.post(f"/v1/videos/{task_id}/remix", json={"prompt": "on"}, headers=headers),
        ),
        "other model": (
            running,
            await client.post(
                f"/v1/videos/{running}/remix", json={"prompt": "on", "model": "veo3.1-fast"}, headers=headers
            ),
        ),
    }
    deleted = [
        (task_id, await client.delete(f"/v1/tasks/{task_id}", headers=headers)),
        (running, await client.delete(f"/v1/videos/{running}", headers=headers)),
    ]

    for name, (expected, answer) in refusals.items():
        assert answer.status_code == 400, name
        assert answer.headers["x-task-id"] == answer.json()["error"]["task_id"] == expected, name
        assert answer.headers["x-should-retry"] == "false", name
    for expected, answer in deleted:
        assert (answer.status_code, answer.headers["x-task-id"]) == (200, expected)


UNKNOWN = {
    "short": "task_x",
    "a word": "nonsense",
    "unknown": task_public_id(new_id()),
    "too large": "task_" + "9" * 26,
    "NUL": "%00",
}


@pytest.mark.parametrize("task_id", UNKNOWN.values(), ids=UNKNOWN)
async def test_an_unknown_id_is_404(client, caller, task_id):
    answer = await client.get(f"/v1/tasks/{task_id}", headers=caller.headers)

    assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "task_not_found")


async def test_waiting_ends_when_the_task_does(client, caller):
    made = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=caller.headers)

    answer = await client.get(f"/v1/tasks/{made.json()['id']}?wait=60", headers=caller.headers)

    assert answer.json()["status"] == "completed"


async def test_waiting_in_vain_answers_with_the_state(client, caller, queued):
    answer = await client.get(f"/v1/tasks/{queued['id']}?wait=0.1", headers=caller.headers)

    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    assert answer.headers["openai-poll-after-ms"] == "2000"


async def test_the_list_can_be_narrowed(client, caller, queued):
    image = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=caller.headers)
    ids = {"image": image.json()["id"], "video": queued["id"]}

    async def listed(query: str) -> list[str]:
        answer = await client.get(f"/v1/tasks?{query}", headers=caller.headers)
        assert answer.status_code == 200, answer.text
        return [task["id"] for task in answer.json()["data"]]

    assert await listed("") == [ids["image"], ids["video"]]
    assert await listed("status=queued") == [ids["video"]]
    assert await listed("status=completed") == [ids["image"]]
    assert await listed("status=failed") == []
    assert await listed("type=image.generation") == [ids["image"]]
    assert await listed(f"model={queued['model']}") == [ids["video"]]
    assert await listed("limit=1") == [ids["image"]]
    assert await listed(f"limit=1&after={ids['image']}") == [ids["video"]]


async def test_another_account_sees_nothing_of_it(client, make_caller, queued):
    other = await make_caller()

    listed = await client.get("/v1/tasks", headers=other.headers)
    page = await client.get(f"/v1/tasks?after={queued['id']}", headers=other.headers)

    assert listed.json()["data"] == []
    assert (page.status_code, page.json()["error"]["param"]) == (400, "after")


async def test_cancelling_a_queued_task_is_free_and_final(client, caller, queued):
    cancelled = await client.post(f"/v1/tasks/{queued['id']}/cancel", headers=caller.headers)
    again = await client.post(f"/v1/tasks/{queued['id']}/cancel", headers=caller.headers)

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert (cancelled.json()["credits"], cancelled.json()["credits_held"]) == (0, 0)
    assert again.json() == cancelled.json()
    assert (await caller.balance()).credits == 1000
    assert await caller.ledger_kinds() == ["topup"]


async def test_deleting_an_unfinished_task_cancels_it(client, caller, queued):
    deleted = await client.delete(f"/v1/tasks/{queued['id']}", headers=caller.headers)
    gone = await client.get(f"/v1/tasks/{queued['id']}", headers=caller.headers)

    assert deleted.json() == {"id": queued["id"], "object": "task.deleted", "deleted": True}
    assert gone.status_code == 404
    assert (await caller.balance()).held == 0


async def test_a_key_that_may_not_make_videos_may_not_stop_them(client, caller, queued, services):
    reader = await services.keys.mint(caller.account.id, scopes=["tasks:read"])
    headers = {"authorization": f"Bearer {reader.secret}"}

    answers = [
        await client.post(f"/v1/tasks/{queued['id']}/cancel", headers=headers),
        await client.delete(f"/v1/tasks/{queued['id']}", headers=headers),
    ]

    assert [answer.json()["error"]["reason"] for answer in answers] == ["scope_missing"] * 2
    assert (await caller.balance()).held == 32


async def test_watching_a_task_ends_with_its_final_state(client, caller, queued):
    await client.post(f"/v1/tasks/{queued['id']}/cancel", headers=caller.headers)

    answer = await client.get(f"/v1/tasks/{queued['id']}/events", headers=caller.headers)

    event, data = answer.text.removesuffix("\n\n").split("\n")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-task-id"] == queued["id"]
    assert event == "event: task.updated"
    assert json.loads(data.removeprefix("data: "))["task"]["status"] == "cancelled"


async def unchecked() -> None:
    """The caller may always watch on."""


@pytest.fixture
async def watch(caller, services, queued):
    """Begin to watch the task: the views that come are the caller's own."""
    principal = await services.callers.authenticate(caller.key.secret, peer=None)
    begun = []

    async def watch():
        views = services.tasks.changes(principal, queued["id"], check=unchecked)
        begun.append(views)
        await anext(views)
        return views

    yield watch
    for views in begun:
        await views.aclose()


async def test_who_watches_costs_no_query_until_there_is_news(caller, services, queued, watch):
    everybody, asked, looked = [await watch() for _ in range(15)], list[str](), asyncio.Semaphore(0)

    def note(_connection, _cursor, statement, *_) -> None:
        if "FROM tasks" in statement:
            asked.append(statement)
            looked.release()

    event.listen(services.engine.sync_engine, "before_cursor_execute", note)
    try:
        news = [asyncio.create_task(anext(views)) for views in everybody]
        for _ in range(2):
            await looked.acquire()
        assert len(asked) == 2, "one for all of them, a second after the other"
        await once(services.engine, "UPDATE tasks SET progress = 40 WHERE account_id = $1", (caller.account.id,))
        assert {(await one).progress for one in news} == {40}
        assert sum("AS files" in statement for statement in asked) == len(everybody), "each has read it once"
    finally:
        event.remove(services.engine.sync_engine, "before_cursor_execute", note)

    rest = [asyncio.create_task(anext(views)) for views in everybody]
    view = await services.queries.find(find_task_id(queued["id"]))
    assert await services.ledger.cancel(view.id, view.lease_token)  # nobody tells: it is seen
    assert {(await one).public_status for one in rest} == {"cancelled"}


async def test_an_account_may_watch_so_many_tasks_at_once(client, caller, services, queued, watch):
    watching = [await watch() for _ in range(MOST_WATCHED)]

    refused = await client.get(f"/v1/tasks/{queued['id']}/events", headers=caller.headers)

    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    error = refused.json()["error"]
    assert (error["reason"], "?wait=60" in error["message"]) == ("too_many_requests", True)
    await watching.pop().aclose()
    watching.append(await watch())
    with pytest.raises(TooManyRequests):
        await watch()
    await services.tasks.cancel(await services.callers.authenticate(caller.key.secret, peer=None), queued["id"])
    ended = await client.get(f"/v1/tasks/{queued['id']}/events", headers=caller.headers)  # it is no stream any more
    assert ended.status_code == 200


async def test_no_answer_tells_where_the_work_was_done(client, caller, services):
    made = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=caller.headers)

    task = await client.get(f"/v1/tasks/{made.json()['id']}", headers=caller.headers)

    for word in ("upstream", "demo", "storage_key", "lease"):
        assert word not in task.text
        assert word not in made.text.split('"b64_json"')[0]
