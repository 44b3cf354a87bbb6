"""The event stream itself: pings, early and late errors, and clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request

from app.api.v1.sse import stream
from app.errors import TaskNotFound
from app.media.base64_stream import Base64Of, FileChanged, render_event

FOREVER_S = 3600.0
AT_ONCE_S = 0.01


class Events:
    """Events under a test's control: what is put in comes out."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[object] = asyncio.Queue()
        self.is_closed = False

    async def __call__(self) -> AsyncIterator[str]:
        try:
            while True:
                item = await self.queue.get()
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.is_closed = True


@pytest.fixture
def events() -> Events:
    return Events()


def request() -> Request:
    return Request({"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "state": {}})


async def answer_of(events: Events, *, ping_every_s: float = FOREVER_S):
    return await stream(
        request(),
        events(),
        lambda text: render_event("said", {"text": text}),
        headers=lambda first: {"x-first": first},
        ping_every_s=ping_every_s,
    )


async def test_frames_follow_one_another_and_the_first_gives_the_headers(events):
    for item in ("one", "two", None):
        events.queue.put_nowait(item)

    answer = await answer_of(events)

    text = b"".join([piece async for piece in answer.body_iterator])
    assert text == b'event: said\ndata: {"text":"one"}\n\nevent: said\ndata: {"text":"two"}\n\n'
    assert answer.headers["x-first"] == "one"
    assert "content-length" not in answer.headers


async def test_an_early_error_is_raised_and_closes_the_events(events):
    events.queue.put_nowait(TaskNotFound("task_1"))

    with pytest.raises(TaskNotFound):
        await answer_of(events)

    assert events.is_closed


async def test_silence_is_filled_with_comments_that_cost_no_event(events):
    answer = await answer_of(events, ping_every_s=AT_ONCE_S)
    pieces = aiter(answer.body_iterator)

    early = [await anext(pieces) for _ in range(3)]
    events.queue.put_nowait("late")
    while (piece := await anext(pieces)) == b": ping\n\n":
        pass

    assert early == [b": ping\n\n"] * 3
    assert piece == b'event: said\ndata: {"text":"late"}\n\n'
    await answer._frames.aclose()


@pytest.mark.parametrize(
    ("error", "status"), [(TaskNotFound("task_1"), b'"code":404'), (ValueError("a secret"), b'"code":500')]
)
async def test_a_late_error_is_an_event_and_the_end(events, error, status):
    events.queue.put_nowait("one")
    answer = await answer_of(events)
    events.queue.put_nowait(error)

    pieces = [piece async for piece in answer.body_iterator]

    assert len(pieces) == 2
    assert pieces[1].startswith(b'event: error\ndata: {"error":{')
    assert pieces[1].endswith(b"}}\n\n")
    assert status in pieces[1]
    assert b"secret" not in pieces[1]
    assert events.is_closed


@pytest.mark.parametrize("when", ["before the first byte", "between two events"])
async def test_a_client_that_leaves_closes_the_events(events, when):
    events.queue.put_nowait("one")
    answer = await answer_of(events)
    has_left, sent = asyncio.Event(), []
    if when == "before the first byte":
        has_left.set()

    async def receive():
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        has_left.set()

    await answer({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)

    assert events.is_closed
    assert len(sent) <= 2


async def test_a_file_that_breaks_off_breaks_the_connection_and_tells_no_tale(events, tmp_path):
    (tmp_path / "image").write_bytes(b"short")
    events.queue.put_nowait("one")

    answer = await stream(
        request(),
        events(),
        lambda _: render_event("said", {"b64_json": Base64Of(tmp_path / "image", 500_000)}),
        headers=lambda _: {},
    )

    with pytest.raises(FileChanged):
        [piece async for piece in answer.body_iterator]
    await answer._frames.aclose()
    assert events.is_closed
