"""Every documented operation, with good and bad requests, against the real process: no 5xx, nothing undocumented.

Schemathesis reads `/openapi.json` and makes the requests.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from app.db import once
from tests.depth import DEPTH
from tests.factories import engine_of, make_account, make_key
from tests.plugins.gateway import Gateway

SECONDS = DEPTH.fuzz_s
LEFT_OUT = "positive_data_acceptance"
"""It wants a 2xx for all that fits the schema, which cannot say what fields may be together or where a URL leads."""
CALLERS = {"nobody": SECONDS // 2, "a revoked key": SECONDS // 2, "a user": SECONDS, "an administrator": SECONDS}
"""Who calls, and for how long: whoever gets in nowhere is told so early, and needs half of it."""
CREDITS = 60
"""The images and videos that a key's fuzz may really make: the others end at 402, after everything was judged."""


def secret_of(caller: str, url: str) -> str | None:
    async def make() -> str | None:
        if caller == "nobody":
            return None
        is_admin = caller == "an administrator"
        account = await make_account(url, credits=CREDITS, is_admin=is_admin, max_in_flight=4)
        key = await make_key(url, account, scopes=("admin:*",) if is_admin else ())
        if caller == "a revoked key":
            async with engine_of(url) as engine:
                await once(engine, "UPDATE api_keys SET revoked_at = now() WHERE id = $1", (key.id,))
        return key.secret

    return asyncio.run(make())


@pytest.mark.timeout(SECONDS * 4 + 120)
@pytest.mark.parametrize("caller", CALLERS)
def test_no_request_finds_a_5xx_or_an_undocumented_answer(own_gateway: Gateway, caller: str, tmp_path: Path) -> None:
    secret = secret_of(caller, own_gateway.database_url)
    command = [
        str(Path(sys.executable).with_name("st")), "run", f"{own_gateway.base_url}/openapi.json",
        "--max-time", str(CALLERS[caller]), "--checks", "all", "--exclude-checks", LEFT_OUT, "--continue-on-failure",
        "--no-color", "--request-timeout", "30", "--generation-database", "none",
    ]  # fmt: skip
    if not DEPTH.is_random:
        command += ["--seed", "1"]
    if caller == "an administrator":
        command += ["--include-path-regex", "^/admin/"]
    if secret is not None:
        command += ["--header", f"Authorization: Bearer {secret}"]

    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS * 4 + 100, check=False)

    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
