"""Somebody follows their tasks and credits: what runs, what it became, what it cost, and what the next would cost."""

from __future__ import annotations

import asyncio
import re

import httpx2
from playwright.async_api import Page, expect

from app.credits.redeem import Codes
from app.journal import Actor
from tests.console.browser.artefacts import shoot
from tests.console.browser.conftest import MakePerson, OpenPage, Person
from tests.console.browser.pages import assert_accessible, downloaded, watch_of
from tests.factories import engine_of
from tests.plugins.gateway import Gateway

WAIT_MS = 40_000
FILM = "A paper boat on a stream"


async def make(gateway: Gateway, person: Person, *bodies: tuple[str, dict[str, object]]) -> list[str]:
    """Ask the API as the person's own program does, and return the tasks' ids."""
    async with httpx2.AsyncClient(base_url=gateway.base_url, headers=person.headers, timeout=60) as client:
        answers = await asyncio.gather(*(client.post(path, json=body) for path, body in bodies))
    for answer in answers:
        assert answer.status_code in (200, 202), answer.text
    return [answer.headers["x-task-id"] for answer in answers]


async def balance(page: Page) -> int:
    text = await page.locator("#balance .num").text_content()
    return int((text or "").replace(",", ""))


async def test_from_a_running_task_to_its_line_in_the_ledger(
    open_page: OpenPage, make_person: MakePerson, gateway: Gateway
) -> None:
    person = await make_person(credits=1000)
    async with engine_of(gateway.database_url) as engine:
        batch = await Codes(engine).create(count=1, amount=500, actor=Actor("admin@example.test"))
    page = await open_page(person)

    # A newcomer's home; then what a program of theirs asks for, live.
    await page.goto("/console")
    await expect(page.locator(".step-cards .done")).to_have_count(1)  # the key
    videos = "/v1/videos/generations"
    slow, film, _image = await make(
        gateway,
        person,
        (videos, {"prompt": "[[delay=600]] A very slow film", "resolution": "480p"}),
        (videos, {"prompt": f"[[delay=4]] {FILM}", "resolution": "480p"}),
        ("/v1/images/generations", {"prompt": "A fox in the snow", "async": True}),
    )
    await page.reload()
    await expect(page.locator(f"#run-{slow}")).to_be_visible()
    await assert_accessible(page)

    # The film's own page follows it to the end without a reload.
    await page.goto(f"/console/tasks/{film}")
    await expect(page.locator("#task .timeline li").first).to_contain_text("held")
    await expect(page.locator("#task video")).to_be_visible(timeout=WAIT_MS)
    await expect(page.locator("#task .chip.good")).to_contain_text("Succeeded")
    await expect(page.locator("#task")).not_to_have_attribute("hx-trigger", re.compile("."))
    await assert_accessible(page)
    await shoot(page, "task-video")
    name, content = await downloaded(page, page.get_by_role("link", name="Download"))
    assert (name, content[4:8]) == (f"{film}.mp4", b"ftyp")
    assert FILM in await page.locator(".prompt").inner_text()

    # From its cost to the line of the ledger, and back.
    await page.get_by_role("link", name=re.compile("Ledger line")).click()
    await expect(page.locator("#main")).to_contain_text("Held by running tasks")
    assert await page.locator(f"tbody a[href='/console/tasks/{film}']").count() == 1
    await assert_accessible(page)

    # The slow one is found by its state and cancelled; its hold comes back.
    await page.goto("/console/tasks")
    await page.locator("select[name=status]").select_option("in_progress")
    await page.wait_for_url("**status=in_progress**")
    await expect(page.locator("#task-rows tbody tr")).to_have_count(1)
    held = await balance(page)
    await page.locator("#task-rows tbody a").first.click()
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator("#task .chip").first).to_contain_text("Cancelled", timeout=WAIT_MS)
    await page.reload()
    assert await balance(page) > held

    # A code: a wrong one says so, a right one counts.
    before = await balance(page)
    await page.goto("/console/ledger")
    watch_of(page).expect(r"400 \(Bad Request\)")
    await page.locator("#f-code").fill("WRONG-CODE")
    await page.get_by_role("button", name="Redeem").click()
    await expect(page.locator("#h-code")).to_contain_text("not known here")
    await page.locator("#f-code").fill(batch.codes[0])
    await page.get_by_role("button", name="Redeem").click()
    await expect(page.locator("#toasts")).to_contain_text("The code was redeemed")
    assert await balance(page) == before + 500

    # Usage draws what was spent; the same is there in words.
    await page.goto("/console/usage?days=7")
    await expect(page.locator(".plot canvas")).to_have_count(1)
    await expect(page.locator(".chart .legend li")).to_have_count(2)
    await page.locator(".chart-table summary").click()
    await expect(page.locator(".chart-table tbody tr")).to_have_count(7)
    await assert_accessible(page)
    await shoot(page, "usage")

    # And the quote tool says what the next would cost, without a reload.
    await page.goto("/console/prices")
    await page.locator("#q-model").select_option("doubao-seedance-2.0-fast")
    await page.locator("#q-duration").fill("10")
    await page.locator("#q-resolution").select_option("480p")
    await expect(page.locator("#quote .answer")).to_contain_text("10 s × 8 credits")
    await expect(page.locator("#quote .figure-value")).to_contain_text("80")
    await assert_accessible(page)

    # A deleted task is gone, after a question.
    await page.goto(f"/console/tasks/{film}")
    page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    await page.get_by_role("button", name="Delete").click()
    await page.wait_for_url("**/console/tasks?done=deleted")
    await expect(page.locator(f"#row-{film}")).to_have_count(0)
