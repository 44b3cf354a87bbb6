"""The vendor behind `provider.Vendor`: an HTTP server in a thread that counts what it accepted, and misbehaves as told.

A pool is the first part of the path, so that each scenario has its own breaker, pause and count.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

from aiohttp import web

from tests.fakes import write_mp4, write_png

T = TypeVar("T")
Op = Literal["submit", "poll", "fetch", "list"]
VIDEO_SECONDS = 4
HANG_S = 30.0
GIB = 1024**3
MIB = 1024**2


class Loop:
    """An event loop in a thread of its own; the rig's client and the upstream live in one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        return self.start(work).result(timeout_s)

    def close(self) -> None:
        async def end_all() -> None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.get_running_loop().shutdown_asyncgens()

        self.run(end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True)
class Good:
    """The answer that a healthy upstream gives."""

    body: bytes
    content_type: str = "application/json"

    @property
    def raw(self) -> bytes:
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + self.body


Deliver = Callable[[web.Request, Good], Awaitable[web.StreamResponse]]
"""What becomes of a good answer on its way."""


@dataclass
class Plan:
    """How one kind of call misbehaves. ``first``: only the first calls about each task; None: all of them."""

    deliver: Deliver
    accepts: bool = True
    """Whether a submit is taken all the same: the job is made, only its answer is bad."""
    first: int | None = 1
    seen: Counter[str] = field(default_factory=Counter)

    def takes(self, what: str) -> bool:
        self.seen[what] += 1
        return self.first is None or self.seen[what] <= self.first


@dataclass
class Job:
    id: str
    token: str
    pool: str
    made_at: float


class FakeUpstream:
    """``accepted`` counts jobs and images by client token: an idempotent pool makes one of the same token."""

    def __init__(self, loop: Loop, *, image_s: float = 0.05, video_s: float = 0.5) -> None:
        self.image_s, self.video_s = image_s, video_s
        self.accepted: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        """Everything that arrived, by ``<pool>/<op>``."""
        self.plans: dict[tuple[str, Op], Plan] = {}
        self.jobs: dict[str, Job] = {}
        self._by_task: Counter[str] = Counter()
        self._by_token: dict[str, list[Job]] = defaultdict(list)
        self._loop = loop
        self._runner: web.AppRunner | None = None
        with TemporaryDirectory() as folder:
            self._png = base64.b64encode(write_png(Path(folder) / "png", 16, 16).read_bytes()).decode()
            self._mp4 = write_mp4(Path(folder) / "mp4", seconds=VIDEO_SECONDS, width=32, height=18, rate=2).read_bytes()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        self._loop.run(self._open())

    def close(self) -> None:
        if self._runner is not None:
            self._loop.run(self._runner.cleanup())

    def misbehave(self, pool: str, op: Op, deliver: Deliver, *, accepts: bool = True, first: int | None = 1) -> None:
        """From now on: what happens to the calls ``op`` of this pool."""
        self.plans[pool, op] = Plan(deliver, accepts, first)

    def behave(self) -> None:
        self.plans.clear()

    def accepted_of(self, task_id: str) -> int:
        """Return how many jobs or images this task made us do."""
        return self._by_task[task_id]

    def _accept(self, token: str) -> None:
        self.accepted[token] += 1
        self._by_task[token.partition(":")[0]] += 1

    async def _open(self) -> None:
        app = web.Application(client_max_size=64 * MIB)
        app.router.add_post("/{pool}/images", self._image)
        app.router.add_post("/{pool}/videos", self._video)
        app.router.add_get("/{pool}/videos", self._list)
        app.router.add_get("/{pool}/videos/{id}", self._poll)
        app.router.add_get("/{pool}/videos/{id}/content", self._content)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()

    async def _image(self, request: web.Request) -> web.StreamResponse:
        _, asked, plan, is_taken = await self._submitted(request)
        if is_taken:
            if not (asked["safety"] == "idempotent" and self.accepted[asked["client_token"]]):
                self._accept(asked["client_token"])
            await asyncio.sleep(self.image_s)
        return await _answer(request, Good(json.dumps({"data": {"b64_json": self._png}}).encode()), plan)

    async def _video(self, request: web.Request) -> web.StreamResponse:
        pool, asked, plan, is_taken = await self._submitted(request)
        token = asked["client_token"]
        made = self._by_token[token]
        if is_taken and not (asked["safety"] == "idempotent" and made):
            self._accept(token)
            job = Job(f"job-{len(self.jobs)}-{token}", token, pool, time.monotonic())
            self.jobs[job.id] = job
            made.append(job)
        job_id = made[0 if asked["safety"] == "idempotent" else -1].id if made else "none"
        return await _answer(request, Good(json.dumps({"id": job_id}).encode()), plan)

    async def _submitted(self, request: web.Request) -> tuple[str, dict[str, Any], Plan | None, bool]:
        pool, asked = request.match_info["pool"], await request.json()
        plan = self._plan(pool, "submit", asked["client_token"].partition(":")[0])
        return pool, asked, plan, plan is None or plan.accepts

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        job, plan = self._of_job(request, "poll")
        is_done = time.monotonic() - job.made_at >= self.video_s
        return await _answer(request, Good(json.dumps({"status": "done" if is_done else "running"}).encode()), plan)

    async def _content(self, request: web.Request) -> web.StreamResponse:
        _, plan = self._of_job(request, "fetch")
        return await _answer(request, Good(self._mp4, "video/mp4"), plan)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        pool, token = request.match_info["pool"], request.query["client_token"]
        plan = self._plan(pool, "list", token.partition(":")[0])
        jobs = [{"id": job.id} for job in self._by_token[token]]
        return await _answer(request, Good(json.dumps(jobs).encode()), plan)

    def _of_job(self, request: web.Request, op: Op) -> tuple[Job, Plan | None]:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            raise web.HTTPNotFound
        return job, self._plan(request.match_info["pool"], op, job.token.partition(":")[0])

    def _plan(self, pool: str, op: Op, task: str) -> Plan | None:
        self.calls[f"{pool}/{op}"] += 1
        plan = self.plans.get((pool, op))
        return plan if plan is not None and plan.takes(task) else None


