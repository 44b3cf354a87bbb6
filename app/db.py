"""The engine and the two ways to use it: a transaction, or one statement that is its own transaction.

Also what becomes of work while the database is away: `retried` for what somebody waits for, `until_done` for what was
paid for. A database that is silent instead of gone (a stalled host, a cut cable) counts as away after a few seconds.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import structlog
from sqlalchemy import NullPool, event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.errors import DatabaseUnavailable, OutcomeUnknown

log = structlog.get_logger()

APP_ROLE = "mediagate_app"
SESSION = {
    "lock_timeout": "2s",
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "synchronous_commit": "on",
    "jit": "off",  # half a second of compiling, for statements that read a page
    "application_name": "mediagate",
    # The server notices a client that is gone without a word, and gives back its locks. Ignored on unix sockets.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
}
KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""Our side of the same, for connections that lie idle in the pool."""
CONNECT_S = 3.0
SILENCE_S = 1.0
"""Beyond ``statement_timeout``: a server that lives has answered by then, with an error at least."""
RETRY_STATES = ("08", "53", "57P0", "57014", "40001", "40P01", "55P03")
LOCK_TIMEOUT = "55P03"
ROLLED_BACK = ("53", "57014", "40001", "40P01", "55P03")
"""After these the transaction is known to have left nothing behind."""
TRIES = 3
BUDGET_S = 5.0
"""No further try begins later than this after the first one: somebody waits for the answer."""

T = TypeVar("T")


class Unreachable(ConnectionError):
    """No connection could be made: nothing was asked, so nothing was done."""


class Silent(ConnectionError):
    """A statement was sent, and its answer did not come. It may have been done."""


def async_url(url: str) -> str:
    """Return any PostgreSQL URL in the form the asyncpg driver takes."""
    parsed = make_url(url)
    if not parsed.drivername.startswith(("postgresql", "postgres")):
        raise ValueError("the database URL must start with postgresql://")
    return parsed.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


def make_engine(
    url: str,
    *,
    pool_size: int = 10,
    wait_s: float = 2.0,
    role: str | None = APP_ROLE,
    pooled: bool = True,
    session: dict[str, str] | None = None,
) -> AsyncEngine:
    """Build the engine. With ``role`` every connection works as that role; migrations pass None and stay the owner."""
    server_settings = {**SESSION, **(session or {})}
    if role is not None:
        server_settings["role"] = role
    arguments: dict[str, Any] = {
        "connect_args": {
            "server_settings": server_settings,
            "timeout": CONNECT_S,
            "command_timeout": _silence(server_settings["statement_timeout"]),
        },
        "hide_parameters": True,
    }
    if pooled:
        arguments |= {"pool_size": pool_size, "max_overflow": 5, "pool_timeout": wait_s, "pool_recycle": 1800}
    else:
        arguments["poolclass"] = NullPool
    engine = create_async_engine(async_url(url), **arguments)
    event.listen(engine.sync_engine, "connect", _keep_alive)
    event.listen(engine.sync_engine, "handle_error", _give_up_silent)
    return engine


def patient(engine: AsyncEngine, *, statement_s: float) -> AsyncEngine:
    """Return an engine to the same database whose statements may run that long; it keeps no connection open."""
    url = engine.url.render_as_string(hide_password=False)
    return make_engine(url, pooled=False, session={"statement_timeout": f"{statement_s:.0f}s"})


def _silence(statement_timeout: str) -> float | None:
    """Return how long a statement's answer is waited for; None where the server lets it run as long as it likes."""
    seconds = float(statement_timeout.removesuffix("s"))
    return seconds + SILENCE_S if seconds else None


def _keep_alive(connection: Any, _record: object) -> None:
    """Let the kernel notice a server that went away while nothing was asked."""
    sock = connection.driver_connection._transport.get_extra_info("socket")  # asyncpg has no option for it
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _give_up_silent(context: ExceptionContext) -> Exception | None:
    """Drop a connection whose answer did not come, and all others of the pool: they lead to the same server."""
    if _is_torn(context.original_exception):  # this one alone
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False
        return None
    if not isinstance(context.original_exception, TimeoutError):
        return None
    context.is_disconnect = True
    return Silent("the database does not answer")


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One unit of work: committed at the end of the block, rolled back by any exception."""
    async with connected(engine) as connection, connection.begin():
        yield connection


@asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Lend a connection. Raises: Unreachable, for whatever the network or the socket's file says."""
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(engine.connect())
        except Exception as error:  # refused, a timeout, no such host or socket; or the server is starting up, or full
            if not is_transient(error) or isinstance(error, PoolTimeout):
                raise
            raise Unreachable(f"no connection: {type(error).__name__}") from error
        yield connection


