"""Every error a client may see, each with its own wire form.

Services raise these and import no HTTP; ``app.api.errors`` is the one place that renders them. The rows are those of
the contract's error table: `status`, `type`, `reason`.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.errors.access import (
    CsrfFailed,
    InvalidApiKey,
    IpNotAllowed,
    KeyNotFound,
    LinkExpired,
    MetricsClosed,
    MissingApiKey,
    ScopeMissing,
    SessionEnded,
    SignatureExpired,
    SignInRefused,
    SignInUnavailable,
    TooManyTries,
    WrongMetricsToken,
    WrongPassword,
)
from app.errors.accounts import (
    AccountBusy,
    AccountExists,
    AccountNotFound,
    AccountSuspended,
    LastAdmin,
    RegistrationClosed,
)
from app.errors.base import (
    NO_ROOM,
    NOT_CHARGED,
    Forbidden,
    InsufficientQuota,
    InternalError,
    InvalidRequest,
    MediagateError,
    NotFound,
    RateLimited,
    Unauthorized,
)
from app.errors.catalog import (
    ModelNotAllowed,
    ModelNotFound,
    ModelRouteExists,
    ModelRouteNotFound,
    ModelVersionFixed,
    ModelVersionNotFound,
    UpstreamExists,
    UpstreamNotFound,
)
from app.errors.credits import (
    BalanceTooHigh,
    BelowHeld,
    InsufficientCredits,
    KeyBudgetExhausted,
    NothingToRefund,
    PriceAboveMax,
    RedeemCodeNotFound,
    RedeemCodeRefused,
    RedeemCodeUsed,
)
from app.errors.request import (
    BodyTooLarge,
    ContentPolicyViolation,
    IdempotencyKeyReused,
    InputUrlRefused,
    InputUrlUnreachable,
    InvalidMedia,
    InvalidParameter,
    MethodNotAllowed,
    MissingParameter,
    RangeNotSatisfiable,
    RouteNotFound,
    TooManyRequests,
    UnsupportedMediaType,
    UnsupportedParameter,
)
from app.errors.secrets import SecretDamaged, WrongPepper, WrongSecretsKey
from app.errors.service import DatabaseUnavailable, OutcomeUnknown, Overloaded, ProviderUnavailable
from app.errors.tasks import (
    FileNotFound,
    QueueFull,
    ResultExpired,
    ResultUnavailable,
    SyncWaitExceeded,
    TaskCancelled,
    TaskEnded,
    TaskNotFound,
    TaskNotReady,
    TooManyTasks,
    UpstreamErrorPublic,
)
from app.errors.webhooks import WebhookDeliveryNotFound, WebhookEndpointNotFound

__all__ = [
    "BY_REASON",
    "NOT_CHARGED",
    "NO_ROOM",
    "AccountBusy",
    "AccountExists",
    "AccountNotFound",
    "AccountSuspended",
    "BalanceTooHigh",
    "BelowHeld",
    "BodyTooLarge",
    "ContentPolicyViolation",
    "CsrfFailed",
    "DatabaseUnavailable",
    "FileNotFound",
    "Forbidden",
    "IdempotencyKeyReused",
    "InputUrlRefused",
    "InputUrlUnreachable",
    "InsufficientCredits",
    "InsufficientQuota",
    "InternalError",
    "InvalidApiKey",
    "InvalidMedia",
    "InvalidParameter",
    "InvalidRequest",
    "IpNotAllowed",
    "KeyBudgetExhausted",
    "KeyNotFound",
    "LastAdmin",
    "LinkExpired",
    "MediagateError",
    "MethodNotAllowed",
    "MetricsClosed",
    "MissingApiKey",
    "MissingParameter",
    "ModelNotAllowed",
    "ModelNotFound",
    "ModelRouteExists",
    "ModelRouteNotFound",
    "ModelVersionFixed",
    "ModelVersionNotFound",
    "NotFound",
    "NothingToRefund",
    "OutcomeUnknown",
    "Overloaded",
    "PriceAboveMax",
    "ProviderUnavailable",
    "QueueFull",
    "RangeNotSatisfiable",
    "RateLimited",
    "RedeemCodeNotFound",
    "RedeemCodeRefused",
    "RedeemCodeUsed",
    "RegistrationClosed",
    "ResultExpired",
    "ResultUnavailable",
    "RouteNotFound",
    "ScopeMissing",
    "SecretDamaged",
    "SessionEnded",
    "SignInRefused",
    "SignInUnavailable",
    "SignatureExpired",
    "SyncWaitExceeded",
    "TaskCancelled",
    "TaskEnded",
    "TaskNotFound",
    "TaskNotReady",
    "TooManyRequests",
    "TooManyTasks",
    "TooManyTries",
    "Unauthorized",
    "UnsupportedMediaType",
    "UnsupportedParameter",
    "UpstreamErrorPublic",
    "UpstreamExists",
    "UpstreamNotFound",
    "WebhookDeliveryNotFound",
    "WebhookEndpointNotFound",
    "WrongMetricsToken",
    "WrongPassword",
    "WrongPepper",
    "WrongSecretsKey",
    "restored",
]


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
