"""What became of a task, for operators: who asked, every state, attempt and credit, and what was done by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import db
from app.errors import TaskNotFound
from app.log import redact_text
from app.tasks.queries import TaskQueries, TaskView
from app.values import find_task_id, task_public_id

FAULTS = {
    "UpstreamBusy": "busy",
    "UpstreamDenied": "denied",
    "UpstreamRejected": "rejected",
    "UpstreamModerated": "moderation",
    "UpstreamFailed": "failed",
    "UpstreamOutcomeUnknown": "uncertain",
}
NOTED = {"deadline": "deadline", "not in the list": "absent", "given up after": "poison", "resolved by": "resolved"}
OPEN = ("sending", "accepted", "done")


@dataclass(frozen=True, slots=True)
class Move:
    """A state the task came into."""

    at: datetime
    status: str
    pool: str
    attempt_no: int
    owner: str | None
    """The process that moved it; None: the API, or an operator."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one upstream."""

    attempt_no: int
    provider: str
    pool: str | None
    client_token: str
    upstream_id: str | None
    state: str
    fault: str | None
    """In one word what went wrong; None: nothing, so far."""
    http_status: int | None
    error: str | None
    cost_micros: int | None
    cost_currency: str | None
    sent_at: datetime
    resolved_at: datetime | None
    late_at: datetime | None
    """When a given-up attempt turned out to be done after all."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the ledger."""

    id: int
    seq: int
    kind: str
    amount: int
    balance: int
    actor: str
    reference: str | None
    note: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody did by hand: a row of the audit."""

    at: datetime
    actor: str
    action: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Notice:
    """A webhook about the task's end, on its way to one receiver."""

    id: UUID
    receiver: str
    """The endpoint's id, or the host of a one-off URL."""
    state: str
    """``pending``, ``delivered`` or ``failed``."""
    tries: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the story."""

    at: datetime
    what: str
    by: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    task: TaskView
    email: str
    key_name: str
    key_last4: str
    credential: int | None
    lease_owner: str | None
    wake_at: datetime | None
    """When its next step is due; None: it has ended."""
    deadline_at: datetime | None
    delivered_at: datetime | None
    """When the answer's last byte was handed over."""
    moves: Sequence[Move]
    attempts: Sequence[Attempt]
    entries: Sequence[Entry]
    actions: Sequence[Action]
    notices: Sequence[Notice]

    @property
    def refunded(self) -> int:
        return sum(entry.amount for entry in self.entries if entry.kind == "refund")

    def events(self) -> list[Event]:
        """Return the whole story in order of time."""
        return sorted(self._events(), key=lambda event: event.at)

    def _events(self) -> Iterator[Event]:
        task = self.task
        who = f"{self.email} with key_{task.key_id} '{self.key_name}' (..{self.key_last4})"
        yield Event(task.created_at, "accepted", who, f"{task.operation.task_type} with {task.model}")
        yield Event(task.created_at, "hold", None, f"{task.hold} credits put aside")
        for move in self.moves:
            at_pool = f" at {move.pool}" if move.status in ("queued", "submitting") else ""
            yield Event(move.at, move.status, move.owner, f"attempt {move.attempt_no}{at_pool}" if at_pool else "")
        for attempt in self.attempts:
            no = attempt.attempt_no
            yield Event(attempt.sent_at, "attempt.sent", attempt.provider, f"{no}: {attempt.client_token}")
            if attempt.resolved_at is not None:
                told = [attempt.state, attempt.fault, attempt.http_status, attempt.upstream_id, attempt.error]
                words = ", ".join(str(part) for part in dict.fromkeys(told) if part is not None)
                yield Event(attempt.resolved_at, "attempt.resolved", attempt.provider, f"{no}: {words}")
            if attempt.late_at is not None:
                yield Event(attempt.late_at, "attempt.late", attempt.provider, f"{no}: done after all")
        if task.cancel_requested_at is not None:
            yield Event(task.cancel_requested_at, "cancel.requested", None, "")
        yield from self._money()
        if self.delivered_at is not None:
            yield Event(self.delivered_at, "delivered", None, "the answer's last byte was handed over")
        for notice in self.notices:
            yield Event(notice.created_at, "webhook.made", None, f"for {notice.receiver}")
            if notice.delivered_at is not None:
                yield Event(notice.delivered_at, "webhook.delivered", None, f"to {notice.receiver}")
        for action in self.actions:
            reason = (action.after or {}).get("reason")
            yield Event(action.at, action.action, action.actor, str(reason or ""))
        if task.deleted_at is not None:
            yield Event(task.deleted_at, "deleted", None, "by its owner; its files go")

    def _money(self) -> Iterator[Event]:
        task = self.task
        for entry in self.entries:
            text = f"{abs(entry.amount)} credits, ledger row {entry.id} (line {entry.seq} of the account)"
            yield Event(entry.created_at, entry.kind, entry.actor, text)
        released = task.hold - (task.charge or 0)
        if task.settled_at is not None and released:
            yield Event(task.settled_at, "release", None, f"{released} credits of the hold")


