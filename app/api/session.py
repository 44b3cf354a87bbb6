"""The console's cookie: how it is named and set, whose session it opens, and that our own page sent the request."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from app.accounts.principal import ADMIN_SCOPE, USER_SCOPES, Principal
from app.accounts.sessions import OpenedSession, Session
from app.errors import CsrfFailed, SessionEnded
from app.settings import Settings
from app.wiring import Services

SECURE_COOKIE, PLAIN_COOKIE = "__Host-mg", "mg"
CSRF_HEADER = "x-csrf-token"
TIMER_HEADER = "x-timer"
"""Our pages' scripts send it with what they ask by themselves: that keeps no session from ending by idleness."""
ASKED_BY_PAGES = ("image", "video", "audio", "track")
"""What ``Sec-Fetch-Dest`` says of what comes with a page, or with what its timer brought, without anybody's doing."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def cookie_name(settings: Settings) -> str:
    """``__Host-``: browsers take it over HTTPS alone, and from no other host of the domain."""
    return SECURE_COOKIE if _is_secure(settings) else PLAIN_COOKIE


def has_cookie(request: Request, settings: Settings) -> bool:
    return cookie_name(settings) in request.cookies


async def read_session(request: Request, services: Services) -> Session | None:
    """Return who is signed in, looked up once per request; None when nobody is."""
    state = request.scope.setdefault("state", {})
    if "session" not in state:
        token, touch = request.cookies.get(cookie_name(services.settings)), not is_by_itself(request)
        state["session"] = None if token is None else await services.sessions.find(token, touch=touch)
    found: Session | None = state["session"]
    return found


def is_by_itself(request: Request) -> bool:
    """Whether a page asks, and not its person: by a timer, for a picture, for a stream (which takes no header)."""
    if TIMER_HEADER in request.headers or request.headers.get("sec-fetch-dest") in ASKED_BY_PAGES:
        return True
    return request.headers.get("accept", "").startswith(("text/event-stream", "image/"))


async def check_still_open(request: Request, services: Services) -> None:
    """Ask again, in the midst of an answer that takes long. It does not count as use. Raises: SessionEnded."""
    token = request.cookies.get(cookie_name(services.settings))
    if token is None or await services.sessions.find(token, touch=False) is None:
        raise SessionEnded


def set_cookie(response: Response, settings: Settings, opened: OpenedSession) -> None:
    """Let the browser keep a new session. It lives as long as the session can; idleness is the server's to judge."""
    left = opened.session.expires_at - opened.session.created_at
    response.set_cookie(
        cookie_name(settings),
        opened.token,
        max_age=int(left.total_seconds()),
        path="/",
        secure=_is_secure(settings),
        httponly=True,
        samesite="lax",
    )


def clear_cookie(response: Response, settings: Settings) -> None:
    response.delete_cookie(cookie_name(settings), path="/", secure=_is_secure(settings), httponly=True, samesite="lax")


def check_same_origin(request: Request, session: Session) -> None:
    """Refuse what another site's page lets a browser send with our cookie. Raises: CsrfFailed.

    For scripts, whose token is in a header; forms carry it in a field: `check_origin`, then `check_token`.
    """
    if request.method in SAFE_METHODS:
        return
    check_origin(request)
    check_token(session, request.headers.get(CSRF_HEADER))


def check_origin(request: Request) -> None:
    """Raises: CsrfFailed, unless the browser says that a page of our own origin sent this."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site != "same-origin":
            raise CsrfFailed
        return
    settings: Settings = request.app.state.services.settings
    own = {_origin(settings.base_url)}
    if not _is_secure(settings):  # a development gateway has many names: localhost, 127.0.0.1, a machine's own
        own.add(_origin(f"{request.url.scheme}://{request.headers.get('host', '')}"))
    if request.headers.get("origin") not in own:
        raise CsrfFailed


def check_token(session: Session, given: str | None) -> None:
    """Raises: CsrfFailed, unless the page knew the session's own token."""
    if not session.csrf or not hmac.compare_digest(session.csrf.encode(), (given or "").encode("utf-8", "replace")):
        raise CsrfFailed


def principal_of(session: Session) -> Principal:
    """Return the session as a caller of the API: all of a user's scopes, and an administrator's where it is one."""
    scopes = frozenset(USER_SCOPES) | ({ADMIN_SCOPE} if session.is_admin else set())
    return Principal(
        account_id=session.account_id,
        key_id=session.key_id,
        email=session.email,
        key_name="Console",
        key_last4="",
        scopes=scopes,
        models=None,
        is_admin=session.is_admin,
        seemed_empty=session.seemed_empty,
    )


def _is_secure(settings: Settings) -> bool:
    return settings.base_url.startswith("https://")


def _origin(url: str) -> str:
    """Return a URL's origin as browsers write it: in small letters, without the scheme's own port."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a Host header that is no host
        return ""
    port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(port)}"
