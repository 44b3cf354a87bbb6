"""Sorts Google's refusals by what we may do next, and cleans its words for the caller."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from app.providers.google.wire import number, objects, pick, text
from app.upstreams import wording
from app.upstreams.http import Answer, Phase, default_error
from app.upstreams.protocols import (
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamModerated,
    UpstreamRejected,
)

_GOOGLES = re.compile(
    r"""
    \b(?:projects?|publishers|models|operations|files|locations)[/:]\S+  # resource names
    | \b(?:AIza|ya29\.)\S+                                              # keys and tokens
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SUPPORT_CODES = re.compile(r"\s*\bsupport codes?:?[\s\d,]+", re.IGNORECASE)
_SAFETY = re.compile(r"\bsafety\b|\busage guidelines?\b|\bprohibited use\b|\bresponsible ai\b", re.IGNORECASE)
_LASTING_QUOTA = re.compile(r"per[-_ ]?day|free[-_ ]?tier", re.IGNORECASE)
_SECONDS = re.compile(r"([0-9]+(?:\.[0-9]*)?)s")
_BY_NAME = {
    "INVALID_ARGUMENT": 3,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "OUT_OF_RANGE": 11,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}


def cleaned(words: str, secret: str = "") -> str:
    """Return the upstream's words without addresses, keys, hosts and resource names; short, maybe empty."""
    if secret:
        words = words.replace(secret, "...")
    return wording.cleaned(_GOOGLES.sub("...", _SUPPORT_CODES.sub("", words)))


def with_words(sentence: str, words: str) -> str:
    """Return ``sentence`` with the upstream's cleaned words behind it, if there are any."""
    return f"{sentence.rstrip('.')}: {words}" if words else sentence


@dataclass(frozen=True, slots=True)
class Said:
    """What an error body tells: ``{"error": {code, message, status, details}}``, maybe in a list."""

    message: str
    """Cleaned."""
    status: str
    reasons: frozenset[str]
    """Of google.rpc.ErrorInfo."""
    retry_after_s: float | None
    """Of google.rpc.RetryInfo."""
    is_lasting: bool
    """A quota of the day or of the free tier is used up: waiting seconds does not help."""
    speaks_of_safety: bool

    @classmethod
    def of(cls, document: Any, secret: str) -> Said:
        if isinstance(document, list) and document:
            document = document[0]
        error = pick(document, "error")
        raw = error if isinstance(error, str) else text(error, "message")
        details = objects(error, "details")
        violations = [one for detail in details for one in objects(detail, "violations")]
        return cls(
            message=cleaned(raw, secret),
            status=cleaned(text(error, "status"), secret),
            reasons=frozenset(filter(None, (text(detail, "reason") for detail in details))),
            retry_after_s=next(
                (s for detail in details if (s := _seconds(pick(detail, "retryDelay"))) is not None), None
            ),
            is_lasting=any(_LASTING_QUOTA.search(text(one, "quotaId")) for one in violations),
            speaks_of_safety=_SAFETY.search(raw) is not None,
        )


def http_error(answer: Answer, phase: Phase, *, video: bool, secret: str) -> UpstreamError:
    """Return what an answer that is not 2xx means."""
    said, status = Said.of(answer.document, secret), answer.status
    words = " ".join(filter(None, (said.status, *sorted(said.reasons), said.message)))
    note = f"status {status}: {cleaned(words, secret) or 'no error body'}"
    if status == 429:
        if said.is_lasting and "MODEL_CAPACITY_EXHAUSTED" not in said.reasons:
            return UpstreamDenied(note, is_spent=True, http_status=status)
        wait_s = answer.retry_after_s if said.retry_after_s is None else said.retry_after_s
        return UpstreamBusy(note, retry_after_s=wait_s, http_status=status)
    if phase == "read" and status in (404, 410):
        return UpstreamFailed(note, public="The upstream no longer knows this job.", http_status=status)
    if phase == "submit" and status == 400:
        return _bad_request(said, note, video=video)
    return default_error(answer, phase, said=note)


def _bad_request(said: Said, note: str, *, video: bool) -> UpstreamError:
    if said.reasons & {"API_KEY_INVALID", "API_KEY_EXPIRED"} or said.message.startswith("API key not valid"):
        return UpstreamDenied(note, http_status=400)
    if video and said.speaks_of_safety:
        return UpstreamModerated(note, public=with_words(UpstreamModerated.public, said.message), http_status=400)
    if said.status == "FAILED_PRECONDITION" and not video:
        return UpstreamDenied(note, http_status=400)  # billing is off, or the region is not served
    return UpstreamRejected(note, public=with_words(UpstreamRejected.public, said.message), http_status=400)


def operation_error(error: Any, secret: str) -> UpstreamError:
    """Return what the ``error`` of an operation that is done means; ``code`` is gRPC's number. Nothing was made."""
    raw = text(error, "message")
    words = cleaned(raw, secret)
    code = number(error, "code") or _BY_NAME.get(text(error, "code") or text(error, "status"), 0)
    note = f"operation error {code}: {words}"
    if code in (3, 9, 11):
        if _SAFETY.search(raw):
            return UpstreamModerated(note, public=with_words(UpstreamModerated.public, words))
        return UpstreamRejected(note, public=with_words(UpstreamRejected.public, words))
    if code in (7, 16):
        return UpstreamFailed(note, public=UpstreamDenied.public)
    if code == 8:
        return UpstreamFailed(note, public=UpstreamBusy.public)
    return UpstreamFailed(note)


def _seconds(delay: Any) -> float | None:
    """Read a protobuf duration: ``34s``, ``34.07s``, or ``{"seconds": 34}``."""
    if isinstance(delay, dict):
        return float(number(delay, "seconds"))
    match = _SECONDS.fullmatch(delay) if isinstance(delay, str) else None
    return float(match[1]) if match else None
