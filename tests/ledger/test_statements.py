"""What an account reads of its books: pages, usage, CSV, and nobody else's lines."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.credits.ledger import Ledger
from app.credits.statements import Entry, Statements, UsageRow, ledger_csv, usage_csv
from app.errors import AccountNotFound, InvalidParameter
from app.values import Credits, task_public_id, utcnow
from tests.factories import accept_task, finish_task, make_account, make_key


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = db.make_engine(database_url, pool_size=2)
    yield engine
    await engine.dispose()


@pytest.fixture
def statements(engine: AsyncEngine) -> Statements:
    return Statements(engine)


async def test_lines_come_newest_first_with_their_running_balance_and_task(engine: AsyncEngine, statements: Statements):
    account = await make_account(engine, credits=100)
    key = await make_key(engine, account)
    task = await finish_task(engine, key, hold=10, charge=7, model="fox-1")
    await accept_task(engine, key, hold=5)

    page = await statements.ledger(account.id)

    capture, top_up = page.entries
    assert not page.has_more
    assert (capture.seq, capture.kind, capture.amount, capture.balance) == (2, "capture", -7, 93)
    assert (capture.task_id, capture.model, capture.operation) == (task_public_id(task), "fox-1", "image.generate")
    assert (capture.key_id, capture.reference) == (key.id, None)
    assert (top_up.seq, top_up.kind, top_up.amount, top_up.balance) == (1, "topup", 100, 100)
    assert (top_up.task_id, top_up.model, top_up.key_id) == (None, None, None)


async def test_pages_join_without_a_gap_while_new_lines_arrive(engine: AsyncEngine, statements: Statements):
    account = await make_account(engine, credits=100)
    key = await make_key(engine, account)
    for _ in range(4):
        await finish_task(engine, key, hold=1)

    first = await statements.ledger(account.id, limit=2)
    await finish_task(engine, key, hold=1)
    second = await statements.ledger(account.id, limit=2, after=first.entries[-1].seq)
    third = await statements.ledger(account.id, limit=2, after=second.entries[-1].seq)

    assert [[entry.seq for entry in page.entries] for page in (first, second, third)] == [[5, 4], [3, 2], [1]]
    assert [page.has_more for page in (first, second, third)] == [True, True, False]


async def test_nobody_sees_the_lines_of_another_account(engine: AsyncEngine, statements: Statements):
    rich, poor = await make_account(engine, credits=100), await make_account(engine, credits=0)
    await finish_task(engine, await make_key(engine, rich), hold=10)

    page = await statements.ledger(poor.id)
    usage = await statements.usage(poor.id, start=utcnow() - timedelta(days=1), end=utcnow() + timedelta(days=1))

    assert list(page.entries) == []
    assert list(usage) == []


async def test_balance_is_what_can_be_spent_and_what_is_held(engine: AsyncEngine):
    ledger = Ledger(engine)
    account = await make_account(engine, credits=100)
    await accept_task(engine, await make_key(engine, account), hold=30)

    balance = await ledger.balance(account.id)

    assert (balance.credits, balance.held) == (70, 30)
    with pytest.raises(AccountNotFound):
        await ledger.balance(2**40)


async def test_usage_counts_tasks_and_takes_refunds_off_the_task_they_belong_to(
    engine: AsyncEngine, statements: Statements
):
    account = await make_account(engine)
    first, second = await make_key(engine, account), await make_key(engine, account)
    refunded = await finish_task(engine, first, hold=10, model="fox-1")
    await finish_task(engine, first, hold=20, model="owl-2")
    await finish_task(engine, second, hold=7, model="fox-1")
    await db.once(engine, "SELECT mg_settle($1, NULL, 'failed', 0)", (await accept_task(engine, first, hold=99),))
    await db.once(
        engine,
        "SELECT mg_post($1, 'refund', 'adjust', 4, $2, 'test', NULL, $3)",
        (account.id, uuid4().hex, refunded),
    )
    day = (await statements.ledger(account.id, limit=1)).entries[0].created_at
    start, end = day - timedelta(hours=1), day + timedelta(hours=1)

    by_model = await statements.usage(account.id, start=start, end=end, by="model")
    by_key = await statements.usage(account.id, start=start, end=end, by="key")
    by_day = await statements.usage(account.id, start=start, end=end, by="day")

    assert list(by_model) == [UsageRow("owl-2", 1, Credits(20)), UsageRow("fox-1", 2, Credits(13))]
    assert list(by_key) == [UsageRow(f"key_{first.id}", 2, Credits(26)), UsageRow(f"key_{second.id}", 1, Credits(7))]
    assert sum(row.credits for row in by_day) == 33
    assert by_day[-1].group == day.strftime("%Y-%m-%d")


async def test_usage_includes_its_first_moment_and_not_its_last(engine: AsyncEngine, statements: Statements):
    account = await make_account(engine)
    await finish_task(engine, await make_key(engine, account), hold=10)
    moment = (await statements.ledger(account.id, limit=1)).entries[0].created_at

    from_then = await statements.usage(account.id, start=moment, end=moment + timedelta(seconds=1), by="model")
    until_then = await statements.usage(account.id, start=moment - timedelta(seconds=1), end=moment, by="model")

    assert [row.credits for row in from_then] == [10]
    assert list(until_then) == []


async def test_a_page_or_period_that_makes_no_sense_is_refused_by_name(statements: Statements):
    now = utcnow()

    for limit in (0, 1001):
        with pytest.raises(InvalidParameter) as refused:
            await statements.ledger(1, limit=limit)
        assert refused.value.param == "limit"
    with pytest.raises(InvalidParameter) as refused:
        await statements.usage(1, start=now, end=now)
    assert refused.value.param == "from"
    with pytest.raises(InvalidParameter) as refused:
        await statements.usage(1, start=now, end=now + timedelta(1), by="week")  # type: ignore[arg-type]
    assert refused.value.param == "by"


def test_csv_has_a_header_and_never_hands_a_formula_to_a_spreadsheet():
    entry = Entry(2, "adjust", Credits(-7), Credits(93), None, None, None, 5, '=HYPERLINK("x"),y', "@note", utcnow())

    [row] = csv.DictReader(io.StringIO(ledger_csv([entry])))

    assert (row["seq"], row["amount"], row["balance"], row["task_id"]) == ("2", "-7", "93", "")
    assert (row["reference"], row["note"], row["key_id"]) == ('\'=HYPERLINK("x"),y', "'@note", "key_5")
    assert usage_csv([UsageRow("fox-1", 2, Credits(13))], "model").splitlines() == ["model,tasks,credits", "fox-1,2,13"]
