"""Builds every long-lived object from the settings, once: for the API, the worker and the command line alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app import failpoints
from app.catalog.load import read_files
from app.db import make_engine
from app.errors import MediagateError
from app.fetch.client import SafeFetcher
from app.media.checks import Checker, open_pool
from app.queue import close_redis, make_redis
from app.settings import Settings, SettingsError
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Provider
from app.upstreams.registry import Registry, discover
from app.wiring.assembly import CHECKERS, assemble
from app.wiring.services import Services

__all__ = ["Services", "first_look", "open_services"]

log = structlog.get_logger()
CANCEL_AGAIN_S = 0.5


@asynccontextmanager
async def open_services(
    settings: Settings, *, providers: Mapping[str, Provider] | None = None
) -> AsyncIterator[Services]:
    """Build the services and close them in reverse order. ``providers`` stand in for those that are installed.

    Raises: SettingsError, CatalogError. Neither the database nor Redis is asked for anything yet.
    """
    if settings.database_url is None or settings.redis_url is None:
        raise SettingsError(
            "MEDIAGATE_DATABASE_URL and MEDIAGATE_REDIS_URL are not set, and no gateway runs on "
            f"{settings.data}. Start one with 'python3 dev.py up'."
        )
    providers = discover() if providers is None else providers
    files = read_files(
        settings.config_dir, providers={name: provider.capabilities for name, provider in providers.items()}
    )
    registry = Registry(providers)
    for folder in (settings.storage_dir, settings.spool_dir, settings.work_dir):
        folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        if settings.fail:
            failpoints.arm(settings.fail, settings.data / "failpoints")
            stack.callback(failpoints.arm, "", settings.data)
        engine = make_engine(
            settings.database_url.get_secret_value(),
            pool_size=settings.database_pool,
            wait_s=settings.database_wait_s,
        )
        stack.push_async_callback(engine.dispose)
        redis = make_redis(settings.redis_url.get_secret_value())
        stack.push_async_callback(close_redis, redis)
        stack.push_async_callback(registry.close)
        pool = open_pool(CHECKERS)
        stack.push_async_callback(pool.close)
        fetcher = SafeFetcher(settings)
        stack.push_async_callback(fetcher.close)
        webhook_fetcher = SafeFetcher(settings)  # with threads of its own: receivers' slow names keep no input waiting
        stack.push_async_callback(webhook_fetcher.close)
        http = UpstreamHttp(fetcher)
        stack.push_async_callback(http.close)
        services = assemble(settings, engine, redis, files, registry, Checker(pool), fetcher, webhook_fetcher, http)
        if services.oidc is not None:
            stack.push_async_callback(services.oidc.close)
        stack.push_async_callback(_cancel, services.background)
        stack.push_async_callback(services.idempotency.close)
        stack.push_async_callback(services.images.drain, 0.0)  # before the engine goes: steps hold its connections
        yield services


async def first_look(services: Services) -> None:
    """Read models and upstream accounts before the first request; without a database the watching loops do it later."""
    try:
        await services.catalogs.refresh()
        await services.book.refresh(services.registry)
    except (MediagateError, SQLAlchemyError, OSError) as error:
        log.warning("upstreams.not_read_yet", error=type(error).__name__)


async def _cancel(background: set[asyncio.Task[None]]) -> None:
    """End the loops. More than once if need be: a client library may swallow a cancellation on its way."""
    while left := [task for task in background if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
