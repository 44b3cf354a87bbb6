"""``mediagate tasks``: what runs, and what became of it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from app.cli.books import by_whom
from app.cli.output import emit, json_option, readable, table
from app.cli.session import NEGATIVE, Refused, with_database, with_services
from app.errors import TaskNotFound
from app.values import MAX_CREDITS, find_task_id

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.generation.repairs import End, Refund
    from app.generation.timeline import Timeline
    from app.settings import Settings
    from app.tasks.queries import FoundTask, TaskView
    from app.wiring import Services

T = TypeVar("T")

STATUSES = ("queued", "in_progress", "completed", "failed", "cancelled")
TABLES = ("files", "attempts", "ledger", "actions", "webhooks", "events")
ATTEMPT_COLUMNS = (
    "attempt_no", "provider", "pool", "state", "fault", "http_status", "upstream_id", "cost_micros", "cost_currency",
    "sent_at", "resolved_at", "late_at", "error",
)  # fmt: skip
TYPES = ("image.generation", "image.edit", "video.generation", "video.edit", "video.remix")


@click.group()
def tasks() -> None:
    """Find, show, cancel, resolve and refund tasks of all accounts. ID is a task's public id, as in task_0..."""


@tasks.command("list")
@click.option("--email", help="Of this account only; acct_12 works too.")
@click.option("--key", help="Asked for with this key, as in key_7.")
@click.option("--status", type=click.Choice(STATUSES), multiple=True)
@click.option("--model")
@click.option("--type", "kind", type=click.Choice(TYPES), multiple=True)
@click.option("--pool", help="Upstream account / its own model id.")
@click.option("--upstream", help="Upstream account.")
@click.option("--upstream-id", help="The upstream's id for the job.")
@click.option("--client-token", help="What we told the upstream to call it.")
@click.option("--error", "reason", help="Failed for this reason, such as upstream_error.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--after", help="Older than this task.")
@json_option
def list_tasks(
    email: str | None,
    key: str | None,
    status: tuple[str, ...],
    model: str | None,
    kind: tuple[str, ...],
    pool: str | None,
    upstream: str | None,
    upstream_id: str | None,
    client_token: str | None,
    reason: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List tasks, newest first; deleted ones too."""
    after_id = None if after is None else _task_id(after)

    async def work(_: Settings, engine: AsyncEngine) -> list[dict[str, Any]]:
        from app.accounts.key_info import parse_key_id
        from app.accounts.users import Accounts
        from app.requests import Operation
        from app.tasks.queries import PUBLIC_STATUS, TaskQueries, TaskSearch

        wanted = TaskSearch(
            statuses=[state for state, public in PUBLIC_STATUS.items() if public in status] or None,
            model=model,
            operations=[operation for operation in Operation if operation.task_type in kind] or None,
            account_id=None if email is None else (await Accounts(engine).get(email)).id,
            key_id=None if key is None else parse_key_id(key),
            pool=pool,
            upstream=upstream,
            upstream_id=upstream_id,
            client_token=client_token,
            reason=reason,
            after=after_id,
            limit=limit,
        )
        return [_found(task) for task in await TaskQueries(engine).search_all(wanted)]

    rows = with_database(work)
    emit(rows, as_json=as_json, text=table(rows, empty="No such tasks."))


@tasks.command()
@click.argument("task_id", metavar="ID")
@json_option
def show(task_id: str, as_json: bool) -> None:
    """Show a task's whole story: states, attempts at upstreams, credits, webhooks, and what was done by hand."""
    _task_id(task_id)

    async def work(_: Settings, engine: AsyncEngine) -> Timeline:
        from app.generation.timeline import Timelines
        from app.tasks.queries import TaskQueries

        return await Timelines(engine, TaskQueries(engine)).get(task_id)

    line = _known(lambda: with_database(work), task_id)
    emit(_shown(line), as_json=as_json, text=_page(line))


@tasks.command()
@click.argument("task_id", metavar="ID")
@click.option("--reason", default="cancelled on the command line", help="Kept in the audit.")
@json_option
def cancel(task_id: str, reason: str, as_json: bool) -> None:
    """Cancel a task: free while it is queued, best effort once submitted. Exit code 1 when it had ended already."""

    async def work(services: Services) -> bool:
        return await services.repairs.cancel(task_id, reason=reason, actor=by_whom())

    line, was_open = _repaired(task_id, work)
    status = line.task.public_status
    text = f"{task_id} is {status}" if was_open else f"{task_id} had ended already: {status}"
    if was_open and not line.task.is_final:
        text += "; the cancellation is asked for"
    emit(_brief(line.task), as_json=as_json, text=text)
    if not was_open:
        sys.exit(NEGATIVE)


@tasks.command()
@click.argument("task_id", metavar="ID")
@click.option("--reason", required=True, help="Kept in the audit.")
@click.option("--as", "end", type=click.Choice(("failed", "cancelled")), default="failed", show_default=True)
@json_option
def resolve(task_id: str, reason: str, end: End, as_json: bool) -> None:
    """End a stuck task now and release its hold, whatever its upstream does; a result that comes later is lost."""

    async def work(services: Services) -> None:
        await services.repairs.resolve(task_id, end=end, reason=reason, actor=by_whom())

    line, _ = _repaired(task_id, work)
    text = f"{task_id} is {line.task.public_status}; {line.task.hold} credits were released."
    emit(_brief(line.task), as_json=as_json, text=text)


@tasks.command()
@click.argument("task_id", metavar="ID")
@click.option("--reason", required=True, help="Kept in the audit and in the ledger, where the customer reads it.")
@click.option(
    "--credits", "amount", type=click.IntRange(1, MAX_CREDITS), help="Without: all that is left of the charge."
)
@click.option("--ref", help="The same one gives back once; needed for a second refund of the same amount.")
@json_option
def refund(task_id: str, reason: str, amount: int | None, ref: str | None, as_json: bool) -> None:
    """Give captured credits back, never more than the task was charged. The same command again does nothing."""
    _task_id(task_id)

    async def work(services: Services) -> Refund:
        return await services.repairs.refund(task_id, reason=reason, actor=by_whom(), credits=amount, reference=ref)

    made = _known(lambda: with_services(work), task_id)
    text = f"{made.credits} credits were given back for {task_id} (ledger row {made.entry_id})."
    if not made.is_new:
        text = (
            f"{made.credits} credits had been given back already under this reference. --ref NAME makes another refund."
        )
    value = {"task_id": task_id, "credits": made.credits, "reference": made.reference, "ledger_id": made.entry_id}
    emit(value | {"replayed": not made.is_new}, as_json=as_json, text=text)


def _repaired(task_id: str, work: Callable[[Services], Awaitable[T]]) -> tuple[Timeline, T]:
    """Do something to a task with all services; return its story afterwards, and what the work returned."""
    _task_id(task_id)

    async def session(services: Services) -> tuple[Timeline, T]:
        done = await work(services)
        return await services.timelines.get(task_id), done

    return _known(lambda: with_services(session), task_id)


def _known(work: Callable[[], T], task_id: str) -> T:
    """Raises: Refused, for a task that is not there."""
    try:
        return work()
    except TaskNotFound:
        raise Refused(f"no task '{task_id}'") from None


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


def _found(task: FoundTask) -> dict[str, Any]:
    return {
        "id": task.public_id,
        "account": f"acct_{task.account_id}",
        "type": task.operation.task_type,
        "model": task.model,
        "pool": task.pool,
        "status": task.public_status,
        "reason": task.error_code,
        "hold": task.hold,
        "charge": task.charge,
        "created_at": task.created_at,
        "settled_at": task.settled_at,
    }


def _shown(line: Timeline) -> dict[str, Any]:
    """Return all of it for programs."""
    task = line.task
    return _brief(task) | {
        "state": task.status,
        "email": line.email,
        "key": f"key_{task.key_id}",
        "key_name": line.key_name,
        "pool": task.pool,
        "credential": line.credential,
        "upstream_id": task.upstream_id,
        "refunded": line.refunded,
        "lease_owner": line.lease_owner,
        "wake_at": line.wake_at,
        "deadline_at": line.deadline_at,
        "cancel_requested_at": task.cancel_requested_at,
        "delivered_at": line.delivered_at,
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
        "attempts": [asdict(attempt) for attempt in line.attempts],
        "ledger": [asdict(entry) for entry in line.entries],
        "actions": [asdict(action) for action in line.actions],
        "webhooks": [asdict(notice) | {"id": str(notice.id)} for notice in line.notices],
        "events": [asdict(event) for event in line.events()],
    }


def _page(line: Timeline) -> str:
    """Return it as people read it: a line for each fact, then what happened in order, then the tables."""
    value = _shown(line)
    facts = []
    for name, fact in value.items():
        if name == "error" and fact is not None:
            fact = f"{fact['reason']}: {fact['message']}"
        if name not in TABLES:
            facts.append(f"{name.replace('_', ' '):<20}{readable(fact)}")
    happened = [
        f"{event.at:%Y-%m-%d %H:%M:%S}.{event.at.microsecond // 1000:03}Z  {event.what:<18}"
        + "  ".join(part for part in (event.text, f"({event.by})" if event.by else "") if part)
        for event in line.events()
    ]
    attempts = [{name: attempt[name] for name in ATTEMPT_COLUMNS} for attempt in value["attempts"]]
    return "\n".join(
        [
            *facts,
            "",
            *(event.rstrip() for event in happened),
            "",
            table(attempts, empty="Never sent to an upstream."),
            "",
            table(value["files"], empty="No files."),
        ]
    )
