"""Every documented operation, tried by everybody who may not: nobody learns that somebody else's object exists.

Objects are a finished image, a webhook endpoint and a delivery of one account. The callers are another account's key
with every scope, an administrator's key, a key of the owner's without the scope, an unknown key, and no key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.accounts.principal import mint_secret
from app.db import once
from tests.plugins.gateway import Caller, MakeCaller

NO_KEY_NEEDED = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
OPEN_TO_EVERY_KEY = {("GET", "/v1/models"), ("GET", "/v1/models/{model_id}"), ("POST", "/v1/quote")}
NOT_FOUND = {"task_not_found", "webhook_endpoint_not_found", "webhook_delivery_not_found"}
OBJECTS = ("{task_id}", "{image_id}", "{video_id}", "{public_id}", "{endpoint_id}")


@dataclass(frozen=True, slots=True)
class Estate:
    """What the owner has, by the names of path parameters."""

    owner: Caller
    ids: dict[str, str]

    def path(self, template: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: self.ids[found[1]], template)


@pytest.fixture
async def estate(client: AsyncClient, make_caller: MakeCaller) -> Estate:
    owner = await make_caller()
    image = (await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=owner.headers)).json()["id"]
    endpoint = await client.post(
        "/v1/webhook_endpoints",
        json={"name": "a", "url": "https://example.com/hook", "event_types": ["image.completed"]},
        headers=owner.headers,
    )
    await client.post("/v1/images/generations", json={"prompt": "a second fox"}, headers=owner.headers)
    log = await client.get(f"/v1/webhook_endpoints/{endpoint.json()['id']}/deliveries", headers=owner.headers)
    task = {name: image for name in ("task_id", "image_id", "video_id", "public_id")}
    hooks = {"endpoint_id": endpoint.json()["id"], "delivery_id": log.json()["data"][0]["id"]}
    others = {"kind": "image", "model_id": "gpt-image-2", "name": "demo", "route_id": "route_1"}
    others |= {"model": "gpt-image-2", "number": "1"}
    people = {"account": owner.account.public_id, "key": owner.key.public_id, "code": "code_1", "batch": "batch_1"}
    return Estate(owner, task | hooks | others | people)


def operations(app: FastAPI) -> list[tuple[str, str]]:
    found = [(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods]
    assert len(found) > 55
    return found


async def ask(client: AsyncClient, method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any], str]:
    """Return status, error and cache-control of a request that has a body where one may be needed."""
    body = {"prompt": "on", "reason": "r", "as": "failed", "event_type": "image.completed", "secret": None}
    answer = await client.request(method, path, json=body if method in ("POST", "PATCH") else None, headers=headers)
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    error = answer.json().get("error") if is_json and answer.status_code >= 400 else {}
    return answer.status_code, error or {}, answer.headers.get("cache-control", "")


async def test_without_a_right_key_every_operation_is_a_401_that_no_cache_keeps(
    app: FastAPI, client: AsyncClient, estate: Estate
) -> None:
    wrong = {"authorization": f"Bearer {mint_secret()}"}
    for method, template in operations(app):
        if (method, template) in NO_KEY_NEEDED:
            continue
        for headers, reason in (({}, "missing_api_key"), (wrong, "invalid_api_key")):
            status, error, cache = await ask(client, method, estate.path(template), headers)

            assert (status, error["reason"], cache) == (401, reason, "no-store"), (method, template)


async def test_another_account_s_object_does_not_exist_for_any_key(
    app: FastAPI, client: AsyncClient, estate: Estate, make_caller: MakeCaller
) -> None:
    stranger, walked = await make_caller(), 0
    for method, template in operations(app):
        if template.startswith("/admin/") or not any(name in template for name in OBJECTS):
            continue
        walked += 1
        status, error, cache = await ask(client, method, estate.path(template), stranger.headers)

        assert (status, cache) == (404, "no-store"), (method, template, error)
        assert error["reason"] in NOT_FOUND, (method, template)
        assert error["task_id"] is None, (method, template)

    assert walked >= 18
    engine = estate.owner.services.engine
    [left] = await once(engine, "SELECT count(*) AS n FROM tasks WHERE account_id = $1", (stranger.account.id,))
    kept = await client.get(f"/v1/images/{estate.ids['image_id']}", headers=estate.owner.headers)
    hook = await client.get(f"/v1/webhook_endpoints/{estate.ids['endpoint_id']}", headers=estate.owner.headers)
    assert (left["n"], kept.status_code, hook.status_code) == (0, 200, 200)


async def test_administration_is_a_403_for_whoever_is_no_administrator(
    app: FastAPI, client: AsyncClient, estate: Estate
) -> None:
    walked = 0
    for method, template in operations(app):
        if not template.startswith("/admin/"):
            continue
        walked += 1
        status, error, cache = await ask(client, method, estate.path(template), estate.owner.headers)

        assert (status, error["reason"], cache) == (403, "scope_missing", "no-store"), (method, template)
    assert walked > 15


async def test_an_administrator_s_key_opens_no_customer_s_objects_outside_of_the_administration(
    app: FastAPI, client: AsyncClient, estate: Estate
) -> None:
    from tests.factories import make_account, make_key

    account = await make_account(estate.owner.services.engine, is_admin=True)
    scopes = ["admin:*", "images:write", "videos:write", "tasks:read", "files:read", "account:read"]
    key = await make_key(estate.owner.services.engine, account, scopes=scopes)
    for method, template in operations(app):
        if template.startswith("/admin/") or not any(name in template for name in OBJECTS):
            continue
        headers = {"authorization": f"Bearer {key.secret}"}
        status, error, _ = await ask(client, method, estate.path(template), headers)

        assert (status, error["reason"] in NOT_FOUND) == (404, True), (method, template)


async def test_the_owner_s_own_key_without_a_scope_opens_nothing(
    app: FastAPI, client: AsyncClient, estate: Estate
) -> None:
    from tests.factories import make_key

    weak = {
        scope: await make_key(estate.owner.services.engine, estate.owner.account, scopes=[scope])
        for scope in ("account:read", "tasks:read")
    }
    for method, template in operations(app):
        if template.startswith("/admin/") or (method, template) in NO_KEY_NEEDED | OPEN_TO_EVERY_KEY:
            continue
        about_account = template.startswith(("/v1/me", "/v1/webhook"))
        key = weak["tasks:read" if about_account else "account:read"]
        status, error, _ = await ask(client, method, estate.path(template), {"authorization": f"Bearer {key.secret}"})

        assert (status, error["reason"]) == (403, "scope_missing"), (method, template)
