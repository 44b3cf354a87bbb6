"""Redeem codes, for administrators: made in batches and shown once, found again by what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.users import account_public_id
from app.console import tables
from app.console.admin.reading import last_day, number_after
from app.console.visitor import AdminVisitor, ConsoleRoute, Form, FormDep, Visitor, blank, go, once
from app.credits.redeem import MAX_BATCH, Batch, CodeSearch, CodeState, Kind, RedeemCode
from app.errors import InvalidParameter, MediagateError

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

CODES = "/console/admin/codes"
STATES = ("open", "redeemed", "revoked", "expired")

COLUMNS: Mapping[str, Callable[[RedeemCode], object]] = {
    "id": lambda code: code.public_id,
    "batch": lambda code: code.batch,
    "last4": lambda code: code.last4,
    "state": lambda code: code.state,
    "kind": lambda code: code.kind,
    "amount": lambda code: code.amount,
    "note": lambda code: code.note,
    "created_by": lambda code: code.created_by,
    "created_at": lambda code: code.created_at,
    "expires_at": lambda code: code.expires_at,
    "revoked_at": lambda code: code.revoked_at,
    "redeemed_at": lambda code: code.redeemed_at,
    "account": lambda code: None if code.account_id is None else account_public_id(code.account_id),
    "email": lambda code: code.email,
}


@router.get(CODES)
async def codes(visitor: AdminVisitor) -> Response:
    request, search = visitor.request, visitor.services.codes.search
    wanted = CodeSearch(
        q=tables.query(request, "q"),
        batch=tables.query(request, "batch"),
        state=cast("CodeState | None", tables.query(request, "state", STATES)),
        limit=tables.PAGE_ROWS,
    )
    if tables.wants_csv(request):
        pages = tables.by_rows(
            lambda after: search(replace(wanted, after=after, limit=tables.CSV_PAGE_ROWS)), lambda code: code.id
        )
        return await tables.csv_pages("codes.csv", COLUMNS, pages)
    found, has_more = await search(replace(wanted, after=number_after(request)))
    return visitor.page(
        "admin/codes.html",
        nav=CODES,
        codes=found,
        wanted=wanted,
        account_public_id=account_public_id,
        paging=tables.Paging.of(request, has_more=has_more, last=found[-1].id if found else None),
        is_filtered=tables.is_filtered(request),
    )


@router.get(f"{CODES}/new")
async def new_codes(visitor: AdminVisitor) -> Response:
    return _new_page(visitor, blank(count=1, kind="grant"))


@router.post(f"{CODES}/new")
async def create_codes(visitor: AdminVisitor, form: FormDep) -> Response:
    try:
        count, amount, expires_at = form.needed("count"), form.needed("amount"), last_day(form, "expires_at")
        async with once(visitor, form, back=CODES) as sending:
            batch = await visitor.services.codes.create(
                count=count,
                amount=amount,
                kind=cast("Kind", form.text("kind")),
                expires_at=expires_at,
                note=form.text("note"),
                actor=visitor.actor,
            )
            sending.made = f"{CODES}?batch={batch.id}"
    except MediagateError as error:
        return _new_page(visitor, form.refuse(visitor.request, error), status=error.status)
    return visitor.page("admin/codes_made.html", nav=CODES, batch=batch, text="\n".join(batch.codes), file=_file(batch))


def _new_page(visitor: Visitor, form: Form, *, status: int = 200) -> Response:
    return visitor.page("admin/codes_new.html", status=status, nav=CODES, form=form, most=MAX_BATCH)


def _file(batch: Batch) -> str:
    """Return the codes as a spreadsheet that the page itself holds: nobody can ask for it again."""
    lines = ["code,credits", *(f"{code},{batch.amount}" for code in batch.codes)]
    return "data:text/csv;charset=utf-8," + quote("\r\n".join(lines) + "\r\n")


@router.get(f"{CODES}/{{code_id}}/revoke")
async def revoke_form(visitor: AdminVisitor, code_id: str) -> Response:
    return _revoke_page(visitor, await visitor.services.codes.get(code_id[:100]), blank())


@router.post(f"{CODES}/{{code_id}}/revoke")
async def revoke(visitor: AdminVisitor, code_id: str, form: FormDep) -> Response:
    code = await visitor.services.codes.get(code_id[:100])
    try:
        await visitor.services.codes.revoke(code.id, reason=form.text("reason"), actor=visitor.actor)
    except MediagateError as error:
        return _revoke_page(visitor, code, form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, CODES, q=code.public_id, done="revoked")


def _revoke_page(visitor: Visitor, code: RedeemCode, form: Form, *, status: int = 200) -> Response:
    return visitor.page(
        "admin/confirm.html",
        status=status,
        nav=CODES,
        title=visitor.gettext("Revoke %(code)s") % {"code": f"{code.public_id} (…{code.last4})"},
        text=visitor.gettext("Nobody can redeem it any more."),
        button=visitor.gettext("Revoke"),
        is_danger=True,
        action=f"{CODES}/{code.public_id}/revoke",
        back=CODES,
        form=form,
    )


@router.get(f"{CODES}/batches/{{batch}}/revoke")
async def revoke_batch_form(visitor: AdminVisitor, batch: str) -> Response:
    return await _revoke_batch_page(visitor, batch, blank())


@router.post(f"{CODES}/batches/{{batch}}/revoke")
async def revoke_batch(visitor: AdminVisitor, batch: str, form: FormDep) -> Response:
    try:
        await visitor.services.codes.revoke_batch(batch, reason=form.text("reason"), actor=visitor.actor)
    except MediagateError as error:
        return await _revoke_batch_page(visitor, batch, form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, CODES, batch=batch, done="revoked")


async def _revoke_batch_page(visitor: Visitor, batch: str, form: Form, *, status: int = 200) -> Response:
    """Raises: InvalidParameter for what is no batch."""
    found, _has_more = await visitor.services.codes.search(CodeSearch(batch=batch, limit=1))
    if not found:
        raise InvalidParameter("There is no such batch.", param="batch")
    return visitor.page(
        "admin/confirm.html",
        status=status,
        nav=CODES,
        title=visitor.gettext("Revoke what is left of a batch"),
        text=visitor.gettext("Its unused codes can no longer be redeemed. Redeemed codes stay as they are."),
        button=visitor.gettext("Revoke"),
        is_danger=True,
        action=f"{CODES}/batches/{batch}/revoke",
        back=f"{CODES}?batch={batch}",
        form=form,
    )
