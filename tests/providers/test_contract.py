"""Every vendor's provider keeps the contract, against its own fake upstream.

The checks are those that authors of other packages run. The demo provider has no wire, and tests of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from pydantic import SecretStr
from yarl import URL

from app.upstreams import probing
from app.upstreams.contract.bench import NotApplicable, open_bench
from app.upstreams.contract.checks import CHECKS, Ability, Check, can
from app.upstreams.contract.harness import SECRET, Harness
from app.upstreams.contract.run import perform
from app.upstreams.protocols import Probe
from app.upstreams.registry import discover

IMAGES = frozenset({"openai", "google", "apimart", "comfyui"})
VIDEOS = frozenset({"openai", "google", "ark", "dashscope", "apimart", "comfyui"})
LISTS = frozenset({"ark", "dashscope"})
TELLS_MODELS = frozenset({"openai", "apimart"})
"""Whose list of models is whole, for the account of the harness."""
WHO: dict[Ability | None, frozenset[str]] = {None: IMAGES | VIDEOS, "image": IMAGES, "video": VIDEOS, "list": LISTS}
CASES = [
    pytest.param(check, vendor, id=f"{vendor}-{check.name}") for check in CHECKS for vendor in sorted(WHO[check.needs])
]


def harness_of(vendor: str) -> Callable[[], Harness]:
    return cast(Callable[[], Harness], import_module(f"tests.providers.test_{vendor}").harness)


@pytest.mark.parametrize(("check", "vendor"), CASES)
async def test_a_provider_keeps_the_contract(check: Check, vendor: str, tmp_path: Path) -> None:
    try:
        await perform(check, harness_of(vendor), tmp_path)
    except NotApplicable as why:
        pytest.skip(str(why))


class Stub:
    """A server that gives every question the same answer; with no answer it is silent."""

    def __init__(self) -> None:
        self.answer: tuple[int, str, str] | None = None
        self.url = ""
        self._ended = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        if self.answer is None:
            await self._ended.wait()
            return web.Response()
        status, text, kind = self.answer
        return web.Response(status=status, text=text, content_type=kind)

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Stub]:
        stub, app = cls(), web.Application()
        app.router.add_route("*", "/{path:.*}", stub.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield stub
        stub._ended.set()
        await runner.cleanup()


ECHO = json.dumps(
    {"error": {"code": SECRET, "message": f"no {SECRET}", "type": SECRET}, "code": SECRET, "message": SECRET}
)
SAID = {
    (200, "<html>It works!</html>", "text/html"): (False, probing.UNCLEAR),
    (200, '{"hello": 1}', "application/json"): (False, probing.UNCLEAR),
    (401, ECHO, "application/json"): (False, probing.REFUSED),
    (402, "{}", "application/json"): (False, probing.SPENT),
    (404, "{}", "application/json"): (True, probing.NO_CALL),
    (405, "no", "text/plain"): (True, probing.NO_CALL),
    (429, "{}", "application/json"): (True, probing.BUSY),
    (502, f"<html>{SECRET}</html>", "text/html"): (False, probing.UNCLEAR),
}


@pytest.mark.parametrize("vendor", sorted(IMAGES | VIDEOS))
async def test_a_vendor_is_asked_something_free_and_what_it_says_is_told(vendor: str, tmp_path: Path) -> None:
    async with open_bench(harness_of(vendor)(), tmp_path) as bench, Stub.opened() as stub:
        models = [model for model in (bench.vendor.image_model, bench.vendor.video_model) if model]

        async def ask(within_s: float = probing.PROBE_S, **changes: Any) -> probing.Finding:
            upstream = replace(bench.vendor.upstream, **changes)
            asked = [*models, "nobody-has-this"]
            found = await probing.ask(bench.vendor.provider, upstream, asked, bench.http, within_s=within_s)
            assert SECRET not in f"{found} {found.text % found.values}"
            assert "127.0.0.1" not in found.text % found.values
            return found

        accepted = await ask()
        refused = await ask(secret=SecretStr("sk-another-0123456789abcdef"))
        down = await ask(base_url=str(URL(bench.vendor.upstream.base_url or "").with_port(9)))
        silent = await ask(within_s=0.2, base_url=stub.url)
        said = {}
        for answer in SAID:
            stub.answer = answer
            found = await ask(base_url=stub.url)
            said[answer] = (found.is_good, found.text)

        assert (accepted.is_good, accepted.is_sure) == (True, True)
        assert accepted.text == (probing.LEFT if vendor == "apimart" else probing.ACCEPTED)
        assert accepted.missing == (("nobody-has-this",) if vendor in TELLS_MODELS else None)
        assert (refused.is_good, refused.is_sure, refused.text) == (False, True, probing.REFUSED)
        assert (down.is_good, down.text) == (False, probing.UNREACHABLE)
        assert (silent.is_good, silent.is_sure, silent.text) == (False, False, probing.SLOW)
        assert said == SAID
        assert bench.vendor.accepted == 0


def test_every_provider_in_the_tree_can_be_asked() -> None:
    for name, provider in discover().items():
        assert isinstance(provider, Probe), name


@pytest.mark.parametrize("ability", ["image", "video", "list"])
def test_no_provider_is_left_out(ability: Ability) -> None:
    able = {name for name, provider in discover().items() if can(provider, ability)}

    assert able - {"demo"} == WHO[ability]


def test_no_two_checks_share_a_name() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
