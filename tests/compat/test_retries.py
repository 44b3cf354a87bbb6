"""The stock OpenAI SDKs send a request again by themselves, without a key: it is still made once and charged once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from app import db
from app.wiring import Services
from tests.api.bodies import serving
from tests.plugins.gateway import Caller

SCRIPT = Path(__file__).with_name("openai_retry.mjs")
SDK_FOLDER = Path(__file__).parents[1] / "node"
PATIENCE_S = 60
CUT_AFTER = 150
"""Bytes of an answer's body that arrive before its connection is cut."""

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (SDK_FOLDER / "node_modules" / "openai").exists(),
    reason="needs Node and its SDK: npm ci --prefix tests/node",
)


@dataclass(frozen=True)
class Outcome:
    status: int | None
    """None: the SDK reported something else than an answer."""
    id: str | None = None


async def with_python(base_url: str, key: str, body: dict[str, Any], patience_s: float | None) -> Outcome:
    def generate() -> Outcome:
        options = {} if patience_s is None else {"timeout": patience_s}
        with openai.OpenAI(api_key=key, base_url=base_url, **options) as client:
            try:
                made = client.images.generate(**body)
            except openai.APIStatusError as error:
                return Outcome(error.status_code)
            return Outcome(200, made.id)

    return await asyncio.to_thread(generate)


async def with_node(base_url: str, key: str, body: dict[str, Any], patience_s: float | None) -> Outcome:
    environment = {
        "PATH": os.environ["PATH"],
        "NODE_SDK_FOLDER": str(SDK_FOLDER),
        "OPENAI_API_KEY": key,
        "OPENAI_BASE_URL": base_url,
        "INPUT": json.dumps({"body": body, "timeout": patience_s}),
    }
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return Outcome(**json.loads(output))


Generate = Callable[[str, str, dict[str, Any], float | None], Awaitable[Outcome]]


class Wire:
    """A TCP proxy between an SDK and the gateway. It spoils the first connection, and counts requests."""

    def __init__(self, port: int, *, cut: str | None, is_ready: Callable[[], Awaitable[bool]]) -> None:
        self._port, self._cut, self._is_ready = port, cut, is_ready
        self.requests = 0

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut, self._cut = self._cut, None
        gateway_reader, gateway_writer = await asyncio.open_connection("127.0.0.1", self._port)
        up = asyncio.create_task(self._requests(reader, gateway_writer))
        down = asyncio.create_task(self._answers(gateway_reader, writer, cut))
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        for half in (up, down):
            half.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        for end in (writer, gateway_writer):
            end.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.requests += data.startswith(b"POST ")
            writer.write(data)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: str | None) -> None:
        if cut == "once the task is there":
            while not await self._is_ready():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            return
        if cut == "in the answer":
            writer.write(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(CUT_AFTER))
            await writer.drain()
            return
        while data := await reader.read(65536):
            writer.write(data)


@dataclass(frozen=True)
class Bill:
    """What one account's requests came to."""

    requests: int
    tasks: int
    submits: int
    captures: int


@pytest.fixture(params=[pytest.param(with_python, id="python"), pytest.param(with_node, id="node", marks=needs_node)])
def generate(request: pytest.FixtureRequest) -> Generate:
    found: Generate = request.param
    return found


async def tasks_of(caller: Caller) -> list[Any]:
    sql = "SELECT id, settled_at FROM tasks WHERE account_id = $1 AND status <> 'cancelled'"
    return await db.once(caller.services.engine, sql, (caller.account.id,))


def jobs_of(services: Services) -> int:
    """How many requests the demo upstream has accepted."""
    return len(list((services.settings.work_dir / "demo" / "jobs").glob("*")))


@pytest.fixture
def run(app: Any, caller: Caller, services: Services, generate: Generate) -> Callable[..., Awaitable[Any]]:
    """Make one image through the wire, wait until its tasks have ended, and return the outcome and the bill."""

    async def run(
        body: dict[str, Any], *, cut: str | None = None, patience_s: float | None = None
    ) -> tuple[Outcome, Bill]:
        async def is_ready() -> bool:
            return bool(await tasks_of(caller))

        before = jobs_of(services)
        async with serving(app) as port, asyncio.timeout(PATIENCE_S):
            wire = Wire(port, cut=cut, is_ready=is_ready)
            async with wire.laid() as base_url:
                outcome = await generate(base_url, caller.key.secret, body, patience_s)
            while any(task["settled_at"] is None for task in await tasks_of(caller)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        ids = [task["id"] for task in await tasks_of(caller)]
        sql = "SELECT count(*) AS n FROM task_attempts WHERE task_id = ANY($1::uuid[])"
        attempts = (await db.once(services.engine, sql, (ids,)))[0]["n"]
        accepted = jobs_of(services) - before
        assert attempts == accepted
        return outcome, Bill(wire.requests, len(ids), attempts, (await caller.ledger_kinds()).count("capture"))

    return run


async def test_a_connection_that_is_cut_while_the_image_is_made(run):
    outcome, bill = await run({"prompt": "a fox [[delay=1]]"}, cut="once the task is there")

    assert outcome.status == 200
    assert bill == Bill(requests=2, tasks=1, submits=1, captures=1)


@pytest.mark.parametrize("response_format", ["b64_json", "url"])
async def test_a_connection_that_is_cut_in_the_middle_of_the_answer(run, generate, response_format):
    outcome, bill = await run({"prompt": "a fox", "response_format": response_format}, cut="in the answer")

    # Python's SDK sends it again; Node's has the head by then, and leaves the rest to its user.
    assert (outcome.status, bill.requests) == ((200, 2) if generate is with_python else (None, 1))
    assert (bill.tasks, bill.submits, bill.captures) == (1, 1, 1)


async def test_a_client_that_loses_its_patience(run):
    outcome, bill = await run({"prompt": "a fox [[delay=2]]"}, patience_s=1.5)

    assert outcome.status == 200
    assert bill.requests in (2, 3)
    assert (bill.tasks, bill.submits, bill.captures) == (1, 1, 1)


async def test_our_504_is_not_sent_again_and_the_image_is_made(run, services, monkeypatch):
    impatient = services.settings.model_copy(update={"sync_wait_max_s": 0.5})
    monkeypatch.setattr(services.images, "_settings", impatient)

    outcome, bill = await run({"prompt": "a fox [[delay=1]]"})

    assert outcome.status == 504
    assert bill == Bill(requests=1, tasks=1, submits=1, captures=1)


async def test_our_502_after_the_upstream_failed_is_not_sent_again_and_costs_nothing(run):
    outcome, bill = await run({"prompt": "a fox [[fail]]"})

    assert outcome.status == 502
    assert bill == Bill(requests=1, tasks=1, submits=1, captures=0)
