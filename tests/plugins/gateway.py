"""The gateway for tests: in this process with its worker (one per module), and as real processes (one per run)."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from aiohttp import web
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from redis.asyncio import Redis

from app.accounts.keys import MintedKey
from app.accounts.users import Account
from app.credits.lines import Balance
from app.embedded.process import launch_command
from app.settings import Settings
from tests.factories import PEPPER, SECRETS_KEY, make_account, make_key
from tests.plugins.servers import TEMPLATE, Servers, administer

if TYPE_CHECKING:
    from app.wiring import Services  # imported when a test asks: most tests need neither, and start faster

ROOT = Path(__file__).resolve().parents[2]
LINK_SECRET = "a link secret that only tests use, 40 letters"
GATEWAY_REDIS = 32
"""The run's real processes use the numbered databases from here on; in-process gateways use those below."""
OWN_REDIS = 24
"""Of these, those of the gateways that one test has for itself."""
READY_S = 60.0
STOP_S = 15.0
CLEAR_UP_S = 5.0

_databases = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Caller:
    """An account with a key of its own, for one test."""

    account: Account
    key: MintedKey
    services: Services

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key.secret}"}

    async def balance(self) -> Balance:
        return await self.services.ledger.balance(self.account.id)

    async def ledger_kinds(self) -> list[str]:
        """Return the kinds of the account's ledger lines, newest first."""
        page = await self.services.statements.ledger(self.account.id)
        return [entry.kind for entry in page.entries]


MakeCaller = Callable[..., Awaitable[Caller]]


@dataclass(slots=True)
class FileServer:
    """A public web server for reference URLs, as the fetcher sees it: allowed by its exact host and port."""

    host: str
    files: dict[str, bytes] = field(default_factory=dict)
    hits: list[str] = field(default_factory=list)

    def url(self, name: str, content: bytes) -> str:
        """Offer ``content`` and return where."""
        self.files[name] = content
        return f"http://{self.host}/{name}"


