"""Runs what the console shows for copying, as its reader would: a file of its own, a real process, nothing else set."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.plugins.gateway import ROOT

Kind = Literal["curl", "python", "node"]
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"
FILES: Mapping[Kind, str] = {"curl": "snippet.sh", "python": "snippet.py", "node": "snippet.mjs"}
COMMANDS: Mapping[Kind, tuple[str, ...]] = {
    "curl": ("bash", "-eu"),
    "python": (sys.executable, "-W", "error"),
    "node": ("node",),
}
SNIPPET_S = 90.0


@dataclass(frozen=True, slots=True)
class Ran:
    """``folder`` is where the snippet ran: what it wrote is there."""

    code: int
    output: str
    errors: str
    folder: Path


def _prepare(folder: Path, text: str, kind: Kind) -> None:
    folder.mkdir(parents=True)
    (folder / FILES[kind]).write_text(text)
    if kind == "node":
        (folder / "node_modules").symlink_to(NODE_MODULES)


async def run(text: str, kind: Kind, folder: Path, environment: Mapping[str, str]) -> Ran:
    _prepare(folder, text, kind)
    process = await asyncio.create_subprocess_exec(
        *COMMANDS[kind], FILES[kind],
        cwd=folder, env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(process.communicate(), SNIPPET_S)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise AssertionError(f"the snippet was not over after {SNIPPET_S:.0f} s:\n{text}") from None
    return Ran(process.returncode or 0, output.decode(), errors.decode(), folder)
