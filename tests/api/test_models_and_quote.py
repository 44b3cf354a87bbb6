"""Models with their parameters and prices; quotes that equal the hold."""

from __future__ import annotations

import pytest

from tests.plugins.gateway import no_trace


async def test_every_model_is_listed_in_openai_s_shape(client, caller, services):
    listed = (await client.get("/v1/models", headers=caller.headers)).json()

    assert listed["object"] == "list"
    assert {model["id"] for model in listed["data"]} == set(services.catalog.models)
    for model in listed["data"]:
        assert (model["object"], type(model["created"]), type(model["owned_by"])) == ("model", int, str)
        assert model["mediagate"]["type"] in ("image", "video")
        assert model["mediagate"]["operations"]
        assert model["mediagate"]["price"]["unit"] in ("image", "second", "call")
        assert model["mediagate"]["parameters"]["type"] == "object"


async def test_one_model_is_the_same_as_in_the_list(client, caller):
    listed = (await client.get("/v1/models", headers=caller.headers)).json()["data"]

    one = await client.get(f"/v1/models/{listed[0]['id']}", headers=caller.headers)

    assert one.json() == listed[0]


async def test_an_unknown_model_is_404(client, caller):
    answer = await client.get("/v1/models/dall-e-2", headers=caller.headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["reason"], error["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("endpoint", "body", "credits"),
    [
        ("images/generations", {}, 1),
        ("/v1/images/generations", {"quality": "hd"}, 2),
        ("images/generations", {"quality": "4k"}, 3),
        ("images/generations", {"model": "gemini-3-pro-image-preview-4k"}, 10),
        ("images/generations", {"model": "gemini-3.1-flash-image-preview"}, 5),
        ("videos/generations", {}, 125),
        ("videos/generations", {"resolution": "480p", "duration": 4}, 32),
        ("videos", {"seconds": "4", "size": "854x480"}, 32),
        ("/v1/videos", {}, 125),
        ("videos/generations", {"model": "doubao-seedance-2.0", "duration": 15}, 465),
        ("videos/generations", {"model": "happyhorse-1.0", "resolution": "1080P"}, 190),
        ("videos/generations", {"model": "veo3.1-quality", "resolution": "4k"}, 610),
    ],
)
async def test_a_quote_is_the_price(client, caller, endpoint, body, credits):
    async with no_trace(caller):
        answer = await client.post(
            "/v1/quote", json={"endpoint": endpoint, "prompt": "a fox", **body}, headers=caller.headers
        )

    quote = answer.json()
    assert (answer.status_code, quote["credits"]) == (200, credits)
    assert quote["unit_credits"] * quote["quantity"] == credits
    assert quote["price_version"]
    assert str(quote["unit_credits"]) in quote["explain"]


async def test_a_quote_equals_the_hold(client, caller):
    body = {"model": "veo3.1-fast", "prompt": "a boat", "resolution": "1080p"}

    quote = (
        await client.post("/v1/quote", json={"endpoint": "videos/generations", **body}, headers=caller.headers)
    ).json()
    task = (await client.post("/v1/videos/generations", json=body, headers=caller.headers)).json()

    assert quote["credits"] == task["credits_held"] == 91
    await client.delete(f"/v1/tasks/{task['id']}", headers=caller.headers)


@pytest.mark.parametrize(
    ("body", "status", "reason", "param"),
    [
        ({"prompt": "a fox"}, 400, "missing_parameter", "endpoint"),
        ({"endpoint": 5, "prompt": "a fox"}, 400, "invalid_parameter", "endpoint"),
        ({"endpoint": "videos/task_x/remix", "prompt": "a fox"}, 404, "task_not_found", None),
        ({"endpoint": "music", "prompt": "a fox"}, 400, "invalid_parameter", "endpoint"),
        ({"endpoint": "videos/remix", "prompt": "a fox"}, 400, "missing_parameter", "id"),
        ({"endpoint": "videos/remix", "prompt": "a fox", "id": "task_x"}, 404, "task_not_found", None),
        ({"endpoint": "images/generations"}, 400, "missing_parameter", "prompt"),
        ({"endpoint": "images/generations", "prompt": "x", "model": "veo3.1-fast"}, 400, "invalid_parameter", "model"),
        ({"endpoint": "images/generations", "prompt": "x", "max_credits": 0}, 400, "price_above_max", "max_credits"),
    ],
)
async def test_a_quote_refuses_what_the_endpoint_would_refuse(client, caller, body, status, reason, param):
    answer = await client.post("/v1/quote", json=body, headers=caller.headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["reason"], error["param"]) == (status, reason, param)
