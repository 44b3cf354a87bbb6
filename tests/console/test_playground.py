"""The pages of the playground and the gallery, without a browser: what they hold, and whose it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from httpx2 import AsyncClient

from app.wiring import Services
from tests.console.pages import OURS, Tab, sign_in

SCRIPT = "</script><script>alert(1)</script>"


def held(tab: Tab, block: str = "playground-data") -> dict[str, Any]:
    """Return the data that the page gives its script."""
    assert tab.page is not None
    found: dict[str, Any] = json.loads(tab.page.root.one("script", id=block).raw)
    return found


async def make_picture(client: AsyncClient, tab: Tab, prompt: str, **fields: Any) -> str:
    """Make a picture as the playground's script does."""
    page = tab.page or await tab.get("/console/playground")
    csrf = page.root.one("meta", name_="csrf")["content"]
    cookie = "; ".join(f"{name}={value}" for name, value in tab.cookies.items())
    answer = await client.post(
        "/v1/images/generations",
        json={"prompt": prompt, "response_format": "url", **fields},
        headers={**OURS, "cookie": cookie, "x-csrf-token": csrf},
    )
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["id"]
    return found


@pytest.fixture
async def tab(client: AsyncClient, services: Services) -> Tab:
    return await sign_in(client, services, credits=100)


async def test_the_playground_knows_every_model_and_leaves_out_what_is_for_programs(
    tab: Tab, services: Services
) -> None:
    page = await tab.get("/console/playground?model=veo3.1-lite")

    found = held(tab)
    models = {model["id"]: model for model in found["models"]}
    picture, film = models["gpt-image-2"], models["veo3.1-lite"]
    parameters = {one["name"]: one for one in picture["parameters"]}
    assert page.status == 200
    assert found["model"] == "veo3.1-lite"
    assert models.keys() == services.catalog.models.keys()
    assert [one["value"] for one in parameters["quality"]["values"]] == ["standard", "hd", "uhd"]
    assert parameters["size"]["default"] == "1:1"
    assert picture["mask"]
    assert not {"user", "stream", "n", "aspect_ratio", "image"} & parameters.keys()
    assert "official_fallback" not in {one["name"] for one in film["parameters"]}
    assert [one["name"] for one in film["inputs"]] == ["image_urls", "first_frame_image"]
    assert film["price"] == {"least": 36, "most": 115, "unit": "a video"}


async def test_a_run_is_there_after_a_reload_and_its_settings_can_be_used_again(client: AsyncClient, tab: Tab) -> None:
    task_id = await make_picture(client, tab, SCRIPT, size="16:9", quality="hd", background="opaque")

    page = await tab.get(f"/console/playground?from={task_id}")

    found = held(tab)
    assert [(run["id"], run["prompt"]) for run in found["runs"]] == [(task_id, SCRIPT)]
    assert SCRIPT not in page.html
    assert found["start"]["model"] == "gpt-image-2"
    assert found["start"]["prompt"] == SCRIPT
    assert found["start"]["values"].items() >= {"size": "16:9", "quality": "hd", "background": "opaque"}.items()
    assert (await tab.get(f"/console/playground/{task_id}/ahead")).response.json() == {"ahead": None, "isMore": False}


async def test_what_is_somebody_elses_is_not_there(client: AsyncClient, services: Services, tab: Tab) -> None:
    task_id = await make_picture(client, tab, "mine")
    other = await sign_in(client, services)

    await other.get(f"/console/playground?from={task_id}")
    assert held(other)["start"] == {"isLost": True}
    assert held(other)["runs"] == []
    await other.get(f"/console/playground?remix={task_id}")
    assert held(other)["start"] == {"isLost": True}
    for path in (f"/console/playground/{task_id}/ahead", f"/console/gallery/{task_id}"):
        assert (await other.get(path)).status == 404
    assert "mine" not in (await other.get("/console/gallery")).text
    page = await other.get("/console/gallery")
    csrf = page.root.one("meta", name_="csrf")["content"]
    assert (await other.send(f"/console/gallery/{task_id}/delete", {"csrf": csrf})).status == 404
    assert (await tab.get(f"/console/gallery/{task_id}")).status == 200


async def test_the_gallery_finds_shows_and_deletes_a_result(client: AsyncClient, services: Services, tab: Tab) -> None:
    first = await make_picture(client, tab, f"A paper BOAT {SCRIPT}", quality="hd")
    second = await make_picture(client, tab, "A fox")

    assert await tiles(tab) == [second, first]
    assert await tiles(tab, "?q=boat") == [first]
    assert await tiles(tab, "?type=video") == []
    assert await tiles(tab, "?model=gpt-image-2&since=2020-01-01") == [second, first]
    assert await tiles(tab, "?until=2020-01-01") == []
    assert await tiles(tab, f"?after={second}") == [first]
    page = await tab.get(f"/console/gallery/{first}")
    assert SCRIPT in page.text
    assert SCRIPT not in page.html
    assert "2 credits" in page.text
    assert "HD" in page.text

    gone = await tab.post(f"/console/gallery/{first}/delete")

    assert gone.url == "/console/gallery?done=deleted"
    assert await tiles(tab) == [second]
    assert (await tab.get(f"/console/gallery/{first}")).status == 404


async def test_a_search_of_many_prompts_goes_on_where_one_page_stopped(
    client: AsyncClient, tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await make_picture(client, tab, "A paper boat")
    second = await make_picture(client, tab, "A fox")
    monkeypatch.setattr("app.tasks.lists.SCATTERED", 1)

    page = await tab.get("/console/gallery?q=boat")

    [more] = page.root.all("a", rel="next")
    assert ("Search further back" in more.text, page.root.all("a", class_="tile")) == (True, [])
    assert more["href"].endswith(f"after={second}")
    assert await tiles(tab, f"?q=boat&after={second}") == [first]


async def test_results_lead_to_those_beside_them_that_the_filter_lets_through(client: AsyncClient, tab: Tab) -> None:
    old, other, new = [await make_picture(client, tab, prompt) for prompt in ("a boat", "a fox", "one boat more")]

    async def beside(task_id: str, query: str) -> dict[str, str]:
        page = await tab.get(f"/console/gallery/{task_id}{query}")
        assert f"/console/gallery{query}" in page.links
        return {link["rel"]: link["href"] for link in page.root.all("a") if link["rel"] in ("prev", "next")}

    assert await beside(other, "") == {"prev": f"/console/gallery/{new}", "next": f"/console/gallery/{old}"}
    assert await beside(new, "") == {"next": f"/console/gallery/{other}"}
    assert await beside(old, "?q=boat") == {"prev": f"/console/gallery/{new}?q=boat"}
    page = await tab.get("/console/gallery?q=boat")
    assert page.root.all("a", class_="tile")[0]["href"] == f"/console/gallery/{new}?q=boat"
    assert "API key Console" in (await tab.get(f"/console/gallery/{new}")).text


async def tiles(tab: Tab, query: str = "") -> list[str]:
    page = await tab.get(f"/console/gallery{query}")
    assert page.status == 200
    return [link["href"].partition("?")[0].rpartition("/")[2] for link in page.root.all("a", class_="tile")]
