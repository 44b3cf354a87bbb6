"""The routes: OpenAI's SDK manages endpoints with them, and nobody sees or touches another account's."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import openai
import pytest
from httpx2 import ASGITransport, AsyncClient
from openai import AsyncOpenAI

from app.webhooks.deliver import Deliverer
from app.webhooks.endpoints import MAX_ENDPOINTS
from tests.plugins.gateway import no_trace
from tests.webhooks.conftest import until

VIDEOS = ["video.completed", "video.failed"]


@asynccontextmanager
async def sdk(app, caller):
    """The SDK as its users make it, but with answers checked against its own types."""
    transport = AsyncClient(transport=ASGITransport(app=app), timeout=60)
    async with AsyncOpenAI(
        api_key=caller.key.secret,
        base_url="http://gateway.test/v1",
        http_client=transport,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


async def test_the_sdk_manages_endpoints(app, caller, hooks):
    url = hooks.receiver.url()
    async with sdk(app, caller) as client:
        made = await client.webhooks.create(name=" shop ", url=url, event_types=VIDEOS)
        listed = await client.webhooks.list()
        found = await client.webhooks.retrieve(made.id)
        same = await client.webhooks.update(made.id, name="shop")
        changed = await client.webhooks.update(made.id, event_types=["video.failed"])
        rotated = await client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
        plain = await client.webhooks.rotate_secret(made.id)
        tested = await client.webhooks.test(made.id, event_type="video.completed")
        types = await client.webhooks.event_types.list()
        deleted = await client.webhooks.delete(made.id)
        with pytest.raises(openai.NotFoundError) as gone:
            await client.webhooks.retrieve(made.id)

    assert (made.object, made.name, made.url, made.event_types) == ("webhook_endpoint", "shop", url, VIDEOS)
    assert made.signing_secret.startswith("whsec_")
    assert made.signing_secret_hint == f"whsec_...{made.signing_secret[-5:]}"
    assert [one.id for one in listed.data] == [made.id] == [found.id]
    assert not hasattr(found, "signing_secret")
    assert same.updated_at == made.updated_at
    assert changed.event_types == ["video.failed"]
    assert len({made.signing_secret, rotated.signing_secret, plain.signing_secret}) == 3
    assert (tested.status_code, tested.success, tested.webhook_endpoint_id) == (200, True, made.id)
    assert "image.completed" in types.data
    assert (deleted.id, deleted.deleted) == (made.id, True)
    assert gone.value.body["reason"] == "webhook_endpoint_not_found"
    [received] = hooks.receiver.at(url)
    event = openai.OpenAI(api_key="x").webhooks.unwrap(received.body, received.headers, secret=plain.signing_secret)
    assert (event.type, event.data.test) == ("video.completed", True)


async def test_pages_of_endpoints(app, caller, hooks):
    made = [await hooks.endpoint(caller) for _ in range(5)]

    async with sdk(app, caller) as client:
        seen = [endpoint.id async for endpoint in client.webhooks.list(limit=2)]

    assert seen == [endpoint for endpoint, _, _ in reversed(made)]


async def test_a_finished_image_and_its_one_off_url_are_told_within_two_seconds(client, caller, hooks, delivering):
    made = await client.post(
        "/v1/webhook_endpoints",
        json={"name": "all", "url": hooks.receiver.url(), "event_types": ["image.completed"]},
        headers=caller.headers,
    )
    one_off = hooks.receiver.url()
    answer = await client.post(
        "/v1/images/generations", json={"prompt": "a fox", "webhook_url": one_off}, headers=caller.headers
    )
    ended = time.monotonic()
    received = await until(lambda: hooks.receiver.at(one_off) and hooks.receiver.at(made.json()["url"]))
    took_s = time.monotonic() - ended

    assert took_s < 2
    secret = (await client.get("/v1/webhook_settings/signing_secret", headers=caller.headers)).json()["signing_secret"]
    event = openai.OpenAI(api_key="x").webhooks.unwrap(
        hooks.receiver.at(one_off)[0].body, hooks.receiver.at(one_off)[0].headers, secret=secret
    )
    assert (event.type, event.data.id) == ("image.completed", answer.json()["id"])
    assert len(received) == 1
    task = await client.get(f"/v1/tasks/{answer.json()['id']}", headers=caller.headers)
    assert one_off not in task.text
    assert task.json()["warnings"] == []
    logged = await until_delivered(client, caller, "one_off")
    assert (logged["url"], logged["event"]["data"]["id"]) == (one_off, answer.json()["id"])


@pytest.fixture
async def delivering(services):
    """The worker's loop, for one test."""
    loop = Deliverer(services.engine, services.webhook_secrets, services.fetcher)
    running = asyncio.create_task(loop.run())
    yield
    await loop.drain(10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def until_delivered(client, caller, endpoint):
    """Return the newest delivery once it is written down."""
    while True:
        page = await client.get(f"/v1/webhook_endpoints/{endpoint}/deliveries", headers=caller.headers)
        if page.json()["data"][0]["status"] == "delivered":
            return page.json()["data"][0]


async def test_the_log_pages_and_a_delivery_is_sent_again_with_the_same_id(client, caller, hooks):
    endpoint, url, _ = await hooks.endpoint(caller)
    hooks.receiver.will_answer(url, 418)
    for _ in range(3):
        await hooks.failed_task(caller)
    await hooks.deliver()
    await hooks.all_due(caller)
    await hooks.deliver()
    path = f"/v1/webhook_endpoints/{endpoint}/deliveries"

    first = (await client.get(path, params={"limit": 2}, headers=caller.headers)).json()
    rest = (await client.get(path, params={"limit": 2, "after": first["last_id"]}, headers=caller.headers)).json()
    again = await client.post(f"{path}/{first['data'][0]['id']}/redeliver", headers=caller.headers)
    await until(lambda: again.json()["status"] == "pending")
    await hooks.deliver()
    await until(lambda: len(hooks.receiver.at(url)) == 5)

    assert ([len(first["data"]), first["has_more"]], [len(rest["data"]), rest["has_more"]]) == ([2, True], [1, False])
    entries = first["data"] + rest["data"]
    assert {entry["status"] for entry in entries} == {"delivered"}
    assert sorted(len(entry["attempts"]) for entry in entries) == [1, 1, 2]
    tried = next(entry for entry in entries if len(entry["attempts"]) == 2)
    assert [(a["status_code"], a["error"]) for a in tried["attempts"]] == [(418, "status"), (200, None)]
    assert hooks.receiver.at(url)[-1].headers["webhook-id"] == entries[0]["event"]["id"]
    failed = await client.get(path, params={"status": "failed"}, headers=caller.headers)
    assert failed.json()["data"] == []


@pytest.mark.parametrize(
    ("change", "param", "reason"),
    [
        ({"url": "http://127.0.0.1/x"}, "url", "input_url_refused"),
        ({"url": "http://10.1.2.3/x"}, "url", "input_url_refused"),
        ({"url": "http://[::1]/x"}, "url", "input_url_refused"),
        ({"url": "http://2130706433/"}, "url", "input_url_refused"),
        ({"url": "https://user@example.com/"}, "url", "input_url_refused"),
        ({"url": "https://example.com:22/"}, "url", "input_url_refused"),
        ({"url": "http://gateway.test/v1/me"}, "url", "input_url_refused"),
        ({"url": "ftp://example.com/"}, "url", "input_url_refused"),
        ({"url": "https://example.com/" + "x" * 2048}, "url", "input_url_refused"),
        ({"url": 7}, "url", "invalid_parameter"),
        ({"name": ""}, "name", "invalid_parameter"),
        ({"name": "x" * 101}, "name", "invalid_parameter"),
        ({"name": "a\x00b"}, "name", "invalid_parameter"),
        ({"event_types": []}, "event_types", "invalid_parameter"),
        ({"event_types": ["batch.completed"]}, "event_types", "invalid_parameter"),
        ({"event_types": "video.completed"}, "event_types", "invalid_parameter"),
    ],
)
async def test_what_is_wrong_is_named(client, caller, hooks, change, param, reason):
    good = {"name": "a", "url": "https://example.com/hook", "event_types": VIDEOS}
    endpoint, _, _ = await hooks.endpoint(caller)

    made = await client.post("/v1/webhook_endpoints", json=good | change, headers=caller.headers)
    changed = await client.post(f"/v1/webhook_endpoints/{endpoint}", json=change, headers=caller.headers)

    for answer in (made, changed):
        error = answer.json()["error"]
        assert (answer.status_code, error["param"].partition(".")[0], error["reason"]) == (400, param, reason)


async def test_a_webhook_url_to_a_private_place_is_refused_before_anything_is_held(client, caller):
    for path, url in (
        ("/v1/images/generations", "http://169.254.169.254/latest"),
        ("/v1/videos/generations", "http://127.0.0.1:9/x"),
    ):
        async with no_trace(caller):
            answer = await client.post(path, json={"prompt": "a fox", "webhook_url": url}, headers=caller.headers)

        error = answer.json()["error"]
        assert (answer.status_code, error["reason"], error["param"]) == (400, "input_url_refused", "webhook_url")


async def test_an_account_has_at_most_ten_endpoints(client, caller, hooks):
    for _ in range(MAX_ENDPOINTS):
        endpoint, url, _ = await hooks.endpoint(caller)
    body = {"name": "a", "url": url, "event_types": VIDEOS}

    refused = await client.post("/v1/webhook_endpoints", json=body, headers=caller.headers)
    await client.delete(f"/v1/webhook_endpoints/{endpoint}", headers=caller.headers)
    made = await client.post("/v1/webhook_endpoints", json=body, headers=caller.headers)

    assert (refused.status_code, made.status_code) == (400, 200)
    assert "at most 10" in refused.json()["error"]["message"]


async def test_a_test_says_what_the_receiver_answered_and_what_cannot_be_reached(client, caller, hooks):
    endpoint, url, _ = await hooks.endpoint(caller)
    hooks.receiver.will_answer(url, 500)
    path = f"/v1/webhook_endpoints/{endpoint}"
    test = {"event_type": "credits.low"}

    answered = await client.post(f"{path}/test", json=test, headers=caller.headers)
    unknown = await client.post(f"{path}/test", json={"event_type": "x"}, headers=caller.headers)
    await client.post(path, json={"url": "https://nowhere.invalid/"}, headers=caller.headers)
    unreachable = await client.post(f"{path}/test", json=test, headers=caller.headers)

    assert (answered.json()["status_code"], answered.json()["success"]) == (500, True)
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "event_type")
    assert (unreachable.status_code, unreachable.json()["error"]["reason"]) == (400, "input_url_unreachable")
    log = (await client.get(f"{path}/deliveries", headers=caller.headers)).json()["data"]
    assert [(entry["status"], entry["tries"], entry["next_try_at"]) for entry in log] == [("failed", 1, None)] * 2
    assert log[0]["event"]["data"] == {"id": caller.account.public_id, "test": True}


