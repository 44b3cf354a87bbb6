"""Who calls, under attack and while secrets change: wrong keys by their source, two peppers, proxies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request

from app import db
from app.accounts.callers import Callers
from app.accounts.keys import Keys
from app.accounts.principal import checked_networks, mint_secret
from app.accounts.strangers import source_of
from app.api.peer import peer_of
from app.errors import InvalidApiKey, TooManyRequests, WrongPepper
from tests.factories import PEPPER, make_account, make_key
from tests.unit.watched import Clock, Counted

THERE, ELSEWHERE = "192.0.2.7", "198.51.100.7"
OLD, NEW, THIRD = ("a pepper of the first year", "a pepper of the second year", "a pepper of the third year")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = db.make_engine(database_url, pool_size=4)
    yield engine
    await engine.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def callers(engine: AsyncEngine, clock: Clock) -> Counted:
    return Counted(engine, PEPPER, cache_s=5.0, wrong_per_minute=20, clock=clock)


async def guess(callers: Callers, times: int, *, peer: str | None = THERE, secret: str | None = None) -> list[str]:
    """Return what each wrong key was told."""
    told = []
    for _ in range(times):
        with pytest.raises((InvalidApiKey, TooManyRequests)) as refused:
            await callers.authenticate(secret or mint_secret(), peer=peer)
        told.append(refused.value.reason)
    return told


# --- wrong keys -----------------------------------------------------------------------------------------------------


async def test_a_source_of_twenty_wrong_keys_asks_the_database_once_a_second(callers: Counted, clock: Clock):
    told = await guess(callers, 30)

    assert told == ["invalid_api_key"] * 20 + ["too_many_requests"] * 10
    assert callers.queries == 21
    clock.now += 1
    assert await guess(callers, 10) == ["too_many_requests"] * 10
    assert callers.queries == 22
    assert await guess(callers, 1, peer=ELSEWHERE) == ["invalid_api_key"]
    clock.now += 2.1  # twenty a minute
    assert await guess(callers, 2) == ["invalid_api_key", "too_many_requests"]


async def test_typing_errors_count_and_cost_no_query_at_all(callers: Counted):
    told = await guess(callers, 21, secret="sk-mg_nonsense")

    assert told[19:] == ["invalid_api_key", "too_many_requests"]
    assert callers.queries == 0


async def test_typing_errors_keep_no_right_key_out(engine: AsyncEngine, callers: Counted):
    minted = await make_key(engine, await make_account(engine))
    await guess(callers, 40, secret="sk-placeholder")

    assert (await callers.authenticate(minted.secret, peer=THERE)).key_id == minted.id
    assert await guess(callers, 1) == ["invalid_api_key"]


async def test_a_repeated_wrong_key_counts_each_time_though_it_is_cached(callers: Counted):
    told = await guess(callers, 21, secret=mint_secret())

    assert told[19:] == ["invalid_api_key", "too_many_requests"]
    assert callers.queries == 1


async def test_a_key_that_worked_here_before_passes_whatever_its_neighbours_do(
    engine: AsyncEngine, callers: Counted, clock: Clock
):
    minted = await make_key(engine, await make_account(engine))
    await callers.authenticate(minted.secret, peer=THERE)
    await guess(callers, 25)

    await callers.authenticate(minted.secret, peer=THERE)  # cached
    clock.now += 2
    callers.forget()
    await callers.authenticate(minted.secret, peer=THERE)  # looked up again
    clock.now += 600
    await guess(callers, 25)
    await callers.authenticate(minted.secret, peer=THERE)


async def test_a_right_key_that_was_never_seen_gets_through_within_moments_whatever_its_source_does(
    engine: AsyncEngine, callers: Counted, clock: Clock
):
    minted, other = [await make_key(engine, await make_account(engine)) for _ in range(2)]
    await guess(callers, 25)

    with pytest.raises(TooManyRequests) as refused:
        await callers.authenticate(minted.secret, peer=THERE)
    assert refused.value.retry_after_s == 1
    clock.now += 1
    crowd = await asyncio.gather(*(callers.authenticate(minted.secret, peer=THERE) for _ in range(5)))
    assert [principal.key_id for principal in crowd] == [minted.id] * 5
    await callers.authenticate(other.secret, peer=ELSEWHERE)
    await callers.authenticate(other.secret, peer=THERE)  # it is known now


async def test_a_revoked_key_is_a_wrong_one_and_counts(engine: AsyncEngine, callers: Counted):
    minted = await make_key(engine, await make_account(engine))
    await callers.authenticate(minted.secret, peer=THERE)
    await Keys(engine, PEPPER).revoke(minted.id)
    callers.forget(minted.id)

    assert (await guess(callers, 21, secret=minted.secret))[19:] == ["invalid_api_key", "too_many_requests"]


async def test_zero_is_no_limit_and_a_unix_socket_is_no_source(engine: AsyncEngine, callers: Counted):
    unlimited = Callers(engine, PEPPER, wrong_per_minute=0)

    assert set(await guess(unlimited, 30, secret="nonsense")) == {"invalid_api_key"}
    assert set(await guess(callers, 30, secret="nonsense", peer=None)) == {"invalid_api_key"}


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        (None, None),
        ("a socket", None),
    ],
)
def test_a_source_is_an_address_or_a_network_that_one_customer_has(peer: str | None, source: str | None):
    assert source_of(peer) == source


@pytest.mark.parametrize(
    ("connection", "header", "peer"),
    [
        ("203.0.113.1", "192.0.2.7", "203.0.113.1"),  # nobody we know: the header is worth nothing
        ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "192.0.2.66, 192.0.2.7", "192.0.2.7"),  # the first was written by the caller
        ("10.0.0.1", "192.0.2.7, 10.0.0.2", "192.0.2.7"),  # two proxies of ours
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "unknown"),
        ("10.0.0.1", " , 192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "192.0.2.66, 192.0.2.7:4711, 10.0.0.2:443", "192.0.2.7"),
        ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
        ("10.0.0.1", "2001:db8::7", "2001:db8::7"),
    ],
)
def test_a_forwarded_address_is_believed_as_far_as_our_proxies_wrote_it(connection: str, header: str, peer: str):
    scope = {"type": "http", "client": (connection, 1), "headers": [(b"x-forwarded-for", header.encode())]}

    assert peer_of(Request(scope), checked_networks(["10.0.0.0/24"])) == peer
    assert peer_of(Request(scope), ()) == connection


async def test_a_crowd_with_one_key_asks_once_and_not_what_was_asked_before_a_change(
    engine: AsyncEngine, callers: Counted
):
    minted = await make_key(engine, await make_account(engine))

    crowd = [asyncio.create_task(callers.authenticate(minted.secret, peer=THERE)) for _ in range(50)]
    await asyncio.sleep(0)
    crowd[0].cancel()
    callers.forget(minted.id)
    later = asyncio.create_task(callers.authenticate(minted.secret, peer=THERE))
    await asyncio.wait([*crowd, later])

    assert [task.result().key_id for task in (*crowd[1:], later)] == [minted.id] * 50
    assert callers.queries == 2


# --- two peppers ----------------------------------------------------------------------------------------------------


def keys_of(engine: AsyncEngine, *peppers: str) -> Keys:
    return Keys(engine, SecretStr(",".join(peppers)))


def callers_of(engine: AsyncEngine, *peppers: str) -> Callers:
    return Callers(engine, SecretStr(",".join(peppers)), cache_s=0)


async def test_peppers_change_without_a_key_lost_that_is_used_meanwhile(fresh_database: Callable[..., str]):
    engine = db.make_engine(fresh_database(migrated=True), pool_size=4)
    account = await make_account(engine)
    used, unused = [await keys_of(engine, OLD).mint(account.id) for _ in range(2)]

    # First every process learns the new one, while all still store under the old one...
    minted_meanwhile = await keys_of(engine, OLD, NEW).mint(account.id)
    await callers_of(engine, OLD, NEW).authenticate(used.secret, peer=None)
    assert {key.pepper for key in await keys_of(engine, OLD).list()} == {1}
    # ...then the new one stores, and keys move to it as they are used.
    new = await keys_of(engine, NEW, OLD).mint(account.id)
    for minted in (used, minted_meanwhile, new):
        await callers_of(engine, NEW, OLD).authenticate(minted.secret, peer=None)
    assert [key.pepper for key in await keys_of(engine, NEW, OLD).list()] == [2, 1, 2, 2]

    # Without the old one, only what was never used is lost.
    for minted in (used, minted_meanwhile, new):
        await callers_of(engine, NEW).authenticate(minted.secret, peer=None)
    with pytest.raises(InvalidApiKey):
        await callers_of(engine, NEW).authenticate(unused.secret, peer=None)
    rotated = await keys_of(engine, NEW).rotate(used.id, timedelta(hours=1))
    await callers_of(engine, NEW).authenticate(rotated.secret, peer=None)
    await engine.dispose()


async def test_a_process_without_the_newest_pepper_makes_no_keys(fresh_database: Callable[..., str]):
    engine = db.make_engine(fresh_database(migrated=True), pool_size=4)
    account = await make_account(engine)
    await keys_of(engine, OLD).mint(account.id)
    with pytest.raises(WrongPepper):
        await keys_of(engine, THIRD).mint(account.id)
    await keys_of(engine, NEW, OLD).mint(account.id)

    for peppers in ((OLD,), (THIRD,), (THIRD, OLD)):
        with pytest.raises(WrongPepper):
            await keys_of(engine, *peppers).mint(account.id)
    assert (await keys_of(engine, OLD, NEW).mint(account.id)).secret  # the way back is open
    await keys_of(engine, THIRD, NEW).mint(account.id)
    assert [key.pepper for key in await keys_of(engine, THIRD).list()] == [1, 2, 1, 3]
    await engine.dispose()
