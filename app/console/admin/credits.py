"""A user's credits, for administrators: added, corrected in two steps, and the ledger that says by whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.users import Account
from app.console import tables
from app.console.admin.reading import account_of, day, last_day, number_after
from app.console.admin.users import USERS, address
from app.console.visitor import AdminVisitor, ConsoleRoute, Form, FormDep, Visitor, blank, go, once
from app.console.wording import KINDS
from app.credits.lines import Kind, Preview, checked_reference
from app.credits.statements import Entry, LedgerSearch
from app.errors import InvalidParameter, MediagateError
from app.journal import checked_reason

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

COLUMNS: Mapping[str, Callable[[Entry], object]] = {
    "seq": lambda line: line.seq,
    "created_at": lambda line: line.created_at,
    "kind": lambda line: line.kind,
    "amount": lambda line: line.amount,
    "balance": lambda line: line.balance,
    "task_id": lambda line: line.task_id,
    "model": lambda line: line.model,
    "key_id": lambda line: None if line.key_id is None else f"key_{line.key_id}",
    "reference": lambda line: line.reference,
    "note": lambda line: line.note,
    "actor": lambda line: line.actor,
}


def _page(
    visitor: Visitor, template: str, account: Account, form: Form, *, status: int = 200, preview: Preview | None = None
) -> Response:
    return visitor.page(
        template, status=status, nav=USERS, account=account, address=address(account), form=form, preview=preview
    )


@router.get(f"{USERS}/{{account_id}}/credits")
async def credits_form(visitor: AdminVisitor, account_id: str) -> Response:
    account = await account_of(visitor, account_id)
    return _page(visitor, "admin/credits.html", account, blank(kind="topup"))


@router.post(f"{USERS}/{{account_id}}/credits")
async def add_credits(visitor: AdminVisitor, account_id: str, form: FormDep) -> Response:
    account = await account_of(visitor, account_id)
    try:
        kind, amount, expires_at = form.text("kind"), form.needed("amount"), last_day(form, "expires_at")
        if kind not in ("topup", "grant"):
            raise InvalidParameter("'kind' must be one of: topup, grant.", param="kind")
        async with once(visitor, form, back=address(account)):
            posting = await visitor.services.ledger.post(
                account.id,
                cast("Kind", kind),
                amount,
                reference=form.find("reference"),
                reason=form.find("reason"),
                expires_at=expires_at,
                actor=visitor.actor,
            )
    except MediagateError as error:
        form.refuse(visitor.request, error)
        return _page(visitor, "admin/credits.html", account, form, status=error.status)
    return go(visitor.request, address(account), done="credits-changed" if posting.is_new else "credits-known")


# --- a correction: asked for, shown with what it does, then done ----------------------------------------------------


@router.get(f"{USERS}/{{account_id}}/adjust")
async def adjust_form(visitor: AdminVisitor, account_id: str) -> Response:
    account, given = await account_of(visitor, account_id), visitor.request.query_params
    form = blank(**{name: given.get(name, "")[:500] for name in ("amount", "reason", "reference")})
    return _page(visitor, "admin/adjust.html", account, form)


@router.post(f"{USERS}/{{account_id}}/adjust")
async def preview_adjust(visitor: AdminVisitor, account_id: str, form: FormDep) -> Response:
    """Show what the correction would do. Nothing is done yet."""
    account = await account_of(visitor, account_id)
    try:
        preview = await visitor.services.ledger.preview(account.id, form.needed("amount"))
        if preview.problem is not None:
            raise preview.problem
        reason = checked_reason(form.text("reason"))
        reference = checked_reference(form.text("reference")) if form.find("reference") else None
    except MediagateError as error:
        return _page(visitor, "admin/adjust.html", account, form.refuse(visitor.request, error), status=error.status)
    shown = blank(amount=preview.amount, reason=reason, reference=reference)
    return _page(visitor, "admin/adjust_confirm.html", account, shown, preview=preview)


@router.post(f"{USERS}/{{account_id}}/adjust/confirm")
async def adjust(visitor: AdminVisitor, account_id: str, form: FormDep) -> Response:
    account = await account_of(visitor, account_id)
    try:
        amount = form.needed("amount")
        async with once(visitor, form, back=address(account)):
            posting = await visitor.services.ledger.post(
                account.id,
                "adjust",
                amount,
                reference=form.find("reference"),
                reason=form.text("reason"),
                actor=visitor.actor,
            )
    except MediagateError as error:
        return _page(visitor, "admin/adjust.html", account, form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, address(account), done="credits-changed" if posting.is_new else "credits-known")


@router.get(f"{USERS}/{{account_id}}/ledger")
async def ledger(visitor: AdminVisitor, account_id: str) -> Response:
    request, account = visitor.request, await account_of(visitor, account_id)
    kind = tables.query(request, "kind", KINDS)
    wanted = LedgerSearch(
        account.id,
        kinds=None if kind is None else [kind],
        since=day(request, "from"),
        until=day(request, "to", whole=True),
        limit=tables.PAGE_ROWS,
    )
    search = visitor.services.statements.search
    if tables.wants_csv(request):
        pages = tables.by_rows(
            lambda after: search(replace(wanted, after=after, limit=tables.CSV_PAGE_ROWS)), lambda line: line.seq
        )
        return await tables.csv_pages(f"ledger-{account.public_id}.csv", COLUMNS, pages)
    lines, has_more = await search(replace(wanted, after=number_after(request)))
    return visitor.page(
        "admin/ledger.html",
        nav=USERS,
        account=account,
        address=address(account),
        lines=lines,
        kinds=KINDS,
        kind=kind,
        paging=tables.Paging.of(request, has_more=has_more, last=lines[-1].seq if lines else None),
        is_filtered=tables.is_filtered(request),
    )
