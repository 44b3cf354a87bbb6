"""Sorts DashScope's error codes. Whole codes: a file problem and moderation have names that look alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.upstreams.http import Answer, default_error
from app.upstreams.protocols import (
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamModerated,
    UpstreamRejected,
)
from app.upstreams.wording import cleaned, refusal

_MODERATED: Final = frozenset({"DataInspectionFailed", "IPInfringementSuspect"})
_DENIED: Final = frozenset({"AccessDenied", "AccessDenied.Unpurchased", "InvalidApiKey", "ModelNotFound"})
_SPENT: Final = frozenset({"Arrearage", "Throttling.AllocationQuota"})
_BUSY: Final = frozenset({"Throttling", "Throttling.RateQuota"})
_BAD: Final = frozenset(
    {
        "BadRequest.TooLarge",
        "InvalidParameter",
        "InvalidParameter.DataInspection",
        "InvalidURL",
        "UnsupportedOperation",
    }
)


def error_of(document: Any) -> tuple[str, str]:
    """Return code and message, of an error's body or of a failed task's ``output``; empty when there are none."""
    if not isinstance(document, Mapping):
        return "", ""
    return str(document.get("code") or ""), str(document.get("message") or "")


def _by_code(code: str, message: str, *, retry_after_s: float | None = None) -> UpstreamError | None:
    """Return what a code means, at a submit and in a failed task; None for one that we do not know."""
    note = f"{cleaned(code)}: {cleaned(message)}"
    if code in _MODERATED:
        return UpstreamModerated(note)
    if code in _DENIED | _SPENT:
        return UpstreamDenied(note, is_spent=code in _SPENT)
    if code in _BUSY:
        return UpstreamBusy(note, retry_after_s=retry_after_s)
    if code in _BAD or code.startswith("BadRequest.Empty"):
        return UpstreamRejected(note, public=refusal(message))
    return None


def not_accepted(answer: Answer) -> UpstreamError:
    """Sort the refusal of a submit. A 5xx says nothing for certain, whatever its code."""
    code, message = error_of(answer.document)
    error = _by_code(code, message, retry_after_s=answer.retry_after_s) if answer.status < 500 else None
    if error is None:
        said = f"{cleaned(code)}: {cleaned(message)}" if code else "no error object"
        error = default_error(answer, "submit", said=said)
    error.http_status = answer.status
    return error


def not_read(answer: Answer) -> UpstreamError:
    """Sort the refusal of a read: never the end of a task, only a reason to ask again."""
    code, message = error_of(answer.document)
    error = _by_code(code, message, retry_after_s=answer.retry_after_s)
    if not isinstance(error, UpstreamBusy | UpstreamDenied):
        error = default_error(answer, "read", said=cleaned(code) or "no error object")
    error.http_status = answer.status
    return error


def failed(output: Mapping[str, Any]) -> UpstreamError:
    """Return what ended the task."""
    code, message = error_of(output)
    error = _by_code(code, message)
    return error if isinstance(error, UpstreamRejected) else UpstreamFailed(f"{cleaned(code)}: {cleaned(message)}")
