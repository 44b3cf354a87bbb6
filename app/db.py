"""The engine and the two ways to use it: a transaction, or one statement that is its own transaction."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from sqlalchemy import NullPool
from sqlalchemy.engine import make_url
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
    "application_name": "mediagate",
}
RETRY_STATES = ("08", "53", "57P0", "57014", "40001", "40P01", "55P03")
ROLLED_BACK = ("53", "57014", "40001", "40P01", "55P03")
"""After these the transaction is known to have left nothing behind."""
TRIES = 3

T = TypeVar("T")


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
        "connect_args": {"server_settings": server_settings, "timeout": 5},
        "hide_parameters": True,
    }
    if pooled:
        arguments |= {"pool_size": pool_size, "max_overflow": 5, "pool_timeout": wait_s, "pool_recycle": 1800}
    else:
        arguments["poolclass"] = NullPool
    return create_async_engine(async_url(url), **arguments)


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One unit of work: committed at the end of the block, rolled back by any exception."""
    async with engine.begin() as connection:
        yield connection


async def once(engine: AsyncEngine, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
    """Run one statement as its own transaction; return its rows as mappings. The hot path: no BEGIN, no COMMIT."""
    async with engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        result = await connection.exec_driver_sql(sql, arguments)
        return list(result.mappings()) if result.returns_rows else []


def sqlstate_of(error: BaseException) -> str | None:
    """Return the server's error code, or None when the server did not speak."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may simply be tried again."""
    if isinstance(error, (PoolTimeout, ConnectionError, OSError, InterfaceError)):
        return True
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or (sqlstate_of(error) or "").startswith(RETRY_STATES)


def may_have_committed(error: BaseException) -> bool:
    """Whether the failed statement may have done its work unseen: its connection broke while it was on its way."""
    if isinstance(error, (PoolTimeout, ConnectionRefusedError)):
        return False
    return not (sqlstate_of(error) or "").startswith(ROLLED_BACK)


async def retried(work: Callable[[], Awaitable[T]]) -> T:
    """Run a whole unit of work, again after a lost connection, a deadlock or a lock that took too long.

    ``work`` must be safe to repeat although its first COMMIT may have succeeded unseen. Raises: DatabaseUnavailable,
    or its kind OutcomeUnknown when a COMMIT may have succeeded.
    """
    is_unknown = False
    for attempt in range(TRIES):
        try:
            return await work()
        except Exception as error:
            if not is_transient(error):
                raise
            is_unknown = is_unknown or may_have_committed(error)
            if attempt == TRIES - 1:
                kind = OutcomeUnknown if is_unknown else DatabaseUnavailable
                raise kind("The database is not reachable just now. Try again.", retry_after_s=2) from error
        await asyncio.sleep(random.uniform(0.05, 0.8) * (attempt + 1) / TRIES)  # noqa: S311 - jitter, not a secret
    raise AssertionError("unreachable")


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
        wait_s = min(wait_s * 2, 5.0)
