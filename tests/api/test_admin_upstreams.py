"""Accounts and routes over HTTP: for administrators only, in the one envelope, without any secret."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import AsyncEngine

from app.accounts.callers import Callers
from app.api import errors, openapi
from app.api.admin.upstreams import router
from app.api.middleware import RequestShell
from app.catalog.book import Book
from app.catalog.inspection import Inspector
from app.db import make_engine, once
from app.fetch.client import SafeFetcher
from app.requests import Operation
from app.settings import Settings
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Call, Capabilities, Probed, SubmitSafety, Upstream, UpstreamDenied, Verdict
from app.upstreams.registry import Registry
from tests.factories import PEPPER, SECRETS_KEY, make_account, make_key
from tests.unit.catalogs import shipped

SECRET = "sk-canary-0123456789"
PROVIDERS = {"demo": Capabilities(frozenset(Operation), SubmitSafety.IDEMPOTENT)}
PATHS = [
    ("GET", "/upstreams"),
    ("POST", "/upstreams"),
    ("GET", "/upstreams/a"),
    ("PATCH", "/upstreams/a"),
    ("DELETE", "/upstreams/a"),
    *(("POST", f"/upstreams/a/{word}") for word in ("rotate", "enable", "disable", "drain", "test")),
    ("GET", "/routes"),
    ("POST", "/routes"),
    ("GET", "/routes/route_1"),
    ("PATCH", "/routes/route_1"),
    ("DELETE", "/routes/route_1"),
]


@dataclass
class Vendor:
    """A provider whose vendor answers when the test lets it."""

    name: str = "demo"
    capabilities: Capabilities = PROVIDERS["demo"]
    asked: list[str] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    balance: str | None = "3.00 USD"

    def needs_secret(self, upstream: Upstream) -> bool:
        return True

    async def probe(self, call: Call, models: Collection[str]) -> Probed:
        assert call.upstream.secret is not None
        self.asked.append(call.upstream.secret.get_secret_value())
        await self.answers.wait()
        if self.balance is None:
            raise UpstreamDenied(f"status 401: no {SECRET}", http_status=401)
        return Probed(Verdict.ACCEPTED, missing=tuple(models), balance=self.balance)


@dataclass
class Admin:
    """An administrator's client, which sees to it that no answer holds the secret."""

    client: AsyncClient
    engine: AsyncEngine
    email: str

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        if body is not None:
            more["content"] = json.dumps(body)
        answer = await self.client.request(method, f"/admin/v1{path}", **more)
        assert answer.status_code == status, answer.text
        assert SECRET not in answer.text + str(answer.headers)
        return answer.json()

    async def error(self, method: str, path: str, body: Any = None, *, status: int = 400, **more: Any) -> Any:
        found = (await self.call(method, path, body, status=status, **more))["error"]
        assert set(found) == {"message", "type", "code", "param", "reason", "request_id", "task_id"}
        return found


@pytest.fixture
async def engine(fresh_database: Callable[..., str]) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(fresh_database(migrated=True), pool_size=4)
    yield engine
    await engine.dispose()


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def app(engine: AsyncEngine, vendor: Vendor, tmp_path: Path) -> FastAPI:
    """The router with its services, as the API puts them together."""
    app = FastAPI(openapi_url=None)
    book = Book(engine, SECRETS_KEY, catalog=shipped(), providers=PROVIDERS, work_dir=tmp_path)
    http = UpstreamHttp(SafeFetcher(Settings()))
    app.state.services = SimpleNamespace(
        settings=Settings(),
        callers=Callers(engine, PEPPER),
        book=book,
        catalog=shipped(),
        inspector=Inspector(book, Registry({"demo": vendor}), http),
    )
    errors.install(app)
    openapi.install(app)
    app.add_middleware(RequestShell, settings=Settings())
    app.include_router(router)
    return app


@pytest.fixture
async def admin(app: FastAPI, engine: AsyncEngine) -> AsyncIterator[Admin]:
    account = await make_account(engine, is_admin=True)
    key = await make_key(engine, account, scopes=["admin:*"])
    headers = {"authorization": f"Bearer {key.secret}"}
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://gateway.test", headers=headers) as client:
        yield Admin(client, engine, account.email)


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_only_a_key_with_the_scope_gets_in(admin: Admin, method: str, path: str):
    account = await make_account(admin.engine, is_admin=True)
    key = await make_key(admin.engine, account, scopes=["account:read"])

    nobody = await admin.error(method, path, status=401, headers={"authorization": ""})
    user = await admin.error(
        method, path, status=403, headers={"authorization": f"Bearer {key.secret}"}, content=b"not even read"
    )

    assert nobody["reason"] == "missing_api_key"
    assert (user["reason"], user["message"]) == ("scope_missing", "This API key lacks the scope 'admin:*'.")


