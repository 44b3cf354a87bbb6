"""API keys of all users, for administrators. A secret is on one page, once; what a key can do is changed for good."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import cast

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.key_info import KeyInfo, KeySearch, KeyState, parse_key_id
from app.accounts.principal import SCOPES, USER_SCOPES, Period
from app.console import tables
from app.console.admin.reading import account_named, last_day, number_after
from app.console.key_columns import KEY_COLUMNS
from app.console.visitor import (
    AdminVisitor,
    ConsoleRoute,
    Form,
    FormDep,
    Visitor,
    blank,
    changed,
    go,
    once,
    refused,
    showing,
)
from app.errors import AccountNotFound, InvalidParameter, KeyNotFound, MediagateError, ModelNotFound

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

KEYS = "/console/admin/keys"
STATES = ("live", "revoked", "expired")
PERIODS = ("total", "month", "day")
OVERLAPS = (0, 1, 24, 72, 168, 720)
"""Hours that a replaced key works on."""


@router.get(KEYS)
async def keys(visitor: AdminVisitor) -> Response:
    request, services = visitor.request, visitor.services
    wanted = KeySearch(
        q=tables.query(request, "q"),
        state=cast("KeyState | None", tables.query(request, "state", STATES)),
        limit=tables.PAGE_ROWS,
    )
    account = None
    if reference := tables.query(request, "account"):
        try:
            account = await services.accounts.get(reference)
        except AccountNotFound:
            wanted = replace(wanted, account_id=0)  # nobody's
        else:
            wanted = replace(wanted, account_id=account.id)
    search = services.keys.search
    if tables.wants_csv(request):
        pages = tables.by_rows(
            lambda after: search(replace(wanted, after=after, limit=tables.CSV_PAGE_ROWS)), lambda key: key.id
        )
        return await tables.csv_pages("keys.csv", KEY_COLUMNS, pages)
    found, has_more = await search(replace(wanted, after=number_after(request)))
    return visitor.page(
        "admin/keys.html",
        nav=KEYS,
        keys=found,
        wanted=wanted,
        account=account,
        reference=reference,
        paging=tables.Paging.of(request, has_more=has_more, last=found[-1].id if found else None),
        is_filtered=tables.is_filtered(request),
    )


# --- a new one ------------------------------------------------------------------------------------------------------


@router.get(f"{KEYS}/new")
async def new_key(visitor: AdminVisitor) -> Response:
    form = blank(account=tables.query(visitor.request, "account") or "", period="total")
    form.fields["scopes"] = list(USER_SCOPES)
    return _new_page(visitor, form)


@router.post(f"{KEYS}/new")
async def create_key(visitor: AdminVisitor, form: FormDep) -> Response:
    services = visitor.services
    try:
        account = await account_named(visitor, form)
        models = _models(visitor, form)
        scopes = form.all("scopes")
        if not scopes:
            raise InvalidParameter("'scopes' must hold at least one.", param="scopes")
        budget, rpm, expires_at = form.number("budget"), form.number("rpm"), last_day(form, "expires_at")
        async with once(visitor, form, back=KEYS) as sending:
            minted = await services.keys.mint(
                account.id,
                name=form.text("name"),
                scopes=scopes,
                models=models,
                cidrs=_words(form.raw("cidrs")),
                budget=budget,
                period=_period(form),
                rpm=rpm,
                expires_at=expires_at,
                actor=visitor.actor,
            )
            sending.made = f"{KEYS}/{minted.public_id}"
    except MediagateError as error:
        form.fields.setdefault("scopes", [])
        return _new_page(visitor, form.refuse(visitor.request, error), status=error.status)
    return await _secret_page(visitor, minted.id, minted.secret)


def _new_page(visitor: Visitor, form: Form, *, status: int = 200) -> Response:
    return visitor.page(
        "admin/key_new.html",
        status=status,
        nav=KEYS,
        form=form,
        scopes=SCOPES,
        models=list(visitor.services.catalog.models),
    )


async def _secret_page(visitor: Visitor, key_id: int, secret: str, *, replaced: KeyInfo | None = None) -> Response:
    key = await visitor.services.keys.get(key_id)
    return visitor.page("admin/key_made.html", nav=KEYS, key=key, secret=secret, replaced=replaced)


def _models(visitor: Visitor, form: Form) -> list[str] | None:
    """Return the models that are ticked; None, so all there will be, when none is. Raises: InvalidParameter."""
    chosen = form.all("models")
    try:
        for model in chosen:
            visitor.services.catalog.get_model(model)
    except ModelNotFound as error:
        raise InvalidParameter(error.message, param="models") from error
    return chosen or None


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,;]+", text) if word]


def _period(form: Form) -> Period:
    """Raises: InvalidParameter."""
    period = form.text("period", "total")
    if period not in PERIODS:
        raise InvalidParameter("'period' must be one of: total, month, day.", param="period")
    return cast("Period", period)


# --- one of them ----------------------------------------------------------------------------------------------------


async def _key(visitor: Visitor, public_id: str) -> KeyInfo:
    """Raises: KeyNotFound, also for a console's own: nobody can change that."""
    key = await visitor.services.keys.get(parse_key_id(public_id[:100]))
    if key.is_console:
        raise KeyNotFound(public_id)
    return key


