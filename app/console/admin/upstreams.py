"""Accounts at vendors, for administrators: how they are, what they may, and their secrets, which no page ever shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from fastapi import APIRouter
from pydantic import SecretStr
from starlette.responses import Response

from app.catalog.inspection import Check
from app.catalog.routes import RouteInfo
from app.catalog.rows import KEEP
from app.catalog.upstreams import DEFAULT_CONCURRENCY, UpstreamInfo
from app.console import tables, wording
from app.console.admin.health import ROUTE_COLUMNS, account_health, route_lines
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
from app.console.wording import _
from app.errors import InvalidParameter, MediagateError

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

UPSTREAMS = "/console/admin/upstreams"
MOVES: Mapping[str, tuple[Literal["active", "draining", "disabled"], str]] = {
    "enable": ("active", "enabled"),
    "drain": ("draining", "draining"),
    "disable": ("disabled", "disabled"),
}
"""What a button does: the state it brings, and the notice afterwards."""
CHECKS: Mapping[str, str] = {
    "state": _("State"),
    "secret": _("Secret"),
    "routes": _("Routes"),
    "host": _("Host"),
    "vendor": _("Vendor"),
    "models": _("Models"),
}
OUTCOMES: Mapping[str, tuple[str, str, str]] = {
    "good": (_("Good"), "circle-check", "good"),
    "bad": (_("Bad"), "circle-x", "bad"),
    "unknown": (_("Not certain"), "circle-alert", "warn"),
}
"""An outcome's name, icon and tone."""
FOUND = frozenset(
    {
        _("It waits for a start at which the variable %(variable)s is set."),
        _("Set, and it can be opened."),
        _("None is set, and none is needed."),
        _("None is set: store one, as the field 'secret'."),
        _("None is set: start with the variable %(variable)s, or store one, as the field 'secret'."),
        _("It was not opened: %(problem)s"),
        _("%(place)s answers."),
        _("%(place)s does not answer (%(error)s)."),
        _("The vendor's list has the models of all routes."),
        _("Not in the vendor's list: %(models)s."),
        _("The vendor accepted the secret."),
        _("The vendor accepted the secret. Left there: %(balance)s."),
        _("It answers, and asks for no secret."),
        _("It answers, but shows this to anybody: whether the secret is good was not judged."),
        _("This provider works on this machine: there is no vendor to ask."),
        _("This provider has no free call, so the vendor was not asked."),
        _("It answers, but has no such call (status %(status)s): the secret was not judged."),
        _("The vendor refused the secret: %(words)s"),
        _("The vendor knows the secret, but the balance or quota there is used up: %(words)s"),
        _("The account cannot be used as it is set up: %(words)s"),
        _("It answers, but is busy or limits how often we may ask (status %(status)s): the secret was not judged."),
        _("The vendor cannot be reached: %(words)s"),
        _("No answer within %(seconds)s s: nobody can tell."),
        _("Its answer does not tell: %(words)s"),
        _("The provider's own code failed (%(words)s)."),
    }
)
"""The sentences of `app.catalog.inspection`, in the reader's language."""
ACCOUNT_COLUMNS: Mapping[str, Callable[[UpstreamInfo], object]] = {
    "name": lambda account: account.name,
    "provider": lambda account: account.provider,
    "state": lambda account: account.state,
    "has_secret": lambda account: account.has_secret,
    "secret_version": lambda account: account.version,
    "unfinished_tasks": lambda account: account.open_tasks,
    "concurrency": lambda account: account.concurrency,
    "created_at": lambda account: account.created_at,
}


