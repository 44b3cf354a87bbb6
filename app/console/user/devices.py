"""Which browser it was, in words: what a session's owner needs to know their own devices again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROWSERS: Sequence[tuple[str, str]] = (
    ("MicroMessenger/", "WeChat"),
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
"""In this order: most of them claim to be those below as well."""
SYSTEMS: Sequence[tuple[str, str]] = (
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
MOST_CHARS = 40


def device(user_agent: str, gettext: Callable[[str], str]) -> str:
    """``Mozilla/5.0 (X11; Linux x86_64; ...) Firefox/146.0`` -> ``Firefox on Linux``."""
    browser = _named(user_agent, BROWSERS) or user_agent.partition("/")[0].partition(" ")[0][:MOST_CHARS]
    system = _named(user_agent, SYSTEMS)
    if not browser:
        return gettext("Unknown device")
    return gettext("%(browser)s on %(system)s") % {"browser": browser, "system": system} if system else browser


def _named(user_agent: str, names: Sequence[tuple[str, str]]) -> str | None:
    return next((name for sign, name in names if sign in user_agent), None)