async def test_an_account_lives_from_post_to_delete(admin: Admin):
    body = {"name": "a", "provider": "demo", "secret": SECRET, "base_url": "https://a.test", "options": {"x": [1]}}

    added = await admin.call("POST", "/upstreams", body, status=201)
    changed = await admin.call("PATCH", "/upstreams/a", {"concurrency": 9, "base_url": None, "secret": SECRET})
    rotated = await admin.call("POST", "/upstreams/a/rotate", {"secret": SECRET + "-2"})
    states = [(await admin.call("POST", f"/upstreams/a/{word}"))["state"] for word in ("drain", "disable", "enable")]
    read = await admin.call("GET", "/upstreams/a")
    listed = await admin.call("GET", "/upstreams")
    deleted = await admin.call("DELETE", "/upstreams/a")

    assert (added["object"], added["has_secret"], added["version"], added["options"]) == (
        "upstream",
        True,
        1,
        {"x": [1]},
    )
    assert (changed["concurrency"], changed["base_url"], changed["options"], changed["version"]) == (
        9,
        None,
        {"x": [1]},
        2,
    )
    assert rotated["version"] == 3
    assert states == ["draining", "disabled", "active"]
    assert listed == {"object": "list", "data": [read]}
    assert deleted["state"] == "deleted"
    assert (await admin.error("GET", "/upstreams/b", status=404))["reason"] == "upstream_not_found"
    assert (await admin.error("POST", "/upstreams", body))["reason"] == "upstream_exists"


async def test_an_account_is_tested_once_at_a_time_and_nothing_is_noted(admin: Admin, vendor: Vendor):
    await admin.call("POST", "/upstreams", {"name": "a", "provider": "demo"}, status=201)
    bare = await admin.call("POST", "/upstreams/a/test")
    await admin.call("POST", "/upstreams/a/rotate", {"secret": SECRET})
    route = {"model": "gpt-image-2", "upstream": "a", "upstream_model": "theirs"}
    await admin.call("POST", "/routes", route, status=201)
    audited = await once(admin.engine, "SELECT count(*) AS rows FROM audit")

    both = [asyncio.create_task(admin.call("POST", "/upstreams/a/test")) for _ in range(3)]
    while not vendor.asked:  # noqa: ASYNC110 - the tests' own patience ends it
        await asyncio.sleep(0.01)
    vendor.answers.set()
    first, *others = [await one for one in both]
    vendor.balance = None
    refused = await admin.call("POST", "/upstreams/a/test")

    lacking = {check["name"]: check for check in bare["checks"]}
    assert (bare["ok"], lacking["secret"]["outcome"], "vendor" in lacking) == (False, "bad", False)
    assert vendor.asked == [SECRET, SECRET]
    assert others == [first, first]
    assert (first["object"], first["upstream"], first["ok"]) == ("upstream.test", "a", False)
    by_name = {check["name"]: check for check in first["checks"]}
    assert list(by_name) == ["state", "secret", "routes", "vendor", "models"]
    assert by_name["vendor"]["found"] == "The vendor accepted the secret. Left there: 3.00 USD."
    assert by_name["vendor"]["took_ms"] >= 0
    assert by_name["models"]["missing_models"] == ["theirs"]
    assert refused["checks"][-1]["found"] == "The vendor refused the secret: status 401: no ..."
    assert await once(admin.engine, "SELECT count(*) AS rows FROM audit") == audited
    assert (await admin.error("POST", "/upstreams/nobody/test", status=404))["reason"] == "upstream_not_found"


