"""Tasks: a list that lives while something runs, and each task with its story, its cost, and what can be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.accounts.key_info import find_key_id, key_public_id
from app.api.session import principal_of
from app.console import refusals, shell, tables, wording
from app.console.user import previews, shown
from app.console.user.playground_form import label_of, value_text
from app.console.user.story import story
from app.console.visitor import ConsoleRoute, FormDep, SomeVisitor, Visitor, go
from app.errors import TaskNotFound
from app.requests import Operation
from app.tasks.queries import MOST_AHEAD, StoredFile, TaskFilter, TaskPage, TaskView
from app.values import TASK_PREFIX, task_public_id, utcnow

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

STATUSES = ("queued", "in_progress", "completed", "failed", "cancelled")
TYPES: Mapping[str, tuple[Operation, ...]] = {
    "image": (Operation.IMAGE_GENERATE, Operation.IMAGE_EDIT),
    "video": (Operation.VIDEO_GENERATE, Operation.VIDEO_EDIT, Operation.VIDEO_REMIX),
    **{operation.value: (operation,) for operation in Operation},
}


@router.get("/console/tasks")
async def task_list(visitor: SomeVisitor) -> Response:
    request = visitor.request
    wanted, titles = _filter(request), shown.model_titles(visitor)
    if tables.wants_csv(request):
        return await _csv(visitor, wanted, await shown.key_names(visitor))
    after, is_fragment = tables.query(request, "after"), shell.is_fragment(request)
    page = await _found(visitor, wanted, after)
    # All of them are there to choose from, but on the page alone: what asks every few seconds shows rows.
    keys = await shown.key_names(visitor, [task.key_id for task in page.items] if is_fragment else None)
    rows = shown.rows_of(page.items, titles, keys)
    is_running = any(not task.is_final for task in page.items)
    last = None if page.last is None else task_public_id(page.last)
    return visitor.page(
        "user/tasks_rows.html" if is_fragment else "user/tasks.html",
        nav="/console/tasks",
        rows=rows,
        paging=tables.Paging.of(request, has_more=page.has_more, last=last),
        is_filtered=tables.is_filtered(request),
        every_s=None if after else 3 if is_running else 30,
        statuses=STATUSES,
        models=titles,
        keys={key_public_id(number): name for number, name in keys.items()},
        operations=wording.OPERATIONS,
        days=shown.days_of(request),
    )


def _filter(request: Request) -> TaskFilter:
    status, kind = tables.query(request, "status", STATUSES), tables.query(request, "type", TYPES)
    days = shown.days_of(request)
    return TaskFilter(
        statuses=None if status is None else (status,),
        model=tables.query(request, "model"),
        operations=None if kind is None else TYPES[kind],
        limit=tables.PAGE_ROWS,
        key_id=find_key_id(tables.query(request, "key") or ""),
        since=days.since,
        until=days.until,
    )


async def _found(visitor: Visitor, wanted: TaskFilter, after: str | None) -> TaskPage:
    """Return one page; of a search for an id that task alone, for words those whose prompt has them.

    Raises: InvalidParameter.
    """
    principal, text = principal_of(visitor.session), tables.query(visitor.request, "q")
    if text is not None:
        with suppress(TaskNotFound):
            task = await visitor.services.tasks.get(principal, TASK_PREFIX + text.lower().removeprefix(TASK_PREFIX))
            return TaskPage((task,), has_more=False)
    return await visitor.services.tasks.page(principal, replace(wanted, text=text), after=after)


async def _csv(visitor: Visitor, wanted: TaskFilter, keys: Mapping[int, str]) -> Response:
    async def read(after: str | None) -> tuple[Sequence[TaskView], str | None]:
        page = await _found(visitor, replace(wanted, limit=tables.CSV_PAGE_ROWS), after)
        return page.items, task_public_id(page.last) if page.has_more and page.last is not None else None

    return await tables.csv_pages(
        "tasks.csv",
        {
            "id": lambda task: task.public_id,
            "created_at": lambda task: task.created_at,
            "type": lambda task: task.operation.task_type,
            "model": lambda task: task.model,
            "status": lambda task: task.public_status,
            "credits": lambda task: task.charge or 0,
            "credits_held": lambda task: 0 if task.is_final else task.hold,
            "key": lambda task: key_public_id(task.key_id),
            "key_name": lambda task: keys.get(task.key_id),
            "ended_at": lambda task: task.settled_at,
            "reason": lambda task: task.error.reason if task.error else None,
            "prompt": lambda task: task.request.get("prompt"),
        },
        tables.by_parts(read),
    )


@router.get("/console/tasks/{task_id}")
async def task_page(visitor: SomeVisitor, task_id: str) -> Response:
    services, request = visitor.services, visitor.request
    task = await services.tasks.get(principal_of(visitor.session), task_id)  # theirs, or not found
    timeline = await services.timelines.get(task.public_id)
    task = timeline.task
    keys, now = await shown.key_names(visitor, [task.key_id]), utcnow()
    is_fragment = shell.is_fragment(request)
    ended_now = is_fragment and task.is_final  # nothing asks again: the top bar's balance is to look once more
    return visitor.page(
        "user/task_body.html" if is_fragment else "user/task.html",
        headers={"hx-trigger": "balance"} if ended_now else None,
        nav="/console/tasks",
        task=task,
        row=shown.rows_of([task], shown.model_titles(visitor), keys)[0],
        operations=wording.OPERATIONS,
        lines=story(timeline, shell.texts_of(request)),
        entries=timeline.entries,
        refunded=timeline.refunded,
        ahead=await services.queries.ahead(task.id),
        most_ahead=MOST_AHEAD,
        files=_files(task, now),
        page_picture=shown.page_picture,
        was_removed=task.status == "succeeded" and shown.kept_file(task, "result", now) is None,
        inputs=[(file, _input_picture(task, file, now)) for role in ("input", "mask") for file in task.files_of(role)],
        params=shown.asked(task),
        label_of=partial(label_of, gettext=visitor.gettext),
        value_text=partial(value_text, gettext=visitor.gettext),
        error_text=None if task.error is None else refusals.of_error(task.error, shell.texts_of(request)),
        error_foreign=None if task.error is None else refusals.foreign(task.error, shell.texts_of(request)),
        can_remix=_can_remix(visitor, task, now),
    )


def _files(task: TaskView, now: datetime) -> list[tuple[str, Any, str]]:
    """Return what can be had of a result: its kind, its file, and a name for it on the visitor's disk."""
    found = []
    for role, kind in (("result", task.operation.kind), ("gif", "gif"), ("thumbnail", "thumbnail")):
        file = shown.kept_file(task, role, now)
        if file is not None:
            ending = file.mime.partition("/")[2].replace("jpeg", "jpg").replace("quicktime", "mov")
            found.append((kind, file, f"{task.public_id}{'-thumbnail' if role == 'thumbnail' else ''}.{ending}"))
    return found


def _input_picture(task: TaskView, file: StoredFile, now: datetime) -> str | None:
    is_shown = file.mime.startswith("image/") and file.is_kept(now)
    return previews.address(task, f"input-{file.position}") if is_shown else None


def _can_remix(visitor: Visitor, task: TaskView, now: datetime) -> bool:
    model = visitor.services.catalogs.shown().models.get(task.model)
    is_possible = model is not None and Operation.VIDEO_REMIX in model.operations
    return is_possible and shown.kept_file(task, "result", now) is not None


@router.post("/console/tasks/{task_id}/cancel")
async def cancel(visitor: SomeVisitor, form: FormDep, task_id: str) -> Response:
    task = await visitor.services.tasks.cancel(principal_of(visitor.session), task_id)
    return go(visitor.request, f"/console/tasks/{task.public_id}", done="cancelled")


@router.post("/console/tasks/{task_id}/delete")
async def delete(visitor: SomeVisitor, form: FormDep, task_id: str) -> Response:
    await visitor.services.tasks.delete(principal_of(visitor.session), task_id)
    return go(visitor.request, "/console/tasks", done="deleted")
