"""Every error a client may see, each with its own wire form.

Services raise these and import no HTTP; ``app.api.errors`` is the one place that renders them. The rows are those of
the contract's error table: `status`, `type`, `reason`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any, ClassVar

from app.values import MAX_CREDITS, Credits

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


# --- 400 ------------------------------------------------------------------------------------------------------------


class InvalidRequest(MediagateError):
    status, type = 400, "invalid_request_error"


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


class TaskNotReady(InvalidRequest):
    reason = "task_not_ready"


class PriceAboveMax(InvalidRequest):
    reason = "price_above_max"

    def __init__(self, *, credits: Credits, max_credits: int) -> None:
        super().__init__(
            f"This request costs {credits} credits, above 'max_credits' ({max_credits}). {NOT_CHARGED}",
            param="max_credits",
        )


class AccountExists(InvalidRequest):
    reason = "account_exists"

    def __init__(self, email: str) -> None:
        super().__init__(f"There is an account with the e-mail '{email}' already.", param="email")


class BalanceTooHigh(InvalidRequest):
    """For operators: beyond it a JSON number would lose its last digits."""

    reason = "balance_too_high"

    def __init__(self) -> None:
        super().__init__(f"No balance may pass {MAX_CREDITS} credits.", param="credits")


class TaskEnded(InvalidRequest):
    """For operators: there is nothing to resolve any more."""

    reason = "task_ended"

    def __init__(self, public_id: str, status: str) -> None:
        super().__init__(f"The task '{public_id}' has ended already: {status}.", task_id=public_id)


class NothingToRefund(InvalidRequest):
    """For operators: the task was never charged, or all of it was given back."""

    reason = "nothing_to_refund"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"The task '{public_id}' has no captured credits left to give back.", task_id=public_id)


class UpstreamExists(InvalidRequest):
    reason = "upstream_exists"


class ModelRouteExists(InvalidRequest):
    reason = "model_route_exists"

    def __init__(self, model: str, pool: str) -> None:
        super().__init__(f"There is a route from '{model}' to '{pool}' already.", param="upstream_model")


# --- 401, 402, 403 --------------------------------------------------------------------------------------------------


class Unauthorized(MediagateError):
    status, type = 401, "unauthorized"


class MissingApiKey(Unauthorized):
    reason = "missing_api_key"

    def __init__(self) -> None:
        super().__init__("Missing API key. Send it as 'Authorization: Bearer sk-...'.")


class InvalidApiKey(Unauthorized):
    """Unknown, expired and revoked look the same: no oracle."""

    reason = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("Invalid API key. Check it, or ask your administrator for a new one.")


class WrongPepper(InvalidRequest):
    """For operators: this process has another key pepper than the one the keys in the database were made with."""

    reason = "wrong_pepper"

    def __init__(self) -> None:
        super().__init__(
            "MEDIAGATE_KEY_PEPPER is not the one the keys in this database were made with: the gateway would refuse "
            "a key minted now. Set it as for the API, or name its data folder in MEDIAGATE_DATA."
        )


class WrongMetricsToken(Unauthorized):
    reason = "invalid_metrics_token"

    def __init__(self) -> None:
        super().__init__("Send the metrics token as 'Authorization: Bearer ...'.")


class WrongSecretsKey(InvalidRequest):
    """For operators: the stored secrets were sealed with a key this process does not have."""

    reason = "wrong_secrets_key"

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"MEDIAGATE_SECRETS_KEY is not the one the secrets in this database were sealed with (key {key_id}). "
            "Set it as for the API, or name its data folder in MEDIAGATE_DATA. If the key is lost: "
            "`mediagate upstreams reencrypt --drop-unreadable`, then `rotate` each account."
        )


class SecretDamaged(InvalidRequest):
    """For operators: a sealed secret was changed, or moved from another row."""

    reason = "secret_damaged"

    def __init__(self, remedy: str) -> None:
        super().__init__(f"A stored secret does not open, as its row was changed: that of the {remedy}.")


class InsufficientQuota(MediagateError):
    status, type = 402, "insufficient_quota"


class InsufficientCredits(InsufficientQuota):
    reason = "insufficient_credits"

    def __init__(self, *, needed: Credits | None = None) -> None:
        why = "The account has none to spend." if needed is None else f"This request needs {needed}."
        super().__init__(f"Insufficient credits. {why} {NOT_CHARGED}")


class KeyBudgetExhausted(InsufficientQuota):
    reason = "key_budget_exhausted"

    def __init__(self) -> None:
        super().__init__(f"This API key has used up its budget. {NOT_CHARGED}")


class Forbidden(MediagateError):
    status, type = 403, "forbidden"


class ModelNotAllowed(Forbidden):
    reason = "model_not_allowed"


class ScopeMissing(Forbidden):
    reason = "scope_missing"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This API key lacks the scope '{scope}'.")


class MetricsClosed(Forbidden):
    reason = "metrics_closed"

    def __init__(self) -> None:
        super().__init__(
            "Metrics need MEDIAGATE_METRICS_TOKEN; without it only this machine may read them in development."
        )


class IpNotAllowed(Forbidden):
    reason = "ip_not_allowed"

    def __init__(self) -> None:
        super().__init__("This API key may not be used from this address.")


class AccountSuspended(Forbidden):
    reason = "account_suspended"

    def __init__(self) -> None:
        super().__init__("This account is suspended. Ask your administrator.")


class SignatureExpired(Forbidden):
    reason = "signature_expired"

    def __init__(self) -> None:
        super().__init__("This link is expired or not valid. Read the task again for a fresh one.")


# --- 404, 405, 410, 413, 415 ----------------------------------------------------------------------------------------


class NotFound(MediagateError):
    status, type = 404, "not_found_error"


class ModelNotFound(NotFound):
    reason = "model_not_found"

    def __init__(self, model: str, known: Iterable[str] = ()) -> None:
        names = ", ".join(known)
        super().__init__(
            f"The model '{model}' does not exist." + (f" Available here: {names}." if names else ""), param="model"
        )


class TaskNotFound(NotFound):
    """Unknown, deleted and somebody else's look the same."""

    reason = "task_not_found"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"No task '{public_id[:64]}' in this account.")


