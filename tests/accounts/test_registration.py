"""People who register: an account, a password and first credits, all or nothing."""

from __future__ import annotations

from uuid import uuid4

import pytest

from app.accounts.registration import Registration
from app.credits.audit import Audit
from app.credits.ledger import Ledger
from app.credits.lines import grant_first
from app.db import once
from app.errors import AccountExists, InvalidParameter, RegistrationClosed, TooManyTries
from tests.accounts.conftest import PASSWORD


async def test_who_registers_can_sign_in_and_spend(engine, registration, logins, peer):
    email = f"{uuid4().hex}@example.test"

    made = await registration.register(f" {email} ", "Ada", PASSWORD, peer=peer)

    assert (await logins.sign_in(email, PASSWORD, peer=peer)).account_id == made
    assert (await Ledger(engine).balance(made)).credits == 100
    lines = await once(engine, "SELECT kind, contra, amount FROM ledger WHERE account_id = $1", (made,))
    assert [tuple(line.values()) for line in lines] == [("grant", "promo", 100)]
    noted = await once(engine, "SELECT action, actor FROM audit WHERE target = $1 ORDER BY id", (f"account:{made}",))
    assert [row["action"] for row in noted] == ["account.create", "credits.grant", "account.password"]
    assert {row["actor"] for row in noted} == {email}
    findings = await Audit(engine).run()  # of a database that other tests write too
    assert [finding for finding in findings if f"account {made}" in finding.violations] == []


async def test_nobody_registers_unless_that_is_allowed(engine, passwords, peer):
    closed = Registration(engine, passwords, is_open=False, credits=0, grant=grant_first)

    with pytest.raises(RegistrationClosed):
        await closed.register("ada@example.test", "Ada", PASSWORD, peer=peer)


async def test_what_fails_leaves_nothing(engine, passwords, peer):
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    email = f"{uuid4().hex}@example.test"
    with pytest.raises(ZeroDivisionError):
        await Registration(engine, passwords, is_open=True, credits=1, grant=broken).register(
            email, "", PASSWORD, peer=peer
        )

    assert not await once(engine, "SELECT 1 FROM accounts WHERE email = $1", (email,))


async def test_bad_input_is_named(registration, account, peer):
    for email, name, password in (
        ("no address", "Ada", PASSWORD),
        ("a@b\0", "Ada", PASSWORD),
        (f"{uuid4().hex}@example.test", "A\nda", PASSWORD),
        (f"{uuid4().hex}@example.test", "Ada", "short"),
    ):
        with pytest.raises(InvalidParameter):
            await registration.register(email, name, password, peer=None)
    with pytest.raises(AccountExists):
        await registration.register(account.email.upper(), "", PASSWORD, peer=None)


async def test_one_place_registers_a_few_and_then_waits(registration, peer):
    for _ in range(5):
        await registration.register(f"{uuid4().hex}@example.test", "", PASSWORD, peer=peer)

    with pytest.raises(TooManyTries):
        await registration.register(f"{uuid4().hex}@example.test", "", PASSWORD, peer=peer)
    await registration.register(f"{uuid4().hex}@example.test", "", PASSWORD, peer="198.51.100.77")
