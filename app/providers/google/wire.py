"""Reads Google's JSON, which spells a key ``inlineData`` or ``inline_data`` and leaves out what is empty."""

from __future__ import annotations

import re
from typing import Any

_CAPITAL = re.compile(r"[A-Z]")


def snake(name: str) -> str:
    return _CAPITAL.sub(lambda match: f"_{match[0].lower()}", name)


def pick(node: Any, name: str) -> Any:
    """Return the value under the camel-case ``name`` or its snake-case form; None when there is none."""
    if not isinstance(node, dict):
        return None
    found = node.get(name)
    return node.get(snake(name)) if found is None else found


def objects(node: Any, name: str) -> list[dict[str, Any]]:
    """Return the objects of the list under ``name``."""
    found = pick(node, name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text(node: Any, name: str) -> str:
    found = pick(node, name)
    return found if isinstance(found, str) else ""


def number(node: Any, name: str) -> int:
    """Return the count under ``name``, which protobuf's JSON may write as a string; 0 when there is none."""
    found = pick(node, name)
    if isinstance(found, str) and found.isascii() and found.isdigit():
        return int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0
