"""API keys: minting, the check on every request, rotation, revocation. Spending is refused by the database itself."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.accounts.principal import (
    ADMIN_SCOPE,
    PREFIX,
    SCOPES,
    USER_SCOPES,
    Network,
    Period,
    Principal,
    check_budget,
    checked_networks,
    checked_scopes,
    is_inside,
    is_well_formed,
    mint_secret,
)
from app.db import once, retried, transaction
from app.errors import (
    AccountNotFound,
    InvalidApiKey,
    InvalidParameter,
    IpNotAllowed,
    KeyNotFound,
    MediagateError,
    WrongPepper,
)
from app.values import Credits

__all__ = ["SCOPES", "KeyInfo", "Keys", "MintedKey", "Principal", "is_well_formed", "mint_secret"]

log = structlog.get_logger(__name__)

MAC_VERSION = 1
CACHE_ENTRIES = 10_000
NEGATIVE_CACHE_S = 2.0
LAST_USED_EVERY_S = 60.0
MAX_OVERLAP = timedelta(days=30)


def key_public_id(key_id: int) -> str:
    return f"key_{key_id}"


def parse_key_id(text: str) -> int:
    """Read ``key_12`` or ``12``. Raises: KeyNotFound."""
    number = text.removeprefix("key_")
    if not (number.isascii() and number.isdigit() and len(number) <= 18):
        raise KeyNotFound(text)
    return int(number)


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
class KeyInfo:
    """What an operator, and the key's owner, may see of a key."""

    id: int
    account_id: int
    email: str
    name: str
    last4: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    cidrs: tuple[str, ...]
    replaces: int | None
    budget: Credits | None
    """None: no limit but the account's credits."""
    period: Period
    spent: Credits
    """In the budget's present period (days and months of UTC)."""
    held: Credits
    in_flight: int
    max_in_flight: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def public_id(self) -> str:
        return key_public_id(self.id)


@dataclass(frozen=True, slots=True)
class _Known:
    """A cache entry: a principal, or None for a key that does not work."""

    until: float
    principal: Principal | None
    networks: tuple[Network, ...] = ()


