"""Reads APIMart's answers: both envelopes of a submit, task records, and the errors, also those with status 200."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from app.upstreams.http import Answer, Phase, default_error
from app.upstreams.protocols import (
    Cost,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)
from app.upstreams.wording import cleaned, refusal

WAITING: Final = frozenset({"submitted", "pending", "queued", "waiting", "created", "not_start"})
RUNNING: Final = frozenset({"processing", "in_progress", "running", "generating"})
DONE: Final = frozenset({"completed", "complete", "success", "succeeded", "succeed", "finished", "done"})
FAILED: Final = frozenset({"failed", "fail", "failure", "error"})
GONE: Final = frozenset({"cancelled", "canceled", "expired", "timeout"})

_SAFETY = re.compile(
    r"moderat|sensitive|safety|content.?policy|policy.?violation|prohibited|nsfw|usage guidelines|risk control"
    r"|敏感|违规|审核",
    re.IGNORECASE,
)
_MODEL_GONE = re.compile(r"\bmodel\b.*\b(?:not (?:found|exist|available|support)|no longer|retired|deprecated|offline)")
_KEY_REUSED = re.compile(r"idempot", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submit that was taken: its task, or (from a synchronous model) its result."""

    id: str | None
    record: Mapping[str, Any]


def accepted(answer: Answer, *, is_remix: bool = False) -> Accepted:
    """Return what a submit led to. Raises: UpstreamError; UpstreamOutcomeUnknown for a 2xx that says nothing."""
    document = checked(answer, "submit", is_remix=is_remix)
    data = document.get("data", document)
    if isinstance(data, list):
        data = data[0] if data else None
    if not isinstance(data, dict):
        raise UpstreamOutcomeUnknown("accepted, without data", http_status=answer.status)
    found = next((data[key] for key in ("task_id", "id") if isinstance(data.get(key), str) and data[key]), None)
    if (found is None and not is_result(data)) or len(found or "") > 200:
        raise UpstreamOutcomeUnknown("accepted, without an id", http_status=answer.status)
    return Accepted(found, data)


def is_result(data: Mapping[str, Any]) -> bool:
    """Whether a submit's data are the result itself."""
    return data.get("object") == "generation.result" or status_of(data) in DONE


def record_of(answer: Answer) -> Mapping[str, Any]:
    """Return a task's record. Raises: UpstreamFailed when it is gone, UpstreamError."""
    document = checked(answer, "read")
    data = document.get("data", document)
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, dict) or not status_of(data):
        raise UpstreamError("a record without a status")
    return data


def status_of(data: Mapping[str, Any]) -> str:
    """The status word in lower case; empty when there is none."""
    word = data.get("status")
    return word.strip().lower() if isinstance(word, str) else ""


def percent_of(record: Mapping[str, Any]) -> int | None:
    """``progress`` as 0..99: a number, or text such as ``30%``."""
    value = record.get("progress")
    if isinstance(value, str):
        value = value.strip().removesuffix("%")
    try:
        return None if value is None or isinstance(value, bool) else min(max(int(float(value)), 0), 99)
    except (TypeError, ValueError, OverflowError):
        return None


def urls_of(record: Mapping[str, Any], kind: str) -> list[str]:
    """Return the URLs under ``result.<kind>``: each ``url`` is text or a list of texts."""
    return list(_urls(_result(record).get(kind)))


def url_of(record: Mapping[str, Any], key: str) -> str | None:
    """Return the URL under ``result.<key>``."""
    return next(_urls(_result(record).get(key)), None)


def expires_at(record: Mapping[str, Any], kind: str) -> float | None:
    """Unix seconds after which the first URL is void; it stands beside the URL, or further out."""
    result = _result(record)
    items = result.get(kind)
    first = items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}
    for place in (first, result, record):
        value = place.get("expires_at")
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return float(value)
    return None


