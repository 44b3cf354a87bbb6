"""Signing in through an OpenID provider: the way there, and the way back."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.accounts.oidc import CALLBACK, VALID, Oidc
from app.api.deps import ServicesDep
from app.api.peer import peer_of
from app.console.user.sign_in import login, signed_in
from app.console.visitor import ConsoleRoute, SessionDep, blank, safe_next
from app.errors import MediagateError, RouteNotFound
from app.wiring import Services

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

BEGIN = "/console/oidc"
COOKIE, NEXT_COOKIE = "mg_oidc", "mg_oidc_next"
"""What must come back to this browser, and where its person wanted to go. Both live until they are back.

Over HTTPS their names begin with ``__Host-``: then no other host of the domain can set them.
"""


@router.get(BEGIN)
async def begin(request: Request, services: ServicesDep) -> Response:
    begun = await _oidc(services).begin()
    response = RedirectResponse(begun.url, status_code=303, headers={"cache-control": "no-store"})
    is_secure = _is_secure(services)
    for name, value in ((COOKIE, begun.cookie), (NEXT_COOKIE, safe_next(request.query_params.get("next")))):
        response.set_cookie(
            _name(name, is_secure=is_secure),
            value,
            max_age=int(VALID.total_seconds()),
            path=_path(is_secure=is_secure),
            secure=is_secure,
            httponly=True,
            samesite="lax",
        )
    return response


@router.get(CALLBACK)
async def come_back(request: Request, services: ServicesDep, session: SessionDep) -> Response:
    """Sign in whoever comes back, in the browser that went."""
    is_secure = _is_secure(services)
    cookie, wanted = (request.cookies.get(_name(name, is_secure=is_secure)) for name in (COOKIE, NEXT_COOKIE))
    target = safe_next(wanted)
    try:
        peer = peer_of(request, services.settings.proxies)
        account_id = await _oidc(services).finish(cookie, dict(request.query_params), peer=peer)
    except RouteNotFound:
        raise
    except MediagateError as error:
        response = login(request, services, blank(next=target).refuse(request, error), error)
    else:
        response = await signed_in(request, services, account_id, target)
    for name in (COOKIE, NEXT_COOKIE):
        response.delete_cookie(
            _name(name, is_secure=is_secure),
            path=_path(is_secure=is_secure),
            secure=is_secure,
            httponly=True,
            samesite="lax",
        )
    return response


def _is_secure(services: Services) -> bool:
    return services.settings.base_url.startswith("https://")


def _name(name: str, *, is_secure: bool) -> str:
    return f"__Host-{name}" if is_secure else name


def _path(*, is_secure: bool) -> str:
    return "/" if is_secure else BEGIN


def _oidc(services: Services) -> Oidc:
    """Raises: RouteNotFound, where none is set up."""
    if services.oidc is None:
        raise RouteNotFound("No OpenID provider is set up here.")
    return services.oidc
