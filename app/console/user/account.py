"""The reader's account: name, password, language and theme, and where they are signed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
"""As a spreadsheet. There are too few sessions for a filter or pages: an account has at most fifty."""


@router.get(HERE)
async def account_page(visitor: SomeVisitor) -> Response:
    if tables.wants_csv(visitor.request):
        sessions = await visitor.services.sessions.list(visitor.account_id)
        return tables.csv_file("sessions.csv", SESSION_COLUMNS, sessions)
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
    return go(visitor.request, HERE, done="session-ended")


@router.post(HERE + "/sessions/end-others")
async def end_others(visitor: SomeVisitor, form: FormDep) -> Response:
    await visitor.services.sessions.close_others(visitor.account_id, keep=visitor.session.id)
    return go(visitor.request, HERE, done="sessions-ended")


async def _page(
    visitor: Visitor, *, profile: Form | None = None, password: Form | None = None, status: int = 200
) -> Response:
    services = visitor.services
    return visitor.page(
        "user/account.html",
        nav=None,
        status=status,
        profile=profile or blank(name=visitor.session.name),
        password=password or blank(),
        has_password=await services.logins.has_password(visitor.account_id),
        identities=await services.logins.identities(visitor.account_id),
        oidc_name=services.oidc.name if services.oidc else None,
        sessions=[
            (one, device(one.user_agent, visitor.gettext)) for one in await services.sessions.list(visitor.account_id)
        ],
        lengths=LENGTHS,
    )
