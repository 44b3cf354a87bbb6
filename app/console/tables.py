"""What every list has: filters in the address, pages by keyset, and the same rows as CSV."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from app.api.v1.answers import csv_answer, csv_headers
from app.console.shell import with_query
from app.spreadsheets import csv_lines, csv_text

Row = TypeVar("Row")
Columns: TypeAlias = Mapping[str, Callable[[Row], object]]

PAGE_ROWS = 50
CSV_PAGE_ROWS = 200
"""Of a spreadsheet, at a time: so many are read and written before others have their turn."""


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


async def by_rows(
    read: Callable[[Any], Awaitable[tuple[Sequence[Row], bool]]], cursor: Callable[[Row], Any]
) -> AsyncIterator[Sequence[Row]]:
    """Read page after page. ``read`` takes the cursor of the last row, None at first, and returns rows and has_more."""
    after: Any = None
    while True:
        rows, has_more = await read(after)
        yield rows
        if not has_more or not rows:
            return
        after = cursor(rows[-1])


async def by_parts(read: Callable[[Any], Awaitable[tuple[Sequence[Row], Any]]]) -> AsyncIterator[Sequence[Row]]:
    """Read what looks at a part at a time, also past an empty one.

    ``read`` takes where to go on, None at first, and returns rows and where the next part begins; None: nowhere.
    """
    after: Any = None
    while True:
        rows, after = await read(after)
        yield rows
        if after is None:
            return


def csv_file(filename: str, columns: Columns[Row], rows: Iterable[Row]) -> Response:
    """Answer with rows as a spreadsheet: a name and a value for each column. No cell is run as a formula."""
    return csv_answer(csv_text(columns, _cells(columns, rows)), filename)


async def csv_pages(filename: str, columns: Columns[Row], pages: AsyncIterator[Sequence[Row]]) -> Response:
    """Answer with all rows of a list as a spreadsheet, however many: a page of them at a time is in memory.

    Where the first page fails, so does the request. Later the connection breaks off: what looks whole is whole.
    """
    first: Sequence[Row] = await anext(pages, ())

    async def text() -> AsyncIterator[str]:
        yield csv_text(columns, _cells(columns, first))
        async for rows in pages:
            if rows:
                yield csv_lines(_cells(columns, rows))

    return StreamingResponse(text(), media_type="text/csv", headers=csv_headers(filename))


def _cells(columns: Columns[Row], rows: Iterable[Row]) -> Iterator[list[object]]:
    return ([value(row) for value in columns.values()] for row in rows)
