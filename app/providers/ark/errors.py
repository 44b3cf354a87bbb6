"""Sorts Ark's error codes. The code, not the status, separates speed, balance and load."""

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

_DENIED: Final = ("AuthenticationError", "AccessDenied", "ModelNotOpen", "InvalidEndpoint")
_NO_MONEY: Final = ("AccountOverdueError", "QuotaExceeded", "SetLimitExceeded")
_LOADED: Final = ("ServerOverloaded", "ModelLoadingError")
_BAD: Final = ("MissingParameter", "InvalidParameter", "InvalidImageURL")
_MODERATED: Final = (("Text", "the prompt"), ("Image", "an image"), ("Video", "a video"), ("Audio", "a sound"))


def error_of(document: Any) -> tuple[str, str]:
    """Return code and message of ``{"error": {...}}``, empty when there are none."""
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return "", ""
    return str(error.get("code") or ""), str(error.get("message") or "")


def _by_code(code: str, message: str, *, retry_after_s: float | None = None) -> UpstreamError | None:
    """Return what a code means, at a submit and in a failed task; None for one that we do not know."""
    note = f"{cleaned(code)}: {cleaned(message)}"
    if "SensitiveContent" in code or "RiskDetection" in code:
        return UpstreamModerated(note, public=_moderated(code))
    if "RateLimitExceeded" in code or code.startswith(_LOADED):
        return UpstreamBusy(note, retry_after_s=retry_after_s)
    if code.startswith((*_NO_MONEY, *_DENIED)):
        return UpstreamDenied(note, is_spent=code.startswith(_NO_MONEY))
    if code.startswith(_BAD):
        return UpstreamRejected(note, public=refusal(message))
    return None


def _moderated(code: str) -> str:
    what = next((words for word, words in _MODERATED if word in code.split(".", 1)[0]), None)
    if "PrivacyInformation" in code:
        return f"The request was refused by the content policy: {what or 'an input'} may show a real person."
    if what is None:
        return UpstreamModerated.public
    made = " that was made" if code.startswith("Output") else ""
    return f"The request was refused by the content policy, because of {what}{made}."


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


def failed(record: Mapping[str, Any]) -> UpstreamError:
    code, message = error_of(record)
    error = _by_code(code, message)
    return error if isinstance(error, UpstreamRejected) else UpstreamFailed(f"{cleaned(code)}: {cleaned(message)}")
