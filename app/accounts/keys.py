"""API keys for their operators: minting, limits, rotation, revocation. Who calls with one: `app.accounts.callers`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.accounts.key_info import (
    KeyInfo,
    KeyName,
    KeySearch,
    has_keys,
    key_info,
    key_names,
    key_public_id,
    list_keys,
    search_keys,
)
from app.accounts.news import tell
from app.accounts.pepper import Pepper
from app.accounts.principal import (
    ADMIN_SCOPE,
    PREFIX,
    SCOPES,
    Period,
    Principal,
    check_budget,
    check_rpm,
    checked_networks,
    checked_scopes,
    is_well_formed,
    mint_secret,
)
from app.db import retried, transaction
from app.errors import AccountNotFound, AccountSuspended, InvalidParameter, KeyNotFound
from app.journal import SYSTEM, Actor, changes, checked_reason, note

__all__ = ["SCOPES", "KeyInfo", "KeySearch", "Keys", "MintedKey", "Principal", "is_well_formed", "mint_secret"]

MAX_OVERLAP = timedelta(days=30)
MAX_OWN_KEYS = 100
"""Live keys of one account, where its owner makes them."""


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A key at birth: the one moment its secret is known."""

    id: int
    secret: str

    @property
    def public_id(self) -> str:
        return key_public_id(self.id)

    def __repr__(self) -> str:
        return f"MintedKey(id={self.id}, secret='{PREFIX}...{self.secret[-4:]}')"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who changes a key of his own, and is no operator there: what holds for him and for no administrator."""

    most_rpm: int | None
    """What the setting gives to every key; None: there is no such limit."""


class Keys:
    """The keys of all accounts. Through ``redis`` every process learns at once what changed here."""

    def __init__(self, engine: AsyncEngine, pepper: SecretStr, *, redis: Redis | None = None) -> None:
        self._engine = engine
        self._pepper = Pepper(pepper)
        self._redis = redis

    async def mint(
        self,
        account_id: int,
        *,
        name: str = "",
        scopes: Iterable[str] = (),
        models: Iterable[str] | None = None,
        cidrs: Iterable[str] = (),
        budget: int | None = None,
        period: Period = "total",
        rpm: int | None = None,
        expires_at: datetime | None = None,
        owner: Owner | None = None,
        actor: Actor = SYSTEM,
    ) -> MintedKey:
        """Make a key with its budget row, in one transaction.

        No scopes: all but admin. ``models`` None: all; their names are the caller's to check against the catalogue.
        ``budget``: the most this key may spend per ``period``, in credits; None: no limit. ``rpm``: requests a minute;
        None: the setting's. ``owner``: who makes one of his own, and may have so many.
        Raises: AccountNotFound, AccountSuspended, InvalidParameter, WrongPepper.
        """
        wanted = checked_scopes(scopes)
        networks = checked_networks(cidrs)
        check_budget(budget, period)
        check_rpm(rpm)
        if owner is not None:
            _check_raise("rpm", rpm, None, most=owner.most_rpm)
        if len(name) > 100 or not (name.isprintable()):
            raise InvalidParameter("'name' must be at most 100 printable characters.", param="name")
        async with transaction(self._engine) as connection:
            found = await connection.exec_driver_sql(_ACCOUNT, (account_id,))
            account = found.mappings().first()
            if account is None:
                raise AccountNotFound(f"acct_{account_id}")
            if account["state"] != "active":
                raise AccountSuspended
            if ADMIN_SCOPE in wanted and not account["is_admin"]:
                raise InvalidParameter(
                    f"The scope '{ADMIN_SCOPE}' is for administrators' accounts; {account['email']} is none.",
                    param="scopes",
                )
            if owner is not None:
                await _check_count(connection, account_id)
            version = await self._pepper.version(connection)
            secret = mint_secret()
            made = await connection.exec_driver_sql(
                _MINT,
                (
                    account_id,
                    self._pepper.mac(secret),
                    version,
                    name,
                    secret[-4:],
                    list(wanted),
                    None if models is None else sorted(set(models)),
                    list(networks) or None,
                    rpm,
                    expires_at,
                    budget,
                    period,
                ),
            )
            key_id = made.scalar_one()
            after = {
                "account": account_id,
                "name": name,
                "last4": secret[-4:],
                "scopes": list(wanted),
                "models": None if models is None else sorted(set(models)),
                "cidrs": [str(network) for network in networks],
                "rpm": rpm,
                "budget": budget,
                "period": period,
                "expires_at": expires_at,
            }
            await note(connection, actor, "key.create", f"key:{key_id}", after=after)
            return MintedKey(key_id, secret)

    async def rotate(
        self,
        key_id: int,
        overlap: timedelta = timedelta(hours=24),
        *,
        owner: Owner | None = None,
        actor: Actor = SYSTEM,
    ) -> MintedKey:
        """Make a successor with the same rights and life span; the old key works on for ``overlap`` (at most 30 days).

        The two share one budget: what the one has spent or holds is gone for the other, now and later. Raises:
        KeyNotFound for a key that is unknown or dead, AccountSuspended, InvalidParameter for one that has a working
        successor already.
        """
        if not timedelta(0) <= overlap <= MAX_OVERLAP:
            raise InvalidParameter("The overlap must be between 0 and 30 days.", param="overlap")
        secret = mint_secret()
        async with transaction(self._engine) as connection:
            version = await self._pepper.version(connection)
            # The order is the ledger's: the keys' rows, then their budgets.
            await connection.exec_driver_sql(_LOCK_FAMILY, (key_id,))
            old = await connection.exec_driver_sql(_LOCK_LIVE_KEY, (key_id,))
            row = old.first()
            if row is None:
                raise KeyNotFound(key_public_id(key_id))
            if (await connection.exec_driver_sql(_OWNER_STATE, (key_id,))).scalar() != "active":
                raise AccountSuspended
            successor = (await connection.exec_driver_sql(_LIVE_SUCCESSOR, (key_id,))).scalar()
            if successor is not None:
                raise InvalidParameter(
                    f"{key_public_id(key_id)} was replaced by {key_public_id(successor)} already. Rotate that one.",
                    param="key",
                )
            if owner is not None and overlap:
                await _check_count(connection, row.account_id)
            made = await connection.exec_driver_sql(
                _SUCCESSOR, (key_id, self._pepper.mac(secret), version, secret[-4:])
            )
            new_id = made.scalar_one()
            await connection.exec_driver_sql(_END_BY, (key_id, overlap))
            after = {"successor": key_public_id(new_id), "last4": secret[-4:], "overlap_s": overlap.total_seconds()}
            await note(connection, actor, "key.rotate", f"key:{key_id}", after=after)
        await tell(self._redis, key_id)
        return MintedKey(new_id, secret)

    async def revoke(self, key_id: int, *, reason: str | None = None, actor: Actor = SYSTEM) -> KeyInfo:
        """Stop the key for good: spending stops at this commit, reads as soon as the processes hear of it, and within
        the cache's time if they do not. Twice is no error.

        Raises: KeyNotFound, InvalidParameter for an empty reason.
        """
        why = {} if reason is None else {"reason": checked_reason(reason)}

        async def work() -> None:
            async with transaction(self._engine) as connection:
                if (await connection.exec_driver_sql(_REVOKE, (key_id,))).first() is not None:
                    await note(connection, actor, "key.revoke", f"key:{key_id}", after={"revoked": True} | why)

        await retried(work)
        await tell(self._redis, key_id)
        key = await self.get(key_id)
        if key.is_console:
            raise KeyNotFound(key_public_id(key_id))
        return key

    async def set_limits(
        self,
        key_id: int,
        *,
        budget: int | None,
        period: Period = "total",
        max_in_flight: int | None = None,
        rpm: int | None = None,
        owner: Owner | None = None,
        actor: Actor = SYSTEM,
    ) -> KeyInfo:
        """Set a key's limits, busy or not, and those of the keys it shares its budget with; None takes one away.

        An ``owner`` lowers requests a minute and tasks at once, or keeps them: an administrator may have set them.
        Raises: KeyNotFound, InvalidParameter.
        """
        check_budget(budget, period)
        check_rpm(rpm)
        if max_in_flight is not None and not 0 <= max_in_flight < 2**31:
            raise InvalidParameter("'max_in_flight' must be 0 or more.", param="max_in_flight")
        wanted = {"budget": budget, "period": period, "max_in_flight": max_in_flight, "rpm": rpm}

        async def work() -> list[int]:
            async with transaction(self._engine) as connection:
                await connection.exec_driver_sql(_LOCK_FAMILY, (key_id,))
                found = (await connection.exec_driver_sql(_LOCK_LIMITS, (key_id,))).mappings().all()
                rows = {row["id"]: {name: row[name] for name in wanted} for row in found}
                if key_id not in rows:
                    raise KeyNotFound(key_public_id(key_id))
                if owner is not None:
                    _check_raise("rpm", rpm, rows[key_id]["rpm"], most=owner.most_rpm)
                    _check_raise("max_in_flight", max_in_flight, rows[key_id]["max_in_flight"], most=None)
                await connection.exec_driver_sql(_SET_LIMITS, (list(rows), *wanted.values()))
                for one, before in rows.items():
                    was, now = changes(before, wanted)
                    if now:
                        await note(connection, actor, "key.limits", f"key:{one}", before=was, after=now)
                return list(rows)

        for one in await retried(work):
            await tell(self._redis, one)
        return await self.get(key_id)

    async def get(self, key_id: int) -> KeyInfo:
        """Raises: KeyNotFound."""
        return await key_info(self._engine, key_id)

    async def list(self, account_id: int | None = None) -> Sequence[KeyInfo]:
        """Return the keys of one account, or of all, oldest first; revoked ones too."""
        return await list_keys(self._engine, account_id)

    async def names(self, account_id: int, *, of: Collection[int] | None = None) -> Sequence[KeyName]:
        """Return an account's keys, or those of these numbers, newest first; dead ones too."""
        return await key_names(self._engine, account_id, of)

    async def has_any(self, account_id: int) -> bool:
        """Whether an account ever made a key itself."""
        return await has_keys(self._engine, account_id)

    async def search(self, wanted: KeySearch) -> tuple[Sequence[KeyInfo], bool]:
        """Return one page of keys, newest first, dead ones too; and whether there are more."""
        return await search_keys(self._engine, wanted)


