"""Chromium, and a watch on each of its pages: what a page complains of, and what it asks of the rest of the world."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright, expect

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    # Nothing but the gateway can be reached: what a page asks of others fails at once, and is reported.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PATIENCE_MS = 20_000
"""For one step of a page: far more than it takes, since a slow machine is no failure."""
LAUNCH_MS = 60_000
MISSING = (
    "there is no Chromium here. Debian: apt-get install chromium fonts-wqy-microhei; elsewhere name one in "
    "MEDIAGATE_CHROMIUM."
)
OWN_SCHEMES = ("data", "blob", "about")
REPORT = "mediagateTestReport"
LATE = ".htmx-request, [aria-busy=true]"
PAINTED = "() => document.fonts.ready.then(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))))"
TELL_VIOLATIONS = f"""
document.addEventListener('securitypolicyviolation', (event) => window.{REPORT}(
  `${{event.violatedDirective}} forbids ${{event.blockedURI || 'inline'}} (${{event.sourceFile}}:${{event.lineNumber}})`
))
"""


def find_chromium() -> str | None:
    named = os.environ.get("MEDIAGATE_CHROMIUM")
    if named:
        return named if os.access(named, os.X_OK) else None
    return shutil.which("chromium", path=f"/usr/bin:{os.environ.get('PATH', '')}")


@asynccontextmanager
async def launched(path: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(FLAGS), timeout=LAUNCH_MS)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass  # no slots: Playwright puts its own marks on whoever handles its events
class Watch:
    """What the pages of one context complained of. ``expected`` are patterns of complaints that a test wants."""

    own_host: str
    problems: list[str] = field(default_factory=list)
    expected: list[re.Pattern[str]] = field(default_factory=list)

    async def over(self, context: BrowserContext) -> None:
        await context.expose_binding(REPORT, self._violation)
        await context.add_init_script(TELL_VIOLATIONS)
        context.on("console", self._console)
        context.on("weberror", lambda error: self._note(f"uncaught: {error.error}"))
        context.on("request", self._request)

    def expect(self, pattern: str) -> None:
        """Let a complaint that matches pass: a test of a wrong password sees its 401 in the browser's console."""
        self.expected.append(re.compile(pattern))

    def taken(self) -> list[str]:
        """Return what there is, once."""
        taken, self.problems = self.problems, []
        return [text for text in taken if not any(pattern.search(text) for pattern in self.expected)]

    def _note(self, text: str) -> None:
        self.problems.append(text)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert") or "Content Security Policy" in message.text:
            place = message.location
            self._note(f"console: {message.text} ({place.get('url')}:{place.get('lineNumber')})")

    def _violation(self, source: Any, text: str) -> None:
        self._note(f"content security policy: {text}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.netloc != self.own_host and parts.scheme not in OWN_SCHEMES:
            self._note(f"foreign request: {request.method} {request.url[:200]}")


async def settled(page: Page) -> None:
    """Wait until a page has loaded, its parts that come later too, and has painted them with their fonts.

    Not until the network is idle: a page that shows a task's progress holds a stream.
    """
    await page.wait_for_load_state("load")
    await expect(page.locator(LATE)).to_have_count(0)
    await page.evaluate(PAINTED)
