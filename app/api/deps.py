"""What routes ask for: the services, who calls, and the body, which is read only after the key was checked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.accounts.principal import Principal
from app.api.body import read_body, spool_folder
from app.api.errors import note_task
from app.api.v1.wire import Sign
from app.errors import MissingApiKey
from app.intake import Intake
from app.tasks.queries import TaskView
from app.values import utcnow
from app.wiring import Services

IMAGES_WRITE, VIDEOS_WRITE = "images:write", "videos:write"
TASKS_READ, FILES_READ, ACCOUNT_READ = "tasks:read", "files:read", "account:read"

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="An API key: `Authorization: Bearer sk-...`.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def authenticate(request: Request, services: ServicesDep, credentials: Credentials) -> Principal:
    """Return who calls. Raises: MissingApiKey, InvalidApiKey, IpNotAllowed."""
    if credentials is None or not credentials.credentials:
        raise MissingApiKey
    peer = request.client.host if request.client else None
    principal = await services.keys.authenticate(credentials.credentials, peer=peer)
    structlog.contextvars.bind_contextvars(account_id=principal.account_id, key_id=principal.key_id)
    return principal


def requires(scope: str) -> Callable[[Principal], Coroutine[Any, Any, Principal]]:
    """Make the dependency that returns the caller, whose key must have ``scope``."""

    async def check(principal: AnyPrincipal) -> Principal:
        principal.require_scope(scope)
        return principal

    return check


AnyPrincipal = Annotated[Principal, Depends(authenticate)]
ImagesPrincipal = Annotated[Principal, Depends(requires(IMAGES_WRITE))]
VideosPrincipal = Annotated[Principal, Depends(requires(VIDEOS_WRITE))]
TasksPrincipal = Annotated[Principal, Depends(requires(TASKS_READ))]
FilesPrincipal = Annotated[Principal, Depends(requires(FILES_READ))]
AccountPrincipal = Annotated[Principal, Depends(requires(ACCOUNT_READ))]


def require_write(request: Request, principal: Principal, view: TaskView) -> None:
    """Raises: ScopeMissing: what a key may make, it may stop and delete. From here on every answer names the task."""
    note_task(request, view.public_id)
    principal.require_scope(f"{view.operation.kind}s:write")


async def open_intake(request: Request, services: ServicesDep) -> AsyncIterator[Intake]:
    """Read the body into a folder of its own, which goes when the answer has left."""
    async with spool_folder(services.settings) as spool:
        intake = await read_body(request, settings=services.settings, spool=spool)
        if key := request.headers.get("idempotency-key"):
            intake.fields.setdefault("idempotency_key", key)
        yield intake


IntakeDep = Annotated[Intake, Depends(open_intake, scope="request")]
"""Stands after the principal in every signature: dependencies are solved in that order, and keys come first."""


def get_sign(services: ServicesDep) -> Sign:
    """Return the maker of signed URLs for one answer: they all live equally long from now on."""
    expires = utcnow() + services.settings.link_ttl

    def sign(public_id: str, kind: str) -> str:
        return services.links.sign(public_id, kind, expires)

    return sign


SignDep = Annotated[Sign, Depends(get_sign)]
