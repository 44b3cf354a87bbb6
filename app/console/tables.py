"""What every list has: filters in the address, pages by keyset, and the same rows as CSV."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response

from app.api.v1.answers import csv_answer
from app.console.shell import with_query
from app.spreadsheets import csv_text

Row = TypeVar("Row")

PAGE_ROWS = 50
CSV_ROWS = 10_000
"""More is for the API, which pages."""


@dataclass(frozen=True, slots=True)
class Paging:
    """Where a list's other pages are. Templates draw it with the macro ``pager``."""

    older: str | None
    newest: str | None
    csv: str

    @classmethod
    def of(cls, request: Request, *, has_more: bool, last: object | None) -> Paging:
        """``last`` is the cursor of the last row shown, which the next page's ``after`` names."""
        return cls(
            older=with_query(request, after=last) if has_more and last is not None else None,
            newest=with_query(request, after=None) if "after" in request.query_params else None,
            csv=with_query(request, after=None, format="csv"),
        )


def wants_csv(request: Request) -> bool:
    return request.query_params.get("format") == "csv"


def query(request: Request, name: str, allowed: Iterable[str] | None = None, *, most: int = 200) -> str | None:
    """Return a filter from the address, or None: what is empty, too long or not allowed filters nothing."""
    value = request.query_params.get(name, "").strip()
    if not value or len(value) > most or "\x00" in value:
        return None
    return value if allowed is None or value in allowed else None


def is_filtered(request: Request) -> bool:
    """Whether an empty list is one of many rows that do not match."""
    return any(value for name, value in request.query_params.items() if name not in ("after", "format", "done"))


async def all_rows(
    read: Callable[[Any], Awaitable[tuple[Sequence[Row], bool]]], cursor: Callable[[Row], Any], *, most: int = CSV_ROWS
) -> list[Row]:
    """Read page after page. ``read`` takes the cursor of the last row, None at first, and returns rows and has_more."""
    found: list[Row] = []
    after: Any = None
    while len(found) < most:
        rows, has_more = await read(after)
        found.extend(rows)
        if not has_more or not rows:
            break
        after = cursor(rows[-1])
    return found[:most]


def csv_file(filename: str, columns: Mapping[str, Callable[[Row], object]], rows: Iterable[Row]) -> Response:
    """Answer with rows as a spreadsheet: a name and a value for each column. No cell is run as a formula."""
    return csv_answer(csv_text(columns, ([value(row) for value in columns.values()] for row in rows)), filename)
