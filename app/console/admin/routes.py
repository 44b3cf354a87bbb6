"""Routes, for administrators: which upstream serves a public model, in which order, and with which share."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.catalog.routes import RouteInfo, find_route_id
from app.catalog.rows import KEEP
from app.console import tables, wording
from app.console.admin.health import route_lines
from app.console.admin.upstreams import UPSTREAMS, options_of, shown_options
from app.console.visitor import (
    AdminVisitor,
    ConsoleRoute,
    Form,
    FormDep,
    Visitor,
    blank,
    changed,
    go,
    once,
    refused,
    showing,
)
from app.errors import InvalidParameter, MediagateError, ModelRouteNotFound
from app.requests import Operation

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

ROUTES = "/console/admin/routes"


@router.get(f"{ROUTES}/new")
async def new_route(visitor: AdminVisitor) -> Response:
    request = visitor.request
    form = blank(
        model=tables.query(request, "model"),
        upstream=tables.query(request, "upstream"),
        priority=0,
        weight=1,
        enabled="on",
        options="{}",
    )
    return await _new_page(visitor, form)


async def _new_page(visitor: Visitor, form: Form, *, status: int = 200) -> Response:
    accounts = await visitor.services.book.upstreams.list()
    return visitor.page(
        "admin/route_new.html",
        status=status,
        nav=UPSTREAMS,
        form=form,
        accounts=[account.name for account in accounts if account.state != "deleted"],
        models=sorted(visitor.services.catalog.models),
        operations=wording.OPERATIONS,
    )


@router.post(f"{ROUTES}/new")
async def create_route(visitor: AdminVisitor, form: FormDep) -> Response:
    try:
        options, operations = options_of(form), _operations(form)
        priority, weight = form.needed("priority"), form.needed("weight")
        async with once(visitor, form, back=UPSTREAMS) as sending:
            made = await visitor.services.book.routes.add(
                form.text("model"),
                form.text("upstream"),
                form.text("upstream_model"),
                priority=priority,
                weight=weight,
                is_enabled=form.is_on("enabled"),
                needs_permission=form.is_on("needs_permission"),
                operations=operations,
                options=options,
                actor=visitor.actor,
            )
            sending.made = f"{ROUTES}/{made.public_id}"
    except MediagateError as error:
        return await _new_page(visitor, form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, f"{ROUTES}/{made.public_id}", done="created")


def _operations(form: Form) -> list[Operation] | None:
    """Return the operations that are ticked; None, so all of the model's, when none is. Raises: InvalidParameter."""
    try:
        return [Operation(name) for name in form.all("operations")] or None
    except ValueError:
        allowed = ", ".join(operation.value for operation in Operation)
        raise InvalidParameter(f"'operations' must be some of: {allowed}.", param="operations") from None


# --- one of them ----------------------------------------------------------------------------------------------------


async def _route(visitor: Visitor, public_id: str) -> RouteInfo:
    """Raises: ModelRouteNotFound."""
    number = find_route_id(public_id)
    if number is None:
        raise ModelRouteNotFound(public_id)
    return await visitor.services.book.routes.get(number)


@router.get(ROUTES + "/{route_id}")
async def route_page(visitor: AdminVisitor, route_id: str) -> Response:
    route = await _route(visitor, route_id)
    return await _page(visitor, route, _form_of(route))


def _form_of(route: RouteInfo) -> Form:
    entry = route.entry
    form = blank(priority=entry.priority, weight=entry.weight, options=shown_options(dict(entry.options)))
    form.fields["enabled"] = ["on"] if entry.is_enabled else []
    form.fields["needs_permission"] = ["on"] if entry.needs_permission else []
    form.fields["operations"] = sorted(operation.value for operation in entry.operations or ())
    return showing(form)


async def _page(visitor: Visitor, route: RouteInfo, form: Form, *, status: int = 200) -> Response:
    [line] = await route_lines(visitor, [route])
    return visitor.page(
        "admin/route.html",
        status=status,
        nav=UPSTREAMS,
        route=route,
        line=line,
        form=form,
        operations=wording.OPERATIONS,
    )


@router.post(ROUTES + "/{route_id}")
async def update_route(visitor: AdminVisitor, route_id: str, form: FormDep) -> Response:
    route = await _route(visitor, route_id)
    try:
        wanted = changed(form, _form_of(route))
        await visitor.services.book.routes.update(
            route.id,
            priority=form.needed("priority") if "priority" in wanted else KEEP,
            weight=form.needed("weight") if "weight" in wanted else KEEP,
            is_enabled=form.is_on("enabled") if "enabled" in wanted else KEEP,
            needs_permission=form.is_on("needs_permission") if "needs_permission" in wanted else KEEP,
            operations=_operations(form) if "operations" in wanted else KEEP,
            options=options_of(form) if "options" in wanted else KEEP,
            actor=visitor.actor,
        )
    except MediagateError as error:
        form = refused(visitor, form, _form_of(route), error)
        return await _page(visitor, route, form, status=error.status)
    return go(visitor.request, f"{ROUTES}/{route_id}", done="saved")


@router.post(ROUTES + "/{route_id}/delete")
async def delete_route(visitor: AdminVisitor, route_id: str, form: FormDep) -> Response:
    route = await _route(visitor, route_id)
    await visitor.services.book.routes.remove(route.id, actor=visitor.actor)
    return go(visitor.request, UPSTREAMS, done="deleted")
