"""A real receiver on loopback, allowed by its host and port, and a gateway that may deliver to it."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from app import db
from app.settings import Settings
from app.wiring import Services
from tests.factories import accept_task, request_of
from tests.plugins.gateway import Caller


@dataclass(frozen=True, slots=True)
class Received:
    """One request, byte by byte."""

    body: bytes
    headers: dict[str, str]


@dataclass
class Receiver:
    """Answers 200, or what its test told it; keeps what came."""

    host: str = ""
    answers: dict[str, deque[int]] = field(default_factory=lambda: defaultdict(deque))
    came: dict[str, list[Received]] = field(default_factory=lambda: defaultdict(list))
    hanging: set[str] = field(default_factory=set)
    location: str = ""
    """Where a redirect leads."""
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str | None = None) -> str:
        return f"http://{self.host}/{path or uuid4().hex}"

    def at(self, url: str) -> list[Received]:
        """What came to this URL."""
        return self.came[url.rpartition("/")[2]]

    def will_answer(self, url: str, *statuses: int) -> None:
        self.answers[url.rpartition("/")[2]].extend(statuses)

    async def answer(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        self.came[path].append(Received(await request.read(), {k.lower(): v for k, v in request.headers.items()}))
        if path in self.hanging:
            await self.release.wait()
        status = self.answers[path].popleft() if self.answers[path] else 200
        headers = {"location": self.location} if status in (301, 302, 307, 308) else {}
        return web.Response(status=status, text="thank you", headers=headers)


@pytest.fixture(scope="module")
async def receiver(anyio_backend: Any) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path}", receiver.answer)
    app.router.add_get("/{path}", receiver.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    receiver.host = f"127.0.0.1:{listener.getsockname()[1]}"
    yield receiver
    receiver.release.set()
    await runner.cleanup()


@pytest.fixture(scope="module")
def settings(settings: Settings, receiver: Receiver) -> Settings:
    """The receiver may be reached, by its exact host and port."""
    return settings.model_copy(update={"fetch_allow_hosts": (*settings.fetch_allow_hosts, receiver.host)})


@dataclass
class Hooks:
    """What a test does with an account's webhooks."""

    services: Services
    receiver: Receiver

    async def endpoint(self, caller: Caller, *types: str, url: str | None = None) -> tuple[str, str, str]:
        """Make an endpoint at the receiver. Returns its id, its URL and its secret."""
        made, secret = await self.services.webhooks.create(
            caller.account.id,
            name="test",
            url=url or self.receiver.url(),
            event_types=types or ("image.completed", "image.failed"),
        )
        return made.public_id, made.url, secret

    async def failed_task(self, caller: Caller, **request: Any) -> UUID:
        """Let a task of the caller's fail."""
        task_id = await accept_task(self.services.engine, caller.key, request=request_of(**request))
        rows = await db.once(
            self.services.engine, "SELECT mg_fail($1, NULL, 'upstream_error', 'no', NULL, NULL) AS ok", (task_id,)
        )
        assert rows[0]["ok"] is True
        return task_id

    async def deliver(self) -> None:
        """Deliver what is due, as the worker's loop does."""
        await self.services.deliverer.once()

    async def all_due(self, caller: Caller) -> None:
        """Let every wait, and every dead worker's lease, be over."""
        await db.once(
            self.services.engine,
            "UPDATE webhook_deliveries SET due_at = now() WHERE account_id = $1",
            (caller.account.id,),
        )

    async def give_up(self, caller: Caller) -> None:
        """Let nothing more be sent: the next test would wait for it."""
        await db.once(
            self.services.engine,
            "UPDATE webhook_deliveries SET state = 'failed' WHERE account_id = $1 AND state = 'pending'",
            (caller.account.id,),
        )

    async def rows(self, caller: Caller) -> list[Any]:
        """Return the account's deliveries with their events, in order."""
        return await db.once(
            self.services.engine,
            """SELECT d.*, v.type, v.task_id, extract(epoch FROM d.due_at - now())::float8 AS wait_s
                 FROM webhook_deliveries d JOIN webhook_events v ON v.id = d.event_id
                WHERE d.account_id = $1 ORDER BY d.id""",
            (caller.account.id,),
        )


@pytest.fixture
def hooks(services: Services, receiver: Receiver) -> Hooks:
    return Hooks(services, receiver)


async def until(condition: Callable[[], Any], *, patience_s: float = 20.0) -> Any:
    """Ask again until the answer is true."""
    async with asyncio.timeout(patience_s):
        while not (answer := condition()):  # noqa: ASYNC110 - another process's or loop's work
            await asyncio.sleep(0.02)
    return answer
