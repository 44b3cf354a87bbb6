"""What commands share: settings, the database, and one clear sentence for each expected error."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from app.errors import DatabaseUnavailable, MediagateError
from app.settings import Settings, SettingsError, instance_file, load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.wiring import Services

T = TypeVar("T")

USAGE, NEGATIVE = 2, 1
NOT_MIGRATED = ("42P01", "42703", "42883", "22023", "42704")  # tables, columns, functions or the role are not there


class Refused(click.ClickException):
    """The command cannot do this; the message is the whole answer."""

    exit_code = USAGE


def with_database(work: Callable[[Settings, AsyncEngine], Awaitable[T]], *, mint_secrets: bool = False) -> T:
    """Run ``work`` with an engine of its own, and return what it returns. Only ``mint_secrets`` writes to the disk."""
    settings = load_settings(mint_secrets=False)
    url = database_url(settings)  # first: a mistyped data folder is not made
    if mint_secrets:
        settings = load_settings()

    async def session() -> T:
        from app.db import make_engine

        engine = make_engine(url, pool_size=2)
        try:
            return await work(settings, engine)
        finally:
            await engine.dispose()

    return asyncio.run(session())


def with_services(work: Callable[[Services], Awaitable[T]]) -> T:
    """Run ``work`` with everything the API has, and return what it returns."""
    database_url(load_settings(mint_secrets=False))
    settings = load_settings()

    async def session() -> T:
        from app.log import configure
        from app.wiring import open_services

        configure(form="console", level="warning")  # to standard error: the answer stays clean
        async with open_services(settings) as services:
            return await work(services)

    return asyncio.run(session())


def database_url(settings: Settings) -> str:
    """Raises: Refused, saying how to get a database."""
    if settings.database_url is None:
        raise Refused(no_gateway(settings))
    return settings.database_url.get_secret_value()


def no_gateway(settings: Settings) -> str:
    return (
        f"no gateway runs on {settings.data}; start one with `python3 dev.py up` or set MEDIAGATE_DATABASE_URL "
        "(MEDIAGATE_DATA names another data folder)"
    )


def actor() -> str:
    """Who does this, for the books."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # an id without a name, as in a container
        return "cli"


def explain(error: Exception) -> str | None:
    """Return the sentence for an error that is nobody's bug, else None."""
    if isinstance(error, DatabaseUnavailable):
        return _unreachable()
    if isinstance(error, MediagateError):
        return error.message
    if isinstance(error, SettingsError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:  # a file; the database's errors name none
        return f"{error.filename}: {error.strerror}"

    import asyncpg  # loaded already when one of its errors can be here

    from app.catalog.document import CatalogError
    from app.db import is_transient, sqlstate_of

    if isinstance(error, CatalogError):
        return str(error)
    state = getattr(error, "sqlstate", None) or sqlstate_of(error)
    if state in NOT_MIGRATED:
        return "the database is not set up for this version; run `mediagate migrate` first"
    if state is not None and state.startswith(("28", "3D", "53")):  # password, database name, too many connections
        return f"the database refuses us: {getattr(error, 'orig', None) or error}"
    if is_transient(error) or isinstance(error, asyncpg.InterfaceError | asyncpg.PostgresConnectionError):
        return _unreachable()
    return None


def _unreachable() -> str:
    from sqlalchemy.engine import make_url

    settings = load_settings(mint_secrets=False)
    if settings.database_url is None or _is_of_an_instance(settings.database_url.get_secret_value(), settings):
        return no_gateway(settings)
    url = make_url(settings.database_url.get_secret_value())
    place = url.query.get("host") or f"{url.host or 'localhost'}:{url.port or 5432}"  # the query names a unix socket
    return f"the database at {place} is not reachable"


def _is_of_an_instance(url: str, settings: Settings) -> bool:
    """Whether the address is what `up` left behind, perhaps before it was killed."""
    try:
        return bool(json.loads(instance_file(settings.data).read_text())["database_url"] == url)
    except FileNotFoundError:
        return False