class Keys:
    """The keys of all accounts. One per process: it holds the cache.

    ``clock`` is monotonic seconds; expiry and revocation are judged by the database's clock.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        pepper: SecretStr,
        cache_s: float = 5.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._pepper = pepper.get_secret_value().encode()
        self._cache_s = cache_s
        self._clock = clock
        # Apart, so that a flood of wrong keys never pushes a working key out.
        self._good: dict[bytes, _Known] = {}
        self._bad: dict[bytes, _Known] = {}
        self._used: set[int] = set()

    # --- every request ----------------------------------------------------------------------------------------------

    async def authenticate(self, secret: str, *, peer: str | None) -> Principal:
        """Return who calls. At most one query, and none within the cache's time.

        A suspended account still reads; its spending is refused where credits are held. ``peer`` is the caller's
        address, None when there is none (a unix socket). Raises: InvalidApiKey, IpNotAllowed, DatabaseUnavailable.
        """
        if not is_well_formed(secret):
            raise InvalidApiKey
        mac = self._mac(secret)
        known = self._recall(mac) or await self._look_up(mac)
        if known.principal is None:
            raise InvalidApiKey
        if known.networks and not is_inside(peer, known.networks):
            raise IpNotAllowed
        self._used.add(known.principal.key_id)
        return known.principal

    def forget(self, key_id: int | None = None) -> None:
        """Drop one key, or everything, from this process's cache."""
        if key_id is None:
            self._good.clear()
            self._bad.clear()
            return
        for mac in [mac for mac, known in self._good.items() if known.principal and known.principal.key_id == key_id]:
            del self._good[mac]

    def _mac(self, secret: str) -> bytes:
        return hmac.new(self._pepper, secret.encode("ascii"), hashlib.sha256).digest()

    def _recall(self, mac: bytes) -> _Known | None:
        known = self._good.get(mac) or self._bad.get(mac)
        return known if known is not None and known.until > self._clock() else None

    async def _look_up(self, mac: bytes) -> _Known:
        asked_at = self._clock()  # before the query: what is cached is never staler than the cache's time
        rows = await retried(lambda: once(self._engine, _AUTHENTICATE, (mac, MAC_VERSION)))
        self._bad.pop(mac, None)
        self._good.pop(mac, None)
        if not rows:
            known = _Known(asked_at + min(NEGATIVE_CACHE_S, self._cache_s), None)
            _remember(self._bad, mac, known)
            return known
        row = rows[0]
        life_s = self._cache_s if row["left_s"] is None else min(self._cache_s, float(row["left_s"]))
        known = _Known(asked_at + life_s, _principal(row), tuple(row["cidrs"] or ()))
        _remember(self._good, mac, known)
        return known

    # --- last use ---------------------------------------------------------------------------------------------------

    async def flush_last_used(self) -> int:
        """Write down which keys were used since the last flush, in one statement; return how many rows changed."""
        used, self._used = self._used, set()
        if not used:
            return 0
        try:
            rows = await retried(lambda: once(self._engine, _LAST_USED, (sorted(used),)))
        except BaseException:
            self._used |= used  # they are due still
            raise
        return len(rows)

    async def keep_flushing(self, interval_s: float = LAST_USED_EVERY_S) -> None:
        """Flush for ever, once per interval, and once more when cancelled. Run it as a task of the process."""
        try:
            while True:
                await asyncio.sleep(interval_s)
                await self._try_to_flush()
        finally:
            await self._try_to_flush()

    async def _try_to_flush(self) -> None:
        try:
            await self.flush_last_used()
        except MediagateError as error:  # the database is away: the next round writes it
            log.warning("keys.last_used_not_flushed", reason=error.reason)

    # --- operators --------------------------------------------------------------------------------------------------

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
        expires_at: datetime | None = None,
    ) -> MintedKey:
        """Make a key with its budget row, in one transaction.

        No scopes: all but admin. ``models`` None: all; their names are the caller's to check against the catalogue.
        ``budget``: the most this key may spend per ``period``, in credits; None: no limit.
        Raises: AccountNotFound, InvalidParameter.
        """
        wanted = checked_scopes(scopes)
        networks = checked_networks(cidrs)
        check_budget(budget, period)
        if len(name) > 100 or not (name.isprintable()):
            raise InvalidParameter("'name' must be at most 100 printable characters.", param="name")
        async with transaction(self._engine) as connection:
            found = await connection.exec_driver_sql(_ACCOUNT, (account_id,))
            account = found.mappings().first()
            if account is None:
                raise AccountNotFound(f"acct_{account_id}")
            if ADMIN_SCOPE in wanted and not account["is_admin"]:
                raise InvalidParameter(
                    f"The scope '{ADMIN_SCOPE}' is for administrators' accounts; {account['email']} is none.",
                    param="scopes",
                )
            await self._check_pepper(connection)
            secret = mint_secret()
            made = await connection.exec_driver_sql(
                _MINT,
                (
                    account_id,
                    self._mac(secret),
                    MAC_VERSION,
                    name,
                    secret[-4:],
                    list(wanted),
                    None if models is None else sorted(set(models)),
                    list(networks) or None,
                    expires_at,
                    budget,
                    period,
                ),
            )
            return MintedKey(made.scalar_one(), secret)

    async def _check_pepper(self, connection: AsyncConnection) -> None:
        """Refuse to mint a key that this deployment's gateway, with its own pepper, would not know."""
        mark = self._mac("the pepper of this deployment")
        await connection.exec_driver_sql(_LEAVE_MARK, (mark,))
        kept = (await connection.exec_driver_sql(_READ_MARK)).scalar_one()
        if not hmac.compare_digest(kept, mark):
            raise WrongPepper

    async def rotate(self, key_id: int, overlap: timedelta = timedelta(hours=24)) -> MintedKey:
        """Make a successor with the same rights and life span; the old key works on for ``overlap`` (at most 30 days).

        A budget without an end ('total') passes on as what is left of it; a day's or a month's budget starts anew.
        Until the old key ends, each of the two has its own. Raises: KeyNotFound for a key that is unknown or dead,
        InvalidParameter for one that has a working successor already.
        """
        if not timedelta(0) <= overlap <= MAX_OVERLAP:
            raise InvalidParameter("The overlap must be between 0 and 30 days.", param="overlap")
        secret = mint_secret()
        async with transaction(self._engine) as connection:
            await self._check_pepper(connection)
            # The order is the ledger's: the key's row, then its budget.
            old = await connection.exec_driver_sql(_LOCK_LIVE_KEY, (key_id,))
            if old.first() is None:
                raise KeyNotFound(key_public_id(key_id))
            successor = (await connection.exec_driver_sql(_LIVE_SUCCESSOR, (key_id,))).scalar()
            if successor is not None:
                raise InvalidParameter(
                    f"{key_public_id(key_id)} was replaced by {key_public_id(successor)} already. Rotate that one.",
                    param="key",
                )
            made = await connection.exec_driver_sql(_SUCCESSOR, (key_id, self._mac(secret), MAC_VERSION, secret[-4:]))
            new_id = made.scalar_one()
            await connection.exec_driver_sql(_END_BY, (key_id, overlap))
        self.forget(key_id)
        return MintedKey(new_id, secret)

    async def revoke(self, key_id: int) -> KeyInfo:
        """Stop the key for good: spending stops at this commit, reads within the cache's time. Twice is no error.

        Raises: KeyNotFound.
        """
        rows = await retried(lambda: once(self._engine, _REVOKE, (key_id,)))
        self.forget(key_id)
        if not rows:
            raise KeyNotFound(key_public_id(key_id))
        return await self.get(key_id)

    async def set_limits(
        self, key_id: int, *, budget: int | None, period: Period = "total", max_in_flight: int | None = None
    ) -> KeyInfo:
        """Set a key's limits, busy or not; None takes one away. Raises: KeyNotFound, InvalidParameter."""
        check_budget(budget, period)
        if max_in_flight is not None and not 0 <= max_in_flight < 2**31:
            raise InvalidParameter("'max_in_flight' must be 0 or more.", param="max_in_flight")
        rows = await retried(lambda: once(self._engine, _SET_LIMITS, (key_id, budget, period, max_in_flight)))
        if not rows:
            raise KeyNotFound(key_public_id(key_id))
        return await self.get(key_id)

    async def get(self, key_id: int) -> KeyInfo:
        """Raises: KeyNotFound."""
        rows = await retried(lambda: once(self._engine, _INFO, (key_id, None)))
        if not rows:
            raise KeyNotFound(key_public_id(key_id))
        return _info(rows[0])

    async def list(self, account_id: int | None = None) -> Sequence[KeyInfo]:
        """Return the keys of one account, or of all, oldest first; revoked ones too."""
        return [_info(row) for row in await retried(lambda: once(self._engine, _INFO, (None, account_id)))]


