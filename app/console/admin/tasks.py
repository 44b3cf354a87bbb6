"""All accounts' tasks, for administrators: search, each one's whole story, and what can be put right by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.key_info import find_key_id, key_public_id
from app.accounts.users import account_public_id
from app.console import refusals, shell, tables, wording
from app.console.admin.reading import day
from app.console.admin.timeline_words import ATTEMPT_STATES, FAULTS, REASONS, words_of
from app.console.user.tasks import TYPES
from app.console.visitor import AdminVisitor, ConsoleRoute, Form, FormDep, Visitor, blank, go, once
from app.console.wording import _
from app.errors import AccountNotFound, MediagateError
from app.generation.repairs import End
from app.tasks.queries import FINAL, PUBLIC_STATUS, FoundPage, FoundTask, TaskSearch
from app.values import find_task_id, task_public_id

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

TASKS = "/console/admin/tasks"
OPEN = "open"
"""A filter: every state of a task that has not ended."""
REQUEST = "req_"
"""How request ids begin."""
MICROS = Decimal(1_000_000)
COLUMNS: Mapping[str, Callable[[FoundTask], object]] = {
    "id": lambda task: task.public_id,
    "account": lambda task: account_public_id(task.account_id),
    "email": lambda task: task.email,
    "key": lambda task: key_public_id(task.key_id),
    "type": lambda task: task.operation.task_type,
    "model": lambda task: task.model,
    "pool": lambda task: task.pool,
    "state": lambda task: task.status,
    "hold": lambda task: task.hold,
    "charge": lambda task: task.charge,
    "reason": lambda task: task.error_code,
    "upstream_id": lambda task: task.upstream_id,
    "attempts": lambda task: task.attempts,
    "created_at": lambda task: task.created_at,
    "started_at": lambda task: task.started_at,
    "ended_at": lambda task: task.settled_at,
}


@router.get(TASKS)
async def task_search(visitor: AdminVisitor) -> Response:
    request, queries = visitor.request, visitor.services.queries
    wanted = await _wanted(visitor)
    if wanted is None:
        page = FoundPage((), has_more=False)
    elif tables.wants_csv(request):

        async def read(after: UUID | None) -> tuple[Sequence[FoundTask], UUID | None]:
            part = await queries.search(replace(wanted, after=after, limit=tables.CSV_PAGE_ROWS))
            return part.items, part.last if part.has_more else None

        return await tables.csv_pages("tasks.csv", COLUMNS, tables.by_parts(read))
    else:
        after = find_task_id(tables.query(request, "after") or "")
        page = await queries.search(replace(wanted, after=after))
    last = None if page.last is None else task_public_id(page.last)
    return visitor.page(
        "admin/tasks.html",
        nav=TASKS,
        rows=page.items,
        every_state=[(OPEN, _("Not ended")), *((state, wording.STATES[state][0]) for state in PUBLIC_STATUS)],
        reasons=REASONS,
        upstreams=[account.name for account in await visitor.services.book.upstreams.list()],
        types=wording.OPERATIONS,
        models=sorted(visitor.services.catalog.models),
        query=lambda name: tables.query(request, name),
        paging=tables.Paging.of(request, has_more=page.has_more, last=last),
        is_filtered=tables.is_filtered(request),
    )


async def _wanted(visitor: Visitor) -> TaskSearch | None:
    """Return what the address asks for; None for an account that does not exist, or an id that is none."""
    request = visitor.request
    state, kind, q = (tables.query(request, name) for name in ("state", "type", "q"))
    account, account_id = tables.query(request, "account", most=254), None
    if account is not None:
        try:
            account_id = (await visitor.services.accounts.get(account)).id
        except AccountNotFound:
            return None
    wanted = TaskSearch(
        statuses=_statuses(state),
        model=tables.query(request, "model"),
        operations=TYPES.get(kind or ""),
        account_id=account_id,
        key_id=find_key_id(tables.query(request, "key") or ""),
        upstream=tables.query(request, "upstream"),
        reason=tables.query(request, "reason"),
        since=day(request, "from"),
        until=day(request, "to", whole=True),
        limit=tables.PAGE_ROWS,
    )
    if q is None:
        return wanted
    if (task_id := find_task_id(q)) is not None:
        return replace(wanted, only=task_id)
    if q.startswith(REQUEST):
        return replace(wanted, request_id=q)
    return replace(wanted, upstream_id=q)


def _statuses(state: str | None) -> list[str] | None:
    if state == OPEN:
        return [one for one in PUBLIC_STATUS if one not in FINAL]
    return [state] if state in PUBLIC_STATUS else None


@router.get(TASKS + "/{task_id}")
async def task_page(visitor: AdminVisitor, task_id: str) -> Response:
    return await _task(visitor, task_id, blank())


async def _task(visitor: Visitor, task_id: str, form: Form, *, wrong: str | None = None, status: int = 200) -> Response:
    """``wrong`` is the dialog whose form could not be done: it is open again, with its words."""
    timeline = await visitor.services.timelines.get(task_id)
    task, texts = timeline.task, shell.texts_of(visitor.request)
    return visitor.page(
        "admin/task.html",
        status=status,
        nav=TASKS,
        timeline=timeline,
        task=task,
        events=timeline.events(),
        words_of=partial(words_of, gettext=visitor.gettext),
        attempt_states=ATTEMPT_STATES,
        faults=FAULTS,
        reasons=REASONS,
        error_text=None if task.error is None else refusals.of_error(task.error, texts),
        error_foreign=None if task.error is None else refusals.foreign(task.error, texts),
        elapsed=lambda at: max((at - task.created_at).total_seconds(), 0.0),
        account=account_public_id(task.account_id),
        key=key_public_id(task.key_id),
        refundable=(task.charge or 0) - timeline.refunded,
        money=_money,
        form=form,
        wrong=wrong,
        operation=wording.OPERATIONS.get(task.operation.value, task.operation.value),
        kinds=wording.KINDS,
    )


def _money(micros: int | None, currency: str | None) -> str:
    """Write what an upstream took: 0.042 USD."""
    return "" if micros is None else f"{(Decimal(micros) / MICROS).normalize():f} {currency or ''}".strip()


@router.post(TASKS + "/{task_id}/cancel")
async def cancel(visitor: AdminVisitor, task_id: str, form: FormDep) -> Response:
    async def work() -> None:
        await visitor.services.repairs.cancel(task_id, reason=form.text("reason"), actor=visitor.actor)

    return await _repair(visitor, task_id, form, work, "cancelled", dialog="cancel")


@router.post(TASKS + "/{task_id}/resolve")
async def resolve(visitor: AdminVisitor, task_id: str, form: FormDep) -> Response:
    async def work() -> None:
        end: End = "cancelled" if form.text("end") == "cancelled" else "failed"
        await visitor.services.repairs.resolve(task_id, end=end, reason=form.text("reason"), actor=visitor.actor)

    return await _repair(visitor, task_id, form, work, "resolved", dialog="resolve")


@router.post(TASKS + "/{task_id}/refund")
async def refund(visitor: AdminVisitor, task_id: str, form: FormDep) -> Response:
    async def work() -> None:
        await visitor.services.repairs.refund(
            task_id,
            reason=form.text("reason"),
            actor=visitor.actor,
            credits=form.number("credits"),
            reference=form.id,
            left=form.needed("left"),
        )

    return await _repair(visitor, task_id, form, work, "refunded", dialog="refund")


async def _repair(
    visitor: Visitor,
    task_id: str,
    form: Form,
    work: Callable[[], Awaitable[None]],
    done: str,
    *,
    dialog: str,
) -> Response:
    """Do it once, and show the task again: as it is now, or with what is wrong."""
    back = f"{TASKS}/{task_id}"
    try:
        async with once(visitor, form, back=back):
            await work()
    except MediagateError as error:
        if error.status == 404:
            raise
        form.refuse(visitor.request, error)
        return await _task(visitor, task_id, form, wrong=dialog, status=error.status)
    return go(visitor.request, back, done=done)
