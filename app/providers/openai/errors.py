"""What an error of the OpenAI form means, in every spelling that servers of this kind have for it.

OpenAI's own is ``{"error": {"message", "type", "param", "code"}}``. Seen too: a plain string for ``error``, an integer
or no ``code``, FastAPI's ``detail``, ``message`` at the top, and all of these with status 200.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.log import redact_text
from app.upstreams.http import Answer, Phase, default_error
from app.upstreams.protocols import (
    Call,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamModerated,
    UpstreamRejected,
)
from app.upstreams.wording import refusal

_MODERATION = frozenset(
    {"moderation_blocked", "content_policy_violation", "content_filter", "responsibleaipolicyviolation"}
)
_QUOTA = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "insufficient_user_quota", "budget_exceeded", "quota_exceeded"}
)
_OURS = frozenset(
    {
        "invalid_api_key",
        "authentication_error",
        "permission_error",
        "permission_denied",
        "account_deactivated",
        "model_not_found",
        "no_db_connection",  # a LiteLLM proxy without a database, asked with a wrong master key
        "unsupported_country_region_territory",
    }
)
_BUSY = frozenset({"rate_limit_exceeded", "rate_limit_error", "requests", "tokens"})
_REFUSED = frozenset({"invalid_request_error", "invalid_value", "image_generation_user_error", "bad_request_error"})
_SAFETY = re.compile(r"safety system|content[ _]polic|usage polic|moderation_blocked|flagged as|flagged by", re.I)
_LOCAL = re.compile(r"\blocalhost(?::\d+)?\S*", re.I)
_WRAPPING = re.compile(r"^litellm\.\w+: (?:\w+ - )?|\s*LiteLLM: model group.*$|\.? Received Model Group=.*$", re.S)
_CATEGORY = re.compile(r"[a-z][a-z/_ -]{0,30}", re.I)
_STAGES = {"input": "The prompt or an input was", "output": "The result was"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One error as the upstream told it. ``code`` and ``type`` are lower case, or empty."""

    message: str
    code: str = ""
    type: str = ""
    status: int | None = None
    """A status that the body names."""
    details: Mapping[str, Any] | None = None

    @property
    def is_moderation(self) -> bool:
        return bool(self.code in _MODERATION or self.type in _MODERATION or self.details)


def find_fault(document: Any) -> Fault | None:
    """Return the error in a body, whatever its status was; None when it tells of none."""
    if not isinstance(document, Mapping):
        return None
    error = document.get("error")
    if isinstance(error, Mapping) and error:
        return _fault(error)
    if isinstance(error, str) and error:
        return _fault({"message": error, "code": document.get("code"), "type": document.get("type")})
    if document.get("detail"):
        return Fault(_detail(document["detail"]))
    code = document.get("code")
    if code not in (None, 0, 200, "0", "200", "success", "ok") and not document.get("data"):
        return _fault(document)
    if document.get("object") == "error":
        return _fault(document)
    return None


def error_of(answer: Answer, phase: Phase, call: Call, *, refusals: frozenset[int] = frozenset()) -> UpstreamError:
    """Return what an answer means that is not a success: by its body first, then by its status."""
    fault = find_fault(answer.document) or Fault(_message(answer.document))
    status = answer.status
    if answer.is_ok:
        status = fault.status or 0
    told = f"{fault.code or fault.type} {scrubbed(fault.message or answer.text, call)[:200]}".strip()
    note = f"status {answer.status}: {told}"
    said = _by_words(fault, status, answer, note)
    if said is not None:
        return said
    if not status:  # said so with 200 and gave no number
        return _ended(fault, phase, answer, note, call)
    if status in refusals:
        return UpstreamBusy(note, retry_after_s=answer.retry_after_s, http_status=status)
    error = default_error(replace(answer, status=status), phase, said=told)
    if isinstance(error, UpstreamRejected):
        return UpstreamRejected(note, public=_public(fault, call), http_status=status)
    return error


