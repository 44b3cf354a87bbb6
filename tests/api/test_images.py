"""Images over HTTP: what comes back, what it costs, and that the bytes are the same everywhere."""

from __future__ import annotations

import base64

import pytest

from app.errors import DatabaseUnavailable
from tests.api.samples import data_url, jpeg, mask, png, size_of
from tests.plugins.gateway import no_trace

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"


async def test_an_image_comes_back_in_base64_and_by_url_with_the_same_bytes(client, caller):
    answer = await client.post(GENERATIONS, json={"prompt": "a fox"}, headers=caller.headers)

    body = answer.json()
    image = base64.b64decode(body["data"][0]["b64_json"], validate=True)
    fetched = await client.get(body["data"][0]["url"])
    assert answer.status_code == 200
    assert size_of(image) == (1024, 1024)
    assert fetched.content == image
    assert fetched.headers["content-type"] == "image/png"


async def test_the_reply_says_what_was_made_and_charged(client, caller):
    answer = await client.post(
        GENERATIONS, json={"prompt": "一只狐狸", "size": "16:9", "quality": "hd"}, headers=caller.headers
    )

    body = answer.json()
    assert set(body) == {"created", "data", "id", "model", "size", "output_format", "credits"}
    assert (body["model"], body["size"], body["output_format"]) == ("gpt-image-2", "2048x1152", "png")
    assert size_of(base64.b64decode(body["data"][0]["b64_json"])) == (2048, 1152)
    assert body["credits"] == 2
    assert answer.headers["x-task-id"] == body["id"]
    assert answer.headers["x-credits-charged"] == "2"
    assert answer.headers["x-credits-remaining"] == "998"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert (await caller.balance()).credits == 998
    assert await caller.ledger_kinds() == ["capture", "topup"]


@pytest.mark.parametrize(("response_format", "has_base64"), [("url", False), ("b64_json", True), (None, True)])
async def test_response_format_decides_whether_base64_is_sent(client, caller, response_format, has_base64):
    answer = await client.post(
        GENERATIONS, json={"prompt": "a fox", "response_format": response_format}, headers=caller.headers
    )

    image = answer.json()["data"][0]
    assert ("b64_json" in image) is has_base64
    assert image["url"].startswith("http://gateway.test/api/jobs/task_")


@pytest.mark.parametrize(("output_format", "start"), [("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")])
async def test_the_file_has_the_kind_that_was_asked_for(client, caller, output_format, start):
    answer = await client.post(
        GENERATIONS,
        json={"prompt": "a fox", "output_format": output_format, "output_compression": 60},
        headers=caller.headers,
    )

    body = answer.json()
    assert body["output_format"] == output_format
    assert base64.b64decode(body["data"][0]["b64_json"]).startswith(start)


async def test_an_unknown_field_is_named_in_the_warnings(client, caller):
    answer = await client.post(GENERATIONS, json={"prompt": "a fox", "sparkle": 11}, headers=caller.headers)

    assert answer.status_code == 200
    assert answer.json()["warnings"] == ["Unknown field 'sparkle' was ignored."]


async def test_references_may_be_urls_and_data_urls(client, caller, file_server):
    url = file_server.url("reference.png", png())

    answer = await client.post(
        GENERATIONS,
        json={"prompt": "a fox", "image": data_url(jpeg(), "image/jpeg"), "image_urls": [url]},
        headers=caller.headers,
    )

    assert answer.status_code == 200, answer.text
    assert file_server.hits.count("reference.png") == 1


