"""A proxy before a fake upstream that spoils one answer: of the submit that was accepted, or of what is asked later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import aiohttp
from aiohttp import web
from yarl import URL

from app.upstreams.http import Answer, Limits, UpstreamHttp

SPOILT = (
    "slow",  # no answer at all
    "drip",  # a byte now and then, for ever
    "cut",  # the connection ends before the answer
    "short",  # the connection ends within the body
    "huge",  # more than any answer may hold
    "empty",
    "html",
    "malformed",
    "nested",  # deeper than any answer may be
    "text",  # JSON of another form
    "null",
    "list",
)
SMALL = Limits(read_s=10.0, total_s=20.0, document_bytes=64 * 1024, value_bytes=64 * 1024)
IMPATIENT = replace(SMALL, read_s=0.8, total_s=1.0)
"""For what is waited for in vain. All else has the time that a busy machine takes."""
WAITED_FOR = ("slow", "drip")
BODIES = {
    "empty": (b"", "application/json"),
    "html": (b"<html><h1>It works!</h1></html>", "text/html"),
    "malformed": (b'{"id": "task_1", "data": [', "application/json"),
    "nested": (b"[" * 30_000 + b"]" * 30_000, "application/json"),
    "text": (b'"queued"', "application/json"),
    "null": (b"null", "application/json"),
    "list": (b"[1, 2]", "application/json"),
}
_HOP = frozenset({"host", "connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"})


@dataclass(slots=True)
class SmallHttp(UpstreamHttp):
    """The same client, with limits that a test can wait for."""

    limits: Limits = SMALL

    def stream(self, method: str, url: str, **more: Any) -> Any:
        return UpstreamHttp.stream(self, method, url, **{**more, "limits": self.limits})

    async def send(self, method: str, url: str, **more: Any) -> Answer:
        return await UpstreamHttp.send(self, method, url, **{**more, "limits": self.limits})


@dataclass(slots=True)
class Meddler:
    target: str
    """Base URL of the fake."""
    count: Callable[[], int]
    """How many submits the fake accepted."""
    spoil: str
    where: Literal["submit", "later"]
    spoilt: int = 0
    url: str = ""
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None
    _client: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._client = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = str(URL(self.target).with_port(self._runner.addresses[0][1]))

    async def stop(self) -> None:
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        client = self._client
        if client is None:
            raise RuntimeError("start first")
        before = self.count()
        url = URL(self.target).origin().join(URL(request.raw_path, encoded=True))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        body = await request.read()
        async with client.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            content = await answer.read()
            is_accepted = self.count() > before
            wanted = is_accepted if self.where == "submit" else before > 0
            if wanted and not self.spoilt:
                self.spoilt += 1
                return await self._spoil(request)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return web.Response(status=answer.status, headers=kept, body=content)

    async def _spoil(self, request: web.Request) -> web.StreamResponse:
        if self.spoil in BODIES:
            body, kind = BODIES[self.spoil]
            return web.Response(body=body, content_type=kind)
        if self.spoil in ("slow", "cut"):
            if self.spoil == "slow":
                await self._released.wait()
            _close(request)
            return web.Response()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if self.spoil == "short":
            response.content_length = 1000
        await response.prepare(request)
        try:
            await response.write(b'{"data": "')
            if self.spoil == "short":
                _close(request)
            elif self.spoil == "huge":
                for _ in range(64):
                    await response.write(b"a" * 4096)
                await response.write(b'"}')
            else:
                while not self._released.is_set():
                    await response.write(b"a")
                    await self._pause(0.02)
        except (ConnectionError, aiohttp.ClientConnectionError):
            return response  # the client has had enough
        return response

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._released.wait(), seconds)
        except TimeoutError:
            return


def _close(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()
