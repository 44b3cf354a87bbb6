"""Names and texts of a multipart form, turned back into the fields that the client's SDK flattened.

The rules are those of the SDKs: ``k[]`` is a list, ``k[a]`` an object, everything scalar is text, absent is empty.
"""

from __future__ import annotations

import re
from typing import Any

from app.api.media_fields import MEDIA_FIELDS
from app.errors import InvalidParameter

BOOLEANS = frozenset({"stream", "async", "generate_audio", "watermark", "enable_gif", "official_fallback", "raw"})
INTEGERS = frozenset({"n", "partial_images", "output_compression", "duration", "seed", "max_credits"})
MAX_NESTING = 4

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def root_name(name: str) -> str:
    """Return the field that a form name belongs to: ``image`` of ``image[]``."""
    return name.split("[", 1)[0]


def coerce(name: str, text: str) -> bool | int | str:
    """Return what a form's text means in a field of this name; a text that does not parse stays, to be named later."""
    if name in BOOLEANS and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if name in INTEGERS and _INTEGER.fullmatch(text):
        return int(text)
    return text


class FormFields:
    """Collects name and value pairs in the order of arrival."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}

    def add(self, name: str, value: Any) -> None:
        """Take one part. Empty text means absent. Raises: InvalidParameter for a name that contradicts another."""
        if value == "":
            return
        match = _NAME.fullmatch(name)
        if match is None:
            root, tokens = name, []
        else:
            root, tokens = match[1], re.findall(r"\[([^\[\]]*)\]", match[2])
        if len(tokens) > MAX_NESTING:
            raise InvalidParameter(f"The field '{root}' is nested too deep.", param=root)
        if not tokens:
            self._add_bare(root, coerce(root, value) if isinstance(value, str) else value)
            return
        if root in MEDIA_FIELDS and root in self.fields and _is_index(tokens[0]):
            self.fields[root] = _as_list(self.fields[root])  # image and image[] in one form
        if root not in self.fields:
            self.fields[root] = [] if _is_index(tokens[0]) else {}
        self._add_nested(root, self.fields[root], tokens, value)

    def _add_bare(self, root: str, value: Any) -> None:
        if root not in self.fields:
            self.fields[root] = value
        elif root in MEDIA_FIELDS and not isinstance(self.fields[root], dict):
            self.fields[root] = [*_as_list(self.fields[root]), value]
        else:
            raise _given_twice(root)

    def _add_nested(self, root: str, node: Any, tokens: list[str], value: Any) -> None:
        token, rest = tokens[0], tokens[1:]
        if isinstance(node, list) and _is_index(token):
            if not rest:
                node.append(value)
                return
            child = self._item(node, token, rest)
        elif isinstance(node, dict) and token:
            if not rest:
                if token in node:
                    raise _given_twice(root)
                node[token] = value
                return
            child = node.setdefault(token, [] if _is_index(rest[0]) else {})
        else:
            raise _given_twice(root)
        self._add_nested(root, child, rest, value)

    @staticmethod
    def _item(node: list[Any], token: str, rest: list[str]) -> Any:
        """Return the list item that a longer name goes on into, adding it when it is new."""
        if token and int(token) < len(node):
            return node[int(token)]
        last = node[-1] if node else None
        if not token and isinstance(last, dict) and rest[0] not in last:
            return last
        node.append([] if _is_index(rest[0]) else {})
        return node[-1]


def _is_index(token: str) -> bool:
    return not token or (token.isascii() and token.isdigit() and len(token) <= 4)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _given_twice(root: str) -> InvalidParameter:
    return InvalidParameter(f"The field '{root}' is given twice.", param=root)
