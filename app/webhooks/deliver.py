"""Sends what lies in the outbox: claimed under a lease, through the safe fetcher, again until it is taken or given up.

The loop looks by itself, twice a second, so that it needs neither Redis nor a message. No endpoint can use up the
places of the others.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db import is_transient, once, retried, transaction
from app.errors import DatabaseUnavailable, InputUrlRefused, InputUrlUnreachable, TooManyRequests
from app.fetch.client import SafeFetcher, Unreachable
from app.fetch.guard import Refused
from app.values import new_id, utcnow
from app.webhooks.deliveries import event_of
from app.webhooks.endpoints import Endpoint, end_deliveries, lock_endpoint
from app.webhooks.events import LOW_CREDITS, SAMPLE_TASK, Event
from app.webhooks.secrets import Owner, Secrets
from app.webhooks.signing import headers

log = structlog.get_logger(__name__)

TICK_S = 0.5
GATHER_S = 0.02
SEND_S = 10.0
TEST_AGAIN_S = 5
LEASE = timedelta(seconds=30)
"""Longer than a send with its writing down takes: then another worker may send it again."""
BATCH = 64
PER_LANE = 4
"""Claimed of one endpoint at a time; at most twice as many are on their way."""
PER_ACCOUNT = 32
"""On their way for one account, to however many places."""
AT_ONCE = 256
WRITERS = 4
"""Results written down at once: they must not take the database connections of the worker's steps."""
GONE = 410

RETRIES: Final = (5.0, 30.0, 300.0, 1800.0, 7200.0, 21600.0, 55200.0)
"""Seconds to wait after each failed try: eight tries in 24 hours."""
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try ended."""

    status: int | None
    error: str | None
    """A word that tells nothing of any network: refused, unreachable, timeout, no_secret, status."""
    ms: int

    @property
    def is_ok(self) -> bool:
        return self.error is None


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that this process may send until its lease ends."""

    id: UUID
    token: int
    lane: UUID
    owner: Owner
    url: str
    tries: int
    event: Event
    timestamp: int
    """By the database's clock: receivers refuse what is five minutes off."""


def wait_after(tries: int, luck: float) -> timedelta | None:
    """Return how long to wait after so many failed tries, or None when that was the last. ``luck``: 0 to 1."""
    if tries > len(RETRIES):
        return None
    return timedelta(seconds=RETRIES[tries - 1] * (1 + JITTER * (2 * luck - 1)))


