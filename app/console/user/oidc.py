"""Signing in through an OpenID provider: the way there, and the way back."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.accounts.oidc import CALLBACK, VALID, Oidc
from app.api.deps import ServicesDep
from app.console.user.sign_in import login, signed_in
from app.console.visitor import ConsoleRoute, SessionDep, blank, safe_next
from app.errors import MediagateError, RouteNotFound
from app.wiring import Services

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

BEGIN = "/console/oidc"
COOKIE, NEXT_COOKIE = "mg_oidc", "mg_oidc_next"
"""What must come back to this browser, and where its person wanted to go. Both live until they are back."""


@router.get(BEGIN)
async def begin(request: Request, services: ServicesDep) -> Response:
    begun = await _oidc(services).begin()
    response = RedirectResponse(begun.url, status_code=303, headers={"cache-control": "no-store"})
    for name, value in ((COOKIE, begun.cookie), (NEXT_COOKIE, safe_next(request.query_params.get("next")))):
        response.set_cookie(
            name,
            value,
            max_age=int(VALID.total_seconds()),
            path=BEGIN,
            secure=services.settings.base_url.startswith("https://"),
            httponly=True,
            samesite="lax",
        )
    return response


@router.get(CALLBACK)
async def come_back(request: Request, services: ServicesDep, session: SessionDep) -> Response:
    """Sign in whoever comes back, in the browser that went."""
    target = safe_next(request.cookies.get(NEXT_COOKIE))
    try:
        account_id = await _oidc(services).finish(request.cookies.get(COOKIE), dict(request.query_params))
    except RouteNotFound:
        raise
    except MediagateError as error:
        response = login(request, services, blank(next=target).refuse(request, error), error)
    else:
        response = await signed_in(request, services, account_id, target)
    for name in (COOKIE, NEXT_COOKIE):
        response.delete_cookie(name, path=BEGIN)
    return response


def _oidc(services: Services) -> Oidc:
    """Raises: RouteNotFound, where none is set up."""
    if services.oidc is None:
        raise RouteNotFound("No OpenID provider is set up here.")
    return services.oidc
