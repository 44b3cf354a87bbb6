"""API keys: their form, the check with its cache, expiry, networks, scopes, rotation and revocation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.accounts.callers import CACHE_ENTRIES, Callers
from app.accounts.key_info import parse_key_id
from app.accounts.keys import Keys, MintedKey, is_well_formed, mint_secret
from app.accounts.principal import SCOPES, USER_SCOPES
from app.accounts.users import Accounts
from app.errors import (
    AccountExists,
    AccountNotFound,
    AccountSuspended,
    InvalidApiKey,
    InvalidParameter,
    IpNotAllowed,
    KeyNotFound,
    ScopeMissing,
    WrongPepper,
)
from app.values import utcnow
from tests.factories import PEPPER, accept_task, finish_task, make_account, make_key
from tests.unit.watched import Clock, Counted

KNOWN_GOOD = "sk-mg_QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ24HWn1"


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = db.make_engine(database_url, pool_size=4)
    yield engine
    await engine.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(engine: AsyncEngine) -> Keys:
    return Keys(engine, PEPPER)


@pytest.fixture
def callers(engine: AsyncEngine, clock: Clock) -> Counted:
    return Counted(engine, PEPPER, cache_s=5.0, clock=clock)


# --- form -----------------------------------------------------------------------------------------------------------


def test_a_minted_secret_has_the_documented_form_and_is_never_the_same():
    secrets = {mint_secret() for _ in range(200)}

    assert len(secrets) == 200
    for secret in secrets:
        assert len(secret) == 6 + 40 + 6
        assert secret.startswith("sk-mg_")
        assert secret[6:].isalnum()
        assert secret.isascii()
        assert is_well_formed(secret)


def test_the_check_characters_are_those_of_keys_already_given_out():
    assert is_well_formed(KNOWN_GOOD)


def test_one_wrong_character_anywhere_is_seen_without_a_query():
    secret = mint_secret()

    for position in range(len(secret)):
        wrong = "a" if secret[position] != "a" else "b"
        assert not is_well_formed(secret[:position] + wrong + secret[position + 1 :])


@pytest.mark.parametrize(
    "text",
    ["", "sk-mg_", "sk-" + "a" * 48, KNOWN_GOOD + "\n", " " + KNOWN_GOOD, KNOWN_GOOD[:-1], "sk-mg_" + "é" * 46],
)
def test_what_is_no_key_at_all_is_not_well_formed(text: str):
    assert not is_well_formed(text)


def test_a_key_id_is_read_with_and_without_its_prefix():
    assert parse_key_id("key_12") == parse_key_id("12") == 12

    for text in ("", "key_", "key_x", "-1", "1" * 19, "１２"):
        with pytest.raises(KeyNotFound):
            parse_key_id(text)


def test_a_minted_key_never_shows_its_secret_by_accident():
    secret = mint_secret()

    shown = repr(MintedKey(1, secret))

    assert secret not in shown
    assert secret[6:46] not in shown


# --- the check ------------------------------------------------------------------------------------------------------


async def test_a_key_authenticates_as_its_account(engine: AsyncEngine, keys: Keys, callers: Counted):
    account = await make_account(engine)
    minted = await keys.mint(account.id, name="laptop", models=["b", "a"])

    principal = await callers.authenticate(minted.secret, peer="127.0.0.1")

    assert (principal.account_id, principal.key_id) == (account.id, minted.id)
    assert (principal.email, principal.key_name) == (account.email, "laptop")
    assert principal.key_last4 == minted.secret[-4:]
    assert principal.scopes == set(USER_SCOPES)
    assert principal.may_use("a")
    assert not principal.may_use("c")


async def test_the_database_never_holds_the_secret(engine: AsyncEngine, keys: Keys):
    account = await make_account(engine)
    minted = await keys.mint(account.id)

    rows = await db.once(engine, "SELECT k::text AS row, key_mac, mac_ver FROM api_keys k WHERE id = $1", (minted.id,))

    assert minted.secret[6:46] not in rows[0]["row"]
    assert len(rows[0]["key_mac"]) == 32
    assert rows[0]["mac_ver"] == 1


async def test_another_pepper_makes_every_key_unknown(engine: AsyncEngine, callers: Counted):
    minted = await make_key(engine, await make_account(engine))
    others = Callers(engine, SecretStr("another pepper"))

    with pytest.raises(InvalidApiKey):
        await others.authenticate(minted.secret, peer=None)
    assert (await callers.authenticate(minted.secret, peer=None)).key_id == minted.id


async def test_a_typing_error_costs_no_query_and_an_unknown_key_one(callers: Counted):
    with pytest.raises(InvalidApiKey):
        await callers.authenticate("sk-mg_nonsense", peer=None)
    assert callers.queries == 0

    unknown = mint_secret()
    for _ in range(3):
        with pytest.raises(InvalidApiKey):
            await callers.authenticate(unknown, peer=None)
    assert callers.queries == 1


async def test_the_cache_holds_a_key_for_five_seconds_and_a_miss_for_two(
    engine: AsyncEngine, callers: Counted, clock: Clock
):
    minted = await make_key(engine, await make_account(engine))
    unknown = mint_secret()

    await callers.authenticate(minted.secret, peer=None)
    clock.now += 4.9
    await callers.authenticate(minted.secret, peer=None)
    assert callers.queries == 1
    clock.now += 0.2
    await callers.authenticate(minted.secret, peer=None)
    assert callers.queries == 2

    for seconds, queries in ((0.0, 3), (1.9, 3), (0.2, 4)):
        clock.now += seconds
        with pytest.raises(InvalidApiKey):
            await callers.authenticate(unknown, peer=None)
        assert callers.queries == queries


async def test_a_flood_of_wrong_keys_stays_within_its_share_of_the_cache(
    engine: AsyncEngine, callers: Counted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.accounts.callers.CACHE_ENTRIES", 3)
    assert CACHE_ENTRIES == 10_000
    minted = await make_key(engine, await make_account(engine))
    await callers.authenticate(minted.secret, peer=None)

    for _ in range(5):
        with pytest.raises(InvalidApiKey):
            await callers.authenticate(mint_secret(), peer=None)
    await callers.authenticate(minted.secret, peer=None)

    assert callers.queries == 1 + 5
    assert len(callers._bad) == 3


async def test_a_key_revoked_elsewhere_reads_for_at_most_the_cache_time(
    engine: AsyncEngine, callers: Counted, clock: Clock
):
    minted = await make_key(engine, await make_account(engine))
    await callers.authenticate(minted.secret, peer=None)

    await Keys(engine, PEPPER).revoke(minted.id)

    clock.now += 4.9
    await callers.authenticate(minted.secret, peer=None)
    clock.now += 0.2
    with pytest.raises(InvalidApiKey):
        await callers.authenticate(minted.secret, peer=None)


async def test_a_key_that_is_said_to_be_changed_is_looked_up_again(engine: AsyncEngine, keys: Keys, callers: Counted):
    minted, other = [await make_key(engine, await make_account(engine)) for _ in range(2)]
    for key in (minted, other):
        await callers.authenticate(key.secret, peer=None)

    first = await keys.revoke(minted.id)
    callers.forget(minted.id)
    second = await keys.revoke(minted.id)

    assert second.revoked_at == first.revoked_at is not None
    await callers.authenticate(other.secret, peer=None)
    assert callers.queries == 2
    with pytest.raises(InvalidApiKey):
        await callers.authenticate(minted.secret, peer=None)


async def test_a_revoked_key_spends_nothing_from_the_commit_on(engine: AsyncEngine, keys: Keys, callers: Counted):
    minted = await make_key(engine, await make_account(engine))
    await callers.authenticate(minted.secret, peer=None)  # other processes may have it cached just so

    await keys.revoke(minted.id)

    with pytest.raises(DBAPIError) as refused:
        await accept_task(engine, minted)
    assert db.sqlstate_of(refused.value) == "MG401"


async def test_a_key_is_not_cached_beyond_its_expiry(engine: AsyncEngine, callers: Counted, clock: Clock):
    minted = await make_key(engine, await make_account(engine), expires_at=utcnow() + timedelta(seconds=2))
    await callers.authenticate(minted.secret, peer=None)

    clock.now += 2.1
    await callers.authenticate(minted.secret, peer=None)  # the database's clock has not moved that far

    assert callers.queries == 2


async def test_an_expired_key_is_unknown(engine: AsyncEngine, callers: Counted):
    minted = await make_key(engine, await make_account(engine), expires_at=utcnow() - timedelta(seconds=1))

    with pytest.raises(InvalidApiKey):
        await callers.authenticate(minted.secret, peer=None)


async def test_a_suspended_account_still_reads(engine: AsyncEngine, callers: Counted):
    account = await make_account(engine)
    minted = await make_key(engine, account)
    await Accounts(engine).suspend(account.email)

    principal = await callers.authenticate(minted.secret, peer=None)

    assert principal.account_id == account.id


@pytest.mark.parametrize(
    ("peer", "is_allowed"),
    [
        ("192.0.2.77", True),
        ("::ffff:192.0.2.77", True),
        ("2001:db8::1", True),
        ("192.0.3.1", False),
        ("2001:db9::1", False),
        (None, False),
        ("not an address", False),
    ],
)
async def test_a_key_bound_to_networks_works_only_from_them(
    engine: AsyncEngine, callers: Counted, peer: str | None, is_allowed: bool
):
    minted = await make_key(engine, await make_account(engine), cidrs=["192.0.2.0/24", "2001:db8::/32"])

    if is_allowed:
        assert (await callers.authenticate(minted.secret, peer=peer)).key_id == minted.id
    else:
        with pytest.raises(IpNotAllowed):
            await callers.authenticate(minted.secret, peer=peer)


# --- scopes ---------------------------------------------------------------------------------------------------------


async def test_scopes_limit_what_a_key_may_do(engine: AsyncEngine, callers: Counted):
    minted = await make_key(engine, await make_account(engine), scopes=["tasks:read"])

    principal = await callers.authenticate(minted.secret, peer=None)

    principal.require_scope("tasks:read")
    with pytest.raises(ScopeMissing, match="images:write"):
        principal.require_scope("images:write")


async def test_only_an_administrators_key_may_have_the_admin_scope(engine: AsyncEngine, callers: Counted):
    admin = await make_account(engine, is_admin=True)
    minted = await make_key(engine, admin, scopes=SCOPES)
    plain = await make_key(engine, admin)

    principal = await callers.authenticate(minted.secret, peer=None)
    principal.require_scope("admin:accounts")
    with pytest.raises(ScopeMissing):
        (await callers.authenticate(plain.secret, peer=None)).require_scope("admin:*")
    with pytest.raises(InvalidParameter, match="administrators"):
        await make_key(engine, await make_account(engine), scopes=["admin:*"])


async def test_the_admin_scope_ends_with_the_accounts_rank(engine: AsyncEngine, callers: Counted, database_url: str):
    admin = await make_account(engine, is_admin=True)
    minted = await make_key(engine, admin, scopes=["admin:*"])
    owner = db.make_engine(database_url, role=None, pooled=False)
    await db.once(owner, "UPDATE accounts SET is_admin = false WHERE id = $1", (admin.id,))
    await owner.dispose()

    principal = await callers.authenticate(minted.secret, peer=None)

    assert principal.scopes == set()  # and not the default scopes


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"scopes": ["images:read"]}, "scopes"),
        ({"budget": -1}, "budget"),
        ({"budget": 2**60}, "budget"),
        ({"period": "week"}, "period"),
        ({"cidrs": ["10.0.0.1/8"]}, "cidrs"),
        ({"cidrs": ["anywhere"]}, "cidrs"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
    ],
)
async def test_a_bad_option_is_refused_by_its_name(engine: AsyncEngine, options: dict[str, object], param: str):
    account = await make_account(engine)

    with pytest.raises(InvalidParameter) as refused:
        await make_key(engine, account, **options)

    assert refused.value.param == param
    assert await Keys(engine, PEPPER).list(account.id) == []


async def test_a_key_for_nobody_is_refused(engine: AsyncEngine):
    with pytest.raises(AccountNotFound):
        await make_key(engine, 2**40)


# --- budgets, rotation, last use ------------------------------------------------------------------------------------


async def test_every_key_has_a_budget_row_and_its_limits_can_change(engine: AsyncEngine, keys: Keys):
    minted = await make_key(engine, await make_account(engine))
    assert (await keys.get(minted.id)).budget is None

    info = await keys.set_limits(minted.id, budget=50, period="day", max_in_flight=2)

    assert (info.budget, info.period, info.max_in_flight, info.spent, info.held) == (50, "day", 2, 0, 0)
    with pytest.raises(KeyNotFound):
        await keys.set_limits(2**40, budget=1)


async def test_yesterdays_spending_does_not_show_in_a_daily_budget(engine: AsyncEngine, keys: Keys, database_url: str):
    minted = await make_key(engine, await make_account(engine), budget=50, period="day")
    await finish_task(engine, minted, hold=10)
    assert (await keys.get(minted.id)).spent == 10
    owner = db.make_engine(database_url, role=None, pooled=False)
    await db.once(owner, "UPDATE key_budgets SET period_start = period_start - 1 WHERE api_key_id = $1", (minted.id,))
    await owner.dispose()

    assert (await keys.get(minted.id)).spent == 0


async def test_rotation_makes_a_successor_and_ends_the_old_key_after_the_overlap(
    engine: AsyncEngine, keys: Keys, callers: Counted
):
    account = await make_account(engine)
    old = await make_key(
        engine, account, name="ci", scopes=["images:write"], models=["a"], cidrs=["10.0.0.0/8"], budget=100
    )
    await finish_task(engine, old, hold=30)
    await accept_task(engine, old, hold=20)

    new = await keys.rotate(old.id, timedelta(hours=2))

    before, after = await keys.get(old.id), await keys.get(new.id)
    assert after.replaces == old.id
    assert replace(
        after, id=old.id, replaces=None, last4=before.last4, budget=before.budget, spent=before.spent, held=before.held,
        in_flight=before.in_flight, created_at=before.created_at, expires_at=before.expires_at,
    ) == before  # fmt: skip
    assert after.expires_at is None
    assert (after.budget, after.spent) == (100, 30)  # the two share it
    assert before.expires_at is not None
    assert timedelta(minutes=119) < before.expires_at - utcnow() <= timedelta(hours=2)
    for secret in (old.secret, new.secret):
        assert (await callers.authenticate(secret, peer="10.1.2.3")).account_id == account.id


async def test_rotation_keeps_no_limit_a_period_and_the_life_span(engine: AsyncEngine, keys: Keys, callers: Counted):
    account = await make_account(engine)
    daily = await make_key(engine, account, budget=40, period="day")
    free = await make_key(engine, account, expires_at=utcnow() + timedelta(days=90))
    await finish_task(engine, daily, hold=30)

    new_daily, new_free = await keys.rotate(daily.id), await keys.rotate(free.id, timedelta(0))

    assert (await keys.get(new_daily.id)).budget == 40
    info = await keys.get(new_free.id)
    assert info.budget is None
    assert info.expires_at is not None
    assert timedelta(days=89) < info.expires_at - utcnow() < timedelta(days=91)
    with pytest.raises(InvalidApiKey):
        await callers.authenticate(free.secret, peer=None)


@pytest.mark.parametrize("life", [None, timedelta(days=90)])
async def test_a_key_rotated_again_hands_on_its_whole_life(engine: AsyncEngine, keys: Keys, life: timedelta | None):
    expires_at = None if life is None else utcnow() + life
    old = await make_key(engine, await make_account(engine), expires_at=expires_at)
    first = await keys.rotate(old.id)
    await keys.rotate(first.id)
    for key in await keys.list((await keys.get(old.id)).account_id):
        if key.id != old.id:
            await keys.revoke(key.id)

    again = await keys.get((await keys.rotate(old.id)).id)

    if life is None:
        assert again.expires_at is None
    else:
        assert again.expires_at is not None
        assert abs(again.expires_at - again.created_at - life) < timedelta(seconds=5)


async def test_a_key_is_rotated_once_and_only_while_it_lives(engine: AsyncEngine, keys: Keys):
    minted = await make_key(engine, await make_account(engine))
    successor = await keys.rotate(minted.id)

    with pytest.raises(InvalidParameter, match=successor.public_id):
        await keys.rotate(minted.id)
    await keys.revoke(successor.id)
    with pytest.raises(KeyNotFound):
        await keys.rotate(successor.id)
    for overlap in (timedelta(days=31), timedelta(seconds=-1)):
        with pytest.raises(InvalidParameter, match="overlap"):
            await keys.rotate(minted.id, overlap)
    with pytest.raises(KeyNotFound):
        await keys.rotate(2**40)


async def test_last_use_is_written_in_one_batch_and_only_when_used(engine: AsyncEngine, keys: Keys, callers: Counted):
    account = await make_account(engine)
    used = [await make_key(engine, account) for _ in range(3)]
    unused = await make_key(engine, account)
    for minted in used * 2:
        await callers.authenticate(minted.secret, peer=None)

    assert await callers.flush_last_used() == 3
    assert await callers.flush_last_used() == 0

    assert all([(await keys.get(minted.id)).last_used_at is not None for minted in used])
    assert (await keys.get(unused.id)).last_used_at is None


# --- accounts -------------------------------------------------------------------------------------------------------


async def test_an_account_is_found_by_email_in_any_case_and_by_id(engine: AsyncEngine):
    account = await make_account(engine, credits=7)
    accounts = Accounts(engine)

    for reference in (account.email, account.email.upper(), account.public_id, str(account.id), account.id):
        assert await accounts.get(reference) == account
    assert (account.credits, account.held, account.name) == (7, 0, account.email.partition("@")[0])
    for reference in ("nobody@example.test", "acct_", "acct_99999999999", ""):
        with pytest.raises(AccountNotFound):
            await accounts.get(reference)


async def test_an_email_is_taken_once_whatever_its_case(engine: AsyncEngine):
    account = await make_account(engine)

    with pytest.raises(AccountExists):
        await Accounts(engine).create(account.email.upper())


@pytest.mark.parametrize("email", ["", "a", "a@", "@b", "a b@c.d", "a@b@c", "a@b..c", "a\n@b.c", "x" * 251 + "@b.c"])
async def test_what_is_no_email_is_refused(engine: AsyncEngine, email: str):
    with pytest.raises(InvalidParameter) as refused:
        await Accounts(engine).create(email)

    assert refused.value.param == "email"


async def test_suspension_and_limits_change_one_account(engine: AsyncEngine):
    account, other = await make_account(engine), await make_account(engine)
    accounts = Accounts(engine)

    assert (await accounts.suspend(account.email)).state == "suspended"
    assert (await accounts.resume(account.email)).state == "active"
    assert (await accounts.set_limits(account.email, max_in_flight=500)).max_in_flight == 500
    with pytest.raises(InvalidParameter):
        await accounts.set_limits(account.email, max_in_flight=-1)

    assert await accounts.get(other.id) == other
    assert {account.id, other.id} <= {found.id for found in await accounts.list()}


async def test_a_key_minted_with_another_pepper_than_the_deployments_is_refused(
    fresh_database: Callable[..., str],
) -> None:
    url = fresh_database(migrated=True)
    account = await make_account(url)
    await make_key(url, account)

    with pytest.raises(WrongPepper, match="MEDIAGATE_KEY_PEPPER"):
        await make_key(url, account, pepper=SecretStr("another pepper, of a process with other settings"))


async def test_a_suspended_account_gets_no_key(engine: AsyncEngine, keys: Keys):
    account = await make_account(engine, credits=0)
    minted = await keys.mint(account.id)
    await Accounts(engine).suspend(account.id)

    with pytest.raises(AccountSuspended):
        await keys.mint(account.id)
    with pytest.raises(AccountSuspended):
        await keys.rotate(minted.id)


async def test_who_administers_no_more_has_no_key_that_could_again(engine: AsyncEngine, keys: Keys):
    await make_account(engine, is_admin=True, credits=0)
    account = await make_account(engine, is_admin=True, credits=0)
    both = await keys.mint(account.id, scopes=["tasks:read", "admin:*"])
    only = await keys.mint(account.id, scopes=["admin:*"])

    await Accounts(engine).update(account.id, is_admin=False)
    await Accounts(engine).update(account.id, is_admin=True)

    assert (await keys.get(both.id)).scopes == ("tasks:read",)
    assert (await keys.get(only.id)).revoked_at is not None
    noted = await db.once(
        engine,
        "SELECT action FROM audit WHERE target = ANY($1) ORDER BY id DESC LIMIT 2",
        ([f"key:{both.id}", f"key:{only.id}"],),
    )
    assert {row["action"] for row in noted} == {"key.scopes", "key.revoke"}
