"""What every test shares: the real servers, and one event loop."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.plugins.servers", "tests.plugins.gateway"]


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}