class FileNotFound(TaskNotFound):
    """The task is there, and has no file of this kind."""

    def __init__(self, public_id: str, kind: str) -> None:
        MediagateError.__init__(self, f"The task '{public_id}' has no {kind}.", task_id=public_id)


class AccountNotFound(NotFound):
    """Operators only: no client learns which accounts exist."""

    reason = "account_not_found"

    def __init__(self, account: str) -> None:
        super().__init__(f"No account '{account[:254]}'.")


class KeyNotFound(NotFound):
    """Operators only: no client learns which keys exist."""

    reason = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"No API key '{key_id[:64]}'.")


class UpstreamNotFound(NotFound):
    """Operators only: no client learns which upstream accounts exist."""

    reason = "upstream_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"No upstream account '{name[:100]}'.")


class ModelRouteNotFound(NotFound):
    """Operators only: a model's way to an upstream."""

    reason = "model_route_not_found"

    def __init__(self, route: str) -> None:
        super().__init__(f"No route '{route[:200]}'.")


class WebhookEndpointNotFound(NotFound):
    """Unknown, deleted and somebody else's look the same."""

    reason = "webhook_endpoint_not_found"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"No webhook endpoint '{public_id[:64]}' in this account.")


class WebhookDeliveryNotFound(NotFound):
    reason = "webhook_delivery_not_found"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"No delivery '{public_id[:64]}' to this webhook endpoint; they are kept for 30 days.")


class RouteNotFound(NotFound):
    reason = "route_not_found"


class MethodNotAllowed(MediagateError):
    status, type, reason = 405, "invalid_request_error", "method_not_allowed"


class ResultExpired(MediagateError):
    status, type, reason = 410, "not_found_error", "result_expired"

    def __init__(self, task_id: str) -> None:
        super().__init__("This result was deleted at the end of its retention, or by its owner.", task_id=task_id)


class BodyTooLarge(MediagateError):
    status, type, reason = 413, "invalid_request_error", "body_too_large"


class UnsupportedMediaType(MediagateError):
    status, type, reason = 415, "invalid_request_error", "unsupported_media_type"


class RangeNotSatisfiable(MediagateError):
    status, type, reason = 416, "invalid_request_error", "range_not_satisfiable"

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"The range lies outside of this file of {size_bytes} bytes.")
        self.size_bytes = size_bytes


# --- 429 ------------------------------------------------------------------------------------------------------------


class RateLimited(MediagateError):
    status, type = 429, "rate_limit_exceeded"


class TooManyRequests(RateLimited):
    """Of this key, or of this source with wrong keys. Nothing was done."""

    reason = "too_many_requests"


class TooManyTasks(RateLimited):
    reason = "too_many_tasks"

    def __init__(self) -> None:
        super().__init__(
            "Too many tasks of this account or key are running. Wait for one to end, then try again.", retry_after_s=5
        )


class QueueFull(RateLimited):
    reason = "queue_full"


# --- 5xx ------------------------------------------------------------------------------------------------------------


class InternalError(MediagateError):
    reason = "internal_error"


class UpstreamErrorPublic(MediagateError):
    """The upstream failed for good, or its outcome could not be learnt."""

    status, reason = 502, "upstream_error"


class ResultUnavailable(MediagateError):
    status, reason = 502, "result_unavailable"


class ProviderUnavailable(MediagateError):
    status, reason = 503, "provider_unavailable"


class Overloaded(MediagateError):
    status, reason = 503, "overloaded"


class DatabaseUnavailable(MediagateError):
    status, reason = 503, "database_unavailable"


class OutcomeUnknown(DatabaseUnavailable):
    """The database went away under a statement: what it did before is not known. Nobody may repeat it blindly."""


class SyncWaitExceeded(MediagateError):
    status, reason = 504, "sync_wait_exceeded"


class TaskCancelled(InvalidRequest):
    """The task was cancelled before it made anything."""

    reason = "task_cancelled"


def _all_errors(base: type[MediagateError]) -> Iterable[type[MediagateError]]:
    yield base
    for child in base.__subclasses__():
        yield from _all_errors(child)


BY_REASON: dict[str, type[MediagateError]] = {
    error.reason: error for error in _all_errors(MediagateError) if "reason" in vars(error)
}


def restored(reason: str, message: str, *, param: str | None = None, task_id: str | None = None) -> MediagateError:
    """Return the error a task row remembers by its reason and message."""
    kind = BY_REASON.get(reason, InternalError)
    error = kind.__new__(kind)
    MediagateError.__init__(error, message, param=param, task_id=task_id)
    return error
