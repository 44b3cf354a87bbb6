"""A real API process with its own database, that may fetch from the module's file server."""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.settings import Settings
from tests.factories import make_account, make_key
from tests.plugins.gateway import FileServer, _start, as_environment

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Process:
    base_url: str
    log: Path
    os_process: psutil.Process

    @property
    def children(self) -> list[psutil.Process]:
        return self.os_process.children(recursive=True)


@pytest.fixture(scope="module")
def log_format() -> str:
    return "json"


@pytest.fixture(scope="module")
def process(settings: Settings, file_server: FileServer, log_format: str) -> Iterator[Process]:
    """`mediagate api` as users run it: nothing but its sockets and its log can be seen."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener, ExitStack() as stack:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings.data.mkdir(exist_ok=True)
        log = settings.data / f"api-{next(_numbers)}.log"
        environment = {
            **os.environ,
            **as_environment(settings),
            "MEDIAGATE_PUBLIC_URL": base_url,
            "MEDIAGATE_FETCH_ALLOW_HOSTS": json.dumps([file_server.host]),
            "MEDIAGATE_LOG_FORMAT": log_format,
        }
        started = _start(stack, ["api", "--fd", str(listener.fileno())], environment, log, (listener.fileno(),))
        ready = httpx2.get(f"{base_url}/readyz", timeout=60)
        assert ready.status_code == 200, log.read_text()
        [*_, server] = [psutil.Process(started.pid), *_servers(started.pid)]
        yield Process(base_url, log, server)


def _servers(pid: int) -> list[psutil.Process]:
    """The process itself, where a launcher stands before it."""
    return [child for child in psutil.Process(pid).children(recursive=True) if "app.cli" in " ".join(child.cmdline())]


@pytest.fixture
async def outside(process: Process) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=process.base_url, timeout=60) as client:
        yield client


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    assert settings.database_url is not None
    engine = db.make_engine(settings.database_url.get_secret_value(), pool_size=2)
    yield engine
    await engine.dispose()


@pytest.fixture
async def bearer(engine: AsyncEngine) -> dict[str, Any]:
    """An account with credits and a key of its own: the headers that show it."""
    account = await make_account(engine, max_in_flight=200)
    return {"authorization": f"Bearer {(await make_key(engine, account)).secret}"}
