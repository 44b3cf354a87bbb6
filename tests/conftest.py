"""What every test shares: the real servers, and one event loop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

pytest_plugins = [
    "tests.plugins.servers",
    "tests.plugins.gateway",
    "tests.plugins.browser",
    "tests.plugins.order",
    "tests.plugins.watchdog",
]

UPSTREAMS = yaml.safe_load((Path(__file__).parents[1] / "config" / "upstreams.yaml").read_text())["upstreams"]
for upstream in UPSTREAMS.values():  # a developer's own keys: no test, and no gateway of one, may spend them
    os.environ.pop(upstream.get("secret_env", ""), None)
# Nothing here speaks TLS with a public host, and to read the system's authorities costs each TLS client 25 ms of CPU.
# One that signed nothing stands for them, as some clients refuse an empty list.
os.environ |= {"SSL_CERT_FILE": str(Path(__file__).parent / "plugins" / "nobody.pem"), "SSL_CERT_DIR": os.devnull}


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}
