"""Turns a service's events into a stream of frames: an early fault keeps its status, a silent start becomes a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final, Generic, TypeVar

from fastapi import Request

from app.api.b64_response import EventStreamResponse
from app.api.errors import request_id_of
from app.media.base64_stream import Rendered

FIRST_WAIT_S = 15.0
"""How long the headers wait for the first event. What fails until then gets its own status; proxies bear the silence."""

T = TypeVar("T")
_END: Final = object()


async def stream(
    request: Request,
    events: AsyncIterator[T],
    frame: Callable[[T], Rendered],
    *,
    headers: Callable[[T], dict[str, str]],
    first_wait_s: float = FIRST_WAIT_S,
) -> EventStreamResponse:
    """Answer with one frame per event; ``headers`` looks at the first, if it comes in time.

    Raises: what ``events`` raises within ``first_wait_s``; later it becomes an ``error`` event.
    """
    frames = _Frames(events, frame)
    try:
        first = await frames.first(first_wait_s)
        return EventStreamResponse(
            None if first is None else frame(first),
            frames,
            headers={} if first is None else headers(first),
            request_id=request_id_of(request),
        )
    except BaseException:
        await frames.aclose()
        raise


class _Frames(Generic[T]):
    """A class, not a generator: closing a generator that never started would leave its events open."""

    def __init__(self, events: AsyncIterator[T], frame: Callable[[T], Rendered]) -> None:
        self._events = events
        self._frame = frame
        self._step: asyncio.Task[Any] | None = None

    async def first(self, within_s: float) -> T | None:
        """Return the first event, or None when it takes longer: then it comes as the next frame."""
        self._step = asyncio.create_task(self._next())
        done, _ = await asyncio.wait({self._step}, timeout=within_s)
        if not done:
            return None
        event, self._step = self._step.result(), None
        return None if event is _END else event

    def __aiter__(self) -> _Frames[T]:
        return self

    async def __anext__(self) -> Rendered:
        step, self._step = self._step, None
        event = await (step or self._next())
        if event is _END:
            raise StopAsyncIteration
        return self._frame(event)

    async def aclose(self) -> None:
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait({self._step})
        if isinstance(self._events, AsyncGenerator):
            await self._events.aclose()

    async def _next(self) -> Any:
        return await anext(self._events, _END)