class Timelines:
    def __init__(self, engine: AsyncEngine, queries: TaskQueries) -> None:
        self._engine = engine
        self._queries = queries

    async def get(self, public_id: str) -> Timeline:
        """Return any account's task, deleted ones too. Raises: TaskNotFound."""
        task_id = find_task_id(public_id)
        view = await self._queries.find(task_id) if task_id else None
        if view is None:
            raise TaskNotFound(public_id)
        async with db.transaction(self._engine) as connection:
            facts = (await connection.exec_driver_sql(_FACTS, (view.id,))).mappings().one()
            moves = [Move(**row) for row in await _rows(connection, _MOVES, view.id)]
            attempts = await _rows(connection, _ATTEMPTS, view.id)
            entries = [Entry(**row) for row in await _rows(connection, _ENTRIES, view.id)]
            actions = await _rows(connection, _ACTIONS, task_target(view.id))
            notices = await _rows(connection, _NOTICES, view.id)
        pools = {move.attempt_no: move.pool for move in moves if move.status == "submitting"}
        is_open = view.settled_at is None
        return Timeline(
            task=view,
            email=facts["email"],
            key_name=facts["key_name"],
            key_last4=facts["key_last4"],
            credential=facts["credential"],
            lease_owner=facts["lease_owner"],
            wake_at=facts["wake_at"] if is_open else None,
            deadline_at=facts["deadline_at"] if is_open else None,
            delivered_at=facts["delivered_at"],
            moves=moves,
            attempts=[_attempt(row, pools, view.error_code) for row in attempts],
            entries=entries,
            actions=[_action(row) for row in actions],
            notices=[Notice(**row) for row in notices],
        )


def task_target(task_id: UUID) -> str:
    """Return what the audit calls a task."""
    return f"task:{task_public_id(task_id)}"


def fault_of(state: str, error: str | None, task_error: str | None = None) -> str | None:
    """Return in one word what went wrong with an attempt: its error's kind, else its state."""
    if state in OPEN:
        return None
    if state in ("uncertain", "lost"):
        return state
    text = error or ""
    for start, word in NOTED.items():
        if text.startswith(start):
            return word
    named = FAULTS.get(text.partition(":")[0])
    if named is None and state == "failed" and task_error == "content_policy_violation":
        return "moderation"
    return named or state


def _attempt(row: Mapping[str, Any], pools: Mapping[int, str], task_error: str | None) -> Attempt:
    error = None if row["error"] is None else redact_text(row["error"])
    return Attempt(
        **{**row, "error": error},
        pool=pools.get(row["attempt_no"]),
        fault=fault_of(row["state"], error, task_error),
    )


def _action(row: Mapping[str, Any]) -> Action:
    return Action(**{**row, "before": _json(row["before"]), "after": _json(row["after"])})


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


async def _rows(connection: AsyncConnection, sql: str, argument: object) -> list[dict[str, Any]]:
    return [dict(row) for row in (await connection.exec_driver_sql(sql, (argument,))).mappings()]


_FACTS = """
SELECT a.email, k.name AS key_name, k.last4 AS key_last4, t.credential, t.lease_owner, t.wake_at, t.deadline_at,
       t.delivered_at
  FROM tasks t JOIN accounts a ON a.id = t.account_id JOIN api_keys k ON k.id = t.api_key_id WHERE t.id = $1"""

_MOVES = "SELECT at, status, pool, attempt_no, owner FROM task_events WHERE task_id = $1 ORDER BY at"

_ATTEMPTS = """
SELECT attempt_no, provider, client_token, upstream_id, state, http_status, error,
       upstream_cost AS cost_micros, cost_currency, sent_at, resolved_at, late_at
  FROM task_attempts WHERE task_id = $1 ORDER BY attempt_no"""

_ENTRIES = """
SELECT id, seq, kind, amount, balance, actor, external_ref AS reference, note, created_at
  FROM ledger WHERE task_id = $1 AND kind IN ('capture','refund') ORDER BY id"""

_ACTIONS = "SELECT at, actor, action, before, after, request_id FROM audit WHERE target = $1 ORDER BY id"

# Of a one-off URL the host alone: the rest may be a secret.
_NOTICES = """
SELECT d.id, coalesce(d.endpoint_id::text, split_part(split_part(d.url, '://', 2), '/', 1)) AS receiver, d.state,
       d.tries, d.last_status, d.last_error, d.created_at, d.delivered_at
  FROM webhook_events e JOIN webhook_deliveries d ON d.event_id = e.id WHERE e.task_id = $1 ORDER BY d.id"""