def task_error(fault: Fault, call: Call) -> UpstreamError:
    """Return what the error of a video that has failed means."""
    note = f"failed {fault.code or fault.type}: {scrubbed(fault.message, call)[:200]}"
    if fault.is_moderation or _SAFETY.search(fault.message):
        return UpstreamModerated(note, public=_moderated(fault))
    if fault.code in _REFUSED or fault.type in _REFUSED:
        return UpstreamRejected(note, public=_public(fault, call))
    return UpstreamFailed(note)


def scrubbed(text: str, call: Call) -> str:
    """Return the upstream's words without our secret, for a log or an error's own text."""
    secret = call.upstream.secret.get_secret_value() if call.upstream.secret is not None else ""
    return redact_text(text.replace(secret, "[removed]") if secret else text)


def _by_words(fault: Fault, status: int, answer: Answer, note: str) -> UpstreamError | None:
    """Return the meaning of a code, or of words, that say more than the status; None when they do not."""
    names = {fault.code, fault.type} - {""}
    http_status = status or answer.status
    if fault.is_moderation or status == 451 or (status in (0, 400, 403, 422) and _SAFETY.search(fault.message)):
        return UpstreamModerated(note, public=_moderated(fault), http_status=http_status)
    if names & (_QUOTA | _OURS) or fault.message.startswith("Invalid model name passed in"):
        return UpstreamDenied(note, is_spent=bool(names & _QUOTA), http_status=http_status)
    return None


def _ended(fault: Fault, phase: Phase, answer: Answer, note: str, call: Call) -> UpstreamError:
    """Return the meaning of an error with status 200 and no number in its body: it ended, and nothing was made."""
    names = {fault.code, fault.type}
    if names & _BUSY:
        return UpstreamBusy(note, retry_after_s=answer.retry_after_s, http_status=answer.status)
    if phase == "read":
        return UpstreamError(note, http_status=answer.status)
    if names & _REFUSED:
        return UpstreamRejected(note, public=_public(fault, call), http_status=answer.status)
    return UpstreamFailed(note, http_status=answer.status)


def _public(fault: Fault, call: Call) -> str | None:
    """Return the upstream's words for the caller, without what gives something away; None: they say nothing."""
    text = _LOCAL.sub("...", scrubbed(_WRAPPING.sub("", fault.message), call))
    return refusal(text.replace(call.model, "this model") if len(call.model) > 3 else text)


def _moderated(fault: Fault) -> str | None:
    """Return the stage and the categories where the upstream names them."""
    details = fault.details or {}
    who = _STAGES.get(str(details.get("moderation_stage")))
    named = details.get("categories")
    words = [str(one) for one in named if _CATEGORY.fullmatch(str(one))][:5] if isinstance(named, list) else []
    if who is None and not words:
        return None
    why = f" ({', '.join(words)})" if words else ""
    return f"{who or 'The request was'} refused by the content policy{why}."


def _fault(error: Mapping[str, Any]) -> Fault:
    code = error.get("code")
    word = "" if code is None or isinstance(code, bool) else str(code).strip().lower()
    number = int(word) if word.isdecimal() and len(word) == 3 else None
    details = error.get("moderation_details")
    return Fault(
        message=_message(error),
        code=word,
        type=str(error.get("type") or "").strip().lower(),
        status=number if number is not None and 400 <= number < 600 else None,
        details=details if isinstance(details, Mapping) and details else None,
    )


def _message(error: Any) -> str:
    if not isinstance(error, Mapping):
        return ""
    for name in ("message", "msg", "fail_reason", "reason", "detail", "error"):
        value = error.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _detail(detail: Any) -> str:
    """Return the text of FastAPI's ``detail``: a string, an object, or the list of a validation."""
    if isinstance(detail, list) and detail and isinstance(detail[0], Mapping):
        first = detail[0]
        where = ".".join(str(part) for part in first.get("loc") or () if part != "body")
        return f"{where}: {first.get('msg', '')}".strip(": ")
    return detail if isinstance(detail, str) else _message(detail)
