"""Named points at which a test may kill, break or delay this process; nothing at all in a normal run.

``MEDIAGATE_FAIL`` holds ``<point>:<kill|raise|sleep[=seconds]>[@n]``, several with commas. ``@n`` means the n-th pass
of this process; without it a kill comes at the first, the others at every pass. A data folder sees each kill once: the
process that takes the dead one's place must live.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

POINTS = (
    "after_reserve",  # the promise is committed
    "after_claim",  # a step holds the lease
    "after_attempt_row",  # the attempt is committed, nothing was sent
    "after_post_sent",  # the upstream has begun to answer, nothing of it was read
    "after_post_answer",  # the answer is read, nothing was written down
    "after_running",  # the upstream's handle is committed
    "after_poll",  # the upstream said how far it is, nothing was written down
    "after_download",  # the result lies in the step's folder
    "after_temp_file",  # the bytes are on the disk under a temporary name
    "after_rename",  # and under their own, which no row names yet
    "before_settle",
    "after_settle",
    "before_response",  # of a POST
)

Action = Literal["kill", "raise", "sleep"]
_ENTRY = re.compile(r"(?P<point>[a-z_]+):(?P<action>kill|raise|sleep)(?:=(?P<seconds>[0-9.]+))?(?:@(?P<nth>[0-9]+))?")


class FailpointReached(Exception):
    """Raised where a test told this process to break."""


@dataclass(frozen=True, slots=True)
class Fault:
    action: Action
    seconds: float = 0.0
    nth: int | None = None
    """At this pass only; None: at every one."""


@dataclass(slots=True)
class _Plan:
    faults: Mapping[str, Fault]
    marks: Path
    """Where a kill leaves its mark, so that it comes once."""
    passes: Counter[str] = field(default_factory=Counter)

    def take(self, point: str) -> float:
        """Count one pass, and kill or raise when it is time; return the seconds to sleep."""
        fault = self.faults.get(point)
        if fault is None:
            return 0.0
        self.passes[point] += 1
        if fault.nth is not None and self.passes[point] != fault.nth:
            return 0.0
        if fault.action == "raise":
            raise FailpointReached(point)
        if fault.action == "kill" and self._is_first(point):
            os.kill(os.getpid(), signal.SIGKILL)
        return fault.seconds

    def _is_first(self, point: str) -> bool:
        self.marks.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(self.marks / point, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


_plan: _Plan | None = None


def parse(text: str) -> dict[str, Fault]:
    """Read the setting. Raises: ValueError, naming the entry."""
    faults: dict[str, Fault] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        found = _ENTRY.fullmatch(entry)
        if found is None or found["point"] not in POINTS:
            raise ValueError(f"{entry!r} is no '<point>:<kill|raise|sleep=seconds>[@n]'; points: {', '.join(POINTS)}")
        action: Action = found["action"]  # type: ignore[assignment]  # the pattern allows nothing else
        nth = int(found["nth"]) if found["nth"] else 1 if action == "kill" else None
        faults[found["point"]] = Fault(action, float(found["seconds"] or 0), nth)
    return faults


def arm(text: str, marks: Path) -> None:
    """Make this process fail as told, from now on; an empty text ends it. Raises: ValueError."""
    global _plan
    faults = parse(text)
    _plan = _Plan(faults, marks) if faults else None


async def failpoint(point: str) -> None:
    """Do what this process was told to do at ``point``; normally nothing."""
    if _plan is not None and (seconds := _plan.take(point)):
        await asyncio.sleep(seconds)


def failpoint_in_thread(point: str) -> None:
    """As `failpoint`, for code that runs in a thread."""
    if _plan is not None and (seconds := _plan.take(point)):
        time.sleep(seconds)
