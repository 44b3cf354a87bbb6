"""The money functions against a small model in Python: any sequence of calls leaves both with the same books."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.depth import DEPTH
from tests.properties.books import VIOLATIONS

EVER = date.min  # PostgreSQL's -infinity
ACCOUNTS, KEYS = 2, 4
CHANGES = ["limits", "limits", "limits", "hours", "hours", "days", "days", "suspend", "resume", "resume", "revoke"]
AMOUNTS = st.integers(-3, 40) | st.integers(-40, -1)
HOLDS = st.integers(0, 30)
SELDOM = st.sampled_from([False, False, False, True])
CONTRA = {"topup": "topup", "grant": "promo", "adjust": "adjust", "refund": "adjust"}


# --- the model ------------------------------------------------------------------------------------------------------


@dataclass
class Lot:
    remaining: int
    hours_left: int


@dataclass(eq=False)
class Account:
    max_in_flight: int = 4
    is_active: bool = True
    entries: list[int] = field(default_factory=list)
    held: int = 0
    in_flight: int = 0
    lots: dict[int, Lot] = field(default_factory=dict)

    @property
    def posted(self) -> int:
        return sum(self.entries)

    @property
    def free(self) -> int:
        return self.posted - self.held

    def take(self, amount: int) -> None:
        """Spend: the lot that expires first goes first."""
        self.entries.append(-amount)
        for _, lot in sorted(self.lots.items(), key=lambda item: (item[1].hours_left, item[0])):
            taken = min(amount, lot.remaining)
            lot.remaining -= taken
            amount -= taken


@dataclass(eq=False)
class Key:
    account: Account
    limit: int | None = None
    period: str = "total"
    since: date = EVER
    spent: int = 0
    held: int = 0
    in_flight: int = 0
    max_in_flight: int | None = None
    is_alive: bool = True
    family: list[Key] = field(default_factory=list)

    def spent_since(self, start: date) -> int:
        return self.spent if self.since >= start else 0


@dataclass
class Task:
    key: Key
    hold: int
    token: int
    is_open: bool = True
    charge: int = 0
    refunded: int = 0
    is_delivered: bool = False

    def settle(self, charge: int, start: date) -> None:
        key, account = self.key, self.key.account
        self.is_open, self.charge = False, charge
        key.spent, key.since = key.spent_since(start) + charge, max(key.since, start)
        for counter in (key, account):
            counter.held -= self.hold
            counter.in_flight -= 1
        if charge:
            account.take(charge)


def refusal_of(key: Key, hold: int, start: date) -> str | None:
    """Return why this hold is refused, in the order in which the database looks."""
    account = key.account
    if not key.is_alive:
        return "MG401"
    if key.limit is not None and key.spent_since(start) + key.held + hold > key.limit:
        return "MG403"
    if key.max_in_flight is not None and key.in_flight >= key.max_in_flight:
        return "MG429"
    if not account.is_active:
        return "MG411"
    if account.free < hold:
        return "MG402"
    return "MG429" if account.in_flight >= account.max_in_flight else None


def refusal_of_family(key: Key, hold: int, start: date) -> str | None:
    """Keys that follow each other share one budget, and their places."""
    gone = hold + sum(each.held + each.spent_since(start) for each in key.family)
    busy = 1 + sum(each.in_flight for each in key.family)
    if key.family and key.limit is not None and gone > key.limit:
        return "MG403"
    return "MG429" if key.family and key.max_in_flight is not None and busy > key.max_in_flight else None


# --- the database ---------------------------------------------------------------------------------------------------


class Books:
    """One connection, and one transaction for each example, which is rolled back: every example starts with nothing."""

    def __init__(self, url: str) -> None:
        self._loop = uvloop.new_event_loop()
        self._connection: asyncpg.Connection = self._run(asyncpg.connect(url))

    def _run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def begin(self) -> None:
        self._transaction = self._connection.transaction()
        self._run(self._transaction.start())

    def roll_back(self) -> None:
        self._run(self._transaction.rollback())

    def close(self) -> None:
        self._run(self._connection.close())
        self._loop.close()

    def rows(self, sql: str, *arguments: Any) -> list[Any]:
        return self._run(self._connection.fetch(sql, *arguments))

    def call(self, sql: str, *arguments: Any) -> Any:
        """Return the function's value, or the code of its refusal; what it refused is undone."""

        async def attempt() -> Any:
            try:
                async with self._connection.transaction():
                    return await self._connection.fetchval(sql, *arguments)
            except asyncpg.PostgresError as error:
                return error.sqlstate

        return self._run(attempt())


