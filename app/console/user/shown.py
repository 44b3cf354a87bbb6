"""What the pages about tasks and credits share: a task as a row, the names of keys and models, a range of days."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fastapi import Request

from app.accounts.key_info import key_public_id
from app.api.session import principal_of
from app.console import tables
from app.console.user import previews
from app.console.visitor import Visitor
from app.tasks.queries import StoredFile, TaskFilter, TaskView
from app.values import utcnow

OPEN = ("queued", "in_progress")
WHOLE_BYTES = 4 * 1024 * 1024
"""On its own page a larger picture is shown small too: opened or saved it is whole."""
YEARS = range(2000, 2200)


INTERNAL = frozenset({"hints", "ratio", "width", "height", "crop_width", "crop_height", "crop_ratio"})
"""Of a task's parameters: what the size became, not what was asked for."""


@dataclass(frozen=True, slots=True)
class Row:
    """A task as lists show it."""

    task: TaskView
    model: str
    """Its title."""
    key: str
    picture: str | None
    """Where a small picture of the result is."""

    @property
    def duration(self) -> timedelta | None:
        return None if self.task.settled_at is None else self.task.settled_at - self.task.created_at


@dataclass(frozen=True, slots=True)
class Days:
    """A range of days (of UTC), both included; None: no border."""

    first: date | None = None
    last: date | None = None

    @property
    def since(self) -> datetime | None:
        return None if self.first is None else midnight(self.first)

    @property
    def until(self) -> datetime | None:
        return None if self.last is None else midnight(self.last + timedelta(days=1))


def midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)


def days_of(request: Request, first: str = "from", last: str = "to") -> Days:
    """Read the filters that name days; what is no date is no border."""
    return Days(_day(tables.query(request, first)), _day(tables.query(request, last)))


def _day(text: str | None) -> date | None:
    try:
        day = date.fromisoformat(text or "")
    except ValueError:
        return None
    return day if day.year in YEARS else None


def asked(task: TaskView) -> dict[str, Any]:
    """Return the parameters as the API calls them, defaults included."""
    params: Mapping[str, Any] = task.request["params"]
    found = {name: value for name, value in params.items() if name not in INTERNAL} | dict(params.get("hints") or {})
    return {name: value for name, value in found.items() if value is not None}


async def open_tasks(visitor: Visitor, *, limit: int) -> Sequence[TaskView]:
    """Return the account's tasks that have not ended, newest first."""
    wanted = TaskFilter(OPEN, limit=limit)
    return (await visitor.services.tasks.page(principal_of(visitor.session), wanted, after=None)).items


async def key_names(visitor: Visitor, of: Iterable[int | None] | None = None) -> dict[int, str]:
    """Return the names of the account's keys by number, or those ``of`` some; the console's own is the last."""
    wanted = None if of is None else {number for number in of if number is not None} - {visitor.session.key_id}
    keys = [] if wanted == set() else await visitor.services.keys.names(visitor.account_id, of=wanted)
    names = {key.id: f"{key.name} (..{key.last4})" for key in keys}
    return names | {visitor.session.key_id: visitor.gettext("Console")}


def model_titles(visitor: Visitor) -> dict[str, str]:
    return {model.id: model.title for model in visitor.services.catalogs.shown().models.values()}


def rows_of(tasks: Iterable[TaskView], titles: Mapping[str, str], keys: Mapping[int, str]) -> list[Row]:
    now = utcnow()
    return [
        Row(
            task,
            titles.get(task.model, task.model),
            keys.get(task.key_id, key_public_id(task.key_id)),
            small_picture(task, now),
        )
        for task in tasks
    ]


def small_picture(task: TaskView, now: datetime) -> str | None:
    """Return where a small picture of a task's result is; None: there is none."""
    role = "thumbnail" if task.operation.kind == "video" else "result"
    return None if kept_file(task, role, now) is None else previews.address(task)


def page_picture(task: TaskView, file: StoredFile) -> str:
    """Return where the picture is that a result's own page shows."""
    return previews.address(task) if file.size_bytes > WHOLE_BYTES else file_url(task, "image")


def kept_file(task: TaskView, role: str, now: datetime) -> StoredFile | None:
    """Return a finished task's file as long as it can be had."""
    file = task.find_file(role) if task.status == "succeeded" else None
    return file if file is not None and file.is_kept(now) else None


def file_url(task: TaskView, kind: str) -> str:
    return f"/api/jobs/{task.public_id}/{kind}"
