"""An account's webhook endpoints: where its events go, which, and under which secret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db import once, transaction
from app.errors import InvalidParameter, WebhookEndpointNotFound
from app.fetch.client import SafeFetcher
from app.journal import SYSTEM, Actor, changes, note
from app.values import MAX_CREDITS, find_id, new_id, public_id
from app.webhooks.events import EVENT_TYPES, LOW_CREDITS
from app.webhooks.secrets import Owner, Secrets, lock

ENDPOINT_PREFIX = "whe_"
MAX_ENDPOINTS = 10
MAX_NAME_CHARS = 100

Status = Literal["active", "disabled"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint, as it was when it was read."""

    id: UUID
    account_id: int
    name: str
    url: str
    event_types: tuple[str, ...]
    state: Status
    disabled_reason: str | None
    hint: str
    created_at: datetime
    updated_at: datetime

    @property
    def public_id(self) -> str:
        return public_id(ENDPOINT_PREFIX, self.id)

    @property
    def owner(self) -> Owner:
        return Owner(self.account_id, self.id)


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """What holds for all webhooks of an account."""

    low_credits: int | None
    """None: no warning."""
    hint: str | None
    """Of the secret that signs one-off URLs; None: none was needed yet."""


class Endpoints:
    def __init__(self, engine: AsyncEngine, secrets: Secrets, fetcher: SafeFetcher, *, low_credits: int | None) -> None:
        self._engine = engine
        self._secrets = secrets
        self._fetcher = fetcher
        self._low_credits = low_credits

    async def create(
        self, account_id: int, *, name: str, url: str, event_types: Sequence[str], actor: Actor = SYSTEM
    ) -> tuple[Endpoint, str]:
        """Make an endpoint. Returns it with its signing secret, this once.

        Raises: InvalidParameter, InputUrlRefused.
        """
        name, wanted = _name(name), _types(event_types)
        self._fetcher.check(url, param="url")
        endpoint_id = new_id()
        async with transaction(self._engine) as connection:
            await lock(connection, account_id)
            count = await connection.exec_driver_sql(
                "SELECT count(*) FROM webhook_endpoints WHERE account_id = $1 AND state <> 'deleted'", (account_id,)
            )
            if count.scalar_one() >= MAX_ENDPOINTS:
                raise InvalidParameter(f"An account has at most {MAX_ENDPOINTS} webhook endpoints. Delete one first.")
            await connection.exec_driver_sql(
                "INSERT INTO webhook_endpoints (id, account_id, name, url, event_types) VALUES ($1, $2, $3, $4, $5)",
                (endpoint_id, account_id, name, url, wanted),
            )
            secret = await self._secrets.mint(connection, Owner(account_id, endpoint_id))
            await self._watch_credits(connection, account_id, wanted)
            made = await _get(connection, account_id, endpoint_id)
            await note(connection, actor, "webhook.create", _target(made.public_id), after=_public(made))
            return made, secret

    async def list(self, account_id: int, *, limit: int, after: str | None = None) -> tuple[list[Endpoint], bool]:
        """Return a page, the newest first, and whether there are more. Raises: InvalidParameter."""
        before = None if after is None else find_id(ENDPOINT_PREFIX, after)
        if after is not None and before is None:
            raise InvalidParameter("'after' must be the last id of the page before.", param="after")
        rows = await once(
            self._engine,
            f"{_SELECT} AND ($2::uuid IS NULL OR e.id < $2) ORDER BY e.id DESC LIMIT $3",
            (account_id, before, limit + 1),
        )
        return [_endpoint(row) for row in rows[:limit]], len(rows) > limit

    async def get(self, account_id: int, endpoint: str) -> Endpoint:
        """Raises: WebhookEndpointNotFound."""
        rows = await once(self._engine, f"{_SELECT} AND e.id = $2", (account_id, _id(endpoint)))
        if not rows:
            raise WebhookEndpointNotFound(endpoint)
        return _endpoint(rows[0])

    async def update(
        self,
        account_id: int,
        endpoint: str,
        *,
        name: str | None = None,
        url: str | None = None,
        event_types: Sequence[str] | None = None,
        status: Status | None = None,
        actor: Actor = SYSTEM,
    ) -> Endpoint:
        """Change what is given. Disabling ends what is on its way. Raises: as `create`, WebhookEndpointNotFound."""
        if url is not None:
            self._fetcher.check(url, param="url")
        wanted = None if event_types is None else _types(event_types)
        endpoint_id = _id(endpoint)
        async with transaction(self._engine) as connection:
            before = await _find_locked(connection, account_id, endpoint)
            found = await connection.exec_driver_sql(
                """UPDATE webhook_endpoints SET name = coalesce($3, name), url = coalesce($4, url),
                          event_types = coalesce($5::text[], event_types), state = coalesce($6, state),
                          disabled_reason = CASE $6::text WHEN 'active' THEN NULL WHEN 'disabled'
                            THEN coalesce(disabled_reason, 'by_owner') ELSE disabled_reason END,
                          updated_at = CASE WHEN (name, url, event_types, state) IS DISTINCT FROM (coalesce($3, name),
                            coalesce($4, url), coalesce($5::text[], event_types), coalesce($6, state))
                            THEN now() ELSE updated_at END
                    WHERE account_id = $1 AND id = $2 AND state <> 'deleted' RETURNING id""",
                (account_id, endpoint_id, None if name is None else _name(name), url, wanted, status),
            )
            if found.first() is None:
                raise WebhookEndpointNotFound(endpoint)
            if status == "disabled":
                await end_deliveries(connection, endpoint_id)
            await self._watch_credits(connection, account_id, wanted or [])
            after = await _get(connection, account_id, endpoint_id)
            was, now = changes(_public(before), _public(after))
            if now:
                await note(connection, actor, "webhook.update", _target(after.public_id), before=was, after=now)
            return after

    async def delete(self, account_id: int, endpoint: str, *, actor: Actor = SYSTEM) -> None:
        """Delete an endpoint with its secrets; nothing more is sent to it. Raises: WebhookEndpointNotFound."""
        endpoint_id = _id(endpoint)
        async with transaction(self._engine) as connection:
            before = await _find_locked(connection, account_id, endpoint)
            found = await connection.exec_driver_sql(
                """UPDATE webhook_endpoints SET state = 'deleted', disabled_reason = NULL, updated_at = now()
                    WHERE account_id = $1 AND id = $2 AND state <> 'deleted' RETURNING id""",
                (account_id, endpoint_id),
            )
            if found.first() is None:
                raise WebhookEndpointNotFound(endpoint)
            await connection.exec_driver_sql("DELETE FROM webhook_secrets WHERE endpoint_id = $1", (endpoint_id,))
            await end_deliveries(connection, endpoint_id)
            await note(connection, actor, "webhook.delete", _target(before.public_id), before=_public(before))

    async def rotate_secret(
        self, account_id: int, endpoint: str, *, keep_old: bool, actor: Actor = SYSTEM
    ) -> tuple[Endpoint, str]:
        """Return the endpoint with its new secret. Raises: WebhookEndpointNotFound."""
        endpoint_id = _id(endpoint)
        async with transaction(self._engine) as connection:
            found = await connection.exec_driver_sql(
                """UPDATE webhook_endpoints SET updated_at = now()
                    WHERE account_id = $1 AND id = $2 AND state <> 'deleted' RETURNING id""",
                (account_id, endpoint_id),
            )
            if found.first() is None:
                raise WebhookEndpointNotFound(endpoint)
            secret = await self._secrets.rotate(connection, Owner(account_id, endpoint_id), keep_old=keep_old)
            rotated = await _get(connection, account_id, endpoint_id)
            how = {"keep_old": keep_old}
            await note(connection, actor, "webhook.rotate", _target(rotated.public_id), after=how)
            return rotated, secret

    async def rotate_account_secret(self, account_id: int, *, keep_old: bool, actor: Actor = SYSTEM) -> str:
        """Replace the secret that signs one-off URLs, and return it."""
        async with transaction(self._engine) as connection:
            secret = await self._secrets.rotate(connection, Owner(account_id), keep_old=keep_old)
            how = {"keep_old": keep_old}
            await note(connection, actor, "webhook.rotate", f"account:{account_id}", after=how)
            return secret

    async def settings(self, account_id: int) -> AccountSettings:
        [row] = await once(
            self._engine,
            """SELECT a.low_credits, s.hint FROM accounts a LEFT JOIN webhook_secrets s
                   ON s.account_id = a.id AND s.endpoint_id IS NULL AND s.ends_at IS NULL WHERE a.id = $1""",
            (account_id,),
        )
        return AccountSettings(row["low_credits"], row["hint"])

    async def set_low_credits(
        self, account_id: int, low_credits: int | None, *, actor: Actor = SYSTEM
    ) -> AccountSettings:
        """Set below how many credits `credits.low` is sent; None: never. Raises: InvalidParameter."""
        if low_credits is not None and not 1 <= low_credits <= MAX_CREDITS:
            raise InvalidParameter("'low_credits' must be a whole number from 1, or null.", param="low_credits")
        async with transaction(self._engine) as connection:
            found = await connection.exec_driver_sql(
                "SELECT low_credits FROM accounts WHERE id = $1 FOR NO KEY UPDATE", (account_id,)
            )
            before = found.scalar_one()
            if before != low_credits:
                await connection.exec_driver_sql(
                    "UPDATE accounts SET low_credits = $2 WHERE id = $1", (account_id, low_credits)
                )
                was, now = {"low_credits": before}, {"low_credits": low_credits}
                await note(connection, actor, "webhook.low_credits", f"account:{account_id}", before=was, after=now)
        return await self.settings(account_id)

    async def _watch_credits(self, connection: AsyncConnection, account_id: int, event_types: Sequence[str]) -> None:
        """Whoever subscribes to the warning has one, without another call."""
        if LOW_CREDITS in event_types and self._low_credits is not None:
            await connection.exec_driver_sql(
                "UPDATE accounts SET low_credits = $2 WHERE id = $1 AND low_credits IS NULL",
                (account_id, self._low_credits),
            )


