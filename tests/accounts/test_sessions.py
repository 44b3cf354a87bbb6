"""Sessions: how long they live, who may see and end them, and what the database knows of a token."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from pydantic import SecretStr

from app.accounts.sessions import IDLE, LONGEST, PER_ACCOUNT, Sessions, csrf_of
from app.accounts.users import Accounts
from app.db import once
from app.errors import AccountNotFound, InvalidParameter, LinkExpired
from app.journal import Actor
from app.values import utcnow
from tests.factories import make_account

SECOND = timedelta(seconds=1)


@pytest.fixture
def open_one(sessions, account):
    async def open_one(agent: str | None = "Firefox"):
        return await sessions.open(account.id, user_agent=agent, peer="192.0.2.7")

    return open_one


async def test_a_session_knows_its_account_and_its_key(sessions, account, open_one):
    opened = await open_one()

    found = await sessions.find(opened.token)

    assert found == opened.session
    assert (found.account_id, found.email, found.is_admin) == (account.id, account.email, False)
    assert (found.language, found.theme) == (None, "system")
    assert found.csrf == csrf_of(opened.token)
    assert (await open_one()).session.key_id == found.key_id


async def test_neither_the_token_nor_what_forms_send_is_in_the_database_or_in_a_log(engine, open_one):
    opened = await open_one()

    rows = await once(engine, "SELECT * FROM sessions WHERE id = $1", (int(opened.session.id.removeprefix("ses_")),))

    for secret in (opened.token, opened.session.csrf):
        assert secret not in str(dict(rows[0]))
        assert secret.encode() not in bytes(rows[0]["token_hash"])
        assert secret not in repr(opened)
    assert opened.session.csrf != opened.token


async def test_a_session_ends_twelve_hours_after_its_last_use(sessions, open_one):
    opened = await open_one()
    used_at = opened.session.created_at + IDLE - SECOND

    assert await sessions.find(opened.token, now=used_at)
    assert await sessions.find(opened.token, now=used_at + IDLE - SECOND)
    assert await sessions.find(opened.token, now=used_at + 2 * IDLE) is None


async def test_a_session_ends_after_a_week_however_much_it_is_used(sessions, open_one):
    opened = await open_one()
    end = opened.session.created_at + LONGEST
    moment = opened.session.created_at
    while (moment := moment + IDLE / 2) < end:
        assert await sessions.find(opened.token, now=moment)

    assert await sessions.find(opened.token, now=end - SECOND)
    assert await sessions.find(opened.token, now=end) is None


async def test_being_seen_is_written_down_once_a_minute_at_most(sessions, open_one):
    opened = await open_one()
    begun = opened.session.seen_at

    await sessions.find(opened.token, now=begun + timedelta(seconds=59))
    soon = await sessions.find(opened.token, now=begun + timedelta(seconds=59))
    await sessions.find(opened.token, now=begun + timedelta(seconds=61))
    later = await sessions.find(opened.token, now=begun + timedelta(seconds=61))

    assert soon.seen_at == begun
    assert later.seen_at == begun + timedelta(seconds=61)


@pytest.mark.parametrize(
    "token", ["", "x", "A" * 43, "A" * 56, "A" * 57, "\u00fc" * 56, "A" * 55 + "\0", "A" * 54 + "=="]
)
async def test_what_somebody_made_up_opens_nothing_and_costs_no_query(token):
    assert await Sessions(None).find(token) is None


async def test_another_secret_ends_all_sessions(engine, open_one):
    opened = await open_one()

    assert await Sessions(engine, secret=SecretStr("another")).find(opened.token) is None


async def test_an_owner_sees_and_ends_their_sessions_and_nobody_else_s(engine, sessions, account, open_one):
    here, there = await open_one("Firefox"), await open_one("Chromium\nX-Evil: \x1b[31m" + "x" * 400)
    other = await make_account(engine, credits=0)
    foreign = await sessions.open(other.id, user_agent=None, peer=None)

    listed = await sessions.list(account.id)
    assert {session.id for session in listed} == {here.session.id, there.session.id}
    assert all(session.csrf == "" for session in listed)
    assert there.session.user_agent.startswith("ChromiumX-Evil")
    assert len(there.session.user_agent) == 300

    assert not await sessions.close(account.id, foreign.session.id)
    assert not await sessions.close(account.id, "ses_x")
    assert await sessions.close_others(account.id, keep=here.session.id) == 1
    assert await sessions.find(there.token) is None
    assert await sessions.find(here.token)
    assert await sessions.find(foreign.token)
    assert await sessions.close(account.id, here.session.id)
    assert not await sessions.close(account.id, here.session.id)


async def test_a_closed_account_has_no_sessions_and_gets_none(engine, sessions, account, open_one):
    opened = await open_one()
    await once(engine, "UPDATE accounts SET state = 'closed' WHERE id = $1", (account.id,))

    assert await sessions.find(opened.token) is None
    with pytest.raises(AccountNotFound):
        await open_one()


async def test_rights_are_those_of_now_not_of_the_sign_in(engine, sessions):
    admin = await make_account(engine, credits=0, is_admin=True)
    opened = await sessions.open(admin.id, user_agent=None, peer=None)
    assert opened.session.is_admin
    await once(engine, "UPDATE accounts SET state = 'suspended' WHERE id = $1", (admin.id,))

    found = await sessions.find(opened.token)
    assert (found.state, found.is_admin) == ("suspended", False)


async def test_too_many_sessions_end_the_one_that_was_unseen_for_longest(engine, sessions, account, open_one):
    first = await open_one()
    many = "INSERT INTO sessions (account_id, token_hash, expires_at) SELECT $1, sha256(i::text::bytea || $2), $3 "
    await once(
        engine,
        many + f"FROM generate_series(1, {PER_ACCOUNT - 1}) i",
        (account.id, str(account.id).encode(), utcnow() + LONGEST),
    )
    assert await sessions.find(first.token)

    newest = await open_one()

    assert await sessions.find(first.token) is None
    assert len(await sessions.list(account.id)) == PER_ACCOUNT
    assert await sessions.find(newest.token)


async def test_an_administrator_ends_all_sessions_of_somebody_and_says_why(engine, sessions, account, open_one):
    opened = [await open_one() for _ in range(2)]

    assert await sessions.end_all(account.email.upper(), reason="a stolen laptop", actor=Actor("boss")) == 2
    with pytest.raises(InvalidParameter):
        await sessions.end_all(account.id, reason=" ", actor=Actor("boss"))
    with pytest.raises(AccountNotFound):
        await sessions.end_all("nobody@example.test", reason="r", actor=Actor("boss"))

    assert [await sessions.find(one.token) for one in opened] == [None, None]
    assert await sessions.find((await open_one()).token)
    [row] = await once(
        engine,
        "SELECT actor, after->>'reason' AS reason, after->>'sessions' AS sessions FROM audit WHERE target = $1 "
        "AND action = 'account.sign_out'",
        (f"account:{account.id}",),
    )
    assert tuple(row.values()) == ("boss", "a stolen laptop", "2")


async def test_who_signs_in_while_the_account_is_closed_is_not_let_in(engine, sessions, account, open_one):
    await open_one()

    opened = [asyncio.create_task(open_one()) for _ in range(4)]
    closing = asyncio.create_task(Accounts(engine).close(account.id, reason="gone"))
    opened += [asyncio.create_task(open_one()) for _ in range(4)]
    results = await asyncio.gather(*opened, return_exceptions=True)
    await closing

    refused = [result for result in results if isinstance(result, Exception)]
    assert all(isinstance(error, AccountNotFound) for error in refused)
    assert await once(engine, "SELECT id FROM sessions WHERE account_id = $1", (account.id,)) == []


async def test_what_a_page_asks_by_itself_keeps_no_session_alive(sessions, account):
    opened = await sessions.open(account.id, user_agent=None, peer=None)
    begun = opened.session.seen_at

    assert await sessions.find(opened.token, touch=False, now=begun + IDLE / 2)
    assert await sessions.find(opened.token, touch=False, now=begun + IDLE) is None


async def test_signing_somebody_out_everywhere_ends_their_links(sessions, invitations, account):
    token = await invitations.invite(account.id, purpose="reset", reason="lost")

    await sessions.end_all(account.id, reason="stolen", actor=Actor("boss"))

    with pytest.raises(LinkExpired):
        await invitations.find(token)


async def test_ending_all_other_sessions_ends_links_that_somebody_else_may_have(
    sessions, invitations, account, open_one
):
    here, _there = await open_one(), await open_one()
    token = await invitations.invite(account.id, purpose="reset", reason="lost")

    assert await sessions.close_others(account.id, keep=here.session.id) == 1

    with pytest.raises(LinkExpired):
        await invitations.find(token)
