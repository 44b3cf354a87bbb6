"""One real PostgreSQL and one real Valkey per test run, from the wheels; one database of each per xdist worker.

Alone, the first test that asks starts them. Under xdist the controller starts them and tells its workers the addresses,
so every process of the run shares them. They end with the run, however it ends.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.embedded.binaries import find_postgres, find_valkey
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
from app.migrate import migrate

TEMPLATE = "mediagate_template"
VALKEY_DATABASES = 64
# For tests only: durability is tested by killing processes, and the kernel keeps what those wrote.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
LOOPBACK = "127.0.0.1,::1"

_databases = itertools.count(1)
_running = pytest.StashKey["ExitStack"]()
_addresses = pytest.StashKey["Servers"]()


@dataclass(frozen=True, slots=True)
class Servers:
    """The addresses of the run's servers."""

    postgres_url: str
    """The database ``postgres``, as superuser."""
    valkey_socket: str

    def database_url(self, name: str) -> str:
        return urlsplit(self.postgres_url)._replace(path=f"/{name}").geturl()

    def redis_url(self, database: int) -> str:
        return f"unix://{self.valkey_socket}?db={database}"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # No socket but loopback and unix ones; pytest-socket reads these a moment later.
    if config.getoption("allow_hosts", None) is None:
        config.option.allow_hosts = LOOPBACK
        config.option.allow_unix_socket = True


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Called in xdist's controller for each worker it is about to start."""
    if _addresses not in node.config.stash:
        stack = node.config.stash[_running] = ExitStack()
        node.config.stash[_addresses] = _start_servers(stack)
    node.workerinput["servers"] = asdict(node.config.stash[_addresses])


def pytest_unconfigure(config: pytest.Config) -> None:
    if _running in config.stash:
        config.stash[_running].close()


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Iterator[Servers]:
    """The run's servers, with the migrated template in place."""
    told = getattr(pytestconfig, "workerinput", {}).get("servers")
    if told is not None:
        yield Servers(**told)
        return
    with ExitStack() as stack:
        yield _start_servers(stack)


@pytest.fixture(scope="session")
def database_url(servers: Servers, pytestconfig: pytest.Config) -> str:
    """This test process's own migrated database (as its owner). Tests share it: make your own accounts."""
    name = f"test_{_worker_number(pytestconfig)}"
    administer(servers, f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    return servers.database_url(name)


@pytest.fixture(scope="session")
def redis_url(servers: Servers, pytestconfig: pytest.Config) -> str:
    """This test process's own numbered database on the run's Valkey, over a unix socket."""
    return servers.redis_url(_worker_number(pytestconfig))


@pytest.fixture
def fresh_database(servers: Servers, pytestconfig: pytest.Config) -> Iterator[Callable[..., str]]:
    """A factory of databases for this test alone: empty, or (``migrated=True``) with the schema."""
    made: list[str] = []

    def make(*, migrated: bool = False) -> str:
        name = f"fresh_{_worker_number(pytestconfig)}_{next(_databases)}"
        administer(servers, f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE if migrated else "template0"}"')
        made.append(name)
        return servers.database_url(name)

    yield make
    for name in made:
        administer(servers, f'DROP DATABASE "{name}" WITH (FORCE)')


def administer(servers: Servers, *statements: str) -> None:
    """Run statements as superuser, each by itself. Works inside an event loop too (and blocks it)."""

    async def execute() -> None:
        connection = await asyncpg.connect(servers.postgres_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    _run_apart(execute())


def _start_servers(stack: ExitStack) -> Servers:
    folder = Path(tempfile.mkdtemp(prefix="mg-test-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    postgres = EmbeddedPostgres(folder / "pg", programs=find_postgres(allow_path=False), options=FAST)
    stack.enter_context(postgres.started())
    valkey = EmbeddedValkey(folder / "vk", program=find_valkey(allow_path=False), databases=VALKEY_DATABASES)
    stack.enter_context(valkey.started())
    servers = Servers(postgres_url=postgres.url_of("postgres"), valkey_socket=str(valkey.socket_path))
    administer(servers, f"CREATE DATABASE {TEMPLATE}")
    _run_apart(migrate(servers.database_url(TEMPLATE)))
    return servers


def _worker_number(config: pytest.Config) -> int:
    worker: str = getattr(config, "workerinput", {}).get("workerid", "gw0")
    return int(worker.removeprefix("gw")) + 1


def _run_apart(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine in a thread of its own: the caller's may have a running loop."""
    failures: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
