"""Models and prices over HTTP: what an administrator changes is what the next request is quoted, and held, at."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import AsyncClient

from app.intake import Intake
from app.requests import Operation
from tests.factories import make_account, make_key
from tests.plugins.gateway import Caller

PATHS = [
    ("GET", ""),
    ("GET", "/export"),
    ("POST", "/import"),
    ("POST", "/simulate"),
    ("GET", "/gpt-image-2"),
    ("GET", "/gpt-image-2/versions"),
    ("POST", "/gpt-image-2/versions"),
    ("DELETE", "/gpt-image-2/versions/1"),
]
HD = {"prompt": "a fox", "model": "gpt-image-2", "quality": "hd"}


class Admin:
    def __init__(self, client: AsyncClient, headers: dict[str, str]) -> None:
        self.client, self.headers = client, headers

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        content = None if body is None else json.dumps(body)
        answer = await self.client.request(method, f"/admin/v1/models{path}", headers=self.headers, content=content)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.headers["content-type"] == "application/json" else answer.text


@pytest.fixture
async def admin(client: AsyncClient, services: Any) -> AsyncIterator[Admin]:
    key = await make_key(services.engine, await make_account(services.engine, is_admin=True), scopes=["admin:*"])
    admin = Admin(client, {"authorization": f"Bearer {key.secret}"})
    yield admin
    for model in (await admin.call("GET", ""))["data"]:  # other tests of this module see the file again
        if model["differs_from_file"]:
            await admin.call("POST", f"/{model['id']}/versions", {"use_file": True, "note": "The end."}, status=201)


async def quoted(client: AsyncClient, caller: Caller, body: dict[str, Any] = HD) -> dict[str, Any]:
    answer = await client.post("/v1/quote", json={"endpoint": "images/generations", **body}, headers=caller.headers)
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_only_an_administrator_gets_in(client: AsyncClient, caller: Caller, method: str, path: str):
    nobody = await client.request(method, f"/admin/v1/models{path}")
    user = await client.request(method, f"/admin/v1/models{path}", headers=caller.headers)

    assert (nobody.status_code, user.status_code, user.json()["error"]["reason"]) == (401, 403, "scope_missing")


async def test_a_changed_price_is_quoted_and_held_and_a_request_keeps_the_one_it_was_judged_by(
    client: AsyncClient, caller: Caller, admin: Admin, services: Any, tmp_path: Any
):
    made = await admin.call(
        "POST", "/gpt-image-2/versions", {"price": {"credits.hd": 7}, "note": "Dearer."}, status=201
    )
    quote = await quoted(client, caller)
    listed = (await client.get("/v1/models/gpt-image-2", headers=caller.headers)).json()["mediagate"]["price"]
    principal = await services.callers.authenticate(caller.key.secret, peer=None)
    intake = Intake(dict(HD), tmp_path)
    prepared = await services.images._preparer.prepare(principal, intake, Operation.IMAGE_GENERATE)
    await admin.call("POST", "/gpt-image-2/versions", {"price": {"credits.hd": 9}, "note": "Dearer yet."}, status=201)
    task_id = await services.images._promiser.accept(principal, prepared, intake)
    task = await services.queries.find(task_id)
    balance = await caller.balance()

    assert (made["name"], made["state"], made["effective_from"] <= made["created_at"]) == (
        "gpt-image-2@1",
        "in_force",
        True,
    )
    assert (quote["credits"], listed["credits"]["hd"], listed["version"]) == (7, 7, "gpt-image-2@1")
    assert (balance.held, task.request["quote"]["credits"]) == (7, 7)
    assert task.request["quote"]["price_version"] == "gpt-image-2@1"
    assert (await quoted(client, caller))["credits"] == 9


async def test_a_model_is_made_scheduled_cancelled_and_withdrawn(client: AsyncClient, caller: Caller, admin: Admin):
    details = await admin.call("GET", "/gpt-image-2")
    entry = {**details["entry"], "title": "GPT Image 2 again"}
    new = await admin.call("POST", "/fox-1/versions", {"document": entry, "note": "New."}, status=201)
    state = await admin.call("GET", "/fox-1")
    document = (await client.get("/openapi.json")).json()["components"]["schemas"]
    later = await admin.call(
        "POST",
        "/fox-1/versions",
        {"withdraw": True, "note": "The end.", "effective_from": "2031-01-01T00:00:00+00:00"},
        status=201,
    )
    gone = await admin.call("DELETE", f"/fox-1/versions/{later['number']}")
    again = await admin.call("DELETE", f"/fox-1/versions/{later['number']}", status=400)
    none = await admin.call("DELETE", "/fox-1/versions/77", status=404)
    await admin.call("POST", "/fox-1/versions", {"withdraw": True, "note": "The end."}, status=201)
    history = (await admin.call("GET", "/fox-1/versions"))["data"]
    missing = await client.get("/v1/models/fox-1", headers=caller.headers)

    assert (new["number"], state["state"], state["in_file"]) == (1, "offered", False)
    assert state["unserved"] == ["image.generate", "image.edit"]
    assert "fox-1" in json.dumps(document)
    assert (later["state"], gone["state"]) == ("scheduled", "cancelled")
    assert (again["error"]["reason"], none["error"]["reason"]) == ("model_version_fixed", "model_version_not_found")
    assert [(v["number"], v["kind"], v["state"]) for v in history] == [
        (3, "withdrawn", "in_force"),
        (2, "withdrawn", "cancelled"),
        (1, "entry", "past"),
    ]
    assert missing.json()["error"]["reason"] == "model_not_found"


async def test_prices_are_simulated_and_files_looked_at_before_anything_changes(admin: Admin):
    text = await admin.call("GET", "/export")
    cheaper = text.replace("{480p: 8, 720p: 25}", "{480p: 7, 720p: 25}")
    price = {"unit": "image", "credits": 4}

    tried = await admin.call(
        "POST",
        "/simulate",
        {"model": "gpt-image-2", "parameters": {"quality": "hd"}, "price": price, "with_examples": True},
    )
    seen = await admin.call("POST", "/import?dry_run=true", {"yaml": cheaper})
    silent = await admin.call("POST", "/import", {"yaml": cheaper}, status=400)

    assert (tried["quote"]["credits"], tried["quote"]["price_version"]) == (4, "draft")
    assert {row["difference"] for row in tried["examples"]} == {3, 2, 1}
    assert [(change["model"], change["prices"][0]["after"]) for change in seen["changes"]] == [
        ("doubao-seedance-2.0-fast", 7),
        ("doubao-seedance-2.0-fast-face", 7),
    ]
    assert (seen["missing"], seen["versions"], silent["error"]["param"]) == ([], [], "note")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"note": "x"}, "document"),
        ({"price": {"credits.hd": 1.5}, "note": "x"}, "price.credits.hd"),
        ({"price": {"credits.hd": 10**30}, "note": "x"}, "price.credits.hd"),
        ({"document": "\x00", "note": "x"}, "document"),
        ({"document": {"title": "\ud800"}, "note": "x"}, None),
        ({"document": "[" * 3000, "note": "x"}, "document"),
        ({"document": {"created": 10**400}, "note": "x"}, "document"),
        ({"withdraw": True, "note": "\x00"}, "note"),
        ({"withdraw": True, "note": "x", "effective_from": 10**18}, "effective_from"),
        ({"withdraw": True, "note": "x", "effective_from": "soon"}, "effective_from"),
    ],
)
async def test_nonsense_is_a_400_that_names_the_field(admin: Admin, body: dict[str, Any], param: str | None):
    answer = await admin.call("POST", "/gpt-image-2/versions", body, status=400)

    assert answer["error"]["param"] == param
