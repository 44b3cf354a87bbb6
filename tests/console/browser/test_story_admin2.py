"""An administrator changes a price, adds an upstream with a route, refunds a task; the audit tells all of it."""

from __future__ import annotations

import httpx2
from playwright.async_api import Page, expect

from tests.console.browser.conftest import MakePerson, OpenPage
from tests.console.browser.pages import assert_accessible, watch_of
from tests.factories import make_key
from tests.plugins.gateway import Gateway

MODEL, OTHER, DEARER = "gpt-image-2", "veo3.1-lite", "gemini-3.1-flash-image-preview-2k"
SECRET = "sk-only-the-vendor-knows"
UPSTREAM = "second"
WAIT_MS = 40_000


async def quoted(page: Page, credits: str) -> None:
    await expect(page.locator("#quote .figure-value")).to_contain_text(credits)


async def test_a_price_is_changed_and_the_quote_follows(open_page: OpenPage, make_person: MakePerson) -> None:
    page = await open_page(await make_person(is_admin=True))

    await page.goto(f"/console/prices?model={OTHER}&resolution=4k")
    await quoted(page, "115")
    await page.goto("/console/admin/models")
    await page.get_by_placeholder("Search models").fill("lite")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await assert_accessible(page)
    await page.get_by_role("link", name="VEO 3.1 Lite").click()
    await page.get_by_label("Credits per call · resolution 4k").fill("120")
    await assert_accessible(page)
    await page.get_by_role("button", name="Look at the result").click()
    await expect(page.get_by_role("row", name="4k").last).to_contain_text("+5")
    await assert_accessible(page)
    await page.get_by_label("Reason").fill("The vendor raised its prices")
    await page.get_by_role("button", name="Change it").click()
    await expect(page.get_by_role("row", name="The vendor raised its prices")).to_contain_text("In force")
    await page.goto(f"/console/prices?model={OTHER}&resolution=4k")
    await quoted(page, "120")

    await page.goto(f"/console/admin/models/{OTHER}/simulate?resolution=4k")
    await page.get_by_label("Credits per call · resolution 4k").fill("500")
    await page.get_by_label("Compare with").select_option("The file")
    for row in (f"Now {OTHER}@1 120", "The file", "Draft draft 500"):
        await expect(page.get_by_role("row", name=row)).to_be_visible()
    await assert_accessible(page)

    await page.goto(f"/console/admin/models/{OTHER}/file")
    await page.get_by_label("Reason").fill("A mistake")
    await page.get_by_role("button", name="Use the file").click()
    await page.get_by_role("link", name="Audit log").first.click()
    for words in ("The vendor raised its prices", "A mistake"):
        await expect(page.locator("tbody tr").filter(has_text=words)).to_contain_text("model.version")


async def test_nobody_pays_more_than_the_button_said(
    open_page: OpenPage, make_person: MakePerson, gateway: Gateway
) -> None:
    user, admin = await make_person(credits=50), await make_person(is_admin=True)
    key = await make_key(gateway.database_url, admin.account, scopes=["admin:*"])
    page = await open_page(user)
    await page.goto(f"/console/playground?model={DEARER}")
    await expect(page.locator("#generate-text")).to_have_text("Generate · 5 credits")
    async with page.expect_response("**/v1/quote"):  # the last one before the price changes
        await page.locator("#prompt").fill("a fox")

    async with httpx2.AsyncClient(base_url=gateway.base_url, headers={"authorization": f"Bearer {key.secret}"}) as api:
        body = {"price": {"credits": 7}, "note": "Dearer while a tab is open"}
        made = await api.post(f"/admin/v1/models/{DEARER}/versions", json=body)
        assert made.status_code == 201, made.text
        watch_of(page).expect(r"400 \(Bad Request\)")
        await page.locator("#generate").click()
        await expect(page.locator("#form-error")).to_contain_text("Nothing was made, and nothing was charged.")
        await expect(page.locator("#generate-text")).to_have_text("Generate · 7 credits")
        await expect(page.locator("#runs > article")).to_have_count(0)
        await assert_accessible(page)
        await page.locator("#form-error button").click()
        await expect(page.locator("#runs > article")).to_have_attribute("data-status", "completed", timeout=WAIT_MS)
        await expect(page.locator("#balance")).to_contain_text("43")
        back = await api.post(
            f"/admin/v1/models/{DEARER}/versions", json={"use_file": True, "note": "As it was for the other tests"}
        )
        assert back.status_code == 201, back.text


