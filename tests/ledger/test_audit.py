"""The audit: silent on healthy books, and each invariant finds the damage it is there for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.credits.audit import Audit, Finding
from app.values import task_public_id
from tests.factories import RESULT_BYTES, accept_task, finish_task, make_account, make_key

ALL = {f"I{number}" for number in range(1, 10)}


@dataclass(frozen=True)
class Books:
    """Healthy books of one account: a finished task, an open one, and a released one."""

    engine: AsyncEngine
    owner: AsyncEngine
    account_id: int
    key_id: int
    finished: UUID
    open: UUID

    @property
    def stored(self) -> list[tuple[str, float, int]]:
        return [(self.key_of(self.finished), time.time(), RESULT_BYTES)]

    @staticmethod
    def key_of(task: UUID) -> str:
        return f"{task.hex[:2]}/{task.hex}"

    async def damage(self, sql: str, *arguments: object) -> None:
        """Change a row as nothing but a broken disk or a careless owner could: no trigger, no foreign key."""
        async with db.transaction(self.owner) as connection:
            await connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            changed = await connection.exec_driver_sql(sql, arguments)
            assert changed.rowcount == 1

    async def put_file(self, state: str, *, age: str = "0") -> str:
        """Plant a files row of the finished task; return its storage key."""
        key = f"aa/{uuid4().hex}"
        await self.damage(
            """INSERT INTO files (id, account_id, task_id, role, storage_key, state, mime, bytes, sha256, expires_at,
               created_at) VALUES ($1, $2, $3, 'thumbnail', $4, $5, 'image/webp', 9, '\\x00', now(),
               now() - $6::text::interval)""",
            uuid4(), self.account_id, self.finished, key, state, age,
        )  # fmt: skip
        return key


@pytest.fixture
async def books(fresh_database: Callable[..., str]) -> AsyncIterator[Books]:
    url = fresh_database(migrated=True)
    engine, owner = db.make_engine(url, pool_size=2), db.make_engine(url, role=None, pooled=False)
    account = await make_account(engine)
    await make_account(engine, credits=0)
    key = await make_key(engine, account)
    finished = await finish_task(engine, key, hold=30, charge=20)
    released = await accept_task(engine, key, hold=5)
    await db.once(engine, "SELECT mg_settle($1, NULL, 'cancelled', 0)", (released,))
    yield Books(engine, owner, account.id, key.id, finished, await accept_task(engine, key, hold=7))
    await engine.dispose()
    await owner.dispose()


def broken(findings: list[Finding]) -> dict[str, list[str]]:
    return {finding.invariant: finding.violations for finding in findings if not finding.is_clean}


async def test_healthy_books_pass_every_invariant_and_say_what_was_checked(books: Books):
    findings = await Audit(books.engine).run(books.stored)

    assert broken(findings) == {}
    assert {finding.invariant for finding in findings} == {*ALL, "I10"}
    checked = {finding.invariant: finding.checked for finding in findings}
    assert checked == {"I1": 2, "I2": 2, "I3": 3, "I4": 2, "I5": 1, "I6": 2, "I7": 3, "I8": 3, "I9": 3, "I10": 1}


async def test_without_a_list_of_objects_the_storage_is_not_judged(books: Books):
    findings = await Audit(books.engine).run()

    assert {finding.invariant for finding in findings} == ALL


DAMAGE = {
    "I1": ("UPDATE accounts SET posted = posted + 1 WHERE id = $1", "account"),
    "I2": ("UPDATE accounts SET held = held + 1 WHERE id = $1", "account"),
    "I3": ("UPDATE tasks SET charge = charge - 1 WHERE id = $1", "finished"),
    "I4": ("UPDATE ledger SET balance = balance + 1 WHERE task_id = $1", "capture"),
    "I5": ("UPDATE key_budgets SET held = held + 1 WHERE api_key_id = $1", "key"),
    "I6": ("UPDATE accounts SET expiring = 1 WHERE id = $1", "account"),
    "I7": ("UPDATE tasks SET deadline_at = now() - interval '11 minutes' WHERE id = $1", "open"),
    "I8": ("UPDATE files SET role = 'thumbnail' WHERE task_id = $1", "finished"),
    "I9": ("UPDATE task_attempts SET state = 'uncertain' WHERE task_id = $1", "finished"),
}


@pytest.mark.parametrize("invariant", DAMAGE)
async def test_planted_damage_is_found_by_its_invariant_alone_and_named(books: Books, invariant: str):
    sql, place = DAMAGE[invariant]
    named = {
        "account": f"account {books.account_id}",
        "key": f"key {books.key_id}",
        "finished": f"task {task_public_id(books.finished)}",
        "open": f"task {task_public_id(books.open)}",
    }
    if place == "capture":
        row = await db.once(books.engine, "SELECT id FROM ledger WHERE task_id = $1", (books.finished,))
        named["capture"] = f"ledger row {row[0]['id']}"
    target: int | UUID = {"account": books.account_id, "key": books.key_id, "open": books.open}.get(
        place, books.finished
    )

    await books.damage(sql, target)

    assert broken(await Audit(books.engine).run(books.stored)) == {invariant: [named[place]]}


MORE_DAMAGE = {
    "a missing entry": ("DELETE FROM ledger WHERE kind = 'capture'", {"I1", "I3"}),
    "a counter of entries": ("UPDATE accounts SET entry_seq = entry_seq + 1 WHERE posted > 0", {"I1"}),
    "a counter of tasks": ("UPDATE accounts SET in_flight = 0 WHERE posted > 0", {"I2"}),
    "a key's counter of tasks": ("UPDATE key_budgets SET in_flight = 0", {"I5"}),
    "a capture without a charge": ("UPDATE tasks SET charge = 0 WHERE status = 'succeeded'", {"I3"}),
    "files that are gone": ("DELETE FROM files", {"I8", "I10"}),
    "a gap in the numbers": ("UPDATE ledger SET seq = seq + 1 WHERE kind = 'capture'", {"I1"}),
}


@pytest.mark.parametrize("what", MORE_DAMAGE)
async def test_other_forms_of_damage_are_found_too(books: Books, what: str):
    sql, invariants = MORE_DAMAGE[what]

    await books.damage(sql)

    old = [(key, time.time() - 3600, size) for key, _, size in books.stored]
    assert broken(await Audit(books.engine).run(old)).keys() == invariants


async def test_a_ready_file_without_its_object_is_found(books: Books):
    findings = await Audit(books.engine).run([])

    [violation] = broken(findings)["I10"]
    assert "missing" in violation
    assert books.key_of(books.finished) in violation


async def test_an_object_of_another_size_is_found(books: Books):
    findings = await Audit(books.engine).run([(books.key_of(books.finished), time.time(), RESULT_BYTES - 1)])

    [violation] = broken(findings)["I10"]
    assert str(RESULT_BYTES - 1) in violation


@pytest.mark.parametrize(("age_s", "is_found"), [(0, False), (590, False), (610, True)])
async def test_an_object_of_no_file_is_found_once_it_is_old(books: Books, age_s: int, is_found: bool):
    findings = await Audit(books.engine).run([*books.stored, ("zz/stray", time.time() - age_s, 5)])

    assert broken(findings) == ({"I10": ["object zz/stray belongs to no file"]} if is_found else {})


async def test_an_object_that_outlived_its_deletion_is_found(books: Books):
    key = await books.put_file("deleted")

    assert broken(await Audit(books.engine).run(books.stored)) == {}
    [violation] = broken(await Audit(books.engine).run([*books.stored, (key, time.time(), 9)]))["I10"]
    assert "still there" in violation


@pytest.mark.parametrize(("age", "is_found"), [("9 minutes", False), ("11 minutes", True)])
async def test_a_file_that_is_never_finished_is_found_once_it_is_old(books: Books, age: str, is_found: bool):
    await books.put_file("writing", age=age)

    assert bool(broken(await Audit(books.engine).run(books.stored))) is is_found


async def test_a_file_deleted_while_we_look_is_no_violation(books: Books):
    engine, key = books.engine, books.key_of(books.finished)

    class DeletedMeanwhile(Audit):
        async def _still_so(self, keys, before):  # type: ignore[no-untyped-def]
            await db.once(engine, "UPDATE files SET state = 'deleted' WHERE storage_key = $1", (key,))
            return await super()._still_so(keys, before)

    assert broken(await DeletedMeanwhile(engine).run([])) == {}


async def test_the_audit_can_change_nothing(books: Books, monkeypatch: pytest.MonkeyPatch):
    update = ("I0", "not a question", "accounts", "account", "UPDATE accounts SET name = 'x' RETURNING id")
    monkeypatch.setattr("app.credits.audit._INVARIANTS", (update,))

    with pytest.raises(DBAPIError) as refused:
        await Audit(books.engine).run(books.stored)

    assert db.sqlstate_of(refused.value) == "25006"  # read-only transaction
