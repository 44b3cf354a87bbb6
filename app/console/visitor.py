"""Who looks at a page, what their form says, and what becomes of errors: every page's first dependencies.

`ConsoleRoute` turns errors into pages. A form that cannot be done is shown again with its words (`Form.refuse`), one
that was sent twice is done once (`once`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

import structlog
from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import RedirectResponse, Response

from app.accounts.forms import Sending, SentBefore
from app.accounts.sessions import Session
from app.api.deps import ServicesDep
from app.api.errors import public_error, request_id_of
from app.api.errors import render as render_error
from app.api.session import CSRF_HEADER, check_origin, check_token, read_session
from app.console import refusals, shell
from app.console.navigation import place_of
from app.errors import InvalidParameter, MediagateError, MethodNotAllowed, RouteNotFound, SessionEnded
from app.journal import Actor
from app.values import new_id
from app.wiring import Services

log = structlog.get_logger(__name__)

LOGIN = "/console/login"
MAX_FORM_BYTES = 2 * 1024 * 1024
MAX_FIELDS = 500
NUMBER = re.compile(r"[+-]?([0-9]{1,18}|[0-9]{1,3}(,[0-9]{3}){1,5})")
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")


class SignInNeeded(Exception):
    """Nobody is signed in, and this page is somebody's."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page."""

    request: Request
    services: Services
    session: Session

    @property
    def account_id(self) -> int:
        return self.session.account_id

    @property
    def actor(self) -> Actor:
        """For the audit: who changes something from a page."""
        return Actor(f"{self.session.email} (console)", request_id_of(self.request))

    def page(self, template: str, *, status: int = 200, **context: Any) -> Response:
        return shell.render(self.request, template, status=status, **context)

    def gettext(self, message: str) -> str:
        return shell.texts_of(self.request).gettext(message)

    def choices(self, words: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return values with their translated words, as `ui.select` takes them."""
        return [(value, self.gettext(word)) for value, word in words.items()]


async def find_session(request: Request, services: ServicesDep) -> Session | None:
    """Return the session of a request, if any; its page finds it in the request's state."""
    return await read_session(request, services)


SessionDep = Annotated[Session | None, Depends(find_session)]


async def visitor(request: Request, services: ServicesDep, session: SessionDep) -> Visitor:
    """Raises: SignInNeeded."""
    if session is None:
        raise SignInNeeded
    structlog.contextvars.bind_contextvars(account_id=session.account_id)
    return Visitor(request, services, session)


SomeVisitor = Annotated[Visitor, Depends(visitor)]


async def admin_visitor(request: Request, found: SomeVisitor) -> Visitor:
    """Raises: RouteNotFound: to everybody else these pages are not there."""
    if not found.session.is_admin:
        raise RouteNotFound(f"There is no {request.method} {request.url.path[:200]} here.")
    return found


AdminVisitor = Annotated[Visitor, Depends(admin_visitor)]


# --- forms ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Form:
    """What was sent, as text, and what is wrong with it."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """Small uploads, such as a list of models."""
    error: str | None = None
    """About the form as a whole."""
    errors: dict[str, str] = field(default_factory=dict)
    """By the field's name."""
    id: str = ""
    """Of this showing of the form: it is done once."""
    error_request_id: str | None = None

    def text(self, name: str, default: str = "") -> str:
        """Return a field without the spaces around it."""
        return self.fields.get(name, [default])[0].strip()

    def find(self, name: str) -> str | None:
        """Return a field, or None when it was left empty."""
        return self.text(name) or None

    def raw(self, name: str) -> str:
        """Return a field as it was typed: a password, a document."""
        return self.fields.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        return [value.strip() for value in self.fields.get(name, ()) if value.strip()]

    def number(self, name: str) -> int | None:
        """Return a whole number, or None when it was left empty. Raises: InvalidParameter."""
        text = self.text(name)
        if not text:
            return None
        if not NUMBER.fullmatch(text):  # a comma groups thousands or is nothing: 1,5 is neither 15 nor 1.5
            raise _no_number(name)
        return int(text.replace(",", ""))

    def needed(self, name: str) -> int:
        """Raises: InvalidParameter, also when it was left empty."""
        value = self.number(name)
        if value is None:
            raise _no_number(name)
        return value

    def is_on(self, name: str) -> bool:
        return self.text(name) in ("on", "true", "1", "yes")

    def refuse(self, request: Request, error: MediagateError) -> Form:
        """Note why the form cannot be done; it is shown again, to be sent again. Raises: ``error``, if it is ours."""
        if error.status >= 500:
            raise error
        message = refusals.of_error(error, shell.texts_of(request))
        if error.param and error.param in self.fields:
            self.errors[error.param] = message
        else:
            self.error = message
        self.error_request_id = request_id_of(request)
        self.id = str(new_id())
        return self


def _no_number(name: str) -> InvalidParameter:
    return InvalidParameter(f"'{name}' must be a whole number of at most 18 digits, such as 1500 or 1,500.", param=name)


def blank(**fields: object) -> Form:
    """Return a form to be shown for the first time, with these values in it."""
    return Form({name: ["" if value is None else str(value)] for name, value in fields.items()}, id=str(new_id()))


async def read_form(request: Request, session: SessionDep) -> Form:
    """Read a form, and check its origin and the session's token. Raises: CsrfFailed, InvalidParameter."""
    form = await read_open_form(request)
    if session is not None:
        check_token(session, request.headers.get(CSRF_HEADER) or form.text("csrf"))
    return form


async def read_open_form(request: Request) -> Form:
    """Read a form by which somebody signs in: its page may be older than the session that another tab has opened.

    Raises: CsrfFailed, unless a page of ours sent it; InvalidParameter.
    """
    check_origin(request)
    size = request.headers.get("content-length")
    if size is None or not size.isdigit() or int(size) > MAX_FORM_BYTES:
        raise InvalidParameter(f"A form may hold {MAX_FORM_BYTES // 1024} KiB.")
    if not request.headers.get("content-type", "").startswith(FORM_TYPES):
        raise InvalidParameter("A form is sent as one.")
    fields: dict[str, list[str]] = {}
    files: dict[str, bytes] = {}
    try:
        sent = await request.form(max_files=4, max_fields=MAX_FIELDS, max_part_size=MAX_FORM_BYTES)
    except (MultiPartException, HTTPException) as error:
        raise InvalidParameter("The form could not be read.") from error
    try:
        for name, value in sent.multi_items():
            if isinstance(value, UploadFile):
                content = await value.read()
                if value.filename or content:
                    files[name] = content
            elif "\x00" in value:
                raise InvalidParameter(f"'{name[:100]}' must not contain NUL characters.", param=name)
            else:
                fields.setdefault(name, []).append(value)
    finally:
        await sent.close()
    form = Form(fields, files)
    form.id = form.text("form_id")
    return form


FormDep = Annotated[Form, Depends(read_form)]
OpenFormDep = Annotated[Form, Depends(read_open_form)]


def once(visitor: Visitor, form: Form, *, back: str) -> AbstractAsyncContextManager[Sending]:
    """Do what a form asks for in this block, for the first time or not at all: what creates, pays or corrects.

    One call of a service, so that what fails is not done. ``back``: where to look for what was done. Raises:
    SentBefore, which `ConsoleRoute` answers.
    """
    return visitor.services.forms.once(visitor.account_id, form.id, back=back)


def _sent_before(request: Request, sent: SentBefore) -> Response:
    return shell.render(
        request,
        "sent_before.html",
        status=409,
        back=sent.back,
        place=place_of(sent.back),
        is_done=sent.is_done,
        nav=None,
    )


# --- forms that change a row ----------------------------------------------------------------------------------------


class ChangedMeanwhile(InvalidParameter):
    """Somebody else changed the same since the form was shown."""


def showing(form: Form) -> Form:
    """Let a form remember what it shows, for `changed`; its template has ``ui.seen_field``."""
    form.fields["seen"] = [json.dumps(form.fields)]
    return form


def changed(form: Form, now: Form) -> set[str]:
    """Return the fields that the person changed; ``now`` shows the row as it is.

    Others may have changed meanwhile, and stay as they are then. Raises: ChangedMeanwhile, where both changed one.
    """
    try:
        seen = json.loads(form.raw("seen"))
        shown = {name: _values(seen[name]) for name in now.fields if name != "seen"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ChangedMeanwhile(_MEANWHILE) from None
    found = {name for name, values in shown.items() if _values(form.fields.get(name, [])) != values}
    for name in found:
        if _values(now.fields[name]) not in (shown[name], _values(form.fields.get(name, []))):
            raise ChangedMeanwhile(_MEANWHILE)
    return found


_MEANWHILE = "Somebody changed this meanwhile. Nothing was saved: here is what holds now."


def _values(values: list[str]) -> list[str]:
    return sorted(text for value in values if (text := value.replace("\r\n", "\n").strip()))


def refused(visitor: Visitor, form: Form, now: Form, error: MediagateError) -> Form:
    """Return the form to show: with its words; or, where the row moved meanwhile, the row as it is now."""
    return (now if isinstance(error, ChangedMeanwhile) else form).refuse(visitor.request, error)


# --- answers --------------------------------------------------------------------------------------------------------


def go(request: Request, path: str, *, done: str | None = None, **query: object) -> Response:
    """Answer a form that was done: see the page, with a notice of `wording.NOTICES`."""
    query = {name: value for name, value in {**query, "done": done}.items() if value is not None}
    url = f"{path}?{urlencode(query)}" if query else path
    if request.headers.get("hx-request") == "true":
        return Response(status_code=204, headers={"hx-redirect": url, "cache-control": "no-store"})
    return RedirectResponse(url, status_code=303, headers={"cache-control": "no-store"})


class ConsoleRoute(APIRoute):
    """Answers with pages whatever happens: the way to the sign-in, or what went wrong and the request's id."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except SignInNeeded:
                return _to_sign_in(request)
            except SentBefore as sent:
                return _sent_before(request, sent)
            except Exception as error:  # noqa: BLE001 - what is not ours is logged with its traceback
                return error_page(request, public_error(error, request))

        return handle


def _to_sign_in(request: Request) -> Response:
    """Lead to the sign-in, and from there back. A script is told: its page tells its person, who may have typed."""
    request.scope.setdefault("state", {})["reason"] = SessionEnded.reason  # for the metrics
    if request.headers.get("hx-request") == "true":
        headers = {"hx-reswap": "none", "hx-trigger": "signed-out"}
        return Response(status_code=SessionEnded.status, headers={**shell.HEADERS, **headers})
    if request.headers.get("accept", "").startswith("application/json"):
        return render_error(SessionEnded(), request)
    back = _back_to(request)
    if request.method != "GET":
        return go(request, LOGIN, next=None if back == "/console" else back, ended=1)
    return go(request, LOGIN + ("" if back == "/console" else f"?next={quote(back, safe='')}"))


def _back_to(request: Request) -> str:
    """Return the page that was asked for, or the one whose form was sent."""
    if request.method == "GET":
        return safe_next(f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path)
    try:
        form = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return "/console"
    return safe_next(f"{form.path}?{form.query}" if form.query else form.path)


def error_page(request: Request, error: MediagateError) -> Response:
    """Return a page that says what happened; to a script of ours, a notice that it shows."""
    request.scope.setdefault("state", {})["reason"] = error.reason  # for the metrics
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = "GET, POST"
    message = refusals.of_error(error, shell.texts_of(request))
    if request.headers.get("hx-request") == "true":
        notice = {"notice": {"kind": "error", "text": message, "request_id": request_id_of(request)}}
        headers |= {"hx-reswap": "none", "hx-trigger": json.dumps(notice)}  # ASCII: a header holds nothing else
        return Response(status_code=error.status, headers={**shell.HEADERS, **headers})
    return shell.render(
        request, "error.html", status=error.status, headers=headers, error=error, message=message, nav=None
    )


def safe_next(target: str | None) -> str:
    """Return where to go after signing in: a page of the console, never another site; in ASCII, as headers are."""
    if target and target.startswith("/console") and "//" not in target and "\\" not in target and target.isprintable():
        return quote(target, safe="/%?=&+,:;@!$'()*~#[]")
    return "/console"
