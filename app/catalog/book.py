"""The book of upstream accounts and routes: filled from the files at first, then kept by administrators at run time.

Processes look every second whether something changed and take over a new `Snapshot`, whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.catalog import upkeep
from app.catalog.load import Catalog
from app.catalog.routes import RouteRows, entry_of
from app.catalog.rows import changing, from_json, rows_of
from app.catalog.spec import Route, UpstreamSpec
from app.catalog.upstreams import UpstreamRows, Version
from app.db import is_transient, once, retried, sqlstate_of
from app.errors import MediagateError, SecretDamaged, WrongSecretsKey
from app.journal import Actor
from app.sealing import SecretBox
from app.settings import find_secret
from app.upstreams.protocols import Capabilities, Upstream
from app.upstreams.registry import Account, Registry, RouteEntry, Snapshot

log = structlog.get_logger(__name__)

WATCH_S = 1.0
NOT_MIGRATED = "42P01"
SEED = Actor("seed")


class Book:
    """One process's hand on the accounts (``upstreams``) and ``routes``."""

    def __init__(
        self,
        engine: AsyncEngine,
        secrets_key: SecretStr,
        *,
        catalog: Catalog,
        providers: Mapping[str, Capabilities],
        work_dir: Path,
        in_force: Callable[[], Catalog] | None = None,
        needs_https: bool = False,
    ) -> None:
        """``catalog`` is the files', which the seed is taken from; ``in_force`` returns the one that routes must fit.

        Raises: SettingsError for an empty key.
        """
        self._engine = engine
        self._box = SecretBox(secrets_key)
        self._catalog = catalog
        self._providers = providers
        self._work_dir = work_dir
        self._is_seeded = False
        self._shown: int | None = None
        self.upstreams = UpstreamRows(engine, self._box, providers, needs_https=needs_https)
        self.routes = RouteRows(engine, in_force or (lambda: catalog), providers)

    def variable_of(self, name: str) -> str | None:
        """Return the variable that the files name for the secret of this account, if they know it."""
        spec = self._catalog.upstreams.get(name)
        return None if spec is None else spec.secret_env

    async def purge(self, *, after: timedelta = upkeep.PURGE_AFTER) -> int:
        """Remove the versions, with their secrets, that no task needs any more. Returns how many."""
        return await upkeep.purge(self._engine, after=after)

    async def reencrypt(self, *, actor: Actor, drop_unreadable: bool = False) -> upkeep.Reencrypted:
        """Seal every secret anew under the first key. Raises: WrongSecretsKey, SecretDamaged."""
        return await upkeep.reencrypt(self._engine, self._box, actor=actor, drop_unreadable=drop_unreadable)

    # --- from the files -------------------------------------------------------------------------------------------

    async def seed(self) -> None:
        """Write what the files name and the book never held; a secret that changed in the environment is rotated in.

        An account whose variable is not set waits, with its routes, for a start at which it is. What administrators
        changed, removed or deleted stays so. Safe to run twice, or at once. Raises: WrongSecretsKey, SecretDamaged.
        """
        await retried(self._seed)
        self._is_seeded = True

    async def _seed(self) -> None:
        secrets = {
            spec.name: None if spec.secret_env is None else find_secret(spec.secret_env)
            for spec in self._catalog.upstreams.values()
        }
        async with self._engine.connect() as connection:
            is_due = await self._is_due(connection, secrets)
        if not is_due:
            return
        async with changing(self._engine) as connection:
            known = {row["name"] for row in await rows_of(connection, "SELECT name FROM upstreams")}
            for spec in self._catalog.upstreams.values():
                await self._seed_account(connection, spec, secrets[spec.name], is_known=spec.name in known)
            missing = await self._missing_routes(connection)
            for entry in missing:
                await self.routes.insert(connection, entry, actor=SEED)
        if missing:
            log.info("routes.seeded", routes=len(missing))

    async def _is_due(self, connection: AsyncConnection, secrets: Mapping[str, SecretStr | None]) -> bool:
        """Whether there is anything to write: most starts change nothing, and wait for nobody."""
        known = {row["name"]: row for row in await rows_of(connection, "SELECT * FROM upstreams")}
        due = False
        for spec in self._catalog.upstreams.values():
            secret, row = secrets[spec.name], known.get(spec.name)
            if row is None and spec.secret_env is not None and secret is None:
                log.info("upstream.waits_for_variable", upstream=spec.name, variable=spec.secret_env)
            elif row is None:
                due = True
            elif secret is not None and row["state"] != "deleted":
                due = due or self.upstreams.is_new_seed(row, secret)
        return due or bool(await self._missing_routes(connection))

    async def _seed_account(
        self, connection: AsyncConnection, spec: UpstreamSpec, secret: SecretStr | None, *, is_known: bool
    ) -> None:
        if not is_known:
            if spec.secret_env is not None and secret is None:
                return
            version = Version(spec.base_url, spec.options, secret)
            await self.upstreams.insert(
                connection, spec.name, spec.provider, version, concurrency=spec.concurrency, actor=SEED
            )
        elif secret is not None:
            row = await self.upstreams.find_locked(connection, spec.name)
            if row is None or not self.upstreams.is_new_seed(row, secret):
                return
            await self.upstreams.renew_secret(connection, row, secret, actor=SEED)
        if secret is not None:
            await self.upstreams.remember_seed(connection, spec.name, secret)
        log.info("upstream.seeded", upstream=spec.name)

    async def _missing_routes(self, connection: AsyncConnection) -> list[RouteEntry]:
        """Return the files' routes that were never in the book and whose account is."""
        usable = {r["name"] for r in await rows_of(connection, "SELECT name FROM upstreams WHERE state <> 'deleted'")}
        rows = await rows_of(connection, "SELECT model, upstream, upstream_model FROM routes")
        known = {(row["model"], row["upstream"], row["upstream_model"]) for row in rows}
        return [
            _entry(model.id, index, route)
            for model in self._catalog.models.values()
            for index, route in enumerate(model.routes)
            if route.upstream in usable and (model.id, route.upstream, route.model) not in known
        ]

    # --- to the registry ------------------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """Return all accounts and routes with their secrets. Raises: WrongSecretsKey, SecretDamaged."""
        return (await retried(self._read))[1]

    async def refresh(self, registry: Registry) -> bool:
        """Hand the registry a new snapshot if something changed since the last time. Returns whether it did.

        Raises: WrongSecretsKey, SecretDamaged (said once; the registry keeps what it has), DatabaseUnavailable.
        """
        if not self._is_seeded:
            await self.seed()
        rows = await retried(lambda: once(self._engine, "SELECT revision FROM upstream_book"))
        if rows[0]["revision"] == self._shown:
            return False
        self._shown = rows[0]["revision"]  # before reading: what changes meanwhile is seen the next time
        try:
            self._shown, snapshot = await retried(self._read)
        except (WrongSecretsKey, SecretDamaged):
            raise
        except BaseException:
            self._shown = None
            raise
        registry.replace(snapshot)
        return True

    async def watch(self, registry: Registry, every_s: float = WATCH_S) -> None:
        """Keep the registry up to date until cancelled; seed first, as soon as the database lets us."""
        trouble = ""
        while True:
            try:
                if await self.refresh(registry):
                    log.info("upstreams.taken_over", accounts=len(registry.snapshot.accounts))
                trouble = ""
            except (WrongSecretsKey, SecretDamaged) as error:
                log.error("upstreams.unreadable", reason=error.reason, what=error.message)
            except Exception as error:
                if type(error).__name__ != trouble:  # once, not every second
                    trouble = type(error).__name__
                    if isinstance(error, MediagateError) or is_transient(error) or sqlstate_of(error) == NOT_MIGRATED:
                        log.warning("upstreams.postponed", error=trouble)
                    else:
                        log.exception("upstreams.watch_failed")
            await asyncio.sleep(every_s)

    async def _read(self) -> tuple[int, Snapshot]:
        async with self._engine.connect() as connection:
            connection = await connection.execution_options(isolation_level="REPEATABLE READ")
            [book] = await rows_of(connection, "SELECT revision FROM upstream_book")
            versions = await rows_of(connection, _VERSIONS)
            routes = [entry_of(row) for row in await rows_of(connection, _ROUTES)]
        grouped: dict[str, list[RouteEntry]] = {}
        for route in routes:
            grouped.setdefault(route.model, []).append(route)
        accounts = self._accounts(versions)
        return book["revision"], Snapshot(accounts, {model: tuple(entries) for model, entries in grouped.items()})

    def _accounts(self, rows: list[Any]) -> dict[str, Account]:
        """Return the accounts of providers that are installed here."""
        found: dict[str, dict[int, Upstream]] = {}
        rows_by_name: dict[str, Any] = {}
        for row in rows:
            if row["provider"] not in self._providers:
                log.error("upstream.provider_missing", upstream=row["name"], provider=row["provider"])
                continue
            upstream = self._upstream(row)
            if upstream is not None:
                found.setdefault(row["name"], {})[row["version"]] = upstream
                rows_by_name[row["name"]] = row
        accounts = {}
        for name, versions in found.items():
            row = rows_by_name[name]
            newest = row["newest"] if row["newest"] in versions else max(versions)  # of a deleted account, perhaps
            accounts[name] = Account(row["state"], row["concurrency"], newest, versions)
        return accounts

    def _upstream(self, row: Mapping[str, Any]) -> Upstream | None:
        """Return one version, or None for an old one that does not open any more."""
        try:
            secret = self.upstreams.secret_of(row)
        except (WrongSecretsKey, SecretDamaged) as error:
            if row["version"] == row["newest"] and row["state"] != "deleted":
                raise
            log.error("upstream.version_unreadable", upstream=row["name"], version=row["version"], reason=error.reason)
            return None
        return Upstream(
            name=row["name"],
            provider=row["provider"],
            base_url=row["base_url"],
            secret=secret,
            options=from_json(row["options"]),
            work_dir=self._work_dir / row["name"],
        )


def _entry(model: str, index: int, route: Route) -> RouteEntry:
    return RouteEntry(
        model,
        route.upstream,
        route.model,
        priority=index if route.priority is None else route.priority,
        weight=route.weight,
        needs_permission=route.needs_permission,
        operations=None if route.operations is None else frozenset(route.operations),
        options=route.options,
    )


_VERSIONS = """
SELECT u.name, u.provider, u.state, u.concurrency, u.newest, c.version, c.base_url, c.options, c.ciphertext, c.nonce,
       c.key_id
  FROM upstreams u JOIN upstream_credentials c ON c.upstream = u.name ORDER BY u.name, c.version"""

_ROUTES = "SELECT * FROM routes ORDER BY model, priority, upstream, upstream_model"
