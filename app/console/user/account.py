"""The reader's account: name, password, language and theme, and where they are signed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.sessions import Session
from app.console import tables
from app.console.user.devices import device
from app.console.user.sign_in import LENGTHS
from app.console.visitor import ConsoleRoute, Form, FormDep, SomeVisitor, Visitor, blank, go
from app.errors import MediagateError, WrongPassword

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

HERE = "/console/account"
SESSION_COLUMNS: Mapping[str, Callable[[Session], object]] = {
    "id": lambda one: one.id,
    "device": lambda one: one.user_agent,
    "address": lambda one: one.peer,
    "seen_at": lambda one: one.seen_at,
    "created_at": lambda one: one.created_at,
    "expires_at": lambda one: one.expires_at,
}
"""As a spreadsheet."""
SESSION_ROWS = 20
"""On a page: an account has fifty sessions at most."""


@router.get(HERE)
async def account_page(visitor: SomeVisitor) -> Response:
    if tables.wants_csv(visitor.request):
        sessions = await visitor.services.sessions.list(visitor.account_id)
        return tables.csv_file("sessions.csv", SESSION_COLUMNS, _matching(visitor, sessions))
    return await _page(visitor)


@router.post(HERE + "/profile")
async def set_profile(visitor: SomeVisitor, form: FormDep) -> Response:
    try:
        await visitor.services.accounts.update(visitor.account_id, name=form.text("name"), actor=visitor.actor)
    except MediagateError as error:
        return await _page(visitor, profile=form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, HERE, done="saved")


@router.post(HERE + "/password")
async def change_password(visitor: SomeVisitor, form: FormDep) -> Response:
    try:
        await visitor.services.logins.change_password(
            visitor.account_id,
            form.raw("old_password"),
            form.raw("new_password"),
            keep=visitor.session.id,
            actor=visitor.actor,
        )
    except MediagateError as error:
        form.refuse(visitor.request, error)
        if isinstance(error, WrongPassword):
            form.error, form.errors["old_password"] = None, visitor.gettext("This is not your current password.")
        return await _page(visitor, password=form, status=error.status)
    return go(visitor.request, HERE, done="password-changed")


@router.post(HERE + "/sessions/end")
async def end_session(visitor: SomeVisitor, form: FormDep) -> Response:
    await visitor.services.sessions.close(visitor.account_id, form.text("session"))
    return go(visitor.request, HERE, done="session-ended", q=form.find("q"))


@router.post(HERE + "/sessions/end-others")
async def end_others(visitor: SomeVisitor, form: FormDep) -> Response:
    await visitor.services.sessions.close_others(visitor.account_id, keep=visitor.session.id)
    return go(visitor.request, HERE, done="sessions-ended")


async def _page(
    visitor: Visitor, *, profile: Form | None = None, password: Form | None = None, status: int = 200
) -> Response:
    services = visitor.services
    sessions = await services.sessions.list(visitor.account_id)
    found = _matching(visitor, sessions)
    ids, after = [one.id for one in found], visitor.request.query_params.get("after")
    begin = ids.index(after) + 1 if after in ids else 0  # that one may have ended meanwhile
    shown = found[begin : begin + SESSION_ROWS]
    return visitor.page(
        "user/account.html",
        nav=None,
        status=status,
        profile=profile or blank(name=visitor.session.name),
        password=password or blank(),
        has_password=await services.logins.has_password(visitor.account_id),
        identities=await services.logins.identities(visitor.account_id),
        oidc_name=services.oidc.name if services.oidc else None,
        sessions=[(one, device(one.user_agent, visitor.gettext)) for one in shown],
        has_others=len(sessions) > 1,
        q=tables.query(visitor.request, "q"),
        paging=tables.Paging.of(
            visitor.request, has_more=len(found) > begin + len(shown), last=shown[-1].id if shown else None
        ),
        lengths=LENGTHS,
    )


def _matching(visitor: Visitor, sessions: Sequence[Session]) -> list[Session]:
    """Return the sessions whose device, as it is named here or by itself, or whose address holds the filter's text."""
    part = (tables.query(visitor.request, "q") or "").casefold()

    def text(one: Session) -> str:
        return f"{device(one.user_agent, visitor.gettext)}\n{one.user_agent}\n{one.peer or ''}".casefold()

    return [one for one in sessions if part in text(one)]
