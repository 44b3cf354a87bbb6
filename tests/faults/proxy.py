"""A TCP proxy in a thread, for servers that are slow, silent, cut off or gone; the real one is never touched.

    with FaultProxy.to(url) as proxy:
        settings = {"redis_url": proxy.url}
        proxy.stall()       # accepts, takes what is sent, and says nothing
        proxy.heal()

Faults hold for connections that are open and for those to come.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

T = TypeVar("T")
PIECE = 64 * 1024
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Fault:
    """What becomes of traffic. All of it together: nothing at all."""

    is_refused: bool = False
    """New connections are reset at once."""
    is_silent: bool = False
    """Nothing passes, and nothing is closed."""
    latency_s: float = 0.0
    """Each way."""
    drip_s: float = 0.0
    """The server's bytes come one by one, with so long between them."""
    cut_after: int | None = None
    """So many bytes of the server's are let through on each connection, then it is cut."""


class FaultProxy:
    """``connect``: opens a connection to the server behind."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]):
        self._connect = connect
        self._fault = Fault()
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server((LOOPBACK, 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self.url = ""
        self.connections = 0
        """Made since the start."""

    @classmethod
    def to(cls, url: str) -> FaultProxy:
        """Return a proxy to the Redis or PostgreSQL of this URL, also on a unix socket; ``url`` is its address."""
        parts = urlsplit(url)
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.scheme == "unix":
            proxy = cls(lambda: asyncio.open_unix_connection(parts.path))
            proxy.url = f"redis://{LOOPBACK}:{proxy.port}/{options.get('db', 0)}"
            return proxy
        folder = unquote(options.get("host", ""))
        if folder.startswith("/"):
            proxy = cls(lambda: asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{options.get('port', 5432)}"))
        else:
            default = 5432 if parts.scheme.startswith("postgres") else 6379
            proxy = cls(lambda: asyncio.open_connection(parts.hostname, parts.port or default))
        login = parts.netloc.rpartition("@")[0]
        place = f"{login}@{LOOPBACK}:{proxy.port}" if login else f"{LOOPBACK}:{proxy.port}"
        proxy.url = f"{parts.scheme}://{place}{parts.path}"
        return proxy

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- faults -----------------------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """The server is gone: what is open is reset, what comes is reset at once."""
        self._set(Fault(is_refused=True))
        self.cut()

    def stall(self) -> None:
        """The server's host is frozen, or the way to it swallows everything."""
        self._set(Fault(is_silent=True))

    def slow(self, latency_s: float) -> None:
        self._set(Fault(latency_s=latency_s))

    def drip(self, gap_s: float) -> None:
        self._set(Fault(drip_s=gap_s))

    def cut_after(self, size: int) -> None:
        self._set(Fault(cut_after=size))

    def cut(self) -> None:
        """Reset what is open; new connections fare as before."""
        self._run(self._cut())

    def heal(self) -> None:
        """Let everything pass; what was held up goes on."""
        self._set(Fault())

    # --- inside -----------------------------------------------------------------------------------------------------

    def _set(self, fault: Fault) -> None:
        async def change() -> None:
            self._fault = replace(fault)
            self._changed.set()
            self._changed = asyncio.Event()

        self._run(change())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        running: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return running.result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accepted, sock=self._listener)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _cut(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._fault.is_refused:
            _reset(writer)
            return
        try:
            behind = await self._connect()
        except OSError:
            _reset(writer)
            return
        both = {writer, behind[1]}
        self._writers |= both
        pipes = [
            asyncio.create_task(self._pipe(reader, behind[1], is_answer=False)),
            asyncio.create_task(self._pipe(behind[0], writer, is_answer=True)),
        ]
        self._pipes |= {*pipes}
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            self._pipes -= {*pipes}
            for one in both:
                one.close()
            self._writers -= both

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        passed = 0
        while data := await reader.read(PIECE):
            while self._fault.is_silent:
                await self._changed.wait()
            fault = self._fault
            if fault.latency_s:
                await asyncio.sleep(fault.latency_s)
            if is_answer and fault.cut_after is not None:
                data = data[: max(fault.cut_after - passed, 0)]
                passed += len(data)
                if passed >= fault.cut_after:
                    writer.write(data)
                    return
            if is_answer and fault.drip_s:
                for byte in data:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(fault.drip_s)
                continue
            writer.write(data)
            await writer.drain()
        while self._fault.is_silent:  # even the end of a connection is not told
            await self._changed.wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
