"""Health, readiness, the OpenAPI document, and the page that shows it without leaving the machine."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from httpx2 import ASGITransport, AsyncClient
from pydantic import SecretStr

from app.api import docs
from app.main import create_app
from app.migrate import head_revision

OPERATIONS = 96


async def test_health_says_ok(client):
    answer = await client.get("/healthz")
    head = await client.head("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert (head.status_code, head.content) == (200, b"")


async def test_a_working_gateway_is_ready(client):
    answer = await client.get("/readyz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "reason": None, "degraded": []})


async def ready(settings, head: str | None = None):
    """Return the answer of a gateway with these settings."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        app.state.head_revision = head or app.state.head_revision
        async with AsyncClient(transport=ASGITransport(app=app), base_url="http://gateway.test") as client:
            return await client.get("/readyz")


async def test_without_redis_the_gateway_is_ready_but_degraded(settings):
    answer = await ready(settings.model_copy(update={"redis_url": SecretStr("unix:///nowhere/valkey.sock")}))

    assert (answer.status_code, answer.json()["degraded"]) == (200, ["redis"])


async def test_without_the_database_it_is_not_ready(settings):
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    answer = await ready(settings.model_copy(update={"database_url": SecretStr(url)}))

    assert (answer.status_code, answer.json()["reason"]) == (503, "database_unavailable")
    assert answer.headers["content-type"] == "application/json"


async def test_an_old_schema_is_not_ready(settings, fresh_database):
    empty = settings.model_copy(update={"database_url": SecretStr(fresh_database())})

    answer = await ready(empty)
    newer = await ready(settings, head="9999")

    assert (answer.status_code, answer.json()["reason"]) == (503, "not_migrated")
    assert (newer.status_code, newer.json()["reason"]) == (503, "not_migrated")
    assert head_revision() != "9999"


async def test_the_document_describes_every_operation(client):
    document = (await client.get("/openapi.json")).json()

    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert document["openapi"].startswith("3.1")
    assert len(operations) == OPERATIONS
    assert len({operation["operationId"] for operation in operations}) == OPERATIONS
    for operation in operations:
        assert operation["summary"]
        assert operation["tags"]
        assert "422" not in operation["responses"]


async def test_every_route_of_the_api_documents_bodies_errors_and_the_key(client):
    document = (await client.get("/openapi.json")).json()

    for path, methods in document["paths"].items():
        for operation in methods.values():
            if path in ("/healthz", "/readyz", "/metrics"):
                continue
            assert operation["security"] == [{"bearer": []}, {"session": []}], path
            for status in ("401", "500"):
                content = operation["responses"][status]["content"]["application/json"]
                assert content["schema"]["$ref"].endswith("ErrorEnvelope"), (path, status)
            if "requestBody" in operation and not path.startswith("/admin/"):
                content = operation["requestBody"]["content"]["application/json"]
                assert content["examples"], path
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


async def test_every_reference_in_the_document_leads_somewhere(client):
    answer = await client.get("/openapi.json")

    schemas = answer.json()["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', answer.text))
    assert references
    assert references <= set(schemas)


async def test_the_examples_are_accepted_by_the_gateway_itself(client, caller, services):
    document = (await client.get("/openapi.json")).json()

    for path, endpoint in (
        ("/v1/images/generations", "images/generations"),
        ("/v1/videos/generations", "videos/generations"),
        ("/v1/videos", "videos/generations"),
    ):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            body = {name: value for name, value in example["value"].items() if name != "image_urls"}
            quote = await client.post("/v1/quote", json={"endpoint": endpoint, **body}, headers=caller.headers)
            assert quote.status_code == 200, (path, quote.text)


async def test_the_document_names_the_models_of_the_catalogue(client, services):
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]

    named = schemas["ImageGeneration"]["properties"]["model"]
    assert named["default"] == services.catalog.default_image_model
    assert set(named["examples"]) == {m.id for m in services.catalog.models.values() if m.type == "image"}


async def test_the_docs_page_loads_only_what_comes_with_us(client):
    page = await client.get("/docs")

    wanted = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.headers["content-type"].startswith("text/html")
    assert all(target.startswith("/") and not target.startswith("//") for target in wanted)
    assert re.search(r"<script(?![^>]*\ssrc=)", page.text) is None  # no inline script
    for target in wanted:
        assert (await client.get(target)).status_code == 200, target


async def test_the_docs_page_may_run_nothing_else(client):
    policy = (await client.get("/docs")).headers["content-security-policy"]

    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["connect-src"] == "'self'"
    assert "http" not in policy


def test_the_vendored_files_are_those_of_the_package():
    sums = (docs.SWAGGER / "SHA256SUMS").read_text().splitlines()

    for line in sums:
        digest, name = line.split()
        assert hashlib.sha256((docs.SWAGGER / name).read_bytes()).hexdigest() == digest
    checked = {line.split()[1] for line in sums}
    assert {path.name for path in Path(docs.SWAGGER).iterdir()} == checked | {"SHA256SUMS", "README.md"}


@pytest.mark.parametrize("path", ["/", "/favicon.ico"])
async def test_browsers_find_the_way(client, path):
    answer = await client.get(path, follow_redirects=True)

    assert answer.status_code == 200