async def lock_endpoint(connection: AsyncConnection, endpoint_id: UUID) -> None:
    await connection.exec_driver_sql("SELECT FROM webhook_endpoints WHERE id = $1 FOR NO KEY UPDATE", (endpoint_id,))


async def end_deliveries(connection: AsyncConnection, endpoint_id: UUID) -> None:
    """Give up what is on its way to an endpoint that takes no more. Who calls has locked the endpoint."""
    await connection.exec_driver_sql(
        """UPDATE webhook_deliveries SET state = 'failed', last_error = 'endpoint_disabled', claim = claim + 1
            WHERE lane = $1 AND state = 'pending'""",
        (endpoint_id,),
    )


async def _get(connection: AsyncConnection, account_id: int, endpoint_id: UUID) -> Endpoint:
    found = await connection.exec_driver_sql(f"{_SELECT} AND e.id = $2", (account_id, endpoint_id))
    return _endpoint(found.mappings().one())


async def _find_locked(connection: AsyncConnection, account_id: int, endpoint: str) -> Endpoint:
    """Raises: WebhookEndpointNotFound."""
    endpoint_id = _id(endpoint)
    await lock_endpoint(connection, endpoint_id)
    found = await connection.exec_driver_sql(f"{_SELECT} AND e.id = $2", (account_id, endpoint_id))
    row = found.mappings().first()
    if row is None:
        raise WebhookEndpointNotFound(endpoint)
    return _endpoint(row)


