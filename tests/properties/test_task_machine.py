"""The states of a task against a small model: any sequence of steps by two workers, an owner and an operator.

Legal moves only; whoever lost the lease writes nothing; one settlement; at most one open attempt.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.exc import DBAPIError

from app import db
from app.accounts.keys import MintedKey
from app.credits.ledger import Ledger
from app.tasks.lifecycle import Claimed, LeaseLost, Lifecycle, Status
from app.values import Credits, new_id
from tests.depth import DEPTH
from tests.factories import accept_task, make_account, make_key
from tests.properties.books import VIOLATIONS

LONG_S = 600.0
HOLD = 10
SLOTS = 2
MOST_OPEN = 3
MOVES = {
    "queued": {"submitting", "cancelled", "failed"},
    "submitting": {"running", "storing", "queued", "uncertain", "failed", "cancelled"},
    "uncertain": {"running", "storing", "queued", "failed"},
    "running": {"storing", "failed", "cancelled", "queued"},
    "storing": {"succeeded", "failed"},
    "succeeded": set(),
    "failed": set(),
    "cancelled": set(),
}
"""What the state diagram allows; nothing leaves an end."""
WORKERS = st.sampled_from(["ann", "bob"])
WAIT = st.sampled_from([0.0, LONG_S])
WRITES = st.sampled_from(
    [
        "accepted", "refused", "uncertain", "progressed", "storing", "release", "finish", "fail", "cancelled",
        "heartbeat",
    ]
)  # fmt: skip
OUTSIDERS = st.sampled_from(["ask to cancel", "shut down", "shut down", "cancel", "operator"])
WITH_UPSTREAM = ("submitting", "uncertain", "running")


@dataclass
class Task:
    status: str = "queued"
    token: int = 0
    owner: str | None = None
    attempts: list[str] = field(default_factory=list)
    charge: int | None = None
    is_due: bool = True
    is_overdue: bool = False
    is_cancel_wanted: bool = False

    @property
    def is_open(self) -> bool:
        return self.charge is None

    def may_become(self, status: str) -> bool:
        return status == self.status or status in MOVES[self.status]

    def claimed_by(self, owner: str) -> None:
        self.owner, self.token, self.is_due = owner, self.token + 1, False

    def end(self, status: str, charge: int, attempt: str | None = None) -> None:
        self.status, self.charge, self.owner, self.token = status, charge, None, self.token + 1
        if self.attempts and self.attempts[-1] in ("sending", "accepted", "uncertain"):
            judged = "done" if status == "succeeded" else "failed" if self.attempts[-1] == "accepted" else "lost"
            self.attempts[-1] = attempt or judged


class Tasks:
    """The application's own hands on the database, driven step by step."""

    def __init__(self, url: str) -> None:
        self._loop = uvloop.new_event_loop()
        self.engine = db.make_engine(url, pool_size=1)
        self.ledger = Ledger(self.engine)
        self.workers = {name: Lifecycle(self.engine, owner=name, lease_s=LONG_S) for name in ("ann", "bob")}
        self.pools = (f"test/{number}" for number in itertools.count())
        self.key: MintedKey = self.run(self._make_key())

    async def _make_key(self) -> MintedKey:
        return await make_key(self.engine, await make_account(self.engine, credits=10**9, max_in_flight=100))

    def run(self, work: Awaitable[Any]) -> Any:
        return self._loop.run_until_complete(work)

    def rows(self, sql: str, *arguments: Any) -> list[Any]:
        return self.run(db.once(self.engine, sql, arguments))

    def close(self) -> None:
        self.run(self.engine.dispose())
        self._loop.close()


ROWS = """SELECT t.id, t.status, t.lease_token, t.lease_owner, t.charge, t.wake_at <= now() AS is_due,
 t.deadline_at <= now() AS is_overdue, t.cancel_requested_at IS NOT NULL AS is_cancel_wanted,
 ARRAY(SELECT state FROM task_attempts a WHERE a.task_id = t.id ORDER BY attempt_no) AS attempts,
 (SELECT count(*) FROM ledger l WHERE l.task_id = t.id AND kind = 'capture') AS captures
 FROM tasks t WHERE t.pool = $1"""


