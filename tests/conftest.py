"""What every test shares: the real servers, and one event loop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

pytest_plugins = ["tests.plugins.servers", "tests.plugins.gateway"]

UPSTREAMS = yaml.safe_load((Path(__file__).parents[1] / "config" / "upstreams.yaml").read_text())["upstreams"]
for upstream in UPSTREAMS.values():  # a developer's own keys: no test, and no gateway of one, may spend them
    os.environ.pop(upstream.get("secret_env", ""), None)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}
