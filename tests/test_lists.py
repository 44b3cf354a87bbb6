"""Lists of very many rows: each is found by an index, and what no index finds is looked through a part at a time."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.accounts.keys import Keys, KeySearch
from app.accounts.users import Accounts, AccountSearch
from app.credits.redeem import Codes, CodeSearch
from app.credits.statements import LedgerSearch, Statements
from app.generation.journal import AuditLog, AuditSearch
from app.journal import Actor, note
from app.migrate import migrate
from app.tasks.queries import TaskFilter, TaskQueries, TaskSearch
from app.webhooks.deliveries import DeliveryLog
from bench.volume import ENDPOINT_ID, RARE_MODEL, fill
from tests.factories import PEPPER, finish_task, make_account, make_key

BIG = 1
"""The account with a quarter of all tasks."""


@pytest.fixture
async def books(fresh_database: Callable[..., str]) -> AsyncIterator[AsyncEngine]:
    """Some thousand rows of each kind."""
    url = fresh_database(migrated=True)
    await fill(url, 0.01, say=lambda _: None)
    engine = db.make_engine(url, pool_size=1)
    yield engine
    await engine.dispose()


@pytest.fixture
async def engine(fresh_database: Callable[..., str]) -> AsyncIterator[AsyncEngine]:
    """Of books that are empty."""
    engine = db.make_engine(fresh_database(migrated=True), pool_size=1)
    yield engine
    await engine.dispose()


async def plans_of(engine: AsyncEngine, ask: Callable[[], Awaitable[object]]) -> str:
    """Return how the database answers what ``ask`` sends."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, sql: str, arguments: Any, *_: object) -> None:
        if not sql.startswith("SET "):
            sent.append((sql, arguments))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        await ask()
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)
    plans = [await db.read(engine, f"EXPLAIN {sql}", arguments, is_planned_anew=True) for sql, arguments in sent]
    return "\n".join(row["QUERY PLAN"] for plan in plans for row in plan)


async def test_each_list_is_found_by_the_index_that_was_made_for_it(books: AsyncEngine) -> None:
    tasks, statements, log = TaskQueries(books), Statements(books), AuditLog(books)
    keys, deliveries = Keys(books, PEPPER), DeliveryLog(books)
    now = datetime.now(UTC)
    since, until = now - timedelta(days=200), now - timedelta(days=199)
    asked: dict[str, Callable[[], Awaitable[object]]] = {
        "tasks_account": lambda: tasks.page(TaskFilter(("cancelled",), RARE_MODEL, key_id=1), account_id=BIG),
        "tasks_open": lambda: tasks.page(TaskFilter(("queued", "in_progress")), account_id=BIG),
        "files_(kept|expiry)": lambda: tasks.page(TaskFilter(is_kept=True, text="boat"), account_id=BIG),
        "tasks_lost": lambda: tasks.search(TaskSearch(["failed"], model=RARE_MODEL)),
        "tasks_failed": lambda: tasks.search(TaskSearch(reason="moderation_blocked")),
        "tasks_request": lambda: tasks.search(TaskSearch(request_id="req_1")),
        "tasks_spent": lambda: statements.daily_usage(BIG, start=since, end=now),
        "ledger_kinds": lambda: statements.search(LedgerSearch(BIG, ("adjust", "expire"))),
        "ledger_time": lambda: statements.search(LedgerSearch(BIG, since=since, until=until)),
        "accounts_email_part": lambda: keys.search(KeySearch(q="kim 12")),
        "keys_name_part": lambda: keys.search(KeySearch(q="laptop 13")),
        "keys_last4": lambda: keys.search(KeySearch(q="a1b2")),
        "keys_ending": lambda: keys.search(KeySearch(state="revoked")),
        "audit_who": lambda: log.page(AuditSearch(actor="admin3@example.com", action="credits")),
        "audit_action": lambda: log.page(AuditSearch(action="credits", since=since, until=until)),
        "audit_target": lambda: log.page(AuditSearch(target="account:77", action="credits")),
        "webhook_deliveries_open": lambda: deliveries.list(BIG, ENDPOINT_ID, limit=50, state="failed"),
    }

    plans = {index: await plans_of(books, ask) for index, ask in asked.items()}

    assert [index for index, plan in plans.items() if not re.search(rf"\b{index}\b", plan)] == []
    whole = re.compile(r"Seq Scan on (tasks|ledger|files|audit|api_keys)\b")
    assert [index for index, plan in plans.items() if whole.search(plan)] == []


