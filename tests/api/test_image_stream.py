"""Images as server-sent events: the frames that OpenAI's SDKs parse."""

from __future__ import annotations

import base64
import functools
import json
from typing import Any

import pytest

from app.api.v1 import images, sse
from tests.api.samples import png, size_of
from tests.plugins.gateway import no_trace

STRICT_QUALITIES = {"low", "medium", "high", "auto"}


def frames_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return name and data of each frame. Every frame ends with a blank line, the last one too."""
    assert text.endswith("\n\n")
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        event, data = block.split("\n")
        found.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_a_stream_shows_partials_and_then_the_image(client, caller):
    answer = await client.post(
        "/v1/images/generations",
        json={"prompt": "a fox", "stream": True, "partial_images": 2, "quality": "medium"},
        headers=caller.headers,
    )

    frames = frames_of(answer.text)
    names = [name for name, _ in frames]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert names == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [data["type"] for _, data in frames] == names
    assert [data["partial_image_index"] for _, data in frames[:2]] == [0, 1]
    for _, data in frames:
        assert size_of(base64.b64decode(data["b64_json"], validate=True))
        assert data["quality"] in STRICT_QUALITIES
        assert data["background"] == "opaque"
        assert data["output_format"] == "png"
        assert isinstance(data["created_at"], int)
    done = frames[-1][1]
    assert (done["size"], done["quality"], done["credits"]) == ("2048x2048", "medium", 2)
    assert done["usage"]["total_tokens"] == 0
    assert (await client.get(done["url"])).content == base64.b64decode(done["b64_json"])
    assert (await caller.balance()).credits == 998


async def test_an_edit_streams_its_own_family_of_events(client, caller):
    answer = await client.post(
        "/v1/images/edits",
        data={"prompt": "make it night", "stream": "true", "partial_images": "1"},
        files={"image": ("a.png", png(), "image/png")},
        headers=caller.headers,
    )

    assert [name for name, _ in frames_of(answer.text)] == ["image_edit.partial_image", "image_edit.completed"]


async def test_a_stream_without_partials_knows_its_task_from_the_start(client, caller):
    answer = await client.post(
        "/v1/images/generations", json={"prompt": "a fox", "stream": True}, headers=caller.headers
    )

    frames = frames_of(answer.text)
    assert [name for name, _ in frames] == ["image_generation.completed"]
    assert answer.headers["x-task-id"] == frames[0][1]["id"]


async def test_a_stream_that_is_silent_at_first_knows_its_task_from_the_start_too(client, caller, monkeypatch):
    monkeypatch.setattr(images, "stream", functools.partial(sse.stream, ping_every_s=0.05))

    answer = await client.post(
        "/v1/images/generations", json={"prompt": "a fox [[delay=1]]", "stream": True}, headers=caller.headers
    )

    frames = frames_of(answer.text)
    assert answer.text.startswith(": ping\n\n")
    assert [name for name, _ in frames] == ["image_generation.completed"]
    assert answer.headers["x-task-id"] == frames[0][1]["id"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"prompt": ""}, 400, "missing_parameter"),
        ({"prompt": "a fox", "partial_images": 9}, 400, "invalid_parameter"),
        ({"prompt": "a fox", "stream": "yes"}, 400, "invalid_parameter"),
        ({"prompt": "a fox [[fail]]"}, 502, "upstream_error"),
    ],
)
async def test_a_fault_before_the_first_event_keeps_its_status(client, caller, body, status, reason):
    async with no_trace(caller):
        answer = await client.post("/v1/images/generations", json={"stream": True, **body}, headers=caller.headers)

    assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason)
    assert answer.headers["content-type"] == "application/json"
