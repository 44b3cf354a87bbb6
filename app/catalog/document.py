"""YAML files read with their line numbers, so that every complaint about them can name the line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

Location = tuple[str | int, ...]


class CatalogError(Exception):
    """A configuration file is wrong; the message starts with ``file:line:``."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars: ``16:9`` is text (YAML 1.1 reads 969), and so are ``yes``, ``no`` and dates."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"-?[0-9]+", "-0123456789"),
    ("float", r"-?[0-9]+\.[0-9]+", "-0123456789"),
    ("null", r"~|null|", ["~", "n", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), list(_first))


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data, and the line (from 1) on which each part of it starts."""

    name: str
    data: dict[str, Any]
    lines: dict[Location, int]

    def line(self, location: Iterable[str | int]) -> int:
        """Return the line of the deepest part of ``location`` that exists; words that lead nowhere are skipped."""
        found: Location = ()
        for part in location:
            if (*found, part) in self.lines:
                found = (*found, part)
        return self.lines.get(found, 1)

    def error(self, location: Iterable[str | int], message: str) -> CatalogError:
        return CatalogError(f"{self.name}:{self.line(location)}: {message}")

    def invalid(self, error: ValidationError) -> CatalogError:
        """Return one error of ours for everything pydantic found, one line each, in the order of the file."""
        found = sorted((self.line(e["loc"]), self._path(e["loc"]), _readable(e)) for e in error.errors())
        return CatalogError("\n".join(f"{self.name}:{line}: {path}: {message}" for line, path, message in found))

    def _path(self, location: Sequence[str | int]) -> str:
        """Name the place without the tags that pydantic puts in for unions."""
        found: Location = ()
        for index, part in enumerate(location):
            if (*found, part) in self.lines or index == len(location) - 1:
                found = (*found, part)
        return ".".join(str(part) for part in found)

    def inherited(self, section: str, bases: str, *, key: str, merged: frozenset[str]) -> Document:
        """Return the document with each entry of ``section`` completed from the entry of ``bases`` its ``key`` names.

        Entries of the mappings in ``merged`` are completed one by one, and an explicit null there removes one;
        everything else is taken whole. Raises: CatalogError for an unknown or a circular base.
        """
        result = Document(self.name, deepcopy(self.data), dict(self.lines))
        for entry in list(_mapping(result.data.get(section))):
            value = result.data[section][entry]
            chain = [(section, entry)]
            while isinstance(value, dict) and key in value:
                base = value[key]
                known = _mapping(self.data.get(bases))
                place = (*chain[-1], key)
                if base not in known:
                    raise self.error(place, f"unknown {key} '{base}'; known: {', '.join(map(str, known)) or 'none'}")
                if (bases, base) in chain:
                    raise self.error(place, f"{key} '{base}' inherits from itself")
                chain.append((bases, base))
                value = known[base]
            result._assemble(self, chain, key, merged)
        return result

    def _assemble(self, source: Document, chain: list[tuple[str, Any]], key: str, merged: frozenset[str]) -> None:
        section, entry = chain[0]
        if not isinstance(source.data[section][entry], dict):
            return
        whole: dict[str, Any] = {}
        for where in reversed(chain):
            for name, value in _mapping(source.data[where[0]][where[1]]).items():
                origin, place = (*where, name), (section, entry, name)
                if name == key:
                    continue
                if name not in merged or not isinstance(value, dict):
                    whole[name] = deepcopy(value)
                    self._copy_lines(source, origin, place)
                    continue
                self.lines[place] = source.line(origin)
                whole[name] = dict(_mapping(whole.get(name)))
                for inner, inner_value in value.items():
                    self._put(source, whole[name], inner, inner_value, (*origin, inner), (*place, inner))
        self.data[section][entry] = whole

    def _put(
        self, source: Document, into: dict[str, Any], name: Any, value: Any, origin: Location, place: Location
    ) -> None:
        old = into.get(name)
        if value is None:
            into.pop(name, None)
            return
        into[name] = (
            {**old, **deepcopy(value)} if isinstance(old, dict) and isinstance(value, dict) else deepcopy(value)
        )
        self._copy_lines(source, origin, place)

    def _copy_lines(self, source: Document, origin: Location, place: Location) -> None:
        depth = len(origin)
        for location, line in source.lines.items():
            if location[:depth] == origin:
                self.lines[(*place, *location[depth:])] = line


def read_document(path: Path) -> Document:
    """Read one YAML file whose top is a mapping. Raises: CatalogError, also for a key that occurs twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CatalogError(f"{path.name}:1: this file does not exist in {path.parent}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CatalogError(f"{path.name}:{line}: this file is not UTF-8") from None
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise CatalogError(f"{path.name}:1: expected a mapping at the top of the file")
        lines: dict[Location, int] = {(): 1}
        data = _build(loader, root, (), lines, path.name)
    except RecursionError:
        raise CatalogError(f"{path.name}:1: this file is nested too deeply, or an anchor holds itself") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise CatalogError(f"{path.name}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise CatalogError(f"{path.name}:1: {error}") from None
    finally:
        loader.dispose()
    return Document(path.name, data, lines)


def _build(loader: _Loader, node: yaml.Node, place: Location, lines: dict[Location, int], name: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise CatalogError(f"{name}:{line}: a key must be plain text")
            key = key_node.value
            if key in result:
                raise CatalogError(
                    f"{name}:{line}: the key '{key}' occurs twice (first on line {lines[(*place, key)]})"
                )
            lines[(*place, key)] = line
            result[key] = _build(loader, value_node, (*place, key), lines, name)
        return result
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*place, index)] = item.start_mark.line + 1
            items.append(_build(loader, item, (*place, index), lines, name))
        return items
    return loader.construct_object(node)


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _readable(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "missing"
    return error["msg"].removeprefix("Value error, ")
