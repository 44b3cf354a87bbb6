"""One-time links: they work once, for a while, and for one account."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from pydantic import SecretStr

from app.accounts.invitations import Invitations, join_url
from app.db import once
from app.errors import AccountNotFound, InvalidParameter, LinkExpired
from app.journal import Actor
from app.values import utcnow
from tests.accounts.conftest import PASSWORD, PEER
from tests.factories import make_account

NEW = "a wholly new password"
BOSS = Actor("boss@example.test", "req_1")


async def test_a_link_sets_the_first_password_once(engine, invitations, logins):
    account = await make_account(engine, credits=0)
    token = await invitations.invite(account.email, actor=BOSS)

    found = await invitations.find(token)
    assert (found.account_id, found.email, found.purpose) == (account.id, account.email, "invite")
    assert await invitations.accept(token, NEW) == account.id

    assert (await logins.sign_in(account.email, NEW, peer=PEER)).account_id == account.id
    for use in (invitations.find(token), invitations.accept(token, NEW)):
        with pytest.raises(LinkExpired):
            await use
    assert join_url("https://m.example", token) == f"https://m.example/console/join/{token}"


async def test_of_two_who_use_a_link_at_once_one_sets_the_password(engine, invitations):
    account = await make_account(engine, credits=0)
    token = await invitations.invite(account.id)

    told = await asyncio.gather(*(invitations.accept(token, f"{NEW} {n}") for n in range(4)), return_exceptions=True)

    assert told.count(account.id) == 1
    assert sum(isinstance(answer, LinkExpired) for answer in told) == 3


async def test_a_link_ends_by_time_by_a_newer_one_and_with_its_account(engine, invitations):
    account = await make_account(engine, credits=0)
    token = await invitations.invite(account.id, purpose="first_admin")

    assert await invitations.find(token, now=utcnow() + timedelta(minutes=59))
    with pytest.raises(LinkExpired):
        await invitations.accept(token, NEW, now=utcnow() + timedelta(minutes=61))
    newer = await invitations.invite(account.id)
    with pytest.raises(LinkExpired):
        await invitations.find(token)
    await once(engine, "UPDATE accounts SET state = 'closed' WHERE id = $1", (account.id,))
    with pytest.raises(LinkExpired):
        await invitations.accept(newer, NEW)
    with pytest.raises(AccountNotFound):
        await invitations.invite(account.id)


async def test_a_weak_password_does_not_use_the_link_up(invitations, account):
    token = await invitations.invite(account.id, purpose="reset", reason="She asked.")

    with pytest.raises(InvalidParameter):
        await invitations.accept(token, "short")

    assert await invitations.accept(token, NEW) == account.id


async def test_a_reset_ends_every_session_and_says_why(engine, invitations, sessions, logins, account):
    opened = await sessions.open(account.id, user_agent=None, peer=None)
    with pytest.raises(InvalidParameter, match="reason"):
        await invitations.invite(account.id, purpose="reset", actor=BOSS)

    token = await invitations.invite(account.id, purpose="reset", reason="She forgot it.", actor=BOSS)
    assert await logins.sign_in(account.email, PASSWORD, peer=PEER)  # nothing has changed yet
    await invitations.accept(token, NEW)

    assert await sessions.find(opened.token) is None
    rows = await once(
        engine, "SELECT * FROM audit WHERE target = $1 AND action = 'account.link'", (f"account:{account.id}",)
    )
    assert (rows[0]["actor"], rows[0]["after"]["reason"]) == (BOSS.name, "She forgot it.")
    assert token not in str(dict(rows[0]))


async def test_who_has_a_password_gets_another_one_only_by_a_reset(invitations, account):
    for purpose in ("invite", "first_admin"):
        with pytest.raises(InvalidParameter, match="has a password already"):
            await invitations.invite(account.id, purpose=purpose)


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "\u00fc" * 43, "A" * 1000])
async def test_a_made_up_link_is_told_the_same(invitations, token):
    with pytest.raises(LinkExpired):
        await invitations.find(token)
    with pytest.raises(LinkExpired):
        await invitations.accept(token, NEW)


async def test_a_link_that_we_did_not_sign_costs_no_query(engine, invitations, passwords, account):
    token = await invitations.invite(account.id, purpose="reset", reason="forgotten")

    for made_up in (token[:-1] + ("A" if token[-1] != "A" else "B"), "A" * 56):
        with pytest.raises(LinkExpired):
            await Invitations(None, passwords).find(made_up)
    with pytest.raises(LinkExpired):
        await Invitations(engine, passwords, secret=SecretStr("another")).find(token)
    assert await invitations.find(token)


async def test_a_link_lives_a_month_at_most(invitations, account):
    with pytest.raises(InvalidParameter):
        await invitations.invite(account.id, ttl=timedelta(days=31))
