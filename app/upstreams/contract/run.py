"""Performs a check against a harness of its own, and watches the log meanwhile."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from app.upstreams.contract.bench import CheckFailed, NotApplicable, expect, open_bench
from app.upstreams.contract.checks import CHECKS, Check, can
from app.upstreams.contract.harness import SECRET, Harness

CHECK_S = 30.0
"""A check that takes longer has failed: a provider waits for ever where it should give up."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one check."""

    check: Check
    state: Literal["ok", "failed", "skipped"]
    detail: str = ""
    """Why, in one line that may be shown."""


def checks_of(harness: Harness) -> tuple[Check, ...]:
    """Return the checks for what this provider can do."""
    return tuple(check for check in CHECKS if check.needs is None or can(harness.provider, check.needs))


async def perform(check: Check, make: Callable[[], Harness], root: Path) -> None:
    """Run one check with a new harness, whose files go under ``root``.

    Raises: CheckFailed, NotApplicable, and whatever the provider or the harness let escape.
    """
    with _log_lines() as lines:
        async with asyncio.timeout(CHECK_S), open_bench(make(), root) as bench:
            await check.run(bench)
    expect(not any(SECRET in line for line in lines), "the secret is in the log")


async def run(check: Check, make: Callable[[], Harness], root: Path) -> Outcome:
    """As `perform`, but return what became of it."""
    try:
        await perform(check, make, root)
    except NotApplicable as why:
        return Outcome(check, "skipped", str(why))
    except CheckFailed as why:
        return Outcome(check, "failed", str(why))
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything: that is a finding
        return Outcome(check, "failed", _escaped(error))
    return Outcome(check, "ok")


def _escaped(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(f"{type(error).__name__}: {error}".split()).replace(SECRET, "***")
    return f"{said[:200]} ({Path(frame.filename).name}:{frame.lineno})"


class _Recorder(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@contextmanager
def _log_lines() -> Iterator[list[str]]:
    """Collect every line that is logged meanwhile, at every level, with tracebacks."""
    lines: list[str] = []
    recorder, root = _Recorder(lines), logging.getLogger()
    level = root.level
    root.addHandler(recorder)
    root.setLevel(logging.DEBUG)
    try:
        with structlog.testing.capture_logs([structlog.processors.format_exc_info]) as entries:
            yield lines
        lines.extend(repr(entry) for entry in entries)
    finally:
        root.setLevel(level)
        root.removeHandler(recorder)
