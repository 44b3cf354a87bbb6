"""Who may call what: keys, scopes, and other people's tasks."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from httpx2 import ASGITransport, AsyncClient

from app.accounts.principal import mint_secret
from app.values import utcnow
from tests.plugins.gateway import no_trace

ROUTES = [
    ("POST", "/v1/images/generations"),
    ("POST", "/v1/images/edits"),
    ("POST", "/v1/images/variations"),
    ("GET", "/v1/images/{id}"),
    ("GET", "/v1/images/generations/{id}"),
    ("POST", "/v1/videos/generations"),
    ("POST", "/v1/videos"),
    ("GET", "/v1/videos"),
    ("GET", "/v1/videos/{id}"),
    ("DELETE", "/v1/videos/{id}"),
    ("GET", "/v1/videos/{id}/content"),
    ("POST", "/v1/videos/{id}/remix"),
    ("POST", "/v1/videos/edits"),
    ("POST", "/v1/videos/extensions"),
    ("POST", "/v1/videos/characters"),
    ("GET", "/v1/tasks"),
    ("GET", "/v1/tasks/{id}"),
    ("GET", "/v1/tasks/{id}/events"),
    ("POST", "/v1/tasks/{id}/cancel"),
    ("DELETE", "/v1/tasks/{id}"),
    ("GET", "/v1/me"),
    ("GET", "/v1/me/ledger"),
    ("GET", "/v1/me/usage"),
    ("POST", "/v1/me/redeem"),
    ("POST", "/v1/webhook_endpoints"),
    ("GET", "/v1/webhook_endpoints"),
    ("GET", "/v1/webhook_event_types"),
    ("GET", "/v1/webhook_endpoints/whe_x"),
    ("POST", "/v1/webhook_endpoints/whe_x"),
    ("DELETE", "/v1/webhook_endpoints/whe_x"),
    ("POST", "/v1/webhook_endpoints/whe_x/rotate_secret"),
    ("POST", "/v1/webhook_endpoints/whe_x/test"),
    ("GET", "/v1/webhook_endpoints/whe_x/deliveries"),
    ("POST", "/v1/webhook_endpoints/whe_x/deliveries/whd_x/redeliver"),
    ("GET", "/v1/webhook_settings"),
    ("POST", "/v1/webhook_settings"),
    ("GET", "/v1/webhook_settings/signing_secret"),
    ("POST", "/v1/webhook_settings/rotate_secret"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/gpt-image-2"),
    ("POST", "/v1/quote"),
    ("GET", "/api/jobs/{id}/image"),
]
ABOUT_A_TASK = [route for route in ROUTES if "{id}" in route[1]]
OPEN_TO_EVERY_KEY = {"/v1/models", "/v1/models/gpt-image-2", "/v1/quote"}


def test_the_list_above_is_complete(app):
    documented = [
        (method.upper(), re.compile(re.sub(r"\{\w+\}", "[^/]+", path)))
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if path not in ("/healthz", "/readyz", "/metrics")
        and not path.startswith("/admin/")  # those have their own tests
    ]

    for method, pattern in documented:
        assert any(known == method and pattern.fullmatch(path) for known, path in ROUTES), (method, pattern.pattern)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_a_key_every_route_answers_401(client, method, path):
    answer = await client.request(method, path.format(id="task_x"))

    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["reason"]) == (401, "unauthorized", "missing_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[1] not in OPEN_TO_EVERY_KEY])
async def test_a_key_without_the_scope_gets_403(client, make_caller, method, path):
    reads_the_account = "/me" in path or "/webhook" in path
    weak = await make_caller(scopes=["tasks:read" if reads_the_account else "account:read"])

    answer = await client.request(method, path.format(id="task_x"), headers=weak.headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["reason"]) == (403, "forbidden", "scope_missing")


@pytest.mark.parametrize(("method", "path"), ABOUT_A_TASK)
async def test_somebody_else_s_task_does_not_exist(client, caller, make_caller, method, path):
    owner = await make_caller()
    made = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=owner.headers)
    path = path.format(id=made.json()["id"])

    answer = await client.request(
        method, path, json={"prompt": "on"} if method == "POST" else None, headers=caller.headers
    )

    assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "task_not_found")
    still = await client.get(f"/v1/tasks/{made.json()['id']}", headers=owner.headers)
    assert still.json()["status"] == "completed"


@pytest.mark.parametrize(
    "secret",
    ["sk-mg_nonsense", "nonsense", "Bearer", mint_secret()],
    ids=["no checksum", "no prefix", "a word", "unknown"],
)
async def test_a_wrong_key_is_invalid_and_nothing_more(client, secret):
    answer = await client.get("/v1/me", headers={"authorization": f"Bearer {secret}"})

    assert (answer.status_code, answer.json()["error"]["reason"]) == (401, "invalid_api_key")


async def test_revoked_and_expired_keys_look_like_unknown_ones(client, caller, make_caller):
    expired = await make_caller(expires_at=utcnow() - timedelta(seconds=1))
    unknown = await client.get("/v1/me", headers={"authorization": f"Bearer {mint_secret()}"})
    await caller.services.keys.revoke(caller.key.id)

    for dead in (caller, expired):
        answer = await client.get("/v1/me", headers=dead.headers)
        expected = unknown.json()["error"] | {"request_id": answer.headers["x-request-id"]}
        assert (answer.status_code, answer.json()["error"]) == (401, expected)


async def test_another_scheme_counts_as_no_key(client):
    answer = await client.get("/v1/me", headers={"authorization": "Basic dXNlcjpwYXNz"})

    assert answer.json()["error"]["reason"] == "missing_api_key"


@pytest.mark.parametrize("path", [path for method, path in ROUTES if method == "POST" and "cancel" not in path])
async def test_the_key_is_checked_before_a_byte_of_the_body_is_read(app, path):
    asked_for = []

    async def spied(scope, receive, send):
        async def spying_receive():
            asked_for.append("more")
            return await receive()

        await app(scope, spying_receive, send)

    async with AsyncClient(transport=ASGITransport(app=spied), base_url="http://gateway.test") as client:
        answer = await client.post(path.format(id="task_x"), json={"prompt": "a fox"})

    assert answer.status_code == 401
    assert asked_for == []


async def test_a_key_may_be_bound_to_models(client, make_caller):
    bound = await make_caller(models=["gemini-3-pro-image-preview"])

    async with no_trace(bound):
        refused = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=bound.headers)
    listed = await client.get("/v1/models", headers=bound.headers)
    one = await client.get("/v1/models/gpt-image-2", headers=bound.headers)

    assert (refused.status_code, refused.json()["error"]["reason"]) == (403, "model_not_allowed")
    assert [model["id"] for model in listed.json()["data"]] == ["gemini-3-pro-image-preview"]
    assert (one.status_code, one.json()["error"]["reason"]) == (403, "model_not_allowed")


async def test_a_suspended_account_reads_but_does_not_spend(client, caller):
    await caller.services.accounts.suspend(caller.account.id)

    async with no_trace(caller):
        refused = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=caller.headers)
    me = await client.get("/v1/me", headers=caller.headers)

    assert (refused.status_code, refused.json()["error"]["reason"]) == (403, "account_suspended")
    assert me.status_code == 200


async def test_a_spent_budget_stops_the_key_and_not_the_account(client, make_caller):
    limited = await make_caller(budget=1)
    await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=limited.headers)

    async with no_trace(limited):
        refused = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=limited.headers)

    assert (refused.status_code, refused.json()["error"]["reason"]) == (402, "key_budget_exhausted")
    assert (await limited.balance()).credits == 999


async def test_too_many_tasks_at_once_are_429_with_a_time(client, make_caller):
    busy = await make_caller(max_in_flight=0)

    async with no_trace(busy):
        refused = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=busy.headers)

    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["reason"]) == (429, "rate_limit_exceeded", "too_many_tasks")
    assert refused.headers["retry-after"] == "5"
