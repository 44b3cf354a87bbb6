"""The shapes of tasks as administrators see them: money, attempts, deeds; but no prompt and no file's content."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.accounts.key_info import key_public_id
from app.accounts.users import account_public_id
from app.api.v1.wire import ErrorBody, TaskStatus, TaskType, Wire, find_unix, unix
from app.generation.repairs import Refund
from app.generation.timeline import Action, Attempt, Entry, Notice, Timeline
from app.tasks.queries import FoundTask, StoredFile

TaskState = Literal["queued", "submitting", "uncertain", "running", "storing", "succeeded", "failed", "cancelled"]


class AdminTask(Wire):
    """One line of a search."""

    object: Literal["task"] = "task"
    id: str
    account: str
    email: str
    key: str
    type: TaskType
    model: str
    pool: str = Field(description="Upstream account / the upstream's own model id.")
    status: TaskStatus
    state: TaskState = Field(description="The status in detail.")
    attempts: int
    upstream_id: str | None
    hold: int
    charge: int | None = Field(description="Null until it has ended.")
    reason: str | None = Field(description="Why it failed.")
    cancel_requested_at: int | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    deleted_at: int | None

    @classmethod
    def of(cls, task: FoundTask) -> AdminTask:
        return cls(
            id=task.public_id,
            account=account_public_id(task.account_id),
            email=task.email,
            key=key_public_id(task.key_id),
            type=task.operation.task_type,
            model=task.model,
            pool=task.pool,
            status=task.public_status,
            state=task.status,
            attempts=task.attempts,
            upstream_id=task.upstream_id,
            hold=task.hold,
            charge=task.charge,
            reason=task.error_code,
            cancel_requested_at=find_unix(task.cancel_requested_at),
            created_at=unix(task.created_at),
            started_at=find_unix(task.started_at),
            completed_at=find_unix(task.settled_at),
            deleted_at=find_unix(task.deleted_at),
        )


class AdminTaskList(Wire):
    object: Literal["list"] = "list"
    data: list[AdminTask]
    last_id: str | None = Field(description="Send it as `after` for the next page.")
    has_more: bool


class TaskAttempt(Wire):
    """One try at one upstream."""

    attempt_no: int
    provider: str
    pool: str | None
    client_token: str = Field(description="What the upstream was told to call it, where it takes names.")
    upstream_id: str | None
    state: str
    fault: str | None = Field(
        description="`busy`, `denied`, `rejected`, `absent`, `moderation`, `failed`, `deadline`, `poison`, `resolved`, "
        "`uncertain` (an answer is missing still), `lost` (it may have been made, and billed to us); null: none."
    )
    http_status: int | None
    error: str | None
    cost_micros: int | None = Field(description="What the upstream charged us, in millionths.")
    cost_currency: str | None
    sent_at: int
    resolved_at: int | None
    late_at: int | None = Field(description="A given-up attempt turned out to be done after all.")

    @classmethod
    def of(cls, attempt: Attempt) -> TaskAttempt:
        return cls(
            attempt_no=attempt.attempt_no,
            provider=attempt.provider,
            pool=attempt.pool,
            client_token=attempt.client_token,
            upstream_id=attempt.upstream_id,
            state=attempt.state,
            fault=attempt.fault,
            http_status=attempt.http_status,
            error=attempt.error,
            cost_micros=attempt.cost_micros,
            cost_currency=attempt.cost_currency,
            sent_at=unix(attempt.sent_at),
            resolved_at=find_unix(attempt.resolved_at),
            late_at=find_unix(attempt.late_at),
        )


class TaskEntry(Wire):
    """A line of the ledger."""

    id: int
    seq: int
    kind: str
    amount: int
    balance: int
    actor: str
    reference: str | None
    note: str | None
    created_at: int

    @classmethod
    def of(cls, entry: Entry) -> TaskEntry:
        return cls(
            id=entry.id,
            seq=entry.seq,
            kind=entry.kind,
            amount=entry.amount,
            balance=entry.balance,
            actor=entry.actor,
            reference=entry.reference,
            note=entry.note,
            created_at=unix(entry.created_at),
        )


class TaskAction(Wire):
    """What somebody did by hand, as the audit has it."""

    at: int
    actor: str
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None

    @classmethod
    def of(cls, action: Action) -> TaskAction:
        return cls(
            at=unix(action.at),
            actor=action.actor,
            action=action.action,
            before=None if action.before is None else dict(action.before),
            after=None if action.after is None else dict(action.after),
            request_id=action.request_id,
        )


class TaskNotice(Wire):
    """A webhook about the task's end."""

    id: str
    receiver: str
    state: str
    tries: int
    last_status: int | None
    last_error: str | None
    created_at: int
    delivered_at: int | None

    @classmethod
    def of(cls, notice: Notice) -> TaskNotice:
        return cls(
            id=str(notice.id),
            receiver=notice.receiver,
            state=notice.state,
            tries=notice.tries,
            last_status=notice.last_status,
            last_error=notice.last_error,
            created_at=unix(notice.created_at),
            delivered_at=find_unix(notice.delivered_at),
        )