async def test_an_account_has_one_test_at_a_time(client, caller, make_caller, hooks):
    other = await make_caller()
    slow, url, _ = await hooks.endpoint(caller)
    second, _, _ = await hooks.endpoint(caller)
    elsewhere, _, _ = await hooks.endpoint(other)
    path = url.rpartition("/")[2]
    hooks.receiver.hanging.add(path)

    async def test(who, endpoint):
        path = f"/v1/webhook_endpoints/{endpoint}/test"
        return await client.post(path, json={"event_type": "image.failed"}, headers=who.headers)

    first = asyncio.create_task(test(caller, slow))
    await until(lambda: hooks.receiver.at(url))
    refused, free = await test(caller, second), await test(other, elsewhere)
    hooks.receiver.hanging.discard(path)
    hooks.receiver.release.set()
    hooks.receiver.release = asyncio.Event()

    assert (refused.status_code, refused.json()["error"]["reason"]) == (429, "too_many_requests")
    assert refused.headers["retry-after"] == "5"
    assert (free.status_code, (await first).status_code) == (200, 200)
    assert (await test(caller, second)).status_code == 200


async def test_a_disabled_endpoint_says_so_and_can_be_set_active_again(client, caller, hooks):
    endpoint, _, _ = await hooks.endpoint(caller)
    await hooks.failed_task(caller)
    path = f"/v1/webhook_endpoints/{endpoint}"

    off = await client.post(path, json={"status": "disabled"}, headers=caller.headers)
    [entry] = (await client.get(f"{path}/deliveries", headers=caller.headers)).json()["data"]
    refused = await client.post(f"{path}/deliveries/{entry['id']}/redeliver", headers=caller.headers)
    on = await client.post(path, json={"status": "active"}, headers=caller.headers)
    again = await client.post(f"{path}/deliveries/{entry['id']}/redeliver", headers=caller.headers)

    assert (off.json()["status"], off.json()["disabled_reason"]) == ("disabled", "by_owner")
    assert (refused.status_code, on.json()["status"], on.json()["disabled_reason"]) == (400, "active", None)
    assert again.json()["status"] == "pending"


