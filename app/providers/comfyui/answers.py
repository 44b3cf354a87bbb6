"""Reads ComfyUI's answers: refusals of a graph, the queue, the history of a job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from app.upstreams.http import Answer, default_error
from app.upstreams.protocols import (
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)
from app.upstreams.wording import cleaned, refusal

STILLS: Final = frozenset({".png", ".jpg", ".jpeg", ".webp"})
FILMS: Final = frozenset({".mp4", ".webm", ".mov", ".mkv", ".m4v"})
_NO_MEMORY = re.compile(r"out of memory|OutOfMemory|not enough memory|failed to allocate|alloc_failed", re.IGNORECASE)
_OURS: Final = frozenset({"value_not_in_list", "missing_node_type", "invalid_prompt", "prompt_no_outputs"})
"""Errors of a graph that only the operator can mend: a model file or a node that this ComfyUI does not have."""
NO_MEMORY = "The upstream ran out of memory."


def accepted(answer: Answer) -> str:
    """Return the id of the job. Raises: UpstreamError; UpstreamOutcomeUnknown for a 2xx without one."""
    document = answer.document if isinstance(answer.document, dict) else {}
    if not answer.is_ok:
        raise _not_accepted(answer, document)
    found = document.get("prompt_id")
    if not isinstance(found, str) or not 0 < len(found) <= 200:
        raise UpstreamOutcomeUnknown("accepted, without an id", http_status=answer.status)
    return found


def _not_accepted(answer: Answer, document: Mapping[str, Any]) -> UpstreamError:
    error = document.get("error")
    kind, message = "", error if isinstance(error, str) else ""
    if isinstance(error, dict):
        kind, message = str(error.get("type") or ""), str(error.get("message") or "")
    kinds = {kind, *(one[0] for one in _node_errors(document))}
    words = next((one[1] for one in _node_errors(document) if one[1]), "") or message
    note = f"status {answer.status}: {' '.join(sorted(map(cleaned, kinds)))} {cleaned(words)}"
    if answer.status == 400 and kinds & _OURS:
        return UpstreamDenied(note, http_status=400)
    if answer.status in (400, 413, 422):
        return UpstreamRejected(note, public=refusal(words), http_status=answer.status)
    return default_error(answer, "submit", said=note)


def _node_errors(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    nodes = document.get("node_errors")
    for node in nodes.values() if isinstance(nodes, dict) else ():
        for error in (node.get("errors") if isinstance(node, dict) else None) or ():
            if isinstance(error, dict):
                yield str(error.get("type") or ""), str(error.get("message") or "")


def readable(answer: Answer) -> Mapping[str, Any]:
    """Return the document of something that was only read. Raises: UpstreamError."""
    if not answer.is_ok:
        raise default_error(answer, "read", said=cleaned(answer.text) or "no words")
    if not isinstance(answer.document, dict):
        raise UpstreamError(f"status {answer.status} without a document")
    return answer.document


def place_in_queue(queue: Mapping[str, Any], job_id: str) -> str | None:
    """Return ``running`` or ``pending``; None when the queue does not hold the job. Raises: UpstreamError."""
    for key, word in (("queue_running", "running"), ("queue_pending", "pending")):
        items = queue.get(key)
        if not isinstance(items, list):
            raise UpstreamError("a queue without its lists")
        if any(isinstance(item, list) and len(item) > 1 and item[1] == job_id for item in items):
            return word
    return None


def ended(record: Mapping[str, Any], kinds: frozenset[str], only: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the files of these kinds that a job in the history made, finished ones before temporary ones.

    Raises: UpstreamFailed, UpstreamBusy when the GPU's memory did not suffice.
    """
    status = record.get("status")
    if isinstance(status, dict) and status.get("status_str") == "error":
        raise _failure(status)
    outputs = record.get("outputs")
    found = list(_files(outputs, only)) if isinstance(outputs, dict) else []
    fitting = [file for file in found if PurePosixPath(file["filename"]).suffix.lower() in kinds]
    return sorted(fitting, key=lambda file: file["type"] != "output")


def _files(outputs: Mapping[str, Any], only: tuple[str, ...]) -> Iterator[dict[str, str]]:
    for node, output in outputs.items():
        if (only and node not in only) or not isinstance(output, dict):
            continue
        for items in output.values():
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and isinstance(item.get("filename"), str):
                    place = {key: item.get(key) for key in ("subfolder", "type")}
                    folder, kind = place["subfolder"] or "", place["type"] or "output"
                    yield {"filename": item["filename"], "subfolder": str(folder), "type": str(kind)}


def _failure(status: Mapping[str, Any]) -> UpstreamError:
    messages = status.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if not (isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict)):
            continue
        event, data = message
        if event == "execution_interrupted":
            return UpstreamFailed("the job was interrupted")
        if event == "execution_error":
            words = f"{data.get('exception_type') or ''}: {data.get('exception_message') or ''}"
            if _NO_MEMORY.search(words):
                return UpstreamBusy(NO_MEMORY)
            return UpstreamFailed(f"{cleaned(str(data.get('node_type')))} failed: {cleaned(words)}")
    return UpstreamFailed("the job failed")
