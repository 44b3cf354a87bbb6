"""API keys: a reader's own, what each may do and spend, and the one page that shows a secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, get_args

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.key_info import KeyInfo, KeySearch, KeyState, find_key_id, parse_key_id
from app.accounts.keys import MintedKey, Owner
from app.accounts.principal import ADMIN_SCOPE, PREFIX, USER_SCOPES, Period
from app.console import tables
from app.console.key_columns import OWN_KEY_COLUMNS
from app.console.snippets import first_call
from app.console.visitor import (
    ConsoleRoute,
    Form,
    FormDep,
    SomeVisitor,
    Visitor,
    blank,
    changed,
    go,
    once,
    refused,
    showing,
)
from app.console.wording import _
from app.errors import InvalidParameter, KeyNotFound, MediagateError
from app.values import utcnow

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

HERE = "/console/keys"
SCOPES: Mapping[str, tuple[str, str]] = {
    "images:write": (_("Make and edit images"), _("Spends credits")),
    "videos:write": (_("Make videos"), _("Spends credits")),
    "tasks:read": (_("Read tasks"), _("States, results and costs of all tasks of the account")),
    "files:read": (_("Download results"), _("Images and videos that were made")),
    "account:read": (_("Read the account"), _("Balance, usage and ledger")),
    "admin:*": (_("Administration"), _("Everything an administrator can do, through the API")),
}
"""What each scope lets a key do, in words."""
PERIODS: Mapping[str, str] = {"total": _("In total"), "day": _("Each day (UTC)"), "month": _("Each month (UTC)")}
LIVES: Mapping[str, str] = {
    "": _("Never"),
    "7": _("In 7 days"),
    "30": _("In 30 days"),
    "90": _("In 90 days"),
    "365": _("In a year"),
}
"""When a new key ends, in days."""
OVERLAPS: Mapping[str, str] = {"0": _("Not at all"), "1": _("1 hour"), "24": _("24 hours"), "168": _("7 days")}
"""How long a rotated key works on, in hours."""
FILTERS: Mapping[str, str] = {"live": _("Active"), "revoked": _("Revoked"), "expired": _("Expired")}


def new_form() -> Form:
    """Return the form as it is shown first: to send it as it is makes a useful key."""
    form = blank(name="", budget="", period="total", rpm="", cidrs="", expires_in="")
    form.fields["scopes"] = list(USER_SCOPES)
    return form


@router.get(HERE)
async def list_keys(visitor: SomeVisitor) -> Response:
    request = visitor.request

    async def read(after: int | None, limit: int = tables.PAGE_ROWS) -> tuple[Sequence[KeyInfo], bool]:
        return await visitor.services.keys.search(_search(visitor, after, limit))

    if tables.wants_csv(request):
        pages = tables.by_rows(lambda after: read(after, tables.CSV_PAGE_ROWS), lambda key: key.id)
        return await tables.csv_pages("keys.csv", OWN_KEY_COLUMNS, pages)
    return await _page(visitor, new_form())


@router.post(HERE)
async def create_key(visitor: SomeVisitor, form: FormDep) -> Response:
    try:
        wanted = {**_rights(visitor, form), **_limits(form)}
        async with once(visitor, form, back=HERE) as sending:
            minted = await visitor.services.keys.mint(
                visitor.account_id, **wanted, owner=_owner(visitor), actor=visitor.actor
            )
            sending.made = f"{HERE}/{minted.public_id}"
    except MediagateError as error:
        return await _page(visitor, form.refuse(visitor.request, error), status=error.status)
    return await _secret(visitor, minted)


@router.get(HERE + "/{key}")
async def one_key(visitor: SomeVisitor, key: str) -> Response:
    return await _one(visitor, await _own(visitor, key))


@router.post(HERE + "/{key}/limits")
async def set_limits(visitor: SomeVisitor, key: str, form: FormDep) -> Response:
    found = await _own(visitor, key)
    try:
        wanted = changed(form, _limits_form(found))
        given = {**_limits(form), "max_in_flight": form.number("max_in_flight")}
        await visitor.services.keys.set_limits(
            found.id,
            **{name: value if name in wanted else getattr(found, name) for name, value in given.items()},
            owner=_owner(visitor),
            actor=visitor.actor,
        )
    except MediagateError as error:
        return await _one(
            visitor, found, limits=refused(visitor, form, _limits_form(found), error), status=error.status
        )
    return go(visitor.request, f"{HERE}/{found.public_id}", done="saved")


@router.post(HERE + "/{key}/rotate")
async def rotate_key(visitor: SomeVisitor, key: str, form: FormDep) -> Response:
    found = await _own(visitor, key)
    try:
        hours = form.text("overlap")
        if hours not in OVERLAPS:
            raise InvalidParameter(f"'overlap' must be one of: {', '.join(OVERLAPS)}.", param="overlap")
        async with once(visitor, form, back=f"{HERE}/{found.public_id}") as sending:
            minted = await visitor.services.keys.rotate(
                found.id, timedelta(hours=int(hours)), owner=_owner(visitor), actor=visitor.actor
            )
            sending.made = f"{HERE}/{minted.public_id}"
    except MediagateError as error:
        return await _one(visitor, found, rotation=form.refuse(visitor.request, error), status=error.status)
    return await _secret(visitor, minted, old=await visitor.services.keys.get(found.id))


@router.post(HERE + "/{key}/revoke")
async def revoke_key(visitor: SomeVisitor, key: str, form: FormDep) -> Response:
    found = await _own(visitor, key)
    await visitor.services.keys.revoke(found.id, actor=visitor.actor)
    return go(visitor.request, HERE, done="revoked")


async def _own(visitor: Visitor, key: str) -> KeyInfo:
    """Raises: KeyNotFound, also for one of another account, and for the console's own."""
    found = await visitor.services.keys.get(parse_key_id(key))
    if found.account_id != visitor.account_id or found.is_console:
        raise KeyNotFound(key[:64])
    return found


