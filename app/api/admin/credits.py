"""An account's credits, for administrators: lines by hand, the ledger with who wrote it, and what was used."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.accounts.users import account_public_id
from app.api.admin.bodies import Body, documented, reads
from app.api.admin.deps import AdminActor
from app.api.admin.queries import REASON, Limit, Reference, Since, Until, moment
from app.api.admin.repeats import REPEATABLE, Repeat, check_one_name, replayed
from app.api.deps import ServicesDep
from app.api.openapi import errors
from app.api.v1.answers import csv_answer, json_answer, wants_csv
from app.api.v1.me import CSV, USAGE_DAYS, LedgerEntry, moment_of
from app.api.v1.wire import Wire
from app.credits.lines import MAX_REFERENCE_CHARS, Kind, Posting
from app.credits.refusals import ReferenceConflict
from app.credits.statements import Entry, LedgerSearch, Split, UsageCell, daily_usage_csv
from app.errors import (
    AccountNotFound,
    BalanceTooHigh,
    BelowHeld,
    DatabaseUnavailable,
    IdempotencyKeyReused,
    InvalidParameter,
    MissingParameter,
    ScopeMissing,
)
from app.spreadsheets import csv_text
from app.values import MAX_CREDITS, utcnow

router = APIRouter(prefix="/admin/v1/accounts", tags=["Administration"])

READ = errors(InvalidParameter, ScopeMissing, AccountNotFound, DatabaseUnavailable)
WRITE = errors(
    InvalidParameter,
    MissingParameter,
    ReferenceConflict,
    IdempotencyKeyReused,
    BelowHeld,
    BalanceTooHigh,
    ScopeMissing,
    AccountNotFound,
    DatabaseUnavailable,
)
EntryKind = Literal["topup", "grant", "capture", "refund", "expire", "adjust"]
COLUMNS = (
    "seq", "created_at", "kind", "amount", "balance", "task_id", "model", "key_id", "reference", "note", "actor",
)  # fmt: skip


class CreditsPost(Body):
    kind: Kind = Field(description="`topup`: bought, `grant`: given, `adjust`: a correction, up or down.")
    amount: int = Field(ge=-MAX_CREDITS, le=MAX_CREDITS, description="Not 0; below 0 only with `adjust`.")
    reference: str | None = Field(
        None,
        max_length=MAX_REFERENCE_CHARS,
        description="Such as an invoice number. The same one of a kind adds once, so a repeat is safe.",
    )
    reason: str | None = Field(
        None, description=f"{REASON} Demanded for `adjust`. The customer reads it in the ledger."
    )
    expires_at: int | None = Field(
        None, description="Unix seconds: what is left of these credits then is taken away; null: never."
    )


class CreditsPosted(Wire):
    object: Literal["ledger_entry"] = "ledger_entry"
    id: int
    account: str
    seq: int
    kind: Kind
    amount: int
    balance: int = Field(description="The account's posted credits after this line.")
    reference: str
    replayed: bool = Field(description="This reference had added the same before: nothing moved now.")

    @classmethod
    def of(cls, account_id: int, posting: Posting) -> CreditsPosted:
        return cls(
            id=posting.entry_id,
            account=account_public_id(account_id),
            seq=posting.seq,
            kind=posting.kind,
            amount=posting.amount,
            balance=posting.balance,
            reference=posting.reference,
            replayed=not posting.is_new,
        )


class AdminLedgerEntry(LedgerEntry):
    actor: str = Field(description="Who wrote it.")

    @classmethod
    def of(cls, entry: Entry) -> AdminLedgerEntry:
        return cls(**LedgerEntry.of(entry).model_dump(), actor=entry.actor)


class AdminLedger(Wire):
    object: Literal["list"] = "list"
    data: list[AdminLedgerEntry]
    last_id: int | None = Field(description="Send it as `after` for older lines.")
    has_more: bool


class DailyUsage(Wire):
    day: str
    group: str
    tasks: int
    credits: int

    @classmethod
    def of(cls, cell: UsageCell) -> DailyUsage:
        return cls(day=cell.day, group=cell.group, tasks=cell.tasks, credits=cell.credits)


class DailyUsageReply(Wire):
    object: Literal["list"] = "list"
    by: str
    data: list[DailyUsage]
    credits: int


@router.post(
    "/{account}/credits",
    summary="Add or correct credits",
    description="One line of the ledger, for ever. A mistake is corrected by another line.",
    response_model=CreditsPosted,
    responses=WRITE,
    operation_id="post_credits",
    openapi_extra=documented(CreditsPost) | REPEATABLE,
)
async def post_credits(
    actor: AdminActor,
    services: ServicesDep,
    account: Reference,
    repeat: Repeat,
    body: Annotated[CreditsPost, Depends(reads(CreditsPost))],
) -> Response:
    check_one_name(repeat, body.reference)
    account_id = (await services.accounts.get(account)).id
    posting = await services.ledger.post(
        account_id,
        body.kind,
        body.amount,
        reference=body.reference,
        reason=body.reason,
        expires_at=moment(body.expires_at),
        repeat=repeat,
        actor=actor,
    )
    return json_answer(CreditsPosted.of(account_id, posting), headers=replayed(repeat, is_new=posting.is_new))


@router.get(
    "/{account}/ledger",
    summary="Read an account's ledger",
    description="Newest first, with the running balance. Send `last_id` as `after` for older lines. "
    "`Accept: text/csv` gives a spreadsheet.",
    response_model=AdminLedger,
    responses=CSV | READ,
    operation_id="get_account_ledger",
)
async def get_account_ledger(
    request: Request,
    actor: AdminActor,
    services: ServicesDep,
    account: Reference,
    kind: EntryKind | None = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    after: Annotated[int | None, Query(ge=1, le=2**62, description="Lines older than this `seq`.")] = None,
) -> Response:
    wanted = LedgerSearch(
        (await services.accounts.get(account)).id,
        kinds=None if kind is None else [kind],
        since=moment_of(since, param="from", whole_day=False),
        until=moment_of(until, param="to", whole_day=True),
        after=after,
        limit=limit,
    )
    entries, has_more = await services.statements.search(wanted)
    data = [AdminLedgerEntry.of(entry) for entry in entries]
    if wants_csv(request):
        return csv_answer(csv_text(COLUMNS, ([getattr(line, name) for name in COLUMNS] for line in data)), "ledger.csv")
    return json_answer(AdminLedger(data=data, last_id=data[-1].seq if data else None, has_more=has_more))


@router.get(
    "/{account}/usage",
    summary="Read an account's usage",
    description="Credits spent per day (UTC) and model, or day and key, refunds taken off. Default: the last "
    f"{USAGE_DAYS} days. `Accept: text/csv` gives a spreadsheet.",
    response_model=DailyUsageReply,
    responses=CSV | READ,
    operation_id="get_account_usage",
)
async def get_account_usage(
    request: Request,
    actor: AdminActor,
    services: ServicesDep,
    account: Reference,
    by: Split = "model",
    since: Since = None,
    until: Until = None,
) -> Response:
    end = moment_of(until, param="to", whole_day=True) or utcnow() + timedelta(seconds=1)
    start = moment_of(since, param="from", whole_day=False) or end - timedelta(days=USAGE_DAYS)
    account_id = (await services.accounts.get(account)).id
    cells = await services.statements.daily_usage(account_id, start=start, end=end, split=by)
    if wants_csv(request):
        return csv_answer(daily_usage_csv(cells, by), "usage.csv")
    body: dict[str, Any] = {"by": by, "credits": sum(cell.credits for cell in cells)}
    return json_answer(DailyUsageReply(**body, data=[DailyUsage.of(cell) for cell in cells]))
