"""Load against one gateway on this machine: closed loop, or open loop at a rate, over keep-alive connections.

Speaks HTTP by hand on uvloop, so that the generator takes little of the cores it shares with what it measures.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

IDLE_S = 3.0
"""An idle connection is not used again after this: the server's patience is 5 s, and it may hang up as we send."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One request: when it was sent and how long its whole answer took, in monotonic seconds."""

    at: float
    took_s: float
    status: int
    """0: the connection broke."""
    head: bytes = b""
    body: bytes = b""
    """Of answers that are no success."""

    @property
    def is_ok(self) -> bool:
        return self.status == 200

    @property
    def is_shed(self) -> bool:
        """Whether it is a refusal as the contract wants it: it says when to come again, and that one should."""
        return (
            self.status in (429, 503)
            and b"\r\nretry-after: " in self.head
            and b"\r\nx-should-retry: true" in self.head
            and (b'"reason":"overloaded"' in self.body or b'"reason":"queue_full"' in self.body)
        )


class _Line(asyncio.Protocol):
    """One connection, one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.is_closed = False
        self._answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None
        self._buffer = bytearray()
        self._end = -1

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes, bytes]]:
        self._buffer.clear()
        self._end = -1
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._end < 0:
            split = self._buffer.find(b"\r\n\r\n")
            if split < 0:
                return
            self._head = bytes(self._buffer[: split + 2]).lower()
            length = self._head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            self._end = split + 4 + int(length)
            self._body_at = split + 4
        if len(self._buffer) < self._end or self._answer is None or self._answer.done():
            return
        status = int(self._head[9:12])
        self._answer.set_result((status, self._head, b"" if status == 200 else bytes(self._buffer[self._body_at :])))
        if b"\r\nconnection: close" in self._head:
            self.is_closed = True
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed"))


@dataclass
class Load:
    """A source of one and the same request. ``hits`` is what came of it."""

    port: int
    request: bytes
    hits: list[Hit] = field(default_factory=list)
    late_s: float = 0.0
    """How far the generator itself fell behind its own schedule, at worst: then the machine was too busy to measure."""
    _idle: list[tuple[float, _Line]] = field(default_factory=list)
    """Since when, and which; the server hangs up on those that say nothing."""
    _open: set[asyncio.Task[Hit]] = field(default_factory=set)

    async def one(self) -> Hit:
        at = time.monotonic()
        try:
            line = self._idle_line()
            if line is None:
                loop = asyncio.get_running_loop()
                _, line = await loop.create_connection(_Line, "127.0.0.1", self.port)
            status, head, body = await line.ask(self.request)
        except OSError:
            hit = Hit(at, time.monotonic() - at, 0)
        else:
            hit = Hit(at, time.monotonic() - at, status, b"" if status == 200 else head, body)
            if not line.is_closed:
                self._idle.append((time.monotonic(), line))
        self.hits.append(hit)
        return hit

    def _idle_line(self) -> _Line | None:
        while self._idle:
            since, line = self._idle.pop()
            if time.monotonic() - since > IDLE_S:
                line.transport.close()
            elif not line.is_closed and not line.transport.is_closing():
                return line
        return None

    async def closed(self, connections: int, seconds: float) -> list[Hit]:
        """Keep ``connections`` requests under way; one that is refused waits a moment. Returns this load's hits."""
        first, end = len(self.hits), time.monotonic() + seconds

        async def ask_again() -> None:
            while time.monotonic() < end:
                if not (await self.one()).is_ok:
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(ask_again() for _ in range(connections)))
        return self.hits[first:]

    async def open(self, per_s: float, seconds: float, *, until: Callable[[], bool] = lambda: False) -> list[Hit]:
        """Send at a rate, at random intervals, whatever becomes of what was sent. Returns this load's hits."""
        first, start = len(self.hits), time.monotonic()
        due, self.late_s = start, 0.0
        rate = random.Random(7)
        while due < start + seconds and not until():
            now = time.monotonic()
            if due > now:
                await asyncio.sleep(due - now)
            else:
                self.late_s = max(self.late_s, now - due)
                await asyncio.sleep(0)
            task = asyncio.create_task(self.one())
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            due += rate.expovariate(per_s)
        if self._open:
            await asyncio.wait(set(self._open), timeout=60)
        return self.hits[first:]

    def close(self) -> None:
        for _, line in self._idle:
            line.transport.close()


def quantile(values: list[float], share: float) -> float:
    """Return the value below which ``share`` of them lie; NaN without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