class TaskFile(Wire):
    role: str
    state: str
    content_type: str
    size_bytes: int
    expires_at: int

    @classmethod
    def of(cls, file: StoredFile) -> TaskFile:
        return cls(
            role=file.role,
            state=file.state,
            content_type=file.mime,
            size_bytes=file.size_bytes,
            expires_at=unix(file.expires_at),
        )


class TaskEvent(Wire):
    at: float = Field(description="Unix seconds, with milliseconds: several things happen in one second.")
    what: str
    by: str | None = Field(description="A caller, a provider, a process of ours, or an operator.")
    text: str


class AdminTaskDetail(Wire):
    """Everything that is known about a task; `events` tells it in order."""

    object: Literal["task"] = "task"
    id: str
    account: str
    email: str
    key: str
    key_name: str
    type: TaskType
    model: str
    pool: str
    status: TaskStatus
    state: TaskState
    progress: int
    hold: int
    charge: int | None
    refunded: int
    error: ErrorBody | None
    upstream_id: str | None
    credential: int | None = Field(description="Version of the upstream account that took it; null: the newest.")
    lease_owner: str | None = Field(description="The process that works on it now.")
    wake_at: int | None = Field(description="When its next step is due.")
    deadline_at: int | None
    cancel_requested_at: int | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    delivered_at: int | None
    deleted_at: int | None
    attempts: list[TaskAttempt]
    ledger: list[TaskEntry]
    actions: list[TaskAction]
    webhooks: list[TaskNotice]
    files: list[TaskFile]
    events: list[TaskEvent]

    @classmethod
    def of(cls, line: Timeline) -> AdminTaskDetail:
        task = line.task
        return cls(
            id=task.public_id,
            account=account_public_id(task.account_id),
            email=line.email,
            key=key_public_id(task.key_id),
            key_name=line.key_name,
            type=task.operation.task_type,
            model=task.model,
            pool=task.pool,
            status=task.public_status,
            state=task.status,
            progress=task.progress,
            hold=task.hold,
            charge=task.charge,
            refunded=line.refunded,
            error=None if task.error is None else ErrorBody(**task.error.body()),
            upstream_id=task.upstream_id,
            credential=line.credential,
            lease_owner=line.lease_owner,
            wake_at=find_unix(line.wake_at),
            deadline_at=find_unix(line.deadline_at),
            cancel_requested_at=find_unix(task.cancel_requested_at),
            created_at=unix(task.created_at),
            started_at=find_unix(task.started_at),
            completed_at=find_unix(task.settled_at),
            delivered_at=find_unix(line.delivered_at),
            deleted_at=find_unix(task.deleted_at),
            attempts=[TaskAttempt.of(attempt) for attempt in line.attempts],
            ledger=[TaskEntry.of(entry) for entry in line.entries],
            actions=[TaskAction.of(action) for action in line.actions],
            webhooks=[TaskNotice.of(notice) for notice in line.notices],
            files=[TaskFile.of(file) for file in task.files],
            events=[
                TaskEvent(at=round(event.at.timestamp(), 3), what=event.what, by=event.by, text=event.text)
                for event in line.events()
            ],
        )


class RefundReply(Wire):
    object: Literal["refund"] = "refund"
    task_id: str
    credits: int
    reference: str
    ledger_id: int
    replayed: bool = Field(description="This reference had given the same credits back before: nothing moved now.")

    @classmethod
    def of(cls, task_id: str, refund: Refund) -> RefundReply:
        return cls(
            task_id=task_id,
            credits=refund.credits,
            reference=refund.reference,
            ledger_id=refund.entry_id,
            replayed=not refund.is_new,
        )
