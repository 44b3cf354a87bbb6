"""How the server takes its leave: who asked, or is about to, is answered; who only watches is sent home."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvicorn

from app.api.server import LINGER_S, Connection, Server
from app.main import create_app
from tests.factories import accept_task, make_account, make_key
from tests.plugins.gateway import Caller


@dataclass
class Line:
    """One raw connection: what stands on it is seen as it is."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, path: str, key: str = "") -> None:
        authorization = f"authorization: Bearer {key}\r\n" if key else ""
        self.writer.write(f"GET {path} HTTP/1.1\r\nhost: gateway.test\r\n{authorization}\r\n".encode())

    async def head(self) -> str:
        return (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()

    async def ask(self, path: str, key: str = "") -> tuple[str, bytes]:
        self.send(path, key)
        head = await self.head()
        size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        return head, await self.reader.readexactly(size)


@pytest.fixture
async def server(settings) -> AsyncIterator[Server]:
    app = create_app(settings)
    config = uvicorn.Config(app, http=Connection, lifespan="on", log_config=None, ws="none")
    server = Server(config, app, settings)
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110 - uvicorn has nothing to wait for
            await asyncio.sleep(0.01)
    yield server
    server.should_exit = True
    await serving


@pytest.fixture
async def caller(server) -> Caller:
    services = server._app.state.services
    account = await make_account(services.engine, credits=1000)
    return Caller(account, await make_key(services.engine, account), services)


@asynccontextmanager
async def line(server) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(20):
        yield Line(reader, writer)
    writer.close()


async def test_a_stop_leaves_nobody_without_an_answer(server, caller):
    task_id = await accept_task(caller.services.engine, caller.key, hold=1)
    task = f"/v1/tasks/{(await caller.services.queries.find(task_id)).public_id}"
    async with (
        line(server) as active, line(server) as idle, line(server) as unused, line(server) as polling,
        line(server) as watching,
    ):  # fmt: skip
        head, _ = await active.ask("/healthz")
        await idle.ask("/healthz")
        polling.send(f"{task}?wait=60", caller.key.secret)
        watching.send(f"{task}/events", caller.key.secret)
        assert "text/event-stream" in await watching.head()
        assert "connection: close" not in head

        began = time.monotonic()
        server.should_exit = True

        assert "200 ok" in await polling.head()  # as it stands
        await watching.reader.readuntil(b"\r\n0\r\n\r\n")  # a whole stream, not a broken one
        assert time.monotonic() - began < LINGER_S / 2
        head, body = await active.ask("/readyz")  # a kept connection, used once more
        assert ("503" in head.splitlines()[0], json.loads(body)["reason"]) == (True, "stopping")
        assert "connection: close" in head
        assert await active.reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        assert (await idle.reader.read(), await unused.reader.read()) == (b"", b"")
        assert LINGER_S - 0.5 < time.monotonic() - began < LINGER_S + 3
