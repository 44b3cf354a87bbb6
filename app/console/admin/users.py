"""Users, for administrators: who may use the gateway, how much at once, and the links that let them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import cast

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.invitations import TTL, Purpose, join_url
from app.accounts.key_info import KeySearch
from app.accounts.users import Account, AccountSearch, Opening, State
from app.console import tables
from app.console.admin.reading import account_of, number_after
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
from app.console.wording import KINDS, _
from app.credits.lines import Kind, checked_reference, opening
from app.credits.statements import LedgerSearch, UsageCell
from app.errors import InvalidParameter, MediagateError, RouteNotFound
from app.values import MAX_CREDITS, utcnow

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

USERS = "/console/admin/users"
STATES = ("active", "suspended", "closed")
START_KINDS = ("grant", "topup")
CHART_DAYS = 30
CHART_MODELS = 5
"""The others are shown as one."""
LINES, KEYS = 8, 6

COLUMNS: Mapping[str, Callable[[Account], object]] = {
    "id": lambda account: account.public_id,
    "email": lambda account: account.email,
    "name": lambda account: account.name,
    "state": lambda account: account.state,
    "is_admin": lambda account: account.is_admin,
    "credits": lambda account: account.credits,
    "held": lambda account: account.held,
    "in_flight": lambda account: account.in_flight,
    "max_in_flight": lambda account: account.max_in_flight,
    "created_at": lambda account: account.created_at,
}


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an account's state: what its page says."""

    title: str
    text: str
    button: str
    done: str
    is_danger: bool
    starts_from: tuple[State, ...]


CHANGES: Mapping[str, Change] = {
    "suspend": Change(
        _("Suspend %(email)s"),
        _("New tasks are refused from now on. Running tasks end as they are, and the user can still sign in and read."),
        _("Suspend"),
        "suspended",
        True,
        ("active",),
    ),
    "sign-out": Change(
        _("Sign %(email)s out"),
        _("All sessions end now, on every device. API keys go on, and the user can sign in again."),
        _("Sign out everywhere"),
        "user-signed-out",
        True,
        ("active", "suspended"),
    ),
    "resume": Change(
        _("Resume %(email)s"), _("The user can start tasks again."), _("Resume"), "resumed", False, ("suspended",)
    ),
    "close": Change(
        _("Close %(email)s for good"),
        _("All API keys are revoked and all sessions end, for good. Credits and ledger stay in the books."),
        _("Close for good"),
        "closed",
        True,
        ("active", "suspended"),
    ),
}


def address(account: Account) -> str:
    return f"{USERS}/{account.public_id}"


@router.get(USERS)
async def users(visitor: AdminVisitor) -> Response:
    request = visitor.request
    wanted = AccountSearch(
        q=tables.query(request, "q"),
        state=cast("State | None", tables.query(request, "state", STATES)),
        is_admin={"yes": True, "no": False}.get(tables.query(request, "admin") or ""),
        limit=tables.PAGE_ROWS,
    )
    search = visitor.services.accounts.search
    if tables.wants_csv(request):
        pages = tables.by_rows(
            lambda after: search(replace(wanted, after=after, limit=tables.CSV_PAGE_ROWS)), lambda account: account.id
        )
        return await tables.csv_pages("users.csv", COLUMNS, pages)
    found, has_more = await search(replace(wanted, after=number_after(request)))
    last = found[-1].id if found else None
    return visitor.page(
        "admin/users.html",
        nav=USERS,
        users=found,
        wanted=wanted,
        paging=tables.Paging.of(request, has_more=has_more, last=last),
        is_filtered=tables.is_filtered(request),
    )


# --- a new one ------------------------------------------------------------------------------------------------------


@router.get(f"{USERS}/new")
async def new_user(visitor: AdminVisitor) -> Response:
    return visitor.page("admin/user_new.html", nav=USERS, form=blank(kind="grant"))


