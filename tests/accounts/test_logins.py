"""Signing in by password: what is told, how long guessing takes, and what a new password ends."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from argon2 import extract_parameters

from app.accounts.logins import store_password
from app.accounts.passwords import Passwords, checked_password
from app.accounts.tries import LONGEST_WAIT_S
from app.db import once
from app.errors import InvalidParameter, LinkExpired, Overloaded, TooManyTries, WrongPassword
from app.journal import SYSTEM
from app.values import utcnow
from tests.accounts.conftest import PASSWORD
from tests.factories import make_account
from tests.ledger.test_money_functions import is_waiting, until

WRONG = "not the right one at all"


async def test_the_right_password_tells_whose_it_is(logins, account, peer):
    assert (await logins.sign_in(account.email, PASSWORD, peer=peer)).account_id == account.id
    assert (await logins.sign_in(f"  {account.email.upper()} ", PASSWORD, peer=None)).account_id == account.id


async def test_an_accent_may_be_typed_either_way(logins, account, peer):
    await logins.set_password(account.id, "caf\u00e9 au lait, twice")

    assert (await logins.sign_in(account.email, "cafe\u0301 au lait, twice", peer=peer)).account_id == account.id


async def test_unknown_closed_passwordless_and_wrong_are_told_the_same(engine, logins, account):
    nobody, closed = await make_account(engine, credits=0), await make_account(engine, credits=0)
    await logins.set_password(closed.id, PASSWORD)
    await once(engine, "UPDATE accounts SET state = 'closed' WHERE id = $1", (closed.id,))
    told = set()

    for email, password in (
        (account.email, WRONG),
        (account.email, ""),
        (account.email, "x" * 100_000),
        (account.email, "\ud800 half a character"),
        (nobody.email, PASSWORD),
        (closed.email, PASSWORD),
        ("nobody@example.test", PASSWORD),
        ("\0\ud800", PASSWORD),
        ("", ""),
    ):
        with pytest.raises(WrongPassword) as caught:
            await logins.sign_in(email, password, peer=None)
        told.add(caught.value.message)

    assert len(told) == 1


async def test_an_unknown_person_costs_the_same_hash(passwords, monkeypatch):
    seen = []
    monkeypatch.setattr(passwords, "_verify", lambda stored, password: seen.append((stored, password)) or False)

    await passwords.verify(None, WRONG)

    assert seen == [(None, WRONG)]
    monkeypatch.undo()
    assert await passwords.verify(None, WRONG) is False


async def test_after_five_failures_each_try_waits_twice_as_long(logins, account, peer):
    now, waits = utcnow(), list[int]()
    for _ in range(17):
        with pytest.raises(WrongPassword):
            await logins.sign_in(account.email, WRONG, peer=peer, now=now)
        try:
            await logins.sign_in(account.email, PASSWORD, peer=peer, now=now)
        except TooManyTries as error:
            waits.append(error.retry_after_s)
            now += timedelta(seconds=error.retry_after_s)
        else:
            waits.clear()  # the first ones are free, and a right password forgets what was before
            for _ in range(4):
                with pytest.raises(WrongPassword):
                    await logins.sign_in(account.email, WRONG, peer=peer, now=now)

    assert waits[:5] == [1, 2, 4, 8, 16]
    assert max(waits) == LONGEST_WAIT_S
    assert (await logins.sign_in(account.email, PASSWORD, peer="198.51.100.9", now=now)).account_id == account.id
    assert (
        await logins.sign_in(account.email, PASSWORD, peer=peer, now=now + timedelta(seconds=1))
    ).account_id == account.id


async def test_a_thousand_tries_at_once_are_no_more_than_five(logins, account, peer):
    async def guess() -> str:
        try:
            await logins.sign_in(account.email, WRONG, peer=peer)
        except (WrongPassword, TooManyTries) as error:
            return error.reason
        return "signed in"

    told = await asyncio.gather(*(guess() for _ in range(30)))

    assert sorted(set(told)) == ["too_many_tries", "wrong_password"]
    assert told.count("wrong_password") == 5


async def test_many_people_from_one_place_are_counted_together(logins):
    told = []
    for number in range(60):
        try:
            await logins.sign_in(f"guess-{number}@example.test", WRONG, peer="2001:db8::1:2:3:4")
        except (WrongPassword, TooManyTries) as error:
            told.append(error.reason)

    assert told.count("wrong_password") == 50
    with pytest.raises(TooManyTries):
        await logins.sign_in("another@example.test", WRONG, peer="2001:db8::ffff")


async def test_time_forgets_failures_one_by_one(logins, account, peer):
    now = utcnow()
    for hours in (0, 5):
        for _ in range(5):
            with pytest.raises(WrongPassword):
                await logins.sign_in(account.email, WRONG, peer=peer, now=now + timedelta(hours=hours))
        with pytest.raises(TooManyTries):
            await logins.sign_in(account.email, WRONG, peer=peer, now=now + timedelta(hours=hours))


async def test_a_changed_password_ends_the_other_sessions(engine, logins, sessions, account, peer):
    here = await sessions.open(account.id, user_agent="here", peer=peer)
    stolen = await sessions.open(account.id, user_agent="elsewhere", peer=peer)

    await logins.change_password(account.id, PASSWORD, "a wholly new password", keep=here.session.id)

    assert await sessions.find(here.token)
    assert await sessions.find(stolen.token) is None
    assert (await logins.sign_in(account.email, "a wholly new password", peer=peer)).account_id == account.id
    with pytest.raises(WrongPassword):
        await logins.sign_in(account.email, PASSWORD, peer=peer)
    noted = await once(engine, "SELECT * FROM audit WHERE target = $1 ORDER BY id DESC", (f"account:{account.id}",))
    assert (noted[0]["action"], noted[0]["actor"]) == ("account.password", account.email)
    assert "argon2" not in str([dict(row) for row in noted])


async def test_a_password_that_is_changed_while_it_is_looked_at_opens_no_session(
    engine, passwords, logins, sessions, account, peer
):
    found = await logins.sign_in(account.email, PASSWORD, peer=peer)
    hashed = await passwords.hash("a wholly new password")

    async with engine.connect() as changing:
        await store_password(changing, account.id, hashed, actor=SYSTEM)
        opening = asyncio.create_task(
            sessions.open(account.id, user_agent="thief", peer=peer, password_at=found.password_at)
        )
        await until(lambda: is_waiting(engine, changing))
        await changing.commit()

    with pytest.raises(WrongPassword):
        await opening
    with pytest.raises(WrongPassword):
        await sessions.open(account.id, user_agent="thief", peer=peer, password_at=found.password_at)
    assert not await sessions.list(account.id)


async def test_of_sign_ins_while_the_password_changes_none_outlives_the_old_one(logins, sessions, account, peer):
    found = await logins.sign_in(account.email, PASSWORD, peer=peer)

    await asyncio.gather(
        *(sessions.open(account.id, user_agent="old", peer=peer, password_at=found.password_at) for _ in range(9)),
        logins.set_password(account.id, "a wholly new password"),
        *(sessions.open(account.id, user_agent="old", peer=peer, password_at=found.password_at) for _ in range(9)),
        return_exceptions=True,
    )

    assert not await sessions.list(account.id)


async def test_a_stolen_session_cannot_guess_the_old_password(logins, account):
    for _ in range(5):
        with pytest.raises(WrongPassword):
            await logins.change_password(account.id, WRONG, "a wholly new password")
    with pytest.raises(TooManyTries):
        await logins.change_password(account.id, PASSWORD, "a wholly new password")


@pytest.mark.parametrize(
    "password",
    ["", "elevenchars", "x" * 129, "aaaaaaaaaaaaaaa", "ababababababab", "Someone.Long@Example.Test", "SOMEONE.LONG"],
)
def test_a_password_that_is_easy_to_guess_is_refused(password):
    with pytest.raises(InvalidParameter):
        checked_password(password, email="someone.long@example.test")


async def test_what_is_stored_is_argon2id_as_strong_as_promised():
    parameters = extract_parameters(await Passwords().hash(PASSWORD))

    assert (parameters.type.name, parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (
        "ID",
        65536,
        3,
        1,
    )


async def test_a_weaker_hash_is_renewed_at_the_next_sign_in(engine, logins, sessions, account, peer):
    weak = await Passwords(memory_kib=9, rounds=1).hash(PASSWORD)
    await once(engine, "UPDATE passwords SET hash = $2 WHERE account_id = $1", (account.id, weak))

    found = await logins.sign_in(account.email, PASSWORD, peer=peer)
    stored = await once(engine, "SELECT hash FROM passwords WHERE account_id = $1", (account.id,))
    assert extract_parameters(stored[0]["hash"]).memory_cost == 8
    assert await sessions.open(account.id, user_agent=None, peer=peer, password_at=found.password_at)


async def test_a_flood_of_sign_ins_does_not_eat_the_memory(passwords):
    told = await asyncio.gather(*(passwords.verify(None, WRONG) for _ in range(60)), return_exceptions=True)

    assert any(isinstance(answer, Overloaded) for answer in told)
    assert await passwords.verify(None, WRONG) is False


async def test_the_console_s_language_and_theme_are_kept(engine, logins, sessions, account):
    await logins.set_preferences(account.id, "zh_CN", "dark")

    opened = await sessions.open(account.id, user_agent=None, peer=None)

    assert (opened.session.language, opened.session.theme) == ("zh_CN", "dark")
    with pytest.raises(InvalidParameter, match="language"):
        await logins.set_preferences(account.id, "de", "dark")
    with pytest.raises(InvalidParameter, match="theme"):
        await logins.set_preferences(account.id, None, "pink")


async def test_who_has_a_password_is_known(engine, logins, account):
    assert await logins.has_password(account.id)
    assert not await logins.has_password((await make_account(engine, credits=0)).id)


async def test_a_password_beyond_the_length_is_refused_before_it_is_normalised(
    logins, registration, invitations, account, peer, monkeypatch
):
    def reached(*_: object) -> str:
        raise AssertionError("normalised")

    accents = "a" + "\u0301\u0323" * 100_000
    token = await invitations.invite(account.id, purpose="reset", reason="lost")
    monkeypatch.setattr("unicodedata.normalize", lambda form, text: reached() if len(text) > 128 else text)

    with pytest.raises(WrongPassword):
        await logins.sign_in(account.email, accents, peer=peer)
    with pytest.raises(WrongPassword):
        await logins.sign_in(accents, PASSWORD, peer=peer)
    with pytest.raises(WrongPassword):
        await logins.change_password(account.id, accents, PASSWORD)
    for refused in (
        logins.change_password(account.id, PASSWORD, accents),
        logins.set_password(account.id, accents),
        invitations.accept(token, accents),
        registration.register("ada@example.test", "Ada", accents, peer=None),
        registration.register(accents, "Ada", PASSWORD, peer=None),
        registration.register("ada@example.test", accents, PASSWORD, peer=None),
    ):
        with pytest.raises(InvalidParameter):
            await refused


def test_a_password_that_is_too_long_once_normalised_is_refused():
    with pytest.raises(InvalidParameter, match="12 to 128"):
        checked_password("\ufdfa" + "x9-y" * 30)  # one character that is eighteen


async def test_others_failures_at_a_place_do_not_keep_out_who_signed_in_there(logins, account, peer):
    now = utcnow()
    await logins.sign_in(account.email, PASSWORD, peer=peer, now=now)
    for number in range(49):
        with pytest.raises(WrongPassword):
            await logins.sign_in(f"guess-{number}@example.test", WRONG, peer=peer, now=now)

    with pytest.raises(TooManyTries):
        await logins.sign_in("another@example.test", WRONG, peer=peer, now=now)
    assert (await logins.sign_in(account.email, PASSWORD, peer=peer, now=now)).account_id == account.id
    for _ in range(5):
        with pytest.raises(WrongPassword):
            await logins.sign_in(account.email, WRONG, peer=peer, now=now)
    with pytest.raises(TooManyTries):
        await logins.sign_in(account.email, PASSWORD, peer=peer, now=now)


async def test_a_new_password_ends_the_links_that_nobody_has_used(logins, invitations, account):
    token = await invitations.invite(account.id, purpose="reset", reason="lost")

    await logins.change_password(account.id, PASSWORD, "a wholly new password")

    with pytest.raises(LinkExpired):
        await invitations.find(token)
