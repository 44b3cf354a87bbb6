"""What a test does with pages: opens profiles, signs in, and looks at what a page shows, copies and downloads."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from tests.console.browser import axe, chromium

Language = Literal["en", "zh-CN"]
Theme = Literal["light", "dark"]
HEIGHTS = {360: 740}
HEIGHT = 900

_watches: dict[BrowserContext, chromium.Watch] = {}
expect.set_options(timeout=chromium.PATIENCE_MS)


async def new_context(
    browser: Browser,
    base_url: str,
    state: Any = None,
    *,
    language: Language = "en",
    theme: Theme = "light",
    width: int = 1280,
    **more: Any,
) -> BrowserContext:
    """Open a browser profile that is watched. Movement is reduced: a picture and a contrast are of a page at rest.

    ``more`` are other options of a Playwright context.
    """
    context = await browser.new_context(
        base_url=base_url,
        storage_state=state,
        locale=language,
        color_scheme=theme,
        viewport={"width": width, "height": HEIGHTS.get(width, HEIGHT)},
        has_touch=width in HEIGHTS,
        timezone_id="Asia/Shanghai",
        permissions=["clipboard-read", "clipboard-write"],
        **{"reduced_motion": "reduce", **more},
    )
    context.set_default_timeout(chromium.PATIENCE_MS)
    watch = _watches[context] = chromium.Watch(own_host=urlsplit(base_url).netloc)
    await watch.over(context)
    context.on("close", lambda _: _watches.pop(context, None))
    return context


def watch_of(page: Page) -> chromium.Watch:
    """Return the watch over a page's profile: all of the profile's pages share it."""
    return _watches[page.context]


async def sign_in(page: Page, email: str, password: str) -> None:
    """Sign in through the form, and wait for the page behind it."""
    await page.goto("/console/login")
    await page.locator("input[name=email]").fill(email)
    await page.locator("input[name=password]").fill(password)
    await page.locator("input[name=password]").press("Enter")
    await expect(page.locator("input[name=password]")).to_have_count(0)


async def assert_accessible(page: Page, *, but: Collection[str] = ()) -> None:
    """WCAG 2 A and AA, contrast of colours and size of targets included, and best practice, as axe sees it."""
    found = await axe.violations(page, but)
    assert found == [], f"{page.url}\n" + "\n".join(found)


async def copied(page: Page) -> str:
    """Return what is on the clipboard."""
    text: str = await page.evaluate("() => navigator.clipboard.readText()")
    return text


async def downloaded(page: Page, button: Locator) -> tuple[str, bytes]:
    """Press a button that downloads, and return the file's name and content."""
    async with page.expect_download() as coming:
        await button.click()
    download = await coming.value
    return download.suggested_filename, await asyncio.to_thread((await download.path()).read_bytes)
