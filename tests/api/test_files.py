"""The bytes of results: who may have them, in which parts, and for how long."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from app import db
from app.values import utcnow


@pytest.fixture
async def image(client, caller):
    """Return a finished image: its task id and its bytes."""
    made = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=caller.headers)
    task_id = made.json()["id"]
    whole = await client.get(f"/api/jobs/{task_id}/image", headers=caller.headers)
    assert whole.status_code == 200
    return task_id, whole.content


async def test_the_owner_s_key_opens_the_file(client, caller, image):
    task_id, content = image

    answer = await client.get(f"/api/jobs/{task_id}/image", headers=caller.headers)

    assert answer.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-task-id"] == task_id


async def test_served_files_cannot_run_or_leak_anything(client, caller, image):
    answer = await client.get(f"/api/jobs/{image[0]}/image", headers=caller.headers)

    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-disposition"] == "inline"
    private, age = answer.headers["cache-control"].split(", ")
    assert private == "private"
    assert 7 * 86400 - 60 < int(age.removeprefix("max-age=")) <= 7 * 86400


async def test_a_signature_opens_the_file_without_a_key(client, services, image):
    url = services.links.sign(image[0], "image", utcnow() + timedelta(hours=1))

    answer = await client.get(url)

    assert (answer.status_code, answer.content) == (200, image[1])


@pytest.mark.parametrize("change", ["expired", "forged", "other kind", "other task", "no expiry"])
async def test_a_signature_opens_nothing_else(client, services, image, change):
    now = utcnow()
    url = services.links.sign(image[0], "image", now + timedelta(hours=-1 if change == "expired" else 1))
    changed = {
        "expired": url,
        "forged": url[:-1] + ("0" if url[-1] != "0" else "1"),
        "other kind": url.replace("/image?", "/thumbnail?"),
        "other task": url.replace(image[0], image[0][:-1] + ("0" if image[0][-1] != "0" else "1")),
        "no expiry": url.replace("e=", "x="),
    }[change]

    answer = await client.get(changed)

    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["reason"]) == (403, "forbidden", "signature_expired")


async def test_head_answers_without_the_bytes(client, caller, image):
    answer = await client.head(f"/api/jobs/{image[0]}/image", headers=caller.headers)

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(image[1]))


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-99", 0, 100), ("bytes=100-", 100, None), ("bytes=-10", -10, None), ("bytes=5-99999999", 5, None)],
)
async def test_one_range_is_sent_alone(client, caller, image, asked, start, end):
    answer = await client.get(f"/api/jobs/{image[0]}/image", headers={**caller.headers, "range": asked})

    size = len(image[1])
    first, last = start % size, (end or size) - 1
    assert answer.status_code == 206
    assert answer.content == image[1][start:end]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("asked", ["bytes=0-1,5-9", "bytes=9-5", "bytes=-", "lines=1-2", "bytes=a-b"])
async def test_several_ranges_and_nonsense_get_the_whole(client, caller, image, asked):
    answer = await client.get(f"/api/jobs/{image[0]}/image", headers={**caller.headers, "range": asked})

    assert (answer.status_code, answer.content) == (200, image[1])


async def test_a_range_outside_of_the_file_is_416(client, caller, image):
    answer = await client.get(f"/api/jobs/{image[0]}/image", headers={**caller.headers, "range": "bytes=99999999-"})

    assert (answer.status_code, answer.json()["error"]["reason"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(image[1])}"


async def test_a_known_etag_is_304_and_an_old_if_range_gets_the_whole(client, caller, image):
    path, etag = f"/api/jobs/{image[0]}/image", f'"{hashlib.sha256(image[1]).hexdigest()}"'

    known = await client.get(path, headers={**caller.headers, "if-none-match": f'"x", {etag}'})
    resumed = await client.get(path, headers={**caller.headers, "range": "bytes=0-9", "if-range": etag})
    restarted = await client.get(path, headers={**caller.headers, "range": "bytes=0-9", "if-range": '"old"'})

    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)
    assert resumed.status_code == 206
    assert (restarted.status_code, restarted.content) == (200, image[1])


@pytest.mark.parametrize("kind", ["video", "thumbnail", "gif"])
async def test_an_image_task_has_no_other_files(client, caller, image, kind):
    answer = await client.get(f"/api/jobs/{image[0]}/{kind}", headers=caller.headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["reason"], error["task_id"]) == (404, "task_not_found", image[0])
    assert error["message"] == f"The task '{image[0]}' has no {kind}."


async def test_a_kind_that_does_not_exist_is_named(client, caller, image):
    answer = await client.get(f"/api/jobs/{image[0]}/secrets", headers=caller.headers)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "kind")


async def test_after_its_retention_a_result_is_gone(client, services, caller, image):
    url = services.links.sign(image[0], "image", utcnow() + timedelta(hours=1))
    await expire_files(services, caller)

    by_link = await client.get(url)
    by_key = await client.get(f"/api/jobs/{image[0]}/image", headers=caller.headers)
    as_image = await client.get(f"/v1/images/{image[0]}", headers=caller.headers)
    task = await client.get(f"/v1/tasks/{image[0]}", headers=caller.headers)

    for answer in (by_link, by_key, as_image):
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["reason"]) == (410, "not_found_error", "result_expired")
        assert answer.headers["x-task-id"] == error["task_id"] == image[0]
        assert answer.headers["x-should-retry"] == "false"
    task = task.json()
    assert (task["status"], task["size"]) == ("completed", "1024x1024")
    assert (task["result"], task["image_url"], task["video_url"]) == (None, None, None)


async def test_a_deleted_task_s_link_is_gone_and_its_file_too(client, services, caller, image):
    url = services.links.sign(image[0], "image", utcnow() + timedelta(hours=1))
    deleted = await client.delete(f"/v1/tasks/{image[0]}", headers=caller.headers)

    by_link = await client.get(url)
    by_key = await client.get(f"/api/jobs/{image[0]}/image", headers=caller.headers)

    assert deleted.json() == {"id": image[0], "object": "task.deleted", "deleted": True}
    assert (by_link.status_code, by_link.json()["error"]["reason"]) == (410, "result_expired")
    assert (by_key.status_code, by_key.json()["error"]["reason"]) == (404, "task_not_found")


async def test_a_file_that_vanished_from_the_disk_is_our_fault(client, services, caller, image):
    view = await services.queries.find(await task_uuid(services, caller))
    services.storage.path_of(view.files_of("result")[0].storage_key).unlink()

    file = await client.get(f"/api/jobs/{image[0]}/image", headers=caller.headers)
    read = await client.get(f"/v1/images/{image[0]}", headers=caller.headers)

    for answer in (file, read):
        assert (answer.status_code, answer.json()["error"]["reason"]) == (502, "result_unavailable")


async def expire_files(services, caller) -> None:
    await db.once(
        services.engine,
        "UPDATE files SET expires_at = now() - interval '1 second' WHERE account_id = $1",
        (caller.account.id,),
    )


async def task_uuid(services, caller):
    rows = await db.once(services.engine, "SELECT id FROM tasks WHERE account_id = $1", (caller.account.id,))
    return rows[0]["id"]
