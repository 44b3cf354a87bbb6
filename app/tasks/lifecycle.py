"""Moves a task through its states under a lease: claim, submit, accept, poll, store. Money moves elsewhere.

Every write after a claim carries the lease token in its WHERE; a write that finds nothing raises LeaseLost, and the
step stops: somebody else works on the task, or it is settled. The legal moves are the rows of ``task_transitions``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.tasks.queries import _json

LOST_CLAIM_QUEUE_S = 60.0
"""How much longer a task may be queued whose claim was lost with the database's answer."""
QUEUED_OF_A_POOL = 20
"""How many of a pool's queued tasks one sweep wakes."""


class Status(StrEnum):
    QUEUED = "queued"
    SUBMITTING = "submitting"
    UNCERTAIN = "uncertain"
    RUNNING = "running"
    STORING = "storing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


Lease = tuple[UUID, int]
"""A task and the token of one claim of it: a newer claim is another lease."""


class LeaseLost(Exception):
    """The task is settled, or another worker's: this step writes nothing more."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task this process holds the lease of."""

    id: UUID
    account_id: int
    token: int
    status: Status
    model: str
    """The public model."""
    pool: str
    attempt_no: int
    upstream_id: str | None
    request: Mapping[str, Any]
    claims: int
    """Claims since the last progress: many mean poison."""
    age_s: float
    is_overdue: bool
    """Past its deadline by the database's clock."""
    cancel_requested: bool
    credential: int | None
    """Version of the account's secret that took the task; None: the newest."""
    claimed_at: float
    """Monotonic seconds just before the claim: the lease may be over ``lease_s`` after it, whatever stalled since."""

    @property
    def lease(self) -> Lease:
        return self.id, self.token

    @property
    def client_token(self) -> str:
        return f"{self.id}:{self.attempt_no}"

    @property
    def upstream(self) -> str:
        return self.pool.split("/", 1)[0]

    @property
    def upstream_model(self) -> str:
        return self.pool.split("/", 1)[1]


@dataclass(frozen=True, slots=True)
class Due:
    """A task that wants a step now."""

    id: UUID
    status: Status
    pool: str

    @property
    def upstream(self) -> str:
        return self.pool.split("/", 1)[0]


_RETURNING = """t.id, t.account_id, t.lease_token, t.status, t.model, t.pool, t.attempt_no, t.upstream_id, t.request,
 t.claims, t.credential, extract(epoch FROM clock_timestamp() - t.created_at)::float8 AS age_s,
 t.deadline_at <= clock_timestamp() AS is_overdue, t.cancel_requested_at IS NOT NULL AS cancel_requested"""


