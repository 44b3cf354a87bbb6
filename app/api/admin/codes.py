"""Redeem codes, for administrators: made in batches, shown once, revoked while nobody has redeemed them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.accounts.users import account_public_id
from app.api.admin.bodies import Body, documented, reads
from app.api.admin.deps import AdminActor
from app.api.admin.queries import REASON, WHEN, AccountFilter, After, Limit, Q, last_id, moment
from app.api.deps import ServicesDep
from app.api.openapi import errors
from app.api.v1.answers import csv_answer, json_answer, wants_csv
from app.api.v1.me import CSV
from app.api.v1.tasks import NAME
from app.api.v1.wire import Wire, find_unix, unix
from app.credits.redeem import MAX_BATCH, Batch, CodeSearch, CodeState, Kind, RedeemCode, find_code_id
from app.errors import (
    AccountNotFound,
    DatabaseUnavailable,
    InvalidParameter,
    MissingParameter,
    RedeemCodeNotFound,
    RedeemCodeUsed,
    ScopeMissing,
)
from app.spreadsheets import csv_text
from app.values import MAX_CREDITS

router = APIRouter(prefix="/admin/v1/codes", tags=["Administration"])

READ = errors(InvalidParameter, ScopeMissing, AccountNotFound, DatabaseUnavailable)
NEW = errors(InvalidParameter, MissingParameter, ScopeMissing, DatabaseUnavailable)
WRITE = errors(
    InvalidParameter, MissingParameter, RedeemCodeUsed, ScopeMissing, RedeemCodeNotFound, DatabaseUnavailable
)
BATCH = "`batch_01m8...`: those that were made together."
COLUMNS = (
    "id", "batch", "last4", "state", "kind", "amount", "note", "created_by", "created_at", "expires_at", "revoked_at",
    "redeemed_at", "account", "email",
)  # fmt: skip


class AdminCode(Wire):
    """All but the code, which nobody can read again."""

    object: Literal["redeem_code"] = "redeem_code"
    id: str
    batch: str
    last4: str
    state: CodeState
    kind: Kind
    amount: int
    note: str
    created_by: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    redeemed_at: int | None
    account: str | None = Field(description="Who redeemed it.")
    email: str | None

    @classmethod
    def of(cls, code: RedeemCode) -> AdminCode:
        return cls(
            id=code.public_id,
            batch=code.batch,
            last4=code.last4,
            state=code.state,
            kind=code.kind,
            amount=code.amount,
            note=code.note,
            created_by=code.created_by,
            created_at=unix(code.created_at),
            expires_at=find_unix(code.expires_at),
            revoked_at=find_unix(code.revoked_at),
            redeemed_at=find_unix(code.redeemed_at),
            account=None if code.account_id is None else account_public_id(code.account_id),
            email=code.email,
        )


class AdminCodeList(Wire):
    object: Literal["list"] = "list"
    data: list[AdminCode]
    last_id: str | None = Field(description="Send it as `after` for the next page.")
    has_more: bool


class CodeBatch(Wire):
    """The one answer with the codes."""

    object: Literal["redeem_code.batch"] = "redeem_code.batch"
    id: str
    amount: int
    codes: list[str] = Field(description="Shown now, and never again.")

    @classmethod
    def of(cls, batch: Batch) -> CodeBatch:
        return cls(id=batch.id, amount=batch.amount, codes=list(batch.codes))


class BatchRevoked(Wire):
    object: Literal["redeem_code.batch"] = "redeem_code.batch"
    id: str
    revoked: int = Field(description="Codes that nobody had redeemed.")


class CodesCreate(Body):
    count: int = Field(1, ge=1, le=MAX_BATCH)
    amount: int = Field(ge=1, le=MAX_CREDITS, description="Credits of each.")
    kind: Kind = Field("grant", description="How the books call it: `topup`: bought, `grant`: given away.")
    expires_at: int | None = Field(None, description=WHEN)
    note: str = Field("", description="At most 200 characters. Whoever redeems one reads it in the ledger.")


class CodesRevoke(Body):
    reason: str = Field(description=REASON)


@router.get(
    "",
    summary="Search redeem codes",
    description="Newest first, dead ones too. `Accept: text/csv` gives a spreadsheet.",
    response_model=AdminCodeList,
    responses=CSV | READ,
    operation_id="search_codes",
)
async def search_codes(
    request: Request,
    actor: AdminActor,
    services: ServicesDep,
    q: Q = None,
    batch: Annotated[str | None, Query(max_length=64, description=BATCH)] = None,
    state: CodeState | None = None,
    account: AccountFilter = None,
    limit: Limit = 50,
    after: After = None,
) -> Response:
    wanted = CodeSearch(
        q=q,
        batch=batch,
        state=state,
        account_id=None if account is None else (await services.accounts.get(account)).id,
        after=last_id(after, find_code_id),
        limit=limit,
    )
    found, has_more = await services.codes.search(wanted)
    data = [AdminCode.of(code) for code in found]
    if wants_csv(request):
        return csv_answer(csv_text(COLUMNS, ([getattr(line, name) for name in COLUMNS] for line in data)), "codes.csv")
    return json_answer(AdminCodeList(data=data, last_id=data[-1].id if data else None, has_more=has_more))


@router.post(
    "",
    summary="Create redeem codes",
    description=f"Up to {MAX_BATCH} at once. Each adds its credits once, to the first account that redeems it.",
    status_code=201,
    response_model=CodeBatch,
    responses=NEW,
    operation_id="create_codes",
    openapi_extra=documented(CodesCreate),
)
async def create_codes(
    actor: AdminActor, services: ServicesDep, body: Annotated[CodesCreate, Depends(reads(CodesCreate, creates=True))]
) -> Response:
    batch = await services.codes.create(
        count=body.count,
        amount=body.amount,
        kind=body.kind,
        expires_at=moment(body.expires_at),
        note=body.note,
        actor=actor,
    )
    return json_answer(CodeBatch.of(batch), status=201)


@router.post(
    "/{code}/revoke",
    summary="Revoke a redeem code",
    description="Nobody can redeem it any more. Twice is no error.",
    response_model=AdminCode,
    responses=WRITE,
    operation_id="revoke_code",
    openapi_extra=documented(CodesRevoke),
)
async def revoke_code(
    actor: AdminActor,
    services: ServicesDep,
    code: Annotated[str, Path(max_length=64, pattern=NAME, description="`code_7`: its id, not the code.")],
    body: Annotated[CodesRevoke, Depends(reads(CodesRevoke))],
) -> Response:
    return json_answer(AdminCode.of(await services.codes.revoke(code, reason=body.reason, actor=actor)))


@router.post(
    "/batches/{batch}/revoke",
    summary="Revoke what is left of a batch",
    response_model=BatchRevoked,
    responses=NEW,
    operation_id="revoke_batch",
    openapi_extra=documented(CodesRevoke),
)
async def revoke_batch(
    actor: AdminActor,
    services: ServicesDep,
    batch: Annotated[str, Path(max_length=64, pattern=NAME, description=BATCH)],
    body: Annotated[CodesRevoke, Depends(reads(CodesRevoke))],
) -> Response:
    revoked = await services.codes.revoke_batch(batch, reason=body.reason, actor=actor)
    return json_answer(BatchRevoked(id=batch, revoked=revoked))
