"""Webhook endpoints in OpenAI's shapes, and what those lack: the log of deliveries, and the secret of one-off URLs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from app.accounts.key_info import key_public_id
from app.accounts.principal import Principal
from app.api.admin.bodies import Body, documented, reads
from app.api.deps import IMAGES_WRITE, VIDEOS_WRITE, AccountPrincipal, AnyPrincipal, ServicesDep
from app.api.errors import request_id_of
from app.api.openapi import errors
from app.api.v1.answers import json_answer
from app.api.v1.webhook_wire import (
    EndpointCreate,
    EndpointUpdate,
    SecretRotation,
    SettingsUpdate,
    TestEvent,
    WebhookDelivery,
    WebhookDeliveryList,
    WebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointList,
    WebhookEndpointWithSecret,
    WebhookEventTypes,
    WebhookSecret,
    WebhookSettings,
    WebhookTestResult,
)
from app.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    InputUrlRefused,
    InputUrlUnreachable,
    InvalidParameter,
    MissingParameter,
    ScopeMissing,
    UnsupportedMediaType,
    WebhookDeliveryNotFound,
    WebhookEndpointNotFound,
)
from app.journal import Actor
from app.webhooks.deliveries import ONE_OFF
from app.webhooks.events import EVENT_TYPES

router = APIRouter(prefix="/v1", tags=["Webhooks"])

NO_STORE = {"cache-control": "no-store"}
READ = errors(InvalidParameter, ScopeMissing, DatabaseUnavailable)
READ_ONE = errors(InvalidParameter, ScopeMissing, WebhookEndpointNotFound, DatabaseUnavailable)
BODY_ERRORS = (InvalidParameter, MissingParameter, ScopeMissing, BodyTooLarge, UnsupportedMediaType)
WRITE = errors(*BODY_ERRORS, InputUrlRefused, DatabaseUnavailable)
WRITE_ONE = errors(*BODY_ERRORS, InputUrlRefused, WebhookEndpointNotFound, DatabaseUnavailable)
TEST = errors(*BODY_ERRORS, InputUrlRefused, InputUrlUnreachable, WebhookEndpointNotFound, DatabaseUnavailable)
REDELIVER = errors(
    InvalidParameter, ScopeMissing, WebhookEndpointNotFound, WebhookDeliveryNotFound, DatabaseUnavailable
)

EndpointId = Annotated[str, Path(description="The id of a webhook endpoint of the account.")]
LoggedId = Annotated[
    str, Path(description=f"The id of a webhook endpoint, or `{ONE_OFF}`: the URLs that requests brought along.")
]


async def _writer(principal: AnyPrincipal) -> Principal:
    """Whoever may make something may have itself told. Raises: ScopeMissing."""
    if IMAGES_WRITE not in principal.scopes:
        principal.require_scope(VIDEOS_WRITE)
    return principal


WebhooksPrincipal = Annotated[Principal, Depends(_writer)]


async def _actor(request: Request, principal: WebhooksPrincipal) -> Actor:
    """Return who changes something, for the audit."""
    return Actor(f"{principal.email} ({key_public_id(principal.key_id)})", request_id_of(request))


ActorDep = Annotated[Actor, Depends(_actor)]


def _body(kind: type[Body], **examples: dict[str, Any]) -> dict[str, Any]:
    """Document a body, with examples."""
    found = documented(kind, is_partial=True)
    content = found["requestBody"]["content"]["application/json"]
    content["examples"] = {name: {"value": value} for name, value in examples.items()}
    found["requestBody"]["required"] = kind is not SecretRotation  # which has nothing that must be said
    return found


@router.post(
    "/webhook_endpoints",
    summary="Add a webhook endpoint",
    description="The answer holds its signing secret, this once. Needs `images:write` or `videos:write`, as all "
    "changes here do; an account has at most 10.",
    response_model=WebhookEndpointWithSecret,
    responses=WRITE,
    operation_id="create_webhook_endpoint",
    openapi_extra=_body(
        EndpointCreate,
        videos={
            "name": "shop",
            "url": "https://example.com/hooks/mediagate",
            "event_types": ["video.completed", "video.failed"],
        },
    ),
)
async def create_endpoint(
    principal: WebhooksPrincipal,
    actor: ActorDep,
    services: ServicesDep,
    body: Annotated[EndpointCreate, Depends(reads(EndpointCreate))],
) -> Response:
    made, secret = await services.webhooks.create(
        principal.account_id, name=body.name, url=body.url, event_types=body.event_types, actor=actor
    )
    return json_answer(WebhookEndpointWithSecret.of(made, signing_secret=secret), headers=NO_STORE)


@router.get(
    "/webhook_endpoints",
    summary="List the webhook endpoints",
    description="Newest first. Send the last id as `after` for the next page.",
    response_model=WebhookEndpointList,
    responses=READ,
    operation_id="list_webhook_endpoints",
)
async def list_endpoints(
    principal: AccountPrincipal,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
) -> Response:
    found, has_more = await services.webhooks.list(principal.account_id, limit=limit, after=after)
    data = [WebhookEndpoint.of(endpoint) for endpoint in found]
    return json_answer(WebhookEndpointList(data=data, has_more=has_more, **_ends(data)))


@router.get(
    "/webhook_event_types",
    summary="List the event types",
    response_model=WebhookEventTypes,
    responses=READ,
    operation_id="list_webhook_event_types",
)
async def list_event_types(principal: AccountPrincipal) -> Response:
    return json_answer(WebhookEventTypes(data=list(EVENT_TYPES)))


@router.get(
    "/webhook_endpoints/{endpoint_id}",
    summary="Read a webhook endpoint",
    response_model=WebhookEndpoint,
    responses=READ_ONE,
    operation_id="get_webhook_endpoint",
)
async def get_endpoint(endpoint_id: EndpointId, principal: AccountPrincipal, services: ServicesDep) -> Response:
    return json_answer(WebhookEndpoint.of(await services.webhooks.get(principal.account_id, endpoint_id)))


@router.post(
    "/webhook_endpoints/{endpoint_id}",
    summary="Change a webhook endpoint",
    description="Absent fields stay as they are.",
    response_model=WebhookEndpoint,
    responses=WRITE_ONE,
    operation_id="update_webhook_endpoint",
    openapi_extra=_body(
        EndpointUpdate, types={"event_types": ["video.completed", "credits.low"]}, pause={"status": "disabled"}
    ),
)
async def update_endpoint(
    endpoint_id: EndpointId,
    principal: WebhooksPrincipal,
    actor: ActorDep,
    services: ServicesDep,
    body: Annotated[EndpointUpdate, Depends(reads(EndpointUpdate))],
) -> Response:
    found = await services.webhooks.update(principal.account_id, endpoint_id, **body.given(), actor=actor)
    return json_answer(WebhookEndpoint.of(found))


@router.delete(
    "/webhook_endpoints/{endpoint_id}",
    summary="Delete a webhook endpoint",
    description="With its secret; nothing more is sent to it.",
    response_model=WebhookEndpointDeleted,
    responses=READ_ONE,
    operation_id="delete_webhook_endpoint",
)
async def delete_endpoint(
    endpoint_id: EndpointId, principal: WebhooksPrincipal, actor: ActorDep, services: ServicesDep
) -> Response:
    await services.webhooks.delete(principal.account_id, endpoint_id, actor=actor)
    return json_answer(WebhookEndpointDeleted(id=endpoint_id))


@router.post(
    "/webhook_endpoints/{endpoint_id}/rotate_secret",
    summary="Replace a signing secret",
    description="The answer holds the new one, this once.",
    response_model=WebhookEndpointWithSecret,
    responses=WRITE_ONE,
    operation_id="rotate_webhook_secret",
    openapi_extra=_body(SecretRotation, overlap={"keep_old_secret_active_for_24_hours": True}),
)
async def rotate_secret(
    endpoint_id: EndpointId,
    principal: WebhooksPrincipal,
    actor: ActorDep,
    services: ServicesDep,
    body: Annotated[SecretRotation, Depends(reads(SecretRotation, may_be_empty=True))],
) -> Response:
    found, secret = await services.webhooks.rotate_secret(
        principal.account_id, endpoint_id, keep_old=bool(body.keep_old_secret_active_for_24_hours), actor=actor
    )
    return json_answer(WebhookEndpointWithSecret.of(found, signing_secret=secret), headers=NO_STORE)


@router.post(
    "/webhook_endpoints/{endpoint_id}/test",
    summary="Send a sample event",
    description="Once, now; `data.test` is true. It is in the log of deliveries, and is not sent again by itself. "
    "One test at a time.",
    response_model=WebhookTestResult,
    responses=TEST,
    operation_id="test_webhook_endpoint",
    openapi_extra=_body(TestEvent, video={"event_type": "video.completed"}),
)
async def test_endpoint(
    endpoint_id: EndpointId,
    principal: WebhooksPrincipal,
    services: ServicesDep,
    body: Annotated[TestEvent, Depends(reads(TestEvent))],
) -> Response:
    if body.event_type not in EVENT_TYPES:
        raise InvalidParameter(f"'event_type' must be one of: {', '.join(EVENT_TYPES)}.", param="event_type")
    endpoint = await services.webhooks.get(principal.account_id, endpoint_id)
    status = await services.deliverer.test(endpoint, body.event_type)
    return json_answer(
        WebhookTestResult(event_type=body.event_type, status_code=status, webhook_endpoint_id=endpoint.public_id)
    )


@router.get(
    "/webhook_endpoints/{endpoint_id}/deliveries",
    summary="List what was sent",
    description="Newest first, with each try, for 30 days. Send `last_id` as `after` for the next page.",
    response_model=WebhookDeliveryList,
    responses=READ_ONE,
    operation_id="list_webhook_deliveries",
)
async def list_deliveries(
    endpoint_id: LoggedId,
    principal: AccountPrincipal,
    services: ServicesDep,
    status: Literal["pending", "delivered", "failed"] | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
) -> Response:
    found, has_more = await services.webhook_log.list(
        principal.account_id, endpoint_id, limit=limit, after=after, state=status
    )
    data = [WebhookDelivery.of(delivery) for delivery in found]
    return json_answer(WebhookDeliveryList(data=data, has_more=has_more, **_ends(data)))


@router.post(
    "/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver",
    summary="Send it again",
    description="Now, and with all its tries; the event keeps its id. While it is being sent this is a 400.",
    response_model=WebhookDelivery,
    responses=REDELIVER,
    operation_id="redeliver_webhook",
)
async def redeliver(
    endpoint_id: LoggedId, delivery_id: str, principal: WebhooksPrincipal, services: ServicesDep
) -> Response:
    return json_answer(
        WebhookDelivery.of(await services.webhook_log.redeliver(principal.account_id, endpoint_id, delivery_id))
    )


@router.get(
    "/webhook_settings",
    summary="Read the account's webhook settings",
    response_model=WebhookSettings,
    responses=READ,
    operation_id="get_webhook_settings",
)
async def get_settings(principal: AccountPrincipal, services: ServicesDep) -> Response:
    return json_answer(WebhookSettings.of(await services.webhooks.settings(principal.account_id)))


@router.post(
    "/webhook_settings",
    summary="Set when credits are low",
    description="`credits.low` is sent once when the spendable balance falls below; new credits arm it again, "
    "once it has risen to the threshold.",
    response_model=WebhookSettings,
    responses=WRITE,
    operation_id="update_webhook_settings",
    openapi_extra=_body(SettingsUpdate, warn={"low_credits": 50}, off={"low_credits": None}),
)
async def update_settings(
    principal: WebhooksPrincipal,
    actor: ActorDep,
    services: ServicesDep,
    body: Annotated[SettingsUpdate, Depends(reads(SettingsUpdate))],
) -> Response:
    found = await services.webhooks.set_low_credits(principal.account_id, body.low_credits, actor=actor)
    return json_answer(WebhookSettings.of(found))


@router.get(
    "/webhook_settings/signing_secret",
    summary="Read the secret of one-off URLs",
    description="It signs what is sent to the `webhook_url` of a request. Needs `images:write` or `videos:write`.",
    response_model=WebhookSecret,
    responses=READ,
    operation_id="get_webhook_secret",
)
async def get_account_secret(principal: WebhooksPrincipal, actor: ActorDep, services: ServicesDep) -> Response:
    secret = await services.webhook_secrets.of_account(principal.account_id, shown_to=actor)
    return json_answer(WebhookSecret(signing_secret=secret), headers=NO_STORE)


@router.post(
    "/webhook_settings/rotate_secret",
    summary="Replace the secret of one-off URLs",
    response_model=WebhookSecret,
    responses=WRITE,
    operation_id="rotate_account_webhook_secret",
    openapi_extra=_body(SecretRotation, overlap={"keep_old_secret_active_for_24_hours": True}),
)
async def rotate_account_secret(
    principal: WebhooksPrincipal,
    actor: ActorDep,
    services: ServicesDep,
    body: Annotated[SecretRotation, Depends(reads(SecretRotation, may_be_empty=True))],
) -> Response:
    secret = await services.webhooks.rotate_account_secret(
        principal.account_id, keep_old=bool(body.keep_old_secret_active_for_24_hours), actor=actor
    )
    return json_answer(WebhookSecret(signing_secret=secret), headers=NO_STORE)


def _ends(data: list[WebhookEndpoint] | list[WebhookDelivery]) -> dict[str, str | None]:
    return {"first_id": data[0].id if data else None, "last_id": data[-1].id if data else None}
