"""The playground as somebody uses it: a picture, an edit with a painted mask, a film, a cancellation, and its code."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from typing import Any

import httpx2
from PIL import Image
from playwright.async_api import Locator, Page, expect

from tests.console.browser.artefacts import shoot
from tests.console.browser.conftest import MakePerson, OpenPage, Person, RunSnippet
from tests.console.browser.pages import assert_accessible, watch_of
from tests.console.browser.snippets import Kind, Ran
from tests.plugins.gateway import Gateway

WAIT_MS = 40_000
KINDS: tuple[Kind, ...] = ("curl", "python", "node")


async def open_playground(page: Page, query: str = "") -> None:
    await page.goto(f"/console/playground{query}")
    await page.locator("body[data-ready=playground]").wait_for()


async def choose_model(page: Page, search: str, model: str) -> None:
    await page.locator("#model-button").click()
    await page.locator("#model-search").fill(search)
    await page.locator(f"[data-model='{model}']").click()


def latest(page: Page) -> Locator:
    return page.locator("#runs > article").first


async def generate(page: Page, prompt: str) -> Locator:
    """Press the button, and return the new run once the gateway has taken it."""
    before = await page.locator("#runs > article").count()
    await page.locator("#prompt").fill(prompt)
    await expect(page.locator("#generate-text")).to_contain_text("credit")
    await page.locator("#generate").click()
    await expect(page.locator("#runs > article")).to_have_count(before + 1)
    task = await latest(page).get_attribute("data-task") or ""
    if not task:
        await expect(latest(page)).to_have_attribute("data-task", re.compile("^task_"))
        task = await latest(page).get_attribute("data-task") or ""
    return page.locator(f"article[data-task={task}]")


async def ends(run: Locator, status: str) -> None:
    await expect(run).to_have_attribute("data-status", status, timeout=WAIT_MS)


async def task_of(gateway: Gateway, person: Person, run: Locator) -> dict[str, Any]:
    async with httpx2.AsyncClient(base_url=gateway.base_url, headers=person.headers) as client:
        answer = await client.get(f"/v1/tasks/{await run.get_attribute('data-task')}")
        found: dict[str, Any] = answer.json()
        return found


async def run_all(run_snippet: RunSnippet, texts: dict[Kind, str], person: Person) -> dict[str, Ran]:
    """Run the same request in every language, side by side."""
    results = await asyncio.gather(
        *(run_snippet(text, kind, MEDIAGATE_KEY=person.key.secret) for kind, text in texts.items())
    )
    for (kind, text), ran in zip(texts.items(), results, strict=True):
        assert ran.code == 0, f"{kind}\n{text}\n{ran.output}\n{ran.errors}"
    return dict(zip(texts, results, strict=True))


async def code(page: Page, language: str) -> str:
    await page.locator("#open-code").click()
    await page.locator(f"#code-tab-{language}").click()
    text = await page.locator("#code-text code").text_content()
    await page.keyboard.press("Escape")
    assert text
    return text


async def test_a_picture_and_an_edit_with_a_painted_mask(
    open_page: OpenPage, make_person: MakePerson, gateway: Gateway, run_snippet: RunSnippet
) -> None:
    person = await make_person(credits=1000)
    page = await open_page(person)
    await open_playground(page)
    await assert_accessible(page)

    # The form and the price follow the model and what is chosen.
    await expect(page.locator("#generate-text")).to_have_text("Generate · 1 credit")
    await page.get_by_text("HD", exact=True).click()
    await expect(page.locator("#generate-text")).to_have_text("Generate · 2 credits")
    await page.locator("label:has(input[value='16:9'])").click()
    await expect(page.locator("#h-size")).to_contain_text("2048 × 1152")

    picture = await generate(page, '一只纸船 <script>alert(1)</script> "quoted" it\'s')
    await ends(picture, "completed")
    await expect(page.locator("#said")).to_contain_text("ready")
    await expect(page.locator("#balance")).to_contain_text("998")
    await expect(picture.locator(".run-prompt")).to_contain_text("<script>alert(1)</script>")

    # The viewer: large, zoomed by keys, and back.
    await picture.locator(".run-open").click()
    viewer = page.locator("dialog.viewer")
    await expect(viewer.locator("img")).to_be_visible()
    await assert_accessible(page)
    await page.keyboard.press("1")
    await expect(viewer.locator(".viewer-zoom output")).to_have_text("100 %")
    await page.keyboard.press("0")
    await expect(viewer.locator(".viewer-zoom output")).not_to_have_text("100 %")
    await shoot(page, "playground/viewer")
    await page.keyboard.press("Escape")
    await expect(viewer).to_have_count(0)

    # The result becomes an input, and a part of it is painted.
    await picture.get_by_role("button", name="Use as input").click()
    thumb = page.locator(".input-one")
    await expect(thumb).to_contain_text("2048×1152")
    await thumb.get_by_role("button", name="Paint a mask").click()
    canvas = page.locator(".mask-canvas")
    box = await canvas.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2, steps=5)
    await page.mouse.up()
    await canvas.focus()
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("Space")
    await page.keyboard.press("Control+z")
    await assert_accessible(page)
    await shoot(page, "playground/mask")
    mask = await mask_of(page)
    await expect(thumb.locator(".input-mask")).to_be_visible()
    image = Image.open(io.BytesIO(mask))
    assert image.mode == "RGBA"
    assert image.size == (2048, 1152)
    alpha = image.getchannel("A")
    assert [alpha.getpixel(point) for point in ((1024, 576), (10, 10))] == [0, 255]

    edit = await generate(page, "The boat is red")
    await ends(edit, "completed")
    assert (await task_of(gateway, person, edit))["type"] == "image.edit"

    # Its code runs as it stands, beside the files it names.
    shown: dict[Kind, str] = {kind: await code(page, kind) for kind in KINDS}
    source = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(source, "PNG")
    small_mask = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(small_mask, "PNG")
    files = {"input.png": source.getvalue(), "mask.png": small_mask.getvalue()}
    prepared = {kind: with_files(kind, text, files) for kind, text in shown.items()}
    ran = await run_all(run_snippet, prepared, person)
    for kind in KINDS:
        assert (ran[kind].folder / "result.png").read_bytes()[:4] == b"\x89PNG"

    charged = await captures(gateway, person)
    assert charged == [("image.edit", 2)] * 4 + [("image.generation", 2)]

    # Its settings are used again, with the picture and the mask; the session ends meanwhile, and the prompt stays.
    await open_playground(page, f"?from={await edit.get_attribute('data-task')}")
    await expect(page.locator(".input-mask")).to_be_visible()
    await page.context.clear_cookies()
    watch_of(page).expect("status of 401")
    await page.locator("#prompt").fill("Still here")
    await page.locator("#generate").click()
    notice = page.locator("#signed-out a")
    assert "next=%2Fconsole%2Fplayground" in (await notice.get_attribute("href") or "")
    assert "Still here" in await page.evaluate("() => sessionStorage.getItem('mediagate.playground')")


async def test_a_film_and_a_cancellation(
    open_page: OpenPage, make_person: MakePerson, gateway: Gateway, run_snippet: RunSnippet
) -> None:
    person = await make_person(credits=1000)
    page = await open_page(person)
    await open_playground(page)

    await choose_model(page, "veo lite", "veo3.1-lite")
    await expect(page.locator("#generate-text")).to_have_text("Generate · 36 credits")
    film = await generate(page, "A paper boat sails")
    await ends(film, "completed")
    await film.locator(".run-open").click()
    await expect(page.locator("dialog.viewer video")).to_be_visible()
    await page.keyboard.press("Escape")
    ran = await run_all(run_snippet, {kind: await code(page, kind) for kind in KINDS}, person)
    for kind in KINDS:
        assert b"ftyp" in (ran[kind].folder / "result.mp4").read_bytes()[:16]

    slow = await generate(page, "[[delay=60]] Slow")
    await expect(slow.locator(".run-progress")).to_contain_text(re.compile(r"\d s"))  # how long it has been waited for
    await slow.get_by_role("button", name="Cancel").click()
    await ends(slow, "cancelled")

    # All of it is there after a reload, and in the ledger.
    await page.reload()
    await page.locator("body[data-ready=playground]").wait_for()
    await expect(page.locator("#runs > article")).to_have_count(2)
    await expect(page.locator("#prompt")).to_have_value("[[delay=60]] Slow")
    await page.goto("/console/gallery?type=video")
    await expect(page.locator(".tile")).to_have_count(4)
    await assert_accessible(page)
    await page.locator(".tile").first.click()
    await expect(page.locator("video")).to_be_visible()
    await assert_accessible(page)

    # The arrow keys go through the results that the filter lets through, and back.
    newest = page.url
    await page.keyboard.press("ArrowRight")
    await page.wait_for_url(lambda url: url != newest)
    assert page.url.endswith("?type=video")
    await page.keyboard.press("ArrowLeft")
    await page.wait_for_url(newest)

    # What the model costs and takes is a click away from its form, with code that names it.
    await open_playground(page, "?model=veo3.1-lite")
    await page.locator("#model-about").click()
    await page.get_by_role("link", name="API", exact=True).last.click()
    await expect(page.locator("#call-curl code")).to_contain_text("veo3.1-lite")
    await assert_accessible(page)
    assert await captures(gateway, person) == [("video.generation", 36)] * 4


async def captures(gateway: Gateway, person: Person) -> list[tuple[str, int]]:
    """Return what the ledger says was charged, and for what."""
    async with httpx2.AsyncClient(base_url=gateway.base_url, headers=person.headers) as client:
        ledger = (await client.get("/v1/me/ledger")).json()["data"]
    return [(entry["type"], -entry["amount"]) for entry in ledger if entry["kind"] == "capture"]


def with_files(kind: Kind, text: str, files: dict[str, bytes]) -> str:
    """Put the input files beside a snippet: it begins by writing them."""
    packed = {name: base64.b64encode(content).decode() for name, content in files.items()}
    write = {
        "curl": "echo {text} | base64 -d > {name}",
        "python": "import base64, pathlib; pathlib.Path({name!r}).write_bytes(base64.b64decode({text!r}))",
        "node": "(await import('node:fs')).writeFileSync({name!r}, Buffer.from({text!r}, 'base64'));",
    }[kind]
    return "\n".join([*(write.format(name=name, text=text) for name, text in packed.items()), text])


async def mask_of(page: Page) -> bytes:
    """Press the button that keeps the mask, and return the PNG it makes."""
    await page.evaluate("""() => {
      const original = HTMLCanvasElement.prototype.toBlob;
      HTMLCanvasElement.prototype.toBlob = function (done, type) {
        original.call(this, async (blob) => {
          window.madeMask = [...new Uint8Array(await blob.arrayBuffer())];
          done(blob);
        }, type);
      };
    }""")
    await page.get_by_role("button", name="Use this mask").click()
    await expect(page.locator(".mask-dialog")).to_have_count(0)
    return bytes(await page.evaluate("() => window.madeMask"))


async def test_what_goes_wrong_is_said_where_it_is(open_page: OpenPage, make_person: MakePerson) -> None:
    person = await make_person(credits=40)
    page = await open_page(person, language="zh-CN", theme="dark", width=360)
    await open_playground(page, "?model=veo3.1-fast")
    watch_of(page).expect("status of 40[02]")

    # What it costs is more than there is: said before it is pressed.
    await expect(page.locator("#funds")).to_be_visible()
    await expect(page.locator("#generate")).to_be_disabled()
    await assert_accessible(page)

    # A choice that another forbids: the quote's answer stands at its field.
    await choose_model(page, "lite", "veo3.1-lite")
    await page.locator("#p-enable_gif").evaluate("(box) => { box.closest('details').open = true }")
    await page.locator("#p-enable_gif").check()
    await page.locator("label:has(input[value='1080p'])").click()
    await expect(
        page.locator("[data-field=enable_gif], [data-field=resolution]").locator(".error:visible")
    ).to_have_count(1)
    await page.locator("label:has(input[value='720p'])").click()
    await expect(page.locator("[data-field] .error:visible")).to_have_count(0)

    # 51 MB are refused before anything is sent; a text that calls itself a picture, too.
    await choose_model(page, "gpt", "gpt-image-2")
    await page.evaluate("""() => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(51 * 1024 * 1024)], "large.png", { type: "image/png" }));
      const input = document.getElementById("p-image_urls");
      input.files = transfer.files;
      input.dispatchEvent(new Event("change"));
    }""")
    await expect(page.locator("#e-image_urls")).to_contain_text("50.0 MiB")
    await page.locator("#p-image_urls").set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"no"})
    await expect(page.locator("#e-image_urls")).to_contain_text("no.png")

    # A failure has its full text and the request's id, and is tried again with one key.
    run = await generate_by_key(page, "[[fail]] 失败")
    await ends(run, "failed")
    await expect(run.locator(".alert")).to_contain_text("req_")
    await expect(run.locator(".alert")).to_contain_text("上游未能完成")
    await expect(run).to_contain_text("未扣费")
    await assert_accessible(page)
    assert not await page.evaluate("() => document.documentElement.scrollWidth > innerWidth")
    await run.locator(".run-tools button").first.click()
    await expect(page.locator("#runs > article")).to_have_count(2)
    await ends(latest(page), "failed")


async def generate_by_key(page: Page, prompt: str) -> Locator:
    await page.locator("#prompt").fill(prompt)
    await expect(page.locator("#generate")).to_be_enabled()
    await page.locator("#prompt").press("Control+Enter")
    await expect(latest(page)).to_have_attribute("data-task", re.compile("^task_"))
    return page.locator(f"article[data-task={await latest(page).get_attribute('data-task')}]")
