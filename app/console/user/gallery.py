"""The gallery: an account's finished pictures and films, found again, used again, and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.accounts.key_info import key_public_id
from app.api.session import principal_of
from app.console import tables
from app.console.shell import with_query
from app.console.user import previews, shown
from app.console.user.playground import as_task, own_address
from app.console.user.playground_form import FIELDS, VALUES
from app.console.visitor import ConsoleRoute, FormDep, SomeVisitor, Visitor, go
from app.errors import InvalidParameter, TaskNotFound
from app.requests import Operation
from app.tasks.queries import StoredFile, TaskFilter, TaskPage, TaskView
from app.values import task_public_id, utcnow

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

PAGE = "/console/gallery"
TILES = 36
KINDS: Mapping[str, tuple[Operation, ...]] = {
    kind: tuple(operation for operation in Operation if operation.kind == kind) for kind in ("image", "video")
}
FILTERS = ("q", "type", "model", "since", "until")


@router.get(PAGE)
async def gallery(visitor: SomeVisitor) -> Response:
    request = visitor.request
    page = await _page(visitor)
    last = None if page.last is None else task_public_id(page.last)
    return visitor.page(
        "user/gallery.html",
        nav=PAGE,
        tiles=[_tile(view) for view in page.items],
        older=with_query(request, after=last) if page.has_more else None,
        newest=with_query(request, after=None) if "after" in request.query_params else None,
        is_filtered=tables.is_filtered(request),
        models=sorted(visitor.services.catalog.models),
        chosen={name: tables.query(request, name) or "" for name in FILTERS},
        kept=_kept(request),
    )


def _kept(request: Request) -> str:
    """Return the filters as a query: whoever goes from result to result, or back, stays among those that match."""
    chosen = {name: value for name in FILTERS if (value := tables.query(request, name))}
    return f"?{urlencode(chosen)}" if chosen else ""


def _wanted(request: Request) -> TaskFilter:
    """Return what the filters in the address let through. One that makes no sense filters nothing."""
    kind = tables.query(request, "type", KINDS)
    days = shown.days_of(request, "since", "until")
    return TaskFilter(
        statuses=("completed",),
        model=tables.query(request, "model"),
        operations=KINDS[kind] if kind else None,
        since=days.since,
        until=days.until,
        text=tables.query(request, "q"),
        is_kept=True,
        limit=TILES,
    )


async def _page(visitor: Visitor) -> TaskPage:
    request, wanted = visitor.request, _wanted(visitor.request)
    principal = principal_of(visitor.session)
    try:
        return await visitor.services.tasks.page(principal, wanted, after=tables.query(request, "after"))
    except InvalidParameter:  # the last tile of the page before was deleted meanwhile
        return await visitor.services.tasks.page(principal, wanted, after=None)


async def _beside(visitor: Visitor, view: TaskView) -> tuple[str | None, str | None]:
    """Return the results made right after and right before one, as the gallery shows them: to its left and right."""
    wanted, principal = replace(_wanted(visitor.request), limit=1), principal_of(visitor.session)
    newer, older = [
        await visitor.services.tasks.page(principal, replace(wanted, ascending=up), after=view.public_id)
        for up in (True, False)
    ]
    return newer.items[0].public_id if newer.items else None, older.items[0].public_id if older.items else None


def _tile(view: TaskView) -> dict[str, Any]:
    result, poster = view.find_file("result"), view.find_file("thumbnail")
    kind = view.operation.kind
    is_posted = poster is not None and poster.is_kept(utcnow())
    return {
        "id": view.public_id,
        "kind": kind,
        "prompt": view.request.get("prompt", ""),
        "model": view.model,
        "url": own_address(view.public_id, kind),
        "poster": own_address(view.public_id, "thumbnail") if is_posted else None,
        "picture": previews.address(view) if kind == "image" or is_posted else None,
        "width": result.width if result else None,
        "height": result.height if result else None,
        "seconds": (result.duration_ms or 0) / 1000 if result else 0,
        "created_at": view.created_at,
        "expires_at": result.expires_at if result else None,
    }


@router.get(PAGE + "/{task_id}")
async def result(visitor: SomeVisitor, task_id: str) -> Response:
    view, file = await _find(visitor, task_id)
    model = visitor.services.catalog.find_known(view.model)
    is_offered = view.model in visitor.services.catalog.models
    newer, older = await _beside(visitor, view)
    can_remix = is_offered and model is not None and Operation.VIDEO_REMIX in model.operations
    return visitor.page(
        "user/gallery_result.html",
        nav=PAGE,
        view=view,
        task=as_task(view),
        tile=_tile(view),
        file=file,
        picture=shown.page_picture(view, file),
        newer=newer,
        older=older,
        kept=_kept(visitor.request),
        key=(await shown.key_names(visitor, [view.key_id])).get(view.key_id, key_public_id(view.key_id)),
        parameters=_parameters(visitor, view),
        can_remix=can_remix,
        is_offered=is_offered,
    )


@router.post(PAGE + "/{task_id}/delete")
async def delete(visitor: SomeVisitor, task_id: str, form: FormDep) -> Response:
    view, _file = await _find(visitor, task_id)
    await visitor.services.tasks.delete(principal_of(visitor.session), view.public_id)
    return go(visitor.request, PAGE, done="deleted")


async def _find(visitor: Visitor, task_id: str) -> tuple[TaskView, StoredFile]:
    """Return a finished task and its result. Raises: TaskNotFound, also for another account's."""
    view = await visitor.services.tasks.get(principal_of(visitor.session), task_id)
    file = view.find_file("result")
    if view.public_status != "completed" or file is None or not file.is_kept(utcnow()):
        raise TaskNotFound(task_id)
    return view, file


def _parameters(visitor: Visitor, view: TaskView) -> list[tuple[str, str]]:
    """Return what was asked for, with the names the playground uses."""
    params = view.request["params"]
    shape = params.get("crop_ratio") or params.get("ratio")
    asked = shown.asked(view)
    asked.pop("size", None)  # the pixels that came of it; the shape was asked for
    asked = ({"size": shape} if shape else {}) | asked
    gettext = visitor.gettext
    told = []
    for name, value in asked.items():
        label = gettext(FIELDS[name][0]) if name in FIELDS else name
        if isinstance(value, bool):
            text = gettext("Yes") if value else gettext("No")
        else:
            text = gettext(VALUES[value]) if isinstance(value, str) and value in VALUES else str(value)
        told.append((label, text))
    return told
