"""The shipped configuration with the real providers: who serves what, by the keys that are in the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.catalog.book import Book
from app.catalog.load import load_catalog
from app.db import make_engine
from app.requests import ImageRequest, Operation, VideoRequest
from app.upstreams.registry import Registry, discover
from app.upstreams.routing import Candidates, capable
from tests.factories import SECRETS_KEY
from tests.unit.catalogs import CONFIG

KEYS = ("OPENAI_API_KEY", "GOOGLE_API_KEY", "ARK_API_KEY", "DASHSCOPE_API_KEY", "APIMART_API_KEY")
FOX = ImageRequest(Operation.IMAGE_GENERATE, "a fox", 1024, 1024, "1:1", "standard")
FILM = VideoRequest(Operation.VIDEO_GENERATE, "a fox", "720p", 1280, 720, "16:9", 8)
REMIX = VideoRequest(Operation.VIDEO_REMIX, "a fox", "720p", 1280, 720, "16:9", 8)
HERD = tuple(f"gemini-3{name}" for name in ("-pro-image-preview", "-pro-image-preview-2k", ".1-flash-image-preview-4k"))

With = Callable[..., "Serving"]


class Serving:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def found(self, model: str, *, may_cost_more: bool = False, request: VideoRequest = FILM) -> Candidates:
        wanted = FOX if "image" in model else request
        return capable(self._registry, model, wanted, may_cost_more=may_cost_more)

    def by(self, model: str, **more: bool) -> list[str]:
        """Return the pools for an ordinary request, by priority."""
        routes = sorted(self.found(model, **more).routes, key=lambda route: route.priority)  # type: ignore[arg-type]
        assert len({route.priority for route in routes}) == len(routes)
        return [route.pool for route in routes]


@pytest.fixture
async def serving(fresh_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Seed an empty database with these keys set and no others."""
    providers = discover()
    capabilities = {name: provider.capabilities for name, provider in providers.items()}
    catalog = load_catalog(CONFIG, providers=capabilities)
    engine = make_engine(fresh_database(migrated=True), pool_size=2)

    async def seeded(*keys: str) -> Serving:
        for name in KEYS:
            monkeypatch.delenv(name, raising=False)
        for name in keys:
            monkeypatch.setenv(name, "sk-test")
        registry = Registry(providers)
        book = Book(engine, SECRETS_KEY, catalog=catalog, providers=capabilities, work_dir=tmp_path)
        await book.seed()
        await book.refresh(registry)
        return Serving(registry)

    yield seeded
    await engine.dispose()


def test_every_account_but_the_demo_waits_for_a_variable_of_its_own():
    capabilities = {name: provider.capabilities for name, provider in discover().items()}
    catalog = load_catalog(CONFIG, providers=capabilities)

    variables = {name: spec.secret_env for name, spec in catalog.upstreams.items()}

    assert variables.pop("demo") is None
    assert sorted(map(str, variables.values())) == sorted(KEYS)
    for model in catalog.models.values():
        *real, last = model.routes
        assert (last.upstream, last.options) == ("demo", {"stand_in": True})
        assert real
        assert all(route.upstream != "demo" and "stand_in" not in route.options for route in real)


async def test_without_any_key_the_demo_makes_everything(serving):
    now = await serving()

    assert now.by("gpt-image-2") == ["demo/gpt-image-2"]
    assert now.by("veo3.1-fast") == ["demo/veo-3.1-fast"]


async def test_with_a_key_the_vendor_makes_its_models_and_the_demo_only_the_others(serving):
    now = await serving("OPENAI_API_KEY")

    assert now.by("gpt-image-2") == ["openai/gpt-image-2"]
    assert now.by("gemini-3-pro-image-preview") == ["demo/gemini-3-pro-image"]


async def test_a_key_that_comes_later_ends_the_demos_part(serving):
    assert (await serving()).by("gpt-image-2") == ["demo/gpt-image-2"]

    now = await serving("OPENAI_API_KEY")

    assert now.by("gpt-image-2") == ["openai/gpt-image-2"]


async def test_with_every_key_the_vendor_goes_first_and_apimart_second(serving):
    now = await serving(*KEYS)

    assert now.by("gpt-image-2") == ["openai/gpt-image-2", "apimart/gpt-image-2"]
    for model in HERD:
        name = model.removesuffix("-2k").removesuffix("-4k")
        assert now.by(model) == [f"google/{name.removesuffix('-preview')}", f"apimart/{name}"]
    assert now.by("happyhorse-1.0") == ["dashscope/happyhorse-1.0", "apimart/happyhorse-1.0"]
    assert now.by("doubao-seedance-2.0") == ["ark/doubao-seedance-2-0-260128", "apimart/doubao-seedance-2.0"]
    fast = "doubao-seedance-2.0-fast"
    assert now.by(fast) == ["ark/doubao-seedance-2-0-fast-260128", f"apimart/{fast}"]
    assert now.by(f"{fast}-face") == [f"apimart/{fast}-face"]
    assert now.by("veo3.1-lite") == ["google/veo-3.1-lite-generate-001", "apimart/veo3.1-lite"]


async def test_veo_is_apimarts_and_falls_over_to_google_with_permission_only(serving):
    now = await serving("GOOGLE_API_KEY", "APIMART_API_KEY")

    for model, official in (("veo3.1-fast", "veo-3.1-fast"), ("veo3.1-quality", "veo-3.1")):
        assert now.by(model) == [f"apimart/{model}"]
        assert now.by(model, may_cost_more=True) == [f"apimart/{model}", f"google/{official}-generate-001"]


async def test_with_googles_key_alone_veo_is_served_without_a_permission(serving):
    now = await serving("GOOGLE_API_KEY")

    assert now.by("veo3.1-fast") == ["google/veo-3.1-fast-generate-001"]
    assert now.by("veo3.1-quality") == ["google/veo-3.1-generate-001"]


async def test_what_no_real_upstream_can_do_is_refused_with_the_reason_and_not_drawn(serving):
    found = (await serving("GOOGLE_API_KEY")).found("veo3.1-lite", request=REMIX)

    assert found.routes == ()
    assert "lite model extends no videos" in found.reasons[0]
