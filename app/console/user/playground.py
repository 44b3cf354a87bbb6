"""The playground: a form for every model, what it costs, and what became of it. Its scripts call the API itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from app.api.session import principal_of
from app.api.v1 import wire
from app.console import tables
from app.console.user.playground_form import described, inputs_of, values_of
from app.console.visitor import ConsoleRoute, SomeVisitor, Visitor
from app.errors import ModelNotFound, TaskNotFound
from app.requests import Operation
from app.tasks.queries import MOST_AHEAD, TaskFilter, TaskView
from app.upstreams.routing import is_served
from app.values import utcnow

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

PAGE = "/console/playground"
RUNS = 12
"""Shown again after a reload."""
UPLOADS = ("image/png", "image/jpeg", "image/webp")


@router.get(PAGE)
async def playground(visitor: SomeVisitor) -> Response:
    services = visitor.services
    models = list(services.catalog.models.values())
    start = await _start(visitor)
    wanted = tables.query(visitor.request, "model") or start.get("model")
    known = {model.id for model in models}
    runs = await services.queries.page(
        TaskFilter(key_id=visitor.session.key_id, limit=RUNS), account_id=visitor.account_id
    )
    shown = {
        "models": [
            {**described(model, visitor.gettext), "isServed": is_served(services.registry, model.id)}
            for model in models
        ],
        "model": wanted if wanted in known else None,
        "defaultModel": services.catalog.default_image_model,
        "baseUrl": services.settings.base_url,
        "credits": int(visitor.session.credits),
        "isSuspended": visitor.session.state == "suspended",
        "runs": [as_task(view) for view in runs.items],
        "start": start,
        "limits": {"fileBytes": services.settings.upload_file_bytes, "types": UPLOADS},
    }
    return visitor.page("user/playground.html", nav=PAGE, shown=shown, is_empty=not models)


@router.get(PAGE + "/{task_id}/ahead")
async def ahead(visitor: SomeVisitor, task_id: str) -> Response:
    """Say how many tasks wait before a queued one; null when it waits no more."""
    view = await visitor.services.tasks.get(principal_of(visitor.session), task_id)
    count = None if view.is_final else await visitor.services.queries.ahead(view.id)
    is_more = count is not None and count > MOST_AHEAD
    answer = {"ahead": MOST_AHEAD if is_more else count, "isMore": is_more}
    return JSONResponse(answer, headers={"cache-control": "no-store"})


def as_task(view: TaskView) -> dict[str, Any]:
    """Return a task as the API tells it, with addresses that the session opens: they do not run out."""
    task = wire.Task.of(view, own_address).model_dump(mode="json")
    return {**task, "seed": view.request["params"].get("seed"), "request_id": view.request.get("request_id")}


def own_address(public_id: str, kind: str) -> str:
    return f"/api/jobs/{public_id}/{kind}"


async def _start(visitor: Visitor) -> dict[str, Any]:
    """Return what the form begins with: a task to do again (``from``), to use, or to extend (``remix``)."""
    remix, again = tables.query(visitor.request, "remix"), tables.query(visitor.request, "from")
    task_id = remix or again
    if task_id is None:
        return {}
    services = visitor.services
    try:
        view = await services.tasks.get(principal_of(visitor.session), task_id)
        model = services.catalog.get_model(view.model)
    except (TaskNotFound, ModelNotFound):
        return {"isLost": True}
    if view.operation is Operation.VIDEO_REMIX and remix is None:
        return await _again_from_source(visitor, view)
    if remix is not None:
        is_able = view.public_status == "completed" and Operation.VIDEO_REMIX in model.operations
        return {"remix": as_task(view), "model": model.id} if is_able else {"isLost": True}
    if tables.query(visitor.request, "use") == "input":
        return {"use": as_task(view)}

    expires = utcnow() + services.settings.link_ttl

    def address(name: str) -> str:
        link = urlsplit(services.links.sign(view.public_id, f"inputs/{name}", expires))
        return f"{link.path}?{link.query}"

    return {
        "model": model.id,
        "prompt": view.request.get("prompt", ""),
        "values": values_of(view, model),
        "inputs": inputs_of(view, address),
        "hasMask": bool(view.files_of("mask")),
    }


async def _again_from_source(visitor: Visitor, view: TaskView) -> dict[str, Any]:
    """Return the start of another remix of the same source."""
    try:
        source = await visitor.services.tasks.get(principal_of(visitor.session), str(view.request.get("source_task")))
    except TaskNotFound:
        return {"isLost": True}
    return {"remix": as_task(source), "model": view.model, "prompt": view.request.get("prompt", "")}
