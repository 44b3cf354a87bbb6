"""``mediagate routes``: which upstream serves a public model, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from app.cli.books import by_whom, options_option, route_shown, with_routes
from app.cli.output import emit, json_option, table

if TYPE_CHECKING:
    from app.catalog.routes import RouteInfo, RouteRows

OPERATIONS = ("image.generate", "image.edit", "video.generate", "video.edit", "video.remix")
BRIEF = ("id", "model", "upstream", "upstream_model", "priority", "weight", "enabled", "needs_permission", "operations")

operations_option = click.option(
    "--operation",
    "operations",
    multiple=True,
    type=click.Choice(OPERATIONS),
    help="Only this; repeatable. All without.",
)


@click.group()
def routes() -> None:
    """List and change routes. ROUTE is an id (route_12), or a model with a TARGET: upstream or upstream/its-model."""


@routes.command("list")
@click.argument("model", required=False)
@json_option
def list_routes(model: str | None, as_json: bool) -> None:
    """List the routes of a model, or of all, in the order they are tried."""

    async def work(routes: RouteRows) -> list[dict[str, Any]]:
        return [route_shown(route) for route in await routes.list(model)]

    rows = with_routes(work)
    brief = [{name: row[name] for name in BRIEF} for row in rows]
    emit(rows, as_json=as_json, text=table(brief, empty="No such routes."))


@routes.command()
@click.argument("model")
@click.argument("upstream")
@click.argument("upstream_model")
@click.option("--priority", type=click.IntRange(min=0), default=0, show_default=True, help="Lower goes first.")
@click.option(
    "--weight", type=click.IntRange(min=1), default=1, show_default=True, help="Share among equal priorities."
)
@click.option("--needs-permission", is_flag=True, help="Costlier: only for requests with official_fallback.")
@click.option("--disabled", is_flag=True, help="Add it without using it yet.")
@operations_option
@options_option
@json_option
def add(
    model: str,
    upstream: str,
    upstream_model: str,
    priority: int,
    weight: int,
    needs_permission: bool,
    disabled: bool,
    operations: tuple[str, ...],
    options: dict[str, Any],
    as_json: bool,
) -> None:
    """Let UPSTREAM serve MODEL with its own model UPSTREAM_MODEL."""

    async def work(routes: RouteRows) -> RouteInfo:
        from app.requests import Operation

        return await routes.add(
            model,
            upstream,
            upstream_model,
            priority=priority,
            weight=weight,
            is_enabled=not disabled,
            needs_permission=needs_permission,
            operations=[Operation(word) for word in operations] or None,
            options=options,
            actor=by_whom(),
        )

    _say(with_routes(work), as_json)


@routes.command("set")
@click.argument("route")
@click.argument("target", required=False)
@click.option("--priority", type=click.IntRange(min=0))
@click.option("--weight", type=click.IntRange(min=1))
@click.option("--needs-permission/--no-permission", default=None, help="Whether it needs official_fallback.")
@operations_option
@click.option("--all-operations", is_flag=True, help="All that the model does.")
@options_option
@json_option
def set_fields(
    route: str,
    target: str | None,
    priority: int | None,
    weight: int | None,
    needs_permission: bool | None,
    operations: tuple[str, ...],
    all_operations: bool,
    options: dict[str, Any],
    as_json: bool,
) -> None:
    """Change a route. Options that are named are replaced (null removes one), others stay."""

    async def work(routes: RouteRows) -> RouteInfo:
        from app.catalog.rows import KEEP
        from app.requests import Operation

        found = await routes.find(route, target)
        merged = {**found.entry.options, **options}
        wanted = None if all_operations else [Operation(word) for word in operations]
        return await routes.update(
            found.id,
            priority=KEEP if priority is None else priority,
            weight=KEEP if weight is None else weight,
            needs_permission=KEEP if needs_permission is None else needs_permission,
            operations=wanted if operations or all_operations else KEEP,
            options={name: value for name, value in merged.items() if value is not None} if options else KEEP,
            actor=by_whom(),
        )

    _say(with_routes(work), as_json)


@routes.command()
@click.argument("route")
@click.argument("target", required=False)
@json_option
def enable(route: str, target: str | None, as_json: bool) -> None:
    """Use a route again."""
    _set_enabled(route, target, True, as_json)


@routes.command()
@click.argument("route")
@click.argument("target", required=False)
@json_option
def disable(route: str, target: str | None, as_json: bool) -> None:
    """Use a route for no new task, for now."""
    _set_enabled(route, target, False, as_json)


@routes.command()
@click.argument("route")
@click.argument("target", required=False)
@json_option
def remove(route: str, target: str | None, as_json: bool) -> None:
    """Remove a route; running tasks go on, and the file does not bring it back."""

    async def work(routes: RouteRows) -> RouteInfo:
        found = await routes.find(route, target)
        return await routes.remove(found.id, actor=by_whom())

    removed = with_routes(work)
    text = f"{removed.public_id} is removed: {removed.entry.model} -> {removed.entry.pool}"
    emit(route_shown(removed), as_json=as_json, text=text)


def _set_enabled(route: str, target: str | None, is_enabled: bool, as_json: bool) -> None:
    async def work(routes: RouteRows) -> RouteInfo:
        found = await routes.find(route, target)
        return await routes.update(found.id, is_enabled=is_enabled, actor=by_whom())

    _say(with_routes(work), as_json)


def _say(route: RouteInfo, as_json: bool) -> None:
    value = route_shown(route)
    emit(value, as_json=as_json, text=table([{name: value[name] for name in BRIEF}], empty=""))
