"""Upstream accounts as rows: added, changed, drained, rotated and deleted while their tasks run.

A *version* freezes what a running task needs to find its job again: address, options and secret. Changing one of them
makes a new version for new tasks; older ones stay until the last task that they took has ended, and `upkeep.py` removes
them. Secrets go in, and come out in nothing but the snapshot of `book.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.catalog.rows import (
    KEEP,
    MAX_CONCURRENCY,
    Keep,
    changing,
    checked_name,
    checked_number,
    checked_options,
    checked_url,
    from_json,
    is_in_the_open,
    origin_of,
    rows_of,
    unknown,
)
from app.catalog.secrets import Place
from app.db import once, retried
from app.errors import InvalidParameter, UpstreamExists, UpstreamNotFound
from app.journal import Actor, changes, note
from app.sealing import Sealed, SecretBox
from app.upstreams.protocols import Capabilities
from app.upstreams.registry import UpstreamState

DEFAULT_CONCURRENCY = 4
MAX_SECRET_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class UpstreamInfo:
    """One account as administrators see it: all but the secret."""

    name: str
    provider: str
    state: UpstreamState
    base_url: str | None
    options: Mapping[str, Any]
    concurrency: int
    has_secret: bool
    version: int
    """The one new tasks are taken with."""
    versions: int
    """How many are still kept."""
    open_tasks: int
    """Unfinished tasks, queued ones included."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """What a version freezes."""

    base_url: str | None
    options: Mapping[str, Any]
    secret: SecretStr | None


class UpstreamRows:
    """The accounts. Every change is one transaction with its audit row."""

    def __init__(
        self,
        engine: AsyncEngine,
        box: SecretBox,
        providers: Mapping[str, Capabilities],
        *,
        needs_https: bool = False,
    ) -> None:
        """``needs_https``: as in production, where plain http is for private networks."""
        self._engine = engine
        self._box = box
        self._providers = providers
        self._needs_https = needs_https

    async def list(self) -> Sequence[UpstreamInfo]:
        """Return every account, by name; deleted ones as long as tasks of theirs may run."""
        return [_info(row) for row in await retried(lambda: once(self._engine, _INFO, (None,)))]

    async def get(self, name: str) -> UpstreamInfo:
        """Raises: UpstreamNotFound."""
        rows = await retried(lambda: once(self._engine, _INFO, (name,)))
        if not rows:
            raise UpstreamNotFound(name)
        return _info(rows[0])

    async def add(
        self,
        name: str,
        *,
        provider: str,
        actor: Actor,
        base_url: str | None = None,
        secret: SecretStr | None = None,
        options: Mapping[str, Any] | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> UpstreamInfo:
        """Add an active account. A name may be used again once nothing of its former owner is left.

        Raises: InvalidParameter, UpstreamExists, WrongSecretsKey.
        """
        checked_name(name)
        if provider not in self._providers:
            raise unknown("provider", provider, self._providers)
        version = Version(self._address(base_url), checked_options(options), checked_secret(secret))
        checked_number("concurrency", concurrency, 1, MAX_CONCURRENCY)
        async with changing(self._engine) as connection:
            await self.insert(connection, name, provider, version, concurrency=concurrency, actor=actor)
        return await self.get(name)

    async def update(
        self,
        name: str,
        *,
        actor: Actor,
        base_url: str | Keep | None = KEEP,
        options: Mapping[str, Any] | Keep = KEEP,
        concurrency: int | Keep = KEEP,
        secret: SecretStr | Keep | None = KEEP,
    ) -> UpstreamInfo:
        """Change what is given. Another address, other options or another secret hold for new tasks only.

        A stored secret goes to no other host: with another scheme, host or port it must be given again.

        Raises: UpstreamNotFound, InvalidParameter, WrongSecretsKey, SecretDamaged.
        """
        async with changing(self._engine) as connection:
            row = await self._lock(connection, name)
            before = _public(row)
            after = dict(before)
            if base_url is not KEEP:
                after["base_url"] = self._address(base_url)
                is_moved = origin_of(after["base_url"]) != origin_of(before["base_url"])
                if is_moved and secret is KEEP and row["ciphertext"] is not None:
                    raise InvalidParameter(
                        "'base_url' names another host: give the secret again with it, for what is stored is sent to "
                        "no other one.",
                        param="base_url",
                    )
            if options is not KEEP:
                after["options"] = checked_options(options)
            if concurrency is not KEEP:
                after["concurrency"] = checked_number("concurrency", concurrency, 1, MAX_CONCURRENCY)
            if secret is not KEEP:
                checked_secret(secret)
                before["has_secret"], after["has_secret"] = row["ciphertext"] is not None, secret is not None
            if after != before or secret is not KEEP:
                is_new = (after["base_url"], after["options"]) != (before["base_url"], before["options"])
                if is_new or secret is not KEEP:
                    wanted = self.secret_of(row) if secret is KEEP else secret
                    version = Version(after["base_url"], after["options"], wanted)
                    after["version"] = await self._renew(connection, row, version)
                await connection.exec_driver_sql(
                    "UPDATE upstreams SET concurrency = $2, updated_at = now() WHERE name = $1",
                    (name, after["concurrency"]),
                )
                was, now = changes(before, after)
                await note(connection, actor, "upstream.update", target_of(name), before=was, after=now)
        return await self.get(name)

    async def set_state(self, name: str, state: UpstreamState, *, actor: Actor) -> UpstreamInfo:
        """Let the account take new tasks (``active``), or not (``draining``, ``disabled``); running ones go on.

        Raises: UpstreamNotFound, InvalidParameter.
        """
        if state not in ("active", "draining", "disabled"):
            raise InvalidParameter("'state' must be one of: active, draining, disabled.", param="state")
        async with changing(self._engine) as connection:
            row = await self._lock(connection, name)
            if row["state"] != state:
                await self._set_state(connection, name, state)
                was, now = {"state": row["state"]}, {"state": state}
                await note(connection, actor, "upstream.state", target_of(name), before=was, after=now)
        return await self.get(name)

    async def rotate(self, name: str, secret: SecretStr | None, *, actor: Actor) -> UpstreamInfo:
        """Store a new secret (None: none any more) for new tasks; running ones keep theirs until they end.

        Raises: UpstreamNotFound, InvalidParameter, WrongSecretsKey.
        """
        checked_secret(secret)
        async with changing(self._engine) as connection:
            row = await self._lock(connection, name)
            await self.renew_secret(connection, row, secret, actor=actor)
        return await self.get(name)

    async def delete(self, name: str, *, actor: Actor) -> UpstreamInfo:
        """Take the account and its routes away from new tasks, for good. The secret goes when the last task has ended.

        Raises: UpstreamNotFound.
        """
        async with changing(self._engine) as connection:
            row = await self._lock(connection, name)
            await self._set_state(connection, name, "deleted")
            removed = await rows_of(
                connection,
                """UPDATE routes SET removed_at = now(), updated_at = now()
                   WHERE upstream = $1 AND removed_at IS NULL RETURNING model, upstream_model""",
                name,
            )
            before = _public(row) | {"routes": [f"{route['model']} -> {route['upstream_model']}" for route in removed]}
            await note(connection, actor, "upstream.delete", target_of(name), before=before)
        return await self.get(name)

    def _address(self, url: str | None) -> str | None:
        """Raises: InvalidParameter."""
        url = checked_url(url)
        if self._needs_https and is_in_the_open(url):
            raise InvalidParameter(
                "'base_url' must be an https:// address: in production plain http is for private hosts.",
                param="base_url",
            )
        return url

    # --- inside of a change (also the seed's) ---------------------------------------------------------------------

    async def insert(
        self,
        connection: AsyncConnection,
        name: str,
        provider: str,
        version: Version,
        *,
        concurrency: int,
        actor: Actor,
    ) -> None:
        """Write a new account, or one under a name that is free again. Raises: UpstreamExists, WrongSecretsKey."""
        rows = await rows_of(
            connection,
            """INSERT INTO upstreams AS u (name, provider, concurrency) VALUES ($1, $2, $3)
               ON CONFLICT (name) DO UPDATE SET provider = excluded.provider, concurrency = excluded.concurrency,
                 state = 'active', newest = u.newest + 1, created_at = now(), updated_at = now()
               WHERE u.state = 'deleted' AND NOT EXISTS (SELECT FROM upstream_credentials c WHERE c.upstream = u.name)
               RETURNING newest""",
            name,
            provider,
            concurrency,
        )
        if not rows:
            raise await self._taken(connection, name)
        number = rows[0]["newest"]
        await self._store(connection, name, provider, number, version)
        after = {
            "provider": provider,
            "base_url": version.base_url,
            "options": version.options,
            "concurrency": concurrency,
            "version": number,
            "has_secret": version.secret is not None,
        }
        await note(connection, actor, "upstream.add", target_of(name), after=after)

    async def renew_secret(
        self, connection: AsyncConnection, row: Mapping[str, Any], secret: SecretStr | None, *, actor: Actor
    ) -> None:
        """Make a version with another secret. ``row`` is of `lock`. Raises: WrongSecretsKey."""
        number = await self._renew(connection, row, Version(row["base_url"], from_json(row["options"]), secret))
        was = {"version": row["newest"], "has_secret": row["ciphertext"] is not None}
        now = {"version": number, "has_secret": secret is not None}
        await note(connection, actor, "upstream.rotate", target_of(row["name"]), before=was, after=now)

    async def remember_seed(self, connection: AsyncConnection, name: str, secret: SecretStr) -> None:
        """Note which secret the environment held when we took it over, so that only another one counts as new."""
        await self._box.claim(connection)
        [row] = await rows_of(connection, "SELECT provider FROM upstreams WHERE name = $1", name)
        mark = self._box.seal(_digest(secret), Place(row["provider"], name, "seed"))
        await connection.exec_driver_sql(
            "UPDATE upstreams SET seed_mark = $2, seed_nonce = $3, seed_key_id = $4 WHERE name = $1",
            (name, mark.ciphertext, mark.nonce, mark.key_id),
        )

    def is_new_seed(self, row: Mapping[str, Any], secret: SecretStr) -> bool:
        """Whether the environment's secret is another one than last time. Raises: WrongSecretsKey, SecretDamaged."""
        if row["seed_mark"] is None:
            return True
        mark = Sealed(row["seed_mark"], row["seed_nonce"], row["seed_key_id"])
        return self._box.open(mark, Place(row["provider"], row["name"], "seed")) != _digest(secret)

    def secret_of(self, row: Mapping[str, Any]) -> SecretStr | None:
        """Open the secret of a row with its version. Raises: WrongSecretsKey, SecretDamaged."""
        if row["ciphertext"] is None:
            return None
        place = Place(row["provider"], row["name"], "secret", row["version"])
        sealed = Sealed(row["ciphertext"], row["nonce"], row["key_id"])
        return SecretStr(self._box.open(sealed, place).decode())

    async def find_locked(self, connection: AsyncConnection, name: str) -> Mapping[str, Any] | None:
        """Return the account with its newest version, locked; None when there is none, or it is deleted."""
        rows = await rows_of(connection, _LOCKED, name)
        return rows[0] if rows else None

    async def _lock(self, connection: AsyncConnection, name: str) -> Mapping[str, Any]:
        row = await self.find_locked(connection, name)
        if row is None:
            raise UpstreamNotFound(name)
        return row

    async def _taken(self, connection: AsyncConnection, name: str) -> UpstreamExists:
        [row] = await rows_of(connection, "SELECT state FROM upstreams WHERE name = $1", name)
        if row["state"] == "deleted":
            return UpstreamExists(
                f"The upstream account '{name}' was deleted, and tasks of it may still run. Its name is free some "
                "minutes after the last one has ended; take another one meanwhile.",
                param="name",
            )
        return UpstreamExists(f"There is an upstream account '{name}' already.", param="name")

    async def _renew(self, connection: AsyncConnection, row: Mapping[str, Any], version: Version) -> int:
        number: int = row["newest"] + 1
        await connection.exec_driver_sql(
            "UPDATE upstream_credentials SET retired_at = now() WHERE upstream = $1 AND retired_at IS NULL",
            (row["name"],),
        )
        await self._store(connection, row["name"], row["provider"], number, version)
        await connection.exec_driver_sql(
            "UPDATE upstreams SET newest = $2, updated_at = now() WHERE name = $1", (row["name"], number)
        )
        return number

    async def _store(
        self, connection: AsyncConnection, name: str, provider: str, number: int, version: Version
    ) -> None:
        sealed: tuple[Any, ...] = (None, None, None)
        if version.secret is not None:
            await self._box.claim(connection)
            place = Place(provider, name, "secret", number)
            found = self._box.seal(version.secret.get_secret_value().encode(), place)
            sealed = (found.ciphertext, found.nonce, found.key_id)
        await connection.exec_driver_sql(
            """INSERT INTO upstream_credentials (upstream, version, base_url, options, ciphertext, nonce, key_id)
               VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, $7)""",
            (name, number, version.base_url, json.dumps(version.options), *sealed),
        )

    async def _set_state(self, connection: AsyncConnection, name: str, state: str) -> None:
        await connection.exec_driver_sql(
            "UPDATE upstreams SET state = $2, updated_at = now() WHERE name = $1", (name, state)
        )


