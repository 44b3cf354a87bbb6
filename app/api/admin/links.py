"""How people come in, and are put out: one-time links that set a password, and the end of all sessions."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.responses import Response

from app.accounts.invitations import join_url
from app.api.admin.bodies import Body, documented, reads
from app.api.admin.deps import AdminActor
from app.api.admin.queries import REASON, Reference
from app.api.deps import ServicesDep
from app.api.openapi import errors
from app.api.v1.answers import json_answer
from app.api.v1.wire import Wire, unix
from app.errors import AccountNotFound, DatabaseUnavailable, InvalidParameter, MissingParameter, ScopeMissing

router = APIRouter(prefix="/admin/v1/accounts", tags=["Administration"])


class SignInLink(Wire):
    """The one answer that ever holds it. Send it to its person by a way that you trust."""

    object: Literal["sign_in_link"] = "sign_in_link"
    account: str
    email: str
    purpose: Literal["invite", "reset"]
    url: str = Field(description="It works once, and replaces those made before.")
    expires_at: int


class LinkCreate(Body):
    purpose: Literal["invite", "reset"] = Field(
        "invite", description="`invite`: the first password, within 7 days. `reset`: another one, within an hour."
    )
    reason: str | None = Field(None, description=f"{REASON} Required for `reset`.")


class SignOut(Body):
    reason: str = Field(description=REASON)


class SignedOut(Wire):
    object: Literal["sign_out"] = "sign_out"
    account: str
    sessions: int = Field(description="How many ended.")


@router.post(
    "/{account}/link",
    summary="Make a sign-in link",
    description="With it a person sets a password for the console. A reset ends the account's sessions as it is used.",
    status_code=201,
    response_model=SignInLink,
    responses=errors(InvalidParameter, MissingParameter, ScopeMissing, AccountNotFound, DatabaseUnavailable),
    operation_id="create_sign_in_link",
    openapi_extra=documented(LinkCreate),
)
async def create_sign_in_link(
    actor: AdminActor,
    services: ServicesDep,
    account: Reference,
    body: Annotated[LinkCreate, Depends(reads(LinkCreate, creates=True))],
) -> Response:
    if body.purpose == "reset" and body.reason is None:
        raise MissingParameter("reason")
    token = await services.invitations.invite(account, purpose=body.purpose, reason=body.reason, actor=actor)
    made = await services.invitations.find(token)
    link = SignInLink(
        account=f"acct_{made.account_id}",
        email=made.email,
        purpose=body.purpose,
        url=join_url(services.settings.base_url, token),
        expires_at=unix(made.expires_at),
    )
    return json_answer(link, status=201)


@router.post(
    "/{account}/sign-out",
    summary="End all sessions of an account",
    description="Whoever is signed in to its console is not any more. Keys go on, and its user may sign in again: "
    "reset the password or suspend the account as well where somebody else knows it.",
    response_model=SignedOut,
    responses=errors(InvalidParameter, MissingParameter, ScopeMissing, AccountNotFound, DatabaseUnavailable),
    operation_id="sign_out_account",
    openapi_extra=documented(SignOut),
)
async def sign_out_account(
    actor: AdminActor, services: ServicesDep, account: Reference, body: Annotated[SignOut, Depends(reads(SignOut))]
) -> Response:
    found = await services.accounts.get(account)
    ended = await services.sessions.end_all(found.id, reason=body.reason, actor=actor)
    return json_answer(SignedOut(account=found.public_id, sessions=ended))
