"""Every page of the console, in both languages and themes, on a desk and on a phone: quiet, accessible, and in order.

A new page gets a line in ``USER`` or ``ADMIN``; ``{task_id}`` and the other fields of `Life` stand for what was made.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.console.browser.artefacts import folder, shoot
from tests.console.browser.chromium import settled
from tests.console.browser.conftest import MakePerson, OpenPage, Person, StateOf
from tests.console.browser.life import Life
from tests.console.browser.pages import Language, Theme, assert_accessible, new_context, watch_of
from tests.plugins.gateway import Gateway

NOBODY = ("/console/login", "/console/models", "/console/models/gpt-image-2")
USER = (
    "/console",
    "/console/playground",
    "/console/models/veo3.1-lite",
    "/console/gallery",
    "/console/gallery/{task_id}",
    "/console/tasks",
    "/console/tasks/{task_id}",
    "/console/tasks/{failed_id}",
    "/console/tasks/{video_id}",
    "/console/keys",
    "/console/usage",
    "/console/ledger",
    "/console/prices",
    "/console/webhooks",
    "/console/docs",
    "/console/account",
)
ADMIN = (
    "/console/admin",
    "/console/admin/users",
    "/console/admin/users/{account_id}",
    "/console/admin/keys",
    "/console/admin/codes",
    "/console/admin/models",
    "/console/admin/upstreams",
    "/console/admin/tasks",
    "/console/admin/tasks/{failed_id}",
    "/console/admin/audit",
    "/console/admin/storage",
    "/console/admin/settings",
)
PAGES = {path: "nobody" for path in NOBODY} | {path: "user" for path in USER} | {path: "admin" for path in ADMIN}
PHONE = 360
FIRST_LOAD = ("/console/login", "/console", "/console/playground")
FIRST_LOAD_BYTES = 150_000


@dataclass(frozen=True, slots=True)
class Look:
    language: Language
    theme: Theme
    width: int

    def __str__(self) -> str:
        return f"{self.language}-{self.theme}-{self.width}"


LOOKS = [
    Look(language, theme, width)
    for language in ("en", "zh-CN")
    for theme in ("light", "dark")
    for width in (1280, PHONE)
]
OpenProfile = Callable[[str, Look], Awaitable[BrowserContext]]


@pytest.fixture(scope="session")
async def open_profile(
    browser: Browser, gateway: Gateway, state_of: StateOf, user: Person, admin: Person
) -> AsyncIterator[OpenProfile]:
    """One profile for each reader and look, which the walk's pages share: to open one takes longer than a page."""
    people = {"nobody": None, "user": user, "admin": admin}
    profiles: dict[tuple[str, Look], BrowserContext] = {}

    async def find(who: str, look: Look) -> BrowserContext:
        if (who, look) not in profiles:
            profiles[who, look] = await new_context(
                browser,
                gateway.base_url,
                await state_of(people[who]),
                language=look.language,
                theme=look.theme,
                width=look.width,
            )
        return profiles[who, look]

    yield find
    for profile in profiles.values():
        await profile.close()


@pytest.mark.parametrize("look", LOOKS, ids=str)
@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_quiet_accessible_and_in_order(
    open_profile: OpenProfile, life: Life, path: str, look: Look
) -> None:
    profile = await open_profile(PAGES[path], look)
    page = await profile.new_page()
    try:
        address = path.format(
            task_id=life.task_id, failed_id=life.failed_id, video_id=life.video_id, account_id=life.account_id
        )
        answer = await page.goto(address)
        await settled(page)

        assert answer is not None
        assert (answer.status, urlsplit(page.url).path) == (200, address)
        await shoot(page, f"pages/{look}/{path.strip('/').replace('/', '.').replace('{', '').replace('}', '')}")
        assert watch_of(page).taken() == []
        await assert_in_order(page, look)
        if look.language == "en":
            await assert_accessible(page)
    finally:
        watch_of(page).taken()
        await page.close()


async def assert_in_order(page: Page, look: Look) -> None:
    """One landmark, one heading, the language said, a title, and nothing wider than the window."""
    await expect(page.locator("html")).to_have_attribute("lang", look.language)
    await expect(page.get_by_role("main")).to_have_count(1)
    await expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert (await page.title()).strip() != ""
    wide = await page.evaluate("""() => {
      const width = document.documentElement.clientWidth
      if (document.documentElement.scrollWidth <= width) return []
      return [...document.body.querySelectorAll('*')].filter((e) => e.getBoundingClientRect().right > width + 1)
        .map((e) => `${e.tagName.toLowerCase()}.${e.className}`).slice(0, 8)
    }""")
    assert wide == [], f"wider than {look.width} px"


@pytest.mark.parametrize("path", FIRST_LOAD)
async def test_the_first_load_is_small(
    open_page: OpenPage, make_person: MakePerson, path: str, record_property: Callable[[str, Any], None]
) -> None:
    page = await open_page(None if path in NOBODY else await make_person())
    session = await page.context.new_cdp_session(page)
    await session.send("Network.enable")
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))

    answer = await page.goto(path)
    await settled(page)
    assert answer is not None
    assert answer.ok
    ready_ms = await page.evaluate("() => performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")

    found = {"path": path, "bytes": int(sum(sizes)), "requests": len(sizes), "dom_content_loaded_ms": round(ready_ms)}
    report = folder() / "first-load" / f"{path.strip('/').replace('/', '.')}.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(found) + "\n")
    record_property("first_load", found)
    assert 0 < found["bytes"] <= FIRST_LOAD_BYTES, found
