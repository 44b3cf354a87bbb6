"""Who calls: the check of a key on every request, at most one query and mostly none. Spending is refused elsewhere.

A key that was looked up is believed for seconds; a change is heard of at once through Redis. Wrong keys are counted by
their source, and a source with too many of them asks the database once a second at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.accounts.news import hear
from app.accounts.pepper import Pepper
from app.accounts.principal import ADMIN_SCOPE, USER_SCOPES, Network, Principal, is_inside, is_well_formed
from app.accounts.strangers import Strangers
from app.db import once, read, retried, transaction
from app.errors import IpNotAllowed, MediagateError

log = structlog.get_logger(__name__)

CACHE_ENTRIES = 10_000
NEGATIVE_CACHE_S = 2.0
LAST_USED_EVERY_S = 60.0
WRONG_KEYS_PER_MINUTE = 20


@dataclass(frozen=True, slots=True)
class _Known:
    """A cache entry: a principal, or None for a key that does not work."""

    until: float
    principal: Principal | None
    networks: tuple[Network, ...] = ()


class Callers:
    """The keys this process has seen. One per process: it holds the cache.

    ``clock`` is monotonic seconds; expiry and revocation are judged by the database's clock.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        pepper: SecretStr,
        cache_s: float = 5.0,
        *,
        wrong_per_minute: int = WRONG_KEYS_PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._pepper = Pepper(pepper)
        self._cache_s = cache_s
        self._clock = clock
        self._strangers = Strangers(wrong_per_minute, clock=clock)
        # Apart, so that a flood of wrong keys never pushes a working key out.
        self._good: dict[bytes, _Known] = {}
        self._bad: dict[bytes, _Known] = {}
        self._asking: dict[bytes, asyncio.Task[_Known]] = {}
        self._changes = 0
        self._used: set[int] = set()

    async def authenticate(self, secret: str, *, peer: str | None) -> Principal:
        """Return who calls.

        A suspended account still reads; its spending is refused where credits are held. ``peer`` is the caller's
        address, None when there is none (a unix socket). Raises: InvalidApiKey, IpNotAllowed, DatabaseUnavailable;
        TooManyRequests for a source of many wrong keys, at times also with a right one that was not seen here before.
        """
        if not is_well_formed(secret):
            raise self._strangers.refusal(peer, is_well_formed=False)
        mac = self._pepper.mac(secret)
        known = self._recall(mac)
        if known is None:
            # A key that worked here before is always looked up again, and one that is being looked up costs nothing.
            if mac not in self._good and mac not in self._asking:
                self._strangers.check(peer)
            known = await self._ask(mac, secret)
        if known.principal is None:
            raise self._strangers.refusal(peer)
        if known.networks and not is_inside(peer, known.networks):
            raise IpNotAllowed
        self._used.add(known.principal.key_id)
        return known.principal

    def forget(self, key_id: int | None = None) -> None:
        """Believe nothing more of one key, or of any, without asking the database."""
        self._changes += 1
        self._asking.clear()  # who comes from now on asks anew
        if key_id is None:
            self._bad.clear()
        for mac, known in self._good.items():
            if known.principal is not None and key_id in (None, known.principal.key_id):
                self._good[mac] = replace(known, until=-1.0)

    async def listen(self, redis: Redis) -> None:
        """Forget keys as they change, until cancelled."""
        await hear(redis, self.forget)

    def _recall(self, mac: bytes) -> _Known | None:
        known = self._good.get(mac) or self._bad.get(mac)
        return known if known is not None and known.until > self._clock() else None

    async def _ask(self, mac: bytes, secret: str) -> _Known:
        """Look a key up, once for all requests that bring it at the same time."""
        asking = self._asking.get(mac)
        if asking is None:
            asking = self._asking[mac] = asyncio.create_task(self._look_up(mac, secret))
            asking.add_done_callback(lambda done: self._answered(mac, done))
        return await asyncio.shield(asking)

    def _answered(self, mac: bytes, done: asyncio.Task[_Known]) -> None:
        if self._asking.get(mac) is done:
            del self._asking[mac]
        if not done.cancelled():
            done.exception()  # seen, also when every request that waited has left

    async def _look_up(self, mac: bytes, secret: str) -> _Known:
        # Both before the query: what is cached is never staler than the cache's time, or older than a change.
        asked_at, changes = self._clock(), self._changes
        macs = self._pepper.macs(secret)
        rows = await read(self._engine, _AUTHENTICATE, (macs,))
        self._bad.pop(mac, None)
        self._good.pop(mac, None)
        if not rows:
            known = _Known(asked_at + min(NEGATIVE_CACHE_S, self._cache_s), None)
            _remember(self._bad, mac, known)
            return known
        row = rows[0]
        life_s = self._cache_s if row["left_s"] is None else min(self._cache_s, float(row["left_s"]))
        known = _Known(asked_at + life_s, _principal(row), tuple(row["cidrs"] or ()))
        _remember(self._good, mac, known if changes == self._changes else replace(known, until=-1.0))
        if row["key_mac"] != mac:
            await self._move(row["id"], row["key_mac"], mac)
        return known

    async def _move(self, key_id: int, old_mac: bytes, mac: bytes) -> None:
        """Store a key under the first pepper that was stored under the other: used keys outlive a change of peppers."""
        try:
            async with transaction(self._engine) as connection:
                version = await self._pepper.version(connection)
                await connection.exec_driver_sql(_MOVE, (key_id, old_mac, mac, version))
        except (MediagateError, SQLAlchemyError, OSError) as error:  # its next look-up tries again
            log.warning("keys.not_moved", key_id=key_id, error=type(error).__name__)

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
        rpm=row["rpm"],
        seemed_empty=row["seemed_empty"],
    )


def _remember(cache: dict[bytes, _Known], mac: bytes, known: _Known) -> None:
    if len(cache) >= CACHE_ENTRIES:
        del cache[next(iter(cache))]  # the oldest look-up
    cache[mac] = known


_AUTHENTICATE = """
SELECT k.id, k.account_id, k.key_mac, k.name, k.last4, k.scopes, k.models, k.cidrs, k.rpm, a.email,
       a.is_admin AND a.state = 'active' AS is_admin,
       a.posted - a.held <= 0 AS seemed_empty, extract(epoch FROM k.expires_at - now())::float8 AS left_s
  FROM api_keys k JOIN accounts a ON a.id = k.account_id
 WHERE k.key_mac = ANY($1::bytea[]) AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
   AND a.state <> 'closed'"""

_MOVE = "UPDATE api_keys SET key_mac = $3, mac_ver = $4 WHERE id = $1 AND key_mac = $2 AND mac_ver < $4"

# In the order of their ids: two processes that flush at once never wait for each other in a circle.
_LAST_USED = """
WITH used AS (SELECT id FROM api_keys WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE)
UPDATE api_keys k SET last_used_at = now() FROM used WHERE k.id = used.id RETURNING k.id"""
