"""Tasks that are not there, not ready, or failed."""

from __future__ import annotations

from app.errors.base import InvalidRequest, MediagateError, NotFound, RateLimited


class TaskNotReady(InvalidRequest):
    reason = "task_not_ready"


class TaskEnded(InvalidRequest):
    """For operators: there is nothing to resolve any more."""

    reason = "task_ended"

    def __init__(self, public_id: str, status: str) -> None:
        super().__init__(f"The task '{public_id}' has ended already: {status}.", task_id=public_id)


class TaskNotFound(NotFound):
    """Unknown, deleted and somebody else's look the same."""

    reason = "task_not_found"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"No task '{public_id[:64]}' in this account.")


class FileNotFound(TaskNotFound):
    """The task is there, and has no file of this kind."""

    def __init__(self, public_id: str, kind: str) -> None:
        MediagateError.__init__(self, f"The task '{public_id}' has no {kind}.", task_id=public_id)


class ResultExpired(MediagateError):
    status, type, reason = 410, "not_found_error", "result_expired"

    def __init__(self, task_id: str) -> None:
        super().__init__("This result was deleted at the end of its retention, or by its owner.", task_id=task_id)


class TooManyTasks(RateLimited):
    reason = "too_many_tasks"

    def __init__(self) -> None:
        super().__init__(
            "Too many tasks of this account or key are running. Wait for one to end, then try again.", retry_after_s=5
        )


class QueueFull(RateLimited):
    reason = "queue_full"


class UpstreamErrorPublic(MediagateError):
    """The upstream failed for good, or its outcome could not be learnt."""

    status, reason = 502, "upstream_error"


class ResultUnavailable(MediagateError):
    status, reason = 502, "result_unavailable"


class SyncWaitExceeded(MediagateError):
    status, reason = 504, "sync_wait_exceeded"


class TaskCancelled(InvalidRequest):
    """The task was cancelled before it made anything."""

    reason = "task_cancelled"
