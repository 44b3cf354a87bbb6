"""What a caller meets at the limits: rates, wrong keys, an empty account, uploads, a full disk, slow lines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from structlog.testing import capture_logs

from app.accounts.principal import mint_secret
from app.api import protocol
from app.api.deps import shown_duration
from app.credits.ledger import Ledger
from app.limits import PROCESSES_KEY
from app.main import create_app
from app.settings import MIB, Settings
from app.values import Credits
from app.wiring import Services, open_services
from tests.api.bodies import BOUNDARY, FORM, Answer, form, read_answer, serving
from tests.api.samples import png
from tests.plugins.gateway import Caller, MakeCaller, no_trace

IMAGES = "/v1/images/generations"
FOX = {"prompt": "a fox"}
SOON_S = 5.0


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    """With caches, as in production, and with little patience for slow lines and full turns."""
    return settings.model_copy(
        update={
            "key_cache_s": 60.0,
            "wrong_keys_per_minute": 20,
            "trusted_proxies": ("10.0.0.0/24",),
            "upload_wait_s": 0.2,
            "body_gap_s": 3.0,
            "body_total_s": 3.0,
        }
    )


@pytest.fixture(scope="module")
async def port(app: FastAPI) -> AsyncIterator[int]:
    """The application behind a real socket."""
    async with serving(app) as port:
        yield port


def from_address(app: FastAPI, address: str) -> AsyncClient:
    """A client that connects from somewhere."""
    return AsyncClient(transport=ASGITransport(app=app, client=(address, 1)), base_url="http://gateway.test")


def reason_of(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["reason"]


# --- requests per minute --------------------------------------------------------------------------------------------


async def test_every_answer_of_a_limited_key_says_where_it_stands(client: AsyncClient, make_caller: MakeCaller):
    limited = await make_caller(rpm=60)
    other = await make_caller()

    for remaining, (path, status) in enumerate((("/v1/me", 200), ("/v1/tasks/task_x", 404), ("/v1/images/x", 404))):
        answer = await client.get(path, headers=limited.headers)
        assert answer.status_code == status
        assert answer.headers["x-ratelimit-limit-requests"] == "60"
        assert answer.headers["x-ratelimit-remaining-requests"] == str(59 - remaining)
        assert answer.headers["x-ratelimit-reset-requests"] == f"{remaining + 1}s"
    events = await client.post(IMAGES, json=FOX | {"stream": True}, headers=limited.headers)
    assert events.headers["content-type"].startswith("text/event-stream")
    assert events.headers["x-ratelimit-remaining-requests"] in ("56", "57")
    free = await client.get("/v1/me", headers=other.headers)
    assert not [name for name in free.headers if name.startswith("x-ratelimit")]


async def test_one_request_too_many_is_429_with_a_time_and_costs_nothing(client: AsyncClient, make_caller: MakeCaller):
    limited = await make_caller(rpm=2)

    async with no_trace(limited):
        answers = [await client.get("/v1/me", headers=limited.headers) for _ in range(2)]
        refused = await client.post(IMAGES, json=FOX, headers=limited.headers)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert reason_of(refused) == (429, "too_many_requests")
    assert refused.json()["error"]["type"] == "rate_limit_exceeded"
    assert 28 <= int(refused.headers["retry-after"]) <= 30
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"] in ("59s", "1m0s")
    assert "x-should-retry" not in refused.headers  # the SDKs know what to do with a 429


async def test_a_setting_limits_the_keys_that_have_no_limit_of_their_own(
    client: AsyncClient, make_caller: MakeCaller, services: Services, monkeypatch: pytest.MonkeyPatch
):
    plain, own = await make_caller(), await make_caller(rpm=7)
    monkeypatch.setattr(services.settings, "key_rpm", 100)

    answers = [await client.get("/v1/me", headers=caller.headers) for caller in (plain, own)]

    assert [answer.headers["x-ratelimit-limit-requests"] for answer in answers] == ["100", "7"]


async def test_without_redis_a_limited_key_is_served_and_limited_still(
    client: AsyncClient, make_caller: MakeCaller, services: Services, monkeypatch: pytest.MonkeyPatch
):
    await services.redis.delete(PROCESSES_KEY)  # a test before may have killed one: it would count for some seconds
    await services.rates.beat()
    limited = await make_caller(rpm=3)

    async def gone(**_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(services.rates, "_take", gone)
    answers = [await client.get("/v1/me", headers=limited.headers) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0s"), (0.01, "1s"), (12, "12s"), (59.2, "1m0s"), (61, "1m1s")])
def test_times_are_written_as_openai_writes_them(seconds: float, shown: str):
    assert shown_duration(seconds) == shown


# --- keys that change -----------------------------------------------------------------------------------------------


async def test_every_process_hears_at_once_of_a_key_that_changed(
    client: AsyncClient, caller: Caller, settings: Settings, services: Services
):
    assert (await client.get("/v1/me", headers=caller.headers)).status_code == 200  # cached for a minute now

    async with open_services(settings) as elsewhere:
        await elsewhere.keys.set_limits(caller.key.id, budget=None, rpm=50)
        await _until(lambda answer: answer.headers.get("x-ratelimit-limit-requests") == "50", client, caller)
        await elsewhere.keys.revoke(caller.key.id)
        await _until(lambda answer: answer.status_code == 401, client, caller)


async def _until(holds, client: AsyncClient, caller: Caller) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(SOON_S):
        while not holds(await client.get("/v1/me", headers=caller.headers)):
            pass


# --- wrong keys -----------------------------------------------------------------------------------------------------


async def test_a_source_of_wrong_keys_is_refused_and_its_neighbour_that_works_is_not(app: FastAPI, caller: Caller):
    async with from_address(app, "203.0.113.5") as there, from_address(app, "203.0.113.6") as elsewhere:
        assert (await there.get("/v1/me", headers=caller.headers)).status_code == 200
        wrong = [await there.get("/v1/me", headers=bearer(mint_secret())) for _ in range(22)]

        assert [answer.status_code for answer in wrong] == [401] * 20 + [429] * 2
        assert reason_of(wrong[-1]) == (429, "too_many_requests")
        assert 1 <= int(wrong[-1].headers["retry-after"]) <= 3
        assert (await there.get("/v1/me", headers=caller.headers)).status_code == 200
        assert (await there.get("/v1/me")).status_code == 401  # without any key nothing is guessed
        assert reason_of(await elsewhere.get("/v1/me", headers=bearer(mint_secret()))) == (401, "invalid_api_key")


async def test_behind_our_proxy_sources_are_the_addresses_it_names(app: FastAPI):
    async with from_address(app, "10.0.0.1") as proxied:
        for _ in range(21):
            refused = await proxied.get("/v1/me", headers=bearer("wrong") | {"x-forwarded-for": "8.8.8.8, 203.0.113.9"})
        other = await proxied.get("/v1/me", headers=bearer("wrong") | {"x-forwarded-for": "203.0.113.9, 203.0.113.10"})

    assert (refused.status_code, other.status_code) == (429, 401)


@pytest.mark.parametrize(
    ("env", "proxies", "warnings"), [("production", (), 1), ("production", ("10.0.0.0/24",), 0), ("dev", (), 0)]
)
async def test_production_without_a_known_proxy_says_at_its_start_what_that_means(
    settings: Settings, env: str, proxies: tuple[str, ...], warnings: int
):
    app = create_app(settings.model_copy(update={"env": env, "trusted_proxies": proxies}))

    with capture_logs() as logged:
        async with app.router.lifespan_context(app):
            pass

    assert [entry["event"] for entry in logged].count("api.no_trusted_proxies") == warnings


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


# --- before the body ------------------------------------------------------------------------------------------------


@dataclass
class Unread:
    """An application whose requests tell whether their body was asked for."""

    app: FastAPI
    reads: int = 0

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        async def counting():  # type: ignore[no-untyped-def]
            self.reads += 1
            return await receive()

        await self.app(scope, counting, send)

    async def post(self, path: str, **options) -> Response:  # type: ignore[no-untyped-def]
        async with AsyncClient(transport=ASGITransport(app=self), base_url="http://gateway.test") as client:
            return await client.post(path, **options)


@pytest.mark.parametrize("path", [IMAGES, "/v1/images/edits", "/v1/videos", "/v1/videos/generations"])
async def test_who_has_nothing_to_spend_is_told_before_the_body_is_read(
    app: FastAPI, make_caller: MakeCaller, path: str
):
    unread, poor = Unread(app), await make_caller(credits=0)

    answer = await unread.post(path, json=FOX, headers=poor.headers)

    assert reason_of(answer) == (402, "insufficient_credits")
    assert unread.reads == 0


async def test_a_top_up_helps_at_once_whatever_a_cache_says(client: AsyncClient, make_caller: MakeCaller):
    poor = await make_caller(credits=0)
    assert (await client.post(IMAGES, json=FOX, headers=poor.headers)).status_code == 402

    await Ledger(poor.services.engine).top_up(poor.account.id, Credits(1), ref=f"late:{poor.account.id}", actor="test")

    assert (await client.post(IMAGES, json=FOX, headers=poor.headers)).status_code == 200


@pytest.mark.parametrize("how", ["header", "field"])
async def test_a_repeat_of_what_the_last_credit_paid_is_answered(
    client: AsyncClient, make_caller: MakeCaller, services: Services, how: str
):
    last = await make_caller(credits=1)
    name = f"once-{last.account.id}"
    headers = last.headers | ({"idempotency-key": name} if how == "header" else {})
    body = FOX | ({"idempotency_key": name} if how == "field" else {})
    first = await client.post(IMAGES, json=body, headers=headers)
    services.callers.forget()

    again = await client.post(IMAGES, json=body, headers=headers)
    another = await client.post(IMAGES, json=FOX, headers=last.headers)

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json()["id"] == first.json()["id"]
    assert reason_of(another) == (402, "insufficient_credits")


async def test_reading_costs_nothing_and_needs_no_credits(client: AsyncClient, make_caller: MakeCaller):
    poor = await make_caller(credits=0)

    quoted = await client.post("/v1/quote", json=FOX | {"endpoint": "images/generations"}, headers=poor.headers)
    listed = await client.get("/v1/videos", headers=poor.headers)

    assert (quoted.status_code, listed.status_code) == (200, 200)


async def test_a_body_that_says_it_is_too_large_is_not_read(app: FastAPI, caller: Caller):
    for kind, limit in (("application/json", 32 * MIB), (FORM, 260 * MIB)):
        unread = Unread(app)
        headers = caller.headers | {"content-type": kind, "content-length": str(limit + 1)}

        answer = await unread.post(IMAGES, content=b"{", headers=headers)

        assert reason_of(answer) == (413, "body_too_large")
        assert unread.reads == 0


async def test_an_almost_full_disk_takes_no_new_work_and_answers_the_rest(
    app: FastAPI, client: AsyncClient, caller: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
):
    made = await client.post(IMAGES, json=FOX, headers=caller.headers)
    unread = Unread(app)
    monkeypatch.setattr(services.room, "_min_percent", 100.0)

    async with no_trace(caller):
        refused = await unread.post(IMAGES, json=FOX, headers=caller.headers)
    read = await client.get(f"/v1/images/{made.json()['id']}", headers=caller.headers)

    assert reason_of(refused) == (503, "overloaded")
    assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("30", "true")
    assert unread.reads == 0
    assert read.status_code == 200


# --- uploads and slow lines -----------------------------------------------------------------------------------------


def edit_head(caller: Caller, length: int) -> bytes:
    return (
        "POST /v1/images/edits HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {caller.key.secret}\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def exchange(port: int, request: bytes) -> Answer:
    async with connection(port) as (reader, writer):
        writer.write(request)
        return await read_answer(reader)


async def test_a_key_has_two_uploads_at_once_and_the_third_is_429(
    port: int, make_caller: MakeCaller, services: Services
):
    busy, other = await make_caller(), await make_caller()
    body = form(("prompt", "a fox"), ("image", png(), "fox.png"))
    padded = body + b"\r\n" * (MIB // 2)  # what stands after the last boundary is not looked at
    async with connection(port) as (first, one), connection(port) as (_, two):
        for writer in (one, two):
            writer.write(edit_head(busy, len(padded)))
        await _running(services, 2)

        refused, passed, small = await asyncio.gather(
            exchange(port, edit_head(busy, len(padded))),
            exchange(port, edit_head(other, len(padded)) + padded),
            exchange(port, edit_head(busy, len(body)) + body),
        )
        one.write(padded)
        made = await read_answer(first)

    assert (refused.status, refused.json["error"]["reason"]) == (429, "too_many_requests")
    assert refused.headers["retry-after"] == "5"
    assert [answer.status for answer in (passed, small, made)] == [200, 200, 200]
    await _running(services, 0)


async def _running(services: Services, count: int) -> None:
    async with asyncio.timeout(SOON_S):
        while services.uploads.running != count:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)


async def test_two_hundred_dripping_lines_leave_a_normal_caller_fast(port: int, make_caller: MakeCaller):
    slow, normal = await make_caller(), await make_caller()
    took_s: list[float] = []
    answers: list[Answer] = []
    start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'.encode()

    async def drip() -> None:
        async with connection(port) as (reader, writer):
            writer.write(edit_head(slow, MIB // 2) + start)
            told = asyncio.create_task(read_answer(reader))
            while not told.done():
                writer.write(b"x")
                await asyncio.wait([told], timeout=0.4)  # the misbehaviour itself: a byte, and nothing for long
            answers.append(told.result())

    dripping = [asyncio.create_task(drip()) for _ in range(200)]
    async with AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=normal.headers, timeout=10) as client:
        while not all(task.done() for task in dripping):
            started_at = time.monotonic()
            assert (await client.get("/v1/me")).status_code == 200
            took_s.append(time.monotonic() - started_at)
        assert (await client.post(IMAGES, json=FOX)).status_code == 200
    await asyncio.gather(*dripping)

    assert len(answers) == 200
    assert {(answer.status, "too slowly" in answer.message) for answer in answers} == {(400, True)}
    assert len(took_s) > 20
    nearly_all = sorted(took_s)[: -2 - len(took_s) // 100]  # without one in a hundred, and two for a busy machine
    assert max(nearly_all) < 0.5


async def test_a_head_without_end_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "HEAD_BYTES", 10_000)

    endless = await exchange(port, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000)

    assert endless.error == (400, "invalid_parameter", None)
    assert endless.headers["connection"] == "close"


async def test_a_head_that_drips_is_cut_and_one_that_was_sent_is_not(
    port: int, caller: Caller, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(protocol.EnvelopeProtocol, "head_s", 0.3)
    request = f"GET /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {caller.key.secret}\r\n\r\n".encode()

    async with connection(port) as (reader, writer), connection(port) as (good, asking):
        asking.write(request)
        assert (await read_answer(good)).status == 200
        writer.write(b"GET / HTTP/1.1\r\n")
        cut = asyncio.create_task(reader.read(1))
        while not cut.done():
            writer.write(b"x: y\r\n")
            await asyncio.wait([cut], timeout=0.05)
        assert cut.result() == b""
        asking.write(request)  # between two requests a connection may rest for longer than a head may take
        assert (await read_answer(good)).status == 200


async def test_ten_thousand_parts_are_refused_at_the_sixty_fifth(port: int, caller: Caller):
    body = form(*((f"f{n}", "x") for n in range(10_000)))

    refused = await exchange(port, edit_head(caller, len(body)) + body[: len(body) // 100])  # no more is waited for

    assert refused.error == (400, "invalid_parameter", None)
    assert "64 fields" in refused.message
