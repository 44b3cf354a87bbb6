"""Images: made and edited while the caller waits, streamed, or left to the workers; and read again by their id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from app.accounts.principal import Principal
from app.api.deps import ImagesPrincipal, IntakeDep, ServicesDep, SignDep, TasksPrincipal
from app.api.openapi import (
    CHARGED_HEADERS,
    EVENTS,
    REPEATABLE,
    REPLAYED,
    errors,
    form_or_json_body,
    json_body,
)
from app.api.v1 import image_events, schemas, wire
from app.api.v1.answers import rendered_answer, task_answer, task_headers
from app.api.v1.files import stored_path
from app.api.v1.sse import stream
from app.errors import (
    AccountSuspended,
    BodyTooLarge,
    ContentPolicyViolation,
    DatabaseUnavailable,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidMedia,
    InvalidParameter,
    IpNotAllowed,
    KeyBudgetExhausted,
    MissingParameter,
    ModelNotAllowed,
    ModelNotFound,
    Overloaded,
    PriceAboveMax,
    ProviderUnavailable,
    QueueFull,
    ResultExpired,
    ResultUnavailable,
    RouteNotFound,
    ScopeMissing,
    SyncWaitExceeded,
    TaskNotFound,
    TaskNotReady,
    TooManyTasks,
    UnsupportedMediaType,
    UnsupportedParameter,
    UpstreamErrorPublic,
)
from app.intake import Intake
from app.media.base64_stream import Base64Of, render_json
from app.requests import Operation
from app.tasks.queries import TaskView
from app.values import utcnow
from app.wiring import Services

router = APIRouter(prefix="/v1/images", tags=["Images"])

MAX_WAIT_S = 60
STEADY_PART = 1 / 96
"""Of a link's life, in which a repeated answer has the same link: a quarter of an hour of a day."""
_WAIT = re.compile(r"\bwait\s*=\s*\"?([0-9]{1,6})\b", re.IGNORECASE)
_RESPOND_ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?:$|[,;\s])", re.IGNORECASE)

ImageId = Annotated[str, Path(description="The `id` of an image reply or task.")]

MAKING_ERRORS = errors(
    InvalidParameter, MissingParameter, UnsupportedParameter, IdempotencyKeyReused, InvalidMedia,
    ContentPolicyViolation, PriceAboveMax, InsufficientCredits, KeyBudgetExhausted, ModelNotAllowed, ScopeMissing,
    IpNotAllowed, AccountSuspended, ModelNotFound, BodyTooLarge, UnsupportedMediaType, TooManyTasks, QueueFull,
    UpstreamErrorPublic, ResultUnavailable, ProviderUnavailable, Overloaded, DatabaseUnavailable, SyncWaitExceeded,
    ResultExpired,
)  # fmt: skip
READ_ERRORS = errors(
    InvalidParameter, TaskNotReady, ScopeMissing, TaskNotFound, ResultExpired, UpstreamErrorPublic, ResultUnavailable
)
MADE: dict[int | str, dict[str, Any]] = {
    200: {
        "model": wire.ImagesReply,
        "description": "The image. With `stream` the same as server-sent events.",
        "headers": CHARGED_HEADERS | REPLAYED,
        "content": EVENTS,
    },
    202: {"model": wire.Task, "description": "With `async`: the task, at once.", "headers": CHARGED_HEADERS | REPLAYED},
    **MAKING_ERRORS,
}


@dataclass(frozen=True, slots=True)
class Manner:
    """How the caller wants the answer; what the image shall be is the catalogue's to judge."""

    is_async: bool
    is_stream: bool
    has_base64: bool
    wait_s: int

    @classmethod
    def of(cls, fields: Mapping[str, Any], headers: Mapping[str, str]) -> Manner:
        """Read it; a wrong value is left for the catalogue to name. Raises: InvalidParameter for a contradiction."""
        prefer = headers.get("prefer", "")
        wait = _WAIT.search(prefer)
        is_async = fields.get("async") is True or _RESPOND_ASYNC.search(prefer) is not None
        is_stream = fields.get("stream") is True
        if is_async and is_stream:
            raise InvalidParameter(
                "'stream' cannot be used together with 'async' or 'Prefer: respond-async'. Allowed: one of the two.",
                param="stream",
            )
        return cls(
            is_async=is_async,
            is_stream=is_stream,
            has_base64=fields.get("response_format") != "url",
            wait_s=min(int(wait[1]), MAX_WAIT_S) if wait else 0,
        )


