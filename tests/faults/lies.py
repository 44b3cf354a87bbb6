"""An upstream that misbehaves, in every way a vendor has: what the client is told, and that the books are right.

Each case has pools of its own in one gateway, so all of them run at once and no breaker or pause meets another.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.faults import upstream as up
from tests.faults.harness import Outcome, Rig
from tests.faults.stage import Scenario, Stage
from tests.faults.upstream import Deliver, Op

SAFETIES = ("idempotent", "list", "blind")
QUIET_S = 90.0
SETTINGS = {
    "queue_wait_image_s": 25.0, "queue_wait_video_s": 25.0, "deadline_image_s": 60.0, "deadline_video_s": 40.0,
}  # fmt: skip
MADE = (200, None)
LOST = (502, "upstream_error")
AWAY = (503, "provider_unavailable")
BROKEN = (502, "result_unavailable")
BLOCKED = (400, "content_policy_violation")
WRONG = (400, "invalid_parameter")
Told = tuple[int, str | None]
"""What the client is told: status and reason. A video's or a background image's error is read from its task."""


@dataclass(frozen=True)
class Case:
    name: str
    op: Op
    deliver: Deliver
    accepts: bool = True
    first: int | None = 1
    told: Told | None = None
    """The same for every upstream; None: as after a submit of unknown outcome."""
    or_told: Told | None = None
    """Also right: the pool's breaker opened before this one's turn."""
    kinds: tuple[str, ...] = ("image", "async", "video")

    def expected(self, safety: str, kind: str) -> set[Told | None]:
        finds = safety == "idempotent" or (safety == "list" and kind == "video")
        return {self.told or (MADE if finds else LOST), self.or_told}


def unknown(name: str, deliver: Deliver, **options: Any) -> Case:
    return Case(name, "submit", deliver, **options)


VIDEO = ("video",)
CASES = (
    unknown("500, nothing made", up.status(500), accepts=False),
    unknown("500, made all the same", up.status(500)),
    unknown("502", up.status(502)),
    unknown("503", up.status(503), accepts=False),
    unknown("504", up.status(504)),
    Case("429", "submit", up.status(429), accepts=False, told=MADE),
    Case("429, Retry-After: 1", "submit", up.status(429, retry_after="1"), accepts=False, told=MADE),
    Case("429, always", "submit", up.status(429), accepts=False, first=None, told=AWAY),
    Case("400", "submit", up.status(400), accepts=False, told=WRONG),
    Case("401", "submit", up.status(401), accepts=False, first=None, told=AWAY),
    Case("moderated", "submit", up.status(400, {"code": "moderated"}), accepts=False, told=BLOCKED),
    unknown("no answer", up.hang),
    unknown("reset", up.reset()),
    unknown("garbage JSON", up.body(b'{"id": "x", nonsense')),
    unknown("2xx without an id", up.body(b"{}")),
    unknown("cut at byte 1", up.cut(1)),
    unknown("cut in the head", up.cut(40)),
    unknown("cut in the body", up.cut(0.9)),
    unknown("drip", up.drip),
    unknown("head in drips", up.slow_head),
    unknown("wrong content type", up.body(b"<html>busy</html>", "text/html")),
    unknown("1 GiB", up.huge),
    Case("poll: 500", "poll", up.status(500), first=3, told=MADE, kinds=VIDEO),
    Case("poll: 404", "poll", up.status(404), first=2, told=MADE, kinds=VIDEO),
    Case("poll: no answer", "poll", up.hang, told=MADE, kinds=VIDEO),
    Case("poll: garbage", "poll", up.body(b"\x00\xff"), first=3, told=MADE, kinds=VIDEO),
    Case("poll: 500, always", "poll", up.status(500), first=None, told=LOST, or_told=AWAY, kinds=VIDEO),
    Case("poll: failed", "poll", up.body(b'{"status": "failed"}'), told=LOST, kinds=VIDEO),
    Case("result: missing once", "fetch", up.status(404), told=MADE, kinds=VIDEO),
    Case("result: cut once", "fetch", up.cut(0.5), told=MADE, kinds=VIDEO),
    Case("result: always missing", "fetch", up.status(404), first=None, told=BROKEN, kinds=VIDEO),
    Case("result: no film", "fetch", up.body(b"<html></html>", "video/mp4"), first=None, told=BROKEN, kinds=VIDEO),
    Case("result: 1 GiB", "fetch", up.huge, first=None, told=BROKEN, kinds=VIDEO),
)
QUICK = ("500, nothing made", "2xx without an id", "cut in the body", "moderated", "429", "poll: garbage")


def misbehave(stage: Stage) -> None:
    cases = CASES if stage.is_full else [case for case in CASES if case.name in QUICK]
    pools = {f"case{number}-{safety}": (case, safety) for number, case in enumerate(cases) for safety in SAFETIES}
    with stage.rig(pools={pool: safety for pool, (_, safety) in pools.items()}, settings=SETTINGS) as rig:
        slow, fast = [], []
        for pool, (case, _) in pools.items():
            rig.upstream.misbehave(pool, case.op, case.deliver, accepts=case.accepts, first=case.first)
            for kind in case.kinds:
                (slow if kind == "image" else fast).extend([(kind, pool)] * stage.size)
        # Whoever waits for an image waits for the upstream's timeouts; few of them work at any time.
        loads = [rig.start_requests(slow, at_once=48, tries=3), rig.start_requests(fast, at_once=6, tries=3)]
        for load in loads:
            load.result()
        rig.quiet(QUIET_S)
        told, paid = _told(rig), _paid(rig)
        for case in cases:
            row = stage.row(f"upstream: {case.name}")
            row.runs += 1
            for pool, safety in ((pool, safety) for pool, (other, safety) in pools.items() if other is case):
                tasks, lost = paid[pool]
                row.tasks, row.lost = row.tasks + len(tasks), row.lost + lost
                row.accepted += sum(rig.upstream.accepted_of(task_id) for task_id in tasks)
                for kind in case.kinds:
                    row.violations += _wrongly_told(case, safety, kind, told[pool, kind])
        report = stage.judge(stage.row("upstream: the books after all of these"), rig)
        together = stage.row("upstream: the books after all of these")
        together.runs, together.tasks, together.lost, together.accepted = 1, 0, 0, 0  # counted in the rows above
        if report.tasks != len(rig.outcomes):
            together.violations.append(f"{report.tasks} tasks for {len(rig.outcomes)} requests")


def _wrongly_told(case: Case, safety: str, kind: str, told: Counter[Told]) -> list[str]:
    expected = case.expected(safety, kind)
    wrong = {what: count for what, count in told.items() if what not in expected}
    return [f"{kind}, {safety}: {wrong}, not {expected}"] if wrong else []


def _paid(rig: Rig) -> dict[str, tuple[list[str], int]]:
    """Each pool's tasks, and how many attempts were lost."""
    rows = rig.sql(
        """SELECT split_part(t.pool, '/', 1) AS pool, t.id::text AS id,
         (SELECT count(*) FROM task_attempts a WHERE a.task_id = t.id AND a.state = 'lost') AS lost FROM tasks t"""
    )
    found: dict[str, tuple[list[str], int]] = {}
    for row in rows:
        tasks, lost = found.get(row["pool"], ([], 0))
        found[row["pool"]] = ([*tasks, row["id"]], lost + row["lost"])
    return found


def _told(rig: Rig) -> dict[tuple[str, str], Counter[Told]]:
    """What each request came to in the end, by pool and kind."""
    rows = rig.sql("SELECT id, status, error_code FROM tasks")
    ended = {rig.public_id(row["id"]): (row["status"], row["error_code"]) for row in rows}
    found: dict[tuple[str, str], Counter[Told]] = {}
    for outcome in rig.outcomes:
        found.setdefault((outcome.pool, outcome.kind), Counter())[_told_of(outcome, ended)] += 1
    return found


def _told_of(outcome: Outcome, ended: dict[str, tuple[str, str | None]]) -> Told:
    if outcome.kind == "image" or not outcome.task_ids:
        return outcome.status or 0, outcome.reason
    status, reason = ended[next(iter(outcome.task_ids))]
    return (200, None) if status == "succeeded" else (_STATUS.get(reason or "", 0), reason)


_STATUS = {reason: status for status, reason in (LOST, AWAY, BROKEN, BLOCKED, WRONG)}

SCENARIOS = [Scenario("upstream", misbehave, quick=1, full=4)]
