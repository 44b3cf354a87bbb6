"""Images left to the workers: the task at once, the image when it is ready."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("worker")
GENERATIONS = "/v1/images/generations"


async def test_async_answers_with_the_task_at_once_and_the_workers_make_it(client, caller):
    answer = await client.post(GENERATIONS, json={"prompt": "a fox", "async": True}, headers=caller.headers)

    task = answer.json()
    early = await client.get(f"/v1/images/{task['id']}", headers=caller.headers)
    done = await client.get(f"/v1/tasks/{task['id']}?wait=30", headers=caller.headers)
    assert answer.status_code == 202
    assert (task["object"], task["type"], task["credits_held"]) == ("task", "image.generation", 1)
    assert task["status"] in ("queued", "in_progress")
    assert early.json()["error"]["reason"] in ("task_not_ready", None)
    assert (done.json()["status"], done.json()["credits"]) == ("completed", 1)
    assert (await client.get(done.json()["image_url"])).status_code == 200


async def test_prefer_wait_gives_the_task_time_to_end(client, caller):
    answer = await client.post(
        GENERATIONS,
        json={"prompt": "a fox"},
        headers={**caller.headers, "prefer": "respond-async, wait=30"},
    )

    assert answer.status_code == 202
    assert answer.json()["status"] == "completed"
    assert answer.headers["x-task-id"] == answer.json()["id"]
    assert (answer.headers["x-credits-charged"], answer.headers["x-credits-remaining"]) == ("1", "999")


async def test_a_task_that_is_still_queued_or_has_failed_was_not_charged(client, caller):
    queued = await client.post(GENERATIONS, json={"prompt": "a fox", "async": True}, headers=caller.headers)
    failed = await client.post(
        GENERATIONS,
        json={"prompt": "a fox [[fail]]"},
        headers={**caller.headers, "prefer": "respond-async, wait=30"},
    )

    assert (failed.status_code, failed.json()["status"]) == (202, "failed")
    for answer in (queued, failed):
        assert "x-credits-charged" not in answer.headers
