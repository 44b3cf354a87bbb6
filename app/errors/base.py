"""What every error has in common, and the families that share a status and a type."""

from __future__ import annotations

import errno
from typing import Any, ClassVar

NOT_CHARGED = "No credits were charged."
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system calls a full disk, or a used-up quota: nobody's mistake, and over as soon as there is room."""


class MediagateError(Exception):
    """Base of every error a client may see, in OpenAI's error envelope."""

    status: ClassVar[int] = 500  # also the envelope's integer `code`
    type: ClassVar[str] = "server_error"
    reason: ClassVar[str] = "internal_error"  # our stable machine word

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.task_id = task_id
        """The public id of the task this error is about, when one was created: the client must not retry by itself."""

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the inner object of the envelope."""
        return {
            "message": self.message,
            "type": self.type,
            "code": self.status,
            "param": self.param,
            "reason": self.reason,
            "request_id": request_id,
            "task_id": self.task_id,
        }


class InvalidRequest(MediagateError):
    status, type = 400, "invalid_request_error"


class Unauthorized(MediagateError):
    status, type = 401, "unauthorized"


class InsufficientQuota(MediagateError):
    status, type = 402, "insufficient_quota"


class Forbidden(MediagateError):
    status, type = 403, "forbidden"


class NotFound(MediagateError):
    status, type = 404, "not_found_error"


class RateLimited(MediagateError):
    status, type = 429, "rate_limit_exceeded"


class InternalError(MediagateError):
    reason = "internal_error"
