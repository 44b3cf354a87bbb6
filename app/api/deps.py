"""What routes ask for: the services, who calls, and the body, which is read only after the key was checked."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect

from app.accounts.principal import Principal
from app.api.body import announced_size, read_body, spool_folder
from app.api.errors import note_task
from app.api.peer import peer_of
from app.api.session import (
    SECURE_COOKIE,
    check_same_origin,
    check_still_open,
    has_cookie,
    principal_of,
    read_session,
)
from app.api.v1.wire import Sign
from app.errors import InsufficientCredits, MissingApiKey, SessionEnded, TooManyRequests
from app.generation.turns import resting
from app.intake import CallerLeft, Intake
from app.limits import Standing
from app.tasks.queries import TaskView
from app.values import utcnow
from app.wiring import Services

Check = Callable[[], Awaitable[None]]
LONGEST_BELIEF_S = 30.0
"""How long a stream goes on, at most, whose caller may watch no longer."""
IMAGES_WRITE, VIDEOS_WRITE = "images:write", "videos:write"
TASKS_READ, FILES_READ, ACCOUNT_READ = "tasks:read", "files:read", "account:read"

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="An API key: `Authorization: Bearer sk-...`.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
session_cookie = APIKeyCookie(
    name=SECURE_COOKIE,
    auto_error=False,
    scheme_name="session",
    description="The console's session (`mg` where the gateway has no HTTPS). Whatever is not a GET needs the header "
    "`x-csrf-token` too, and comes from a page of the gateway's own. With an `Authorization` it is not looked at.",
)
SessionCookie = Annotated[str | None, Depends(session_cookie)]
"""For the document: `read_session` reads it, under the name it has here."""


def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def authenticate(
    request: Request, services: ServicesDep, credentials: Credentials, _session: SessionCookie
) -> Principal:
    """Return who calls, by a key or by a console session, and count the request.

    Raises: MissingApiKey, InvalidApiKey, IpNotAllowed, SessionEnded, CsrfFailed; TooManyRequests of this key, or of
    wrong ones from its source.
    """
    principal = await identify(request, services, credentials)
    limit = principal.rpm or services.settings.key_rpm
    if limit is not None:
        standing = await services.rates.take(principal.key_id, limit)
        request.state.answer_headers = _rate_headers(standing)
        if not standing.is_granted:
            raise TooManyRequests(
                f"This API key may make {limit} requests a minute. Nothing was done or charged.",
                retry_after_s=max(math.ceil(standing.retry_s), 1),
            )
    return principal


async def identify(request: Request, services: ServicesDep, credentials: Credentials) -> Principal:
    """Return who calls. Raises: as `authenticate`, but this key's requests are not counted."""
    if "authorization" not in request.headers and has_cookie(request, services.settings):
        principal = await _of_session(request, services)
    elif credentials is None or not credentials.credentials:
        raise MissingApiKey
    else:
        peer = peer_of(request, services.settings.proxies)
        principal = await services.callers.authenticate(credentials.credentials, peer=peer)
    structlog.contextvars.bind_contextvars(account_id=principal.account_id, key_id=principal.key_id)
    return principal


async def _of_session(request: Request, services: Services) -> Principal:
    """Return who is signed in to the console. Raises: SessionEnded, CsrfFailed for what another site's page sent."""
    session = await read_session(request, services)
    if session is None:
        raise SessionEnded
    check_same_origin(request, session)
    return principal_of(session)


def get_check(request: Request, services: ServicesDep, credentials: Credentials) -> Check:
    """Return what a stream asks at each turn: whether its caller may still come in, looked up as often as a key is."""
    every_s, checked_at = min(services.settings.key_cache_s, LONGEST_BELIEF_S), time.monotonic()

    async def check() -> None:
        """Raises: SessionEnded; InvalidApiKey, IpNotAllowed."""
        nonlocal checked_at
        if time.monotonic() - checked_at < every_s:
            return
        checked_at = time.monotonic()
        if "authorization" not in request.headers:
            await check_still_open(request, services)
        elif credentials is not None:
            peer = peer_of(request, services.settings.proxies)
            await services.callers.authenticate(credentials.credentials, peer=peer)

    return check


CheckDep = Annotated[Check, Depends(get_check)]


def _rate_headers(standing: Standing) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit-requests", b"%d" % standing.limit),
        (b"x-ratelimit-remaining-requests", b"%d" % standing.remaining),
        (b"x-ratelimit-reset-requests", shown_duration(standing.reset_s).encode()),
    ]


