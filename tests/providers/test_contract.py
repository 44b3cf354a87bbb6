"""Every vendor's provider keeps the contract, against its own fake upstream.

The checks are those that authors of other packages run. The demo provider has no wire, and tests of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

import pytest

from app.upstreams.contract.bench import NotApplicable
from app.upstreams.contract.checks import CHECKS, Ability, Check, can
from app.upstreams.contract.harness import Harness
from app.upstreams.contract.run import perform
from app.upstreams.registry import discover

IMAGES = frozenset({"openai", "google", "apimart", "comfyui"})
VIDEOS = frozenset({"openai", "google", "ark", "dashscope", "apimart", "comfyui"})
LISTS = frozenset({"ark", "dashscope"})
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


@pytest.mark.parametrize("ability", ["image", "video", "list"])
def test_no_provider_is_left_out(ability: Ability) -> None:
    able = {name for name, provider in discover().items() if can(provider, ability)}

    assert able - {"demo"} == WHO[ability]


def test_no_two_checks_share_a_name() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