@router.get(UPSTREAMS)
async def upstreams(visitor: AdminVisitor) -> Response:
    request, book = visitor.request, visitor.services.book
    accounts = await book.upstreams.list()
    every = await route_lines(visitor, await book.routes.list())
    health = {account.name: account_health(account, every) for account in accounts}
    if tables.wants_csv(request) and tables.query(request, "table") == "accounts":
        columns = {**ACCOUNT_COLUMNS, "health": lambda account: health[account.name].state}
        return tables.csv_file("upstreams.csv", columns, accounts)
    model, upstream = tables.query(request, "model"), tables.query(request, "upstream")
    lines = [
        line
        for line in every
        if model in (None, line.route.entry.model) and upstream in (None, line.route.entry.upstream)
    ]
    if tables.wants_csv(request):
        return tables.csv_file("routes.csv", ROUTE_COLUMNS, lines)
    return visitor.page(
        "admin/upstreams.html",
        nav=UPSTREAMS,
        accounts=accounts,
        lines=lines,
        health=health,
        is_filtered=tables.is_filtered(request),
        problems=await book.routes.problems(),
        models=sorted(visitor.services.catalog.models),
        query=lambda name: tables.query(request, name),
        csv=tables.Paging.of(request, has_more=False, last=None).csv,
    )


@router.get(f"{UPSTREAMS}/new")
async def new_upstream(visitor: AdminVisitor) -> Response:
    return _new_page(visitor, blank(concurrency=DEFAULT_CONCURRENCY, options="{}"))


def _new_page(visitor: Visitor, form: Form, *, status: int = 200) -> Response:
    providers = sorted(visitor.services.registry.capabilities)
    return visitor.page("admin/upstream_new.html", status=status, nav=UPSTREAMS, form=form, providers=providers)


@router.post(f"{UPSTREAMS}/new")
async def create_upstream(visitor: AdminVisitor, form: FormDep) -> Response:
    try:
        options, concurrency = options_of(form), form.needed("concurrency")
        async with once(visitor, form, back=UPSTREAMS) as sending:
            made = await visitor.services.book.upstreams.add(
                form.text("name"),
                provider=form.text("provider"),
                base_url=form.find("base_url"),
                secret=_secret(form),
                options=options,
                concurrency=concurrency,
                actor=visitor.actor,
            )
            sending.made = f"{UPSTREAMS}/{made.name}"
    except MediagateError as error:
        return _new_page(visitor, form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, f"{UPSTREAMS}/{made.name}", done="created")


def options_of(form: Form) -> dict[str, Any]:
    """Return the options of an account or a route, written as JSON. Raises: InvalidParameter."""
    try:
        options = json.loads(form.raw("options").strip() or "{}")
    except ValueError as error:
        raise InvalidParameter(f"'options' must be a JSON object: {error}.", param="options") from None
    except RecursionError:
        raise InvalidParameter("'options' must be a JSON object.", param="options") from None
    if not isinstance(options, dict):
        raise InvalidParameter("'options' must be a JSON object.", param="options")
    return cast("dict[str, Any]", options)


def shown_options(options: Mapping[str, Any]) -> str:
    return json.dumps(options, ensure_ascii=False, indent=2)


def _secret(form: Form) -> SecretStr | None:
    text = form.raw("secret").strip()
    return SecretStr(text) if text else None


# --- one of them ----------------------------------------------------------------------------------------------------


@router.get(UPSTREAMS + "/{name}")
async def upstream_page(visitor: AdminVisitor, name: str) -> Response:
    account = await visitor.services.book.upstreams.get(name)
    return await _page(visitor, account, _form_of(account))


def _form_of(account: UpstreamInfo) -> Form:
    options = shown_options(dict(account.options))
    return showing(blank(base_url=account.base_url, concurrency=account.concurrency, options=options))


async def _page(
    visitor: Visitor, account: UpstreamInfo, form: Form, *, status: int = 200, wrong: str | None = None, **more: Any
) -> Response:
    """``wrong`` is the form that could not be done."""
    every = await visitor.services.book.routes.list()
    lines = await route_lines(visitor, [route for route in every if route.entry.upstream == account.name])
    outcomes = await visitor.services.statistics.outcomes("24h", by="upstream")
    return visitor.page(
        "admin/upstream.html",
        status=status,
        nav=UPSTREAMS,
        account=account,
        lines=lines,
        health=account_health(account, lines),
        faults=await visitor.services.faults.of_upstream(account.name),
        figures=next((row for row in outcomes if row.group == account.name), None),
        alone=await _alone(visitor, account, every) if account.state == "active" else 0,
        check_names=CHECKS,
        outcomes=OUTCOMES,
        found_text=lambda check: _found_text(visitor, check),
        form=form,
        wrong=wrong,
        **{"checks": None, **more},
    )