def _check_raise(name: str, wanted: int | None, present: int | None, *, most: int | None) -> None:
    """Raises: InvalidParameter where an owner would give a key more than it has, or than a new one may have."""
    limit = most if present is None else present
    if limit is None or (wanted is None and present is None):
        return
    if wanted is None or wanted > limit:
        raise InvalidParameter(f"'{name}' may be at most {limit} here. An administrator can raise it.", param=name)


async def _check_count(connection: AsyncConnection, account_id: int) -> None:
    """Raises: InvalidParameter. Who makes keys of one account at once takes turns."""
    await connection.exec_driver_sql("SELECT 1 FROM accounts WHERE id = $1 FOR NO KEY UPDATE", (account_id,))
    if (await connection.exec_driver_sql(_COUNT, (account_id,))).scalar_one() >= MAX_OWN_KEYS:
        raise InvalidParameter(f"An account has at most {MAX_OWN_KEYS} active keys. Revoke one first.", param="key")


_COUNT = """
SELECT count(*) FROM api_keys WHERE account_id = $1 AND NOT is_console AND revoked_at IS NULL
   AND (expires_at IS NULL OR expires_at > now())"""
# Locked, not shared, as `_check_count` does: who is suspended or loses their rights meanwhile gets no key on the way.
_ACCOUNT = "SELECT email, is_admin, state FROM accounts WHERE id = $1 AND state <> 'closed' FOR NO KEY UPDATE"
_OWNER_STATE = """
SELECT a.state FROM accounts a JOIN api_keys k ON k.account_id = a.id WHERE k.id = $1 FOR NO KEY UPDATE OF a"""

