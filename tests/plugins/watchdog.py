"""Ends a test process that hangs where no signal reaches it.

pytest-timeout interrupts Python; a process stuck inside C (an event loop that does not close) would hang the whole run
without a word. Here a thread of the interpreter's own writes every stack and ends the process: the run goes on in a
new one, and the test counts as failed.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key  # standard error as it was before output was captured

MARGIN_S = float(os.environ.get("MG_WATCHDOG_MARGIN_S", "60"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if item.config.getoption("usepdb"):  # somebody is looking, and takes their time
        return (yield)
    stderr = item.config.stash[fault_handler_stderr_fd_key]
    faulthandler.dump_traceback_later(_timeout_s(item) + MARGIN_S, exit=True, file=stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _timeout_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker else item.config.getini("timeout"))