def _search(visitor: Visitor, after: int | None, limit: int) -> KeySearch:
    state: Any = tables.query(visitor.request, "state", get_args(KeyState))
    q = tables.query(visitor.request, "q")
    return KeySearch(q=q, account_id=visitor.account_id, state=state, after=after, limit=limit)


async def _page(visitor: Visitor, form: Form, *, status: int = 200) -> Response:
    after = find_key_id(visitor.request.query_params.get("after", ""))
    found, has_more = await visitor.services.keys.search(_search(visitor, after, tables.PAGE_ROWS))
    return visitor.page(
        "user/keys.html",
        nav=HERE,
        status=status,
        form=form,
        is_refused=status != 200,
        keys=found,
        paging=tables.Paging.of(visitor.request, has_more=has_more, last=found[-1].public_id if found else None),
        is_filtered=tables.is_filtered(visitor.request),
        choices=visitor.choices,
        filters=FILTERS,
        scopes=_scopes(visitor),
        models=visitor.services.catalog.models.values(),
        periods=PERIODS,
        lives=LIVES,
        prefix=PREFIX,
    )


async def _one(
    visitor: Visitor, key: KeyInfo, *, limits: Form | None = None, rotation: Form | None = None, status: int = 200
) -> Response:
    return visitor.page(
        "user/key.html",
        nav=HERE,
        status=status,
        key=key,
        choices=visitor.choices,
        limits=limits or _limits_form(key),
        rotation=rotation or blank(overlap="24"),
        scopes=SCOPES,
        periods=PERIODS,
        overlaps=OVERLAPS,
        prefix=PREFIX,
        key_rpm=visitor.services.settings.key_rpm,
    )


def _limits_form(key: KeyInfo) -> Form:
    return showing(blank(budget=key.budget, period=key.period, rpm=key.rpm, max_in_flight=key.max_in_flight))


async def _secret(visitor: Visitor, minted: MintedKey, old: KeyInfo | None = None) -> Response:
    """Show a secret, this once: a page that is stored nowhere, and that no reload brings back."""
    key = await visitor.services.keys.get(minted.id)
    base_url = visitor.services.settings.base_url
    snippets = first_call(visitor.services.catalog, base_url, minted.secret, key.scopes, key.models, visitor.gettext)
    return visitor.page("user/key_secret.html", nav=HERE, key=key, secret=minted.secret, snippets=snippets, old=old)


def _scopes(visitor: Visitor) -> Mapping[str, tuple[str, str]]:
    """Return what this visitor may give to a key."""
    return {scope: words for scope, words in SCOPES.items() if scope != ADMIN_SCOPE or visitor.session.is_admin}


def _rights(visitor: Visitor, form: Form) -> dict[str, Any]:
    """Read what a new key may do. Raises: InvalidParameter, ModelNotFound."""
    scopes = form.all("scopes")
    if not scopes:
        raise InvalidParameter(visitor.gettext("Choose at least one permission."), param="scopes")
    for model in form.all("models"):
        visitor.services.catalog.get_model(model)
    days = form.text("expires_in")
    if days not in LIVES:
        raise InvalidParameter(f"'expires_in' must be one of: {', '.join(LIVES)[2:]}.", param="expires_in")
    return {
        "name": form.text("name"),
        "scopes": scopes,
        "models": form.all("models") or None,
        "cidrs": form.raw("cidrs").replace(",", " ").split(),
        "expires_at": utcnow() + timedelta(days=int(days)) if days else None,
    }


def _owner(visitor: Visitor) -> Owner:
    return Owner(visitor.services.settings.key_rpm)


def _limits(form: Form) -> dict[str, Any]:
    """Read what a key may spend. Raises: InvalidParameter."""
    period: Period = form.text("period", "total")  # type: ignore[assignment]
    return {"budget": form.number("budget"), "period": period, "rpm": form.number("rpm")}
