"""The log of deliveries: what was sent where, what came of it, and how to send it once more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import Where, once, retried
from app.errors import InvalidParameter, WebhookDeliveryNotFound, WebhookEndpointNotFound
from app.values import find_id, public_id
from app.webhooks.endpoints import ENDPOINT_PREFIX
from app.webhooks.events import Event

DELIVERY_PREFIX = "whd_"
ONE_OFF = "one_off"
"""Stands for an endpoint's id where the deliveries to one-off URLs are meant."""
KEEP = timedelta(days=30)
PRUNE_BATCH = 1000

State = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Attempt:
    at: datetime
    status: int | None
    error: str | None
    ms: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one place."""

    id: UUID
    event: Event
    url: str
    state: State
    tries: int
    due_at: datetime
    last_status: int | None
    last_error: str | None
    last_ms: int | None
    created_at: datetime
    delivered_at: datetime | None
    attempts: tuple[Attempt, ...]
    """The newest last; at most the 20 newest."""

    @property
    def public_id(self) -> str:
        return public_id(DELIVERY_PREFIX, self.id)


class DeliveryLog:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def list(
        self, account_id: int, endpoint: str, *, limit: int, after: str | None = None, state: State | None = None
    ) -> tuple[list[Delivery], bool]:
        """Return a page, the newest first, and whether there are more.

        Raises: WebhookEndpointNotFound, InvalidParameter.
        """
        before = None if after is None else find_id(DELIVERY_PREFIX, after)
        if after is not None and before is None:
            raise InvalidParameter("'after' must be the last id of the page before.", param="after")
        endpoint_id = await self._endpoint(account_id, endpoint)
        where = Where()
        where.add("d.account_id = {}", account_id)
        where.where += ["d.endpoint_id IS NULL"] if endpoint_id is None else []
        where.add("d.endpoint_id = {}", endpoint_id)
        where.where += [] if state is None else [_STATES[state]]
        where.add("d.id < {}", before)
        rows = await once(
            self._engine,
            f"{_DELIVERIES} WHERE {where.sql} ORDER BY d.id DESC LIMIT {limit + 1:d}",
            tuple(where.arguments),
        )
        return [_delivery(row) for row in rows[:limit]], len(rows) > limit

    async def redeliver(self, account_id: int, endpoint: str, delivery: str) -> Delivery:
        """Send it again, now and with all its tries, whatever came of it before. The event keeps its id.

        Raises: WebhookEndpointNotFound, WebhookDeliveryNotFound; InvalidParameter for a disabled endpoint, and while it
        is being sent.
        """
        endpoint_id = await self._endpoint(account_id, endpoint, must_take=True)
        delivery_id = find_id(DELIVERY_PREFIX, delivery)
        changed = await once(
            self._engine,
            """UPDATE webhook_deliveries SET state = 'pending', tries = 0, due_at = now(), claim = claim + 1
                WHERE id = $1 AND account_id = $2 AND endpoint_id IS NOT DISTINCT FROM $3::uuid
                  AND (state <> 'pending' OR sending_until IS NULL OR sending_until <= now()) RETURNING id""",
            (delivery_id, account_id, endpoint_id),
        )
        rows = await once(self._engine, _ONE, (account_id, endpoint_id, delivery_id))
        if not rows:
            raise WebhookDeliveryNotFound(delivery)
        if not changed:
            raise InvalidParameter("This delivery is being sent just now. Wait for what comes of it.")
        return _delivery(rows[0])

    async def prune(self, *, older_than: timedelta = KEEP) -> int:
        """Remove what is older, with endpoints deleted before then. Returns how many events went."""
        pruned = 0
        while True:
            gone = await retried(lambda: once(self._engine, _PRUNE, (older_than, PRUNE_BATCH)))
            pruned += len(gone)
            if len(gone) < PRUNE_BATCH:
                break
        await once(
            self._engine,
            "DELETE FROM webhook_secrets WHERE ends_at < now()",
        )
        await once(
            self._engine,
            "DELETE FROM webhook_endpoints WHERE state = 'deleted' AND updated_at < now() - $1::interval",
            (older_than,),
        )
        return pruned

    async def _endpoint(self, account_id: int, endpoint: str, *, must_take: bool = False) -> UUID | None:
        if endpoint == ONE_OFF:
            return None
        rows = await once(
            self._engine,
            "SELECT id, state FROM webhook_endpoints WHERE account_id = $1 AND id = $2 AND state <> 'deleted'",
            (account_id, find_id(ENDPOINT_PREFIX, endpoint)),
        )
        if not rows:
            raise WebhookEndpointNotFound(endpoint)
        if must_take and rows[0]["state"] == "disabled":
            raise InvalidParameter("This webhook endpoint is disabled. Set its 'status' to 'active' first.")
        found: UUID = rows[0]["id"]
        return found


_DELIVERIES = """
SELECT d.*, coalesce(d.url, e.url) AS target, v.type, v.task_id, v.data, v.created_at AS event_at,
       (SELECT coalesce(jsonb_agg(x ORDER BY x.at), '[]') FROM (SELECT a.at, a.status, a.error, a.ms
          FROM webhook_attempts a WHERE a.delivery_id = d.id ORDER BY a.at DESC LIMIT 20) x) AS attempts
  FROM webhook_deliveries d JOIN webhook_events v ON v.id = d.event_id
  LEFT JOIN webhook_endpoints e ON e.id = d.endpoint_id"""
_ONE = f"{_DELIVERIES} WHERE d.account_id = $1 AND d.endpoint_id IS NOT DISTINCT FROM $2::uuid AND d.id = $3"
# In words, not as arguments: so the planner sees which index is of them alone.
_STATES: Mapping[State, str] = {state: f"d.state = '{state}'" for state in get_args(State)}

# What is still on its way is at most a day old, or was sent anew by its owner.
_PRUNE = """
DELETE FROM webhook_events WHERE id IN (SELECT v.id FROM webhook_events v WHERE v.created_at < now() - $1::interval
   AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.event_id = v.id AND d.state = 'pending') LIMIT $2)
RETURNING id"""


def _delivery(row: Any) -> Delivery:
    return Delivery(
        id=row["id"],
        event=event_of(row),
        url=row["target"],
        state=row["state"],
        tries=row["tries"],
        due_at=row["due_at"],
        last_status=row["last_status"],
        last_error=row["last_error"],
        last_ms=row["last_ms"],
        created_at=row["created_at"],
        delivered_at=row["delivered_at"],
        attempts=tuple(
            Attempt(datetime.fromisoformat(a["at"]), a["status"], a["error"], a["ms"]) for a in _json(row["attempts"])
        ),
    )


def event_of(row: Any) -> Event:
    """Read the event that a row of a delivery came with."""
    return Event(row["event_id"], row["type"], row["task_id"], _json(row["data"]), row["event_at"])


def _json(value: Any) -> Any:
    """Statements past SQLAlchemy's types bring JSON as text."""
    return json.loads(value) if isinstance(value, str) else value
