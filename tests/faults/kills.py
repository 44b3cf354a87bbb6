"""kill -9: at each failpoint, and at random."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial

from app.failpoints import POINTS
from tests.faults.harness import Kind, Outcome, Process, Report, Rig, Stuck, until
from tests.faults.stage import Scenario, Stage, now, pause

KINDS: tuple[Kind, ...] = ("image", "video")
SAFETIES = ("idempotent", "list", "blind")
POOLS = {safety: safety for safety in SAFETIES}
IN_THE_API = ("after_reserve", "before_response")
"""Where a video passes in the API; everything else of it is a worker's."""
RECOVERED_S = 5.0
"""A dead process's task ends within this, with leases of 2 s; where a list must prove an absence, that comes on top."""
PROOF_S = 2.0 + 2.0
REACHED_S = 60.0
LOADS = 8
QUIET_S = 45.0
QUICK = {
    "image": (("after_post_sent", "blind"), ("after_rename", "idempotent")),
    "video": (("after_post_answer", "list"), ("after_running", "blind")),
}
KILL_EVERY_S = 2.0
DOWN_S = 0.3


def at_point(stage: Stage, point: str) -> None:
    """All six cells of one point, in one gateway: only the process that shall die is started anew for each."""
    with stage.rig(pools=POOLS) as rig:
        before = None
        for kind in KINDS:
            for safety in SAFETIES:
                before = _cell(stage, rig, point, kind, safety, before)


def at_some_points(stage: Stage, kind: Kind) -> None:
    apis, workers = (2, 1) if kind == "image" else (1, 2)
    with stage.rig(pools=POOLS, apis=apis, workers=workers) as rig:
        before = None
        for point, safety in QUICK[kind]:
            before = _cell(stage, rig, point, kind, safety, before)


def _cell(stage: Stage, rig: Rig, point: str, kind: Kind, safety: str, before: Report | None) -> Report:
    row = stage.row(f"kill -9 at {point}")
    doomed = rig.apis[1] if kind == "image" or point in IN_THE_API else rig.workers[1]
    doomed.kill()
    (rig.data / "failpoints" / point).unlink(missing_ok=True)
    doomed.start(MEDIAGATE_FAIL=f"{point}:kill")
    loads = [rig.start_load(stage.size, kind, pool=safety)]
    while doomed.is_alive:
        if len(loads) == LOADS:
            raise Stuck(f"{kind}, {safety}: {doomed.name} never came to {point}")
        until(lambda: not doomed.is_alive or _is_over(rig, loads), REACHED_S, f"{point} is not reached", every_s=0.05)
        if doomed.is_alive:  # the other process happened to take them all
            loads.append(rig.start_load(stage.size, kind, pool=safety))
    died = now()
    hit = rig.held_by(doomed)
    for load in loads:
        load.result()
    rig.quiet(QUIET_S)
    allowed = RECOVERED_S + (PROOF_S if safety == "list" and kind == "video" else 0.0)
    stage.judge_recovery(row, f"{kind}, {safety}", rig.settled_s(hit, died), allowed)
    row.runs += 1
    report = stage.judge(row, rig, since=before)
    row.violations += [f"{kind}, {safety}: {text}" for text in _losses(rig, safety)]
    lost = report.lost - (before.lost if before else 0)
    if lost > rig.settings.worker_jobs:
        row.violations.append(f"{kind}, {safety}: {lost} lost attempts, more than a process has steps")
    return report


def _is_over(rig: Rig, loads: list[Future[list[Outcome]]]) -> bool:
    return all(load.done() for load in loads) and rig.open_tasks() == 0


def _losses(rig: Rig, safety: str) -> list[str]:
    """An upstream that knows tokens or has a list costs nothing; a blind one at most the slots of the dead process."""
    rows = rig.sql(
        """SELECT t.kind, count(*) AS n FROM task_attempts a JOIN tasks t ON t.id = a.task_id
         WHERE a.state = 'lost' AND split_part(t.pool, '/', 1) = $1 GROUP BY t.kind""",
        safety,
    )
    return [
        f"{row['n']} lost attempts of {row['kind']}s"
        for row in rows
        if safety == "idempotent" or (safety == "list" and row["kind"] == "video")
    ]


def at_random(stage: Stage, role: str) -> None:
    """Kill one of the two processes of a role every two seconds while they work, and start it again."""
    row = stage.row(f"kill -9 of a random {'API process' if role == 'api' else role}, every 2 s")
    runs = 10 if stage.is_full else 1
    with stage.rig(pools=POOLS) as rig:
        before = None
        victims = rig.apis if role == "api" else rig.workers
        for _ in range(runs):
            load = rig.start_load(stage.size, "mixed", at_once=24)
            hit: list[object] = []
            died = now()
            while not load.done():
                victim = rig.random.choice(victims)
                hit, died = _kill_and_start(rig, victim)
                pause(KILL_EVERY_S - DOWN_S)
            load.result()
            rig.quiet(QUIET_S)
            row.note_recovery(rig.settled_s(hit, died))
            row.runs += 1
            before = stage.judge(row, rig, since=before)


def _kill_and_start(rig: Rig, victim: Process) -> tuple[list[object], float]:
    victim.kill()
    died, hit = now(), rig.held_by(victim)
    pause(DOWN_S)
    victim.start(wait=False)
    return hit, died


SCENARIOS = [
    *(Scenario(f"kill-quick-{kind}", partial(at_some_points, kind=kind), quick=8, full=None) for kind in KINDS),
    *(Scenario(f"kill-{point}", partial(at_point, point=point), quick=None, full=20) for point in POINTS),
    Scenario("kill-random-worker", partial(at_random, role="worker"), quick=None, full=300),
    Scenario("kill-random-api", partial(at_random, role="api"), quick=None, full=300),
]