async def _alone(visitor: Visitor, account: UpstreamInfo, routes: Sequence[RouteInfo]) -> int:
    """Return how many models are left without a route when this account takes no more tasks."""
    active = {one.name for one in await visitor.services.book.upstreams.list() if one.state == "active"}
    open_routes = [route.entry for route in routes if route.entry.is_enabled and route.entry.upstream in active]
    here = {entry.model for entry in open_routes if entry.upstream == account.name}
    return len(here - {entry.model for entry in open_routes if entry.upstream != account.name})


def _found_text(visitor: Visitor, check: Check) -> str:
    """Return what a check found, in the page's language where the words are ours."""
    if check.text in FOUND:
        return visitor.gettext(check.text) % check.values
    if check.name == "state" and check.text in wording.STATES:
        return visitor.gettext(wording.STATES[check.text][0])
    return check.found


@router.post(UPSTREAMS + "/{name}")
async def update_upstream(visitor: AdminVisitor, name: str, form: FormDep) -> Response:
    book = visitor.services.book
    account = await book.upstreams.get(name)
    try:
        wanted = changed(form, _form_of(account))
        await book.upstreams.update(
            name,
            base_url=form.find("base_url") if "base_url" in wanted else KEEP,
            options=options_of(form) if "options" in wanted else KEEP,
            concurrency=form.needed("concurrency") if "concurrency" in wanted else KEEP,
            secret=_secret(form) or KEEP,
            actor=visitor.actor,
        )
    except MediagateError as error:
        form = refused(visitor, form, _form_of(account), error)
        return await _page(visitor, account, form, status=error.status, wrong="settings")
    return go(visitor.request, f"{UPSTREAMS}/{name}", done="saved")


@router.post(UPSTREAMS + "/{name}/secret")
async def rotate_secret(visitor: AdminVisitor, name: str, form: FormDep) -> Response:
    book = visitor.services.book
    account = await book.upstreams.get(name)
    try:
        secret = _secret(form)
        if secret is None:
            raise InvalidParameter("'secret' must not be empty.", param="secret")
        await book.upstreams.rotate(name, secret, actor=visitor.actor)
    except MediagateError as error:
        again = _form_of(account)
        again.error = form.refuse(visitor.request, error).error or form.errors.get("secret")
        return await _page(visitor, account, again, status=error.status, wrong="secret")
    return go(visitor.request, f"{UPSTREAMS}/{name}", done="saved")


@router.post(UPSTREAMS + "/{name}/test")
async def test_upstream(visitor: AdminVisitor, name: str, form: FormDep) -> Response:
    """Look at the account from all sides; nothing is paid for."""
    account = await visitor.services.book.upstreams.get(name)
    checks = await visitor.services.inspector.inspect(name)
    return await _page(visitor, account, _form_of(account), checks=checks)


@router.post(UPSTREAMS + "/{name}/delete")
async def delete_upstream(visitor: AdminVisitor, name: str, form: FormDep) -> Response:
    book = visitor.services.book
    account = await book.upstreams.get(name)
    if form.text("confirm") != name:
        again = _form_of(account)
        again.error = visitor.gettext("Write the account's name to delete it.")
        return await _page(visitor, account, again, status=400, wrong="delete")
    await book.upstreams.delete(name, actor=visitor.actor)
    return go(visitor.request, UPSTREAMS, done="deleted")


@router.post(UPSTREAMS + "/{name}/{move}")
async def move_upstream(
    visitor: AdminVisitor, name: str, move: Literal["enable", "drain", "disable"], form: FormDep
) -> Response:
    state, done = MOVES[move]
    await visitor.services.book.upstreams.set_state(name, state, actor=visitor.actor)
    return go(visitor.request, f"{UPSTREAMS}/{name}", done=done)