async def test_what_few_tasks_match_is_looked_for_a_part_at_a_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = db.make_engine(database_url, pooled=False)
    account = await make_account(engine)
    key = await make_key(engine, account)
    wanted = await finish_task(engine, key, model="rare")
    for _ in range(3):
        await finish_task(engine, key, model="common")
    for name in ("ENTRIES", "ROWS", "SCATTERED"):
        monkeypatch.setattr(f"app.tasks.lists.{name}", 2)
    tasks = TaskQueries(engine)

    async def pages(read: Callable[[Any], Awaitable[Any]]) -> list[tuple[list[Any], bool]]:
        found: list[tuple[list[Any], bool]] = []
        after = None
        while not found or found[-1][1]:
            page = await read(after)
            found.append(([task.id for task in page.items], page.has_more))
            after = page.last
        return found

    own = TaskFilter(model="rare")
    of_account = await pages(lambda after: tasks.page(replace(own, after=after), account_id=account.id))
    upwards = await tasks.page(replace(own, ascending=True), account_id=account.id)
    search = TaskSearch(model="rare", account_id=account.id)
    of_all = await pages(lambda after: tasks.search(replace(search, after=after)))
    by_pool = await pages(lambda after: tasks.search(replace(search, pool="test/rare", after=after)))

    expected = [([], True), ([wanted], True), ([], False)]
    assert of_account == of_all == by_pool == expected
    assert [task.id for task in upwards.items] == [wanted]
    assert [task.id for task in await tasks.search_all(search)] == [wanted]  # a spreadsheet has no next page
    await engine.dispose()


async def test_each_row_of_the_audit_log_is_on_one_page_however_small_a_part_is_looked_at(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = Actor("ada@example.com (key_1)", None)
    async with db.transaction(engine) as connection:
        for number in range(40):
            action = "credits.adjust" if number % 13 == 0 else "keys.create"
            await note(connection, actor, action, f"account:{number % 2}", after={"n": number})
    for name, value in (("WINDOW", 10), ("SCATTERED", 5), ("SLACK", 0)):
        monkeypatch.setattr(f"app.generation.journal.{name}", value)
    log, now = AuditLog(engine), datetime.now(UTC)
    searches = [
        AuditSearch(action="credits", since=now - timedelta(days=1), until=now + timedelta(days=1), limit=2),
        AuditSearch(target="account:1", action="credits", limit=2),
        AuditSearch(actor="ada@example.com", action="credits", limit=2),
        AuditSearch(q="ada", action="credits", limit=2),
    ]
    expected = [39, 26, 13, 0]

    for search in searches:
        wanted = [n for n in expected if n % 2 or search.target is None]
        paged, page = [], await log.page(search)
        for _ in range(40):
            paged += page.rows
            if not page.has_more:
                break
            page = await log.page(replace(search, after=page.last))

        assert [(row.after or {})["n"] for row in paged] == wanted, search
        assert await log.search_all(replace(search, limit=100)) == paged


async def test_without_trigrams_a_search_finds_the_same(fresh_database: Callable[..., str]) -> None:
    url = fresh_database()
    await migrate(url, "0013")
    owner = db.make_engine(url, role=None, pooled=False)
    await make_account(owner, credits=0, email="wang.mei@example.com")
    for statement in OWNED_BY_ANOTHER:  # who may not make an extension in this database
        await db.once(owner, statement)

    await migrate(re.sub(r"//[^@]*@", "//limited:limited@", url))

    extensions = await db.once(owner, "SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'")
    found, _more = await Accounts(owner).search(AccountSearch(q="G.MEI@ex"))
    assert (extensions, [account.email for account in found]) == ([], ["wang.mei@example.com"])
    await db.once(owner, "CREATE EXTENSION pg_trgm")
    await migrate(url, "-1")
    assert await db.once(owner, "SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'")  # it is not ours to take away
    await owner.dispose()


OWNED_BY_ANOTHER = (
    """DO $$ BEGIN CREATE ROLE limited LOGIN PASSWORD 'limited'; EXCEPTION WHEN duplicate_object THEN NULL; END $$""",
    "GRANT USAGE, CREATE ON SCHEMA public TO limited",
    """DO $$ DECLARE t text; BEGIN
  FOR t IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
    EXECUTE format('ALTER TABLE %s OWNER TO limited', t); END LOOP;
END $$""",
)


async def test_a_character_that_no_text_holds_is_looked_for_without_it(books: AsyncEngine) -> None:
    keys, codes = Keys(books, PEPPER), Codes(books)

    assert await keys.search(KeySearch(q="\0zzz")) == await keys.search(KeySearch(q="zzz"))
    assert await codes.search(CodeSearch(q="\0zzz")) == await codes.search(CodeSearch(q="zzz"))


async def test_an_index_of_the_operators_own_keeps_the_extension_when_ours_go(
    fresh_database: Callable[..., str],
) -> None:
    url = fresh_database(migrated=True)
    owner = db.make_engine(url, role=None, pooled=False)
    await db.once(owner, "CREATE INDEX theirs ON accounts USING gin (name gin_trgm_ops)")

    await migrate(url, "-2")

    assert await db.once(owner, "SELECT 1 FROM pg_indexes WHERE indexname = 'theirs'")
    assert not await db.once(owner, "SELECT 1 FROM pg_indexes WHERE indexname = 'accounts_email_part'")
