"""The ledger: every line that moved credits, what running tasks hold, what expires, and codes to redeem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.key_info import key_public_id
from app.console import tables, wording
from app.console.user import shown
from app.console.visitor import ConsoleRoute, Form, FormDep, SomeVisitor, Visitor, blank, go, once
from app.credits.statements import KINDS, Entry, LedgerSearch
from app.errors import MediagateError

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

LEDGER = "/console/ledger"
MOST_HOLDS = 20
GENERATED = ("by-hand:", "idempotency-key:", "redeem:", "start:")
"""How references begin that we made up ourselves: they tell a reader nothing."""


@router.get(LEDGER)
async def ledger(visitor: SomeVisitor) -> Response:
    if tables.wants_csv(visitor.request):
        return await _csv(visitor, _search(visitor))
    return await _page(visitor, blank(code=""))


@router.post(LEDGER)
async def redeem(visitor: SomeVisitor, form: FormDep) -> Response:
    try:
        async with once(visitor, form, back=LEDGER):
            redeemed = await visitor.services.codes.redeem(
                visitor.account_id, form.text("code"), key_id=visitor.session.key_id, actor=visitor.actor
            )
    except MediagateError as error:
        return await _page(visitor, form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, LEDGER, done="redeemed" if redeemed.is_new else "redeemed-before")


async def _page(visitor: Visitor, form: Form, *, status: int = 200) -> Response:
    services, wanted = visitor.services, _search(visitor)
    entries, has_more = await services.statements.search(wanted)
    held = await shown.open_tasks(visitor, limit=MOST_HOLDS)
    keys = await shown.key_names(visitor, [*(entry.key_id for entry in entries), *(task.key_id for task in held)])
    return visitor.page(
        "user/ledger.html",
        status=status,
        nav=LEDGER,
        form=form,
        balance=await services.ledger.balance(visitor.account_id),
        lots=await services.statements.lots(visitor.account_id),
        holds=shown.rows_of(held, shown.model_titles(visitor), keys),
        entries=entries,
        generated=GENERATED,
        paging=tables.Paging.of(visitor.request, has_more=has_more, last=entries[-1].seq if entries else None),
        is_filtered=tables.is_filtered(visitor.request),
        kinds=wording.KINDS,
        operations=wording.OPERATIONS,
        titles=shown.model_titles(visitor),
        keys=keys,
        days=shown.days_of(visitor.request),
    )


def _search(visitor: Visitor) -> LedgerSearch:
    kind, after = tables.query(visitor.request, "kind", KINDS), tables.query(visitor.request, "after", most=18)
    days = shown.days_of(visitor.request)
    return LedgerSearch(
        visitor.account_id,
        kinds=None if kind is None else (kind,),
        since=days.since,
        until=days.until,
        after=int(after) if after and after.isascii() and after.isdigit() else None,
        limit=tables.PAGE_ROWS,
    )


async def _csv(visitor: Visitor, wanted: LedgerSearch) -> Response:
    async def read(after: int | None) -> tuple[Sequence[Entry], bool]:
        return await visitor.services.statements.search(replace(wanted, after=after, limit=tables.CSV_PAGE_ROWS))

    return await tables.csv_pages(
        "ledger.csv",
        {
            "line": lambda entry: entry.seq,
            "at": lambda entry: entry.created_at,
            "kind": lambda entry: entry.kind,
            "amount": lambda entry: entry.amount,
            "balance": lambda entry: entry.balance,
            "task_id": lambda entry: entry.task_id,
            "model": lambda entry: entry.model,
            "key": lambda entry: None if entry.key_id is None else key_public_id(entry.key_id),
            "reference": lambda entry: entry.reference,
            "note": lambda entry: entry.note,
        },
        tables.by_rows(read, lambda entry: entry.seq),
    )
