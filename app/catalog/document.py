"""YAML read with its line numbers, so that every complaint about it names the line; and plain data with its paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

Location = tuple[str | int, ...]
MAX_DEPTH = 40
MAX_PARTS = 100_000
"""Of one document, aliases counted as often as they are named: a few lines could else hold billions."""


class CatalogError(Exception):
    """A configuration is wrong; the message starts with ``file:line:``, or with the path where there are no lines."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars: ``16:9`` is text (YAML 1.1 reads 969), and so are ``yes``, ``no`` and dates."""


def plain_scalars() -> list[tuple[str, re.Pattern[str], list[str]]]:
    """Return which words without quotes are no text: tag, pattern, first letters."""
    return [
        (f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})$"), list(first))
        for tag, pattern, first in (
            ("bool", r"true|false", "tf"),
            ("int", r"-?[0-9]+", "-0123456789"),
            ("float", r"-?[0-9]+\.[0-9]+", "-0123456789"),
            ("null", r"~|null|", ["~", "n", ""]),
        )
    ]


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in plain_scalars():
    _Loader.add_implicit_resolver(_tag, _pattern, _first)


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data, and the line (from 1) on which each part of it starts."""

    name: str
    data: dict[str, Any]
    lines: dict[Location, int]
    """Line 0: this part was never text, and complaints about it name its path alone."""

    def line(self, location: Iterable[str | int]) -> int:
        """Return the line of the deepest part of ``location`` that exists; words that lead nowhere are skipped."""
        return self.lines.get(self._deepest(location), 1)

    def error(self, location: Iterable[str | int], message: str) -> CatalogError:
        found = self._deepest(location)
        line = self.lines.get(found, 1)
        return CatalogError(f"{f'{self.name}:{line}' if line else _dotted(found) or self.name}: {message}")

    def invalid(self, error: ValidationError) -> CatalogError:
        """Return one error of ours for everything pydantic found, one line each, in the order of the file."""
        return self.below_errors((), error)

    def below_errors(self, place: Location, error: ValidationError) -> CatalogError:
        """Return the same for an error about the part at ``place``."""
        places = [((*place, *e["loc"]), e) for e in error.errors()]
        found = sorted(
            (self.line(at), self._path(at, is_absent=e["type"] == "missing"), _readable(e)) for at, e in places
        )
        return CatalogError(
            "\n".join(f"{f'{self.name}:{line}: ' if line else ''}{path}: {message}" for line, path, message in found)
        )

    def below(self, *place: str) -> Document:
        """Return the document as the part ``place`` of a larger one."""
        data: dict[str, Any] = self.data
        for part in reversed(place):
            data = {part: data}
        above = {place[:depth]: self.lines.get((), 1) for depth in range(len(place))}
        return Document(self.name, data, above | {(*place, *location): line for location, line in self.lines.items()})

    def _deepest(self, location: Iterable[str | int]) -> Location:
        found: Location = ()
        for part in location:
            if (*found, part) in self.lines:
                found = (*found, part)
        return found

    def _path(self, location: Sequence[str | int], *, is_absent: bool) -> str:
        """Name the place without the tags that pydantic puts in for unions."""
        found: Location = ()
        for index, part in enumerate(location):
            if (*found, part) in self.lines or (is_absent and index == len(location) - 1):
                found = (*found, part)
        return _dotted(found)

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
                if not isinstance(base, str) or base not in known:
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
                    self._copy_lines(source, value, origin, place)
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
        self._copy_lines(source, value, origin, place)

    def _copy_lines(self, source: Document, value: Any, origin: Location, place: Location) -> None:
        if origin in source.lines:  # a family of another file has none here
            self.lines[place] = source.lines[origin]
        for key, part in _parts(value):
            self._copy_lines(source, part, (*origin, key), (*place, key))


def read_document(path: Path) -> Document:
    """Read one YAML file whose top is a mapping. Raises: CatalogError, also for a key that occurs twice."""
    try:
        return parse_document(path.read_text(encoding="utf-8"), path.name)
    except FileNotFoundError:
        raise CatalogError(f"{path.name}:1: this file does not exist in {path.parent}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CatalogError(f"{path.name}:{line}: this file is not UTF-8") from None


def parse_document(text: str, name: str) -> Document:
    """Read YAML whose top is a mapping. Raises: CatalogError, also for a key that occurs twice."""
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # a character that YAML does not have
        raise CatalogError(f"{name}:1: {getattr(error, 'reason', error)}") from None
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise CatalogError(f"{name}:1: expected a mapping at the top of the file")
        lines: dict[Location, int] = {(): 1}
        data = _build(loader, root, (), lines, name)
    except RecursionError:
        raise CatalogError(f"{name}:1: this is nested too deeply, or an anchor holds itself") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise CatalogError(f"{name}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise CatalogError(f"{name}:1: {error}") from None
    finally:
        loader.dispose()
    return Document(name, data, lines)


def plain_document(data: Mapping[str, Any], name: str) -> Document:
    """Return data that was never text, such as a part of a JSON body. Raises: CatalogError for too much of it."""
    lines: dict[Location, int] = {(): 0}
    try:
        _walk(data, (), lines, name)
    except RecursionError:
        raise CatalogError(f"{name}: this is nested too deeply") from None
    return Document(name, dict(data), lines)


def _walk(value: Any, place: Location, lines: dict[Location, int], name: str) -> None:
    _check_depth(place, name)
    for key, part in _parts(value):
        _count(lines, f"{name}")
        lines[(*place, key)] = 0
        _walk(part, (*place, key), lines, name)


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()


def _check_depth(place: Location, where: str) -> None:
    if len(place) > MAX_DEPTH:
        raise CatalogError(f"{where}: this is nested too deeply")


def _count(lines: dict[Location, int], where: str) -> None:
    if len(lines) > MAX_PARTS:
        raise CatalogError(f"{where}: more than {MAX_PARTS} parts")


def _build(loader: _Loader, node: yaml.Node, place: Location, lines: dict[Location, int], name: str) -> Any:
    _check_depth(place, f"{name}:{node.start_mark.line + 1}")
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
            _count(lines, f"{name}:{line}")
            lines[(*place, key)] = line
            result[key] = _build(loader, value_node, (*place, key), lines, name)
        return result
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            _count(lines, f"{name}:{item.start_mark.line + 1}")
            lines[(*place, index)] = item.start_mark.line + 1
            items.append(_build(loader, item, (*place, index), lines, name))
        return items
    try:
        return loader.construct_object(node)
    except ValueError:  # more digits than a number may have
        raise CatalogError(f"{name}:{node.start_mark.line + 1}: this number is too long") from None


def _dotted(location: Location) -> str:
    return ".".join(str(part) for part in location)


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _readable(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "missing"
    return error["msg"].removeprefix("Value error, ")