@router.get(f"{KEYS}/{{key_id}}")
async def key_page(visitor: AdminVisitor, key_id: str) -> Response:
    key = await _key(visitor, key_id)
    return _key_page(visitor, key, _limits_form(key))


def _limits_form(key: KeyInfo) -> Form:
    return showing(blank(budget=key.budget, period=key.period, max_in_flight=key.max_in_flight, rpm=key.rpm))


def _key_page(visitor: Visitor, key: KeyInfo, form: Form, *, status: int = 200) -> Response:
    return visitor.page("admin/key.html", status=status, nav=KEYS, key=key, form=form)


@router.post(f"{KEYS}/{{key_id}}/limits")
async def set_limits(visitor: AdminVisitor, key_id: str, form: FormDep) -> Response:
    key = await _key(visitor, key_id)
    try:
        wanted = changed(form, _limits_form(key))
        await visitor.services.keys.set_limits(
            key.id,
            budget=form.number("budget") if "budget" in wanted else key.budget,
            period=_period(form) if "period" in wanted else key.period,
            max_in_flight=form.number("max_in_flight") if "max_in_flight" in wanted else key.max_in_flight,
            rpm=form.number("rpm") if "rpm" in wanted else key.rpm,
            actor=visitor.actor,
        )
    except MediagateError as error:
        return _key_page(visitor, key, refused(visitor, form, _limits_form(key), error), status=error.status)
    return go(visitor.request, f"{KEYS}/{key.public_id}", done="saved")


@router.get(f"{KEYS}/{{key_id}}/rotate")
async def rotate_form(visitor: AdminVisitor, key_id: str) -> Response:
    return _rotate_page(visitor, await _key(visitor, key_id), blank(overlap=24))


@router.post(f"{KEYS}/{{key_id}}/rotate")
async def rotate(visitor: AdminVisitor, key_id: str, form: FormDep) -> Response:
    key = await _key(visitor, key_id)
    try:
        hours = form.needed("overlap")
        if hours not in OVERLAPS:
            raise InvalidParameter(f"'overlap' must be one of: {', '.join(map(str, OVERLAPS))}.", param="overlap")
        async with once(visitor, form, back=f"{KEYS}/{key.public_id}") as sending:
            minted = await visitor.services.keys.rotate(key.id, timedelta(hours=hours), actor=visitor.actor)
            sending.made = f"{KEYS}/{minted.public_id}"
    except MediagateError as error:
        return _rotate_page(visitor, key, form.refuse(visitor.request, error), status=error.status)
    return await _secret_page(visitor, minted.id, minted.secret, replaced=await visitor.services.keys.get(key.id))


def _rotate_page(visitor: Visitor, key: KeyInfo, form: Form, *, status: int = 200) -> Response:
    return visitor.page("admin/key_rotate.html", status=status, nav=KEYS, key=key, form=form, overlaps=OVERLAPS)


@router.get(f"{KEYS}/{{key_id}}/revoke")
async def revoke_form(visitor: AdminVisitor, key_id: str) -> Response:
    return _revoke_page(visitor, await _key(visitor, key_id), blank())


@router.post(f"{KEYS}/{{key_id}}/revoke")
async def revoke(visitor: AdminVisitor, key_id: str, form: FormDep) -> Response:
    key = await _key(visitor, key_id)
    try:
        await visitor.services.keys.revoke(key.id, reason=form.text("reason"), actor=visitor.actor)
    except MediagateError as error:
        return _revoke_page(visitor, key, form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, f"{KEYS}/{key.public_id}", done="revoked")


def _revoke_page(visitor: Visitor, key: KeyInfo, form: Form, *, status: int = 200) -> Response:
    return visitor.page(
        "admin/confirm.html",
        status=status,
        nav=KEYS,
        title=visitor.gettext("Revoke %(key)s of %(email)s") % {"key": key.public_id, "email": key.email},
        text=visitor.gettext("It stops working at once and for good. Tasks that run with it go on."),
        button=visitor.gettext("Revoke"),
        is_danger=True,
        action=f"{KEYS}/{key.public_id}/revoke",
        back=f"{KEYS}/{key.public_id}",
        form=form,
    )