@router.post(f"{USERS}/new")
async def create_user(visitor: AdminVisitor, form: FormDep) -> Response:
    """Make the account, give its first credits, and show the link that lets its user in: once."""
    services = visitor.services
    try:
        start = _start(form)
        async with once(visitor, form, back=USERS) as sending:
            account = await services.accounts.create(
                form.text("email"),
                name=form.find("name"),
                is_admin=form.is_on("is_admin"),
                opening=start,
                actor=visitor.actor,
            )
            sending.made = address(account)
    except MediagateError as error:
        form.refuse(visitor.request, error)
        return visitor.page("admin/user_new.html", status=error.status, nav=USERS, form=form)
    token = await services.invitations.invite(account.id, purpose="invite", actor=visitor.actor)
    return await _link_page(visitor, account, "invite", token, is_new=True)


def _start(form: Form) -> Opening | None:
    """Return what gives the first credits. Raises: InvalidParameter."""
    amount = form.number("credits")
    if amount is not None and not 1 <= amount <= MAX_CREDITS:
        raise InvalidParameter(f"'credits' must be between 1 and {MAX_CREDITS}.", param="credits")
    kind = form.text("kind", "grant")
    if kind not in START_KINDS:
        raise InvalidParameter("'kind' must be one of: grant, topup.", param="kind")
    reference = checked_reference(form.text("reference")) if form.find("reference") else None
    return None if amount is None else opening(cast("Kind", kind), amount, reference=reference)


# --- one of them ----------------------------------------------------------------------------------------------------


@router.get(f"{USERS}/{{account_id}}")
async def user(visitor: AdminVisitor, account_id: str) -> Response:
    services, account = visitor.services, await account_of(visitor, account_id)
    until = utcnow()
    cells = await services.statements.daily_usage(
        account.id, start=until - timedelta(days=CHART_DAYS), end=until + timedelta(seconds=1)
    )
    keys, has_more_keys = await services.keys.search(KeySearch(account_id=account.id, limit=KEYS))
    lines, _has_more = await services.statements.search(LedgerSearch(account.id, limit=LINES))
    return visitor.page(
        "admin/user.html",
        nav=USERS,
        account=account,
        address=address(account),
        keys=keys,
        has_more_keys=has_more_keys,
        lines=lines,
        kinds=KINDS,
        usage=usage_chart(cells, until, visitor.gettext("Others")),
        spent=sum(cell.credits for cell in cells),
        sessions=await services.sessions.list(account.id),
        has_password=await services.logins.has_password(account.id),
        changes={name: change for name, change in CHANGES.items() if account.state in change.starts_from},
    )


def usage_chart(cells: Sequence[UsageCell], until: datetime, others: str) -> dict[str, object]:
    """Return credits by day and model for the macro ``chart``: the dearest models, and the others as one."""
    days = [f"{until - timedelta(days=back):%Y-%m-%d}" for back in range(CHART_DAYS, -1, -1)]
    sums: dict[str, int] = {}
    for cell in cells:
        sums[cell.group] = sums.get(cell.group, 0) + cell.credits
    named = sorted(sums, key=lambda model: (-sums[model], model))[:CHART_MODELS]
    by_day: dict[str, dict[str, int]] = {name: dict.fromkeys(days, 0) for name in named}
    for cell in cells:
        line = by_day.setdefault(cell.group if cell.group in named else others, dict.fromkeys(days, 0))
        line[cell.day] = line.get(cell.day, 0) + cell.credits
    series = [{"name": name, "values": [line[one] for one in days]} for name, line in by_day.items()]
    return {"x": days, "series": series, "kind": "stacked", "unit": ""}


@router.get(f"{USERS}/{{account_id}}/edit")
async def edit_user(visitor: AdminVisitor, account_id: str) -> Response:
    account = await account_of(visitor, account_id)
    form = _edit_form(account)
    return visitor.page("admin/user_edit.html", nav=USERS, account=account, address=address(account), form=form)


def _edit_form(account: Account) -> Form:
    fields = {"name": account.name, "max_in_flight": account.max_in_flight}
    return showing(blank(**fields, is_admin="on" if account.is_admin else ""))


