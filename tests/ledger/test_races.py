"""Races through the whole API, with Redis and without: not one credit more than there is, not one less."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest
from httpx2 import ASGITransport, AsyncClient
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.accounts.keys import Keys
from app.credits.audit import Audit
from app.credits.ledger import Ledger
from app.settings import Settings
from app.tasks.idempotency import Idempotency
from app.tasks.lifecycle import Claimed, Lifecycle, Status
from app.values import new_id
from tests.factories import PEPPER, accept_task, make_account, make_key
from tests.ledger.test_money_functions import is_waiting, until

CLOSED = SecretStr("redis://127.0.0.1:1/0")  # nothing ever listens there
REQUESTS, CREDITS = 1000, 100


@pytest.fixture
async def crowd(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Many real connections at once."""
    engine = db.make_engine(
        database_url, pool_size=50, wait_s=60, session={"lock_timeout": "20s", "statement_timeout": "30s"}
    )
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("has_redis", [True, False])
async def test_a_thousand_requests_at_once_on_credit_for_a_hundred_are_exactly_a_hundred(
    settings: Settings, has_redis: bool
) -> None:
    from app.main import create_app

    update = {"database_wait_s": 100.0, "key_cache_s": 5.0} | ({} if has_redis else {"redis_url": CLOSED})
    app = create_app(settings.model_copy(update=update))
    transport = ASGITransport(app=app)
    async with app.router.lifespan_context(app), AsyncClient(transport=transport, base_url="http://x") as client:
        engine = app.state.services.engine
        account = await make_account(engine, credits=CREDITS, max_in_flight=2 * REQUESTS)
        key = await make_key(engine, account)
        headers = {"authorization": f"Bearer {key.secret}"}
        body = {"prompt": "a fox", "async": True}  # held and queued; no worker runs here

        answers = await asyncio.gather(
            *(client.post("/v1/images/generations", json=body, headers=headers, timeout=100) for _ in range(REQUESTS))
        )

        assert Counter(answer.status_code for answer in answers) == {202: CREDITS, 402: REQUESTS - CREDITS}
        balance = await Ledger(engine).balance(account.id)
        assert (balance.credits, balance.held) == (0, CREDITS)
        assert [finding for finding in await Audit(engine).run() if not finding.is_clean] == []


async def test_once_a_revocation_is_committed_no_hold_that_begins_later_succeeds(crowd: AsyncEngine) -> None:
    account = await make_account(crowd, credits=1000, max_in_flight=1000)
    key = await make_key(crowd, account)
    begun, revoked = asyncio.Event(), asyncio.Event()
    answers: Counter[tuple[str, bool]] = Counter()

    async def hold(number: int) -> None:
        if number >= 150:
            await revoked.wait()
        is_later = revoked.is_set()
        try:
            await accept_task(crowd, key, hold=1)
            answers["ok", is_later] += 1
            begun.set()
        except DBAPIError as error:
            answers[db.sqlstate_of(error) or "", is_later] += 1

    async def revoke() -> None:
        await begun.wait()
        await Keys(crowd, PEPPER).revoke(key.id)
        revoked.set()

    await asyncio.gather(*(hold(number) for number in range(200)), revoke())

    assert answers["ok", True] == 0
    assert answers["MG401", True] >= 50
    assert answers["ok", False] + answers["MG401", False] + answers["MG401", True] == 200
    rows = await db.once(
        crowd,
        """SELECT count(*) AS tasks, count(*) FILTER (WHERE t.created_at > k.revoked_at + interval '20 seconds') AS late
         FROM tasks t JOIN api_keys k ON k.id = t.api_key_id WHERE k.id = $1""",
        (key.id,),
    )
    assert (rows[0]["tasks"], rows[0]["late"]) == (answers["ok", False], 0)
    assert (await Ledger(crowd).balance(account.id)).held == answers["ok", False]


async def mark_delivered(engine: AsyncEngine, ids: list[UUID]) -> None:
    idempotency = Idempotency(engine, joins_retries=False)
    for task_id in ids:
        idempotency.handed_over(task_id)
    await idempotency.close()


async def extend(engine: AsyncEngine, ids: list[UUID]) -> None:
    await Lifecycle(engine, owner="test", lease_s=30).keep([(task_id, 0) for task_id in ids])


async def note_progress(engine: AsyncEngine, ids: list[UUID]) -> None:
    steps = [Claimed(i, 1, 0, Status.RUNNING, "m", "p/m", 1, None, {}, 1, 0.0, False, False, None, 0.0) for i in ids]
    await Lifecycle(engine, owner="test", lease_s=30).all_progressed([(step, 5, 1.0) for step in steps])


@pytest.mark.parametrize("write", [mark_delivered, extend, note_progress])
async def test_a_statement_over_many_tasks_locks_them_in_order(
    crowd: AsyncEngine, write: Callable[[AsyncEngine, list[UUID]], Awaitable[None]]
) -> None:
    """The rows lie, and are named, in another order: whoever locked them in that one could meet a second process."""
    key = await make_key(crowd, await make_account(crowd, credits=100))
    low, middle, high = sorted(new_id() for _ in range(3))
    for task_id in (high, middle, low):
        await accept_task(crowd, key, task_id=task_id)
    lock = "SELECT id FROM tasks WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE"

    async with crowd.connect() as blocker:
        await blocker.exec_driver_sql(lock, ([middle],))
        writing = asyncio.create_task(write(crowd, [high, middle, low]))
        await until(lambda: is_waiting(crowd, blocker))
        free = [row["id"] for row in await db.once(crowd, f"{lock} SKIP LOCKED", ([low, middle, high],))]
        await blocker.rollback()
    await writing

    assert free == [high]
