"""Turns templates into pages: the Jinja environment, what every template may use, and every page's headers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from app.accounts.sessions import Session
from app.api.errors import request_id_of
from app.console import i18n, refusals, static, wording
from app.console.navigation import navigation

HERE = Path(__file__).parent
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
"""Pages are not compressed: they hold a session's token beside what a visitor sent (BREACH)."""
THEMES = ("system", "light", "dark")
THEME_COOKIE = "mg_theme"
_SVG = re.compile(r"<svg[^>]*>(.*)</svg>", re.DOTALL)


def language_of(request: Request, session: Session | None) -> str:
    return i18n.chosen(
        session.language if session else None,
        request.cookies.get(i18n.COOKIE),
        request.headers.get("accept-language", ""),
    )


def texts_of(request: Request) -> i18n.Texts:
    """Return the texts of this request's page: its session, where it has one, was put there by `visitor`."""
    return i18n.texts(language_of(request, session_of(request)))


def session_of(request: Request) -> Session | None:
    found: Session | None = request.scope.get("state", {}).get("session")
    return found


def theme_of(request: Request, session: Session | None) -> str:
    wish = session.theme if session else request.cookies.get(THEME_COOKIE, "")
    return wish if wish in THEMES else "system"


def render(
    request: Request, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **context: Any
) -> Response:
    """Return a page. Beside ``context`` templates see the request, its session, and the names of `_environment`."""
    session = session_of(request)
    texts = texts_of(request)
    settings = request.app.state.services.settings
    text = (
        _environment(texts.language)
        .get_template(template)
        .render(
            request=request,
            session=session,
            texts=texts,
            theme=theme_of(request, session),
            csrf=session.csrf if session else "",
            path=request.url.path,
            settings=settings,
            base_url=settings.base_url,
            request_id=request_id_of(request),
            is_fragment=is_fragment(request),
            **context,
        )
    )
    return HTMLResponse(text, status_code=status, headers={**HEADERS, **(headers or {})})


def is_fragment(request: Request) -> bool:
    """Whether a script of ours asks for a part of a page."""
    return request.headers.get("hx-request") == "true" and request.headers.get("hx-request-type") == "partial"


@cache
def _environment(language: str) -> Environment:
    texts = i18n.texts(language)
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n", "jinja2.ext.do"],
    )
    environment.install_gettext_callables(texts.gettext, texts.ngettext, newstyle=True)  # type: ignore[attr-defined]
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "ensure_ascii": False}  # people read it
    environment.globals.update(
        asset=static.address,
        icon=icon,
        with_query=with_query,
        languages=i18n.LANGUAGES,
        data_block=data_block,
        navigation=navigation,
        states=wording.STATES,
        notice_of=lambda request: wording.notice(request.query_params.get("done"), texts),
    )
    environment.filters.update(
        number=texts.number,
        percent=texts.percent,
        moment=texts.moment,
        day=texts.day,
        ago=texts.ago,
        duration=texts.duration,
        size=texts.size,
        time=_timed(texts),
        said=lambda text: refusals.said(text, texts) or text,
    )
    return environment


def _timed(texts: i18n.Texts) -> Callable[[datetime | None], Markup]:
    """Make the filter that writes a moment: UTC in the text, the reader's own zone once the script has run."""

    def time(value: datetime | None) -> Markup:
        if value is None:
            return Markup('<span class="muted">–</span>')
        return Markup('<time datetime="{}" data-local>{}</time>').format(value.isoformat(), texts.moment(value))

    return time


def icon(name: str, label: str | None = None, size: int = 18) -> Markup:
    """Return one of the icons; with a label it says something by itself, without it is decoration."""
    meaning = Markup('role="img" aria-label="{}"').format(label) if label else Markup('aria-hidden="true"')
    return Markup(
        '<svg class="icon" {} width="{}" height="{}" viewBox="0 0 24 24" fill="none" stroke="currentColor" '
        'stroke-width="2" stroke-linecap="round" stroke-linejoin="round">{}</svg>'
    ).format(meaning, size, size, _drawing(name))


@cache
def _drawing(name: str) -> Markup:
    [drawing] = _SVG.findall((HERE / "icons" / f"{name}.svg").read_text())
    return Markup(re.sub(r"\s*\n\s*", "", drawing))  # noqa: S704 - a file of ours


def with_query(request: Request, **changes: Any) -> str:
    """Return this page's address with other query parameters; None takes one out."""
    query = dict(request.query_params)
    query.update({name: str(value) for name, value in changes.items() if value is not None})
    for name, value in changes.items():
        if value is None:
            query.pop(name, None)
    return f"{request.url.path}?{urlencode(query)}" if query else request.url.path


def data_block(element_id: str, value: Any) -> Markup:
    """Return data for a script, as JSON in the page: a block that no browser runs and no text can leave."""
    text = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return Markup('<script type="application/json" id="{}">{}</script>').format(
        escape(element_id),
        Markup(text),  # noqa: S704 - no "<" is left in it
    )
