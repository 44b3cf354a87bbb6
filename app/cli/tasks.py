"""``mediagate tasks`` and ``mediagate models``: what runs, and what could."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from app.cli.output import emit, json_option, readable, table
from app.cli.session import NEGATIVE, Refused, explain, with_database, with_services
from app.settings import load_settings
from app.values import find_task_id

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.catalog.load import Catalog
    from app.settings import Settings
    from app.tasks.queries import TaskView
    from app.wiring import Services

STATUSES = ("queued", "in_progress", "completed", "failed", "cancelled")
TYPES = ("image.generation", "image.edit", "video.generation", "video.edit", "video.remix")


@click.group()
def tasks() -> None:
    """List, show and cancel tasks of all accounts. ID is a task's public id, as in task_0..."""


@tasks.command("list")
@click.option("--email", help="Of this account only.")
@click.option("--status", type=click.Choice(STATUSES), multiple=True)
@click.option("--model")
@click.option("--type", "kind", type=click.Choice(TYPES), multiple=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--after", help="Older than this task.")
@json_option
def list_tasks(
    email: str | None,
    status: tuple[str, ...],
    model: str | None,
    kind: tuple[str, ...],
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List tasks, newest first."""
    after_id = None if after is None else _task_id(after)

    async def work(_: Settings, engine: AsyncEngine) -> list[dict[str, Any]]:
        from app.accounts.users import Accounts
        from app.requests import Operation
        from app.tasks.queries import TaskFilter, TaskQueries

        account_id = None if email is None else (await Accounts(engine).get(email)).id
        wanted = TaskFilter(
            statuses=status or None,
            model=model,
            operations=[operation for operation in Operation if operation.task_type in kind] or None,
            after=after_id,
            limit=limit,
        )
        page = await TaskQueries(engine).page(wanted, account_id=account_id)
        return [_brief(task) for task in page.items]

    rows = with_database(work)
    emit(rows, as_json=as_json, text=table(rows, empty="No such tasks."))


@tasks.command()
@click.argument("task_id", metavar="ID")
@json_option
def show(task_id: str, as_json: bool) -> None:
    """Show one task: states, times, hold and charge, and each attempt at an upstream."""
    number = _task_id(task_id)

    async def work(_: Settings, engine: AsyncEngine) -> tuple[TaskView | None, list[dict[str, Any]]]:
        from app.tasks.queries import TaskQueries

        queries = TaskQueries(engine)
        return await queries.find(number), await queries.attempts(number)

    task, attempts = with_database(work)
    if task is None:
        raise Refused(f"no task '{task_id}'")
    value = _brief(task) | {
        "state": task.status,
        "key": f"key_{task.key_id}",
        "pool": task.pool,
        "upstream_id": task.upstream_id,
        "cancel_requested_at": task.cancel_requested_at,
        "deleted_at": task.deleted_at,
        "error": None if task.error is None else {"reason": task.error.reason, "message": task.error.message},
        "files": [
            {
                "role": file.role,
                "state": file.state,
                "mime": file.mime,
                "bytes": file.size_bytes,
                "expires_at": file.expires_at,
            }
            for file in task.files
        ],
        "attempts": attempts,
    }
    emit(value, as_json=as_json, text=_page(value))


@tasks.command()
@click.argument("task_id", metavar="ID")
@json_option
def cancel(task_id: str, as_json: bool) -> None:
    """Cancel a task: free while it is queued, best effort once submitted. Exit code 1 when it had ended already."""
    _task_id(task_id)
    task, had_ended = with_services(lambda services: _cancelled(services, task_id))
    text = f"{task_id} had ended already: {task.public_status}" if had_ended else f"{task_id} is {task.public_status}"
    if not had_ended and not task.is_final:
        text += "; the cancellation is asked for"
    emit(_brief(task), as_json=as_json, text=text)
    if had_ended:
        sys.exit(NEGATIVE)


async def _cancelled(services: Services, public_id: str) -> tuple[TaskView, bool]:
    """Return the task after the cancellation, and whether it had ended before."""
    from app.tasks.queries import TaskQueries

    before = await TaskQueries(services.engine).find(_task_id(public_id))
    if before is None:
        raise Refused(f"no task '{public_id}'")
    return await services.tasks.cancel_any(public_id), before.is_final


@click.group()
def models() -> None:
    """The models this gateway offers."""


@models.command()
@json_option
def check(as_json: bool) -> None:
    """Check config/models.yaml, as the start of the API does, and the routes in the database where there is one.

    Exit code 1 when a route in use does not fit, or a model has none.
    """
    settings = load_settings()
    catalog = open_catalog(settings)
    rows = [
        {
            "id": model.id,
            "type": model.type,
            "operations": sorted(operation.value for operation in model.operations),
            "routes": [f"{route.upstream}/{route.model}" for route in model.routes],
        }
        for model in catalog.models.values()
    ]
    problems, unchecked = _routes_in_use(settings)
    text = table(rows, empty="No models.") + f"\n{len(rows)} models in {settings.config_dir} are in order."
    if problems:
        text += "\nThe routes in use are not:\n" + "\n".join(f"  {problem}" for problem in problems)
    if unchecked:
        text += f"\nThe routes in use were not checked: {unchecked}"
    value = {"version": catalog.version, "models": rows, "problems": problems, "unchecked": unchecked}
    emit(value, as_json=as_json, text=text)
    if problems:
        sys.exit(NEGATIVE)


def _routes_in_use(settings: Settings) -> tuple[list[str], str | None]:
    """Return what is wrong with the database's routes; and why they could not be checked, if so."""
    from app.cli.books import with_routes

    if settings.database_url is None:
        return [], "no database is set"
    try:
        return list(with_routes(lambda routes: routes.problems())), None
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        return [], sentence


def open_catalog(settings: Settings) -> Catalog:
    """Load the catalogue. Raises: CatalogError, naming file and line."""
    from app.catalog.load import load_catalog
    from app.upstreams.registry import discover

    providers = {name: provider.capabilities for name, provider in discover().items()}
    return load_catalog(settings.config_dir, providers=providers)


def _task_id(public_id: str) -> UUID:
    found = find_task_id(public_id)
    if found is None:
        raise Refused(f"'{public_id[:64]}' is not a task's id; they look like task_01k4...")
    return found


def _brief(task: TaskView) -> dict[str, Any]:
    return {
        "id": task.public_id,
        "account": f"acct_{task.account_id}",
        "type": task.operation.task_type,
        "model": task.model,
        "status": task.public_status,
        "progress": task.progress,
        "hold": task.hold,
        "charge": task.charge,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "settled_at": task.settled_at,
    }


def _page(value: Mapping[str, Any]) -> str:
    """Return one task as people read it: a line for each fact, then its files and attempts."""
    lines = []
    for name, fact in value.items():
        if name == "error" and fact is not None:
            fact = f"{fact['reason']}: {fact['message']}"
        if name not in ("files", "attempts"):
            lines.append(f"{name.replace('_', ' '):<20}{readable(fact)}")
    return "\n".join(
        [
            *lines,
            "",
            table(value["files"], empty="No files."),
            "",
            table(value["attempts"], empty="Never sent to an upstream."),
        ]
    )