async def test_an_edit_takes_files_and_a_mask(client, caller):
    answer = await client.post(
        EDITS,
        data={"prompt": "make it night", "quality": "low"},
        files=[
            ("image[]", ("first.png", png(), "image/png")),
            ("image[]", ("upload", jpeg(), "application/octet-stream")),
            ("mask", ("mask.png", mask(), "image/png")),
        ],
        headers=caller.headers,
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["credits"] == 1
    task = await client.get(f"/v1/tasks/{answer.json()['id']}", headers=caller.headers)
    assert task.json()["type"] == "image.edit"


async def test_an_edit_takes_openais_json_form(client, caller):
    answer = await client.post(
        EDITS, json={"prompt": "make it night", "images": [{"image_url": data_url(png())}]}, headers=caller.headers
    )

    assert answer.status_code == 200, answer.text


async def test_an_image_can_be_read_again_by_its_id(client, caller):
    made = await client.post(GENERATIONS, json={"prompt": "a fox"}, headers=caller.headers)
    image_id = made.json()["id"]

    read = await client.get(f"/v1/images/{image_id}", headers=caller.headers)
    alias = await client.get(f"/v1/images/generations/{image_id}", headers=caller.headers)

    assert read.status_code == 200
    assert read.json()["data"][0]["b64_json"] == made.json()["data"][0]["b64_json"]
    assert {**read.json(), "data": None} == {**made.json(), "data": None}
    assert alias.json()["data"][0]["b64_json"] == read.json()["data"][0]["b64_json"]
    assert "x-credits-charged" not in read.headers


async def test_an_unfinished_image_is_not_ready(client, caller):
    made = await client.post(GENERATIONS, json={"prompt": "a fox", "async": True}, headers=caller.headers)

    read = await client.get(f"/v1/images/{made.json()['id']}", headers=caller.headers)
    file = await client.get(f"/api/jobs/{made.json()['id']}/image", headers=caller.headers)

    assert (read.status_code, read.json()["error"]["reason"]) == (400, "task_not_ready")
    assert read.headers["retry-after"] == "2"
    assert (file.status_code, file.json()["error"]["reason"]) == (400, "task_not_ready")
    await client.delete(f"/v1/tasks/{made.json()['id']}", headers=caller.headers)


@pytest.mark.parametrize(
    ("mark", "status", "reason"),
    [("[[fail]]", 502, "upstream_error"), ("[[policy]]", 400, "content_policy_violation")],
)
async def test_a_failed_image_costs_nothing_and_is_not_sent_again(client, caller, mark, status, reason):
    async with no_trace(caller):
        answer = await client.post(GENERATIONS, json={"prompt": f"a fox {mark}"}, headers=caller.headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["reason"]) == (status, reason)
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-task-id"] == error["task_id"]
    assert await caller.ledger_kinds() == ["topup"]
    again = await client.get(f"/v1/images/{error['task_id']}", headers=caller.headers)
    assert (again.status_code, again.json()["error"]["reason"]) == (status, reason)


async def test_a_price_above_max_credits_is_refused_before_anything_is_held(client, caller):
    async with no_trace(caller):
        answer = await client.post(
            GENERATIONS, json={"prompt": "a fox", "quality": "uhd", "max_credits": 2}, headers=caller.headers
        )

    error = answer.json()["error"]
    assert (answer.status_code, error["reason"], error["param"]) == (400, "price_above_max", "max_credits")


async def test_without_credits_there_is_no_image(client, make_caller):
    poor = await make_caller(credits=0)

    async with no_trace(poor):
        answer = await client.post(GENERATIONS, json={"prompt": "a fox"}, headers=poor.headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["reason"]) == (402, "insufficient_quota", "insufficient_credits")
    assert error["code"] == 402


async def test_variations_are_not_offered_and_the_answer_says_what_is(client, caller):
    answer = await client.post(
        "/v1/images/variations", files={"image": ("a.png", png(), "image/png")}, headers=caller.headers
    )

    error = answer.json()["error"]
    assert (answer.status_code, error["reason"]) == (404, "route_not_found")
    assert "/v1/images/edits" in error["message"]


async def test_a_paid_image_goes_out_even_when_the_balance_cannot_be_read(client, caller, services, monkeypatch):
    async def gone(account_id: int) -> None:
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(services.ledger, "balance", gone)

    answer = await client.post(GENERATIONS, json={"prompt": "a fox"}, headers=caller.headers)

    assert answer.status_code == 200
    assert answer.headers["x-credits-charged"] == "1"
    assert "x-credits-remaining" not in answer.headers


async def test_a_cropped_image_is_announced_with_its_final_size_and_the_asked_ratio(client, caller):
    body = {"prompt": "a fox", "model": "gemini-3.1-flash-image-preview", "size": "2:1"}

    queued = (await client.post(GENERATIONS, json={**body, "async": True}, headers=caller.headers)).json()
    made = (await client.post(GENERATIONS, json=body, headers=caller.headers)).json()
    done = (await client.get(f"/v1/tasks/{made['id']}", headers=caller.headers)).json()

    assert queued["status"] == "queued"
    assert queued["size"] == done["size"] == made["size"] == "1376x688"
    assert queued["aspect_ratio"] == done["aspect_ratio"] == "2:1"
    await client.delete(f"/v1/tasks/{queued['id']}", headers=caller.headers)


async def test_an_idempotency_key_that_is_none_is_refused(client, caller):
    async with no_trace(caller):
        answer = await client.post(
            GENERATIONS, json={"prompt": "a fox"}, headers={**caller.headers, "idempotency-key": "x" * 256}
        )

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "idempotency_key")
