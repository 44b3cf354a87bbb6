"""Wake-ups that come three times and out of order, and clocks that are wrong: only the database's counts."""

from __future__ import annotations

from tests.faults.harness import Rig
from tests.faults.stage import Row, Scenario, Stage

POOLS = {"idempotent": "idempotent", "list": "list", "blind": "blind"}
MINUTES = 10
QUIET_S = 45.0
LEASES = {"lease_s": 10.0, "heartbeat_s": 3.0}
"""Long enough that no busy machine loses one: whatever is taken early was taken by a wrong clock."""


def wakeups(stage: Stage) -> None:
    """Every process sends each wake-up and each bell three times, in any order: the upstream is asked once a task."""
    row = stage.row("each wake-up three times, out of order")
    with Silent(stage, pools=POOLS, apis=2 if stage.is_full else 1) as rig:
        rig.start(repeat=3)
        _run(stage, row, rig, times=2 if stage.is_full else 1)
        row.violations += _exactly_once(rig)


def clocks(stage: Stage) -> None:
    """One worker is ten minutes ahead, then ten behind: no lease is taken early, nothing waits for it."""
    for minutes in (MINUTES, -MINUTES) if stage.is_full else (MINUTES,):
        row = stage.row(f"clock of one worker {minutes:+d} min")
        with Silent(stage, pools=POOLS, settings=LEASES) as rig:
            rig.start(*rig.apis, rig.workers[0])
            rig.start(rig.workers[1], clock_s=minutes * 60.0)
            _run(stage, row, rig)
            row.violations += _exactly_once(rig) + _stolen(rig)


class Silent:
    """A rig whose processes the scenario starts itself."""

    def __init__(self, stage: Stage, **options: object) -> None:
        self._stage = stage
        self._rig = Rig(stage.place(), seed=stage.seed, **options)  # type: ignore[arg-type]

    def __enter__(self) -> Rig:
        return self._rig.__enter__()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is not None or any(row.violations for row in self._stage.rows.values()):
                self._rig.keep_evidence(self._stage.evidence)
        finally:
            self._rig.__exit__(None, None, None)


def _run(stage: Stage, row: Row, rig: Rig, *, times: int = 1) -> None:
    before = None
    for _ in range(times):
        rig.load(stage.size, "mixed", at_once=24)
        row.note_recovery(rig.quiet(QUIET_S))
        row.runs += 1
        before = stage.judge(row, rig, since=before)


def _exactly_once(rig: Rig) -> list[str]:
    rows = rig.sql("SELECT id FROM tasks")
    wrong = [str(row["id"]) for row in rows if rig.upstream.accepted_of(str(row["id"])) != 1]
    return [f"not exactly one accepted call: {wrong[:5]}"] if wrong else []


def _stolen(rig: Rig) -> list[str]:
    """Nothing died, so every task has the one attempt that made it."""
    rows = rig.sql(
        """SELECT t.id, t.status FROM tasks t WHERE t.status <> 'succeeded'
         OR (SELECT array_agg(state) FROM task_attempts a WHERE a.task_id = t.id) <> '{done}'"""
    )
    return [f"{len(rows)} tasks with a stolen lease: {[dict(row) for row in rows[:3]]}"] if rows else []


SCENARIOS = [
    Scenario("wakeups", wakeups, quick=45, full=300),
    Scenario("clocks", clocks, quick=None, full=200),
]
