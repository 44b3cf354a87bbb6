"""Videos: submitted and polled, in our form and in OpenAI's; both make the same tasks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from app.api.deps import FilesPrincipal, IntakeDep, ServicesDep, SignDep, TasksPrincipal, VideosPrincipal, require_write
from app.api.openapi import (
    BINARY,
    FILE_HEADERS,
    POLL_HEADERS,
    REPEATABLE,
    REPLAYED,
    TASK_HEADERS,
    errors,
    form_or_json_body,
    json_body,
)
from app.api.v1 import schemas, wire
from app.api.v1.answers import json_answer, poll_headers, task_answer, task_headers, video_answer
from app.api.v1.files import send_file
from app.errors import (
    AccountSuspended,
    BodyTooLarge,
    ContentPolicyViolation,
    DatabaseUnavailable,
    IdempotencyKeyReused,
    InputUrlRefused,
    InputUrlUnreachable,
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
    RangeNotSatisfiable,
    ResultExpired,
    ResultUnavailable,
    RouteNotFound,
    ScopeMissing,
    TaskNotFound,
    TaskNotReady,
    TooManyTasks,
    UnsupportedMediaType,
    UnsupportedParameter,
)
from app.requests import Operation
from app.tasks.queries import TaskFilter

router = APIRouter(prefix="/v1/videos", tags=["Videos"])

VideoId = Annotated[str, Path(description="The id of a video task, whichever route made it.")]
VIDEO_OPERATIONS = tuple(operation for operation in Operation if operation.kind == "video")

SUBMIT_ERRORS = (
    InvalidParameter, MissingParameter, UnsupportedParameter, IdempotencyKeyReused, InvalidMedia, InputUrlRefused,
    InputUrlUnreachable, PriceAboveMax, InsufficientCredits, KeyBudgetExhausted, ModelNotAllowed, ScopeMissing,
    IpNotAllowed, AccountSuspended, ModelNotFound, BodyTooLarge, UnsupportedMediaType, TooManyTasks, QueueFull,
    ProviderUnavailable, Overloaded, DatabaseUnavailable, ResultExpired,
)  # fmt: skip
READ_ERRORS = errors(InvalidParameter, ScopeMissing, TaskNotFound, DatabaseUnavailable)
TASK_REPLY: dict[int | str, dict[str, Any]] = {200: {"headers": TASK_HEADERS}}
MADE: dict[int | str, dict[str, Any]] = {200: {"headers": TASK_HEADERS | REPLAYED}, **errors(*SUBMIT_ERRORS)}


@router.post(
    "/generations",
    summary="Make a video",
    description="Answers at once with the queued task; poll `GET /v1/tasks/{id}`. Everything is checked before "
    "a credit is held.",
    response_model=wire.Task,
    responses=MADE,
    openapi_extra=json_body("VideoGeneration", examples=schemas.VIDEO_EXAMPLES) | REPEATABLE,
    operation_id="create_video_task",
)
async def create_video_task(
    request: Request, principal: VideosPrincipal, intake: IntakeDep, services: ServicesDep, sign: SignDep
) -> Response:
    view = await services.videos.submit(principal, intake)
    return task_answer(view, sign)


@router.post("/edits", include_in_schema=False)
@router.post("/extensions", include_in_schema=False)
@router.post("/characters", include_in_schema=False)
@router.get("/characters/{character_id}", include_in_schema=False)
async def refuse_unbuilt(request: Request, principal: VideosPrincipal) -> Response:
    raise RouteNotFound(
        f"{request.url.path} is not built yet. To change a video send it as 'video_url' to /v1/videos/generations, "
        "to extend one use /v1/videos/{id}/remix."
    )


@router.post(
    "",
    summary="Make a video (OpenAI)",
    description="OpenAI's form: `seconds` is the duration, `size` gives resolution and aspect ratio, `input_reference` "
    "is the first frame. Every field of `/v1/videos/generations` works too.",
    response_model=wire.Video,
    responses=MADE,
    openapi_extra=form_or_json_body("OpenAIVideoForm", "OpenAIVideo", examples=schemas.OPENAI_VIDEO_EXAMPLES)
    | REPEATABLE,
    operation_id="create_video",
)
async def create_video(
    request: Request, principal: VideosPrincipal, intake: IntakeDep, services: ServicesDep, sign: SignDep
) -> Response:
    view = await services.videos.submit(principal, intake)
    return video_answer(view, sign)


@router.get(
    "",
    summary="List videos",
    description="Newest first. Send `last_id` as `after` for the next page.",
    response_model=wire.VideoList,
    responses=READ_ERRORS,
    operation_id="list_videos",
)
async def list_videos(
    principal: TasksPrincipal,
    services: ServicesDep,
    sign: SignDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    wanted = TaskFilter(operations=VIDEO_OPERATIONS, limit=limit, ascending=order == "asc")
    page = await services.tasks.page(principal, wanted, after=after)
    videos = [wire.Video.of(view, sign) for view in page.items]
    return json_answer(wire.VideoList(data=videos, has_more=page.has_more, **wire.page_ends(page)))


@router.get(
    "/{video_id}",
    summary="Read a video",
    description="A failed one is a 200 with `status: failed`. `seconds` is a string, as in OpenAI's API.",
    response_model=wire.Video,
    responses={200: {"headers": POLL_HEADERS}, **READ_ERRORS},
    operation_id="get_video",
)
async def get_video(video_id: VideoId, principal: TasksPrincipal, services: ServicesDep, sign: SignDep) -> Response:
    return video_answer(await services.tasks.get(principal, video_id), sign)


@router.delete(
    "/{video_id}",
    summary="Delete a video",
    description="Cancels it first when it is not finished. Afterwards its id is unknown; the ledger keeps its line.",
    response_model=wire.Deleted,
    responses=TASK_REPLY | READ_ERRORS,
    operation_id="delete_video",
)
async def delete_video(
    video_id: VideoId, request: Request, principal: VideosPrincipal, services: ServicesDep
) -> Response:
    require_write(request, principal, await services.tasks.get(principal, video_id))
    view = await services.tasks.delete(principal, video_id)
    return json_answer(wire.Deleted(id=view.public_id, object="video.deleted"), headers=task_headers(view))


@router.get(
    "/{video_id}/content",
    summary="Download a video",
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": BINARY, "headers": FILE_HEADERS},
        206: {"description": "One range of it.", "content": BINARY, "headers": FILE_HEADERS},
        304: {"description": "Unchanged."},
        **errors(
            InvalidParameter, TaskNotReady, ContentPolicyViolation, ScopeMissing, TaskNotFound, ResultExpired,
            RangeNotSatisfiable, ResultUnavailable,
        ),
    },
    operation_id="download_video",
)  # fmt: skip
async def download_video(
    video_id: VideoId,
    request: Request,
    principal: FilesPrincipal,
    services: ServicesDep,
    variant: Literal["video", "thumbnail"] = "video",
) -> Response:
    file = await services.tasks.file(principal, video_id, variant)
    return send_file(request, services, file, task_id=video_id)


@router.post(
    "/{video_id}/remix",
    summary="Extend a video",
    description="The source must be the caller's, finished, and of a family that can be remixed. The answer is the "
    "task and an OpenAI Video in one.",
    responses={
        200: {"model": wire.RemixedVideo, "headers": TASK_HEADERS | REPLAYED},
        **errors(*SUBMIT_ERRORS, TaskNotReady, TaskNotFound, ResultExpired),
    },
    openapi_extra=json_body("VideoRemix", examples=schemas.REMIX_EXAMPLES) | REPEATABLE,
    operation_id="remix_video",
)
async def remix_video(
    video_id: VideoId,
    request: Request,
    principal: VideosPrincipal,
    intake: IntakeDep,
    services: ServicesDep,
    sign: SignDep,
) -> Response:
    view = await services.videos.remix(principal, video_id, intake)
    return JSONResponse(wire.remixed(view, sign), headers=poll_headers(view))
