"""The caller's own account: credits, the ledger line by line, and what was used; for spreadsheets too."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.accounts.key_info import key_public_id
from app.api.admin.bodies import Body, documented, reads
from app.api.deps import AccountPrincipal, RedeemPrincipal, ServicesDep
from app.api.errors import request_id_of
from app.api.openapi import errors
from app.api.v1 import wire
from app.api.v1.answers import csv_answer, json_answer, wants_csv
from app.credits.redeem import Redeemed
from app.credits.statements import Entry, UsageRow, ledger_csv, usage_csv
from app.errors import (
    AccountSuspended,
    BalanceTooHigh,
    DatabaseUnavailable,
    InvalidParameter,
    MissingParameter,
    RedeemCodeRefused,
    ScopeMissing,
)
from app.journal import Actor
from app.requests import Operation
from app.values import utcnow

router = APIRouter(prefix="/v1/me", tags=["Account"])

USAGE_DAYS = 30
YEARS = range(2000, 2200)
CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
READ_ERRORS = errors(InvalidParameter, ScopeMissing, DatabaseUnavailable)


class Key(wire.Wire):
    id: str
    name: str
    last4: str
    scopes: list[str]
    models: list[str] | None
    expires_at: int | None
    budget: int | None
    budget_period: str
    spent: int


class Me(wire.Wire):
    id: str
    email: str
    name: str
    credits: int
    held: int
    key: Key


class LedgerEntry(wire.Wire):
    seq: int
    kind: str
    amount: int
    balance: int
    task_id: str | None
    model: str | None
    type: str | None
    key_id: str | None
    reference: str | None
    note: str | None
    created_at: int

    @classmethod
    def of(cls, entry: Entry) -> LedgerEntry:
        return cls(
            seq=entry.seq,
            kind=entry.kind,
            amount=entry.amount,
            balance=entry.balance,
            task_id=entry.task_id,
            model=entry.model,
            type=None if entry.operation is None else Operation(entry.operation).task_type,
            key_id=None if entry.key_id is None else key_public_id(entry.key_id),
            reference=entry.reference,
            note=entry.note,
            created_at=wire.unix(entry.created_at),
        )


class LedgerReply(wire.Wire):
    """Lines never change; `balance` is the account's after each."""

    object: Literal["list"] = "list"
    data: list[LedgerEntry]
    has_more: bool
    last_seq: int | None


class UsageEntry(wire.Wire):
    group: str
    tasks: int
    credits: int


class UsageReply(wire.Wire):
    object: Literal["list"] = "list"
    by: str
    data: list[UsageEntry]
    credits: int


class RedeemOrder(Body):
    code: str = Field(min_length=1, max_length=200, description="As it was given; hyphens and capitals do not matter.")


class RedeemReply(wire.Wire):
    object: Literal["redeemed_code"] = "redeemed_code"
    credits: int = Field(description="What the code was worth.")
    balance: int = Field(description="The account's posted credits after it.")
    reference: str = Field(description="Of the line in the ledger.")
    replayed: bool = Field(description="This account had redeemed it before: nothing moved now.")

    @classmethod
    def of(cls, redeemed: Redeemed) -> RedeemReply:
        return cls(
            credits=redeemed.credits,
            balance=redeemed.balance,
            reference=redeemed.reference,
            replayed=not redeemed.is_new,
        )


@router.post(
    "/redeem",
    summary="Redeem a code",
    description="Adds the code's credits to the account, once. Needs `account:read`, and `images:write` or "
    "`videos:write`: a key that may make something. After ten wrong codes none of this key is looked at for an hour.",
    response_model=RedeemReply,
    responses=errors(
        RedeemCodeRefused,
        InvalidParameter,
        MissingParameter,
        BalanceTooHigh,
        ScopeMissing,
        AccountSuspended,
        DatabaseUnavailable,
    ),
    operation_id="redeem_code",
    openapi_extra=documented(RedeemOrder),
)
async def redeem_code(
    request: Request,
    principal: RedeemPrincipal,
    services: ServicesDep,
    body: Annotated[RedeemOrder, Depends(reads(RedeemOrder))],
) -> Response:
    actor = Actor(f"{principal.email} ({key_public_id(principal.key_id)})", request_id_of(request))
    redeemed = await services.codes.redeem(principal.account_id, body.code, key_id=principal.key_id, actor=actor)
    return json_answer(RedeemReply.of(redeemed))