class Deliverer:
    """One per process that delivers. `run` must be going in workers; `test` serves a caller who waits."""

    def __init__(
        self,
        engine: AsyncEngine,
        secrets: Secrets,
        fetcher: SafeFetcher,
        *,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._engine = engine
        self._secrets = secrets
        self._fetcher = fetcher
        self._luck = luck
        self._lanes: Counter[UUID] = Counter()
        self._accounts: Counter[int] = Counter()
        self._sending: set[asyncio.Task[None]] = set()
        self._writers = asyncio.Semaphore(WRITERS)
        self._testing: set[int] = set()
        self._claiming = asyncio.Lock()
        self._is_draining = False
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Deliver what is due until cancelled."""
        try:
            while True:
                found = await self._round()
                if found < BATCH:
                    await self._pause()
        finally:
            for sending in self._sending:
                sending.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)

    async def drain(self, wait_s: float) -> int:
        """Claim nothing more, and let the sends that are on their way end. Returns how many did not."""
        self._is_draining = True
        try:
            async with asyncio.timeout(wait_s):
                async with self._claiming:
                    pass  # what is being claimed is sent as well
                if self._sending:
                    await asyncio.wait(self._sending)
        except TimeoutError:
            pass
        return len(self._sending)

    async def once(self) -> int:
        """Deliver what is due now, and wait for it. Returns how many were sent."""
        claimed = await self._start_due()
        await asyncio.gather(*self._sending)
        return claimed

    async def test(self, endpoint: Endpoint, event_type: str) -> int:
        """Send a sample of an event now, once, and log it. Returns the receiver's status.

        Raises: InputUrlRefused, InputUrlUnreachable; TooManyRequests while another test of the account is going on.
        """
        if endpoint.account_id in self._testing:
            raise TooManyRequests(
                "A test of your webhooks is going on. Wait for it to end.", retry_after_s=TEST_AGAIN_S
            )
        self._testing.add(endpoint.account_id)
        try:
            return await self._test(endpoint, event_type)
        finally:
            self._testing.discard(endpoint.account_id)

    async def _test(self, endpoint: Endpoint, event_type: str) -> int:
        about = f"acct_{endpoint.account_id}" if event_type == LOW_CREDITS else SAMPLE_TASK
        event = Event(new_id(), event_type, None, {"id": about, "test": True}, utcnow())
        owner = endpoint.owner
        live = (await self._secrets.live([owner]))[owner]
        outcome = await self._send(endpoint.url, event, live, int(time.time()))
        await once(
            self._engine,
            _LOG_TEST,
            (
                event.id,
                endpoint.account_id,
                event_type,
                json.dumps(event.data),
                event.created_at,
                endpoint.id,
                "delivered" if outcome.is_ok else "failed",
                outcome.status,
                outcome.error,
                outcome.ms,
            ),
        )
        if outcome.error == "refused":
            raise InputUrlRefused("The URL of this webhook endpoint is not allowed. It must be public.", param="url")
        if outcome.status is None:
            raise InputUrlUnreachable("The URL of this webhook endpoint could not be reached.", param="url")
        return outcome.status

    async def _pause(self) -> None:
        """Wait a tick, or less when a place became free: who has many events waits for no clock."""
        self._freed.clear()
        try:
            async with asyncio.timeout(TICK_S):
                await self._freed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_S)

    async def _round(self) -> int:
        try:
            return await self._start_due()
        except Exception as error:
            if not (is_transient(error) or isinstance(error, DatabaseUnavailable)):
                raise
            log.warning("webhooks.database_away", error=type(error).__name__)
            return 0

    async def _start_due(self) -> int:
        async with self._claiming:
            free = min(BATCH, AT_ONCE - len(self._sending))
            if free <= 0 or self._is_draining:
                return 0
            claims = await self._claim(free)
            secrets = await self._secrets.live({claim.owner for claim in claims}) if claims else {}
            for claim in claims:
                self._lanes[claim.lane] += 1
                self._accounts[claim.owner.account_id] += 1
                sending = asyncio.create_task(self._deliver(claim, secrets[claim.owner]))
                self._sending.add(sending)
                sending.add_done_callback(self._sending.discard)
            return len(claims)

    async def _claim(self, limit: int) -> list[Claim]:
        full = [lane for lane, count in self._lanes.items() if count >= PER_LANE]
        free = {account: PER_ACCOUNT - count for account, count in self._accounts.items()}
        arguments = (PER_LANE, full, list(free), list(free.values()), PER_ACCOUNT, limit, LEASE)
        rows = await once(self._engine, _CLAIM, arguments)
        dead = {row["lane"] for row in rows if row["endpoint_state"] != "active"}
        for lane in dead:  # its last event was written while the endpoint was being changed
            async with transaction(self._engine) as connection:
                await lock_endpoint(connection, lane)
                await end_deliveries(connection, lane)
        return [
            Claim(
                id=row["id"],
                token=row["claim"],
                lane=row["lane"],
                owner=Owner(row["account_id"], row["endpoint_id"]),
                url=row["target"],
                tries=row["tries"],
                event=event_of(row),
                timestamp=row["timestamp"],
            )
            for row in rows
            if row["lane"] not in dead
        ]

    async def _deliver(self, claim: Claim, live: list[str]) -> None:
        try:
            if not live and claim.owner.endpoint_id is None:
                live = [await self._secrets.of_account(claim.owner.account_id)]
            outcome = await self._send(claim.url, claim.event, live, claim.timestamp)
            async with self._writers:
                await retried(lambda: self._write_down(claim, outcome))
        except DatabaseUnavailable:
            log.warning("webhooks.not_written_down", delivery=str(claim.id))  # the lease runs out: it is sent again
        except Exception:
            # Left to the lease as well.
            log.exception("webhooks.delivery_broke", delivery=str(claim.id))
        finally:
            _count_down(self._lanes, claim.lane)
            _count_down(self._accounts, claim.owner.account_id)
            self._freed.set()

    async def _send(self, url: str, event: Event, live: list[str], timestamp: int) -> Outcome:
        if not live:
            return Outcome(None, "no_secret", 0)
        started, body = time.monotonic(), event.body()
        status, error = None, None
        try:
            signed = headers(live, event_id=event.public_id, timestamp=timestamp, body=body)
            status = await self._fetcher.post(url, body, signed, total_s=SEND_S)
            error = None if 200 <= status < 300 else "status"
        except Refused:
            error = "refused"
        except TimeoutError:
            error = "timeout"
        except Unreachable:
            error = "unreachable"
        return Outcome(status, error, int((time.monotonic() - started) * 1000))

    async def _write_down(self, claim: Claim, outcome: Outcome) -> None:
        """Note the try, and when the next one is; nothing when the lease went to somebody else."""
        tries = claim.tries + 1
        is_gone = outcome.status == GONE
        wait = None if outcome.is_ok or is_gone else wait_after(tries, self._luck())
        state = "delivered" if outcome.is_ok else "failed" if wait is None else "pending"
        async with transaction(self._engine) as connection:
            if is_gone and claim.owner.endpoint_id is not None:  # before its deliveries, as all who end those do
                await lock_endpoint(connection, claim.owner.endpoint_id)
            noted = await connection.exec_driver_sql(
                _WRITE_DOWN,
                (claim.id, claim.token, state, tries, wait, outcome.status, outcome.error, outcome.ms),
            )
            if noted.rowcount and is_gone and claim.owner.endpoint_id is not None:
                await _disable(connection, claim.owner.endpoint_id)
        log.info("webhooks.tried", delivery=str(claim.id), state=state, tries=tries, error=outcome.error)


async def _disable(connection: AsyncConnection, endpoint_id: UUID) -> None:
    await connection.exec_driver_sql(
        """UPDATE webhook_endpoints SET state = 'disabled', disabled_reason = 'gone', updated_at = now()
            WHERE id = $1 AND state = 'active'""",
        (endpoint_id,),
    )
    await end_deliveries(connection, endpoint_id)


def _count_down(counter: Counter[Any], key: object) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


# Lane by lane (the first part steps over the index from one lane to the next), so that a long queue of one is no wait
# for the others, and that no account has more than its places, however many lanes it makes.
_CLAIM = """
WITH RECURSIVE lanes AS (
  (SELECT lane FROM webhook_deliveries WHERE state = 'pending' ORDER BY lane LIMIT 1)
  UNION ALL
  SELECT (SELECT d.lane FROM webhook_deliveries d WHERE d.state = 'pending' AND d.lane > l.lane ORDER BY d.lane LIMIT 1)
    FROM lanes l WHERE l.lane IS NOT NULL),
due AS MATERIALIZED (
  SELECT d.* FROM lanes l CROSS JOIN LATERAL (
    SELECT id, account_id, due_at FROM webhook_deliveries d
     WHERE d.lane = l.lane AND d.state = 'pending' AND d.due_at <= now()
     ORDER BY d.due_at LIMIT $1 FOR UPDATE SKIP LOCKED) d
   WHERE l.lane IS NOT NULL AND l.lane <> ALL($2::uuid[])),
fair AS (
  SELECT f.id FROM (SELECT *, row_number() OVER (PARTITION BY account_id ORDER BY due_at) AS nth FROM due) f
    LEFT JOIN unnest($3::bigint[], $4::bigint[]) AS a (account_id, free) USING (account_id)
   WHERE f.nth <= coalesce(a.free, $5) ORDER BY f.due_at LIMIT $6),
claimed AS (
  UPDATE webhook_deliveries d SET claim = d.claim + 1, due_at = now() + $7::interval,
         sending_until = now() + $7::interval
    FROM fair WHERE d.id = fair.id RETURNING d.*)
SELECT c.*, coalesce(c.url, e.url) AS target, v.type, v.task_id, v.data, v.created_at AS event_at,
       extract(epoch FROM clock_timestamp())::bigint AS timestamp,
       CASE WHEN c.url IS NULL THEN coalesce(e.state, 'deleted') ELSE 'active' END AS endpoint_state
  FROM claimed c JOIN webhook_events v ON v.id = c.event_id LEFT JOIN webhook_endpoints e ON e.id = c.endpoint_id"""

_WRITE_DOWN = """
WITH noted AS (
  UPDATE webhook_deliveries SET state = $3, tries = $4, due_at = now() + coalesce($5::interval, interval '0'),
         last_status = $6, last_error = $7, last_ms = $8, sending_until = NULL,
         delivered_at = CASE $3 WHEN 'delivered' THEN now() ELSE delivered_at END
   WHERE id = $1 AND claim = $2 RETURNING id)
INSERT INTO webhook_attempts (delivery_id, at, status, error, ms)
SELECT id, clock_timestamp(), $6, $7, $8 FROM noted"""

_LOG_TEST = """
WITH event AS (
  INSERT INTO webhook_events (id, account_id, type, data, created_at)
  VALUES ($1, $2, $3, $4::text::jsonb, $5) RETURNING id),
delivery AS (
  INSERT INTO webhook_deliveries (event_id, account_id, endpoint_id, lane, state, tries, last_status, last_error,
                                  last_ms, delivered_at)
  SELECT id, $2, $6::uuid, $6::uuid, $7, 1, $8, $9, $10, CASE $7 WHEN 'delivered' THEN now() END FROM event
  RETURNING id)
INSERT INTO webhook_attempts (delivery_id, at, status, error, ms)
SELECT id, clock_timestamp(), $8, $9, $10 FROM delivery"""
