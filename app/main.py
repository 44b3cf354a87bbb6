"""The API process: services, middleware, error handlers and routers, put together. Nothing else."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from app.api import docs, errors, metrics, openapi, ops
from app.api.admin import accounts as admin_accounts
from app.api.admin import audit as admin_audit
from app.api.admin import codes as admin_codes
from app.api.admin import credits as admin_credits
from app.api.admin import keys as admin_keys
from app.api.admin import links as admin_links
from app.api.admin import models as admin_models
from app.api.admin import settings as admin_settings
from app.api.admin import statistics as admin_statistics
from app.api.admin import tasks as admin_tasks
from app.api.admin import upstreams as admin_upstreams
from app.api.admission import Shedder
from app.api.middleware import RequestShell
from app.api.v1 import files, images, me, models, quote, tasks, videos, webhooks
from app.console import router as console
from app.errors import DatabaseUnavailable
from app.generation.turns import Turns
from app.migrate import head_revision
from app.settings import Settings, load_settings
from app.wiring import Services, first_look, open_services

log = structlog.get_logger()

NO_PROXIES = (
    "Behind a proxy all callers seem to come from its address, and wrong keys of one are counted for all. "
    "Name its network in MEDIAGATE_TRUSTED_PROXIES."
)
ROUTERS = (
    images.router,
    videos.router,
    tasks.router,
    files.router,
    models.router,
    quote.router,
    me.router,
    webhooks.router,
    ops.router,
    metrics.router,
    docs.router,
    admin_upstreams.router,
    admin_tasks.router,
    admin_accounts.router,
    admin_links.router,
    admin_keys.router,
    admin_credits.router,
    admin_codes.router,
    admin_audit.router,
    admin_statistics.router,
    admin_settings.router,
    admin_models.router,
    console.router,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. Services open with its lifespan and close with it.

    Raises: SettingsError.
    """
    chosen = settings or load_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(chosen) as services:
            app.state.services = services
            app.state.stop_by = math.inf  # whoever serves us knows better, as soon as it stops
            app.state.gauges = metrics.Gauges(chosen)
            app.state.head_revision = await asyncio.to_thread(head_revision)
            await first_look(services)
            services.start_listening()
            services.start(app.state.meters.watch_the_loop)
            services.start_serving()
            log.info("api.ready", url=chosen.base_url)
            if chosen.is_production and not chosen.trusted_proxies:
                log.warning("api.no_trusted_proxies", hint=NO_PROXIES)
            yield
            left_s = app.state.stop_by - time.monotonic()
            left = await services.images.drain(min(max(left_s, 0.0), chosen.shutdown_wait_s))
            await _hand_back(services)
            log.info("api.stopped", unfinished_images=left)

    app = FastAPI(
        title="Mediagate",
        version=version("mediagate"),
        lifespan=lifespan,
        redirect_slashes=False,  # a trailing slash would be a 307
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    errors.install(app)
    openapi.install(app)
    app.state.turns = Turns(target_s=chosen.overload_delay_s, most=chosen.overload_burst)
    app.add_middleware(Shedder, turns=app.state.turns)
    app.add_middleware(RequestShell, settings=chosen)
    app.state.meters = metrics.Meters()
    app.add_middleware(metrics.Meter, meters=app.state.meters)  # added last: the outermost
    for router in ROUTERS:
        app.include_router(router)
    return app


async def _hand_back(services: Services) -> None:
    """Make what this process leaves unfinished due at once; without a database its leases run out by themselves."""
    try:
        await services.lifecycle.hand_back()
    except (SQLAlchemyError, OSError, DatabaseUnavailable) as error:
        log.warning("api.leases_left", error=type(error).__name__)
