"""What surrounds every request: its id, its limits, and an answer to the unforeseen, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from app.api import protocol
from app.api.middleware import RequestShell
from app.errors import Overloaded
from app.settings import Settings
from tests.api.bodies import Answer, Client, read_answer, reading_app, serving

Handler = Callable[[Request, Send], Awaitable[None]]


@asynccontextmanager
async def client_of(handler: Handler, tmp_path: Path, **settings: Any) -> AsyncIterator[Client]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await handler(Request(scope, receive), send)

    given = Settings(data=tmp_path, **settings)
    async with serving(RequestShell(app, given)) as port:
        yield Client(port, given)


async def say(send: Send, text: str, *headers: tuple[bytes, bytes]) -> None:
    body = text.encode()
    start = [(b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def show_ids(request: Request, send: Send) -> None:
    bound = structlog.contextvars.get_contextvars()["request_id"]
    await say(send, f"{request.state.request_id} {bound}")


# --- the request's id ----


@pytest.mark.parametrize("given", ["abc", "A-b_9", "x" * 64])
async def test_a_sane_request_id_is_kept_everywhere(tmp_path: Path, given: str) -> None:
    async with client_of(show_ids, tmp_path) as client:
        answer = await client.post(b"", x_request_id=given)

    assert answer.headers["x-request-id"] == given
    assert answer.body.decode() == f"{given} {given}"


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a;b", "ä", "a.b", '"a"'])
async def test_another_one_is_replaced(tmp_path: Path, given: str) -> None:
    async with client_of(show_ids, tmp_path) as client:
        first = await client.post(b"", x_request_id=given)
        second = await client.post(b"")

    made = first.headers["x-request-id"]
    assert made.startswith("req_")
    assert len(made) == 28
    assert made != second.headers["x-request-id"]
    assert first.body.decode() == f"{made} {made}"


async def test_every_answer_forbids_guessing_its_type(tmp_path: Path) -> None:
    async with client_of(show_ids, tmp_path) as client:
        answer = await client.post(b"")

    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_headers_that_the_app_set_itself_are_not_doubled(tmp_path: Path) -> None:
    async def handler(_: Request, send: Send) -> None:
        await say(send, "x", (b"X-Request-Id", b"own"), (b"x-content-type-options", b"nosniff"))

    async with client_of(handler, tmp_path) as client:
        answer = await client.post(b"")

    assert answer.headers["x-request-id"] == "own"


# --- what escapes ----


async def test_the_unforeseen_is_a_500_without_details(tmp_path: Path) -> None:
    async def handler(_: Request, send: Send) -> None:
        raise RuntimeError("password=hunter2")

    async with client_of(handler, tmp_path) as client:
        answer = await client.post(b"")

    assert answer.error == (500, "internal_error", None)
    assert answer.json["error"]["request_id"] == answer.headers["x-request-id"]
    assert b"hunter2" not in answer.body


async def test_our_own_errors_keep_their_form(tmp_path: Path) -> None:
    async def handler(_: Request, send: Send) -> None:
        raise Overloaded("Try again.", retry_after_s=7)

    async with client_of(handler, tmp_path) as client:
        answer = await client.post(b"")

    assert answer.error == (503, "overloaded", None)
    assert answer.headers["retry-after"] == "7"


async def test_an_answer_that_has_begun_breaks_off(tmp_path: Path) -> None:
    async def handler(_: Request, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("boom")

    async with client_of(handler, tmp_path) as client:
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await client.post(b"")

    assert caught.value.partial == b"half"


async def test_a_client_that_left_is_nobody_s_fault() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    shell: ASGIApp = RequestShell(app, Settings())
    with capture_logs() as logs:
        await shell({"type": "http", "method": "GET", "headers": [], "query_string": b""}, None, None)  # type: ignore[arg-type]

    assert [entry["event"] for entry in logs] == ["request.client_left"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
    ],
    ids=["request line", "TLS", "content length", "header"],
)
async def test_what_is_no_http_is_answered_in_the_envelope_too(tmp_path: Path, request_bytes: bytes) -> None:
    async with client_of(show_ids, tmp_path) as client:
        answer = await client.raw([request_bytes])

    assert answer.error == (400, "invalid_parameter", None)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    assert answer.json["error"]["request_id"] == answer.headers["x-request-id"] != ""


async def test_other_scopes_pass_untouched() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    shell: ASGIApp = RequestShell(app, Settings())
    await shell({"type": "lifespan"}, None, None)  # type: ignore[arg-type]

    assert seen == ["lifespan"]


# --- limits ----


async def test_large_headers_are_refused_in_the_envelope(tmp_path: Path) -> None:
    async with client_of(show_ids, tmp_path, header_bytes=2048) as client:
        fine = await client.post(b"", x_much="y" * 1500)
        headers = await client.post(b"", x_much="y" * 2048)
        url = await client.raw([b"GET /" + b"y" * 2048 + b"?a HTTP/1.1\r\nHost: x\r\n\r\n"])

    assert fine.status == 200
    assert headers.error == url.error == (400, "invalid_parameter", None)


@pytest.mark.parametrize(("gap_s", "total_s"), [(0.15, 30), (30, 0.15)])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
async def test_a_body_that_drips_is_given_up(tmp_path: Path, gap_s: float, total_s: float, kind: str) -> None:
    settings = Settings(data=tmp_path, body_gap_s=gap_s, body_total_s=total_s)
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 1000000\r\n\r\n".encode()

    async with serving(reading_app(settings)) as port:
        answer = await _drip(port, head, pause_s=10 if gap_s < 1 else 0.02)

    assert answer.error == (400, "invalid_parameter", None)
    assert "too slowly" in answer.message
    assert list(settings.spool_dir.iterdir()) == []


async def _drip(port: int, head: bytes, *, pause_s: float) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        writer.write(head)
        while True:
            writer.write(b"\n")  # neither JSON nor a form has begun
            await writer.drain()
            await asyncio.sleep(pause_s)  # the misbehaviour itself

    dripping = asyncio.create_task(send())
    try:
        return await read_answer(reader)
    finally:
        dripping.cancel()
        writer.close()


async def test_waiting_for_the_result_is_not_a_slow_body(tmp_path: Path) -> None:
    async def handler(request: Request, send: Send) -> None:
        await request.body()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(request.receive(), 0.1)
        await say(send, "done")

    async with client_of(handler, tmp_path, body_gap_s=0.02, body_total_s=0.02) as client:
        answer = await client.post(b"x")

    assert answer.body == b"done"


# --- behind a body, and after an answer ----

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
HALF = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500


async def refuse_unread(_: Request, send: Send) -> None:
    await say(send, "no")


async def test_trailers_are_read_over_and_the_connection_goes_on(tmp_path: Path) -> None:
    async def handler(request: Request, send: Send) -> None:
        await request.body()
        await say(send, ",".join(request.headers))

    async with client_of(handler, tmp_path) as client, line_to(client) as (reader, writer):
        for _ in range(2):
            writer.write(CHUNKED + b"x-late: 1\r\nauthorization: x\r\n\r\n")
            assert (await read_answer(reader)).body == b"host,transfer-encoding"


@pytest.mark.parametrize("endless", [b"x: y\r\n", b"y" * 100], ids=["many", "one"])
@pytest.mark.parametrize("is_answered", [True, False])
async def test_trailers_without_end_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endless: bytes, is_answered: bool
) -> None:
    monkeypatch.setattr(protocol, "HEAD_BYTES", 10_000)

    async def read(request: Request, send: Send) -> None:
        await request.body()

    handler = refuse_unread if is_answered else read
    async with client_of(handler, tmp_path) as client, line_to(client) as (reader, writer):
        writer.write(CHUNKED + b"x: ")
        answers = [await read_answer(reader)] if is_answered else []
        cut = asyncio.create_task(reader.read())
        while not cut.done():
            writer.write(endless * (1000 // len(endless)))
            await asyncio.wait([cut], timeout=0.01)
        rest = cut.result()

    assert [answer.body for answer in answers] == [b"no"] * is_answered
    assert rest.startswith(b"HTTP/1.1 400 ") != is_answered


async def test_who_is_answered_early_and_goes_on_sending_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol.EnvelopeProtocol, "rest_s", 0.1)
    async with client_of(refuse_unread, tmp_path) as client, line_to(client) as (reader, writer):
        writer.write(HALF)
        assert (await read_answer(reader)).body == b"no"
        cut = asyncio.create_task(reader.read(1))
        for _ in range(499):
            writer.write(b"x")
            if (await asyncio.wait([cut], timeout=0.02))[0]:  # the misbehaviour itself: a byte now and then
                break

    assert cut.done()


async def test_who_is_answered_early_and_sends_the_rest_may_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol.EnvelopeProtocol, "rest_s", 0.1)
    async with client_of(refuse_unread, tmp_path) as client, line_to(client) as (reader, writer):
        writer.write(HALF)
        assert (await read_answer(reader)).body == b"no"
        writer.write(b"x" * 500 + HALF)
        assert (await read_answer(reader)).body == b"no"
        writer.write(b"x" * 500)
        assert (await asyncio.wait([asyncio.create_task(reader.read(1))], timeout=0.3))[1]  # still open


@asynccontextmanager
async def line_to(client: Client) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.close()
