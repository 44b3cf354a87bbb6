"""A server that only reads bodies and tells what it read, and a client that sends any bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from app.api.body import read_body, spool_folder
from app.api.errors import public_error, render
from app.api.middleware import RequestShell
from app.api.protocol import EnvelopeProtocol
from app.errors import MediagateError
from app.intake import Upload
from app.settings import Settings


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str | None]:
        """Status, reason and param."""
        error = self.json["error"]
        return self.status, error["reason"], error["param"]

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


def reading_app(settings: Settings) -> ASGIApp:
    async def read(request: Request) -> Response:
        async with spool_folder(settings) as spool:
            intake = await read_body(request, settings=settings, spool=spool)
            assert intake.spool == spool
            return JSONResponse(shown(intake.fields))

    async def handle(request: Request, error: Exception) -> Response:
        return render(public_error(error, request), request)

    app = Starlette(routes=[Route("/", read, methods=["POST"])], exception_handlers={MediagateError: handle})
    return RequestShell(app, settings)


def shown(node: Any) -> Any:
    """What was read, as JSON: an upload as its size, hash and file name, read back from its file."""
    if isinstance(node, Upload):
        raw = node.path.read_bytes()
        assert (len(raw), hashlib.sha256(raw).digest()) == (node.size_bytes, node.sha256)
        return {"upload": node.sha256.hex(), "size": node.size_bytes, "filename": node.filename}
    if isinstance(node, list):
        return [shown(item) for item in node]
    return {key: shown(value) for key, value in node.items()} if isinstance(node, dict) else node


def upload(raw: bytes, filename: str | None = None) -> dict[str, Any]:
    return {"upload": hashlib.sha256(raw).hexdigest(), "size": len(raw), "filename": filename}


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """Run uvicorn on a free loopback port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=EnvelopeProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running
        listener.close()


class Client:
    """Sends exact bytes over a socket."""

    def __init__(self, port: int, settings: Settings) -> None:
        self.port = port
        self.settings = settings

    async def raw(self, pieces: Iterable[bytes], *, half_close: bool = False) -> Answer:
        """Send, and read one answer to its end; ``half_close`` ends our side after the last piece."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if half_close:
                writer.write_eof()
            return await read_answer(reader)
        finally:
            writer.close()

    async def post(
        self, body: bytes, content_type: str | None = "application/json", *, step: int | None = None, **headers: str
    ) -> Answer:
        lines = ["POST / HTTP/1.1", "Host: test", f"Content-Length: {len(body)}"]
        if content_type is not None:
            lines.append(f"Content-Type: {content_type}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        size = step or max(1, len(body))
        return await self.raw([head, *(body[i : i + size] for i in range(0, len(body), size))])

    async def json(self, document: Any, **headers: str) -> Answer:
        return await self.post(json.dumps(document).encode(), **headers)

    def spooled(self) -> list[Path]:
        """What lies in the spool now."""
        return list(self.settings.spool_dir.iterdir()) if self.settings.spool_dir.exists() else []


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(status_line.split()[1]), headers, body)


BOUNDARY = "a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, str | bytes] | tuple[str, bytes, str], end: bool = True) -> bytes:
    """A multipart body of texts (name, value) and files (name, bytes, file name)."""
    out = b""
    for part in parts:
        name, value = part[0], part[1]
        filename = f'; filename="{part[2]}"' if len(part) == 3 else ""
        out += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode()
        out += (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    return out + (f"--{BOUNDARY}--\r\n".encode() if end else b"")
