"""Tasks: everything a caller asked for, whichever route created it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from app.api.deps import CheckDep, ServicesDep, SignDep, TasksPrincipal, require_write
from app.api.openapi import EVENTS, POLL_HEADERS, TASK_HEADERS, errors
from app.api.v1 import wire
from app.api.v1.answers import json_answer, task_answer, task_headers
from app.api.v1.sse import stream
from app.errors import DatabaseUnavailable, InvalidParameter, ScopeMissing, TaskNotFound
from app.media.base64_stream import Rendered, render_event
from app.requests import Operation
from app.tasks.queries import TaskFilter, TaskView

NAME = r"^[!-~]*$"
"""Printable ASCII: NUL would not even reach the database."""

router = APIRouter(prefix="/v1/tasks", tags=["Tasks"])

TaskId = Annotated[str, Path(description="The id of any task of the account.")]
OPERATION_OF: dict[str, Operation] = {operation.task_type: operation for operation in Operation}
READ_ERRORS = errors(InvalidParameter, ScopeMissing, TaskNotFound, DatabaseUnavailable)
TASK_REPLY: dict[int | str, dict[str, Any]] = {200: {"headers": TASK_HEADERS}}


@router.get(
    "",
    summary="List tasks",
    description="Newest first. Send `last_id` as `after` for the next page. A filter that few tasks match looks back a "
    "part at a time: while `has_more` is true, also with no task, `last_id` goes on from there.",
    response_model=wire.TaskList,
    responses=errors(InvalidParameter, ScopeMissing, DatabaseUnavailable),
    operation_id="list_tasks",
)
async def list_tasks(
    principal: TasksPrincipal,
    services: ServicesDep,
    sign: SignDep,
    status: wire.TaskStatus | None = None,
    model: Annotated[str | None, Query(max_length=200, pattern=NAME)] = None,
    task_type: Annotated[wire.TaskType | None, Query(alias="type")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
) -> Response:
    wanted = TaskFilter(
        statuses=(status,) if status else None,
        model=model,
        operations=(OPERATION_OF[task_type],) if task_type else None,
        limit=limit,
    )
    page = await services.tasks.page(principal, wanted, after=after)
    tasks = [wire.Task.of(view, sign) for view in page.items]
    return json_answer(wire.TaskList(data=tasks, has_more=page.has_more, **wire.page_ends(page)))


@router.get(
    "/{task_id}",
    summary="Read a task",
    description="With `wait` the answer comes as soon as the task has ended, or after so many seconds.",
    response_model=wire.Task,
    responses={200: {"headers": POLL_HEADERS}, **READ_ERRORS},
    operation_id="get_task",
)
async def get_task(
    task_id: TaskId,
    principal: TasksPrincipal,
    services: ServicesDep,
    sign: SignDep,
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds.")] = 0,
) -> Response:
    return task_answer(await services.tasks.wait(principal, task_id, wait), sign)


@router.get(
    "/{task_id}/events",
    summary="Watch a task",
    description='Server-sent events named `task.updated`, `{"type": "task.updated", "task": {...}}`: one at once, '
    "one for each change, the last with the final state. An account watches up to 20 tasks at once; one more is a 429.",
    response_class=Response,
    responses={200: {"content": EVENTS}, **READ_ERRORS},
    operation_id="watch_task",
)
async def watch_task(
    task_id: TaskId,
    request: Request,
    principal: TasksPrincipal,
    services: ServicesDep,
    sign: SignDep,
    check: CheckDep,
) -> Response:
    def frame(view: TaskView) -> Rendered:
        task = wire.Task.of(view, sign).model_dump(mode="json")
        return render_event("task.updated", {"type": "task.updated", "task": task})

    views = services.tasks.changes(principal, task_id, check=check)
    return await stream(request, views, frame, headers=task_headers)


@router.post(
    "/{task_id}/cancel",
    summary="Cancel a task",
    description="Free while it is queued, best effort once an upstream has it, nothing at the end.",
    response_model=wire.Task,
    responses=TASK_REPLY | READ_ERRORS,
    operation_id="cancel_task",
)
async def cancel_task(
    task_id: TaskId, request: Request, principal: TasksPrincipal, services: ServicesDep, sign: SignDep
) -> Response:
    require_write(request, principal, await services.tasks.get(principal, task_id))
    return task_answer(await services.tasks.cancel(principal, task_id), sign)


@router.delete(
    "/{task_id}",
    summary="Delete a task",
    description="Cancels it first when it is not finished; its files are removed. Afterwards its id is unknown; the "
    "ledger keeps its line.",
    response_model=wire.Deleted,
    responses=TASK_REPLY | READ_ERRORS,
    operation_id="delete_task",
)
async def delete_task(task_id: TaskId, request: Request, principal: TasksPrincipal, services: ServicesDep) -> Response:
    require_write(request, principal, await services.tasks.get(principal, task_id))
    view = await services.tasks.delete(principal, task_id)
    return json_answer(wire.Deleted(id=view.public_id, object="task.deleted"), headers=task_headers(view))