class Lifecycle:
    """One process's hand on the tasks table. ``owner`` names the process in the lease."""

    def __init__(self, engine: AsyncEngine, *, owner: str, lease_s: float) -> None:
        self._engine = engine
        self.owner = owner
        self.lease_s = lease_s
        self._count = itertools.count(1)
        self._unseen: dict[str, float] = {}
        """Claims whose answer was lost, and until when (monotonic seconds) they may still turn out to be made."""

    async def claim_queued(
        self, pool: str, *, provider: str, credential: int, slots: int, deadline_s: float, only: UUID | None = None
    ) -> Claimed | None:
        """Claim the best-ranked queued task of the pool (or ``only`` it) and write its attempt row, in one transaction.

        ``slots`` is how many tasks of this pool may be with the upstream at once. Returns None when there is nothing to
        do, or no free slot. The attempt is committed before anything is sent.
        """
        return await self._claim(
            f"""WITH c AS (SELECT id FROM tasks WHERE status = 'queued' AND pool = $1 AND wake_at <= now()
                 AND deadline_at > now() AND cancel_requested_at IS NULL AND ($2::uuid IS NULL OR id = $2)
                 AND (SELECT count(*) FROM tasks WHERE pool = $1 AND settled_at IS NULL
                      AND status IN ('submitting', 'uncertain', 'running')) < $3
                 ORDER BY rank LIMIT 1 FOR UPDATE SKIP LOCKED),
               u AS (UPDATE tasks t SET status = 'submitting', lease_owner = $4, lease_token = t.lease_token + 1,
                 claims = t.claims + 1, attempt_no = t.attempt_no + 1, started_at = coalesce(t.started_at, now()),
                 wake_at = now() + $5 * interval '1 second', deadline_at = now() + $6 * interval '1 second',
                 credential = $8
                 FROM c WHERE t.id = c.id RETURNING t.*),
               a AS (INSERT INTO task_attempts (task_id, attempt_no, provider, client_token)
                 SELECT id, attempt_no, $7, id || ':' || attempt_no FROM u)
               SELECT {_RETURNING} FROM u t""",  # noqa: S608 - fixed columns
            lambda claimer: (pool, only, slots, claimer, self.lease_s, deadline_s, provider, credential),
        )

    async def claim_due(self, task_id: UUID) -> Claimed | None:
        """Claim a task that is past `queued` and due: for its next poll, or because its worker died."""
        return await self._claim(
            f"""UPDATE tasks t SET lease_owner = $2, lease_token = lease_token + 1, claims = claims + 1,
              wake_at = now() + $3 * interval '1 second'
             WHERE id = $1 AND settled_at IS NULL AND status <> 'queued' AND wake_at <= now() RETURNING {_RETURNING}""",  # noqa: S608
            lambda claimer: (task_id, claimer, self.lease_s),
        )

    async def claim_running(self, *, limit: int, but: Collection[str] = ()) -> list[Claimed]:
        """Claim running tasks whose poll is due, the most overdue first, in one statement. ``but``: not of these."""
        claimed_at = time.monotonic()
        rows = await db.once(
            self._engine,
            f"""WITH c AS (SELECT id FROM tasks WHERE status = 'running' AND settled_at IS NULL AND wake_at <= now()
                 AND NOT split_part(pool, '/', 1) = ANY($4::text[]) ORDER BY wake_at LIMIT $3 FOR UPDATE SKIP LOCKED)
               UPDATE tasks t SET lease_owner = $1, lease_token = t.lease_token + 1, claims = t.claims + 1,
                 wake_at = now() + $2 * interval '1 second' FROM c WHERE t.id = c.id RETURNING {_RETURNING}""",  # noqa: S608
            (self.owner, self.lease_s, limit, list(but)),
        )
        return [_claimed(row, claimed_at) for row in rows]

    async def all_progressed(self, steps: Sequence[tuple[Claimed, int | None, float]]) -> set[UUID]:
        """Write many "still running" at once: (task, percent, seconds to the next poll). Returns which were ours."""
        rows = await db.retried(
            lambda: db.once(
                self._engine,
                # Locked in order: statements over the same tasks must not wait for each other.
                """WITH s AS (SELECT t.id, s.percent, s.wake_s
                   FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::float8[]) s(id, token, percent, wake_s)
                   JOIN tasks t ON t.id = s.id AND t.lease_token = s.token AND t.settled_at IS NULL
                   ORDER BY t.id FOR NO KEY UPDATE OF t)
                 UPDATE tasks t SET claims = 0, lease_owner = NULL,
                  progress = greatest(t.progress, least(coalesce(s.percent, 0), 99)),
                  wake_at = now() + s.wake_s * interval '1 second' FROM s WHERE t.id = s.id RETURNING t.id""",
                (
                    [task.id for task, _, _ in steps],
                    [task.token for task, _, _ in steps],
                    [percent for _, percent, _ in steps],
                    [wake_s for _, _, wake_s in steps],
                ),
            )
        )
        return {UUID(str(row["id"])) for row in rows}

    async def claim_ending(self, task_id: UUID) -> Claimed | None:
        """Claim a queued task that is not to be sent any more: past its deadline, or cancelled while it was tried."""
        return await self._claim(
            f"""UPDATE tasks t SET lease_owner = $2, lease_token = lease_token + 1
             WHERE id = $1 AND status = 'queued' AND (deadline_at <= now() OR cancel_requested_at IS NOT NULL)
             RETURNING {_RETURNING}""",  # noqa: S608
            lambda claimer: (task_id, claimer),
        )

    async def _claim(self, sql: str, arguments: Callable[[str], tuple[Any, ...]]) -> Claimed | None:
        """Claim under a name of its own, so that a claim whose answer was lost is found again. Raises: as `retried`."""
        claimer = self.new_claimer()
        claimed_at = time.monotonic()
        may_be_made = False

        async def work() -> list[Any]:
            nonlocal may_be_made
            if may_be_made and (made := await self._claimed_as(claimer)):
                return made
            try:
                return await db.once(self._engine, sql, arguments(claimer))
            except Exception as error:
                may_be_made = may_be_made or db.may_have_committed(error)
                raise

        try:
            rows = await db.retried(work)
        except BaseException:
            if may_be_made:
                self.may_have_claimed(claimer)
            raise
        return _claimed(rows[0], claimed_at) if rows else None

    def new_claimer(self) -> str:
        """Return a name for one claim of this process."""
        return f"{self.owner}/{next(self._count)}"

    def may_have_claimed(self, claimer: str) -> None:
        """Remember a claim of which nobody knows whether it was made: see `give_back_unseen`."""
        self._unseen[claimer] = time.monotonic() + self.lease_s

    async def _claimed_as(self, claimer: str) -> list[Any]:
        sql = f"SELECT {_RETURNING} FROM tasks t WHERE lease_owner = $1 AND settled_at IS NULL AND status <> 'queued'"  # noqa: S608
        return await db.once(self._engine, sql, (claimer,))

    async def give_back_unseen(self) -> int:
        """Give back claims that were made although nobody here learnt of it: nothing was sent. Returns how many."""
        given = 0
        for claimer, until in list(self._unseen.items()):
            for row in await self._claimed_as(claimer):
                task = _claimed(row, time.monotonic())
                try:
                    if task.status is Status.SUBMITTING and task.claims == 1:
                        queue_s = task.age_s + LOST_CLAIM_QUEUE_S
                        await self.refused(task, error="never sent", http_status=None, wake_s=0.0, queue_s=queue_s)
                    else:
                        await self.release(task, wake_s=0.0, is_poison=False)
                except LeaseLost:
                    continue  # somebody else took it meanwhile
                given += 1
            if time.monotonic() >= until:  # a statement that was held up on its way may be done late
                self._unseen.pop(claimer, None)
        return given

    async def keep(self, held: Collection[Lease]) -> set[Lease]:
        """Extend the leases; returns those that are still ours.

        One that its step has just given back is ours, too, and is due when the step said.
        """
        rows = await db.once(
            self._engine,
            """WITH h AS (SELECT t.id FROM unnest($1::uuid[], $2::bigint[]) h(id, tok)
               JOIN tasks t ON t.id = h.id AND t.lease_token = h.tok AND t.settled_at IS NULL
               ORDER BY t.id FOR NO KEY UPDATE OF t)
             UPDATE tasks t SET wake_at =
                CASE WHEN t.lease_owner IS NULL THEN t.wake_at ELSE now() + $3 * interval '1 second' END
              FROM h WHERE t.id = h.id RETURNING t.id, t.lease_token""",
            ([task_id for task_id, _ in held], [token for _, token in held], self.lease_s),
        )
        return {(UUID(str(row["id"])), row["lease_token"]) for row in rows}

    async def accepted(self, task: Claimed, *, upstream_id: str, wake_s: float, deadline_s: float) -> None:
        """The upstream took it: record its handle. The lease ends; the next step is due in ``wake_s``."""
        await self._move(
            task,
            """status = 'running', upstream_id = $3, claims = 0, lease_owner = NULL,
               wake_at = now() + $4 * interval '1 second', deadline_at = now() + $5 * interval '1 second'""",
            (upstream_id, wake_s, deadline_s),
            attempt="state = 'accepted', upstream_id = $3",
        )

    async def refused(
        self,
        task: Claimed,
        *,
        error: str,
        http_status: int | None,
        wake_s: float,
        queue_s: float,
        pool: str | None = None,
    ) -> None:
        """Certainly not accepted: back to the queue, until ``queue_s`` after the task was created.

        ``pool``: where it goes next, when another upstream can take it.
        """
        await self._move(
            task,
            """status = 'queued', lease_owner = NULL, claims = 0, deadline_at = created_at + $5 * interval '1 second',
               pool = coalesce($7, pool),
               wake_at = least(now() + $4 * interval '1 second', created_at + $5 * interval '1 second')""",
            (error, wake_s, queue_s, http_status, pool),
            attempt="state = 'refused', error = $3, http_status = $6, resolved_at = now()",
        )

    async def postpone(self, task_id: UUID, *, wake_s: float, pool: str | None = None) -> None:
        """Let a queued task wait, or line up at another upstream, without an attempt."""
        await db.once(
            self._engine,
            """UPDATE tasks SET pool = coalesce($3, pool),
              wake_at = least(now() + $2 * interval '1 second', deadline_at) WHERE id = $1 AND status = 'queued'""",
            (task_id, wake_s, pool),
        )

    async def note_cost(self, task: Claimed, *, micros: int, currency: str) -> None:
        """Keep what the upstream charged us for this attempt, whatever became of it."""
        await db.once(
            self._engine,
            "UPDATE task_attempts SET upstream_cost = $3, cost_currency = $4 WHERE task_id = $1 AND attempt_no = $2",
            (task.id, task.attempt_no, micros, currency),
        )

    async def uncertain(
        self, task: Claimed, *, error: str, http_status: int | None, wake_s: float, is_progress: bool = False
    ) -> None:
        """Sent, outcome unknown. The lease ends; the task is looked into again in ``wake_s``.

        ``is_progress``: looking again is no sign of poison; the deadline ends it.
        """
        claims = "0" if is_progress else "claims"
        await self._move(
            task,
            f"status = 'uncertain', lease_owner = NULL, claims = {claims}, wake_at = now() + $4 * interval '1 second'",
            (error, wake_s, http_status),
            attempt="state = 'uncertain', error = $3, http_status = $5",
        )

    async def progressed(self, task: Claimed, *, percent: int | None, wake_s: float) -> None:
        """Still running: note the percentage (it never goes back) and when to ask again. The lease ends."""
        await self._move(
            task,
            """claims = 0, lease_owner = NULL, progress = greatest(progress, least(coalesce($3::int, 0), 99)),
               wake_at = now() + $4 * interval '1 second'""",
            (percent, wake_s),
        )

    async def storing(self, task: Claimed) -> None:
        """The upstream is done. The lease goes on: the same step fetches the result."""
        await self._move(task, "status = 'storing', claims = 0, progress = greatest(progress, 99)", ())

    async def release(self, task: Claimed, *, wake_s: float, is_poison: bool) -> None:
        """Give the lease back; due again in ``wake_s``. With ``is_poison`` the try counts towards giving up."""
        claims = "claims" if is_poison else "0"
        changes = f"lease_owner = NULL, claims = {claims}, wake_at = now() + $3 * interval '1 second'"
        await self._move(task, changes, (wake_s,))

    async def _move(
        self, task: Claimed, changes: str, arguments: tuple[Any, ...], *, attempt: str | None = None
    ) -> None:
        """Change the leased row, and its open attempt, in one transaction. Raises: LeaseLost."""
        attempts = (
            f""", a AS (UPDATE task_attempts x SET {attempt} FROM t WHERE x.task_id = t.id
             AND x.attempt_no = t.attempt_no)"""  # noqa: S608 - our own words
            if attempt
            else ""
        )
        sql = f"""WITH t AS (UPDATE tasks SET {changes} WHERE id = $1 AND lease_token = $2 AND settled_at IS NULL
             RETURNING id, attempt_no){attempts} SELECT id FROM t"""  # noqa: S608
        # Repeatable: the token changes with the next claim, not with this write.
        if not await db.until_done(lambda: db.once(self._engine, sql, (task.id, task.token, *arguments))):
            raise LeaseLost(str(task.id))

    async def request_cancel(self, task_id: UUID) -> bool:
        """Ask whoever works on the task to stop, and make it due now if nobody does. False: it has ended."""
        rows = await db.once(
            self._engine,
            """UPDATE tasks SET cancel_requested_at = coalesce(cancel_requested_at, now()),
              wake_at = CASE WHEN lease_owner IS NULL THEN now() ELSE wake_at END
             WHERE id = $1 AND settled_at IS NULL RETURNING id""",
            (task_id,),
        )
        return bool(rows)

    async def is_cancel_requested(self, task_id: UUID) -> bool:
        """Whether the owner asked to stop, as of now: a claim knows only what was asked before it."""
        rows = await db.once(
            self._engine, "SELECT 1 FROM tasks WHERE id = $1 AND cancel_requested_at IS NOT NULL", (task_id,)
        )
        return bool(rows)

    async def given_up(self, *, limit: int = 50) -> list[Claimed]:
        """Return videos of the last day that were given up at their deadline while the upstream still had them."""
        rows = await db.once(
            self._engine,
            f"""SELECT {_RETURNING} FROM tasks t
             JOIN task_attempts a ON a.task_id = t.id AND a.attempt_no = t.attempt_no
             WHERE t.status = 'failed' AND t.upstream_id IS NOT NULL AND a.error = 'deadline' AND a.late_at IS NULL
             AND t.settled_at > now() - interval '1 day' ORDER BY t.settled_at LIMIT $1""",  # noqa: S608
            (limit,),
        )
        return [_claimed(row, time.monotonic()) for row in rows]

    async def note_late(self, task: Claimed) -> None:
        """Record that a given-up attempt succeeded after all: the upstream billed us, the customer was not charged."""
        await db.once(
            self._engine,
            "UPDATE task_attempts SET late_at = now() WHERE task_id = $1 AND attempt_no = $2",
            (task.id, task.attempt_no),
        )

    async def mark_deleted(self, task_id: UUID) -> None:
        """Hide the task from its owner; its row stays for the books."""
        await db.once(
            self._engine, "UPDATE tasks SET deleted_at = coalesce(deleted_at, now()) WHERE id = $1", (task_id,)
        )

    async def find_due(self, task_id: UUID) -> Due | None:
        """Return where an open task stands, or None when it has ended."""
        rows = await db.once(
            self._engine, "SELECT id, status, pool FROM tasks WHERE id = $1 AND settled_at IS NULL", (task_id,)
        )
        return _due(rows[0]) if rows else None

    async def overdue(self, *, grace_s: float, known: Collection[UUID] = (), limit: int = 200) -> list[Due]:
        """Return open tasks whose step should have begun ``grace_s`` ago: their message was lost, or their worker.

        The running ones are the poller's. Of the queued ones only the first few of each pool, as any number may wait
        for a place, and those that must end. ``known`` are left out.
        """
        rows = await db.once(
            self._engine,
            """(SELECT id, status, pool FROM tasks WHERE settled_at IS NULL AND status NOT IN ('queued', 'running')
                 AND wake_at <= now() - $1 * interval '1 second' AND NOT id = ANY($2::uuid[]) ORDER BY wake_at LIMIT $3)
              UNION ALL
               (SELECT id, status, pool FROM tasks WHERE status = 'queued' AND NOT id = ANY($2::uuid[])
                 AND (deadline_at <= now() OR cancel_requested_at IS NOT NULL) ORDER BY deadline_at LIMIT $3)
              UNION ALL
               (SELECT q.* FROM (SELECT DISTINCT pool FROM tasks WHERE status = 'queued') p, LATERAL (
                 SELECT id, status, pool FROM tasks WHERE status = 'queued' AND pool = p.pool AND deadline_at > now()
                 AND cancel_requested_at IS NULL AND wake_at <= now() - $1 * interval '1 second'
                 AND NOT id = ANY($2::uuid[]) ORDER BY rank LIMIT $4) q)""",
            (grace_s, list(known), limit, QUEUED_OF_A_POOL),
        )
        return [_due(row) for row in rows]

    async def next_queued(self, pool: str) -> UUID | None:
        """Return the task that is next in line in this pool, or None."""
        rows = await db.once(
            self._engine,
            "SELECT id FROM tasks WHERE status = 'queued' AND pool = $1 AND wake_at <= now() ORDER BY rank LIMIT 1",
            (pool,),
        )
        return UUID(str(rows[0]["id"])) if rows else None

    async def hand_back(self) -> int:
        """At shutdown: make everything this process still holds due at once. Returns how many.

        What it was sending is of unknown outcome, whether or not it left.
        """
        rows = await db.once(
            self._engine,
            """WITH t AS (UPDATE tasks SET lease_owner = NULL, lease_token = lease_token + 1, wake_at = now(),
                 status = CASE status WHEN 'submitting' THEN 'uncertain' ELSE status END
                WHERE starts_with(lease_owner, $1) AND settled_at IS NULL RETURNING id, attempt_no),
              a AS (UPDATE task_attempts x SET state = 'uncertain', error = 'the process was stopped' FROM t
                WHERE x.task_id = t.id AND x.attempt_no = t.attempt_no AND x.state = 'sending')
              SELECT id FROM t""",
            (self.owner,),
        )
        return len(rows)


def _due(row: Mapping[str, Any]) -> Due:
    return Due(UUID(str(row["id"])), Status(row["status"]), row["pool"])


def _claimed(row: Mapping[str, Any], claimed_at: float) -> Claimed:
    return Claimed(
        id=UUID(str(row["id"])),
        account_id=row["account_id"],
        token=row["lease_token"],
        status=Status(row["status"]),
        model=row["model"],
        pool=row["pool"],
        attempt_no=row["attempt_no"],
        upstream_id=row["upstream_id"],
        request=_json(row["request"]),
        claims=row["claims"],
        age_s=row["age_s"],
        is_overdue=row["is_overdue"],
        cancel_requested=row["cancel_requested"],
        credential=row["credential"],
        claimed_at=claimed_at,
    )
