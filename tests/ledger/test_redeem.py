"""Redeem codes: however many come at once, a code is worth its credits once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.credits.audit import Audit
from app.credits.ledger import Ledger
from app.credits.redeem import CHARS, Codes, CodeSearch, Redeemed
from app.credits.statements import Statements
from app.errors import AccountSuspended, BalanceTooHigh, RedeemCodeRefused, TooManyRequests
from app.journal import Actor
from app.values import MAX_CREDITS, utcnow
from tests.factories import make_account, make_key

ADMIN, USER = Actor("root@example.test (key_1)"), Actor("user")
AT_ONCE = 32


@pytest.fixture
def books(fresh_database: Callable[..., str]) -> str:
    """A database that nobody else writes: the whole of it is audited."""
    return fresh_database(migrated=True)


@pytest.fixture
async def crowd(books: str) -> AsyncIterator[AsyncEngine]:
    """As many real connections as there are callers."""
    engine = db.make_engine(books, pool_size=AT_ONCE, wait_s=60, session={"lock_timeout": "20s"})
    yield engine
    await engine.dispose()


async def redeem_as(crowd: AsyncEngine, account_id: int, code: str) -> Redeemed:
    key = await make_key(crowd, account_id)
    return await Codes(crowd).redeem(account_id, code, key_id=key.id, actor=USER)


async def lines_of(engine: AsyncEngine, reference: str) -> int:
    [row] = await db.once(engine, "SELECT count(*) AS n FROM ledger WHERE external_ref = $1", (reference,))
    return int(row["n"])


@pytest.mark.parametrize("accounts", [1, AT_ONCE])
async def test_thirty_two_redemptions_of_one_code_at_once_are_exactly_one_entry(
    crowd: AsyncEngine, accounts: int
) -> None:
    codes = Codes(crowd)
    [code] = (await codes.create(count=1, amount=100, actor=ADMIN)).codes
    rivals = [await make_account(crowd, credits=0) for _ in range(accounts)]
    keys = [(await make_key(crowd, rival)).id for rival in rivals]

    async def redeem(number: int) -> str:
        try:
            rival = number % accounts
            done = await codes.redeem(rivals[rival].id, code, key_id=keys[rival], actor=USER)
        except RedeemCodeRefused:
            return "refused"
        return f"{'new' if done.is_new else 'again'} {done.reference}"

    answers = Counter(await asyncio.gather(*(redeem(number) for number in range(AT_ONCE))))

    [reference] = {answer.split()[1] for answer in answers if answer != "refused"}
    assert answers[f"new {reference}"] == 1
    assert answers["refused" if accounts > 1 else f"again {reference}"] == AT_ONCE - 1
    assert await lines_of(crowd, reference) == 1
    balances = [(await Ledger(crowd).balance(rival.id)).credits for rival in rivals]
    assert sum(balances) == 100
    audited = await db.once(
        crowd,
        "SELECT 1 FROM audit WHERE action = 'credits.redeem' AND after->>'code' = $1",
        (reference.replace("redeem:", "code_"),),
    )
    assert len(audited) == 1
    assert [finding for finding in await Audit(crowd).run() if not finding.is_clean] == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE redeem_codes SET amount = 5",
        "UPDATE redeem_codes SET redeemed_at = NULL",
        "DELETE FROM redeem_codes",
        "UPDATE redeem_tries SET wrong = 0",
        "UPDATE accounts SET is_admin = true",
    ],
)
async def test_the_application_moves_a_code_through_its_function_alone(crowd: AsyncEngine, sql: str) -> None:
    with pytest.raises(DBAPIError) as caught:
        await db.once(crowd, sql)

    assert db.sqlstate_of(caught.value) == "42501"


async def test_guesses_at_once_are_counted_one_by_one_and_lock_out_no_other_key(crowd: AsyncEngine) -> None:
    account, codes = await make_account(crowd, credits=0), Codes(crowd)
    leaked = await make_key(crowd, account)

    async def guess(number: int) -> str:
        try:
            await codes.redeem(account.id, f"GUESS{number}", key_id=leaked.id, actor=USER)
        except (RedeemCodeRefused, TooManyRequests) as error:
            return error.reason
        raise AssertionError("a guess was right")

    answers = Counter(await asyncio.gather(*(guess(number) for number in range(AT_ONCE))))

    assert answers == {"redeem_code_refused": 10, "too_many_requests": AT_ONCE - 10}
    [code] = (await codes.create(count=1, amount=5, actor=ADMIN)).codes
    assert (await redeem_as(crowd, account.id, code)).balance == 5


async def test_the_books_hold_no_code_and_call_it_what_it_was(crowd: AsyncEngine) -> None:
    account, codes = await make_account(crowd, credits=0), Codes(crowd)
    batch = await codes.create(count=2, amount=7, kind="topup", note="ten pictures", actor=ADMIN)

    await redeem_as(crowd, account.id, batch.codes[0])

    [entry] = (await Statements(crowd).ledger(account.id)).entries
    assert (entry.kind, entry.amount, entry.note, entry.actor) == ("topup", 7, "ten pictures", "user")
    rows = await db.once(crowd, "SELECT to_jsonb(c)::text AS text FROM redeem_codes c")
    assert len(set(batch.codes)) == 2
    for code in batch.codes:
        assert len(code.replace("-", "")) == CHARS
        assert not any(code in row["text"] or code.replace("-", "") in row["text"] for row in rows)
        assert code not in repr(batch)


async def test_a_code_that_is_late_or_would_burst_the_balance_or_comes_from_a_suspended_account_adds_nothing(
    crowd: AsyncEngine, books: str
) -> None:
    codes = Codes(crowd)
    batch = await codes.create(count=2, amount=MAX_CREDITS, expires_at=utcnow() + timedelta(hours=1), actor=ADMIN)
    rich, poor, still = [await make_account(crowd, credits=credits) for credits in (1, 0, 0)]
    await db.once(crowd, "UPDATE accounts SET state = 'suspended' WHERE id = $1", (still.id,))

    with pytest.raises(BalanceTooHigh):
        await redeem_as(crowd, rich.id, batch.codes[0])
    with pytest.raises(AccountSuspended):
        await redeem_as(crowd, still.id, batch.codes[0])
    owner = db.make_engine(books, role=None, pooled=False)
    await db.once(owner, "UPDATE redeem_codes SET expires_at = now() WHERE last4 = $1", (batch.codes[1][-4:],))
    await owner.dispose()
    with pytest.raises(RedeemCodeRefused, match="expired"):
        await redeem_as(crowd, poor.id, batch.codes[1])

    found, _ = await codes.search(CodeSearch(batch=batch.id))
    assert [code.state for code in found] == ["expired", "open"]
