"""The catalogue: open to people who have not signed in, unless the operator closes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.wiring import Services
from tests.console.pages import Tab, sign_in


async def test_everybody_sees_models_prices_and_whether_each_can_be_had(
    client: AsyncClient, services: Services
) -> None:
    tab = Tab(client)

    page = await tab.get("/console/models")

    models = services.catalog.models
    assert page.status == 200
    assert {f"/console/models/{name}" for name in models} <= set(page.links)
    assert "1 to 3 credits an image" in page.text
    assert "All models are available" in page.text
    assert "/console/login" in page.links
    assert "balance" not in page.html

    assert "/console/models/gpt-image-2" not in (await tab.get("/console/models?type=video")).links
    assert "No model matches" in (await tab.get("/console/models?q=%3Cscript%3E")).text


async def test_each_model_has_a_page_with_its_prices_and_its_code(client: AsyncClient, services: Services) -> None:
    tab = Tab(client)

    for name in services.catalog.models:
        assert (await tab.get(f"/console/models/{name}")).status == 200
        page = await tab.get(f"/console/models/{name}?tab=api")
        assert (page.status, name in page.text) == (200, True)

    overview = await tab.get("/console/models/gpt-image-2")
    assert "at most 5" in overview.text
    assert "Ultra HD 2880×2880 3" in overview.text
    api = await tab.get("/console/models/veo3.1-lite?tab=api")
    assert '"model": "veo3.1-lite"' in api.text
    assert f"{services.settings.base_url}/v1/videos/generations" in api.text
    assert any(row.startswith("duration Duration") for row in api.rows)
    assert (await tab.get("/console/models/no-such-model")).status == 404


async def test_somebody_signed_in_finds_the_way_to_their_results(client: AsyncClient, services: Services) -> None:
    tab = await sign_in(client, services, credits=5)

    page = await tab.get("/console/models/gpt-image-2")

    assert "/console/gallery?model=gpt-image-2" in page.links
    assert page.root.all("a", href="/console/models", aria_current="page")


async def test_an_operator_can_close_the_catalogue(client: AsyncClient, services: Services, closed: None) -> None:
    tab = Tab(client)

    for path in ("/console/models", "/console/models/gpt-image-2"):
        page = await tab.get(path)
        assert page.status == 303
        assert page.response.headers["location"].startswith("/console/login?next=")
    assert "/console/models" not in (await tab.get("/console/login")).links
    assert (await (await sign_in(client, services)).get("/console/models")).status == 200


@pytest.fixture
def closed(app: FastAPI, services: Services) -> Iterator[None]:
    """The catalogue is for people who have signed in, while the test goes on."""
    settings = services.settings.model_copy(update={"public_models": False})
    app.state.services = replace(services, settings=settings)
    yield
    app.state.services = services
