"""Videos that a worker makes while the test waits: their files, their ends, and what comes after."""

from __future__ import annotations

import pytest

from app import db
from tests.plugins.gateway import no_trace

SHORT = {"prompt": "a paper boat", "resolution": "480p", "duration": 4}


@pytest.fixture
async def finished(client, caller, worker):
    """Return a finished video of 4 seconds, as a task."""
    made = await client.post("/v1/videos/generations", json=SHORT, headers=caller.headers)
    assert made.status_code == 200, made.text
    done = await client.get(f"/v1/tasks/{made.json()['id']}?wait=60", headers=caller.headers)
    assert done.json()["status"] == "completed", done.text
    return done.json()


async def test_a_finished_video_is_the_same_by_every_route(client, caller, finished):
    task_id = finished["id"]
    video = (await client.get(f"/v1/videos/{task_id}", headers=caller.headers)).json()
    by_link = await client.get(finished["video_url"])
    by_content = await client.get(f"/v1/videos/{task_id}/content", headers=caller.headers)
    by_job = await client.get(f"/api/jobs/{task_id}/video", headers=caller.headers)

    assert by_link.content == by_content.content == by_job.content
    assert by_link.content[4:8] == b"ftyp"
    assert by_content.headers["content-type"] == "video/mp4"
    result = finished["result"]["videos"][0]
    assert (result["width"], result["height"], result["content_type"]) == (854, 480, "video/mp4")
    assert result["size_bytes"] == len(by_link.content)
    assert result["duration"] == pytest.approx(4, abs=0.1)
    assert (finished["credits"], finished["credits_held"], finished["progress"]) == (32, 0, 100)
    assert video["object"] == "video"
    assert (video["status"], video["progress"], video["seconds"], video["size"]) == ("completed", 100, "4", "854x480")
    assert video["error"] is None
    assert (await caller.balance()).credits == 968


async def test_a_finished_video_has_a_thumbnail_and_no_spritesheet(client, caller, finished):
    by_link = await client.get(finished["result"]["videos"][0]["thumbnail_url"])
    thumbnail = await client.get(f"/v1/videos/{finished['id']}/content?variant=thumbnail", headers=caller.headers)
    spritesheet = await client.get(f"/v1/videos/{finished['id']}/content?variant=spritesheet", headers=caller.headers)

    assert thumbnail.headers["content-type"].startswith("image/")
    assert thumbnail.content == by_link.content
    assert (spritesheet.status_code, spritesheet.json()["error"]["param"]) == (400, "variant")


async def test_a_part_of_a_video_can_be_fetched(client, caller, finished):
    answer = await client.get(f"/v1/videos/{finished['id']}/content", headers={**caller.headers, "range": "bytes=4-7"})

    assert (answer.status_code, answer.content) == (206, b"ftyp")


async def test_a_deleted_video_is_unknown_everywhere_and_stays_in_the_books(client, caller, finished):
    task_id = finished["id"]
    deleted = await client.delete(f"/v1/videos/{task_id}", headers=caller.headers)

    assert deleted.json() == {"id": task_id, "object": "video.deleted", "deleted": True}
    for path in (
        f"/v1/videos/{task_id}",
        f"/v1/tasks/{task_id}",
        f"/v1/images/{task_id}",
        f"/v1/videos/{task_id}/content",
        f"/api/jobs/{task_id}/video",
        f"/v1/tasks/{task_id}/events",
    ):
        answer = await client.get(path, headers=caller.headers)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "task_not_found"), path
    again = await client.delete(f"/v1/videos/{task_id}", headers=caller.headers)
    assert again.status_code == 404
    ledger = (await client.get("/v1/me/ledger", headers=caller.headers)).json()
    assert (ledger["data"][0]["kind"], ledger["data"][0]["task_id"]) == ("capture", task_id)


async def test_a_failed_video_is_a_200_and_costs_nothing(client, caller, worker):
    made = await client.post(
        "/v1/videos/generations", json={**SHORT, "prompt": "a boat [[fail]]"}, headers=caller.headers
    )
    done = await client.get(f"/v1/tasks/{made.json()['id']}?wait=30", headers=caller.headers)
    video = await client.get(f"/v1/videos/{made.json()['id']}", headers=caller.headers)

    task = done.json()
    assert (done.status_code, task["status"], task["credits"]) == (200, "failed", 0)
    assert (task["error"]["code"], task["error"]["reason"]) == (502, "upstream_error")
    assert "No credits were charged." in task["error"]["message"]
    assert (video.json()["status"], video.json()["error"]["code"]) == ("failed", "upstream_error")
    assert (await caller.balance()).credits == 1000
    assert await caller.ledger_kinds() == ["topup"]


@pytest.mark.parametrize(
    ("model", "reason", "param"), [(None, "invalid_parameter", "model"), ("veo3.1-fast", "invalid_parameter", "model")]
)
async def test_only_a_family_that_can_may_be_remixed(client, caller, finished, model, reason, param):
    before = await caller.balance()

    answer = await client.post(
        f"/v1/videos/{finished['id']}/remix", json={"prompt": "on", "model": model}, headers=caller.headers
    )

    error = answer.json()["error"]
    assert (answer.status_code, error["reason"], error["param"]) == (400, reason, param)
    assert error["task_id"] == answer.headers["x-task-id"] == finished["id"]
    assert await caller.balance() == before


