"""What a caller gets while the gateway sheds load: at once, in the envelope, and only for what costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.generation.turns import Turns
from tests.plugins.gateway import Caller

BODY = {"model": "gpt-image-2", "prompt": "a fox"}


@pytest.fixture
def overloaded(app: FastAPI) -> Iterator[Turns]:
    """As many requests are on their way to their hold as may be."""
    turns: Turns = app.state.turns
    inside = []
    while (turn := turns.enter()) is not None:
        inside.append(turn)
    yield turns
    for turn in inside:
        turn.leave()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/images/generations", "/v1/images/edits", "/v1/videos", "/v1/videos/generations",
        "/v1/videos/task_x/remix",
    ],
)  # fmt: skip
async def test_a_paid_request_is_shed_before_its_key_and_body_are_looked_at(client: AsyncClient, overloaded, path):
    answer = await client.post(path, content=b"{not even", headers={"authorization": "Bearer nobody"})

    error = answer.json()["error"]
    assert answer.status_code == 503
    assert (error["type"], error["reason"], error["code"]) == ("server_error", "overloaded", 503)
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["task_id"] is None
    assert 1 <= int(answer.headers["retry-after"]) <= 5
    assert answer.headers["x-should-retry"] == "true"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200), ("GET", "/readyz", 200), ("GET", "/v1/tasks", 200), ("GET", "/v1/me", 200),
        ("GET", "/v1/images/task_x", 404), ("GET", "/v1/videos/task_x", 404), ("DELETE", "/v1/videos/task_x", 404),
        ("POST", "/v1/tasks/task_x/cancel", 404),
    ],
)  # fmt: skip
async def test_what_costs_nothing_passes(client: AsyncClient, caller: Caller, overloaded, method, path, status):
    answer = await client.request(method, path, headers=caller.headers)

    assert answer.status_code == status


async def test_every_way_out_of_a_request_gives_its_place_back(client: AsyncClient, caller: Caller, app: FastAPI):
    made = await client.post("/v1/images/generations", json=BODY, headers=caller.headers)
    later = await client.post("/v1/images/generations", json=BODY | {"async": True}, headers=caller.headers)
    wrong = await client.post("/v1/images/generations", json={"prompt": 7}, headers=caller.headers)
    nobody = await client.post("/v1/images/generations", json=BODY)

    assert [made.status_code, later.status_code, wrong.status_code, nobody.status_code] == [200, 202, 400, 401]
    assert app.state.turns.active == 0
