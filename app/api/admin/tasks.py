"""Tasks of all accounts, for administrators: find one in trouble, see what became of it, end it, give credits back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.accounts.key_info import parse_key_id
from app.api.admin.bodies import Body, documented, reads
from app.api.admin.deps import AdminActor
from app.api.admin.repeats import REPEATABLE, Repeat, check_one_name, replayed
from app.api.admin.task_wire import AdminTask, AdminTaskDetail, AdminTaskList, RefundReply, TaskState
from app.api.deps import ServicesDep
from app.api.errors import note_task
from app.api.openapi import errors
from app.api.v1.answers import csv_answer, json_answer, wants_csv
from app.api.v1.me import CSV, moment_of
from app.api.v1.tasks import NAME, OPERATION_OF
from app.api.v1.wire import TaskStatus, TaskType
from app.credits.refusals import ReferenceConflict
from app.errors import (
    AccountNotFound,
    BalanceTooHigh,
    DatabaseUnavailable,
    IdempotencyKeyReused,
    InvalidParameter,
    KeyNotFound,
    MissingParameter,
    NothingToRefund,
    ScopeMissing,
    TaskEnded,
    TaskNotFound,
)
from app.generation.repairs import MAX_REFERENCE_CHARS
from app.journal import MAX_REASON_CHARS
from app.spreadsheets import csv_text
from app.tasks.queries import PUBLIC_STATUS, FoundTask, TaskSearch
from app.values import MAX_CREDITS, find_task_id, task_public_id
from app.wiring import Services

router = APIRouter(prefix="/admin/v1/tasks", tags=["Administration"])

MAX_PAGE = 1000
TaskId = Annotated[str, Path(description="The id of any account's task.")]
Text = Query(max_length=200, pattern=NAME)
READ = errors(InvalidParameter, ScopeMissing, AccountNotFound, KeyNotFound, DatabaseUnavailable)
ONE = errors(ScopeMissing, TaskNotFound, DatabaseUnavailable)
WRITE = (InvalidParameter, MissingParameter, ScopeMissing, TaskNotFound, DatabaseUnavailable)
REASON = f"Why, for the audit: 1 to {MAX_REASON_CHARS} printable characters."
COLUMNS = (
    "id", "account", "email", "key", "type", "model", "pool", "status", "state", "attempts", "upstream_id", "hold",
    "charge", "reason", "cancel_requested_at", "created_at", "started_at", "completed_at", "deleted_at",
)  # fmt: skip


class TaskCancel(Body):
    reason: str = Field(description=REASON, examples=["The customer asked by mail."])


class TaskResolve(Body):
    reason: str = Field(description=REASON, examples=["The vendor lost the job."])
    end: Literal["failed", "cancelled"] = Field(
        alias="as", description="Both release the hold. `cancelled` only where a cancellation is possible."
    )


class TaskRefund(Body):
    reason: str = Field(description=f"{REASON} The customer reads it in the ledger.", examples=["The video is black."])
    credits: int | None = Field(
        None, ge=1, le=MAX_CREDITS, description="null: all that is left of the charge.", examples=[10]
    )
    reference: str | None = Field(
        None,
        max_length=MAX_REFERENCE_CHARS,
        description="The same one gives back once. Without it the amount is the reference, so a repeat does nothing.",
    )


@router.get(
    "",
    summary="Search tasks",
    description="Newest first, of all accounts, deleted ones too. Send `last_id` as `after` for the next page. A "
    "filter that few match looks back by parts: while `has_more` is true, also with no task, `last_id` goes on. "
    "`Accept: text/csv` gives a spreadsheet.",
    response_model=AdminTaskList,
    responses=CSV | READ,
    operation_id="search_tasks",
)
async def search_tasks(
    request: Request,
    actor: AdminActor,
    services: ServicesDep,
    status: TaskStatus | None = None,
    state: Annotated[TaskState | None, Query(description="The status in detail.")] = None,
    model: Annotated[str | None, Text] = None,
    task_type: Annotated[TaskType | None, Query(alias="type")] = None,
    account: Annotated[
        str | None, Query(max_length=254, pattern=NAME, description="`acct_12` or an e-mail address.")
    ] = None,
    key: Annotated[str | None, Query(max_length=64, description="`key_7`.")] = None,
    pool: Annotated[str | None, Text] = None,
    upstream: Annotated[str | None, Query(max_length=200, pattern=NAME, description="An account of a pool.")] = None,
    upstream_id: Annotated[
        str | None, Query(max_length=500, pattern=NAME, description="The upstream's id for the job, of any attempt.")
    ] = None,
    client_token: Annotated[str | None, Text] = None,
    reason: Annotated[str | None, Query(max_length=200, pattern=NAME, description="Why it failed.")] = None,
    since: Annotated[str | None, Query(alias="from", examples=["2026-11-01"])] = None,
    until: Annotated[str | None, Query(alias="to", examples=["2026-11-30"])] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
) -> Response:
    wanted = TaskSearch(
        statuses=_states(status, state),
        model=model,
        operations=(OPERATION_OF[task_type],) if task_type else None,
        account_id=None if account is None else (await services.accounts.get(account)).id,
        key_id=None if key is None else parse_key_id(key),
        pool=pool,
        upstream=upstream,
        upstream_id=upstream_id,
        client_token=client_token,
        reason=reason,
        since=moment_of(since, param="from", whole_day=False),
        until=moment_of(until, param="to", whole_day=True),
        after=None if after is None else _after(after),
        limit=limit,
    )
    if wants_csv(request):  # it has no place to say where the next part begins
        return csv_answer(tasks_csv(await services.queries.search_all(wanted)), "tasks.csv")
    page = await services.queries.search(wanted)
    last_id = None if page.last is None else task_public_id(page.last)
    data = [AdminTask.of(task) for task in page.items]
    return json_answer(AdminTaskList(data=data, last_id=last_id, has_more=page.has_more))


@router.get(
    "/{task_id}",
    summary="Read a task's whole story",
    description="Who asked, each attempt at an upstream, each credit, each webhook, and what operators did.",
    response_model=AdminTaskDetail,
    responses=ONE,
    operation_id="get_task_timeline",
)
async def get_task_timeline(actor: AdminActor, services: ServicesDep, task_id: TaskId) -> Response:
    return await _detail(services, task_id)


@router.post(
    "/{task_id}/cancel",
    summary="Cancel anybody's task",
    description="Free while it is queued, best effort once an upstream has it, nothing at the end.",
    response_model=AdminTaskDetail,
    responses=errors(*WRITE),
    operation_id="cancel_any_task",
    openapi_extra=documented(TaskCancel),
)
async def cancel_any_task(
    request: Request,
    actor: AdminActor,
    services: ServicesDep,
    task_id: TaskId,
    body: Annotated[TaskCancel, Depends(reads(TaskCancel))],
) -> Response:
    await services.repairs.cancel(task_id, reason=body.reason, actor=actor)
    note_task(request, task_id)
    return await _detail(services, task_id)


@router.post(
    "/{task_id}/resolve",
    summary="End a stuck task",
    description="Now, whatever its upstream does: the hold is released, and a result that comes later is thrown away.",
    response_model=AdminTaskDetail,
    responses=errors(*WRITE, TaskEnded),
    operation_id="resolve_task",
    openapi_extra=documented(TaskResolve),
)
async def resolve_task(
    request: Request,
    actor: AdminActor,
    services: ServicesDep,
    task_id: TaskId,
    body: Annotated[TaskResolve, Depends(reads(TaskResolve))],
) -> Response:
    await services.repairs.resolve(task_id, end=body.end, reason=body.reason, actor=actor)
    note_task(request, task_id)
    return await _detail(services, task_id)


@router.post(
    "/{task_id}/refund",
    summary="Give captured credits back",
    description="Never more than the task was charged, less what was given back before.",
    response_model=RefundReply,
    responses=errors(*WRITE, NothingToRefund, BalanceTooHigh, ReferenceConflict, IdempotencyKeyReused),
    operation_id="refund_task",
    openapi_extra=documented(TaskRefund) | REPEATABLE,
)
async def refund_task(
    actor: AdminActor,
    services: ServicesDep,
    task_id: TaskId,
    repeat: Repeat,
    body: Annotated[TaskRefund, Depends(reads(TaskRefund))],
) -> Response:
    check_one_name(repeat, body.reference)
    refund = await services.repairs.refund(
        task_id, reason=body.reason, actor=actor, credits=body.credits, reference=body.reference, repeat=repeat
    )
    return json_answer(RefundReply.of(task_id, refund), headers=replayed(repeat, is_new=refund.is_new))


async def _detail(services: Services, task_id: str) -> Response:
    return json_answer(AdminTaskDetail.of(await services.timelines.get(task_id)), headers={"x-task-id": task_id})


def _states(status: str | None, state: str | None) -> list[str] | None:
    """Return the internal states that are meant by both words together."""
    if status is None and state is None:
        return None
    return [name for name, public in PUBLIC_STATUS.items() if status in (None, public) and state in (None, name)]


def _after(text: str) -> Any:
    """Raises: InvalidParameter."""
    found = find_task_id(text)
    if found is None:
        raise InvalidParameter("'after' must be the id of a task.", param="after")
    return found


def tasks_csv(found: Iterable[FoundTask]) -> str:
    """Return lines with a header, as a spreadsheet reads them."""
    lines = (AdminTask.of(task) for task in found)
    return csv_text(COLUMNS, ([getattr(line, name) for name in COLUMNS] for line in lines))
