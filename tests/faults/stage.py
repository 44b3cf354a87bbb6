"""What a scenario is, what it is given, and what it leaves behind: rows of a table, or evidence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.harness import Place, Report, Rig, new_place
from tests.plugins.servers import Servers


@dataclass
class Row:
    """One line of the table: a fault, how often it was done, and what came of it."""

    fault: str
    runs: int = 0
    tasks: int = 0
    lost: int = 0
    """Attempts that an upstream was, or may have been, paid for in vain."""
    accepted: int = 0
    """Submits that the upstream took."""
    violations: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """What was right in the end, and took longer than is promised. It fails a run only where pace was asked for: a
    machine that others use is slow, and a book is right or wrong on any machine."""
    recovery_s: float | None = None
    """The longest from the fault to the end of the last task that it hit."""

    def note_recovery(self, seconds: float | None) -> None:
        if seconds is not None:
            self.recovery_s = max(seconds, self.recovery_s or 0.0)


@dataclass
class Stage:
    """One run of one scenario. ``size`` is how many tasks each of its runs shall have."""

    servers: Servers
    folder: Path
    seed: int
    size: int
    is_full: bool
    name: str
    redis_database: int
    evidence: Path
    rows: dict[str, Row] = field(default_factory=dict)
    rigs: int = 0

    def row(self, fault: str) -> Row:
        return self.rows.setdefault(fault, Row(fault))

    def place(self) -> Place:
        """Return a place for a rig of one's own: a fresh database, an empty Redis database, a folder."""
        self.rigs += 1
        name = f"faults_{self.name.replace('-', '_')}_{self.redis_database}_{self.rigs}"
        return new_place(
            self.servers, self.folder / f"{self.name}-{self.rigs}", name, redis_database=self.redis_database
        )

    @contextmanager
    def rig(self, *, place: Place | None = None, **options: Any) -> Iterator[Rig]:
        """Open a rig and start all of it. What breaks inside leaves its logs and rows in ``evidence``."""
        with Rig(place or self.place(), seed=self.seed, **options) as rig:
            try:
                rig.start()
                yield rig
            except BaseException:
                rig.keep_evidence(self.evidence)
                raise
            if any(row.violations for row in self.rows.values()):
                rig.keep_evidence(self.evidence)

    def judge_recovery(self, row: Row, what: str, seconds: float | None, within_s: float) -> None:
        """Note how long a recovery took, and whether that was late."""
        row.note_recovery(seconds)
        if seconds is not None and seconds > within_s:
            row.late.append(f"{what}: recovered after {seconds:.1f} s, not within {within_s:.0f} s")

    def judge(self, row: Row, rig: Rig, *, since: Report | None = None) -> Report:
        """Check the books of a quiet rig, and add what came since the last report to the row."""
        report = rig.check()
        row.violations += report.violations
        row.tasks += report.tasks - (since.tasks if since else 0)
        row.lost += report.lost - (since.lost if since else 0)
        row.accepted += report.accepted - (since.accepted if since else 0)
        return report


@dataclass(frozen=True)
class Scenario:
    """``quick`` and ``full`` are sizes: tasks of each run; None: not part of that set."""

    name: str
    run: Callable[[Stage], None]
    quick: int | None
    full: int | None

    def play(self, stage: Stage) -> list[Row]:
        """Run it; whatever goes wrong is a violation of its last row."""
        try:
            self.run(stage)
        except Exception as error:  # noqa: BLE001 - the table tells, and the other scenarios go on
            last = list(stage.rows.values())[-1] if stage.rows else stage.row(self.name)
            last.violations.append(f"{type(error).__name__}: {error}")
        if any(row.violations for row in stage.rows.values()):
            stage.evidence.mkdir(parents=True, exist_ok=True)
            (stage.evidence / "violations.txt").write_text(
                "".join(f"{row.fault}: {text}\n" for row in stage.rows.values() for text in row.violations)
            )
        return list(stage.rows.values())


def pause(seconds: float) -> None:
    """Let a fault last."""
    threading.Event().wait(seconds)


def now() -> float:
    """Unix seconds, to compare with the database's."""
    return time.time()
