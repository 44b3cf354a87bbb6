"""Signing in and out, one-time links, registration, and what the top bar changes."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from app.accounts.invitations import Invitation
from app.accounts.passwords import MAX_CHARS, MIN_CHARS
from app.accounts.users import account_public_id
from app.api.deps import ServicesDep
from app.api.peer import peer_of, warn_of_unknown_proxy
from app.api.session import clear_cookie, read_session, set_cookie
from app.console import i18n, shell
from app.console.visitor import (
    LOGIN,
    ConsoleRoute,
    Form,
    FormDep,
    OpenFormDep,
    SessionDep,
    SomeVisitor,
    blank,
    go,
    safe_next,
)
from app.console.wording import _
from app.errors import LinkExpired, MediagateError, RegistrationClosed
from app.wiring import Services

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

JOIN, REGISTER = "/console/join", "/console/register"
NOT_DONE = _("You were signed out before this was done: nothing was changed. Sign in, then do it again.")
PREFERENCE_S = 365 * 86400
LENGTHS = {"minlength": MIN_CHARS, "maxlength": MAX_CHARS}
"""Of a new password, as a browser checks it before it is sent."""


@router.get(LOGIN)
async def login_page(request: Request, services: ServicesDep, session: SessionDep) -> Response:
    target = safe_next(request.query_params.get("next"))
    if session is not None:
        return go(request, target)
    form = blank(next=target)
    if "ended" in request.query_params:  # see `visitor`: a form was sent, and nobody was signed in any more
        form.error = shell.texts_of(request).gettext(NOT_DONE)
    return login(request, services, form)


@router.post(LOGIN)
async def log_in(request: Request, services: ServicesDep, session: SessionDep, form: OpenFormDep) -> Response:
    peer = peer_of(request, services.settings.proxies)
    warn_of_unknown_proxy(request, services.settings.proxies)
    try:
        found = await services.logins.sign_in(form.text("email"), form.raw("password"), peer=peer)
        target = safe_next(form.text("next"))
        return await signed_in(request, services, found.account_id, target, password_at=found.password_at)
    except MediagateError as error:
        return login(request, services, form.refuse(request, error), error)


async def signed_in(
    request: Request, services: Services, account_id: int, target: str, *, password_at: datetime | None = None
) -> Response:
    """Open a session, with an id of its own, and go on. The one this browser had before ends: its cookie goes.

    Raises: as `Sessions.open`.
    """
    peer, before = peer_of(request, services.settings.proxies), await read_session(request, services)
    agent = request.headers.get("user-agent")
    opened = await services.sessions.open(account_id, user_agent=agent, peer=peer, password_at=password_at)
    if before is not None:
        await services.sessions.close(before.account_id, before.id)
    response = go(request, target)
    set_cookie(response, services.settings, opened)
    return response


def login(request: Request, services: Services, form: Form, error: MediagateError | None = None) -> Response:
    """Show the sign-in, or again after an error."""
    return shell.render(
        request,
        "user/login.html",
        status=error.status if error else 200,
        headers=_headers(error),
        form=form,
        is_registration_open=services.registration.is_open,
        oidc_name=services.oidc.name if services.oidc else None,
    )


def _headers(error: MediagateError | None) -> dict[str, str]:
    return {"retry-after": str(error.retry_after_s)} if error and error.retry_after_s else {}


# --- one-time links -------------------------------------------------------------------------------------------------


@router.get(JOIN + "/{token}")
async def join_page(request: Request, services: ServicesDep, session: SessionDep, token: str) -> Response:
    try:
        return _join(request, await services.invitations.find(token), blank())
    except LinkExpired:
        return _expired(request)


@router.post(JOIN + "/{token}")
async def join(request: Request, services: ServicesDep, session: SessionDep, token: str, form: OpenFormDep) -> Response:
    try:
        invitation = await services.invitations.find(token)
    except LinkExpired:
        return _expired(request)
    try:
        account_id = await services.invitations.accept(token, form.raw("password"))
    except LinkExpired:
        return _expired(request)
    except MediagateError as error:
        return _join(request, invitation, form.refuse(request, error), error)
    target = "/console/admin" if invitation.is_admin else "/console"
    return await signed_in(request, services, account_id, target)


def _join(request: Request, invitation: Invitation, form: Form, error: MediagateError | None = None) -> Response:
    return shell.render(
        request,
        "user/join.html",
        status=error.status if error else 200,
        headers=_headers(error),
        form=form,
        invitation=invitation,
        lengths=LENGTHS,
    )


def _expired(request: Request) -> Response:
    return shell.render(request, "user/join_expired.html", status=LinkExpired.status)


# --- registration ---------------------------------------------------------------------------------------------------


@router.get(REGISTER)
async def register_page(request: Request, services: ServicesDep, session: SessionDep) -> Response:
    if not services.registration.is_open:
        raise RegistrationClosed
    if session is not None:
        return go(request, "/console")
    return _register(request, services, blank())


@router.post(REGISTER)
async def register(request: Request, services: ServicesDep, session: SessionDep, form: OpenFormDep) -> Response:
    peer = peer_of(request, services.settings.proxies)
    try:
        account_id = await services.registration.register(
            form.text("email"), form.text("name"), form.raw("password"), peer=peer
        )
    except RegistrationClosed:
        raise
    except MediagateError as error:
        return _register(request, services, form.refuse(request, error), error)
    return await signed_in(request, services, account_id, "/console")


def _register(request: Request, services: Services, form: Form, error: MediagateError | None = None) -> Response:
    return shell.render(
        request,
        "user/register.html",
        status=error.status if error else 200,
        headers=_headers(error),
        form=form,
        credits=services.settings.registration_credits,
        lengths=LENGTHS,
    )


# --- sessions -------------------------------------------------------------------------------------------------------


@router.post("/console/logout")
async def log_out(request: Request, services: ServicesDep, session: SessionDep, form: FormDep) -> Response:
    """End the session, and let the browser forget what it kept of it: pictures, prompts. Also when it ended before."""
    if session is not None:
        await services.sessions.close(session.account_id, session.id)
    response = go(request, LOGIN, done="signed-out")
    response.headers["clear-site-data"] = '"cache", "storage"'  # not all cookies: those of other hosts would go too
    clear_cookie(response, services.settings)
    return response


@router.get("/console/session")
async def session_now(visitor: SomeVisitor) -> Response:
    """Tell a page that was left for a while whether its person is still signed in, and the token its forms need now."""
    answer = {"account": account_public_id(visitor.account_id), "csrf": visitor.session.csrf}
    return JSONResponse(answer, headers=shell.HEADERS)


@router.post("/console/preferences")
async def set_preferences(request: Request, services: ServicesDep, session: SessionDep, form: FormDep) -> Response:
    """Change the language or the theme: of the account, or of this browser while nobody is signed in."""
    language = form.text("language", shell.language_of(request, session))
    theme = form.text("theme", shell.theme_of(request, session))
    response = go(request, safe_next(form.text("next")))
    if session is not None:
        await services.logins.set_preferences(session.account_id, language, theme)  # type: ignore[arg-type]
    secure = services.settings.base_url.startswith("https://")
    for name, value, allowed in (
        (i18n.COOKIE, language, tuple(i18n.LANGUAGES)),
        (shell.THEME_COOKIE, theme, shell.THEMES),
    ):
        if value in allowed:
            response.set_cookie(name, value, max_age=PREFERENCE_S, path="/console", secure=secure, samesite="lax")
    return response


@router.get("/console/balance")
async def balance(visitor: SomeVisitor) -> Response:
    return visitor.page("balance.html")
