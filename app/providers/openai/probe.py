"""Asks the server for its list of models: free, and with the secret."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any

from app.providers.openai.errors import error_of, find_fault
from app.providers.openai.options import base_url, headers_of, read_options
from app.upstreams.http import HASTY, PROBE, Answer, Limits
from app.upstreams.protocols import Call, Probed, UpstreamError, Verdict


async def probe(call: Call, models: Collection[str]) -> Probed:
    """Return what the list tells. Many servers show it to anybody: then their answer says nothing about the secret.

    Raises: UpstreamError.
    """
    options = read_options(call.upstream, "")
    headers = headers_of(call, options)
    answer = await _list(call, headers)
    if not answer.is_ok or find_fault(answer.document) is not None:
        raise error_of(answer, "read", call)
    listed = _ids(answer.document)
    verdict = Verdict.ACCEPTED
    if headers.pop("Authorization", None) is None or (call.upstream.base_url and await _is_open(call, headers)):
        verdict = Verdict.OPEN
    if options.profile == "sd.cpp":  # has one model, under whatever name it is asked
        return Probed(verdict)
    return Probed(verdict, missing=tuple(model for model in models if not _has(listed, model)))


async def _list(call: Call, headers: dict[str, str], limits: Limits = PROBE) -> Answer:
    url = f"{base_url(call.upstream)}/models"
    return await call.http.send("GET", url, phase="read", headers=headers, limits=limits)


async def _is_open(call: Call, headers: dict[str, str]) -> bool:
    """Whether the list is shown without a secret, too."""
    try:
        answer = await _list(call, headers, HASTY)
        _ids(answer.document)
    except UpstreamError:
        return False
    return answer.is_ok and find_fault(answer.document) is None


def _ids(document: Any) -> frozenset[str]:
    """Raises: UpstreamError for what is no list of models."""
    items = document.get("data") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise UpstreamError("a list of models of another form")
    return frozenset(str(item["id"]) for item in items if isinstance(item, dict) and item.get("id"))


def _has(listed: frozenset[str], model: str) -> bool:
    """Whether the list has the model; a proxy's ``vendor/*`` has all of the vendor's."""
    return model in listed or any("*" in one and fnmatchcase(model, one) for one in listed)
