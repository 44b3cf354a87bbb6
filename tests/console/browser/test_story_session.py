"""A session ends while its pages are open: what was typed stays, nothing secret does, and one signs in again."""

from __future__ import annotations

from playwright.async_api import Page, expect

from app.accounts.sessions import Sessions
from app.journal import SYSTEM
from tests.console.browser.conftest import MakePerson, OpenPage
from tests.console.browser.pages import assert_accessible, sign_in, watch_of
from tests.factories import engine_of
from tests.plugins.gateway import Gateway

NOTICE = "#signed-out"


async def sign_out(page: Page) -> None:
    await page.locator("details.menu summary").click()
    await page.locator("form[action='/console/logout'] button").click()
    await expect(page.locator("input[name=password]")).to_have_count(1)


async def test_what_was_typed_outlives_a_sign_out_in_another_tab(open_page: OpenPage, make_person: MakePerson) -> None:
    person = await make_person()
    page = await open_page()
    watch_of(page).expect("status of 401")
    await sign_in(page, person.email, person.password)
    await page.goto("/console/account")
    other = await page.context.new_page()
    await other.goto("/console/account")
    await page.locator("input[name=name]").fill("Ada Lovelace")

    await sign_out(other)
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator(NOTICE)).to_contain_text("What you typed is still here.")
    await expect(page.locator("input[name=name]")).to_have_value("Ada Lovelace")
    await assert_accessible(page)

    async with page.context.expect_page() as opening:
        await page.locator(NOTICE).get_by_role("link", name="Sign in again").click()
    again = await opening.value
    await again.locator("input[name=email]").fill(person.email)
    await again.locator("input[name=password]").fill(person.password)
    await again.locator("input[name=password]").press("Enter")
    await again.wait_for_url("**/console/account")
    await page.evaluate("() => window.dispatchEvent(new Event('focus'))")  # a browser without windows has none
    await expect(page.locator(NOTICE)).to_have_count(0)
    await page.get_by_role("button", name="Save").click()
    await page.wait_for_url("**/console/account?done=saved")
    await expect(page.locator("input[name=name]")).to_have_value("Ada Lovelace")


async def test_a_page_of_one_person_sends_nothing_as_another(open_page: OpenPage, make_person: MakePerson) -> None:
    first, second = await make_person(), await make_person()
    page = await open_page()
    await sign_in(page, first.email, first.password)
    await page.goto("/console/account")
    other = await page.context.new_page()
    await other.goto("/console")
    await sign_out(other)
    await sign_in(other, second.email, second.password)

    await page.locator("input[name=name]").fill("Somebody else's name")
    await page.get_by_role("button", name="Save").click()

    await expect(page.locator(NOTICE)).to_contain_text("Somebody else is signed in now.")
    await page.locator(NOTICE).get_by_role("link").click()
    await expect(page.locator("#f-email")).to_have_value(second.email)
    await expect(page.locator("input[name=name]")).not_to_have_value("Somebody else's name")


async def test_a_prompt_outlives_a_session_that_was_ended_elsewhere(
    open_page: OpenPage, make_person: MakePerson, gateway: Gateway
) -> None:
    person = await make_person(credits=100)
    page = await open_page()
    watch_of(page).expect("status of 401")
    await sign_in(page, person.email, person.password)
    await page.goto("/console/playground")
    await expect(page.locator("#generate-text")).to_contain_text("credit")
    await page.locator("#prompt").fill("A lighthouse above a stormy sea")

    async with engine_of(gateway.database_url) as engine:
        await Sessions(engine).end_all(person.account.id, reason="a stolen laptop", actor=SYSTEM)
    await page.locator("#generate").click()

    await expect(page.locator(NOTICE)).to_contain_text("You are signed out.")
    await expect(page.locator("#prompt")).to_have_value("A lighthouse above a stormy sea")


async def test_after_the_sign_out_the_back_button_shows_nothing(open_page: OpenPage, make_person: MakePerson) -> None:
    person = await make_person()
    page = await open_page()
    await sign_in(page, person.email, person.password)
    await page.goto("/console/account")
    await page.evaluate("() => localStorage.setItem('mediagate.prompts', '[\"a secret\"]')")

    await sign_out(page)
    await page.go_back()

    await expect(page.locator("input[name=password]")).to_have_count(1)
    assert person.email not in await page.content()
    assert await page.evaluate("() => localStorage.length") == 0