async def test_a_route_lives_from_post_to_delete(admin: Admin):
    await admin.call("POST", "/upstreams", {"name": "a", "provider": "demo"}, status=201)
    body = {"model": "gpt-image-2", "upstream": "a", "upstream_model": "v/m", "operations": ["image.edit"], "weight": 2}

    added = await admin.call("POST", "/routes", body, status=201)
    path = f"/routes/{added['id']}"
    changed = await admin.call("PATCH", path, {"enabled": False, "priority": 3, "operations": None})
    read = await admin.call("GET", path)
    listed = await admin.call("GET", "/routes?model=gpt-image-2")
    others = await admin.call("GET", "/routes?model=happyhorse-1.0")
    removed = await admin.call("DELETE", path)

    assert (added["object"], added["operations"], added["weight"], added["enabled"]) == (
        "route",
        ["image.edit"],
        2,
        True,
    )
    assert (changed["enabled"], changed["priority"], changed["operations"], changed["weight"]) == (False, 3, None, 2)
    assert listed["data"] == [read] == [changed]
    assert others["data"] == []
    assert removed["id"] == added["id"]
    for gone in (path, "/routes/route_x"):
        assert (await admin.error("GET", gone, status=404))["reason"] == "model_route_not_found"


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({"provider": "demo"}, "name", "missing_parameter"),
        ({"name": "a b", "provider": "demo"}, "name", "invalid_parameter"),
        ({"name": "a", "provider": "nobody"}, "provider", "invalid_parameter"),
        ({"name": "a", "provider": "demo", "secret": [SECRET]}, "secret", "invalid_parameter"),
        ({"name": "a", "provider": "demo", "secret": SECRET + "\n"}, "secret", "invalid_parameter"),
        ({"name": "a", "provider": "demo", "secret": "\ud800" + SECRET}, None, "invalid_parameter"),
        ({"name": "a", "provider": "demo", "concurrency": "4"}, "concurrency", "invalid_parameter"),
        ({"name": "a", "provider": "demo", "concurrency": 2**70}, "concurrency", "invalid_parameter"),
        ({"name": "a", "provider": "demo", "options": ["x"]}, "options", "invalid_parameter"),
        ({"name": "a", "provider": "demo", "key": SECRET}, "key", "invalid_parameter"),
        ([SECRET], None, "invalid_parameter"),
    ],
)
async def test_a_mistake_names_its_field_and_repeats_no_secret(admin: Admin, body: Any, param: str | None, reason: str):
    error = await admin.error("POST", "/upstreams", body)

    assert (error["param"], error["reason"]) == (param, reason)
    assert (await admin.call("GET", "/upstreams"))["data"] == []


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b'{"name": ', 400),
        (b"[" * 100_000, 400),
        (b'{"name": "' + b"x" * 300_000 + b'"}', 413),
        (b"\xff", 400),
    ],
)
async def test_a_body_that_is_no_small_json_is_refused(admin: Admin, content: bytes, status: int):
    await admin.error("POST", "/upstreams", status=status, content=content)


async def test_another_content_type_is_refused(admin: Admin):
    error = await admin.error(
        "POST",
        "/upstreams",
        status=415,
        content=b"name=a",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )

    assert error["reason"] == "unsupported_media_type"


async def test_the_audit_names_the_administrator_and_the_request(admin: Admin):
    await admin.call(
        "POST",
        "/upstreams",
        {"name": "a", "provider": "demo", "secret": SECRET},
        status=201,
        headers={"x-request-id": "r-1"},
    )

    [row] = await once(admin.engine, "SELECT * FROM audit WHERE target = 'upstream:a'")
    assert row["actor"].startswith(f"{admin.email} (key_")
    assert (row["action"], row["target"], row["request_id"]) == ("upstream.add", "upstream:a", "r-1")
    assert SECRET not in str(dict(row))


async def test_every_route_is_in_the_openapi_document_with_its_body(app: FastAPI):
    document = app.openapi()
    paths = document["paths"]

    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert documented == {
        (method, f"/admin/v1{path.replace('/a', '/{name}').replace('route_1', '{route_id}')}") for method, path in PATHS
    }
    for (method, path), secret in ((("post", "/upstreams"), True), (("patch", "/routes/{route_id}"), False)):
        schema = paths[f"/admin/v1{path}"][method]["requestBody"]["content"]["application/json"]["schema"]
        assert ("secret" in schema["properties"]) is secret
    assert "Operation" in document["components"]["schemas"]
    assert "#/$defs" not in str(document)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/routes?model=%00", 400),
        ("GET", "/routes/%00", 404),
        ("GET", "/upstreams/a%00b", 400),
        ("DELETE", "/upstreams/a%00b", 400),
        ("POST", "/upstreams/a%00b/drain", 400),
        ("POST", "/upstreams/a%00b/enable", 400),
    ],
)
async def test_a_nul_is_the_caller_s_mistake(admin: Admin, method: str, path: str, status: int):
    await admin.call(method, path, status=status)
