"""The audit log, for administrators: who changed what, why, and how it was before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.users import account_public_id
from app.console import tables
from app.console.admin.reading import day, number_after
from app.console.visitor import AdminVisitor, ConsoleRoute
from app.generation.journal import AuditRow, AuditSearch

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

AUDIT = "/console/admin/audit"
PAGES: Mapping[str, Callable[[str], str]] = {
    "account": lambda number: f"/console/admin/users/{account_public_id(int(number))}",
    "key": lambda number: f"/console/admin/keys/key_{int(number)}",
    "code": lambda number: f"/console/admin/codes?q=code_{int(number)}",
    "batch": lambda batch: f"/console/admin/codes?batch={quote(batch)}",
    "task": lambda task: f"/console/admin/tasks/{quote(task, safe='')}",
    "upstream": lambda name: f"/console/admin/upstreams/{quote(name, safe='')}",
    "route": lambda number: f"/console/admin/routes/route_{int(number)}",
    "model": lambda name: f"/console/admin/models/{quote(name, safe='')}",
}
"""Where a target is looked at, by its kind."""
PUBLIC_IDS: Mapping[str, Callable[[int], str]] = {
    "account": account_public_id,
    "key": lambda number: f"key_{number}",
    "code": lambda number: f"code_{number}",
    "route": lambda number: f"route_{number}",
}
NUMBERED = ("account", "key", "code", "route")

COLUMNS: Mapping[str, Callable[[AuditRow], object]] = {
    "id": lambda row: row.id,
    "at": lambda row: row.at,
    "actor": lambda row: row.actor,
    "action": lambda row: row.action,
    "target": lambda row: row.target,
    "reason": lambda row: row.reason,
    "before": lambda row: _whole(row.before),
    "after": lambda row: _whole(row.after),
    "request_id": lambda row: row.request_id,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One field of what changed."""

    name: str
    before: str | None
    after: str | None


@router.get(AUDIT)
async def audit(visitor: AdminVisitor) -> Response:
    request, log = visitor.request, visitor.services.audit_log
    wanted = AuditSearch(
        actor=tables.query(request, "actor"),
        action=tables.query(request, "action"),
        target=tables.query(request, "target"),
        q=tables.query(request, "q"),
        since=day(request, "from"),
        until=day(request, "to", whole=True),
        limit=tables.PAGE_ROWS,
    )
    if tables.wants_csv(request):

        async def read(after: int | None) -> tuple[Sequence[AuditRow], int | None]:
            part = await log.page(replace(wanted, after=after, limit=tables.CSV_PAGE_ROWS))
            return part.rows, part.last if part.has_more else None

        return await tables.csv_pages("audit.csv", COLUMNS, tables.by_parts(read))
    page = await log.page(replace(wanted, after=number_after(request)))
    return visitor.page(
        "admin/audit.html",
        nav=AUDIT,
        rows=page.rows,
        wanted=wanted,
        actions=await log.actions(),
        difference=difference,
        page_of=page_of,
        shown_target=shown_target,
        paging=tables.Paging.of(request, has_more=page.has_more, last=page.last),
        is_filtered=tables.is_filtered(request),
    )


def difference(row: AuditRow) -> list[Line]:
    """Return what changed, field by field; the reason stands beside it."""
    before, after = dict(row.before or {}), dict(row.after or {})
    for name in ("reason", "note"):
        if after.get(name) == row.reason and name not in before:
            after.pop(name, None)
    if not before:  # something new: what was left empty says nothing
        after = {name: value for name, value in after.items() if value not in (None, "", [], {})}
    return [
        Line(name, _text(before[name]) if name in before else None, _text(after[name]) if name in after else None)
        for name in dict.fromkeys([*before, *after])
        if not (name in before and name in after and before[name] == after[name])
    ]


def shown_target(target: str) -> str:
    """Return what a row is about by the id that people see elsewhere: ``acct_4`` for ``account:4``."""
    kind, _colon, number = target.partition(":")
    return PUBLIC_IDS[kind](int(number)) if kind in PUBLIC_IDS and number.isdecimal() else target


def page_of(target: str) -> str | None:
    """Return the page of what a row is about, where there is one."""
    kind, _colon, name = target.partition(":")
    if kind not in PAGES or not name or (kind in NUMBERED and not name.isdecimal()):
        return None
    return PAGES[kind](name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _whole(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
