"""An administrator's morning: a new user comes in by a link, gets credits, and what was done stands in the audit."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect

from tests.console.browser.conftest import PASSWORD, MakePerson, OpenPage
from tests.console.browser.pages import assert_accessible, copied, downloaded

EMAIL = "newcomer@example.test"


async def balance(page: Page, credits: str) -> None:
    await expect(page.locator(".figure", has_text="Balance").locator(".figure-value")).to_have_text(credits)


async def test_a_user_comes_in_by_a_link_and_gets_credits(open_page: OpenPage, make_person: MakePerson) -> None:
    page = await open_page(await make_person(is_admin=True))

    await page.goto("/console/admin/users")
    await page.get_by_role("link", name="New user").click()
    await page.get_by_label("E-mail").fill(EMAIL)
    await page.get_by_label("Name").fill("Newcomer")
    await page.get_by_role("button", name="Create user").click()
    await expect(page.get_by_role("heading", name="User created")).to_be_visible()
    await page.get_by_role("button", name="Copy the link").click()
    await expect(page.get_by_text("Copied.")).to_be_visible()
    link = await copied(page)
    assert link == await page.locator("#link").inner_text()
    await assert_accessible(page)

    theirs = await open_page()
    await theirs.goto(link)
    await theirs.locator("input[name=password]").first.fill(PASSWORD)
    await theirs.locator("form:has(input[name=password]) button:not([type=button])").click()
    await expect(theirs.locator("input[name=password]")).to_have_count(0)

    await page.get_by_role("link", name="To the user").click()
    await page.get_by_role("link", name="Add credits").click()
    await page.get_by_label("Credits").fill("500")
    await page.get_by_label("Reference").fill("INV-2026-1")
    await page.get_by_role("button", name="Add credits").click()
    await balance(page, "500")

    await page.get_by_role("link", name="Correct the balance").click()
    await page.get_by_label("Change in credits").fill("-120")
    await page.get_by_label("Reason").fill("Entered twice")
    await page.get_by_role("button", name="Look at the result").click()
    await expect(page.get_by_role("row", name="Balance 500 -120 380")).to_be_visible()
    await assert_accessible(page)
    await page.get_by_role("button", name="Change the balance").click()
    await balance(page, "380")
    await theirs.goto("/console")
    await expect(theirs.locator("#balance")).to_contain_text("380")

    await page.get_by_role("link", name="Suspend").click()
    await page.get_by_label("Reason").fill("Unpaid invoice")
    await page.get_by_role("button", name="Suspend").click()
    await expect(page.locator("main .chip", has_text="Suspended")).to_be_visible()
    await page.get_by_role("link", name="Resume").click()
    await page.get_by_label("Reason").fill("Paid")
    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator("main .chip", has_text="Active").first).to_be_visible()

    await page.locator("main").get_by_role("link", name="Audit log").click()
    rows = page.locator("tbody tr")
    for action, words in (
        ("account.resume", "Paid"),
        ("account.suspend", "Unpaid invoice"),
        ("credits.adjust", "Entered twice"),
        ("credits.topup", "INV-2026-1"),
        ("account.create", EMAIL),
    ):
        row = rows.filter(has=page.get_by_text(action, exact=True))
        await expect(row).to_contain_text(words)
    await expect(rows.filter(has_text="credits.adjust").locator("del")).to_contain_text("500")
    await assert_accessible(page)
    name, content = await downloaded(page, page.get_by_role("link", name="CSV"))
    assert name == "audit.csv"
    assert b"Entered twice" in content


async def test_codes_are_copied_and_saved_while_they_are_shown(open_page: OpenPage, make_person: MakePerson) -> None:
    page = await open_page(await make_person(is_admin=True))

    await page.goto("/console/admin/codes/new")
    await page.get_by_label("How many").fill("3")
    await page.get_by_label("Credits of each").fill("25")
    await page.get_by_role("button", name="Create codes").click()
    await page.get_by_role("button", name="Copy all").click()
    await expect(page.get_by_text("Copied.")).to_be_visible()
    codes = (await copied(page)).split()
    name, content = await downloaded(page, page.get_by_role("link", name="Save as CSV"))

    assert [bool(re.fullmatch(r"(\w{5}-){3}\w{5}", code)) for code in codes] == [True] * 3
    assert content.decode().split() == ["code,credits", *(f"{code},25" for code in codes)]
    assert re.fullmatch(r"batch_\w+\.csv", name)
    await assert_accessible(page)
