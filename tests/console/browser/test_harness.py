"""The watch over a page sees what it is there for: otherwise every other test here would prove nothing."""

from __future__ import annotations

import hashlib

import pytest
from playwright.async_api import Page, Route

from tests.console.browser import axe
from tests.console.browser.artefacts import quantised, shoot
from tests.console.browser.conftest import OpenPage, RunSnippet
from tests.console.browser.pages import copied, downloaded, watch_of

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:"


def test_the_vendored_files_are_those_of_their_checksums() -> None:
    sums = axe.SCRIPT.with_name("SHA256SUMS").read_text().split()

    found = {name: hashlib.sha256(axe.SCRIPT.with_name(name).read_bytes()).hexdigest() for name in sums[1::2]}

    assert found == dict(zip(sums[1::2], sums[::2], strict=True))
    assert axe.SCRIPT.name in found


async def load(page: Page, body: str) -> None:
    """Show this page, under a policy like the console's."""

    async def answer(route: Route) -> None:
        html = f"<!doctype html><html lang=en><title>t</title><link rel=icon href='data:,'><main>{body}</main>"
        await route.fulfill(body=html, content_type="text/html", headers={"content-security-policy": POLICY})

    await page.route("**/shown", answer)
    await page.goto("/shown")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<p style='color: red'>", "content security policy: style-src-attr forbids inline"),
        ("<script>1</script>", "content security policy: script-src-elem forbids inline"),
        ("<img alt='' src='http://elsewhere.example/x.png'>", "foreign request: GET http://elsewhere.example/x.png"),
        ("<img alt='' src='/nothing.png'>", "status of 404"),
    ],
)
async def test_a_page_that_does_wrong_is_told_on(open_page: OpenPage, body: str, complaint: str) -> None:
    page = await open_page()

    await load(page, body)
    await page.wait_for_load_state("networkidle")

    assert complaint in "\n".join(watch_of(page).taken())


async def test_an_error_in_a_script_is_told_on_unless_it_is_expected(open_page: OpenPage) -> None:
    page = await open_page()
    await page.goto("/docs")
    watch = watch_of(page)

    for text in ("first", "second"):
        async with page.expect_event("pageerror"):
            await page.evaluate("(text) => { setTimeout(() => { throw new Error(text) }) }", text)
    watch.expect("second")

    assert ["first" in complaint for complaint in watch.taken()] == [True]


async def test_axe_finds_grey_on_grey_and_a_picture_without_words(open_page: OpenPage) -> None:
    page = await open_page()
    await load(page, "<font color='#bbbbbb'>grey</font><img src='/shown'>")

    found = "\n".join(await axe.violations(page))
    watch_of(page).taken()

    assert "color-contrast (serious)" in found
    assert "image-alt (critical)" in found


async def test_pictures_the_clipboard_downloads_and_scripts_work(open_page: OpenPage, run_snippet: RunSnippet) -> None:
    page = await open_page(language="zh-CN", theme="dark", width=360)
    await load(page, "<h1>一只狐狸</h1><a download='a.txt' href='blob:x'>save</a>")
    await page.evaluate("""async () => {
      document.querySelector('a').href = URL.createObjectURL(new Blob(['saved']))
      await navigator.clipboard.writeText('copied')
    }""")

    picture = (await shoot(page, "harness/picture")).read_bytes()

    assert await copied(page) == "copied"
    assert await downloaded(page, page.locator("a")) == ("a.txt", b"saved")
    assert await page.evaluate("() => [navigator.language, matchMedia('(prefers-color-scheme: dark)').matches]") == [
        "zh-CN",
        True,
    ]
    assert len(quantised(picture)) < len(picture)
    for kind, text in (("curl", "echo $WORD"), ("python", "import os; print(os.environ['WORD'])")):
        ran = await run_snippet(text, kind, WORD="hello")
        assert (ran.code, ran.output) == (0, "hello\n"), ran.errors


async def test_the_api_documentation_is_quiet(open_page: OpenPage) -> None:
    page = await open_page()

    await page.goto("/docs")

    await page.locator(".opblock").first.wait_for()
