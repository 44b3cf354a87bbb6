"""Rows as CSV, as spreadsheets read them, for the API and the console alike."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date

FORMULA = tuple("=+-@＝＋－＠\t\r\n")
"""How text begins that some spreadsheet runs: full-width signs too."""


def csv_text(header: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows with a header. Times are ISO 8601, None is empty, and no text is run as a formula."""
    return csv_lines([tuple(header)]) + csv_lines(rows)


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Return rows alone: what follows others."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: object) -> object:
    # A spreadsheet runs text that starts like a formula; numbers may be negative.
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value.isoformat() if isinstance(value, date) else value