def _target(public_id: str) -> str:
    return f"webhook:{public_id}"


def _public(endpoint: Endpoint) -> dict[str, Any]:
    """What an audit row may hold of an endpoint: whose it is, and never its secret."""
    return {
        "account": f"acct_{endpoint.account_id}",
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "status": endpoint.state,
    }


_SELECT = """
SELECT e.*, s.hint FROM webhook_endpoints e JOIN webhook_secrets s ON s.endpoint_id = e.id AND s.ends_at IS NULL
 WHERE e.account_id = $1 AND e.state <> 'deleted'"""


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(
        id=row["id"],
        account_id=row["account_id"],
        name=row["name"],
        url=row["url"],
        event_types=tuple(row["event_types"]),
        state=row["state"],
        disabled_reason=row["disabled_reason"],
        hint=row["hint"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _id(endpoint: str) -> UUID:
    found = find_id(ENDPOINT_PREFIX, endpoint)
    if found is None:
        raise WebhookEndpointNotFound(endpoint)
    return found


def _name(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise InvalidParameter(f"'name' must be 1 to {MAX_NAME_CHARS} characters on one line.", param="name")
    return name


def _types(event_types: Sequence[str]) -> list[str]:
    allowed = ", ".join(EVENT_TYPES)
    if not event_types:
        raise InvalidParameter(f"'event_types' must name at least one of: {allowed}.", param="event_types")
    for kind in event_types:
        if kind not in EVENT_TYPES:
            raise InvalidParameter(
                f"There is no event type '{kind[:64]}' here. Allowed in 'event_types': {allowed}.", param="event_types"
            )
    return [kind for kind in EVENT_TYPES if kind in event_types]
