"""The pictures of the READMEs: made anew by each run as artefacts, and with ``--pictures`` in ``docs/images``."""

from __future__ import annotations

import pytest

from tests.console.browser.artefacts import README_BYTES, README_FOLDER, folder, quantised
from tests.console.browser.chromium import settled
from tests.console.browser.conftest import OpenPage, Person
from tests.console.browser.life import Life
from tests.console.browser.pages import Language, Theme

# name: who looks at which page, and how
PICTURES: dict[str, tuple[str, str, Language, Theme, int]] = {
    "home": ("user", "/console", "en", "light", 1280),
    "home.zh-CN": ("user", "/console", "zh-CN", "light", 1280),
    "playground": ("user", "/console/playground", "en", "dark", 1280),
    "playground.zh-CN": ("user", "/console/playground", "zh-CN", "dark", 1280),
    "phone": ("user", "/console/gallery", "en", "light", 360),
    "phone.zh-CN": ("user", "/console/gallery", "zh-CN", "light", 360),
    "dashboard": ("admin", "/console/admin", "en", "light", 1280),
    "dashboard.zh-CN": ("admin", "/console/admin", "zh-CN", "light", 1280),
}


async def test_the_pictures_of_the_readmes_are_small(
    open_page: OpenPage, life: Life, user: Person, admin: Person, pytestconfig: pytest.Config
) -> None:
    people = {"user": user, "admin": admin}
    pictures = {}
    for name, (who, path, language, theme, width) in PICTURES.items():
        page = await open_page(people[who], language=language, theme=theme, width=width)
        await page.goto(path)
        await settled(page)
        pictures[f"{name}.png"] = quantised(await page.screenshot(animations="disabled", caret="hide"))
        await page.context.close()

    assert sum(map(len, pictures.values())) <= README_BYTES
    for place in [folder() / "readme"] + [README_FOLDER] * pytestconfig.option.pictures:
        place.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            (place / name).write_bytes(picture)