def _result(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A synchronous answer has no ``result``: it is one."""
    found = record.get("result")
    return found if isinstance(found, dict) else record


def _urls(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.startswith(("http://", "https://")):
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from _urls(item)
    elif isinstance(value, dict):
        yield from _urls(value.get("url"))


def cost_of(record: Mapping[str, Any], prices: Any) -> Cost | None:
    """``cost`` is in US dollars. ``credits_cost`` counts only with a price for one: ``prices: {credit: 0.01}``."""
    credit = _amount(prices.get("credit")) if isinstance(prices, Mapping) else None
    for key, price in (("cost", 1.0), ("credits_cost", credit)):
        value = _amount(record.get(key))
        if value is not None and price is not None:
            return Cost(round(value * price * 1_000_000))
    return None


def _amount(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e6 else None


def balance_of(document: Mapping[str, Any]) -> float | None:
    """Return the US dollars left to the account, where the answer tells. A key without a limit of its own tells -1."""
    data = document.get("data")
    for place in (document, data if isinstance(data, dict) else {}):
        for name in ("remain_balance", "balance"):
            if (value := _amount(place.get(name))) is not None:
                return value
    return None


def models_of(document: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids of a list of models. Raises: UpstreamError for something else."""
    items = document.get("data")
    if not isinstance(items, list):
        raise UpstreamError("a list of models of another form")
    return frozenset(str(item["id"]) for item in items if isinstance(item, dict) and item.get("id"))


def failure_of(record: Mapping[str, Any], prices: Any) -> UpstreamError:
    """Return why a task failed."""
    error = record.get("error")
    error = error if isinstance(error, dict) else {"message": error if isinstance(error, str) else ""}
    message, kind = str(error.get("message") or ""), str(error.get("type") or "")
    note, cost = f"task failed: {cleaned(kind)} {cleaned(message)}".strip(), cost_of(record, prices)
    if _SAFETY.search(f"{kind} {message}"):
        return UpstreamModerated(note, cost=cost)
    if _number(error.get("code")) in (400, 413, 422) or kind == "invalid_request_error":
        return UpstreamRejected(note, public=refusal(message), cost=cost)
    return UpstreamFailed(note, cost=cost)


def checked(answer: Answer, phase: Phase, *, is_remix: bool = False) -> dict[str, Any]:
    """Return the document of an answer that is a success by status and by body. Raises: UpstreamError."""
    document = answer.document if isinstance(answer.document, dict) else {}
    if answer.is_ok:
        code = document.get("code")
        number = _number(code)
        has_error = isinstance(document.get("error"), dict) and "data" not in document and not status_of(document)
        if number in (None, 0, 200, 201, 202) and document.get("success") is not False and not has_error:
            if not document:
                raise _nothing(answer, phase)
            return document
        said = _number(document["error"].get("code")) if has_error else number
        answer = replace(answer, status=said if said and 400 <= said < 600 else 500)  # 500: nobody knows
    raise _error(answer, document, phase, is_remix=is_remix)


def _nothing(answer: Answer, phase: Phase) -> UpstreamError:
    what = f"status {answer.status} without a document"
    return UpstreamOutcomeUnknown(what) if phase == "submit" else UpstreamError(what)


def _error(answer: Answer, document: Mapping[str, Any], phase: Phase, *, is_remix: bool) -> UpstreamError:
    error = document.get("error")
    error = error if isinstance(error, dict) else {"message": error} if isinstance(error, str) else document
    message, kind, status = str(error.get("message") or ""), str(error.get("type") or ""), answer.status
    note = f"status {status}: {cleaned(kind)} {cleaned(message)}".strip()
    if phase == "read":
        if status == 404 and kind:
            return UpstreamFailed("the task's record is gone", http_status=404)
        return default_error(answer, phase, said=note)
    if status in (400, 409, 422) and _KEY_REUSED.search(f"{kind} {message}"):
        # The token went out before, with another body: what became of that one is not told.
        return UpstreamOutcomeUnknown(note, http_status=status)
    if status == 451 or (status in (400, 403, 422) and _SAFETY.search(f"{kind} {message}")):
        return UpstreamModerated(note, http_status=status)
    if status in (401, 402, 403):
        return UpstreamDenied(note, is_spent=status == 402, http_status=status)
    if status == 429:
        return UpstreamBusy(note, retry_after_s=answer.retry_after_s, http_status=status)
    if status == 404 and is_remix:
        public = "The original of this remix is no longer known to the upstream."
        return UpstreamRejected(note, public=public, http_status=status)
    if status in (400, 404, 422) and _MODEL_GONE.search(message.lower()):
        return UpstreamDenied(note, http_status=status)
    if status in (400, 413, 422) or (status == 404 and kind):
        return UpstreamRejected(note, public=refusal(message), http_status=status)
    return default_error(answer, phase, said=note)


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 9 else None
