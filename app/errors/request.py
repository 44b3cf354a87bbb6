"""Requests that cannot be taken as they are: their fields, their bodies, their addresses."""

from __future__ import annotations

from app.errors.base import InvalidRequest, MediagateError, NotFound, RateLimited


class InvalidParameter(InvalidRequest):
    reason = "invalid_parameter"


class MissingParameter(InvalidRequest):
    reason = "missing_parameter"

    def __init__(self, param: str, message: str | None = None) -> None:
        super().__init__(message or f"Missing required parameter: '{param}'.", param=param)


class UnsupportedParameter(InvalidRequest):
    """A field Mediagate knows, but this model does not have."""

    reason = "unsupported_parameter"


class ContentPolicyViolation(InvalidRequest):
    reason = "content_policy_violation"


class IdempotencyKeyReused(InvalidRequest):
    reason = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This idempotency key was used before with another request. Send a new key with a new request, or exactly "
            "the first request again.",
            param="idempotency_key",
        )


class InputUrlRefused(InvalidRequest):
    """The URL points where we do not go. The message never says which address, or why."""

    reason = "input_url_refused"


class InputUrlUnreachable(InvalidRequest):
    reason = "input_url_unreachable"


class InvalidMedia(InvalidRequest):
    """An uploaded or fetched file that is not what the field takes."""

    reason = "invalid_image"


class RouteNotFound(NotFound):
    reason = "route_not_found"


class MethodNotAllowed(MediagateError):
    status, type, reason = 405, "invalid_request_error", "method_not_allowed"


class BodyTooLarge(MediagateError):
    status, type, reason = 413, "invalid_request_error", "body_too_large"


class UnsupportedMediaType(MediagateError):
    status, type, reason = 415, "invalid_request_error", "unsupported_media_type"


class RangeNotSatisfiable(MediagateError):
    status, type, reason = 416, "invalid_request_error", "range_not_satisfiable"

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"The range lies outside of this file of {size_bytes} bytes.")
        self.size_bytes = size_bytes


class TooManyRequests(RateLimited):
    """Of this key, or of this source with wrong keys. Nothing was done."""

    reason = "too_many_requests"
