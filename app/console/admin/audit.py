"""The audit log, for administrators: who changed what, why, and how it was before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.users import account_public_id
from app.console import tables
from app.console.admin.reading import ALL_AT_ONCE, day, number_after
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
        found = await tables.all_rows(
            lambda after: log.search(replace(wanted, after=after, limit=ALL_AT_ONCE)), lambda row: row.id
        )
        return tables.csv_file("audit.csv", COLUMNS, found)
    rows, has_more = await log.search(replace(wanted, after=number_after(request)))
    return visitor.page(
        "admin/audit.html",
        nav=AUDIT,
        rows=rows,
        wanted=wanted,
        actions=await log.actions(),
        difference=difference,
        page_of=page_of,
        paging=tables.Paging.of(request, has_more=has_more, last=rows[-1].id if rows else None),
        is_filtered=tables.is_filtered(request),
    )


def difference(row: AuditRow) -> list[Line]:
    """Return what changed, field by field; the reason stands beside it."""
    before, after = dict(row.before or {}), dict(row.after or {})
    for name in ("reason", "note"):
        if after.get(name) == row.reason and name not in before:
            after.pop(name, None)
    return [
        Line(name, _text(before[name]) if name in before else None, _text(after[name]) if name in after else None)
        for name in dict.fromkeys([*before, *after])
    ]


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