@router.post(f"{USERS}/{{account_id}}/edit")
async def save_user(visitor: AdminVisitor, account_id: str, form: FormDep) -> Response:
    account = await account_of(visitor, account_id)
    try:
        if wanted := changed(form, _edit_form(account)):
            await visitor.services.accounts.update(
                account.id,
                name=form.text("name") if "name" in wanted else None,
                is_admin=form.is_on("is_admin") if "is_admin" in wanted else None,
                max_in_flight=form.needed("max_in_flight") if "max_in_flight" in wanted else None,
                actor=visitor.actor,
            )
    except MediagateError as error:
        form = refused(visitor, form, _edit_form(account), error)
        return visitor.page(
            "admin/user_edit.html",
            status=error.status,
            nav=USERS,
            account=account,
            address=address(account),
            form=form,
        )
    return go(visitor.request, address(account), done="saved")


# --- links that let them in -----------------------------------------------------------------------------------------


@router.get(f"{USERS}/{{account_id}}/link")
async def new_link(visitor: AdminVisitor, account_id: str) -> Response:
    account = await account_of(visitor, account_id)
    has_password = await visitor.services.logins.has_password(account.id)
    return _link_form(visitor, account, blank(purpose="reset" if has_password else "invite"))


@router.post(f"{USERS}/{{account_id}}/link")
async def make_link(visitor: AdminVisitor, account_id: str, form: FormDep) -> Response:
    account = await account_of(visitor, account_id)
    purpose: Purpose = "reset" if form.text("purpose") == "reset" else "invite"
    try:
        async with once(visitor, form, back=address(account)):
            token = await visitor.services.invitations.invite(
                account.id, purpose=purpose, reason=form.find("reason"), actor=visitor.actor
            )
    except MediagateError as error:
        return _link_form(visitor, account, form.refuse(visitor.request, error), status=error.status)
    return await _link_page(visitor, account, purpose, token)


def _link_form(visitor: Visitor, account: Account, form: Form, *, status: int = 200) -> Response:
    return visitor.page(
        "admin/user_link.html", status=status, nav=USERS, account=account, address=address(account), form=form
    )


async def _link_page(
    visitor: Visitor, account: Account, purpose: Purpose, token: str, *, is_new: bool = False
) -> Response:
    """Show a link, which nobody can read again."""
    return visitor.page(
        "admin/user_link_made.html",
        nav=USERS,
        account=await visitor.services.accounts.get(account.id),
        address=address(account),
        link=join_url(visitor.services.settings.base_url, token),
        expires_at=utcnow() + TTL[purpose],
        purpose=purpose,
        is_new=is_new,
    )


# --- their state ----------------------------------------------------------------------------------------------------


@router.get(f"{USERS}/{{account_id}}/state/{{change}}")
async def confirm_change(visitor: AdminVisitor, account_id: str, change: str) -> Response:
    return _change_page(visitor, await account_of(visitor, account_id), change, blank())


@router.post(f"{USERS}/{{account_id}}/state/{{change}}")
async def change_state(visitor: AdminVisitor, account_id: str, change: str, form: FormDep) -> Response:
    account, accounts = await account_of(visitor, account_id), visitor.services.accounts
    wanted, reason = _change(change), form.text("reason")
    try:
        if change == "suspend":
            await accounts.suspend(account.id, reason=reason, actor=visitor.actor)
        elif change == "sign-out":
            await visitor.services.sessions.end_all(account.id, reason=reason, actor=visitor.actor)
        elif change == "resume":
            await accounts.resume(account.id, reason=reason, actor=visitor.actor)
        else:
            await accounts.close(account.id, reason=reason, actor=visitor.actor)
    except MediagateError as error:
        return _change_page(visitor, account, change, form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, address(account), done=wanted.done)


def _change(name: str) -> Change:
    """Raises: RouteNotFound."""
    if name not in CHANGES:
        raise RouteNotFound("There is no such page.")
    return CHANGES[name]


def _change_page(visitor: Visitor, account: Account, name: str, form: Form, *, status: int = 200) -> Response:
    change = _change(name)
    text = visitor.gettext(change.text)
    if name == "close" and account.credits:
        left = visitor.gettext("Credits left, which nobody can spend then: %(num)s.") % {"num": account.credits}
        text = f"{text} {left}"
    return visitor.page(
        "admin/confirm.html",
        status=status,
        nav=USERS,
        title=visitor.gettext(change.title) % {"email": account.email},
        text=text,
        button=visitor.gettext(change.button),
        is_danger=change.is_danger,
        action=f"{address(account)}/state/{name}",
        back=address(account),
        form=form,
    )