async def _answer(request: web.Request, good: Good, plan: Plan | None) -> web.StreamResponse:
    if plan is not None:
        return await plan.deliver(request, good)
    return web.Response(body=good.body, content_type=good.content_type)


# --- ways to misbehave ----------------------------------------------------------------------------------------------


def status(number: int, body: Any = None, **headers: str) -> Deliver:
    """Answer with a status; ``retry_after="1"`` is a header."""

    async def deliver(request: web.Request, good: Good) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response({"code": "oops"} if body is None else body, status=number, headers=named)

    return deliver


def body(content: bytes, content_type: str = "application/json") -> Deliver:
    """Answer 200 with another body."""

    async def deliver(request: web.Request, good: Good) -> web.StreamResponse:
        return web.Response(body=content, content_type=content_type)

    return deliver


def cut(after: int | float) -> Deliver:
    """Break the connection after so many bytes of the answer, or a share of them."""

    async def deliver(request: web.Request, good: Good) -> web.StreamResponse:
        size = round(len(good.raw) * after) if isinstance(after, float) else after
        return await _raw(request, good.raw[:size])

    return deliver


def reset() -> Deliver:
    """Read the request, then reset the connection."""
    return cut(0)


async def hang(request: web.Request, good: Good) -> web.StreamResponse:
    """Say nothing."""
    await asyncio.sleep(HANG_S)
    return web.Response()


def late(seconds: float) -> Deliver:
    """Say the right thing after a while."""

    async def deliver(request: web.Request, good: Good) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response(body=good.body, content_type=good.content_type)

    return deliver


async def drip(request: web.Request, good: Good) -> web.StreamResponse:
    """Send the head, then a byte now and then: never silent, never done."""
    response = web.StreamResponse(headers={"content-type": good.content_type})
    response.content_length = len(good.body)
    await response.prepare(request)
    with suppress(ConnectionError):
        for index in range(int(HANG_S / 0.5)):
            await response.write(good.body[index : index + 1])
            await asyncio.sleep(0.5)
    return response


async def slow_head(request: web.Request, good: Good) -> web.StreamResponse:
    """Send even the head a byte at a time."""
    assert request.transport is not None
    for byte in good.raw[: int(HANG_S / 0.5)]:
        if request.transport.is_closing():
            break
        request.transport.write(bytes([byte]))
        await asyncio.sleep(0.5)
    return await _raw(request, b"")


async def huge(request: web.Request, good: Good) -> web.StreamResponse:
    """Begin well, then send a GiB."""
    response = web.StreamResponse(headers={"content-type": good.content_type})
    await response.prepare(request)
    with suppress(ConnectionError):  # nobody reads on
        await response.write(b'{"id": "x", "filler": "')
        for _ in range(GIB // MIB):
            await response.write(b"a" * MIB)
        await response.write_eof()
    return response


async def _raw(request: web.Request, data: bytes) -> web.StreamResponse:
    assert request.transport is not None
    if data:
        request.transport.write(data)
        await asyncio.sleep(0.02)  # let them leave before the end does
        request.transport.close()
    else:
        request.transport.abort()
    return web.Response()
