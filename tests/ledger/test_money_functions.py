"""The money functions as the database runs them: refusals, guards, privileges, and races on real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.accounts.keys import Keys
from app.accounts.users import Accounts
from app.credits.ledger import Ledger
from app.credits.lines import Balance
from app.values import new_id, utcnow
from tests.factories import PEPPER, accept_task, finish_task, make_account, make_key

RACE_CONNECTIONS = 60


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The application's own role, as in production."""
    engine = db.make_engine(database_url, pool_size=4)
    yield engine
    await engine.dispose()


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = db.make_engine(database_url, role=None, pooled=False)
    yield engine
    await engine.dispose()


@pytest.fixture
async def crowd(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Many real connections at once."""
    engine = db.make_engine(
        database_url, pool_size=RACE_CONNECTIONS, wait_s=30, session={"lock_timeout": "20s", "statement_timeout": "30s"}
    )
    yield engine
    await engine.dispose()


async def state_of(work: Awaitable[Any]) -> str:
    """Return the code the server refuses with, or ``ok``."""
    try:
        await work
    except DBAPIError as error:
        return db.sqlstate_of(error) or "no code"
    return "ok"


async def post(engine: AsyncEngine, account_id: int, kind: str, amount: int, ref: str, task: UUID | None = None) -> int:
    contra = {"topup": "topup", "grant": "promo", "adjust": "adjust", "refund": "adjust"}[kind]
    rows = await db.once(
        engine,
        "SELECT mg_post($1, $2, $3, $4, $5, 'test', NULL, $6) AS id",
        (account_id, kind, contra, amount, ref, task),
    )
    return int(rows[0]["id"])


async def settle(
    engine: AsyncEngine, task: UUID, charge: int, status: str = "cancelled", token: int | None = None
) -> bool:
    rows = await db.once(engine, "SELECT mg_settle($1, $2, $3, $4) AS ok", (task, token, status, charge))
    return bool(rows[0]["ok"])


async def balance(engine: AsyncEngine, account_id: int) -> tuple[int, int]:
    found: Balance = await Ledger(engine).balance(account_id)
    return found.credits, found.held


async def entries(engine: AsyncEngine, account_id: int) -> list[tuple[str, int, int]]:
    rows = await db.once(
        engine, "SELECT kind, amount, balance FROM ledger WHERE account_id = $1 ORDER BY seq", (account_id,)
    )
    return [(row["kind"], row["amount"], row["balance"]) for row in rows]


# --- a life ---------------------------------------------------------------------------------------------------------


async def test_a_hold_is_no_entry_and_a_capture_takes_its_part(engine: AsyncEngine):
    account = await make_account(engine, credits=100)
    key = await make_key(engine, account)

    task = await accept_task(engine, key, hold=30)
    assert await balance(engine, account.id) == (70, 30)
    assert await entries(engine, account.id) == [("topup", 100, 100)]

    assert await settle(engine, task, 12)
    assert await balance(engine, account.id) == (88, 0)
    assert await entries(engine, account.id) == [("topup", 100, 100), ("capture", -12, 88)]


async def test_a_release_leaves_no_trace_in_the_ledger(engine: AsyncEngine):
    account = await make_account(engine, credits=100)
    task = await accept_task(engine, await make_key(engine, account), hold=30)

    assert await settle(engine, task, 0, "failed")

    assert await balance(engine, account.id) == (100, 0)
    assert await entries(engine, account.id) == [("topup", 100, 100)]


async def test_a_second_settlement_changes_nothing(engine: AsyncEngine):
    account = await make_account(engine, credits=100)
    task = await accept_task(engine, await make_key(engine, account), hold=30)

    assert await settle(engine, task, 30) is True
    assert await settle(engine, task, 0) is False
    assert await settle(engine, task, 30, token=0) is False
    assert await settle(engine, uuid4(), 0) is False

    assert await balance(engine, account.id) == (70, 0)


async def test_a_lost_lease_settles_nothing(engine: AsyncEngine):
    account = await make_account(engine, credits=100)
    task = await accept_task(engine, await make_key(engine, account), hold=30)
    await db.once(engine, "UPDATE tasks SET lease_token = 7 WHERE id = $1", (task,))

    assert await settle(engine, task, 30, token=6) is False
    assert await balance(engine, account.id) == (70, 30)
    assert await settle(engine, task, 30, token=7) is True


@pytest.mark.parametrize(("status", "charge"), [("failed", 1), ("cancelled", 31), ("cancelled", -1)])
async def test_a_charge_outside_the_hold_is_refused(engine: AsyncEngine, status: str, charge: int):
    account = await make_account(engine, credits=100)
    task = await accept_task(engine, await make_key(engine, account), hold=30)

    assert await state_of(settle(engine, task, charge, status)) == "23514"

    assert await balance(engine, account.id) == (70, 30)


async def test_a_reference_adds_once_and_never_means_two_things(engine: AsyncEngine):
    account, other = await make_account(engine, credits=0), await make_account(engine, credits=0)
    ref = uuid4().hex

    first = await post(engine, account.id, "topup", 50, ref)
    assert await post(engine, account.id, "topup", 50, ref) == first
    assert await state_of(post(engine, account.id, "topup", 51, ref)) == "MG409"
    assert await state_of(post(engine, other.id, "topup", 50, ref)) == "MG409"
    assert await state_of(post(engine, account.id, "grant", 5, ref)) == "ok"  # another kind of entry

    assert await balance(engine, account.id) == (55, 0)
    assert await balance(engine, other.id) == (0, 0)


async def test_an_adjustment_stops_at_what_is_held(engine: AsyncEngine):
    account = await make_account(engine, credits=100)
    await accept_task(engine, await make_key(engine, account), hold=30)

    assert await state_of(post(engine, account.id, "adjust", -71, uuid4().hex)) == "MG402"
    assert await state_of(post(engine, account.id, "adjust", -70, uuid4().hex)) == "ok"

    assert await balance(engine, account.id) == (0, 30)


async def test_refunds_never_exceed_the_capture(engine: AsyncEngine):
    account = await make_account(engine, credits=100)
    task = await finish_task(engine, await make_key(engine, account), hold=30, charge=20)

    assert await state_of(post(engine, account.id, "refund", 15, uuid4().hex, task)) == "ok"
    assert await state_of(post(engine, account.id, "refund", 6, uuid4().hex, task)) == "MG409"
    assert await state_of(post(engine, account.id, "refund", 5, uuid4().hex, task)) == "ok"
    assert await state_of(post(engine, account.id, "refund", 1, uuid4().hex, uuid4())) == "MG409"

    assert await balance(engine, account.id) == (100, 0)


@pytest.mark.parametrize(("kind", "amount"), [("topup", 0), ("topup", -5), ("grant", -5), ("adjust", 0)])
async def test_an_entry_of_the_wrong_sign_is_refused(engine: AsyncEngine, kind: str, amount: int):
    account = await make_account(engine, credits=100)

    assert await state_of(post(engine, account.id, kind, amount, uuid4().hex)) == "23514"

    assert await balance(engine, account.id) == (100, 0)


# --- refusals of a hold ---------------------------------------------------------------------------------------------


async def test_a_hold_above_the_balance_is_refused_and_the_last_credit_is_not(engine: AsyncEngine):
    account = await make_account(engine, credits=100)
    key = await make_key(engine, account)

    assert await state_of(accept_task(engine, key, hold=101)) == "MG402"
    assert await state_of(accept_task(engine, key, hold=100)) == "ok"
    assert await state_of(accept_task(engine, key, hold=1)) == "MG402"
    assert await state_of(accept_task(engine, key, hold=0)) == "ok"

    assert await balance(engine, account.id) == (0, 100)


async def test_a_dead_key_holds_nothing(engine: AsyncEngine):
    account = await make_account(engine)
    expired = await make_key(engine, account, expires_at=utcnow() - timedelta(seconds=1))
    revoked = await make_key(engine, account)
    await Keys(engine, PEPPER).revoke(revoked.id)

    for key in (expired, revoked, 2**40):
        assert await state_of(accept_task(engine, key)) == "MG401"

    assert await balance(engine, account.id) == (1000, 0)


async def test_a_budget_counts_what_is_held_and_what_was_spent(engine: AsyncEngine):
    account = await make_account(engine)
    key, free = await make_key(engine, account, budget=50), await make_key(engine, account)

    await finish_task(engine, key, hold=40, charge=20)
    task = await accept_task(engine, key, hold=25)
    assert await state_of(accept_task(engine, key, hold=6)) == "MG403"
    assert await state_of(accept_task(engine, key, hold=5)) == "ok"
    await settle(engine, task, 0)
    assert await state_of(accept_task(engine, key, hold=25)) == "ok"
    assert await state_of(accept_task(engine, free, hold=100)) == "ok"


async def test_a_daily_budget_starts_anew_each_day(engine: AsyncEngine, owner: AsyncEngine):
    account = await make_account(engine)
    key = await make_key(engine, account, budget=50, period="day")
    await finish_task(engine, key, hold=50)
    assert await state_of(accept_task(engine, key, hold=1)) == "MG403"

    await db.once(owner, "UPDATE key_budgets SET period_start = period_start - 1 WHERE api_key_id = $1", (key.id,))

    assert await state_of(accept_task(engine, key, hold=50)) == "ok"
    assert (await Keys(engine, PEPPER).get(key.id)).spent == 0


async def test_a_suspended_account_holds_nothing_until_it_is_resumed(engine: AsyncEngine):
    account = await make_account(engine)
    key = await make_key(engine, account)

    await Accounts(engine).suspend(account.id)
    assert await state_of(accept_task(engine, key)) == "MG411"
    await Accounts(engine).resume(account.id)
    assert await state_of(accept_task(engine, key)) == "ok"


async def test_tasks_at_once_are_limited_per_account_and_per_key(engine: AsyncEngine):
    account = await make_account(engine, max_in_flight=2)
    key, narrow = await make_key(engine, account), await make_key(engine, account)
    await Keys(engine, PEPPER).set_limits(narrow.id, budget=None, max_in_flight=1)

    task = await accept_task(engine, narrow)
    assert await state_of(accept_task(engine, narrow)) == "MG429"
    await accept_task(engine, key)
    assert await state_of(accept_task(engine, key)) == "MG429"
    await settle(engine, task, 0)
    assert await state_of(accept_task(engine, narrow)) == "ok"


async def test_a_refused_hold_leaves_nothing_behind(engine: AsyncEngine):
    account = await make_account(engine, credits=10)
    key = await make_key(engine, account)

    assert await state_of(accept_task(engine, key, hold=11)) == "MG402"

    info = await Keys(engine, PEPPER).get(key.id)
    assert (info.held, info.in_flight) == (0, 0)
    assert (await Accounts(engine).get(account.id)).in_flight == 0
    assert await db.once(engine, "SELECT 1 FROM tasks WHERE account_id = $1", (account.id,)) == []


async def test_the_same_task_is_accepted_once(engine: AsyncEngine):
    account = await make_account(engine)
    key = await make_key(engine, account)
    task = await accept_task(engine, key, hold=10)

    assert await state_of(accept_task(engine, key, hold=10, task_id=task)) == "23505"

    assert await balance(engine, account.id) == (990, 10)


# --- guards ---------------------------------------------------------------------------------------------------------

GUARDS = {
    "MG001": ("UPDATE tasks SET charge = 3 WHERE id = $1", True),
    "MG002": ("UPDATE tasks SET hold = hold - 1 WHERE id = $1", False),
    "MG003": ("UPDATE tasks SET status = 'storing' WHERE id = $1", False),
    "MG004": ("UPDATE tasks SET lease_token = lease_token - 1 WHERE id = $1", False),
    "MG005": ("UPDATE ledger SET amount = -1 WHERE task_id = $1", True),
}


@pytest.mark.parametrize("code", GUARDS)
async def test_the_triggers_refuse_even_the_owner(engine: AsyncEngine, owner: AsyncEngine, code: str):
    sql, is_settled = GUARDS[code]
    key = await make_key(engine, await make_account(engine))
    task = await (finish_task if is_settled else accept_task)(engine, key)

    assert await state_of(db.once(owner, sql, (task,))) == code


async def test_the_ledger_can_be_neither_deleted_nor_emptied(owner: AsyncEngine):
    assert await state_of(db.once(owner, "TRUNCATE ledger CASCADE")) == "MG005"
    account = await make_account(owner)
    assert await state_of(db.once(owner, "DELETE FROM ledger WHERE account_id = $1", (account.id,))) == "MG005"


FORBIDDEN = (
    "UPDATE accounts SET posted = posted + 1",
    "UPDATE accounts SET held = 0",
    "UPDATE accounts SET entry_seq = 0",
    "UPDATE accounts SET in_flight = 0",
    "UPDATE accounts SET is_admin = true",
    "UPDATE accounts SET email = 'x@y'",
    "INSERT INTO accounts (name, email, posted) VALUES ('x', 'x@y', 5)",
    "DELETE FROM accounts",
    "INSERT INTO ledger (account_id, seq, contra, kind, amount, balance, external_ref) "
    "VALUES (1, 1, 'topup', 'topup', 1, 1, 'x')",
    "UPDATE ledger SET amount = 1",
    "DELETE FROM ledger",
    "TRUNCATE ledger",
    "INSERT INTO credit_lots (account_id, ledger_id, amount, remaining, expires_at) VALUES (1, 1, 1, 1, now())",
    "UPDATE key_budgets SET spent = 0",
    "UPDATE key_budgets SET held = 0",
    "INSERT INTO key_budgets (api_key_id, spent) VALUES (1, 1)",
    "DELETE FROM key_budgets",
    "UPDATE tasks SET charge = 0",
    "UPDATE tasks SET hold = 0",
    "UPDATE tasks SET settled_at = now()",
    "UPDATE tasks SET account_id = 1",
    "INSERT INTO tasks (id, account_id, api_key_id, kind, model, pool, hold, deadline_at) VALUES "
    "(gen_random_uuid(), 1, 1, 'image', 'm', 'p', 0, now())",
    "DELETE FROM tasks",
    "DELETE FROM api_keys",
    "INSERT INTO task_transitions VALUES ('failed', 'queued')",
    "SELECT mg_reserve(gen_random_uuid(), 1, 'image', 'm', 'p', 0, now(), '{}')",
    "SELECT mg_burn(1, 1)",
    "SELECT mg_expire(1)",
    "SELECT mg_put_files(gen_random_uuid(), '[]')",
    "ALTER TABLE tasks DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
)


@pytest.mark.parametrize("sql", FORBIDDEN)
async def test_the_application_cannot_touch_money_by_itself(engine: AsyncEngine, sql: str):
    assert await state_of(db.once(engine, sql)) == "42501"


async def test_a_function_named_by_a_caller_is_not_run_by_the_money_functions(owner: AsyncEngine):
    rows = await db.once(
        owner, "SELECT proname, prosecdef, proconfig FROM pg_proc WHERE proname LIKE 'mg\\_%' ORDER BY 1"
    )

    assert {"mg_accept", "mg_begin", "mg_finish", "mg_fail", "mg_settle", "mg_post"} <= {row["proname"] for row in rows}
    for row in rows:
        assert row["prosecdef"], row["proname"]
        assert row["proconfig"] == ["search_path=pg_catalog, public, pg_temp"], row["proname"]


# --- races ----------------------------------------------------------------------------------------------------------


async def test_three_hundred_at_once_on_credit_for_a_hundred_are_exactly_a_hundred(crowd: AsyncEngine):
    account = await make_account(crowd, credits=100, max_in_flight=1000)
    keys = [await make_key(crowd, account) for _ in range(3)]

    answers = await asyncio.gather(*(state_of(accept_task(crowd, keys[i % 3], hold=1)) for i in range(300)))

    assert answers.count("ok") == 100
    assert answers.count("MG402") == 200
    assert await balance(crowd, account.id) == (0, 100)


async def test_a_hundred_at_once_on_a_budget_for_ten_are_exactly_ten(crowd: AsyncEngine):
    account = await make_account(crowd, credits=1000, max_in_flight=1000)
    key = await make_key(crowd, account, budget=10)

    answers = await asyncio.gather(*(state_of(accept_task(crowd, key, hold=1)) for _ in range(100)))

    assert answers.count("ok") == 10
    assert answers.count("MG403") == 90


async def test_sixty_four_settlements_at_once_are_exactly_one(crowd: AsyncEngine):
    account = await make_account(crowd, credits=100)
    task = await accept_task(crowd, await make_key(crowd, account), hold=40)

    answers = await asyncio.gather(*(settle(crowd, task, 40 - i % 2) for i in range(64)))

    assert answers.count(True) == 1
    captured = [amount for kind, amount, _ in await entries(crowd, account.id) if kind == "capture"]
    assert len(captured) == 1
    assert await balance(crowd, account.id) == (100 + captured[0], 0)


async def test_one_reference_posted_from_everywhere_adds_once(crowd: AsyncEngine):
    account = await make_account(crowd, credits=0)
    ref = uuid4().hex

    ids = await asyncio.gather(*(post(crowd, account.id, "topup", 5, ref) for _ in range(64)))

    assert len(set(ids)) == 1
    assert await balance(crowd, account.id) == (5, 0)


async def test_mixed_work_at_once_ends_in_balanced_books(crowd: AsyncEngine):
    account = await make_account(crowd, credits=600, max_in_flight=1000)  # enough for all holds at once
    keys = [await make_key(crowd, account) for _ in range(4)]

    async def life(i: int) -> str:
        outcome = await state_of(accept_task(crowd, keys[i % 4], hold=5, task_id=(task := new_id())))
        if outcome == "ok" and i % 3:
            await settle(crowd, task, i % 6)
        if i % 10 == 0:
            await post(crowd, account.id, "topup", 7, f"{account.id}:{i}")
        return outcome

    answers = await asyncio.gather(*(life(i) for i in range(120)))

    rows = await entries(crowd, account.id)
    held = 5 * sum(outcome == "ok" and not i % 3 for i, outcome in enumerate(answers))
    assert answers.count("ok") == 120
    assert await balance(crowd, account.id) == (sum(amount for _, amount, _ in rows) - held, held)
    assert [after for _, _, after in rows] == [sum(a for _, a, _ in rows[: n + 1]) for n in range(len(rows))]


async def test_a_hold_that_waits_for_a_revocation_is_refused_when_it_commits(engine: AsyncEngine):
    account = await make_account(engine)
    key = await make_key(engine, account)

    async with engine.connect() as revoking:
        await revoking.exec_driver_sql("UPDATE api_keys SET revoked_at = now() WHERE id = $1", (key.id,))
        hold = asyncio.create_task(state_of(accept_task(engine, key)))
        await until(lambda: is_waiting(engine, revoking))
        await revoking.commit()

    assert await hold == "MG401"
    assert await balance(engine, account.id) == (1000, 0)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so; the test's own timeout is the limit."""
    while not await condition():
        pass


async def is_waiting(engine: AsyncEngine, blocker: Any) -> bool:
    """Whether a session waits for a lock that ``blocker`` has."""
    pid = (await blocker.exec_driver_sql("SELECT pg_backend_pid()")).scalar()
    rows = await db.once(engine, "SELECT 1 FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))", (pid,))
    return bool(rows)
