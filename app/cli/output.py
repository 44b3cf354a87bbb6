"""How commands speak: JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Give a command ``--json``, as the argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def emit(value: Any, *, as_json: bool, text: str) -> None:
    """Print ``value`` as JSON, or ``text`` for people. Times become Unix seconds, as in the API."""
    click.echo(json.dumps(value, ensure_ascii=False, default=_plain) if as_json else text)


def table(rows: Sequence[Mapping[str, Any]], *, empty: str) -> str:
    """Return rows with a header; numbers to the right. ``empty`` is said when there are none."""
    if not rows:
        return empty
    names = list(rows[0])
    cells = [[readable(row[name]) for name in names] for row in rows]
    heads = [name.replace("_", " ").upper() for name in names]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(names))]
    right = [
        all(isinstance(row[name], int | None) and not isinstance(row[name], bool) for row in rows) for name in names
    ]

    def line(values: Sequence[str]) -> str:
        padded = (v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join(line(values) for values in [heads, *cells])


def readable(value: Any) -> str:
    """Return one value as people read it: ``-`` for nothing, UTC for times."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%SZ")
        case list() | tuple():
            return ",".join(str(part) for part in value) or "-"
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return int(value.timestamp())
    raise TypeError(f"no JSON form of {type(value).__name__}")