@router.post(
    "/generations",
    summary="Make an image",
    description="Answers when the image is ready. The work is not bound to the connection: when it breaks, "
    "`GET /v1/tasks` finds the task and `GET /v1/images/{id}` the image.",
    responses=MADE,
    openapi_extra=json_body("ImageGeneration", examples=schemas.IMAGE_EXAMPLES) | REPEATABLE,
    operation_id="create_image",
)
async def create_image(
    request: Request, principal: ImagesPrincipal, intake: IntakeDep, services: ServicesDep, sign: SignDep
) -> Response:
    return await _make(request, principal, intake, services, sign, Operation.IMAGE_GENERATE)


@router.post(
    "/edits",
    summary="Edit images",
    description="1 to 5 images as files, URLs or data: URLs; a mask's transparent pixels are what may change.",
    responses=MADE,
    openapi_extra=form_or_json_body("ImageEditForm", "ImageEdit", examples=schemas.EDIT_EXAMPLES) | REPEATABLE,
    operation_id="edit_image",
)
async def edit_image(
    request: Request, principal: ImagesPrincipal, intake: IntakeDep, services: ServicesDep, sign: SignDep
) -> Response:
    return await _make(request, principal, intake, services, sign, Operation.IMAGE_EDIT)


@router.post("/variations", include_in_schema=False)
async def refuse_variations(principal: ImagesPrincipal) -> Response:
    raise RouteNotFound("/v1/images/variations is not offered. Send the image and a prompt to /v1/images/edits.")


async def _make(
    request: Request, principal: Principal, intake: Intake, services: Services, sign: wire.Sign, operation: Operation
) -> Response:
    manner = Manner.of(intake.fields, request.headers)
    if manner.is_async:
        view = await services.images.accept(principal, intake, operation=operation)
        view = await services.tasks.wait(principal, view.public_id, manner.wait_s)
        charged = await _charged(view, services) if view.public_status == "completed" else {}
        return task_answer(view, sign, status=202, headers=charged)
    if manner.is_stream:
        frames = image_events.Frames(services, sign, operation, intake.fields)
        events = services.images.events(principal, intake, operation=operation)
        return await stream(request, events, frames.frame, headers=image_events.headers)
    view = await services.images.run(principal, intake, operation=operation)
    charged = await _charged(view, services)
    return await _image_answer(
        view, services, _steady(view, services, sign), has_base64=manner.has_base64, headers=charged
    )


def _steady(view: TaskView, services: Services, sign: wire.Sign) -> wire.Sign:
    """Sign so that the first answer and its repeats are alike, byte by byte; later ones bring a fresh link."""
    link_ttl = services.settings.link_ttl
    if view.settled_at is None or utcnow() - view.settled_at > link_ttl * STEADY_PART:
        return sign
    expires = view.settled_at + link_ttl
    return lambda public_id, kind: services.links.sign(public_id, kind, expires)


async def _charged(view: TaskView, services: Services) -> dict[str, str]:
    """Return what it cost and what is left; without the rest when the database has just gone: the image is paid."""
    charged = {"x-credits-charged": str(view.charge or 0)}
    try:
        balance = await services.ledger.balance(view.account_id)
    except DatabaseUnavailable:
        return charged
    return charged | {"x-credits-remaining": str(balance.credits)}


@router.get(
    "/generations/{image_id}",
    summary="Read an image (alias)",
    description="The same as `GET /v1/images/{image_id}`.",
    response_model=wire.ImagesReply,
    responses=READ_ERRORS,
    operation_id="get_generated_image",
)
@router.get(
    "/{image_id}",
    summary="Read an image",
    description="The finished image by its id: the body of the reply that made it. "
    "400 `task_not_ready` while it is being made; a failed task's own error.",
    response_model=wire.ImagesReply,
    responses=READ_ERRORS,
    operation_id="get_image",
)
async def get_image(image_id: ImageId, principal: TasksPrincipal, services: ServicesDep, sign: SignDep) -> Response:
    view = await services.tasks.get(principal, image_id)
    if view.operation.kind != "image":
        raise InvalidParameter(
            f"This task is a {view.operation.task_type}: read it at /v1/videos/{view.public_id}.",
            param="id",
            task_id=view.public_id,
        )
    if not view.is_final:
        raise TaskNotReady("The image is not ready yet.", retry_after_s=2, task_id=view.public_id)
    if view.error is not None:
        raise view.error
    return await _image_answer(view, services, sign, has_base64=True, headers={})


async def _image_answer(
    view: TaskView, services: Services, sign: wire.Sign, *, has_base64: bool, headers: dict[str, str]
) -> Response:
    """Answer with the finished image; its base64 goes from the stored file to the socket in pieces."""
    reply, file = wire.images_reply(view, sign), view.files_of("result")[0]
    path = stored_path(services, file, task_id=view.public_id)
    if has_base64:
        reply["data"][0] = {"b64_json": Base64Of(path, file.size_bytes), **reply["data"][0]}
    return await rendered_answer(render_json(reply), headers=task_headers(view) | headers)
