"""API keys of all accounts, for administrators. A secret is in one answer, and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import Field
from starlette.responses import Response

from app.accounts.key_info import KeyInfo, KeySearch, KeyState, find_key_id, parse_key_id
from app.accounts.principal import Period
from app.accounts.users import account_public_id
from app.api.admin.bodies import Body, documented, reads
from app.api.admin.deps import AdminActor
from app.api.admin.queries import REASON, WHEN, AccountFilter, After, Limit, Q, Reference, last_id, moment
from app.api.deps import ServicesDep
from app.api.openapi import errors
from app.api.v1.answers import csv_answer, json_answer, wants_csv
from app.api.v1.me import CSV
from app.api.v1.tasks import NAME
from app.api.v1.wire import Wire, find_unix, unix
from app.errors import (
    AccountNotFound,
    DatabaseUnavailable,
    InvalidParameter,
    KeyNotFound,
    MissingParameter,
    ModelNotFound,
    ScopeMissing,
    WrongPepper,
)
from app.limits import MAX_PER_MINUTE
from app.spreadsheets import csv_text
from app.values import MAX_CREDITS
from app.wiring import Services

router = APIRouter(prefix="/admin/v1", tags=["Administration"])

READ = errors(InvalidParameter, ScopeMissing, AccountNotFound, DatabaseUnavailable)
ONE = errors(InvalidParameter, ScopeMissing, KeyNotFound, DatabaseUnavailable)
WRITE = errors(InvalidParameter, MissingParameter, ScopeMissing, KeyNotFound, DatabaseUnavailable)
MINT = (InvalidParameter, MissingParameter, WrongPepper, ScopeMissing, DatabaseUnavailable)
KeyId = Annotated[str, Path(max_length=64, pattern=NAME, description="`key_7`.")]
BUDGET = "Credits it may spend in each period; null: no limit."
RPM = "Requests a minute; null: the setting's."
COLUMNS = (
    "id", "account", "email", "name", "last4", "state", "scopes", "models", "cidrs", "budget", "period", "spent",
    "held", "in_flight", "max_in_flight", "rpm", "created_at", "expires_at", "revoked_at", "last_used_at",
)  # fmt: skip


class AdminKey(Wire):
    """All but the secret, which nobody can read again."""

    object: Literal["key"] = "key"
    id: str
    account: str
    email: str
    name: str
    last4: str
    state: KeyState
    scopes: list[str]
    models: list[str] | None = Field(description="null: all.")
    cidrs: list[str] = Field(description="Networks it may be used from; none: from anywhere.")
    replaces: str | None = Field(description="The key that this one was made from by a rotation.")
    budget: int | None
    period: Period
    spent: int = Field(description="In the present period, with the keys that share the budget.")
    held: int
    in_flight: int
    max_in_flight: int | None
    rpm: int | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None

    @classmethod
    def of(cls, key: KeyInfo) -> AdminKey:
        return cls(**_fields(key))


class AdminKeyWithSecret(AdminKey):
    """The one answer with the secret."""

    secret: str = Field(description="Shown now, and never again.")


class AdminKeyList(Wire):
    object: Literal["list"] = "list"
    data: list[AdminKey]
    last_id: str | None = Field(description="Send it as `after` for the next page.")
    has_more: bool


class KeyCreate(Body):
    name: str = Field("", description="What it is for.")
    scopes: list[str] = Field(default_factory=list, description="Empty: all but `admin:*`.")
    models: list[str] | None = Field(None, description="null: all.")
    cidrs: list[str] = Field(default_factory=list, description="Networks it may be used from; empty: any.")
    budget: int | None = Field(None, ge=0, le=MAX_CREDITS, description=BUDGET)
    period: Period = Field("total", description="When the budget starts anew.")
    rpm: int | None = Field(None, ge=1, le=MAX_PER_MINUTE, description=RPM)
    expires_at: int | None = Field(None, description=WHEN)


class KeyRotate(Body):
    overlap_hours: int = Field(24, ge=0, le=720, description="How long the old key works on.")


class KeyRevoke(Body):
    reason: str = Field(description=REASON)


class KeyLimits(Body):
    budget: int | None = Field(None, ge=0, le=MAX_CREDITS, description=BUDGET)
    period: Period = Field("total", description="When the budget starts anew.")
    max_in_flight: int | None = Field(
        None, ge=0, lt=2**31, description="Unfinished tasks at once; null: the account's limit alone."
    )
    rpm: int | None = Field(None, ge=1, le=MAX_PER_MINUTE, description=RPM)


@router.get(
    "/keys",
    summary="Search API keys",
    description="Newest first, of all accounts, dead ones too. `Accept: text/csv` gives a spreadsheet.",
    response_model=AdminKeyList,
    responses=CSV | READ,
    operation_id="search_keys",
)
async def search_keys(
    request: Request,
    actor: AdminActor,
    services: ServicesDep,
    q: Q = None,
    account: AccountFilter = None,
    state: KeyState | None = None,
    limit: Limit = 50,
    after: After = None,
) -> Response:
    wanted = KeySearch(
        q=q,
        account_id=None if account is None else (await services.accounts.get(account)).id,
        state=state,
        after=last_id(after, find_key_id),
        limit=limit,
    )
    found, has_more = await services.keys.search(wanted)
    data = [AdminKey.of(key) for key in found]
    if wants_csv(request):
        return csv_answer(keys_csv(data), "keys.csv")
    return json_answer(AdminKeyList(data=data, last_id=data[-1].id if data else None, has_more=has_more))


@router.post(
    "/accounts/{account}/keys",
    summary="Create a key for an account",
    status_code=201,
    response_model=AdminKeyWithSecret,
    responses=errors(*MINT, AccountNotFound, ModelNotFound),
    operation_id="create_key",
    openapi_extra=documented(KeyCreate),
)
async def create_key(
    actor: AdminActor,
    services: ServicesDep,
    account: Reference,
    body: Annotated[KeyCreate, Depends(reads(KeyCreate, creates=True))],
) -> Response:
    for model in body.models or ():
        services.catalog.get_model(model)
    minted = await services.keys.mint(
        (await services.accounts.get(account)).id,
        name=body.name,
        scopes=body.scopes,
        models=body.models,
        cidrs=body.cidrs,
        budget=body.budget,
        period=body.period,
        rpm=body.rpm,
        expires_at=moment(body.expires_at),
        actor=actor,
    )
    return await _with_secret(services, minted.id, minted.secret)


@router.get(
    "/keys/{key}",
    summary="Read a key",
    response_model=AdminKey,
    responses=ONE,
    operation_id="get_key",
)
async def get_key(actor: AdminActor, services: ServicesDep, key: KeyId) -> Response:
    return json_answer(AdminKey.of(await services.keys.get(parse_key_id(key))))


@router.post(
    "/keys/{key}/rotate",
    summary="Replace a key",
    description="The successor has the same rights, life span and budget; both work until the overlap is over.",
    status_code=201,
    response_model=AdminKeyWithSecret,
    responses=errors(*MINT, KeyNotFound),
    operation_id="rotate_key",
    openapi_extra=documented(KeyRotate),
)
async def rotate_key(
    actor: AdminActor,
    services: ServicesDep,
    key: KeyId,
    body: Annotated[KeyRotate, Depends(reads(KeyRotate, creates=True))],
) -> Response:
    minted = await services.keys.rotate(parse_key_id(key), timedelta(hours=body.overlap_hours), actor=actor)
    return await _with_secret(services, minted.id, minted.secret)


@router.post(
    "/keys/{key}/revoke",
    summary="Revoke a key",
    description="For good; it spends nothing from now on. Twice is no error.",
    response_model=AdminKey,
    responses=WRITE,
    operation_id="revoke_key",
    openapi_extra=documented(KeyRevoke),
)
async def revoke_key(
    actor: AdminActor, services: ServicesDep, key: KeyId, body: Annotated[KeyRevoke, Depends(reads(KeyRevoke))]
) -> Response:
    return json_answer(AdminKey.of(await services.keys.revoke(parse_key_id(key), reason=body.reason, actor=actor)))


@router.put(
    "/keys/{key}/limits",
    summary="Set a key's limits anew",
    description="All of them, and for the keys it shares its budget with.",
    response_model=AdminKey,
    responses=WRITE,
    operation_id="set_key_limits",
    openapi_extra=documented(KeyLimits),
)
async def set_key_limits(
    actor: AdminActor, services: ServicesDep, key: KeyId, body: Annotated[KeyLimits, Depends(reads(KeyLimits))]
) -> Response:
    changed = await services.keys.set_limits(
        parse_key_id(key),
        budget=body.budget,
        period=body.period,
        max_in_flight=body.max_in_flight,
        rpm=body.rpm,
        actor=actor,
    )
    return json_answer(AdminKey.of(changed))


async def _with_secret(services: Services, key_id: int, secret: str) -> Response:
    key = await services.keys.get(key_id)
    return json_answer(AdminKeyWithSecret(**_fields(key), secret=secret), status=201)


def keys_csv(data: list[AdminKey]) -> str:
    """Return lines with a header, as a spreadsheet reads them."""
    return csv_text(COLUMNS, ([_cell(getattr(line, name)) for name in COLUMNS] for line in data))


def _cell(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else value


def _fields(key: KeyInfo) -> dict[str, Any]:
    return {
        "id": key.public_id,
        "account": account_public_id(key.account_id),
        "email": key.email,
        "name": key.name,
        "last4": key.last4,
        "state": key.state,
        "scopes": list(key.scopes),
        "models": None if key.models is None else list(key.models),
        "cidrs": list(key.cidrs),
        "replaces": None if key.replaces is None else f"key_{key.replaces}",
        "budget": key.budget,
        "period": key.period,
        "spent": key.spent,
        "held": key.held,
        "in_flight": key.in_flight,
        "max_in_flight": key.max_in_flight,
        "rpm": key.rpm,
        "created_at": unix(key.created_at),
        "expires_at": find_unix(key.expires_at),
        "revoked_at": find_unix(key.revoked_at),
        "last_used_at": find_unix(key.last_used_at),
    }
