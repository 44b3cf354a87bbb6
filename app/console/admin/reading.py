"""What the administrators' pages read alike: ids and cursors in an address, days in filters and forms."""

from __future__ import annotations

from datetime import datetime

from fastapi import Request

from app.accounts.users import Account, find_account_id
from app.api.v1.me import moment_of
from app.console import tables
from app.console.visitor import Form, Visitor
from app.errors import AccountNotFound, InvalidParameter


def number_after(request: Request, prefix: str = "") -> int | None:
    """Return the number of the last row of the page before; None for what is no number: then it is the first page."""
    text = (tables.query(request, "after", most=40) or "").removeprefix(prefix)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def day(request: Request, name: str, *, whole: bool = False) -> datetime | None:
    """Return a filter's day, its end where it is ``whole``; None for what is no day."""
    try:
        return moment_of(tables.query(request, name, most=40), param=name, whole_day=whole)
    except InvalidParameter:
        return None


def last_day(form: Form, name: str) -> datetime | None:
    """Return the end (of UTC) of a day that a form names, or None. Raises: InvalidParameter."""
    return moment_of(form.find(name), param=name, whole_day=True)


async def account_of(visitor: Visitor, public_id: str) -> Account:
    """Return the account that an address names. Raises: AccountNotFound."""
    number = find_account_id(public_id)
    if number is None:
        raise AccountNotFound(public_id[:100])
    return await visitor.services.accounts.get(number)


async def account_named(visitor: Visitor, form: Form, name: str = "account") -> Account:
    """Return the account that a form names by its e-mail or its id. Raises: AccountNotFound, InvalidParameter."""
    text = form.text(name)
    if not text:
        raise InvalidParameter("'account' must be an e-mail address or an id such as acct_12.", param=name)
    try:
        return await visitor.services.accounts.get(text[:254])
    except AccountNotFound as error:
        error.param = name
        raise