def _principal(row: Any) -> Principal:
    scopes = frozenset(row["scopes"] or USER_SCOPES)
    if not row["is_admin"]:
        scopes -= {ADMIN_SCOPE}
    return Principal(
        account_id=row["account_id"],
        key_id=row["id"],
        email=row["email"],
        key_name=row["name"],
        key_last4=row["last4"],
        scopes=scopes,
        models=None if row["models"] is None else frozenset(row["models"]),
        is_admin=row["is_admin"],
    )


def _info(row: Any) -> KeyInfo:
    return KeyInfo(
        id=row["id"],
        account_id=row["account_id"],
        email=row["email"],
        name=row["name"],
        last4=row["last4"],
        scopes=tuple(row["scopes"] or USER_SCOPES),
        models=None if row["models"] is None else tuple(row["models"]),
        cidrs=tuple(str(network) for network in row["cidrs"] or ()),
        replaces=row["replaces"],
        budget=row["limit_amount"],
        period=row["period"],
        spent=row["spent"],
        held=row["held"],
        in_flight=row["in_flight"],
        max_in_flight=row["max_in_flight"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )


def _remember(cache: dict[bytes, _Known], mac: bytes, known: _Known) -> None:
    if len(cache) >= CACHE_ENTRIES:
        del cache[next(iter(cache))]  # the oldest look-up
    cache[mac] = known


_AUTHENTICATE = """
SELECT k.id, k.account_id, k.name, k.last4, k.scopes, k.models, k.cidrs, a.email, a.is_admin,
       extract(epoch FROM k.expires_at - now())::float8 AS left_s
  FROM api_keys k JOIN accounts a ON a.id = k.account_id
 WHERE k.key_mac = $1 AND k.mac_ver = $2 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
   AND a.state <> 'closed'"""

# In the order of their ids: two processes that flush at once never wait for each other in a circle.
_LAST_USED = """
WITH used AS (SELECT id FROM api_keys WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE)
UPDATE api_keys k SET last_used_at = now() FROM used WHERE k.id = used.id RETURNING k.id"""

_ACCOUNT = "SELECT email, is_admin FROM accounts WHERE id = $1 AND state <> 'closed'"

_LEAVE_MARK = "INSERT INTO deployment (name, value) VALUES ('key_pepper', $1) ON CONFLICT (name) DO NOTHING"

_READ_MARK = "SELECT value FROM deployment WHERE name = 'key_pepper'"

_MINT = """
WITH made AS (
  INSERT INTO api_keys (account_id, key_mac, mac_ver, name, last4, scopes, models, cidrs, expires_at)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id)
INSERT INTO key_budgets (api_key_id, limit_amount, period) SELECT id, $10, $11 FROM made RETURNING api_key_id"""

_LOCK_LIVE_KEY = """
SELECT id FROM api_keys
 WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) FOR NO KEY UPDATE"""

_LIVE_SUCCESSOR = """
SELECT max(id) FROM api_keys
 WHERE replaces = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"""

_SUCCESSOR = """
WITH made AS (
  INSERT INTO api_keys (account_id, key_mac, mac_ver, name, last4, scopes, models, cidrs, rpm, expires_at, replaces)
  SELECT account_id, $2, $3, name, $4, scopes, models, cidrs, rpm, now() + (expires_at - created_at), id
    FROM api_keys WHERE id = $1
  RETURNING id),
old AS (SELECT * FROM key_budgets WHERE api_key_id = $1 FOR NO KEY UPDATE)
INSERT INTO key_budgets (api_key_id, limit_amount, period, max_in_flight)
SELECT made.id, CASE WHEN old.period = 'total' AND old.limit_amount IS NOT NULL  -- greatest() skips nulls
                     THEN greatest(old.limit_amount - old.spent - old.held, 0) ELSE old.limit_amount END,
       old.period, old.max_in_flight FROM made, old
RETURNING api_key_id"""

_END_BY = "UPDATE api_keys SET expires_at = least(expires_at, now() + $2::interval) WHERE id = $1"

_REVOKE = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING id"

_SET_LIMITS = """
UPDATE key_budgets SET limit_amount = $2, period = $3, max_in_flight = $4 WHERE api_key_id = $1 RETURNING api_key_id"""

_INFO = """
SELECT k.*, a.email, b.limit_amount, b.period, b.held, b.in_flight, b.max_in_flight,
       CASE WHEN b.period_start < CASE b.period WHEN 'day' THEN (now() AT TIME ZONE 'UTC')::date
                                   WHEN 'month' THEN date_trunc('month', now() AT TIME ZONE 'UTC')::date
                                   ELSE '-infinity' END THEN 0 ELSE b.spent END AS spent
  FROM api_keys k JOIN accounts a ON a.id = k.account_id JOIN key_budgets b ON b.api_key_id = k.id
 WHERE ($1::bigint IS NULL OR k.id = $1) AND ($2::bigint IS NULL OR k.account_id = $2) ORDER BY k.id"""
