"""Many clients, four accounts, random work, while the server kills two of their sessions every 50 ms.

Nobody who was told "done" may find it undone, and nothing may be done twice: the unknown outcomes of broken connections
are cleared up by the same retries as in production.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.credits.audit import Audit
from app.credits.ledger import Ledger, Promise
from app.errors import DatabaseUnavailable, InsufficientCredits, OutcomeUnknown, TooManyTasks
from app.values import Credits, new_id
from tests.depth import DEPTH
from tests.factories import make_account, make_key, request_of

CLIENTS = 24
ACCOUNTS = 4
START = 200
KILL_EVERY_S = 0.05
APPLICATION = "hammer"


@dataclass
class Journal:
    """What the clients were told."""

    lifecycles: int = 0
    unknown: int = 0
    refused: int = 0
    accepted: dict[UUID, int] = field(default_factory=dict)
    """Task: its hold."""
    settled: dict[UUID, int] = field(default_factory=dict)
    """Task: what it was charged."""
    posted: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Reference: account, amount."""


class Client:
    """One customer's server: holds, settles, tops up. A connection of its own, as the killer would have it."""

    def __init__(self, url: str, keys: dict[int, int], journal: Journal, chance: random.Random) -> None:
        self.engine = db.make_engine(url, pool_size=1, session={"application_name": APPLICATION})
        self.ledger = Ledger(self.engine)
        self.keys, self.journal, self.chance = keys, journal, chance

    async def run(self, until: float) -> None:
        try:
            await self.work(until)
        finally:
            await self.engine.dispose()

    async def work(self, until: float) -> None:
        while time.monotonic() < until:
            try:
                await (self.top_up() if self.chance.random() < 0.15 else self.live())
            except (InsufficientCredits, TooManyTasks):
                self.journal.refused += 1
            except OutcomeUnknown:
                self.journal.unknown += 1
            except DatabaseUnavailable:
                pass  # it was certainly not done

    async def live(self) -> None:
        account, hold = self.chance.choice(list(self.keys)), self.chance.randint(0, 9)
        task = new_id()
        promise = Promise(task, self.keys[account], "image", "m", "test/m", Credits(hold), 900.0, request_of(), ())
        is_begun = self.chance.random() < 0.5
        if is_begun:
            kept = await self.ledger.begin(
                promise, provider="test", owner="hammer", lease_s=60, deadline_s=900, slots=100_000
            )
            assert (kept.task_id, kept.token) == (task, 1)
        else:
            await self.ledger.accept(promise)
        self.journal.accepted[task] = hold
        if self.chance.random() < 0.05:
            return  # never settled: its hold stays
        charge = self.chance.choice([0, hold, hold // 2])
        match self.chance.random(), is_begun:
            case luck, True if luck < 0.6:
                file = {"id": str(uuid4()), "role": "result", "position": 0, "storage_key": task.hex, "bytes": 1}
                file |= {"mime": "image/png", "sha256": "00", "ttl_s": 9}
                is_done = await self.ledger.finish(task, 1, charge=Credits(charge), files=[file], result={})
            case luck, _ if luck < 0.8:
                charge = 0
                is_done = await self.ledger.fail(task, None, reason="upstream_error", message="No.")
            case _:
                is_done = await self.ledger.cancel(task, None, charge=Credits(charge))
        if is_done:
            self.journal.settled[task] = charge
        # False: the first try's COMMIT went through although its answer was lost. The books are checked for that.
        self.journal.lifecycles += 1

    async def top_up(self) -> None:
        account, amount, ref = self.chance.choice(list(self.keys)), self.chance.randint(1, 30), uuid4().hex
        if self.chance.random() < 0.2:
            await self.ledger.adjust(account, Credits(amount := -amount), ref=ref, actor="test")
        else:
            await self.ledger.top_up(account, Credits(amount), ref=ref, actor="test")
        self.journal.posted[ref] = (account, amount)


async def kill(url: str, until: float, chance: random.Random) -> int:
    """End two sessions of the clients every 50 ms, whatever they are doing. Returns how many."""
    connection = await asyncpg.connect(url)
    killed = 0
    while time.monotonic() < until:
        rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = $1", APPLICATION)
        for row in chance.sample(rows, min(2, len(rows))):
            killed += await connection.fetchval("SELECT pg_terminate_backend($1)", row["pid"])
        await asyncio.sleep(KILL_EVERY_S)
    await connection.close()
    return killed


@pytest.fixture
async def hammered(fresh_database: Callable[..., str]) -> AsyncIterator[tuple[str, AsyncEngine]]:
    url = fresh_database(migrated=True)
    engine = db.make_engine(url, pool_size=1)
    yield url, engine
    await engine.dispose()


@pytest.mark.timeout(DEPTH.timeout_s)
async def test_killed_connections_lose_no_credit_and_move_none_twice(
    hammered: tuple[str, AsyncEngine], record_property: Callable[[str, object], None]
) -> None:
    url, engine = hammered
    chance = random.Random(time.time_ns())
    keys: dict[int, int] = {}
    for _ in range(ACCOUNTS):
        account = await make_account(engine, credits=START, max_in_flight=10_000)
        keys[account.id] = (await make_key(engine, account)).id
    journal = Journal()

    until = time.monotonic() + DEPTH.hammer_s
    async with asyncio.timeout(DEPTH.hammer_s + 60), asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(Client(url, keys, journal, random.Random(chance.random())).run(until))
        killing = group.create_task(kill(url, until, chance))
    killed = killing.result()

    record_property("lifecycles_per_s", round(journal.lifecycles / DEPTH.hammer_s))
    print(f"{journal.lifecycles / DEPTH.hammer_s:.0f} lifecycles/s, {killed} kills, {journal.unknown} unknown")  # noqa: T201
    assert killed > DEPTH.hammer_s / KILL_EVERY_S / 2
    assert journal.lifecycles > DEPTH.hammer_s * 10
    assert [finding for finding in await Audit(engine).run() if not finding.is_clean] == []
    await assert_told_is_true(engine, journal)


async def assert_told_is_true(engine: AsyncEngine, journal: Journal) -> None:
    rows = await db.once(engine, "SELECT id, hold, charge FROM tasks")
    tasks = {row["id"]: (row["hold"], row["charge"]) for row in rows}
    assert {id: tasks[id][0] for id in journal.accepted} == journal.accepted
    assert {id: tasks[id][1] for id in journal.settled} == journal.settled
    rows = await db.once(
        engine, "SELECT external_ref, account_id, amount FROM ledger WHERE kind IN ('topup', 'adjust')"
    )
    posts = {row["external_ref"]: (row["account_id"], row["amount"]) for row in rows}
    assert {ref: posts[ref] for ref in journal.posted} == journal.posted
    # What was not told is an outcome that is reported as unknown, and no more of those.
    untold = (tasks.keys() - journal.accepted.keys()) | {
        ref for ref in posts.keys() - journal.posted.keys() if not ref.startswith("test:")
    }
    assert len(untold) <= journal.unknown
