"""Accounts for administrators: who may use the gateway, and how much at once. The command line has the same service."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.accounts.users import MAX_IN_FLIGHT, Account, AccountSearch, State, find_account_id
from app.api.admin.bodies import Body, documented, reads
from app.api.admin.deps import AdminActor
from app.api.admin.queries import REASON, After, Limit, Q, Reference, last_id
from app.api.deps import ServicesDep
from app.api.openapi import errors
from app.api.v1.answers import csv_answer, json_answer, wants_csv
from app.api.v1.me import CSV
from app.api.v1.wire import Wire, unix
from app.errors import (
    AccountBusy,
    AccountExists,
    AccountNotFound,
    DatabaseUnavailable,
    InvalidParameter,
    LastAdmin,
    MissingParameter,
    ScopeMissing,
)
from app.spreadsheets import csv_text

router = APIRouter(prefix="/admin/v1/accounts", tags=["Administration"])

READ = errors(InvalidParameter, ScopeMissing, DatabaseUnavailable)
ONE = errors(InvalidParameter, ScopeMissing, AccountNotFound, DatabaseUnavailable)
WRITE = (InvalidParameter, MissingParameter, ScopeMissing, AccountNotFound, DatabaseUnavailable)
COLUMNS = ("id", "email", "name", "state", "is_admin", "credits", "held", "in_flight", "max_in_flight", "created_at")


class AdminAccount(Wire):
    """An account, and what it can spend."""

    object: Literal["account"] = "account"
    id: str
    email: str
    name: str
    state: State
    is_admin: bool
    credits: int = Field(description="What can be spent now.")
    held: int = Field(description="What running tasks have put aside.")
    in_flight: int
    max_in_flight: int
    created_at: int

    @classmethod
    def of(cls, account: Account) -> AdminAccount:
        return cls(
            id=account.public_id,
            email=account.email,
            name=account.name,
            state=account.state,
            is_admin=account.is_admin,
            credits=account.credits,
            held=account.held,
            in_flight=account.in_flight,
            max_in_flight=account.max_in_flight,
            created_at=unix(account.created_at),
        )


class AdminAccountList(Wire):
    object: Literal["list"] = "list"
    data: list[AdminAccount]
    last_id: str | None = Field(description="Send it as `after` for the next page.")
    has_more: bool


class AccountCreate(Body):
    email: str = Field(description="Nobody else's; capitals do not matter.")
    name: str | None = Field(None, description="null: the first part of the e-mail.")
    is_admin: bool = Field(False, description="Whether its keys may have the scope `admin:*`.")


class AccountUpdate(Body):
    name: str | None = Field(None, description="null: as it is.")
    is_admin: bool | None = Field(None, description="null: as it is. The last active administrator stays one.")
    max_in_flight: int | None = Field(
        None, ge=0, le=MAX_IN_FLIGHT, description="Unfinished tasks at once; null: as it is."
    )


class StateChange(Body):
    reason: str = Field(description=REASON)


@router.get(
    "",
    summary="Search accounts",
    description="Newest first, closed ones too. Send `last_id` as `after` for the next page. "
    "`Accept: text/csv` gives a spreadsheet.",
    response_model=AdminAccountList,
    responses=CSV | READ,
    operation_id="search_accounts",
)
async def search_accounts(
    request: Request,
    actor: AdminActor,
    services: ServicesDep,
    q: Q = None,
    state: State | None = None,
    is_admin: Annotated[bool | None, Query()] = None,
    limit: Limit = 50,
    after: After = None,
) -> Response:
    wanted = AccountSearch(q=q, state=state, is_admin=is_admin, after=last_id(after, find_account_id), limit=limit)
    found, has_more = await services.accounts.search(wanted)
    data = [AdminAccount.of(account) for account in found]
    if wants_csv(request):
        return csv_answer(
            csv_text(COLUMNS, ([getattr(line, name) for name in COLUMNS] for line in data)), "accounts.csv"
        )
    return json_answer(AdminAccountList(data=data, last_id=data[-1].id if data else None, has_more=has_more))


@router.post(
    "",
    summary="Create an account",
    description="With no credits. Its keys: `POST /admin/v1/accounts/{account}/keys`.",
    status_code=201,
    response_model=AdminAccount,
    responses=errors(*WRITE[:3], AccountExists, DatabaseUnavailable),
    operation_id="create_account",
    openapi_extra=documented(AccountCreate),
)
async def create_account(
    actor: AdminActor,
    services: ServicesDep,
    body: Annotated[AccountCreate, Depends(reads(AccountCreate, creates=True))],
) -> Response:
    account = await services.accounts.create(body.email, name=body.name, is_admin=body.is_admin, actor=actor)
    return json_answer(AdminAccount.of(account), status=201)


@router.get(
    "/{account}",
    summary="Read an account",
    response_model=AdminAccount,
    responses=ONE,
    operation_id="get_account",
)
async def get_account(actor: AdminActor, services: ServicesDep, account: Reference) -> Response:
    return json_answer(AdminAccount.of(await services.accounts.get(account)))


@router.patch(
    "/{account}",
    summary="Change an account",
    response_model=AdminAccount,
    responses=errors(*WRITE, LastAdmin),
    operation_id="update_account",
    openapi_extra=documented(AccountUpdate),
)
async def update_account(
    actor: AdminActor,
    services: ServicesDep,
    account: Reference,
    body: Annotated[AccountUpdate, Depends(reads(AccountUpdate))],
) -> Response:
    return json_answer(AdminAccount.of(await services.accounts.update(account, **body.given(), actor=actor)))


@router.post(
    "/{account}/suspend",
    summary="Suspend an account",
    description="New tasks are refused from now on; running ones end, and it may still read.",
    response_model=AdminAccount,
    responses=errors(*WRITE, LastAdmin),
    operation_id="suspend_account",
    openapi_extra=documented(StateChange),
)
async def suspend_account(
    actor: AdminActor,
    services: ServicesDep,
    account: Reference,
    body: Annotated[StateChange, Depends(reads(StateChange))],
) -> Response:
    return json_answer(AdminAccount.of(await services.accounts.suspend(account, reason=body.reason, actor=actor)))


@router.post(
    "/{account}/resume",
    summary="Undo a suspension",
    response_model=AdminAccount,
    responses=errors(*WRITE),
    operation_id="resume_account",
    openapi_extra=documented(StateChange),
)
async def resume_account(
    actor: AdminActor,
    services: ServicesDep,
    account: Reference,
    body: Annotated[StateChange, Depends(reads(StateChange))],
) -> Response:
    return json_answer(AdminAccount.of(await services.accounts.resume(account, reason=body.reason, actor=actor)))


@router.post(
    "/{account}/close",
    summary="Close an account",
    description="For good: its keys are revoked and its sessions end. Refused while its tasks run. Credits and ledger "
    "stay in the books.",
    response_model=AdminAccount,
    responses=errors(*WRITE, LastAdmin, AccountBusy),
    operation_id="close_account",
    openapi_extra=documented(StateChange),
)
async def close_account(
    actor: AdminActor,
    services: ServicesDep,
    account: Reference,
    body: Annotated[StateChange, Depends(reads(StateChange))],
) -> Response:
    return json_answer(AdminAccount.of(await services.accounts.close(account, reason=body.reason, actor=actor)))