@router.get(
    "",
    summary="Read the account",
    description="`credits` is what can be spent now; `held` is what running tasks have put aside.",
    response_model=Me,
    responses=READ_ERRORS,
    operation_id="get_me",
)
async def get_me(principal: AccountPrincipal, services: ServicesDep) -> Response:
    account = await services.accounts.get(principal.account_id)
    key = await services.keys.get(principal.key_id)
    return json_answer(
        Me(
            id=account.public_id,
            email=account.email,
            name=account.name,
            credits=account.credits,
            held=account.held,
            key=Key(
                id=key.public_id,
                name=key.name,
                last4=key.last4,
                scopes=list(key.scopes),
                models=None if key.models is None else list(key.models),
                expires_at=wire.find_unix(key.expires_at),
                budget=key.budget,
                budget_period=key.period,
                spent=key.spent,
            ),
        )
    )


@router.get(
    "/ledger",
    summary="Read the ledger",
    description="Newest first, with the running balance. Send `last_seq` as `after` for older lines. "
    "`Accept: text/csv` gives a spreadsheet.",
    response_model=LedgerReply,
    responses=CSV | READ_ERRORS,
    operation_id="get_ledger",
)
async def get_ledger(
    request: Request,
    principal: AccountPrincipal,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    after: Annotated[int | None, Query(ge=1, le=2**62, description="Lines older than this `seq`.")] = None,
) -> Response:
    page = await services.statements.ledger(principal.account_id, limit=limit, after=after)
    if wants_csv(request):
        return csv_answer(ledger_csv(page.entries), "ledger.csv")
    return json_answer(
        LedgerReply(
            data=[LedgerEntry.of(entry) for entry in page.entries],
            has_more=page.has_more,
            last_seq=page.entries[-1].seq if page.entries else None,
        )
    )


@router.get(
    "/usage",
    summary="Read the usage",
    description="Credits spent per day (UTC), model or key, refunds taken off. `from` and `to` are dates or times; a "
    f"date as `to` is included. Default: the last {USAGE_DAYS} days. `Accept: text/csv` gives a spreadsheet.",
    response_model=UsageReply,
    responses=CSV | READ_ERRORS,
    operation_id="get_usage",
)
async def get_usage(
    request: Request,
    principal: AccountPrincipal,
    services: ServicesDep,
    since: Annotated[str | None, Query(alias="from", examples=["2026-11-01"])] = None,
    until: Annotated[str | None, Query(alias="to", examples=["2026-11-30"])] = None,
    by: Literal["day", "model", "key"] = "day",
) -> Response:
    end = moment_of(until, param="to", whole_day=True) or utcnow() + timedelta(seconds=1)
    start = moment_of(since, param="from", whole_day=False) or end - timedelta(days=USAGE_DAYS)
    rows = await services.statements.usage(principal.account_id, start=start, end=end, by=by)
    if wants_csv(request):
        return csv_answer(usage_csv(rows, by), "usage.csv")
    return json_answer(UsageReply(by=by, data=[_usage(row) for row in rows], credits=sum(row.credits for row in rows)))


def _usage(row: UsageRow) -> UsageEntry:
    return UsageEntry(group=row.group, tasks=row.tasks, credits=row.credits)


def moment_of(text: str | None, *, param: str, whole_day: bool) -> datetime | None:
    """Read a date, a time (UTC unless it says otherwise) or Unix seconds. Raises: InvalidParameter."""
    if text is None:
        return None
    try:
        moment = _parsed(text, whole_day=whole_day)
        if moment.year not in YEARS:
            raise ValueError
        return moment
    except (ValueError, OverflowError, OSError):
        raise InvalidParameter(
            f"'{param}' must be a date such as 2026-11-24, a time such as 2026-11-24T08:00:00Z, or Unix seconds.",
            param=param,
        ) from None


def _parsed(text: str, *, whole_day: bool) -> datetime:
    if len(text) == len("2026-11-24") and text[4] == "-":
        day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        return day + timedelta(days=1) if whole_day else day
    if text.isascii() and text.isdigit():
        return datetime.fromtimestamp(int(text), UTC)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
