"""The pool of limited children: its limits hold, and no failure of one call reaches the next."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.media.processes import CALLS_PER_CHILD, MIB, ChildFailed, ChildPool

PARENT = """
import asyncio
from app.media.processes import ChildPool

async def main():
    pool = ChildPool("tests.limited_child", size=2, memory_bytes=None, cpu_s=None)
    busy = [asyncio.create_task(pool.call("wait", seconds=600, timeout_s=600)) for _ in range(2)]
    while len(pool.pids()) < 2:
        await asyncio.sleep(0.01)
    print(*pool.pids(), flush=True)
    await asyncio.gather(*busy)

asyncio.run(main())
"""


@pytest.fixture(scope="session", params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def pool() -> AsyncIterator[ChildPool]:
    pool = ChildPool("tests.limited_child", size=1, memory_bytes=256 * MIB, cpu_s=1, file_bytes=MIB)
    yield pool
    await pool.close()


async def started(pool: ChildPool, op: str, **args: Any) -> asyncio.Task[dict[str, Any]]:
    """Begin a call and return when its child runs."""
    task = asyncio.create_task(pool.call(op, timeout_s=60, **args))
    await until(lambda: len(pool.pids()) == 1)
    return task


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(4000):
        if is_so():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


def is_gone(pid: int, within_s: float = 10) -> bool:
    """Whether a process of somebody else ends; one that nobody reaps is as good as gone."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


async def test_a_child_starts_when_needed_and_stays(pool: ChildPool) -> None:
    assert pool.pids() == []

    first = await pool.call("echo", timeout_s=30, word="狐狸")
    second = await pool.call("echo", timeout_s=30, word="fox")

    assert (first["word"], second["word"]) == ("狐狸", "fox")
    assert pool.pids() == [first["pid"]] == [second["pid"]]


async def test_a_call_that_takes_too_long_loses_its_child_and_the_next_one_works(pool: ChildPool) -> None:
    slow = (await pool.call("echo", timeout_s=30))["pid"]

    with pytest.raises(ChildFailed, match=r"more than 0\.1 s") as failed:
        await pool.call("wait", seconds=600, timeout_s=0.1)

    assert failed.value.reason == "timeout"
    assert is_gone(slow)
    assert (await pool.call("echo", timeout_s=30, word="alive"))["word"] == "alive"


async def test_a_crashed_child_is_named_and_replaced(pool: ChildPool) -> None:
    with pytest.raises(ChildFailed, match=r"ended with -11\. famous last words") as failed:
        await pool.call("crash", timeout_s=30)

    assert failed.value.reason == "crashed"
    assert (await pool.call("echo", timeout_s=30, word="alive"))["word"] == "alive"


async def test_a_child_killed_while_idle_is_replaced(pool: ChildPool) -> None:
    old = (await pool.call("echo", timeout_s=30))["pid"]
    os.kill(old, signal.SIGKILL)
    await until(lambda: pool.pids() == [])

    new = (await pool.call("echo", timeout_s=30))["pid"]

    assert new != old


async def test_a_cancelled_caller_leaves_no_half_read_child(pool: ChildPool) -> None:
    task = await started(pool, "wait", seconds=600)
    (pid,) = pool.pids()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert is_gone(pid)
    assert (await pool.call("echo", timeout_s=30, word="mine"))["word"] == "mine"


async def test_calls_beyond_the_size_wait_for_a_child(pool: ChildPool) -> None:
    answers = await asyncio.gather(*(pool.call("echo", timeout_s=30, number=number) for number in range(20)))

    assert [answer["number"] for answer in answers] == list(range(20))
    assert len({answer["pid"] for answer in answers}) == 1


async def test_too_much_memory_is_refused_and_the_child_replaced(pool: ChildPool) -> None:
    before = (await pool.call("echo", timeout_s=30))["pid"]

    with pytest.raises(ChildFailed) as failed:
        await pool.call("eat", size_bytes=512 * MIB, timeout_s=30)

    assert failed.value.reason == "memory"
    assert (await pool.call("echo", timeout_s=30))["pid"] != before


async def test_cpu_is_granted_per_call_and_then_ends_the_child(pool: ChildPool) -> None:
    with pytest.raises(ChildFailed) as failed:
        await pool.call("spin", timeout_s=30)

    assert failed.value.reason == "cpu"
    assert (await pool.call("echo", timeout_s=30, word="alive"))["word"] == "alive"


async def test_a_file_cannot_outgrow_its_limit(pool: ChildPool, tmp_path: Path) -> None:
    await pool.call("write", path=str(tmp_path / "small"), size_bytes=MIB, timeout_s=30)

    with pytest.raises(ChildFailed, match="File too large"):
        await pool.call("write", path=str(tmp_path / "large"), size_bytes=MIB + 1, timeout_s=30)

    assert (tmp_path / "large").stat().st_size <= MIB


async def test_a_mistake_of_ours_comes_back_with_its_traceback(pool: ChildPool) -> None:
    with pytest.raises(ChildFailed, match="KeyError: 'our mistake'") as failed:
        await pool.call("blunder", timeout_s=30)

    assert failed.value.reason == "error"


async def test_a_child_is_replaced_after_many_calls(pool: ChildPool) -> None:
    pids = {(await pool.call("echo", timeout_s=30))["pid"] for _ in range(CALLS_PER_CHILD + 1)}

    assert len(pids) == 2


async def test_closing_ends_busy_and_idle_children_and_refuses_calls(pool: ChildPool) -> None:
    task = await started(pool, "wait", seconds=600)
    pids = pool.pids()

    await pool.close()

    with pytest.raises(ChildFailed, match="closed"):
        await task
    with pytest.raises(ChildFailed, match="closed"):
        await pool.call("echo", timeout_s=30)
    assert all(is_gone(pid) for pid in pids)


def test_children_die_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
    finally:
        parent.kill()
        parent.communicate()

    assert len(children) == 2
    assert all(is_gone(pid) for pid in children)