async def test_a_video_without_a_gif_says_so(client, caller, finished):
    answer = await client.get(f"/api/jobs/{finished['id']}/gif", headers=caller.headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["reason"]) == (404, "task_not_found")
    assert error["message"] == f"The task '{finished['id']}' has no gif."


async def test_a_result_that_came_out_short_says_its_true_seconds(client, caller, worker):
    made = await client.post(
        "/v1/videos/generations",
        json={"prompt": "a boat [[short=2]]", "resolution": "480p", "duration": 5},
        headers=caller.headers,
    )
    done = await client.get(f"/v1/tasks/{made.json()['id']}?wait=60", headers=caller.headers)
    video = await client.get(f"/v1/videos/{made.json()['id']}", headers=caller.headers)

    assert made.json()["duration"] == 5
    assert (done.json()["status"], done.json()["duration"], video.json()["seconds"]) == ("completed", 2, "2")
    assert done.json()["credits"] == 16


async def test_a_remix_answers_task_and_video_in_one(client, make_caller, worker):
    caller = await make_caller(credits=200)
    source = await client.post("/v1/videos", json={"model": "veo3.1-lite", "prompt": "a boat"}, headers=caller.headers)
    source_id = source.json()["id"]
    early = await client.post(f"/v1/videos/{source_id}/remix", json={"prompt": "on"}, headers=caller.headers)
    done = await client.get(f"/v1/tasks/{source_id}?wait=60", headers=caller.headers)
    assert done.json()["status"] == "completed", done.text
    without_prompt = await client.post(f"/v1/videos/{source_id}/remix", json={"raw": True}, headers=caller.headers)

    answer = await client.post(
        f"/v1/videos/{source_id}/remix", json={"prompt": "it sails on", "raw": True}, headers=caller.headers
    )

    remix = answer.json()
    assert (early.status_code, early.json()["error"]["reason"]) == (400, "task_not_ready")
    assert (without_prompt.status_code, without_prompt.json()["error"]["param"]) == (400, "prompt")
    assert answer.status_code == 200, answer.text
    assert (remix["object"], remix["type"]) == ("video", "video.remix")
    assert remix["status"] in ("queued", "in_progress")
    assert (remix["remixed_from_video_id"], remix["seconds"]) == (source_id, "8")
    assert (remix["task_id"], remix["credits_held"], remix["size"]) == (remix["id"], 36, "1280x720")
    listed = await client.get("/v1/tasks?type=video.remix", headers=caller.headers)
    assert [task["id"] for task in listed.json()["data"]] == [remix["id"]]
    await client.delete(f"/v1/tasks/{remix['id']}", headers=caller.headers)


async def test_a_remix_is_as_long_as_its_source_and_what_was_added(client, caller, worker):
    source = await client.post("/v1/videos", json={"model": "veo3.1-lite", "prompt": "a boat"}, headers=caller.headers)
    source_id = source.json()["id"]
    await client.get(f"/v1/tasks/{source_id}?wait=60", headers=caller.headers)
    quote = await client.post(
        "/v1/quote", json={"endpoint": f"videos/{source_id}/remix", "prompt": "on"}, headers=caller.headers
    )

    remix = (await client.post(f"/v1/videos/{source_id}/remix", json={"prompt": "on"}, headers=caller.headers)).json()
    done = (await client.get(f"/v1/tasks/{remix['id']}?wait=60", headers=caller.headers)).json()
    video = (await client.get(f"/v1/videos/{remix['id']}", headers=caller.headers)).json()

    assert quote.json()["credits"] == remix["credits_held"] == 36
    assert (remix["duration"], remix["seconds"]) == (16, "16")
    assert (done["status"], done["duration"], video["seconds"]) == ("completed", 16, "16")
    assert done["result"]["videos"][0]["duration"] == pytest.approx(16, abs=0.5)


async def test_an_expired_source_is_gone_before_anything_is_held(client, caller, worker, services):
    source = await client.post("/v1/videos", json={"model": "veo3.1-lite", "prompt": "a boat"}, headers=caller.headers)
    source_id = source.json()["id"]
    await client.get(f"/v1/tasks/{source_id}?wait=60", headers=caller.headers)
    await db.once(
        services.engine,
        "UPDATE files SET expires_at = now() - interval '1 second' WHERE account_id = $1",
        (caller.account.id,),
    )

    async with no_trace(caller):
        remix = await client.post(f"/v1/videos/{source_id}/remix", json={"prompt": "on"}, headers=caller.headers)
        quote = await client.post(
            "/v1/quote", json={"endpoint": "videos/remix", "id": source_id, "prompt": "on"}, headers=caller.headers
        )
    video = (await client.get(f"/v1/videos/{source_id}", headers=caller.headers)).json()

    for answer in (remix, quote):
        error = answer.json()["error"]
        assert (answer.status_code, error["reason"], error["task_id"]) == (410, "result_expired", source_id)
    assert (video["status"], video["url"], video["seconds"]) == ("completed", None, "8")
