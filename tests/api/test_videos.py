"""Videos over HTTP, in our form and in OpenAI's."""

from __future__ import annotations

import pytest

from tests.api.samples import mp4, png
from tests.plugins.gateway import no_trace

SHORT = {"prompt": "a paper boat", "resolution": "480p", "duration": 4}
FAST = "doubao-seedance-2.0-fast"


async def test_a_video_is_queued_at_once_and_its_price_is_held(client, caller):
    answer = await client.post("/v1/videos/generations", json=SHORT, headers=caller.headers)

    task = answer.json()
    assert answer.status_code == 200
    assert answer.headers["x-task-id"] == task["id"] == task["task_id"]
    assert answer.headers["openai-poll-after-ms"] == "2000"
    assert (task["object"], task["type"], task["model"]) == ("task", "video.generation", FAST)
    assert (task["status"], task["progress"]) == ("queued", 0)
    assert (task["credits"], task["credits_held"]) == (0, 32)
    assert (task["size"], task["resolution"], task["aspect_ratio"], task["duration"]) == ("854x480", "480p", "16:9", 4)
    assert (await caller.balance()).held == 32
    await client.delete(f"/v1/tasks/{task['id']}", headers=caller.headers)
    assert ((await caller.balance()).credits, (await caller.balance()).held) == (1000, 0)


async def test_openai_s_form_takes_seconds_and_size_as_text(client, caller):
    answer = await client.post(
        "/v1/videos",
        files={"prompt": (None, "a boat"), "seconds": (None, "5"), "size": (None, "720x1280")},
        headers=caller.headers,
    )

    video = answer.json()
    assert answer.status_code == 200, answer.text
    assert (video["object"], video["status"], video["seconds"]) == ("video", "queued", "5")
    assert (video["size"], video["progress"], video["model"]) == ("720x1280", 0, FAST)
    assert video["remixed_from_video_id"] is None
    assert (await caller.balance()).held == 125
    await client.delete(f"/v1/videos/{video['id']}", headers=caller.headers)


async def test_openai_s_form_may_be_json_and_an_input_reference_is_the_first_frame(client, caller, file_server):
    with_file = await client.post(
        "/v1/videos",
        data={"prompt": "it sails"},
        files={"input_reference": ("upload", png((640, 360)), "application/octet-stream")},
        headers=caller.headers,
    )
    with_url = await client.post(
        "/v1/videos",
        json={"prompt": "it sails", "input_reference": {"image_url": file_server.url("frame.png", png((640, 360)))}},
        headers=caller.headers,
    )

    for answer in (with_file, with_url):
        assert answer.status_code == 200, answer.text
        await client.delete(f"/v1/videos/{answer.json()['id']}", headers=caller.headers)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"seconds": "16"}, "seconds"),
        ({"seconds": "soon"}, "seconds"),
        ({"size": "700x1280"}, "size"),
        ({"input_reference": {"file_id": "file_1"}}, "input_reference"),
    ],
)
async def test_openai_s_fields_are_named_as_they_were_sent(client, caller, body, param):
    async with no_trace(caller):
        answer = await client.post("/v1/videos", json={"prompt": "a boat", **body}, headers=caller.headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)


async def test_videos_are_listed_in_pages(client, caller):
    ids = []
    for _ in range(3):
        made = await client.post("/v1/videos", json={"prompt": "a boat"}, headers=caller.headers)
        ids.append(made.json()["id"])
    await client.post("/v1/images/generations", json={"prompt": "not a video"}, headers=caller.headers)

    first = (await client.get("/v1/videos?limit=2", headers=caller.headers)).json()
    second = (await client.get(f"/v1/videos?limit=2&after={first['last_id']}", headers=caller.headers)).json()
    upwards = (await client.get("/v1/videos?order=asc", headers=caller.headers)).json()

    assert [video["id"] for video in first["data"]] == [ids[2], ids[1]]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[2], ids[1], True)
    assert [video["id"] for video in second["data"]] == [ids[0]]
    assert second["has_more"] is False
    assert [video["id"] for video in upwards["data"]] == ids
    for video_id in ids:
        await client.delete(f"/v1/videos/{video_id}", headers=caller.headers)
    empty = (await client.get("/v1/videos", headers=caller.headers)).json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize("query", ["after=task_nobody", "after=nonsense", "limit=0", "limit=101", "order=random"])
async def test_a_bad_page_is_400(client, caller, query):
    answer = await client.get(f"/v1/videos?{query}", headers=caller.headers)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.split("=")[0])


async def test_an_unfinished_video_has_no_content(client, caller):
    made = await client.post("/v1/videos", json={"prompt": "a boat"}, headers=caller.headers)

    answer = await client.get(f"/v1/videos/{made.json()['id']}/content", headers=caller.headers)

    assert (answer.status_code, answer.json()["error"]["reason"]) == (400, "task_not_ready")
    await client.delete(f"/v1/videos/{made.json()['id']}", headers=caller.headers)


async def test_a_cancelled_video_has_failed_in_openai_s_form(client, caller):
    made = await client.post("/v1/videos", json={"prompt": "a boat"}, headers=caller.headers)
    video_id = made.json()["id"]

    cancelled = await client.post(f"/v1/tasks/{video_id}/cancel", headers=caller.headers)
    video = await client.get(f"/v1/videos/{video_id}", headers=caller.headers)

    assert cancelled.json()["status"] == "cancelled"
    assert video.json()["status"] == "failed"
    assert video.json()["error"]["code"] == "cancelled"
    assert "openai-poll-after-ms" not in video.headers
    assert (await caller.balance()).credits == 1000


async def test_an_edit_is_billed_by_its_source(client, caller, file_server):
    url = file_server.url("source.mp4", mp4(seconds=4))

    answer = await client.post(
        "/v1/videos/generations",
        json={"model": "happyhorse-1.0", "prompt": "make it night", "video_url": url, "duration": 15},
        headers=caller.headers,
    )

    task = answer.json()
    assert answer.status_code == 200, answer.text
    assert (task["type"], task["credits_held"], task["duration"]) == ("video.edit", 88, 4)
    assert task["warnings"] == ["'duration' was ignored: with 'video_url' the length is that of the source."]
    await client.delete(f"/v1/tasks/{task['id']}", headers=caller.headers)


@pytest.mark.parametrize("path", ["edits", "extensions", "characters"])
async def test_what_is_not_built_says_so_in_the_envelope(client, caller, path):
    answer = await client.post(f"/v1/videos/{path}", json={"prompt": "a boat"}, headers=caller.headers)

    assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "route_not_found")


@pytest.mark.parametrize(
    ("seconds", "held", "warnings"),
    [
        (2, 66, ["The source is 2 s long: 3 s are billed, the least there is."]),
        (4, 88, []),
        (17, 330, ["The source is 17 s long: only its first 15 s are used, and billed."]),
    ],
)
async def test_an_edit_says_what_becomes_of_a_source_that_is_too_long_or_too_short(
    client, caller, file_server, seconds, held, warnings
):
    body = {
        "model": "happyhorse-1.0",
        "prompt": "make it night",
        "video_url": file_server.url(f"source-{seconds}.mp4", mp4(seconds, (64, 64))),
    }

    task = (await client.post("/v1/videos/generations", json=body, headers=caller.headers)).json()

    assert (task["type"], task["credits_held"]) == ("video.edit", held)
    assert task["warnings"] == warnings
    await client.delete(f"/v1/tasks/{task['id']}", headers=caller.headers)
