"""The audit log, for administrators: who changed what, when, and why."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.api.admin.deps import AdminActor
from app.api.admin.queries import Limit, Q, Since, Until
from app.api.deps import ServicesDep
from app.api.openapi import errors
from app.api.v1.answers import csv_answer, json_answer, wants_csv
from app.api.v1.me import CSV, moment_of
from app.api.v1.tasks import NAME
from app.api.v1.wire import Wire, unix
from app.errors import DatabaseUnavailable, InvalidParameter, ScopeMissing
from app.generation.journal import AuditRow, AuditSearch, audit_csv

router = APIRouter(prefix="/admin/v1/audit", tags=["Administration"])


class AuditEntry(Wire):
    id: int
    at: int
    actor: str
    action: str
    target: str
    reason: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None

    @classmethod
    def of(cls, row: AuditRow) -> AuditEntry:
        return cls(
            id=row.id,
            at=unix(row.at),
            actor=row.actor,
            action=row.action,
            target=row.target,
            reason=row.reason,
            before=None if row.before is None else dict(row.before),
            after=None if row.after is None else dict(row.after),
            request_id=row.request_id,
        )


class AuditReply(Wire):
    object: Literal["list"] = "list"
    data: list[AuditEntry]
    last_id: int | None = Field(description="Send it as `after` for older rows.")
    has_more: bool


@router.get(
    "",
    summary="Search the audit log",
    description="Newest first; rows never change. With `q` one request looks at 20,000 rows at most: where `has_more` "
    "is true, also with no row, `last_id` goes on from there. `Accept: text/csv` gives a spreadsheet.",
    response_model=AuditReply,
    responses=CSV | errors(InvalidParameter, ScopeMissing, DatabaseUnavailable),
    operation_id="search_audit",
)
async def search_audit(
    request: Request,
    admin: AdminActor,
    services: ServicesDep,
    actor: Annotated[str | None, Query(max_length=254, pattern=NAME, description="An e-mail, or `cli:user`.")] = None,
    action: Annotated[
        str | None, Query(max_length=64, pattern=NAME, description="`credits.adjust`, or `credits` for all of them.")
    ] = None,
    target: Annotated[str | None, Query(max_length=200, pattern=NAME, description="`account:12`.")] = None,
    q: Q = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    after: Annotated[int | None, Query(ge=1, le=2**62, description="The `last_id` of the page before.")] = None,
) -> Response:
    wanted = AuditSearch(
        actor=actor,
        action=action,
        target=target,
        q=q,
        since=moment_of(since, param="from", whole_day=False),
        until=moment_of(until, param="to", whole_day=True),
        after=after,
        limit=limit,
    )
    if wants_csv(request):  # it has no place to say where the next part begins
        return csv_answer(audit_csv(await services.audit_log.search_all(wanted)), "audit.csv")
    page = await services.audit_log.page(wanted)
    entries = [AuditEntry.of(row) for row in page.rows]
    return json_answer(AuditReply(data=entries, last_id=page.last, has_more=page.has_more))