async def test_an_upstream_serves_is_tested_and_drained_and_a_task_is_refunded(
    open_page: OpenPage, make_person: MakePerson, gateway: Gateway
) -> None:
    user = await make_person(credits=50)
    page = await open_page(await make_person(is_admin=True))
    page.on("dialog", lambda dialog: dialog.accept())

    await page.goto("/console/admin/upstreams")
    await assert_accessible(page)
    await page.get_by_role("link", name="New upstream").click()
    await page.get_by_label("Name").fill(UPSTREAM)
    await page.get_by_label("Provider").select_option("demo")
    await page.get_by_label("Secret").fill(SECRET)
    await assert_accessible(page)
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_text("Set, version 1")).to_be_visible()
    await page.get_by_role("link", name="New route").click()
    await page.get_by_label("Model", exact=True).select_option(MODEL)
    await page.get_by_label("Upstream's model").fill(MODEL)
    await page.get_by_label("Priority").fill("9")
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("heading", name=MODEL)).to_be_visible()
    await assert_accessible(page)
    await page.goto(f"/console/admin/upstreams/{UPSTREAM}")
    await page.get_by_role("button", name="Test").click()
    await expect(page.get_by_text("Nothing was sent that costs anything")).to_be_visible()
    await assert_accessible(page)
    await page.get_by_role("button", name="Drain").click()
    await expect(page.locator("main .chip", has_text="Draining").first).to_be_visible()
    assert SECRET not in await page.content()
    await page.goto("/console/admin")
    await expect(page.locator("#concerns")).to_contain_text(f"Nobody can make these models: {MODEL}")
    await assert_accessible(page)
    await page.goto(f"/console/admin/upstreams/{UPSTREAM}")
    await page.get_by_role("button", name="Enable").click()
    await expect(page.locator("main .chip", has_text="Healthy").first).to_be_visible()
    await page.goto("/console/admin")
    await expect(page.locator("#concerns")).not_to_contain_text(MODEL)

    body = {"model": MODEL, "prompt": "a fox", "quality": "hd"}
    async with httpx2.AsyncClient(base_url=gateway.base_url, headers=user.headers, timeout=30) as client:
        made = await client.post("/v1/images/generations", json=body)
        assert made.status_code == 200, made.text
    await page.goto(f"/console/admin/tasks?account={user.email}")
    await assert_accessible(page)
    await page.locator("tbody th a").click()
    await page.get_by_role("button", name="Refund").click()
    await page.get_by_role("dialog").get_by_label("Reason").fill("The fox was a dog")
    await assert_accessible(page)
    await page.get_by_role("dialog").get_by_role("button", name="Refund").click()
    await expect(page.get_by_role("status")).to_contain_text("Refunded.")
    task = page.url.partition("?")[0].rpartition("/")[2]
    await assert_accessible(page)

    await page.goto(f"/console/admin/audit?target=task:{task}")
    await expect(page.locator("tbody tr")).to_contain_text("The fox was a dog")
    await page.goto("/console/admin/audit")
    rows = page.locator("tbody tr")
    for action in ("task.refund", "upstream.state", "route.add", "upstream.add"):
        await expect(rows.filter(has=page.get_by_text(action, exact=True)).first).to_be_visible()
    assert SECRET not in await page.content()
    await rows.filter(has_text="route.add").first.get_by_role("link").first.click()
    await expect(page.get_by_role("heading", name=MODEL)).to_be_visible()
    await page.get_by_role("button", name="Remove").click()
    await expect(page.get_by_text("Deleted.")).to_be_visible()
