"""Lists as spreadsheets: all of their rows, a page at a time, and never a part that looks whole."""

from __future__ import annotations

import pytest

from app.console import tables
from app.errors import DatabaseUnavailable
from app.spreadsheets import csv_text
from tests.console.pages import sign_in


async def text_of(response):
    return "".join([chunk async for chunk in response.body_iterator])


async def test_a_spreadsheet_has_every_row_and_holds_one_page_of_them():
    asked = []

    async def read(after):
        asked.append(after)
        start = 0 if after is None else after + 1
        return range(start, min(start + 200, 12_345)), start + 200 < 12_345

    response = await tables.csv_pages("n.csv", {"n": lambda n: n}, tables.by_rows(read, lambda n: n))
    assert asked == [None]

    assert (await text_of(response)).split() == ["n", *map(str, range(12_345))]
    assert response.headers["content-disposition"] == 'attachment; filename="n.csv"'


async def test_a_part_without_rows_is_not_the_end():
    parts = {None: ([1], "b"), "b": ([], "c"), "c": ([2], None)}

    async def read(after):
        return parts[after]

    assert (
        await text_of(await tables.csv_pages("n.csv", {"n": lambda n: n}, tables.by_parts(read))) == "n\r\n1\r\n2\r\n"
    )


async def test_a_list_that_fails_is_an_error_at_first_and_a_broken_file_later():
    async def failing(*first):
        for rows in first:
            yield rows
        raise DatabaseUnavailable("away")

    with pytest.raises(DatabaseUnavailable):
        await tables.csv_pages("n.csv", {"n": lambda n: n}, failing())
    response = await tables.csv_pages("n.csv", {"n": lambda n: n}, failing([1]))
    with pytest.raises(DatabaseUnavailable):
        await text_of(response)


async def test_a_page_gives_its_list_whole(client, services, monkeypatch):
    monkeypatch.setattr(tables, "CSV_PAGE_ROWS", 2)
    tab = await sign_in(client, services, credits=0)
    for number in range(5):
        await services.ledger.top_up(tab.account.id, 1, ref=f"t{tab.account.id}-{number}", actor="a test")

    lines = (await tab.get("/console/ledger?format=csv")).response.text.splitlines()

    assert [line.split(",")[0] for line in lines] == ["line", "5", "4", "3", "2", "1"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n"])
def test_no_text_is_run_as_a_formula(start):
    cell = csv_text(["a"], [[f"{start}1+1"]]).removeprefix("a\r\n").lstrip('"')

    assert cell.startswith(f"'{start}")
