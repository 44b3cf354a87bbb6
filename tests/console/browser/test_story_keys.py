"""From the sign-in to a first image, as a new user goes: the key, the program that is shown with it, and the docs."""

from __future__ import annotations

import asyncio
import base64
import io

import pytest
from PIL import Image
from playwright.async_api import Page, expect

from tests.console.browser.artefacts import shoot
from tests.console.browser.conftest import MakePerson, OpenPage, RunSnippet
from tests.console.browser.pages import assert_accessible, copied, sign_in, watch_of
from tests.console.browser.snippets import Kind

VIDEO_IN: tuple[Kind, ...] = ("curl", "python")  # the docs' story runs one in node


async def shown(page: Page, group: str, language: str) -> str:
    """Choose a language of a group of tabs, press its copy button, and return what is on the clipboard then."""
    await page.locator(f"#{group}-{language}-tab").click()
    panel = page.locator(f"#{group}-{language}")
    await panel.locator("[data-copy-block]").click()
    await expect(page.locator("[data-toast]").last).to_be_visible()
    return await copied(page)


async def test_from_the_sign_in_to_a_key_its_program_its_rotation_and_its_end(
    open_page: OpenPage, make_person: MakePerson, run_snippet: RunSnippet
) -> None:
    person = await make_person(credits=1000)
    page = await open_page()
    await sign_in(page, person.email, person.password)

    await page.locator(".topbar").get_by_role("link", name="API").click()
    await page.get_by_role("button", name="Create API key").first.click()
    await page.locator("dialog[open] input[name=name]").fill("Laptop")
    await assert_accessible(page)
    await page.locator("dialog[open] button.primary").click()

    secret = await page.locator("#secret").inner_text()
    await page.get_by_role("button", name="Copy the key").click()
    assert await copied(page) == secret
    await assert_accessible(page)
    await shoot(page, "keys/new-key")
    first = page.url

    for language in ("curl", "python", "node"):
        program = await shown(page, "first", language)
        assert secret in program
        if language == "node":
            continue  # the docs' story runs one
        ran = await run_snippet(program, language)
        assert ran.code == 0, ran.errors
        assert (ran.folder / "fox.png").read_bytes().startswith(b"\x89PNG")

    watch_of(page).expect("409")
    await page.reload()
    await expect(page.locator("h1")).to_have_text("This form was sent before")
    await page.get_by_role("link", name="Go on").click()
    await expect(page.locator("h1")).to_contain_text("Laptop")  # what it made
    await page.goto("/console/keys")
    await expect(page.locator("tbody tr")).to_have_count(2)
    assert first.endswith("/console/keys")

    await page.get_by_role("link", name="Laptop").click()
    await page.locator("select[name=overlap]").select_option("0")
    await assert_accessible(page)
    await page.get_by_role("button", name="Rotate").click()
    successor = await page.locator("#secret").inner_text()
    assert successor != secret
    ran = await run_snippet(await shown(page, "first", "python"), "python")
    assert ran.code == 0, ran.errors
    await page.get_by_role("link", name="Done: I have copied it").click()
    await expect(page.locator("tbody tr").first).to_contain_text("Active")

    page.on("dialog", lambda dialog: dialog.accept())
    await page.get_by_role("link", name="Laptop").first.click()
    await page.get_by_role("button", name="Revoke").click()
    await expect(page.locator("tbody tr").first).to_contain_text("Revoked")
    base_url = page.url.partition("/console")[0]
    ran = await run_snippet(f'curl -sS {base_url}/v1/me -H "Authorization: Bearer {successor}"', "curl")
    assert "invalid_api_key" in ran.output

    await page.locator("details.menu summary").click()
    await page.get_by_role("link", name="Account and sessions").click()
    await page.locator("main button[value=dark]").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.locator("main button[value=zh_CN]").click()
    await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    await assert_accessible(page)
    await page.locator("details.menu summary").click()
    await page.locator("form[action='/console/logout'] button").click()
    await expect(page.locator("input[name=password]")).to_have_count(1)
    await page.locator("input[name=password]").fill("seen")
    await page.locator("[data-shows]").click()
    await expect(page.locator("input[name=password]")).to_have_attribute("type", "text")