def checked_secret(secret: SecretStr | None) -> SecretStr | None:
    """Raises: InvalidParameter, which never repeats the secret."""
    if secret is None:
        return None
    value = secret.get_secret_value()
    if not 1 <= len(value) <= MAX_SECRET_CHARS or value != value.strip() or "\0" in value or not _is_text(value):
        raise InvalidParameter(
            f"'secret' must be 1 to {MAX_SECRET_CHARS} characters without spaces around them.", param="secret"
        )
    return secret


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _digest(secret: SecretStr) -> bytes:
    return hashlib.sha256(secret.get_secret_value().encode()).digest()


def target_of(name: str) -> str:
    return f"upstream:{name}"


def _public(row: Mapping[str, Any]) -> dict[str, Any]:
    """What an audit row may hold of an account."""
    return {
        "base_url": row["base_url"],
        "options": from_json(row["options"]),
        "concurrency": row["concurrency"],
        "version": row["newest"],
        "state": row["state"],
    }


def _info(row: Mapping[str, Any]) -> UpstreamInfo:
    return UpstreamInfo(
        name=row["name"],
        provider=row["provider"],
        state=row["state"],
        base_url=row["base_url"],
        options=from_json(row["options"]),
        concurrency=row["concurrency"],
        has_secret=row["has_secret"],
        version=row["newest"],
        versions=row["versions"],
        open_tasks=row["open_tasks"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


_INFO = """
SELECT u.*, c.base_url, c.options, c.ciphertext IS NOT NULL AS has_secret,
       (SELECT count(*) FROM upstream_credentials v WHERE v.upstream = u.name) AS versions,
       (SELECT count(*) FROM tasks t WHERE t.settled_at IS NULL AND split_part(t.pool, '/', 1) = u.name) AS open_tasks
  FROM upstreams u JOIN upstream_credentials c ON c.upstream = u.name AND c.version = u.newest
 WHERE $1::text IS NULL OR u.name = $1 ORDER BY u.name"""

_LOCKED = """
SELECT u.*, c.version, c.base_url, c.options, c.ciphertext, c.nonce, c.key_id
  FROM upstreams u JOIN upstream_credentials c ON c.upstream = u.name AND c.version = u.newest
 WHERE u.name = $1 AND u.state <> 'deleted' FOR UPDATE OF u"""