async def test_the_account_s_settings_and_its_secret(client, caller):
    path = "/v1/webhook_settings"
    fresh = (await client.get(path, headers=caller.headers)).json()
    low = await client.post(path, json={"low_credits": 50}, headers=caller.headers)
    bad = await client.post(path, json={"low_credits": 0}, headers=caller.headers)
    first = (await client.get(f"{path}/signing_secret", headers=caller.headers)).json()["signing_secret"]
    same = (await client.get(f"{path}/signing_secret", headers=caller.headers)).json()["signing_secret"]
    rotated = await client.post(f"{path}/rotate_secret", headers=caller.headers)
    off = await client.post(path, json={"low_credits": None}, headers=caller.headers)

    assert fresh == {"object": "webhook_settings", "low_credits": None, "signing_secret_hint": None}
    assert low.json()["low_credits"] == 50
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "low_credits")
    assert first == same != rotated.json()["signing_secret"]
    assert rotated.headers["cache-control"] == "no-store"
    assert off.json()["low_credits"] is None
    assert off.json()["signing_secret_hint"].endswith(rotated.json()["signing_secret"][-5:])


async def test_another_account_s_endpoint_does_not_exist(client, caller, make_caller, hooks):
    owner = await make_caller()
    endpoint, url, _ = await hooks.endpoint(owner)
    mine, _, _ = await hooks.endpoint(caller)
    await hooks.failed_task(owner)
    path = f"/v1/webhook_endpoints/{endpoint}"
    [entry] = (await client.get(f"{path}/deliveries", headers=owner.headers)).json()["data"]
    before = (await client.get(path, headers=owner.headers)).json()

    for method, foreign, body in (
        ("GET", path, None),
        ("POST", path, {"name": "mine"}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate_secret", {}),
        ("POST", f"{path}/test", {"event_type": "video.failed"}),
        ("GET", f"{path}/deliveries", None),
        ("POST", f"{path}/deliveries/{entry['id']}/redeliver", None),
        ("POST", f"/v1/webhook_endpoints/{mine}/deliveries/{entry['id']}/redeliver", None),
        ("POST", f"/v1/webhook_endpoints/one_off/deliveries/{entry['id']}/redeliver", None),
        ("GET", "/v1/webhook_endpoints/whe_nonsense", None),
    ):
        answer = await client.request(method, foreign, json=body, headers=caller.headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error"), foreign

    listed = await client.get("/v1/webhook_endpoints", headers=caller.headers)
    assert [one["id"] for one in listed.json()["data"]] == [mine]
    assert (await client.get(path, headers=owner.headers)).json() == before
    assert hooks.receiver.at(url) == []


async def test_reading_needs_account_read_and_changes_a_key_that_may_make_something(client, make_caller, hooks):
    reader = await make_caller(scopes=["account:read"])
    maker = await make_caller(scopes=["images:write"])
    body = {"name": "a", "url": hooks.receiver.url(), "event_types": VIDEOS}

    statuses = [
        (await client.get("/v1/webhook_endpoints", headers=reader.headers)).status_code,
        (await client.post("/v1/webhook_endpoints", json=body, headers=reader.headers)).status_code,
        (await client.get("/v1/webhook_settings/signing_secret", headers=reader.headers)).status_code,
        (await client.get("/v1/webhook_endpoints", headers=maker.headers)).status_code,
        (await client.post("/v1/webhook_endpoints", json=body, headers=maker.headers)).status_code,
    ]

    assert statuses == [200, 403, 403, 403, 200]


async def test_every_route_is_documented_with_examples_of_its_body(app):
    paths = {path: found for path, found in app.openapi()["paths"].items() if path.startswith("/v1/webhook_")}

    assert len(paths) == 10
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert operation["tags"] == ["Webhooks"]
            assert {"200", "401", "503"} <= operation["responses"].keys(), path
            if method == "post" and not path.endswith("/redeliver"):
                assert operation["requestBody"]["content"]["application/json"]["examples"], path
