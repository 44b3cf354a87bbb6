"""What the commands about upstream accounts and routes share: the book, and how both are shown."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from app.cli.session import Refused, actor, with_database

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.catalog.book import Book
    from app.catalog.catalogs import Catalogs
    from app.catalog.inspection import Check
    from app.catalog.load import Catalog
    from app.catalog.routes import RouteInfo, RouteRows
    from app.catalog.upstreams import UpstreamInfo
    from app.catalog.versions import ModelVersions
    from app.journal import Actor
    from app.settings import Settings
    from app.upstreams.protocols import Capabilities

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def with_book(work: Callable[[Book], Awaitable[T]]) -> T:
    """Run ``work`` with the book, and return what it returns. In development a missing key is made."""

    async def session(settings: Settings, engine: AsyncEngine) -> T:
        from app.catalog.book import Book
        from app.log import configure

        if settings.secrets_key is None:
            raise Refused("MEDIAGATE_SECRETS_KEY must be set")
        configure(form="console", level="warning")  # to standard error: the answer stays clean
        catalog, providers = _catalog(settings)
        book = Book(
            engine,
            settings.secrets_key,
            catalog=catalog,
            providers=providers,
            work_dir=settings.work_dir,
            needs_https=settings.is_production,
        )
        return await work(book)

    return with_database(session, mint_secrets=True)


def with_routes(work: Callable[[RouteRows], Awaitable[T]]) -> T:
    """Run ``work`` with the routes alone, which need no key, and return what it returns."""

    async def session(settings: Settings, engine: AsyncEngine) -> T:
        from app.catalog.routes import RouteRows

        catalogs, providers = await open_catalogs(settings, engine)
        return await work(RouteRows(engine, catalogs.current, providers))

    return with_database(session)


def with_models(work: Callable[[ModelVersions], Awaitable[T]]) -> T:
    """Run ``work`` with the models, their versions and prices, and return what it returns."""

    async def session(settings: Settings, engine: AsyncEngine) -> T:
        from app.catalog.versions import ModelVersions

        catalogs, providers = await open_catalogs(settings, engine)
        return await work(ModelVersions(engine, catalogs, providers))

    return with_database(session)


async def open_catalogs(settings: Settings, engine: AsyncEngine) -> tuple[Catalogs, dict[str, Capabilities]]:
    """Return what is in force, and the providers. Raises: CatalogError."""
    from app.catalog.catalogs import Catalogs
    from app.catalog.load import read_files
    from app.upstreams.registry import discover

    providers = {name: provider.capabilities for name, provider in discover().items()}
    catalogs = Catalogs(read_files(settings.config_dir, providers=providers), engine)
    await catalogs.refresh()
    return catalogs, providers


def _catalog(settings: Settings) -> tuple[Catalog, dict[str, Capabilities]]:
    """Raises: CatalogError."""
    from app.catalog.load import load_catalog
    from app.upstreams.registry import discover

    providers = {name: provider.capabilities for name, provider in discover().items()}
    return load_catalog(settings.config_dir, providers=providers), providers


def by_whom() -> Actor:
    from app.journal import Actor

    return Actor(actor())


def options_option(command: F) -> F:
    """Give a command ``--option NAME=VALUE``, any number of times, as the argument ``options``."""
    return click.option(
        "--option",
        "options",
        multiple=True,
        callback=_options,
        metavar="NAME=VALUE",
        help="JSON, else text; repeatable.",
    )(command)


def _options(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for value in values:
        name, is_pair, text = value.partition("=")
        if not (is_pair and name.strip()):
            raise click.BadParameter(f"'{value}' must look like name=value")
        try:
            found[name.strip()] = json.loads(text)
        except ValueError:
            found[name.strip()] = text
    return found


def upstream_shown(upstream: UpstreamInfo) -> dict[str, Any]:
    return {
        "name": upstream.name,
        "provider": upstream.provider,
        "state": upstream.state,
        "base_url": upstream.base_url,
        "options": dict(upstream.options),
        "concurrency": upstream.concurrency,
        "has_secret": upstream.has_secret,
        "version": upstream.version,
        "versions": upstream.versions,
        "open_tasks": upstream.open_tasks,
        "created_at": upstream.created_at,
        "updated_at": upstream.updated_at,
    }


def check_shown(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "ok": check.is_good,
        "outcome": check.outcome,
        "found": check.found,
        "took_ms": check.took_ms,
        "missing_models": list(check.missing),
    }


def route_shown(route: RouteInfo) -> dict[str, Any]:
    entry = route.entry
    return {
        "id": route.public_id,
        "model": entry.model,
        "upstream": entry.upstream,
        "upstream_model": entry.upstream_model,
        "priority": entry.priority,
        "weight": entry.weight,
        "enabled": entry.is_enabled,
        "needs_permission": entry.needs_permission,
        "operations": None if entry.operations is None else sorted(entry.operations),
        "options": dict(entry.options),
        "created_at": route.created_at,
        "updated_at": route.updated_at,
    }
