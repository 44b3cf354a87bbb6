"""What a free question to a vendor tells, where vendors differ. What they have in common is in the contract's tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.fetch.client import SafeFetcher
from app.providers.comfyui import provider as comfyui
from app.providers.demo.adapter import DemoProvider
from app.requests import Operation
from app.settings import Settings
from app.upstreams import probing
from app.upstreams.contract.harness import SECRET
from app.upstreams.http import UpstreamHttp
from app.upstreams.probing import Finding, ask
from app.upstreams.protocols import Capabilities, SubmitSafety, Upstream, UpstreamDenied
from tests.providers import openai_calls
from tests.providers.apimart_calls import Desk as ApimartDesk
from tests.providers.ark_calls import open_desk as open_ark
from tests.providers.fakes.comfyui import FakeComfyui
from tests.providers.fakes.google import IMAGE_MODELS, VIDEO_MODELS
from tests.providers.fakes.openai_data import Style
from tests.providers.google_calls import BEARER, GEMINI
from tests.providers.google_calls import Desk as GoogleDesk

MODELS = (IMAGE_MODELS[0], VIDEO_MODELS[0])


@pytest.mark.parametrize(
    ("style", "options", "secret", "expected"),
    [
        (Style(), {}, SECRET, Finding(True, probing.ACCEPTED, missing=("mine/flux",))),
        (Style(models=("gpt-image-2", "mine/*")), {}, SECRET, Finding(True, probing.ACCEPTED, missing=())),
        (Style(), {"profile": "sd.cpp"}, SECRET, Finding(True, probing.ACCEPTED)),
        (
            Style(open_list=True),
            {"profile": "compatible"},
            SECRET,
            Finding(True, probing.NOT_JUDGED, is_sure=False, missing=("mine/flux",)),
        ),
        (Style(open_list=True), {}, None, Finding(True, probing.ASKS_NONE, missing=("mine/flux",))),
        (
            Style(),
            {"profil": "x"},
            SECRET,
            Finding(False, probing.UNFIT, {"words": "options of upstream main: profil"}),
        ),
    ],
    ids=["whole", "wildcard", "one-model", "open-list", "no-secret", "options"],
)
async def test_a_server_of_openais_protocol(
    tmp_path: Path, style: Style, options: Mapping[str, Any], secret: str | None, expected: Finding
) -> None:
    desk = await openai_calls.open_desk(tmp_path, style)
    upstream = replace(desk.upstream(**options), secret=SecretStr(secret) if secret else None)

    found = await ask(desk.provider, upstream, ["gpt-image-2", "mine/flux"], desk.http)

    await openai_calls.close_desk(desk)
    assert replace(found, took_ms=0) == expected


@pytest.mark.parametrize(
    ("options", "secret", "text", "missing"),
    [
        (GEMINI, SECRET, probing.ACCEPTED, (VIDEO_MODELS[0],)),
        (BEARER, SECRET, probing.ACCEPTED, None),
        (BEARER, "ya29.expired", probing.REFUSED, None),
        ({"api": "agent"}, SECRET, probing.NO_CALL, None),
        ({"api": "other"}, SECRET, probing.UNFIT, None),
        (GEMINI, None, probing.UNFIT, None),
    ],
    ids=["gemini", "project", "expired", "express", "option", "no-key"],
)
async def test_google_has_two_apis(
    tmp_path: Path, options: Mapping[str, Any], secret: str | None, text: str, missing: tuple[str, ...] | None
) -> None:
    async with GoogleDesk.opened(tmp_path) as desk:
        found = await ask(desk.google, desk.upstream(options, secret=secret), MODELS, desk.http)

    assert (found.text, found.missing) == (text, missing)


async def test_an_empty_purse_is_told(tmp_path: Path) -> None:
    async with ApimartDesk.opened(tmp_path) as desk:
        left = await ask(desk.apimart, desk.upstream(), ["unknown"], desk.http)
        desk.fake.balance = 0
        spent = await ask(desk.apimart, desk.upstream(), [], desk.http)
    async with open_ark(tmp_path) as ark:
        overdue = {"error": {"code": "AccountOverdueError", "message": "The account 2100123456789 is overdue."}}
        ark.fake.instead = overdue
        odd = await ask(ark.provider, ark.upstream, [], ark.http)

    assert (left.text, left.values, left.missing) == (probing.LEFT, {"balance": "12.50 USD"}, None)
    assert (spent.is_good, spent.text) == (False, probing.SPENT)
    assert (odd.is_good, odd.text) == (False, probing.UNCLEAR)


async def test_a_comfyui_that_is_open_to_all_judges_no_secret() -> None:
    fake, fetcher = FakeComfyui(), SafeFetcher(Settings())
    http = UpstreamHttp(fetcher)
    await fake.start()
    upstream = Upstream("gpu", "comfyui", fake.url)
    shut = await ask(comfyui(), upstream, [], http)
    fake.is_open = True
    without = await ask(comfyui(), upstream, [], http)
    with_one = await ask(comfyui(), replace(upstream, secret=SecretStr(SECRET)), [], http)
    await http.close()
    await fetcher.close()
    await fake.stop()

    assert [found.text for found in (shut, without, with_one)] == [
        probing.REFUSED, probing.ASKS_NONE, probing.NOT_JUDGED,
    ]  # fmt: skip


class Broken:
    name = "broken"
    capabilities = Capabilities(frozenset(Operation), SubmitSafety.BLIND)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def needs_secret(self, upstream: Upstream) -> bool:
        return False

    async def probe(self, call: Any, models: Any) -> Any:
        raise self.error


class Mute:
    name = "mute"
    capabilities = Broken.capabilities


async def test_whatever_a_provider_does_is_a_sentence() -> None:
    http = UpstreamHttp(fetcher := SafeFetcher(Settings()))
    upstream = Upstream("x", "x", secret=SecretStr("a word"))

    broken = await ask(Broken(KeyError("a word")), upstream, [], http)
    spent = await ask(Broken(UpstreamDenied("a word is no good", is_spent=True)), upstream, [], http)
    mute = await ask(Mute(), upstream, [], http)
    local = await ask(demo := DemoProvider(slots=1), upstream, [], http)
    await demo.close()
    await http.close()
    await fetcher.close()

    assert (broken.text, broken.values, broken.is_good) == (probing.BROKEN, {"words": "KeyError"}, False)
    assert (spent.text, spent.values) == (probing.SPENT, {"words": "... is no good"})
    assert (mute.text, mute.is_good, mute.is_sure) == (probing.NOTHING_FREE, True, False)
    assert (local.text, local.is_good, local.is_sure) == (probing.LOCAL, True, True)