_MINT = """
WITH made AS (
  INSERT INTO api_keys (account_id, key_mac, mac_ver, name, last4, scopes, models, cidrs, rpm, expires_at, life)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10::timestamptz - now()) RETURNING id)
INSERT INTO key_budgets (api_key_id, limit_amount, period) SELECT id, $11, $12 FROM made RETURNING api_key_id"""

# A family's first key: changes of its members take turns.
_LOCK_FAMILY = """
SELECT k.id FROM api_keys k JOIN key_budgets b ON coalesce(b.family, b.api_key_id) = k.id
 WHERE b.api_key_id = $1 FOR NO KEY UPDATE OF k"""

_LOCK_LIVE_KEY = """
SELECT id, account_id FROM api_keys WHERE id = $1 AND NOT is_console
   AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) FOR NO KEY UPDATE"""

_LIVE_SUCCESSOR = """
SELECT max(id) FROM api_keys
 WHERE replaces = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"""

_SUCCESSOR = """
WITH made AS (
  INSERT INTO api_keys (account_id, key_mac, mac_ver, name, last4, scopes, models, cidrs, rpm, expires_at, life,
                        replaces)
  SELECT account_id, $2, $3, name, $4, scopes, models, cidrs, rpm, now() + life, life, id
    FROM api_keys WHERE id = $1
  RETURNING id),
old AS (UPDATE key_budgets SET family = coalesce(family, api_key_id) WHERE api_key_id = $1 RETURNING *)
INSERT INTO key_budgets (api_key_id, limit_amount, period, max_in_flight, family)
SELECT made.id, old.limit_amount, old.period, old.max_in_flight, old.family FROM made, old
RETURNING api_key_id"""

_END_BY = "UPDATE api_keys SET expires_at = least(expires_at, now() + $2::interval) WHERE id = $1"

_REVOKE = """
UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL AND NOT is_console RETURNING id"""

_LOCK_LIMITS = """
SELECT k.id, m.limit_amount AS budget, m.period, m.max_in_flight, k.rpm
  FROM key_budgets b JOIN key_budgets m ON m.api_key_id = b.api_key_id OR m.family = b.family
  JOIN api_keys k ON k.id = m.api_key_id
 WHERE b.api_key_id = $1 AND NOT k.is_console ORDER BY k.id FOR NO KEY UPDATE OF k"""

_SET_LIMITS = """
WITH k AS (UPDATE api_keys SET rpm = $5 WHERE id = ANY($1::bigint[]) RETURNING id)
UPDATE key_budgets b SET limit_amount = $2, period = $3, max_in_flight = $4 FROM k WHERE b.api_key_id = k.id
RETURNING b.api_key_id"""
