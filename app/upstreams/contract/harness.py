"""What the checks ask of a provider's author: a fake upstream that can be told how to behave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from aiohttp import web
from pydantic import SecretStr

from app.upstreams.protocols import Provider, Upstream

SUBMIT_BEHAVIOURS = (
    "busy",  # 429 without Retry-After
    "busy 2",  # 429 with Retry-After: 2
    "unauthorized",
    "quota",  # our balance is used up
    "bad_request",  # the caller's input cannot be served
    "moderated",
    "retired",  # the model is gone
    "error 500",
    "error 502",  # an HTML page
    "error 503",
    "cut",  # accepted, then the connection is cut before the answer
    "garbage",  # 200 with something that is not the answer's form
    "no_id",  # 200 without a handle or a result
)
POLL_BEHAVIOURS = (
    "pending",
    "running",  # with a progress where the vendor has one
    "unknown_word",  # a status nobody has heard of
    "poll 500",
    "poll cut",
    "failed",
    "moderated_late",
    "expired",  # the record is gone
    "no_result",  # done, without a URL or bytes
    "result 403",  # done, but the result's URL is refused
)
SECRET = "sk-upstream-canary-0123456789abcdef"  # noqa: S105 - opens nothing but the fakes
"""The key that every fake demands. It may be in no error and in no line of the log."""


class Harness(Protocol):
    """One fake upstream, running on loopback. Everything not told otherwise works at once.

    It may also have ``image_request`` and ``video_request``, where the model cannot serve the suite's own.
    """

    provider: Provider
    upstream: Upstream
    """Its base_url leads to the fake; its secret is SECRET."""
    image_model: str | None
    video_model: str | None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def will(self, *behaviours: str) -> None:
        """The next calls of the kind each word belongs to (submit or poll) behave like this, in order."""

    @property
    def accepted(self) -> int:
        """How many submits the fake accepted; a repeat it recognised as the same does not count again."""

    def lacks(self, behaviour: str) -> bool:
        """Whether this vendor's wire has no such case."""


class LoopbackHarness(ABC):
    """A base for harnesses whose fake is one aiohttp application: it keeps the queue of behaviours and the count.

    Authors name ``provider`` and the models, and give the routes.
    """

    provider: Provider
    image_model: str | None = None
    video_model: str | None = None
    lacking: frozenset[str] = frozenset()
    """Behaviours that this vendor's wire does not have."""

    def __init__(self) -> None:
        self.upstream = Upstream("fake", self.provider.name, None, SecretStr(SECRET))
        self._told: dict[str, deque[str]] = {"submit": deque(), "poll": deque()}
        self._tokens: set[str] = set()
        self._accepted = 0
        self._runner: web.AppRunner | None = None

    @abstractmethod
    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the fake's routes."""

    @property
    def accepted(self) -> int:
        return self._accepted

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.upstream = Upstream("fake", self.provider.name, url, SecretStr(SECRET))

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def will(self, *behaviours: str) -> None:
        for behaviour in behaviours:
            self._told["poll" if behaviour in POLL_BEHAVIOURS else "submit"].append(behaviour)

    def lacks(self, behaviour: str) -> bool:
        return behaviour in self.lacking

    def next_submit(self) -> str:
        """Return how this submit must behave; empty: well."""
        return self._told["submit"].popleft() if self._told["submit"] else ""

    def next_poll(self) -> str:
        """Return how this poll must behave; empty: the job is done."""
        return self._told["poll"].popleft() if self._told["poll"] else ""

    def accept(self, token: str | None = None) -> None:
        """Count one submit, but a ``token`` that was seen before only once."""
        if token is None or token not in self._tokens:
            self._accepted += 1
        if token is not None:
            self._tokens.add(token)

    async def cut(self, request: web.Request) -> web.Response:
        """End the connection instead of an answer."""
        if request.transport is not None:
            request.transport.close()
        return web.Response()
