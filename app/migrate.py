"""Brings the database to the newest revision, under one lock, as its owner."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import make_engine

FOLDER = Path(__file__).resolve().parent.parent / "migrations"
LOCK = 0x6D656469_61676174  # one number for "mediagate migrates": two deploys at once take turns
TURN_S = 0.1


def _config(connection: Connection | None = None) -> Any:
    from alembic.config import Config  # imported late: the API process starts faster without it

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def head_revision() -> str:
    """Return the newest revision of this code, by the file names: Alembic itself is too heavy for the API process."""
    return max(path.stem.split("_", 1)[0] for path in (FOLDER / "versions").glob("[0-9]*_*.py"))


async def current_revision(connection: AsyncConnection) -> str | None:
    """Return the database's revision, or None when it was never migrated."""
    exists = await connection.exec_driver_sql("SELECT to_regclass('alembic_version')")
    if exists.scalar() is None:
        return None
    found = (await connection.exec_driver_sql("SELECT version_num FROM alembic_version")).first()
    return found[0] if found else None


async def _take_turn(lock: AsyncConnection) -> None:
    """Wait for the lock by asking again: one that waits in a query holds up every index the other builds."""
    await lock.execution_options(isolation_level="AUTOCOMMIT")
    while not (await lock.exec_driver_sql("SELECT pg_try_advisory_lock($1)", (LOCK,))).scalar_one():  # noqa: ASYNC110
        await asyncio.sleep(TURN_S)


async def migrate(url: str, revision: str = "head") -> str | None:
    """Move the database to ``revision`` and return where it stands then. Safe to run twice, or at once."""
    from alembic import command

    engine = make_engine(
        url,
        role=None,
        pooled=False,
        session={"statement_timeout": "0", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "0"},
    )
    try:
        async with engine.connect() as lock, engine.connect() as work:
            await _take_turn(lock)

            def run(connection: Connection) -> None:
                if revision in ("base",) or revision.startswith("-"):
                    command.downgrade(_config(connection), revision)
                else:
                    command.upgrade(_config(connection), revision)

            await work.run_sync(run)
            await work.commit()
            return await current_revision(work)
    finally:
        await engine.dispose()
