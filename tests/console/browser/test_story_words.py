"""What an error says to a Chinese reader is the same from a script as from a page, with values and labels."""

from __future__ import annotations

from tests.console.browser.conftest import MakePerson, OpenPage
from tests.console.test_refusals import TOLD

FORMS_ONLY = ("AccountBusy", "TooManyTries")
"""Met on pages alone: scripts say these by their reason."""


async def test_scripts_say_of_an_error_what_pages_say(open_page: OpenPage, make_person: MakePerson) -> None:
    page = await open_page(await make_person(), language="zh-CN")
    await page.goto("/console/playground")
    asked = [
        ({"message": error.message, "reason": error.reason}, chinese)
        for error, chinese in TOLD
        if type(error).__name__ not in FORMS_ONLY and "may be at most" not in error.message
    ]

    told = await page.evaluate(
        """async (errors) => {
          const { said } = await import(document.querySelector("script[data-texts]").src);
          return errors.map(said);
        }""",
        [error for error, _ in asked],
    )

    assert told == [chinese for _, chinese in asked]
