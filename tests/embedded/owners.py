"""Processes that own servers, for tests that kill them; and how those tests wait."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import asyncpg

from app.embedded.process import is_running, wait_for

T = TypeVar("T")

PATIENCE_S = 30

BOTH_SERVERS = """
import sys, time
from pathlib import Path
from typing import TypeVar
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey

folder = Path(sys.argv[1])
postgres, valkey = EmbeddedPostgres(folder / "postgres"), EmbeddedValkey(folder / "valkey")
postgres.start()
valkey.start()
print(postgres.pid, valkey.pid, flush=True)
time.sleep(600)
"""


@contextmanager
def owner_of(folder: Path, program: str = BOTH_SERVERS) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Run a process that starts servers in ``folder`` and prints their pids; kill it at the end if nobody did."""
    owner = subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        yield owner, [int(pid) for pid in owner.stdout.readline().split()]
    finally:
        owner.kill()
        owner.communicate()


def all_end(pids: list[int], timeout_s: float = PATIENCE_S) -> bool:
    return wait_for(lambda: not any(map(is_running, pids)), timeout_s=timeout_s)


def eventually(look: Callable[[], T], timeout_s: float = PATIENCE_S) -> T:
    """Look again and again until what is seen is true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"still {seen!r} after {timeout_s} s"
        time.sleep(0.02)
    return seen


async def query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()