@pytest.fixture(scope="module")
async def file_server(anyio_backend: Any) -> AsyncIterator[FileServer]:
    server = FileServer(host="")

    async def answer(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        server.hits.append(name)
        content = server.files.get(name)
        return web.Response(status=404) if content is None else web.Response(body=content)

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    server.host = f"127.0.0.1:{listener.getsockname()[1]}"
    yield server
    await runner.cleanup()


@pytest.fixture(scope="module")
def settings(
    servers: Servers,
    redis_url: str,
    file_server: FileServer,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator[Settings]:
    """Settings of this module's gateway: its own database, data folder and Redis, and no patience."""
    name = f"gateway_{_worker_number(pytestconfig)}_{next(_databases)}"
    administer(servers, f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    yield Settings(
        **quick(),
        data=tmp_path_factory.mktemp("gateway"),
        config_dir=ROOT / "config",
        database_url=servers.database_url(name),
        redis_url=redis_url,
        public_url="http://gateway.test",
        fetch_allow_hosts=(file_server.host,),
        # What a caller is told must not depend on what a cache still knows from the test before.
        key_cache_s=0,
        statistics_cache_s=0,
    )
    administer(servers, f'DROP DATABASE "{name}" WITH (FORCE)')


def quick() -> dict[str, Any]:
    """Return what makes a gateway's clocks run fast enough for tests."""
    return {
        "env": "development",
        "key_pepper": PEPPER,
        "link_secret": LINK_SECRET,
        "secrets_key": SECRETS_KEY,
        "lease_s": 10.0,
        "heartbeat_s": 3.0,
        "sweep_s": 0.2,
        "poll_min_s": 0.1,
        "poll_max_s": 1.0,
        "sync_wait_max_s": 60.0,
        "shutdown_wait_s": 10.0,
        "queue_wait_image_s": 5.0,
        # A slow machine must not shed what a test sends at once; tests of overload set their own.
        "overload_delay_s": 10.0,
        "overload_burst": 2000,
        # How strong a password's hash is, is no matter here.
        "password_memory_kib": 64,
        "password_rounds": 1,
        # The same for wrong keys, which all come from one address here, and for what else fills the disk.
        "wrong_keys_per_minute": 0,
        "disk_free_bytes": 0,
        "disk_free_percent": 0,
    }


@pytest.fixture(scope="module")
async def app(settings: Settings, anyio_backend: Any) -> AsyncIterator[FastAPI]:
    """The application with its lifespan: the services are open and listen."""
    assert settings.redis_url is not None
    from app.main import create_app

    redis = Redis.from_url(settings.redis_url.get_secret_value())
    await redis.flushdb()
    await redis.aclose()
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="module")
def services(app: FastAPI) -> Services:
    found: Services = app.state.services
    return found


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """A client that speaks to the application without a socket."""
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://gateway.test", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
async def worker(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    """A whole worker beside the application, in this process: queued tasks move while a test waits for them."""
    from workers.settings import work

    stop = asyncio.Event()
    running = asyncio.create_task(work(settings, stop))
    yield
    stop.set()
    await running


@pytest.fixture
def make_caller(services: Services) -> MakeCaller:
    async def make(*, credits: int = 1000, max_in_flight: int | None = None, **key: Any) -> Caller:
        account = await make_account(services.engine, credits=credits, max_in_flight=max_in_flight)
        return Caller(account, await make_key(services.engine, account, **key), services)

    return make


@pytest.fixture
async def caller(make_caller: MakeCaller) -> Caller:
    """An account with 1,000 credits and a key with all of a user's scopes."""
    return await make_caller()


@asynccontextmanager
async def no_trace(caller: Caller) -> AsyncIterator[None]:
    """Assert that the block moves no credit of the caller's, and leaves no file in the spool or the storage."""
    services = caller.services
    before = (await caller.balance(), stored_files(services))
    yield
    assert (await caller.balance(), stored_files(services)) == before
    # A failed task's answer leaves while its step still clears up behind itself.
    async with asyncio.timeout(CLEAR_UP_S):
        while any(services.settings.spool_dir.iterdir()):  # noqa: ASYNC110 - nothing tells that a folder is empty
            await asyncio.sleep(0.01)


def stored_files(services: Services) -> set[str]:
    return {key for key, _, _ in services.storage.walk()}


@dataclass(frozen=True, slots=True)
class Gateway:
    """The real processes: ``mediagate api`` and ``mediagate worker``."""

    base_url: str
    settings: Settings
    api: subprocess.Popen[bytes]
    worker: subprocess.Popen[bytes]

    @property
    def database_url(self) -> str:
        assert self.settings.database_url is not None
        return self.settings.database_url.get_secret_value()


@pytest.fixture(scope="session")
def gateway(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Gateway]:
    """The gateway as users run it, on a free port, with its own database. All tests of a process share it."""
    number = _worker_number(pytestconfig)
    with _running(servers, tmp_path_factory.mktemp("processes"), f"gateway_processes_{number}", number) as gateway:
        yield gateway


@pytest.fixture
def own_gateway(servers: Servers, tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Gateway]:
    """The same for one test, which may do with it what others could not live with."""
    number = _worker_number(pytestconfig)
    name = f"gateway_own_{number}_{next(_databases)}"
    with _running(servers, tmp_path, name, OWN_REDIS + number) as gateway:
        yield gateway
    administer(servers, f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def _running(servers: Servers, data: Path, database: str, redis: int) -> Iterator[Gateway]:
    administer(servers, f'CREATE DATABASE "{database}" TEMPLATE "{TEMPLATE}"')
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener, ExitStack() as stack:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = Settings(
            **quick(),
            data=data,
            config_dir=ROOT / "config",
            database_url=servers.database_url(database),
            redis_url=servers.redis_url(GATEWAY_REDIS + redis),
            public_url=base_url,
        )
        environment = {**os.environ, **as_environment(settings)}
        # Logs go to files: a pipe that nobody reads would fill up and stop the process.
        api = _start(
            stack, ["api", "--fd", str(listener.fileno())], environment, data / "api.log", (listener.fileno(),)
        )
        worker = _start(stack, ["worker"], environment, data / "worker.log", ())
        try:
            ready = httpx2.get(f"{base_url}/readyz", timeout=READY_S)
        except httpx2.HTTPError as error:
            raise AssertionError(f"the API did not start: {error!r}\n{(data / 'api.log').read_text()}") from error
        assert ready.status_code == 200, ready.text
        yield Gateway(base_url, settings, api, worker)


def as_environment(settings: Settings) -> dict[str, str]:
    """Return settings in the form a process reads them."""
    found: dict[str, str] = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if hasattr(value, "get_secret_value"):
            value = value.get_secret_value()
        if value is not None and not isinstance(value, tuple):
            found[f"MEDIAGATE_{name.upper()}"] = str(value)
    return found


def _start(
    stack: ExitStack, arguments: list[str], environment: dict[str, str], log: Path, fds: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    command = launch_command([sys.executable, "-m", "app.cli", *arguments])
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output, pass_fds=fds)
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _worker_number(config: pytest.Config) -> int:
    worker: str = getattr(config, "workerinput", {}).get("workerid", "gw0")
    return int(worker.removeprefix("gw")) + 1
