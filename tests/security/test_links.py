"""Signed URLs: every part counts, a minute of skew and no more, one method, one file; and how files are served."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from app import db
from app.errors import SignatureExpired
from app.storage.links import Links
from app.values import utcnow
from tests.plugins.gateway import Caller, MakeCaller

EXACT = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "content-disposition": "inline",
    "cross-origin-resource-policy": "cross-origin",
    "referrer-policy": "no-referrer",
    "content-type": "image/png",
}
"""What every answer with a result's bytes says, to the letter."""


@pytest.fixture
async def image(client, caller) -> str:
    """The id of a finished image."""
    made = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=caller.headers)
    assert made.status_code == 200, made.text
    return made.json()["id"]


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


# --- the signature --------------------------------------------------------------------------------------------------

TASK, OTHER = "task_01a20d93134c7615a7b08a2ddc2f2f0a", "task_01a20d93134c7615a7b08a2ddc2f2f0b"


@pytest.mark.parametrize(
    ("late_s", "is_open"), [(-1, True), (0, True), (59, True), (60, True), (61, False), (3600, False)]
)
def test_a_clock_may_be_a_minute_behind_and_no_more(late_s: int, is_open: bool) -> None:
    links, expires = Links(SecretStr("a link secret that only tests use"), "https://x"), utcnow().replace(microsecond=0)
    query = query_of(links.sign(TASK, "image", expires))

    if is_open:
        links.verify(TASK, "image", query, expires + timedelta(seconds=late_s))
    else:
        with pytest.raises(SignatureExpired):
            links.verify(TASK, "image", query, expires + timedelta(seconds=late_s))


@pytest.mark.parametrize(
    "change",
    [
        {"task": OTHER}, {"kind": "video"}, {"kind": "thumbnail"}, {"kind": "inputs/" + "0" * 32}, {"e": "later"},
        {"e": "+1"}, {"e": " 1"}, {"e": "9" * 13}, {"e": ""}, {"k": "2"}, {"k": ""}, {"s": ""}, {"s": "0" * 64},
        {"s": "upper"}, {"s": "\u0661" * 64}, {"secret": "another secret that only tests use"},
    ],
)  # fmt: skip
def test_no_part_of_a_link_can_be_another(change: dict[str, str]) -> None:
    expires = utcnow() + timedelta(hours=1)
    links = Links(SecretStr(change.get("secret", "a link secret that only tests use")), "https://x")
    query = query_of(links.sign(TASK, "image", expires))
    query |= {name: value for name, value in change.items() if name in query}
    if change.get("e") == "later":
        query["e"] = str(int(expires.timestamp()) + 1)
    if change.get("s") == "upper":
        query["s"] = query_of(links.sign(TASK, "image", expires))["s"].swapcase()
    reader = Links(SecretStr("a link secret that only tests use"), "https://x")

    with pytest.raises(SignatureExpired):
        reader.verify(change.get("task", TASK), change.get("kind", "image"), query, utcnow())


def test_what_is_not_signed_changes_nothing_and_what_is_signed_is_never_short() -> None:
    url = Links(SecretStr("a link secret that only tests use"), "https://x/").sign(TASK, "gif", utcnow())

    assert url.startswith(f"https://x/api/jobs/{TASK}/gif?e=")
    assert len(query_of(url)["s"]) == 64
    with pytest.raises(ValueError, match="no such kind"):
        Links(SecretStr("a link secret that only tests use"), "https://x").sign(TASK, "../image", utcnow())


# --- over HTTP ------------------------------------------------------------------------------------------------------


async def test_a_link_reads_one_file_and_does_nothing_else(client, services, image: str) -> None:
    url = services.links.sign(image, "image", utcnow() + timedelta(hours=1))

    assert (await client.get(url)).status_code == 200
    assert (await client.head(url)).status_code == 200
    for method in ("post", "put", "delete", "patch"):
        assert (await getattr(client, method)(url)).status_code == 405
    query = urlsplit(url).query
    for path in (f"/v1/tasks/{image}", f"/v1/images/{image}", "/v1/me", "/v1/tasks", "/v1/models"):
        assert (await client.get(f"{path}?{query}")).status_code in (400, 401), path


async def test_a_wrong_signature_is_not_saved_by_a_right_key(client, caller: Caller, image: str) -> None:
    answer = await client.get(f"/api/jobs/{image}/image?e=1&k=1&s={'0' * 64}", headers=caller.headers)

    assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "signature_expired")


async def test_another_account_s_key_does_not_learn_that_the_file_exists(
    client, make_caller: MakeCaller, image: str
) -> None:
    other = await make_caller()

    there = await client.get(f"/api/jobs/{image}/image", headers=other.headers)
    nowhere = await client.get(f"/api/jobs/{OTHER}/image", headers=other.headers)

    assert there.status_code == nowhere.status_code == 404
    assert there.text.replace(image, "?").replace(there.headers["x-request-id"], "") == nowhere.text.replace(
        OTHER, "?"
    ).replace(nowhere.headers["x-request-id"], "")


async def test_a_link_outlives_neither_the_task_nor_the_retention(client, caller: Caller, services, image: str) -> None:
    url = services.links.sign(image, "image", utcnow() + timedelta(hours=1))

    await db.once(services.engine, "UPDATE files SET expires_at = now() WHERE account_id = $1", (caller.account.id,))
    expired = await client.get(url)
    await client.delete(f"/v1/tasks/{image}", headers=caller.headers)
    deleted = await client.get(url)

    assert (expired.status_code, deleted.status_code) == (410, 410)


@pytest.mark.parametrize("asked", ["whole", "head", "one range", "several ranges", "unchanged"])
async def test_every_form_of_a_file_carries_its_guards(client, caller: Caller, image: str, asked: str) -> None:
    whole = await client.get(f"/api/jobs/{image}/image", headers=caller.headers)
    more = {
        "one range": {"range": "bytes=2-5"},
        "several ranges": {"range": "bytes=0-1,4-5"},
        "unchanged": {"if-none-match": whole.headers["etag"]},
    }.get(asked, {})

    answer = await client.request(
        "HEAD" if asked == "head" else "GET", f"/api/jobs/{image}/image", headers=caller.headers | more
    )

    status = {"one range": 206, "unchanged": 304}.get(asked, 200)
    assert answer.status_code == status
    expected = EXACT if status != 304 else {name: EXACT[name] for name in EXACT if name != "content-type"}
    assert {name: answer.headers.get(name) for name in expected} == expected
    assert answer.headers["cache-control"].startswith("private, max-age=")
    assert answer.headers["etag"] == whole.headers["etag"]
    assert not answer.headers["etag"].startswith("W/")
    assert "set-cookie" not in answer.headers
    assert "access-control-allow-credentials" not in answer.headers
    if asked == "several ranges":
        assert answer.content == whole.content
