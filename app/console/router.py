"""The console: its pages put together."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.console import static
from app.console.admin import (
    audit,
    codes,
    credits,
    dashboard,
    model_changes,
    model_files,
    models,
    routes,
    settings,
    storage,
    upstreams,
    users,
)
from app.console.admin import keys as admin_keys
from app.console.admin import tasks as admin_tasks
from app.console.user import (
    account,
    docs,
    gallery,
    home,
    keys,
    ledger,
    oidc,
    playground,
    previews,
    prices,
    sign_in,
    tasks,
    usage,
    webhooks,
)
from app.console.user import models as catalogue
from app.console.visitor import ConsoleRoute, SessionDep
from app.errors import RouteNotFound

PAGES: tuple[APIRouter, ...] = (
    sign_in.router,
    oidc.router,
    home.router,
    tasks.router,
    usage.router,
    ledger.router,
    prices.router,
    catalogue.router,
    playground.router,
    gallery.router,
    previews.router,
    dashboard.router,
    credits.router,
    users.router,
    admin_keys.router,
    codes.router,
    audit.router,
    storage.router,
    settings.router,
    admin_tasks.router,
    upstreams.router,
    routes.router,
    models.router,
    model_changes.router,
    model_files.router,
    keys.router,
    webhooks.router,
    docs.router,
    account.router,
)

router = APIRouter(include_in_schema=False)
router.include_router(static.router)
for pages in PAGES:
    router.include_router(pages)

rest = APIRouter(include_in_schema=False, route_class=ConsoleRoute)


@rest.api_route("/console/{path:path}", methods=["GET", "POST"])
async def nothing_here(request: Request, session: SessionDep, path: str) -> Response:
    raise RouteNotFound(f"There is no {request.method} {request.url.path[:200]} here.")


router.include_router(rest)