async def test_a_key_that_makes_only_videos_comes_with_the_program_for_one(
    open_page: OpenPage, make_person: MakePerson, run_snippet: RunSnippet
) -> None:
    page = await open_page(await make_person(credits=1000))
    await page.goto("/console/keys")
    await page.get_by_role("button", name="Create API key").first.click()
    dialog = page.locator("dialog[open]")
    await dialog.locator("summary").first.click()
    await dialog.locator("input[value='images:write']").uncheck()
    await assert_accessible(page)
    await dialog.locator("button.primary").click()

    await expect(page.locator("#secret")).to_be_visible()
    programs = {language: await shown(page, "first", language) for language in VIDEO_IN}
    every = await asyncio.gather(*(run_snippet(text, language) for language, text in programs.items()))
    for ran in every:
        assert ran.code == 0, ran.errors
        assert b"ftyp" in (ran.folder / "fox.mp4").read_bytes()[:16]


async def test_an_endpoint_its_secret_and_a_test_event(open_page: OpenPage, make_person: MakePerson) -> None:
    page = await open_page(await make_person(), width=360, theme="dark")
    watch_of(page).expect("status of 400")  # nothing listens there

    await page.goto("/console/webhooks")
    await page.get_by_role("button", name="Add endpoint").first.click()
    await page.locator("dialog[open] input[name=name]").fill("Shop")
    await page.locator("dialog[open] input[name=url]").fill("https://receiver.invalid/hooks")
    await assert_accessible(page)
    await page.locator("dialog[open] button.primary").click()

    await page.get_by_role("button", name="Copy the secret").click()
    assert (await copied(page)).startswith("whsec_")
    await assert_accessible(page)
    await page.get_by_role("link", name="Done: I have copied it").click()
    await page.get_by_role("button", name="Send a test event").click()
    await expect(page.locator("[role=alert]")).to_be_visible()
    await page.locator("tbody details summary").click()
    await expect(page.locator("tbody pre")).to_contain_text('"test": true')
    await assert_accessible(page)
    await shoot(page, "webhooks/endpoint")


@pytest.mark.parametrize("language", ["curl", "python", "node"])
async def test_the_programs_of_the_docs_run_one_after_the_other(
    open_page: OpenPage, make_person: MakePerson, run_snippet: RunSnippet, language: str
) -> None:
    person = await make_person(credits=1000)
    page = await open_page(person)
    await page.goto("/console/docs")

    parts = [await shown(page, f"c-{name}", language) for name in ("image", "edit", "video", "tasks", "errors")]
    again = await shown(page, "c-idempotency", language)

    ran = await run_snippet(with_mask(parts, language) + "\n" + again, language, MEDIAGATE_KEY=person.key.secret)
    assert ran.code == 0, ran.errors
    assert "model_not_found" in ran.output
    assert "completed" in ran.output
    for name in ("fox.png", "scarf.png", "fox.mp4"):
        assert (ran.folder / name).stat().st_size > 500


def with_mask(parts: list[str], language: str) -> str:
    """Join the programs, with the mask that their reader is asked to bring."""
    mask = Image.new("RGBA", (1024, 1024), "black")
    mask.paste((0, 0, 0, 0), (256, 256, 768, 768))
    packed = io.BytesIO()
    mask.save(packed, "PNG")
    text = base64.b64encode(packed.getvalue()).decode()
    written = {
        "curl": f"echo {text} | base64 -d > mask.png",
        "python": f'Path("mask.png").write_bytes(base64.b64decode("{text}"))',
        "node": f'fs.writeFileSync("mask.png", Buffer.from("{text}", "base64"));',
    }
    return "\n".join([parts[0], written[language], *parts[1:]])