class TaskMachine(RuleBasedStateMachine):
    def __init__(self, real: Tasks) -> None:
        super().__init__()
        self.real = real
        self.pool = next(real.pools)
        self.tasks: dict[UUID, Task] = {}
        self.claims: list[Claimed] = []
        """Every lease there ever was: most of them are lost by now, and their holders do not know."""

    def teardown(self) -> None:
        for id, task in self.tasks.items():
            if task.is_open:
                assert self.real.run(self.real.ledger.fail(id, None, reason="internal_error", message="The end."))

    @initialize(data=st.data())
    def first_task(self, data: st.DataObject) -> None:
        self.accept()
        self.claim_queued("ann", data)

    @precondition(lambda self: sum(task.is_open for task in self.tasks.values()) < MOST_OPEN)
    @rule()
    def accept(self) -> None:
        id = self.real.run(accept_task(self.real.engine, self.real.key, hold=HOLD, pool=self.pool))
        self.tasks[id] = Task()

    def a_task(self, data: st.DataObject) -> tuple[UUID, Task]:
        is_open = {id: task for id, task in self.tasks.items() if task.is_open}
        any_of = self.tasks if data.draw(st.integers(0, 5)) == 5 else is_open
        return data.draw(st.sampled_from(list((any_of or self.tasks).items())))

    # --- claims

    @rule(worker=WORKERS, data=st.data())
    def claim_queued(self, worker: str, data: st.DataObject) -> None:
        only = data.draw(st.none() | st.sampled_from(list(self.tasks)))
        ready = {
            id
            for id, task in self.tasks.items()
            if task.status == "queued" and task.is_due and not task.is_overdue and not task.is_cancel_wanted
        }
        busy = sum(task.status in WITH_UPSTREAM for task in self.tasks.values())

        claim = self.real.run(
            self.real.workers[worker].claim_queued(
                self.pool, provider="test", credential=1, slots=SLOTS, deadline_s=LONG_S, only=only
            )
        )

        assert (claim is not None) == bool(busy < SLOTS and ready and (only is None or only in ready))
        if claim is not None:
            assert claim.id == only or (only is None and claim.id in ready)
            task = self.tasks[claim.id]
            task.status = "submitting"
            task.attempts.append("sending")
            self.note(claim, worker)

    @rule(worker=WORKERS, data=st.data(), how=st.sampled_from(["due", "due", "polls", "ending"]))
    def claim_again(self, worker: str, data: st.DataObject, how: str) -> None:
        if how == "polls":
            self.claim_polls(worker)
        elif how == "ending":
            self.claim_ending(worker, data)
        else:
            self.claim_due(worker, data)

    def claim_due(self, worker: str, data: st.DataObject) -> None:
        id, task = self.a_task(data)
        if task.is_open and data.draw(st.booleans()):
            self.pass_time(id, "wake_at")  # the holder is dead, or slow

        claim = self.real.run(self.real.workers[worker].claim_due(id))

        assert (claim is not None) == (task.is_open and task.status != "queued" and task.is_due)
        if claim is not None:
            self.note(claim, worker)

    def claim_polls(self, worker: str) -> None:
        due = {id for id, task in self.tasks.items() if task.status == "running" and task.is_due}

        claims = self.real.run(self.real.workers[worker].claim_running(limit=100))

        assert {claim.id for claim in claims} == due
        for claim in claims:
            self.note(claim, worker)

    def claim_ending(self, worker: str, data: st.DataObject) -> None:
        id, task = self.a_task(data)
        is_due = task.is_due

        claim = self.real.run(self.real.workers[worker].claim_ending(id))

        assert (claim is not None) == (task.status == "queued" and (task.is_overdue or task.is_cancel_wanted))
        if claim is not None:
            self.note(claim, worker)
            task.is_due = is_due

    def note(self, claim: Claimed, worker: str) -> None:
        task = self.tasks[claim.id]
        task.claimed_by(worker)
        assert (claim.token, claim.status, claim.attempt_no) == (task.token, task.status, len(task.attempts))
        self.claims.append(claim)

    # --- what a holder writes, whether it holds the lease still or not

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), what=WRITES, wait_s=WAIT)
    def holder_writes(self, data: st.DataObject, what: str, wait_s: float) -> None:
        claim, task = self.a_claim(data)
        getattr(self, what)(claim, task, wait_s, data)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), what=WRITES, wait_s=WAIT)
    def holder_writes_more(self, data: st.DataObject, what: str, wait_s: float) -> None:
        self.holder_writes(data, what, wait_s)  # twice as likely as other rules

    def a_claim(self, data: st.DataObject) -> tuple[Claimed, Task]:
        live = [claim for claim in self.claims if claim.token == self.tasks[claim.id].token]
        any_of = self.claims if data.draw(st.integers(0, 3)) == 3 else live
        claim = data.draw(st.sampled_from(any_of or self.claims))
        return claim, self.tasks[claim.id]

    def write(self, claim: Claimed, work: Awaitable[Any], status: str) -> bool:
        """Do it; return whether it was written. A move that the diagram does not have must be refused."""
        task = self.tasks[claim.id]
        is_ours = task.is_open and claim.token == task.token
        try:
            written = self.real.run(work) is not False
        except LeaseLost:
            written = False
        except DBAPIError as error:
            if db.sqlstate_of(error) != "MG003" or not is_ours or task.may_become(status):
                raise
            return False
        assert written == is_ours
        assert not written or task.may_become(status)
        return written

    def accepted(self, claim: Claimed, task: Task, wait_s: float, data: st.DataObject) -> None:
        deadline_s = data.draw(st.sampled_from([LONG_S, LONG_S, -1.0]))
        job = f"job-{claim.id}-{claim.attempt_no}"
        work = self.real.workers["ann"].accepted(claim, upstream_id=job, wake_s=wait_s, deadline_s=deadline_s)
        if self.write(claim, work, "running"):
            task.status, task.owner, task.attempts[-1] = "running", None, "accepted"
            task.is_due, task.is_overdue = wait_s == 0, deadline_s < 0

    def refused(self, claim: Claimed, task: Task, wait_s: float, data: st.DataObject) -> None:
        work = self.real.workers["ann"].refused(claim, error="busy", http_status=429, wake_s=wait_s, queue_s=LONG_S * 9)
        if self.write(claim, work, "queued"):
            task.status, task.owner, task.is_due, task.is_overdue = "queued", None, wait_s == 0, False
            if task.attempts:
                task.attempts[-1] = "refused"

    def uncertain(self, claim: Claimed, task: Task, wait_s: float, data: st.DataObject) -> None:
        work = self.real.workers["bob"].uncertain(claim, error="cut", http_status=None, wake_s=wait_s)
        if self.write(claim, work, "uncertain"):
            task.status, task.owner, task.attempts[-1], task.is_due = "uncertain", None, "uncertain", wait_s == 0

    def progressed(self, claim: Claimed, task: Task, wait_s: float, data: st.DataObject) -> None:
        lifecycle = self.real.workers["ann"]
        if data.draw(st.booleans()):
            is_ours = task.is_open and task.token == claim.token
            assert self.real.run(lifecycle.all_progressed([(claim, 50, wait_s)])) == ({claim.id} if is_ours else set())
        else:
            is_ours = self.write(claim, lifecycle.progressed(claim, percent=50, wake_s=wait_s), task.status)
        if is_ours:
            task.owner, task.is_due = None, wait_s == 0

    def storing(self, claim: Claimed, task: Task, wait_s: float, data: st.DataObject) -> None:
        if self.write(claim, self.real.workers["ann"].storing(claim), "storing"):
            task.status = "storing"

    def release(self, claim: Claimed, task: Task, wait_s: float, data: st.DataObject) -> None:
        work = self.real.workers["bob"].release(claim, wake_s=wait_s, is_poison=True)
        if self.write(claim, work, task.status):
            task.owner, task.is_due = None, wait_s == 0

    def finish(self, claim: Claimed, task: Task, wait_s: float, data: st.DataObject) -> None:
        id, charge = new_id(), data.draw(st.integers(0, HOLD))
        file = {"id": str(id), "role": "result", "position": 0, "storage_key": id.hex, "mime": "image/png"}
        file |= {"bytes": 8, "sha256": "00", "ttl_s": LONG_S}
        work = self.real.ledger.finish(claim.id, claim.token, charge=Credits(charge), files=[file], result={})
        if self.write(claim, work, "storing"):
            task.end("succeeded", charge)

    def fail(self, claim: Claimed, task: Task, wait_s: float, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from([None, "failed", "refused"]))
        work = self.real.ledger.fail(claim.id, claim.token, reason="upstream_error", message="No.", attempt=attempt)
        if self.write(claim, work, "failed"):
            task.end("failed", 0, attempt)

    def cancelled(self, claim: Claimed, task: Task, wait_s: float, data: st.DataObject) -> None:
        charge = data.draw(st.integers(0, HOLD))
        work = self.real.ledger.cancel(claim.id, claim.token, charge=Credits(charge))
        if self.write(claim, work, "cancelled"):
            task.end("cancelled", charge)

    def heartbeat(self, claim: Claimed, task: Task, wait_s: float, data: st.DataObject) -> None:
        is_ours = task.is_open and task.token == claim.token

        kept = self.real.run(self.real.workers["ann"].keep({claim.lease}))

        assert kept == ({claim.lease} if is_ours else set())
        if is_ours and task.owner is not None:  # one that was given back is due when its step said
            task.is_due = False

    # --- the others: time, shutdown, owner, operator, sweep

    @rule(data=st.data(), is_deadline=st.sampled_from([False, False, False, True]))
    def time_passes(self, data: st.DataObject, is_deadline: bool) -> None:
        id, task = self.a_task(data)
        if task.is_open:
            self.pass_time(id, "deadline_at" if is_deadline else "wake_at")

    def pass_time(self, id: UUID, column: str) -> None:
        self.real.rows(f"UPDATE tasks SET {column} = now() - interval '1 second' WHERE id = $1", id)  # noqa: S608
        task = self.tasks[id]
        task.is_due, task.is_overdue = task.is_due or column == "wake_at", task.is_overdue or column == "deadline_at"

    @rule(data=st.data(), what=OUTSIDERS)
    def outsider_acts(self, data: st.DataObject, what: str) -> None:
        id, task = self.a_task(data)
        if what == "ask to cancel":
            assert self.real.run(self.real.workers["ann"].request_cancel(id)) == task.is_open
            if task.is_open:
                task.is_cancel_wanted, task.is_due = True, task.is_due or task.owner is None
        elif what == "cancel":
            token = task.token  # read together with 'queued', as the API does
            if task.status == "queued" and data.draw(st.booleans()):
                assert self.real.run(self.real.ledger.cancel(id, token))
                task.end("cancelled", 0)
        elif what == "shut down":
            worker = data.draw(WORKERS)
            held = [each for each in self.tasks.values() if each.owner == worker]
            assert self.real.run(self.real.workers[worker].hand_back()) == len(held)
            for each in held:
                each.owner, each.token, each.is_due = None, each.token + 1, True
                if each.attempts and each.attempts[-1] == "sending":  # nobody knows whether it left
                    each.attempts[-1] = "uncertain"
                    each.status = "uncertain" if each.status == "submitting" else each.status
        elif data.draw(st.integers(0, 2)) == 2:
            work = self.real.ledger.fail(id, None, reason="internal_error", message="An operator's.")
            assert self.real.run(work) == task.is_open
            if task.is_open:
                task.end("failed", 0)

    @rule()
    def sweep(self) -> None:
        """What is due and has no message is found, and nothing else."""
        found = {due.id for due in self.real.run(self.real.workers["bob"].overdue(grace_s=0))}

        assert found == {
            id
            for id, task in self.tasks.items()
            if task.is_open
            and (
                (task.is_due and task.status != "running")
                or (task.status == "queued" and (task.is_overdue or task.is_cancel_wanted))
            )
        }

    # --- after each step

    @invariant()
    def the_rows_are_the_models(self) -> None:
        rows = {row["id"]: row for row in self.real.rows(ROWS, self.pool)}
        assert rows.keys() == self.tasks.keys()
        for id, task in self.tasks.items():
            row = rows[id]
            owner = row["lease_owner"] and row["lease_owner"].partition("/")[0]  # each claim has a number of its own
            found = (row["status"], row["lease_token"], owner, row["charge"], list(row["attempts"]))
            assert found == (task.status, task.token, task.owner, task.charge, task.attempts)
            assert row["captures"] == (1 if task.charge else 0)
            assert sum(state in ("sending", "accepted", "uncertain") for state in task.attempts) <= int(task.is_open)
            if task.is_open:
                assert (row["is_due"], row["is_overdue"]) == (task.is_due, task.is_overdue)
                assert row["is_cancel_wanted"] == task.is_cancel_wanted

    @invariant()
    def the_audit_finds_nothing(self) -> None:
        assert self.real.rows(VIOLATIONS) == []


@pytest.fixture
def real(fresh_database: Callable[..., str]) -> Iterator[Tasks]:
    real = Tasks(fresh_database(migrated=True))
    yield real
    real.close()


@pytest.mark.timeout(DEPTH.timeout_s)
def test_any_sequence_of_steps_keeps_the_states_the_leases_and_the_attempts(real: Tasks) -> None:
    run_state_machine_as_test(lambda: TaskMachine(real), settings=DEPTH.machine_settings(share=0.8))


def test_the_database_allows_the_moves_of_the_diagram_and_no_other(real: Tasks) -> None:
    rows = real.rows("SELECT from_status, to_status FROM task_transitions")

    assert {(row["from_status"], row["to_status"]) for row in rows} == {
        (old, new) for old, targets in MOVES.items() for new in targets
    }
    assert set(MOVES) == {status.value for status in Status}