async def once(engine: AsyncEngine, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
    """Run one statement as its own transaction; return its rows as mappings. The hot path: no BEGIN, no COMMIT."""
    async with connected(engine) as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        result = await connection.exec_driver_sql(sql, arguments)
        return list(result.mappings()) if result.returns_rows else []


@asynccontextmanager
async def only_one(engine: AsyncEngine, lock: int) -> AsyncIterator[bool]:
    """Let one process in at a time, False for the others; the lock goes with its connection, however it ends."""
    async with connected(engine) as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        is_ours = (await connection.exec_driver_sql("SELECT pg_try_advisory_lock($1)", (lock,))).scalar_one()
        try:
            yield is_ours
        finally:
            if is_ours:
                await connection.exec_driver_sql("SELECT pg_advisory_unlock($1)", (lock,))


class Where:
    """Conditions and their arguments: only those that were asked for, so that each can use its index."""

    def __init__(self, before: Where | None = None) -> None:
        """``before``: a statement's earlier conditions, whose arguments come first."""
        self.where: list[str] = []
        self.arguments: list[object] = [] if before is None else list(before.arguments)

    def add(self, condition: str, value: object) -> None:
        """Add a condition on ``value``, which stands where it has ``{}``; None asks for nothing."""
        if value is not None:
            self.where.append(condition.format(self.number(value)))

    def number(self, value: object) -> str:
        """Add an argument alone and return how the statement names it."""
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    @property
    def sql(self) -> str:
        return " AND ".join(self.where) or "true"


def containing(text: str | None) -> str | None:
    """Return the LIKE pattern of whatever holds ``text``, capitals aside; None for nothing."""
    text = (text or "").replace("\0", "").strip().lower()
    if not text:
        return None
    for letter in ("\\", "%", "_"):
        text = text.replace(letter, "\\" + letter)
    return f"%{text}%"


def sqlstate_of(error: BaseException) -> str | None:
    """Return the server's error code, or None when the server did not speak."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may simply be tried again."""
    if isinstance(error, (PoolTimeout, ConnectionError, OSError, InterfaceError)):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or _is_torn(error.orig):
        return True
    return (sqlstate_of(error) or "").startswith(RETRY_STATES)


def _is_torn(error: BaseException | None) -> bool:
    """Whether asyncpg lost track of its connection: it broke, and was told to roll back before that was noticed."""
    return isinstance(getattr(error, "__cause__", None), asyncpg.InternalClientError)


def may_have_committed(error: BaseException) -> bool:
    """Whether the failed statement may have done its work unseen: its connection broke while it was on its way."""
    if isinstance(error, (PoolTimeout, Unreachable)):
        return False
    return not (sqlstate_of(error) or "").startswith(ROLLED_BACK)


async def retried(work: Callable[[], Awaitable[T]]) -> T:
    """Run a whole unit of work, again after a lost connection, a deadlock or a lock that took too long.

    ``work`` must be safe to repeat although its first COMMIT may have succeeded unseen. Raises: DatabaseUnavailable,
    or its kind OutcomeUnknown when a COMMIT may have succeeded.
    """
    is_unknown = False
    last_s = time.monotonic() + BUDGET_S
    for attempt in range(TRIES):
        try:
            return await work()
        except Exception as error:
            if not is_transient(error):
                raise
            is_unknown = is_unknown or may_have_committed(error)
            # Who waited for a place in the pool has waited: trying again would only make the line longer.
            if attempt == TRIES - 1 or isinstance(error, PoolTimeout) or time.monotonic() > last_s:
                kind = OutcomeUnknown if is_unknown else DatabaseUnavailable
                raise kind("The database is not reachable just now. Try again.", retry_after_s=2) from error
        await asyncio.sleep(random.uniform(0.05, 0.8))  # noqa: S311 - jitter, not a secret
    raise AssertionError("unreachable")


async def read(
    engine: AsyncEngine, sql: str, arguments: tuple[Any, ...] = (), *, is_planned_anew: bool = False
) -> list[Any]:
    """Run one statement that changes nothing, again where `retried` would. Raises: DatabaseUnavailable.

    ``is_planned_anew``: for these very arguments, where how much they match decides which index is right. Else a
    connection keeps one plan for all of them, after the fifth.
    """
    try:
        return await retried(lambda: (_planned_anew if is_planned_anew else once)(engine, sql, arguments))
    except OutcomeUnknown as error:  # there is no outcome
        raise DatabaseUnavailable(error.message, retry_after_s=error.retry_after_s) from error.__cause__


async def _planned_anew(engine: AsyncEngine, sql: str, arguments: tuple[Any, ...]) -> list[Any]:
    async with transaction(engine) as connection:
        await connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")
        return list((await connection.exec_driver_sql(sql, arguments)).mappings())


async def until_done(work: Callable[[], Awaitable[T]]) -> T:
    """Repeat a unit of work until the database has taken it: what was paid for upstream is not dropped.

    Ends by the lease: whoever holds one is cancelled when it is lost. Raises: what is not the database's absence.
    """
    wait_s = 0.5
    while True:
        try:
            return await retried(work)
        except DatabaseUnavailable:
            log.warning("database.waiting", retry_s=wait_s)
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, 2.0)
