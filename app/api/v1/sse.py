"""Turns a service's events into server-sent events: an early fault keeps its status, comments fill the silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final, Generic, TypeVar

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.errors import envelope, public_error
from app.media.base64_stream import Rendered, render_event

PING: Final = b": ping\n\n"
"""A comment, which no client shows its user. No frame ever has an ``id:``: after one, comments break some clients."""
PING_EVERY_S = 15.0

T = TypeVar("T")
_END: Final = object()


async def stream(
    request: Request,
    events: AsyncIterator[T],
    frame: Callable[[T], Rendered | None],
    *,
    headers: Callable[[T], dict[str, str]],
    ping_every_s: float = PING_EVERY_S,
) -> EventStream:
    """Answer with one frame per event. ``headers`` looks at what comes within ``ping_every_s``: the first event that
    has a frame, and one without a frame before it.

    Raises: what ``events`` raises until then. Later it becomes an ``error`` event. A client that leaves closes
    ``events``; the work behind them must not depend on being watched.
    """
    frames = Frames(events, frame, ping_every_s)
    try:
        event = await frames.first()
        found = {} if event is None else headers(event)
        if event is not None and frame(event) is None:
            event = await frames.first()
            found |= {} if event is None else headers(event)
        begin = None if event is None else frame(event)
        return EventStream(request, begin or PING, frames, found)
    except BaseException:
        await frames.aclose()
        raise


class Frames(Generic[T]):
    """The frames that follow. No generator: one that was closed before it began would leave its events open."""

    def __init__(self, events: AsyncIterator[T], frame: Callable[[T], Rendered | None], ping_every_s: float) -> None:
        self._events = events
        self._frame = frame
        self._ping_every_s = ping_every_s
        self._step: asyncio.Task[Any] | None = None

    async def first(self) -> T | None:
        """Return the first event, or None when it takes longer than a ping: then it is the next frame."""
        event = await self._next()
        return None if event is None or event is _END else event

    def __aiter__(self) -> Frames[T]:
        return self

    async def __anext__(self) -> Rendered | bytes:
        event = await self._next()
        if event is _END:
            raise StopAsyncIteration
        return (None if event is None else self._frame(event)) or PING

    async def aclose(self) -> None:
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait({self._step})
        if isinstance(self._events, AsyncGenerator):
            await self._events.aclose()

    async def _next(self) -> Any:
        """Return the next event, or None after a silent interval, which does not disturb the waiting."""
        if self._step is None:
            self._step = asyncio.create_task(_step(self._events))
        done, _ = await asyncio.wait({self._step}, timeout=self._ping_every_s)
        if not done:
            return None
        step, self._step = self._step, None
        return step.result()


async def _step(events: AsyncIterator[Any]) -> Any:
    return await anext(events, _END)


class EventStream(StreamingResponse):
    """Sends the frames, and closes them however the sending ends."""

    def __init__(self, request: Request, begin: Rendered | bytes, frames: Frames[Any], headers: dict[str, str]) -> None:
        self._request = request
        self._begin = begin
        self._frames = frames
        # No proxy may wait for more, and none may compress: a frame must arrive when it was sent.
        fixed = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}
        super().__init__(self._pieces(), media_type="text/event-stream", headers=fixed | headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._frames.aclose()

    async def _pieces(self) -> AsyncGenerator[bytes]:
        frame: Rendered | bytes | None = self._begin
        while frame is not None:
            # Not guarded: when a file breaks off inside its frame, only a broken connection tells the truth.
            if isinstance(frame, bytes):
                yield frame
            else:
                async for piece in frame.pieces():
                    yield piece
            frame = await self._following()

    async def _following(self) -> Rendered | bytes | None:
        try:
            return await anext(self._frames, None)
        except Exception as error:  # noqa: BLE001 - the answer has begun: this event is all that can still be said
            failure = envelope(public_error(error, self._request), self._request)
            await self._frames.aclose()
            return render_event("error", failure)
