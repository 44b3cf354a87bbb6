"""The console without a mouse, with fingers, in the system's colours, with larger text: nothing of it is lost."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import CDPSession, Page, expect

from tests.console.browser.artefacts import shoot
from tests.console.browser.conftest import MakePerson, OpenPage, Person
from tests.console.browser.keyboard import assert_holds_focus, focused, press, stop, tab_to
from tests.console.browser.life import Life
from tests.console.browser.pages import Theme, assert_accessible, watch_of
from tests.console.browser.test_story_playground import ends, latest, open_playground

PICTURE = "#runs .run-open"
UNSERVED = "gemini-3-pro-image-preview"
"""A model of which no other test here makes anything."""


async def test_everything_is_done_without_a_mouse(open_page: OpenPage, make_person: MakePerson) -> None:
    person = await make_person(credits=100)
    page = await open_page()

    # Sign in, and go over the bars at once.
    await page.goto("/console/login")
    await expect(page.locator("#f-email")).to_be_focused()
    await page.keyboard.type(person.email)
    await tab_to(page, page.locator("input[name=password]"))
    await page.keyboard.type(person.password)
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text(re.compile("."))
    await press(page, page.locator(".skip"))
    await expect(page.locator("#main")).to_be_focused()
    assert await page.locator("#main").evaluate("(main) => main.contains(document.activeElement)")
    await stop(page)
    assert await page.locator("#main").evaluate("(main) => main.contains(document.activeElement)")

    # A key: its dialog holds the focus, Escape gives it back.
    await page.goto("/console")
    await press(page, page.locator(".topbar a[href='/console/keys']"))
    await page.wait_for_url("**/console/keys")
    opener = page.get_by_role("button", name="Create API key").first
    await press(page, opener)
    dialog = page.locator("dialog[open]")
    await assert_holds_focus(page, dialog)
    await page.keyboard.press("Escape")
    await expect(opener).to_be_focused()
    await page.keyboard.press("Enter")
    await tab_to(page, dialog.locator("input[name=name]"))
    await page.keyboard.type("Without a mouse")
    await page.keyboard.press("Enter")
    await expect(page.locator("#secret")).to_be_visible()
    await press(page, page.get_by_role("button", name="Copy the key"))
    await expect(page.locator("[data-toast]")).to_be_visible()
    await assert_accessible(page)

    # The account's menu opens, and closes again.
    summary = page.locator("details.menu summary")
    await tab_to(page, summary, "Shift+Tab")
    await page.keyboard.press("Enter")
    await tab_to(page, page.get_by_role("link", name="Account and sessions"))
    await page.keyboard.press("Escape")
    await expect(summary).to_be_focused()

    # A picture: the model is found by its name, the prompt is sent from where it is written.
    await press(page, page.locator("#nav").get_by_role("link", name="Playground"))
    await page.locator("body[data-ready=playground]").wait_for()
    await press(page, page.locator("#model-button"))
    await page.keyboard.type("gpt")
    await page.keyboard.press("ArrowDown")
    await expect(page.locator("[data-model='gpt-image-2']")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#model-button")).to_be_focused()
    await tab_to(page, page.locator("#prompt"))
    for number, prompt in enumerate(("An older picture", "A paper boat"), 1):
        await page.keyboard.press("Control+A")
        await page.keyboard.type(prompt)
        await page.keyboard.press("Control+Enter")
        await expect(page.locator("#runs > article")).to_have_count(number)
        await ends(latest(page), "completed")

    # The viewer: from one result to the next, and back to where it was opened.
    picture = page.locator(PICTURE).first
    await press(page, picture)
    viewer = page.locator("dialog.viewer")
    await expect(viewer.locator("h2")).to_have_text("A paper boat")
    await page.keyboard.press("ArrowRight")
    await expect(viewer.locator("h2")).to_have_text("An older picture")
    await page.keyboard.press("ArrowLeft")
    await expect(viewer.locator("h2")).to_have_text("A paper boat")
    await assert_holds_focus(page, viewer)
    await press(page, viewer.get_by_role("button", name="Copy"))
    await expect(viewer.locator("[data-toast]")).to_have_text(
        re.compile("Copied")
    )  # where it can be closed and is read
    await page.keyboard.press("Escape")
    await expect(viewer).to_have_count(0)
    await expect(picture).to_be_focused()
    await expect(page.locator("body > #toasts [data-toast]")).to_be_visible()

    # A mask: the brush goes by arrow keys.
    await press(page, latest(page).get_by_role("button", name="Use as input"))
    await expect(page.locator("#prompt")).to_be_focused()
    paint = page.get_by_role("button", name="Paint a mask")
    await press(page, paint)
    await expect(page.locator(".mask-canvas")).to_be_focused()
    for key in ("ArrowRight", "Shift+ArrowDown", "Space"):
        await page.keyboard.press(key)
    assert 0.003 < await painted(page) < 0.02  # a dot
    await assert_accessible(page)
    await assert_holds_focus(page, page.locator(".mask-dialog"))
    await press(page, page.get_by_role("button", name="Use this mask"))
    await expect(page.get_by_role("button", name="Change the mask")).to_be_focused()

    # The request as code.
    await tab_to(page, page.locator("#open-code"), "Shift+Tab")
    await page.keyboard.press("Enter")
    await tab_to(page, page.locator("#code-tab-curl"))
    await page.keyboard.press("ArrowRight")
    await expect(page.locator("#code-tab-python")).to_be_focused()
    await assert_accessible(page)
    await page.keyboard.press("Escape")
    await expect(page.locator("#open-code")).to_be_focused()

    # On a phone with a keyboard: what the menu lies over is not reached behind it.
    await page.set_viewport_size({"width": 360, "height": 740})
    menu = page.locator("[data-nav]")
    await tab_to(page, menu, "Shift+Tab")
    await page.keyboard.press("Enter")
    await expect(menu).to_have_attribute("aria-expanded", "true")
    await assert_accessible(page, but=("landmark-one-main", "page-has-heading-one"))  # the page rests meanwhile
    for _ in range(25):
        await stop(page)
        assert not await page.locator("#main").evaluate("(main) => main.contains(document.activeElement)")
    await page.keyboard.press("Escape")
    await expect(menu).to_be_focused()
    await expect(page.locator("#nav")).to_be_hidden()
    await page.keyboard.press("Enter")
    await press(page, page.locator("#nav").get_by_role("link", name="Gallery"))
    await page.wait_for_url("**/console/gallery")
    await press(page, page.locator(".tile").first)
    await page.wait_for_url("**/console/gallery/task_*")
    await press(page, page.locator("[data-view]"))
    await expect(viewer).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("[data-view]")).to_be_focused()
    assert (await focused(page))["isShown"]


async def fingers(touch: CDPSession, kind: str, *points: tuple[float, float]) -> None:
    """Lay these fingers on the window (touchStart), move them, or lift all of them (touchEnd, without points)."""
    at = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    await touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})


async def where(page: Page) -> Any:
    return await page.evaluate(
        "() => [scrollX, scrollY, ...[...document.querySelectorAll('dialog[open]')].map((one) => one.scrollTop)]"
    )


async def painted(page: Page) -> Any:
    """Return the share of the painting area that is painted."""
    return await page.locator(".mask-canvas").evaluate("""(canvas) => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
      let count = 0
      for (let at = 3; at < data.length; at += 4) if (data[at]) count += 1
      return count / (data.length / 4)
    }""")


async def test_fingers_paint_a_mask_and_zoom_a_picture(open_page: OpenPage, make_person: MakePerson) -> None:
    person = await make_person(credits=100)
    page = await open_page(person, width=360, is_mobile=True)
    touch = await page.context.new_cdp_session(page)
    await open_playground(page, "?model=gpt-image-2")
    await expect(page.locator("meta[name=viewport]")).to_have_attribute(
        "content", "width=device-width, initial-scale=1"
    )  # the page itself is zoomed as everywhere

    source = io.BytesIO()
    Image.new("RGB", (640, 960), "navy").save(source, "PNG")
    await page.locator("#p-image_urls").set_input_files(
        {"name": "sea.png", "mimeType": "image/png", "buffer": source.getvalue()}
    )
    await page.get_by_role("button", name="Paint a mask").tap()
    canvas = page.locator(".mask-canvas")
    box = await canvas.bounding_box()
    assert box is not None
    for share in (0.02, 0.98):  # all of it can be painted, without scrolling
        point = [box["x"] + box["width"] * share, box["y"] + box["height"] * share]
        assert await canvas.evaluate("(canvas, [x, y]) => document.elementFromPoint(x, y) === canvas", point)

    before = await where(page)
    x, y = box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.8
    await fingers(touch, "touchStart", (x, y))
    for step in range(1, 9):
        await fingers(touch, "touchMove", (x, y - step * box["height"] * 0.07))
    await fingers(touch, "touchEnd")
    line = await painted(page)
    assert 0.03 < line < 0.2
    assert await where(page) == before

    # The palm beside the finger paints nothing; one step is one stroke.
    x = box["x"] + box["width"] * 0.8
    await fingers(touch, "touchStart", (x, y))
    await fingers(touch, "touchStart", (x, y), (box["x"] + 20, box["y"] + 20))
    await fingers(touch, "touchMove", (x, y - 60), (box["x"] + 40, box["y"] + 20))
    await fingers(touch, "touchEnd")
    assert line < await painted(page) < line * 2
    await page.get_by_role("button", name="Undo").tap()
    assert await painted(page) == pytest.approx(line, abs=1e-4)
    await assert_accessible(page)
    await shoot(page, "access/mask-by-touch", full_page=False)
    await page.get_by_role("button", name="Use this mask").tap()
    await expect(page.locator(".input-mask")).to_be_visible()

    # Two fingers draw the picture apart; one moves it.
    await page.locator("#prompt").fill("The sea is red")
    await page.locator("#generate").tap()
    await ends(latest(page), "completed")
    await page.locator(PICTURE).first.tap()
    stage = await page.locator(".viewer-stage").bounding_box()
    assert stage is not None
    zoom = page.locator(".viewer-zoom output")
    least = int((await zoom.inner_text()).split()[0])
    before = await where(page)
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    await fingers(touch, "touchStart", (x - 20, y), (x + 20, y))
    for step in range(1, 9):
        await fingers(touch, "touchMove", (x - 20 - step * 10, y), (x + 20 + step * 10, y))
    await fingers(touch, "touchEnd")
    assert int((await zoom.inner_text()).split()[0]) > least * 2
    moved = await page.locator(".viewer-stage img").get_attribute("style")
    await fingers(touch, "touchStart", (x, y))
    await fingers(touch, "touchMove", (x - 60, y - 40))
    await fingers(touch, "touchEnd")
    assert await page.locator(".viewer-stage img").get_attribute("style") != moved
    assert await where(page) == before
    await assert_accessible(page)


SPACED = """() => {
  const sheet = new CSSStyleSheet()
  sheet.replaceSync(`* { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important }
    p { margin-bottom: 2em !important }`)
  document.adoptedStyleSheets = [sheet]
}"""
LOST = """() => {
  const found = []
  if (document.documentElement.scrollWidth > innerWidth) found.push(`${document.documentElement.scrollWidth} px wide`)
  const texts = 'h1, h2, label, legend, button, .button, .chip, .figure-value, dt, dd, .toast'
  for (const one of document.querySelectorAll(texts)) {
    const name = one.outerHTML.slice(0, 120)
    const style = getComputedStyle(one)
    if (!one.checkVisibility() || one.closest('.sr, .clip') || style.textOverflow === 'ellipsis') continue
    const isLarger = one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1
    if (style.overflow !== 'visible' && isLarger) found.push(`cut: ${name}`)
    const box = one.getBoundingClientRect()
    if (box.right > innerWidth + 1 && !one.closest('.scroll, pre, .tabs')) found.push(`outside: ${name}`)
  }
  return found.slice(0, 8)
}"""
LARGE = ("/console", "/console/playground", "/console/keys", "/console/usage", "/console/ledger", "/console/account")
LARGE_ADMIN = ("/console/admin", "/console/admin/users", "/console/admin/upstreams", "/console/admin/settings")


async def test_nothing_is_lost_in_larger_text_and_in_a_narrow_window(
    open_page: OpenPage, admin: Person, life: Life
) -> None:
    """640 px are a window of 1280 px at 200 %, 320 px at 400 %; the spacing is that of WCAG 1.4.12."""
    page = await open_page(admin)
    for path in LARGE + LARGE_ADMIN:
        await page.set_viewport_size({"width": 640, "height": 450})
        await page.goto(path)
        await page.evaluate(SPACED)
        assert await page.evaluate(LOST) == [], f"{path} at 200 %"
        await page.set_viewport_size({"width": 320, "height": 740})
        assert await page.evaluate(LOST) == [], f"{path} at 400 %"
    await shoot(page, "access/spaced-320")


CONTRAST = """() => {
  const edge = (element) => parseFloat(getComputedStyle(element).borderTopWidth)
  const all = (selector) => [...document.querySelectorAll(selector)]
  const fills = (selector) => all(selector).map((one) => getComputedStyle(one).backgroundColor)
  const flat = ':is(.ghost, .link, .sr, [type=checkbox], [type=radio], [type=range], .segmented label *, .tabs *)'
  return {
    unedged: all('main :is(.chip, button, .button, input, select)')
      .filter((one) => one.checkVisibility() && !edge(one) && !one.matches(flat)).map((one) => one.outerHTML),
    chosen: fills('.segmented label:has(:checked), .side a[aria-current]'),
    others: fills('.segmented label:not(:has(:checked)), .side a:not([aria-current])'),
  }
}"""
LINES = """() => [...document.querySelectorAll('.plot canvas')].map((canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
  const { backgroundColor } = getComputedStyle(canvas.closest('.plot'))
  const ground = backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)
  const seen = new Set()
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] < 255) continue
    const [r, g, b] = [data[at], data[at + 1], data[at + 2]]
    if (Math.abs(r - ground[0]) + Math.abs(g - ground[1]) + Math.abs(b - ground[2]) > 120) seen.add(`${r},${g},${b}`)
  }
  return seen.size
})"""


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_high_contrast_keeps_states_choices_lines_and_the_focus(
    open_page: OpenPage, admin: Person, life: Life, theme: Theme
) -> None:
    page = await open_page(admin, theme=theme, forced_colors="active")

    await page.goto("/console/playground")
    await page.locator("body[data-ready=playground]").wait_for()
    found = await page.evaluate(CONTRAST)
    assert found["unedged"] == []
    assert found["chosen"] != []
    assert not set(found["chosen"]) & set(found["others"])
    for _ in range(20):
        await stop(page)
    await shoot(page, f"access/contrast-playground-{theme}", full_page=False)

    await page.goto("/console/admin")
    await expect(page.locator(".plot canvas").first).to_be_visible()
    assert all(await page.evaluate(LINES)), "a chart without lines"
    assert (await page.evaluate(CONTRAST))["unedged"] == []
    await shoot(page, f"access/contrast-admin-{theme}")
    await page.goto("/console/admin/tasks")
    assert (await page.evaluate(CONTRAST))["unedged"] == []
    await shoot(page, f"access/contrast-tasks-{theme}", full_page=False)


async def test_nothing_moves_where_less_movement_is_wished(open_page: OpenPage, make_person: MakePerson) -> None:
    moving = "() => document.getAnimations().filter((one) => one.playState === 'running').length"
    page = await open_page(await make_person(credits=100), reduced_motion="no-preference")
    await open_playground(page, "?model=veo3.1-lite")
    await page.locator("#prompt").fill("[[delay=60]] Slow")
    await expect(page.locator("#generate-text")).to_contain_text("credit")
    await page.locator("#prompt").press("Control+Enter")
    run = latest(page)
    await expect(run).to_have_attribute("data-status", re.compile("queued|in_progress"))
    assert await page.evaluate(moving) > 0  # otherwise the next would prove nothing

    await page.emulate_media(reduced_motion="reduce")
    await expect(run).to_have_attribute("data-status", "in_progress")
    await page.locator(".run-media.skeleton").evaluate("() => new Promise((done) => setTimeout(done, 50))")
    assert await page.evaluate(moving) == 0
    await assert_accessible(page)  # a task that runs
    await run.get_by_role("button", name="Cancel").click()
    await ends(run, "cancelled")
    await assert_accessible(page)


SWITCH = """async ([model, enabled]) => {
  const token = document.querySelector('meta[name=csrf]').content
  const headers = { 'x-csrf-token': token, 'content-type': 'application/json' }
  const { data } = await (await fetch('/admin/v1/routes')).json()
  const changes = data.filter((route) => route.model === model).map((route) => fetch(
    `/admin/v1/routes/${route.id}`, { method: 'PATCH', headers, body: JSON.stringify({ enabled }) }))
  return (await Promise.all(changes)).map((answer) => answer.status)
}"""


async def open_when(page: Page, *, is_served: bool) -> None:
    """Open the playground once its process knows of the change: it looks every second."""
    for _ in range(100):
        await open_playground(page, f"?model={UNSERVED}")
        data = json.loads(await page.locator("#playground-data").text_content() or "")
        if {one["id"]: one["isServed"] for one in data["models"]}[UNSERVED] is is_served:
            return
    raise AssertionError("the change is not seen")


async def test_a_model_that_nobody_serves_now_says_so(open_page: OpenPage, make_person: MakePerson) -> None:
    chief = await open_page(await make_person(is_admin=True))
    await chief.goto("/console/admin/upstreams")
    page = await open_page(await make_person(credits=500), width=360, theme="dark")

    watch_of(page).expect("status of 503")
    switched = await chief.evaluate(SWITCH, [UNSERVED, False])
    assert set(switched) == {200}
    try:
        await open_when(page, is_served=False)
        await page.locator("#model-button").click()
        option = page.locator(f"[data-model='{UNSERVED}']")
        await expect(option).to_contain_text("Not available now")
        await expect(page.locator("[data-model='gpt-image-2']")).not_to_contain_text("Not available now")
        await assert_accessible(page)
        await option.click()
        await expect(page.locator("#model-button")).to_contain_text("Not available now")
        await expect(page.locator("#form-error")).to_contain_text("req_")  # instead of a price
        async with page.expect_response("**/v1/quote"):
            await page.locator("#prompt").fill("Too early")
        async with page.expect_response("**/v1/quote") as asked:  # without a price nothing is sent
            await page.locator("#generate").click()
        assert (await asked.value).status == 503
        await expect(page.locator("#form-error")).to_contain_text("req_")
        await expect(page.locator("#runs > article")).to_have_count(0)
        await expect(page.locator("#prompt")).to_have_value("Too early")
        await assert_accessible(page)
        await shoot(page, "access/not-available", full_page=False)
    finally:
        await chief.evaluate(SWITCH, [UNSERVED, True])
    await open_when(page, is_served=True)
    await expect(page.locator("#model-button")).not_to_contain_text("Not available now")
    await expect(page.locator("#generate-text")).to_contain_text("credit")