def shown_duration(seconds: float) -> str:
    """Return whole seconds, rounded up, as OpenAI writes them: ``0s``, ``12s``, ``1m0s``."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def requires(scope: str) -> Callable[[Principal], Coroutine[Any, Any, Principal]]:
    """Make the dependency that returns the caller, whose key must have ``scope``."""

    async def check(principal: AnyPrincipal) -> Principal:
        principal.require_scope(scope)
        return principal

    return check


def pays_for(scope: str) -> Callable[..., Coroutine[Any, Any, Principal]]:
    """Make the dependency that returns a caller who may make something, before its body is read."""

    async def check(request: Request, services: ServicesDep, principal: AnyPrincipal) -> Principal:
        """Raises: ScopeMissing, InsufficientCredits, Overloaded when the disk is almost full."""
        principal.require_scope(scope)
        if request.method == "POST":
            may_be_empty = principal.seemed_empty and not _repeats(request)
            if may_be_empty and await services.accounts.is_penniless(principal.account_id):
                raise InsufficientCredits
            await services.room.check()
        return principal

    return check


async def may_redeem(principal: AnyPrincipal) -> Principal:
    """Return a caller who may add credits: a key that only reads changes nothing, the balance included.

    Raises: ScopeMissing.
    """
    principal.require_scope(ACCOUNT_READ)
    if principal.scopes.isdisjoint((IMAGES_WRITE, VIDEOS_WRITE)):
        principal.require_scope(IMAGES_WRITE)
    return principal


def _repeats(request: Request) -> bool:
    """Whether the request may mean a task that was paid for already: that costs nothing."""
    return "idempotency-key" in request.headers or request.headers.get("x-stainless-retry-count", "0") != "0"


AnyPrincipal = Annotated[Principal, Depends(authenticate)]
ImagesPrincipal = Annotated[Principal, Depends(pays_for(IMAGES_WRITE))]
VideosPrincipal = Annotated[Principal, Depends(pays_for(VIDEOS_WRITE))]
TasksPrincipal = Annotated[Principal, Depends(requires(TASKS_READ))]
FilesPrincipal = Annotated[Principal, Depends(requires(FILES_READ))]
AccountPrincipal = Annotated[Principal, Depends(requires(ACCOUNT_READ))]
RedeemPrincipal = Annotated[Principal, Depends(may_redeem)]


def require_write(request: Request, principal: Principal, view: TaskView) -> None:
    """Raises: ScopeMissing: what a key may make, it may stop and delete. From here on every answer names the task."""
    note_task(request, view.public_id)
    principal.require_scope(f"{view.operation.kind}s:write")


async def open_intake(request: Request, services: ServicesDep, principal: AnyPrincipal) -> AsyncIterator[Intake]:
    """Read the body into a folder of its own, which goes when the answer has left."""
    async with _spool(services) as spool:
        intake = await _read(request, services, principal, spool)
        request.state.intake = intake
        watching = asyncio.create_task(_watch(request, intake.gone))
        try:
            yield intake
        except CallerLeft:
            raise ClientDisconnect from None
        finally:
            watching.cancel()


@asynccontextmanager
async def _spool(services: Services) -> AsyncIterator[Path]:
    async with spool_folder(services.settings) as folder:
        try:
            yield folder
        finally:
            services.uploads.release(folder)


async def _read(request: Request, services: Services, principal: Principal, spool: Path) -> Intake:
    """Read the body in its turn. Raises: as `read_body`; TooManyRequests, Overloaded when the turn does not come."""
    size, most = announced_size(request, services.settings)
    async with AsyncExitStack() as stack:
        with resting():
            await stack.enter_async_context(services.uploads.turn(principal.key_id, size))
        services.uploads.reserve(spool, most if size is None else size)
        intake = await read_body(request, settings=services.settings, spool=spool)
    services.uploads.read(spool)
    return intake


async def _watch(request: Request, gone: asyncio.Event) -> None:
    """Notice that the caller has hung up; the body is read, so that nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()


IntakeDep = Annotated[Intake, Depends(open_intake, scope="request")]
"""Stands after the principal in every signature: dependencies are solved in that order, and keys come first."""


def get_sign(services: ServicesDep) -> Sign:
    """Return the maker of signed URLs for one answer: they all live equally long from now on."""
    expires = utcnow() + services.settings.link_ttl

    def sign(public_id: str, kind: str) -> str:
        return services.links.sign(public_id, kind, expires)

    return sign


SignDep = Annotated[Sign, Depends(get_sign)]
