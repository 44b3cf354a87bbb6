"""Accounts at vendors and routes, for administrators: the same service as the command line."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field, SecretStr
from starlette.responses import Response

from app.api.admin.bodies import Body, documented, reads
from app.api.admin.deps import AdminActor, BookDep, InspectorDep
from app.api.admin.wire import ModelRoute, RouteList, UpstreamAccount, UpstreamList, UpstreamTest
from app.api.openapi import errors
from app.api.v1.answers import json_answer
from app.api.v1.tasks import NAME
from app.catalog.routes import find_route_id
from app.catalog.upstreams import DEFAULT_CONCURRENCY, UpstreamInfo
from app.errors import (
    DatabaseUnavailable,
    InvalidParameter,
    ModelNotFound,
    ModelRouteExists,
    ModelRouteNotFound,
    ScopeMissing,
    UpstreamExists,
    UpstreamNotFound,
    WrongSecretsKey,
)
from app.requests import Operation

router = APIRouter(prefix="/admin/v1", tags=["Administration"])

READ = errors(InvalidParameter, ScopeMissing, DatabaseUnavailable)
ONE = errors(InvalidParameter, ScopeMissing, UpstreamNotFound, DatabaseUnavailable)
SEALING = errors(InvalidParameter, UpstreamExists, WrongSecretsKey, ScopeMissing, UpstreamNotFound, DatabaseUnavailable)
ONE_ROUTE = errors(InvalidParameter, ScopeMissing, ModelRouteNotFound, DatabaseUnavailable)
NEW_ROUTE = errors(
    InvalidParameter, ModelRouteExists, ScopeMissing, ModelNotFound, UpstreamNotFound, DatabaseUnavailable
)
UpstreamName = Annotated[str, Path(max_length=100, pattern=NAME)]
SECRET_NOTE = "Write-only: no answer ever holds it."  # noqa: S105 - a sentence


class UpstreamCreate(Body):
    name: str = Field(description="1 to 100 of A-Z a-z 0-9 . _ - ; new tasks remember it for good.")
    provider: str = Field(description="Who speaks with the vendor.")
    base_url: str | None = Field(None, description="Only where it differs from the provider's own.")
    secret: SecretStr | None = Field(None, description=SECRET_NOTE)
    options: dict[str, Any] = Field(default_factory=dict, description="As the provider documents them. No secrets.")
    concurrency: int = Field(DEFAULT_CONCURRENCY, description="Tasks of one model at once.")


class UpstreamUpdate(Body):
    base_url: str | None = Field(
        None, description="For new tasks; null: the provider's own. Another host needs `secret` with it."
    )
    secret: SecretStr | None = Field(None, description=SECRET_NOTE + " null: none any more.")
    options: dict[str, Any] = Field(default_factory=dict, description="All of them, for new tasks.")
    concurrency: int = Field(DEFAULT_CONCURRENCY, description="Tasks of one model at once.")


class SecretRotate(Body):
    secret: SecretStr | None = Field(description=SECRET_NOTE + " null: none any more.")


class RouteFields(Body):
    priority: int = Field(0, description="Lower goes first.")
    weight: int = Field(1, description="Share among routes of equal priority.")
    enabled: bool = True
    needs_permission: bool = Field(False, description="Costlier: only for requests with `official_fallback`.")
    operations: list[Operation] | None = Field(None, description="null: all that the model does.")
    options: dict[str, Any] = Field(default_factory=dict, description="As the provider documents them.")

    def changes(self) -> dict[str, Any]:
        """Return the named fields as the book calls them."""
        given = self.given()
        if "enabled" in given:
            given["is_enabled"] = given.pop("enabled")
        return given


class RouteCreate(RouteFields):
    model: str = Field(description="The public model.")
    upstream: str = Field(description="The account.")
    upstream_model: str = Field(description="The upstream's own model id.")


def _answer(upstream: UpstreamInfo, status: int = 200) -> Response:
    return json_answer(UpstreamAccount.of(upstream), status=status)


# --- accounts -------------------------------------------------------------------------------------------------------


@router.get(
    "/upstreams",
    summary="List the accounts at vendors",
    response_model=UpstreamList,
    responses=READ,
    operation_id="list_upstreams",
)
async def list_upstreams(actor: AdminActor, book: BookDep) -> Response:
    return json_answer(UpstreamList(data=[UpstreamAccount.of(info) for info in await book.upstreams.list()]))


@router.post(
    "/upstreams",
    summary="Add an account",
    description="It serves nothing before it has a route.",
    status_code=201,
    response_model=UpstreamAccount,
    responses=SEALING,
    operation_id="create_upstream",
    openapi_extra=documented(UpstreamCreate),
)
async def create_upstream(
    actor: AdminActor, book: BookDep, body: Annotated[UpstreamCreate, Depends(reads(UpstreamCreate, creates=True))]
) -> Response:
    return _answer(await book.upstreams.add(**body.given(), actor=actor), status=201)


@router.get(
    "/upstreams/{name}",
    summary="Read an account",
    description="`open_tasks` tells when a draining account has nothing left to do.",
    response_model=UpstreamAccount,
    responses=ONE,
    operation_id="get_upstream",
)
async def get_upstream(actor: AdminActor, book: BookDep, name: UpstreamName) -> Response:
    return _answer(await book.upstreams.get(name))


@router.patch(
    "/upstreams/{name}",
    summary="Change an account",
    description="Address and options hold for new tasks; running ones keep theirs.",
    response_model=UpstreamAccount,
    responses=SEALING,
    operation_id="update_upstream",
    openapi_extra=documented(UpstreamUpdate, is_partial=True),
)
async def update_upstream(
    actor: AdminActor,
    book: BookDep,
    name: UpstreamName,
    body: Annotated[UpstreamUpdate, Depends(reads(UpstreamUpdate))],
) -> Response:
    return _answer(await book.upstreams.update(name, **body.given(), actor=actor))


@router.delete(
    "/upstreams/{name}",
    summary="Delete an account",
    description="With its routes, for good. Running tasks end first; then its secrets are removed.",
    response_model=UpstreamAccount,
    responses=ONE,
    operation_id="delete_upstream",
)
async def delete_upstream(actor: AdminActor, book: BookDep, name: UpstreamName) -> Response:
    return _answer(await book.upstreams.delete(name, actor=actor))


@router.post(
    "/upstreams/{name}/rotate",
    summary="Store a new secret",
    description="For new tasks; running ones keep the old one, so let it live until they have ended.",
    response_model=UpstreamAccount,
    responses=SEALING,
    operation_id="rotate_upstream",
    openapi_extra=documented(SecretRotate),
)
async def rotate_upstream(
    actor: AdminActor, book: BookDep, name: UpstreamName, body: Annotated[SecretRotate, Depends(reads(SecretRotate))]
) -> Response:
    return _answer(await book.upstreams.rotate(name, body.secret, actor=actor))


@router.post(
    "/upstreams/{name}/enable",
    summary="Let an account take new tasks again",
    response_model=UpstreamAccount,
    responses=ONE,
    operation_id="enable_upstream",
)
async def enable_upstream(actor: AdminActor, book: BookDep, name: UpstreamName) -> Response:
    return _answer(await book.upstreams.set_state(name, "active", actor=actor))


@router.post(
    "/upstreams/{name}/disable",
    summary="Give an account no new task, for now",
    description="Running ones go on.",
    response_model=UpstreamAccount,
    responses=ONE,
    operation_id="disable_upstream",
)
async def disable_upstream(actor: AdminActor, book: BookDep, name: UpstreamName) -> Response:
    return _answer(await book.upstreams.set_state(name, "disabled", actor=actor))


@router.post(
    "/upstreams/{name}/drain",
    summary="Give an account no new task, on the way out",
    description="Running ones go on; `open_tasks` counts them down.",
    response_model=UpstreamAccount,
    responses=ONE,
    operation_id="drain_upstream",
)
async def drain_upstream(actor: AdminActor, book: BookDep, name: UpstreamName) -> Response:
    return _answer(await book.upstreams.set_state(name, "draining", actor=actor))


@router.post(
    "/upstreams/{name}/test",
    summary="Test an account without any paid call",
    description="Looks at state, secret and routes, opens a connection to its host, and asks the vendor something free "
    "that needs the secret, for at most nine seconds. It is no task, counts for no health, and changes nothing. "
    "`unknown` means that nobody can tell. Whoever asks while an account is being tested gets that test's answer.",
    response_model=UpstreamTest,
    responses=ONE,
    operation_id="test_upstream",
)
async def test_upstream(actor: AdminActor, inspector: InspectorDep, name: UpstreamName) -> Response:
    return json_answer(UpstreamTest.of(name, await inspector.inspect(name)))


# --- routes ---------------------------------------------------------------------------------------------------------


@router.get(
    "/routes",
    summary="List the routes",
    description="In the order they are tried.",
    response_model=RouteList,
    responses=READ,
    operation_id="list_routes",
)
async def list_routes(
    actor: AdminActor,
    book: BookDep,
    model: Annotated[str | None, Query(max_length=200, pattern=NAME, description="Of this public model.")] = None,
) -> Response:
    return json_answer(RouteList(data=[ModelRoute.of(info) for info in await book.routes.list(model)]))


@router.post(
    "/routes",
    summary="Add a route",
    status_code=201,
    response_model=ModelRoute,
    responses=NEW_ROUTE,
    operation_id="create_route",
    openapi_extra=documented(RouteCreate),
)
async def create_route(
    actor: AdminActor, book: BookDep, body: Annotated[RouteCreate, Depends(reads(RouteCreate, creates=True))]
) -> Response:
    return json_answer(ModelRoute.of(await book.routes.add(**body.changes(), actor=actor)), status=201)


@router.get(
    "/routes/{route_id}",
    summary="Read a route",
    response_model=ModelRoute,
    responses=ONE_ROUTE,
    operation_id="get_route",
)
async def get_route(actor: AdminActor, book: BookDep, route_id: str) -> Response:
    return json_answer(ModelRoute.of(await book.routes.get(_number(route_id))))


@router.patch(
    "/routes/{route_id}",
    summary="Change a route",
    response_model=ModelRoute,
    responses=ONE_ROUTE,
    operation_id="update_route",
    openapi_extra=documented(RouteFields, is_partial=True),
)
async def update_route(
    actor: AdminActor, book: BookDep, route_id: str, body: Annotated[RouteFields, Depends(reads(RouteFields))]
) -> Response:
    return json_answer(ModelRoute.of(await book.routes.update(_number(route_id), **body.changes(), actor=actor)))


@router.delete(
    "/routes/{route_id}",
    summary="Remove a route",
    description="Running tasks go on. Answers with what the route was.",
    response_model=ModelRoute,
    responses=ONE_ROUTE,
    operation_id="delete_route",
)
async def delete_route(actor: AdminActor, book: BookDep, route_id: str) -> Response:
    return json_answer(ModelRoute.of(await book.routes.remove(_number(route_id), actor=actor)))


def _number(route_id: str) -> int:
    """Raises: ModelRouteNotFound."""
    found = find_route_id(route_id)
    if found is None:
        raise ModelRouteNotFound(route_id)
    return found