ACCOUNT_ROWS = """SELECT a.posted, a.held, a.in_flight, a.expiring, a.entry_seq,
 (SELECT coalesce(sum(amount), 0) FROM ledger l WHERE l.account_id = a.id)::bigint AS entries
 FROM accounts a ORDER BY id"""
KEY_ROWS = "SELECT spent, held, in_flight, period_start FROM key_budgets ORDER BY api_key_id"
TASK_ROWS = "SELECT id, settled_at IS NULL AS is_open, coalesce(charge, 0) AS charge, lease_token FROM tasks"
LOT_ROWS = "SELECT id, remaining FROM credit_lots"


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self, books: Books) -> None:
        super().__init__()
        self.books = books
        self.tasks: dict[UUID, Task] = {}
        self.posts: dict[tuple[str, str], tuple[Account, int, int, UUID | None]] = {}
        self.sent: dict[tuple[int, str | None], tuple[UUID, bytes]] = {}
        """What idempotency keys stand for."""
        books.begin()

    def teardown(self) -> None:
        self.books.roll_back()

    @initialize(credits=st.sampled_from([10, 50, 100, 300]), data=st.data())
    def open_the_books(self, credits: int, data: st.DataObject) -> None:
        self.today: date = self.books.rows("SELECT (now() AT TIME ZONE 'UTC')::date AS day")[0]["day"]
        rows = self.books.rows(
            """INSERT INTO accounts (name, email, max_in_flight) SELECT 'a', 'a' || n || '@x', 4
             FROM generate_series(1, $1) n RETURNING id""",
            ACCOUNTS,
        )
        self.account_ids = [row["id"] for row in rows]
        self.accounts = [Account() for _ in rows]
        rows = self.books.rows(
            """WITH k AS (INSERT INTO api_keys (account_id, key_mac, last4)
                SELECT $1[1 + n % 2], sha256(n::text::bytea), 'last' FROM generate_series(0, $2 - 1) n RETURNING id)
             INSERT INTO key_budgets (api_key_id) SELECT id FROM k RETURNING api_key_id AS id""".replace(
                "$1[", "($1::bigint[])["
            ),
            self.account_ids,
            KEYS,
        )
        self.key_ids = [row["id"] for row in rows]
        self.keys = [Key(self.accounts[n % 2]) for n in range(KEYS)]
        for number in range(ACCOUNTS):
            if credits:
                self.post(number, "topup", credits, f"first-{number}", None, None)
        for number in range(KEYS):
            self.change("limits", number, data)
        if data.draw(st.booleans()):
            self.books.rows("UPDATE key_budgets SET family = $1 WHERE api_key_id = ANY($2)", *self.one_family())

    def one_family(self) -> tuple[int, list[int]]:
        for key in self.keys[0::ACCOUNTS]:
            key.family = self.keys[0::ACCOUNTS]
        return self.key_ids[0], self.key_ids[0::ACCOUNTS]

    def start_of(self, key: Key) -> date:
        return {"total": EVER, "day": self.today, "month": self.today.replace(day=1)}[key.period]

    # --- holds

    @rule(key=st.integers(0, KEYS - 1), data=st.data())
    def accept(self, key: int, data: st.DataObject) -> None:
        self.reserve(key, data, is_begun=False)

    @rule(key=st.integers(0, KEYS - 1), data=st.data())
    def begin(self, key: int, data: st.DataObject) -> None:
        self.reserve(key, data, is_begun=True)

    def ids(self) -> st.SearchStrategy[UUID]:
        """Mostly new ones; now and then one is sent again, as after a lost answer."""
        new = st.just(UUID(int=len(self.tasks) + 1))
        return st.one_of(new, new, new, st.sampled_from(list(self.tasks))) if self.tasks else new

    def reserve(self, number: int, data: st.DataObject, *, is_begun: bool) -> None:
        id, key = data.draw(self.ids()), self.keys[number]
        left = None if key.limit is None else key.limit - key.held - key.spent_since(self.start_of(key))
        edges = {
            edge for base in (key.account.free, left) if base is not None for edge in (base, base + 1) if edge >= 0
        }
        hold = data.draw(HOLDS | st.sampled_from(sorted(edges | {0})))
        idem, print_ = (
            data.draw(st.none() | st.sampled_from("xyz")),
            data.draw(st.sampled_from([b"one", b"one", b"two"])),
        )
        before = self.sent.get((number % ACCOUNTS, idem))
        expected: Any = None
        if before is not None and before != (id, print_):
            expected = before[0] if before[1] == print_ else "MG400"
        else:
            expected = refusal_of(key, hold, self.start_of(key))
            expected = expected or ("23505" if id in self.tasks else None)  # nobody pays twice for one id
            expected = expected or refusal_of_family(key, hold, self.start_of(key))

        if is_begun:
            sql = """SELECT meant FROM mg_begin($1, $2, 'image', 'm', 'p/m', $3, 900, '{"operation": "image.generate"}',
                '[]', 'test', 'me', 60, 900, 1000, $4, $5)"""
        else:
            sql = """SELECT mg_accept($1, $2, 'image', 'm', 'p/m', $3, 900, '{"operation": "image.generate"}',
                '[]', $4, $5)"""
        answer = self.books.call(sql, id, self.key_ids[number], hold, idem, print_)

        assert answer == (expected or id)
        if expected is None:
            start = self.start_of(key)
            key.spent, key.since = key.spent_since(start), start
            for counter in (key, key.account):
                counter.held += hold
                counter.in_flight += 1
            self.tasks[id] = Task(key, hold, token=int(is_begun))
            if idem is not None:
                self.sent[number % ACCOUNTS, idem] = (id, print_)

    def a_task(self, data: st.DataObject) -> tuple[UUID, Task]:
        is_open = {id: task for id, task in self.tasks.items() if task.is_open}
        any_of = self.tasks if data.draw(st.integers(0, 4)) == 4 else is_open
        return data.draw(st.sampled_from(list((any_of or self.tasks).items())))

    @precondition(lambda self: self.tasks)
    @rule(
        data=st.data(),
        part=st.sampled_from(["nothing", "all", "all", "some", "some", "too much", "less than nothing"]),
        status=st.sampled_from(["cancelled", "cancelled", "failed"]),
        lease=st.sampled_from(["none", "ours", "ours", "lost"]),
    )
    def settle(self, data: st.DataObject, part: str, status: str, lease: str) -> None:
        id, task = self.a_task(data)
        charge = {"nothing": 0, "all": task.hold, "some": task.hold // 2, "too much": task.hold + 1}.get(part, -1)
        token = {"none": None, "ours": task.token, "lost": task.token + 1}[lease]

        answer = self.books.call("SELECT mg_settle($1, $2, $3, $4)", id, token, status, charge)

        if not task.is_open or lease == "lost":
            assert answer is False
        elif not 0 <= charge <= task.hold or (status == "failed" and charge):
            assert answer == "23514"
        else:
            assert answer is True
            task.settle(charge, self.start_of(task.key))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), is_partial=st.booleans(), is_lost=SELDOM)
    def finish(self, data: st.DataObject, is_partial: bool, is_lost: bool) -> None:
        id, task = self.a_task(data)
        charge, token = task.hold // 2 if is_partial else task.hold, task.token + is_lost
        file = f"""[{{"id": "{id}", "role": "result", "position": 0, "storage_key": "{id.hex}", "mime": "image/png",
            "bytes": 8, "sha256": "00", "ttl_s": 9}}]"""

        answer = self.books.call("SELECT mg_finish($1, $2, $3, $4, '{}')", id, token, charge, file)

        if not task.is_open:
            assert answer is task.is_delivered  # a repeat finds its own file: the answer was lost, not the work
        elif is_lost:
            assert answer is False
        elif token == 0:
            assert answer == "MG003"  # never begun
        else:
            assert answer is True
            task.is_delivered = True
            task.settle(charge, self.start_of(task.key))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), is_lost=SELDOM)
    def fail(self, data: st.DataObject, is_lost: bool) -> None:
        id, task = self.a_task(data)

        answer = self.books.call(
            "SELECT mg_fail($1, $2, 'upstream_error', 'It failed.', 'failed', 'x')", id, task.token + is_lost
        )

        assert answer is (task.is_open and not is_lost)
        if answer:
            task.settle(0, self.start_of(task.key))

    # --- entries

    @rule(
        number=st.integers(0, ACCOUNTS - 1),
        kind=st.sampled_from(["topup", "grant", "adjust", "adjust"]),
        ref=st.sampled_from("abcdefghijklmnopqrstuvwxyz"),
        hours=st.none() | st.integers(-5, 50),
        data=st.data(),
    )
    def post_anything(self, number: int, kind: str, ref: str, hours: int | None, data: st.DataObject) -> None:
        account = self.accounts[number]
        edges = [-account.free, -account.free - 1, -account.posted]
        amount = data.draw(AMOUNTS | st.sampled_from(edges) if kind == "adjust" else AMOUNTS)
        self.post(number, kind, amount, ref, hours, None)

    @precondition(lambda self: any(task.charge for task in self.tasks.values()))
    @rule(data=st.data(), ref=st.sampled_from("abcdefghijkl"))
    def refund(self, data: st.DataObject, ref: str) -> None:
        id = data.draw(st.sampled_from([id for id, task in self.tasks.items() if task.charge]))
        task = self.tasks[id]
        left, owner = task.charge - task.refunded, self.accounts.index(task.key.account)
        edges = st.sampled_from([left, left + 1, task.charge, 1])
        if data.draw(st.booleans()):
            self.post(owner, "refund", data.draw(edges), ref, None, id)
            return
        amount = data.draw(st.none() | st.integers(0, 12) | edges)
        known = self.posts.get(("refund", ref))
        if known is not None:
            is_same = known[3] == id and amount in (None, known[1])
            expected: Any = (known[2], known[1], False) if is_same else "MG409"
        elif left <= 0:
            expected = "MG410"
        elif amount is not None and not 0 < amount <= left:
            expected = "MG409" if amount else "23514"
        else:
            expected = None

        answer = self.books.call("SELECT mg_refund($1, $2, $3, 'test', NULL)", id, amount, ref)

        if expected is not None:
            assert answer == expected
        else:
            given = left if amount is None else amount
            assert answer[1:] == (given, True)
            self.note_post(owner, "refund", given, ref, id, answer[0])

    def post(self, number: int, kind: str, amount: int, ref: str, hours: int | None, task_id: UUID | None) -> None:
        account, task = self.accounts[number], self.tasks.get(task_id) if task_id else None
        known = self.posts.get((kind, ref))
        if known is not None:
            expected = known[2] if known[0] is account and known[1] == amount else "MG409"
        elif account.free + amount < 0:
            expected = "MG402"
        elif task is not None and amount > task.charge - task.refunded:
            expected = "MG409"
        elif amount == 0 or (amount < 0 and kind != "adjust"):
            expected = "23514"
        else:
            expected = None

        answer = self.books.call(
            "SELECT mg_post($1, $2, $3, $4, $5, 'test', now() + $6::int * interval '1 hour', $7)",
            self.account_ids[number], kind, CONTRA[kind], amount, ref, hours, task_id,
        )  # fmt: skip

        if expected is not None:
            assert answer == expected
            return
        assert type(answer) is int
        self.note_post(number, kind, amount, ref, task_id, answer)
        if amount > 0 and hours is not None:
            [row] = self.books.rows("SELECT id FROM credit_lots WHERE ledger_id = $1", answer)
            account.lots[row["id"]] = Lot(amount, hours)

    def note_post(self, number: int, kind: str, amount: int, ref: str, task_id: UUID | None, entry: int) -> None:
        account = self.accounts[number]
        self.posts[kind, ref] = (account, amount, entry, task_id)
        if task_id is not None:
            self.tasks[task_id].refunded += amount
        if amount < 0:
            account.take(-amount)
        else:
            account.entries.append(amount)

    @precondition(lambda self: any(account.lots for account in self.accounts))
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        lots = [(id, lot, account) for account in self.accounts for id, lot in account.lots.items()]
        id, lot, account = data.draw(st.sampled_from(lots))
        amount = 0 if lot.hours_left > 0 else max(0, min(lot.remaining, account.free))

        assert self.books.call("SELECT mg_expire($1)", id) == amount

        if amount:
            lot.remaining -= amount
            account.entries.append(-amount)

    # --- what operators and the clock do

    @rule(
        what=st.sampled_from(CHANGES),
        number=st.integers(0, KEYS - 1),
        data=st.data(),
    )
    def change(self, what: str, number: int, data: st.DataObject) -> None:
        key, account = self.keys[number], self.accounts[number % ACCOUNTS]
        if what == "limits":
            key.limit = data.draw(st.none() | st.integers(5, 60))
            key.period = data.draw(st.sampled_from(["total", "day", "month"]))
            key.max_in_flight = data.draw(st.none() | st.integers(0, 3))
            self.books.rows(
                "UPDATE key_budgets SET limit_amount = $2, period = $3, max_in_flight = $4 WHERE api_key_id = $1",
                self.key_ids[number], key.limit, key.period, key.max_in_flight,
            )  # fmt: skip
        elif what == "hours":
            hours = data.draw(st.integers(1, 60))
            self.books.rows("UPDATE credit_lots SET expires_at = expires_at - $1::int * interval '1 hour'", hours)
            for lot in (lot for each in self.accounts for lot in each.lots.values()):
                lot.hours_left -= hours
        elif what == "days":
            days = data.draw(st.sampled_from([1, 32]))
            self.books.rows("UPDATE key_budgets SET period_start = period_start - $1::int", days)
            for each in self.keys:
                each.since = EVER if each.since == EVER else each.since - timedelta(days)
        elif what == "revoke":
            self.books.rows("UPDATE api_keys SET revoked_at = now() WHERE id = $1", self.key_ids[number])
            key.is_alive = False
        else:
            state = "suspended" if what == "suspend" else "active"
            self.books.rows("UPDATE accounts SET state = $2 WHERE id = $1", self.account_ids[number % ACCOUNTS], state)
            account.is_active = what == "resume"

    # --- after each step

    @invariant()
    def the_books_are_the_models(self) -> None:
        if not hasattr(self, "keys"):
            return
        rows = self.books.rows(ACCOUNT_ROWS)
        assert [tuple(row) for row in rows] == [
            (
                account.posted,
                account.held,
                account.in_flight,
                sum(lot.remaining for lot in account.lots.values()),
                len(account.entries),
                account.posted,
            )
            for account in self.accounts
        ]
        assert all(0 <= account.held <= account.posted for account in self.accounts)
        rows = self.books.rows(KEY_ROWS)
        assert [tuple(row) for row in rows] == [(k.spent, k.held, k.in_flight, k.since) for k in self.keys]
        assert {row["id"]: (row["is_open"], row["charge"]) for row in self.books.rows(TASK_ROWS)} == {
            id: (task.is_open, task.charge) for id, task in self.tasks.items()
        }
        assert {row["id"]: row["remaining"] for row in self.books.rows(LOT_ROWS)} == {
            id: lot.remaining for account in self.accounts for id, lot in account.lots.items()
        }

    @invariant()
    def the_audit_finds_nothing(self) -> None:
        assert self.books.rows(VIOLATIONS) == []


@pytest.fixture
def books(fresh_database: Callable[..., str]) -> Iterator[Books]:
    books = Books(fresh_database(migrated=True))
    yield books
    books.close()


@pytest.mark.timeout(DEPTH.timeout_s)
def test_any_sequence_of_calls_leaves_the_books_as_a_plain_model_has_them(books: Books) -> None:
    run_state_machine_as_test(lambda: LedgerMachine(books), settings=DEPTH.machine_settings())
