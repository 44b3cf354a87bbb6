"""Routes as rows: which upstream's model serves a public model, in which order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.catalog.load import Catalog
from app.catalog.rows import (
    KEEP,
    MAX_PRIORITY,
    Keep,
    changing,
    checked_number,
    checked_options,
    checked_upstream_model,
    from_json,
    rows_of,
    unknown,
)
from app.catalog.wording import listed
from app.db import once, retried
from app.errors import InvalidParameter, MediagateError, ModelRouteExists, ModelRouteNotFound, UpstreamNotFound
from app.journal import Actor, changes, note
from app.requests import Operation
from app.upstreams.protocols import Capabilities
from app.upstreams.registry import RouteEntry

PREFIX = "route_"


@dataclass(frozen=True, slots=True)
class RouteInfo:
    """One route as administrators see it."""

    id: int
    entry: RouteEntry
    created_at: datetime
    updated_at: datetime

    @property
    def public_id(self) -> str:
        return f"{PREFIX}{self.id}"


def find_route_id(text: str) -> int | None:
    """Return the number inside ``route_12``, or None when it is no such id."""
    number = text.removeprefix(PREFIX)
    return int(number) if number.isascii() and number.isdigit() and len(number) <= 18 else None


class RouteRows:
    """The routes. Every change is one transaction with its audit row."""

    def __init__(
        self, engine: AsyncEngine, catalog: Callable[[], Catalog], providers: Mapping[str, Capabilities]
    ) -> None:
        """``catalog`` returns the one in force."""
        self._engine = engine
        self._catalog = catalog
        self._providers = providers

    async def list(self, model: str | None = None) -> Sequence[RouteInfo]:
        """Return the routes of a public model, or of all, in the order they are tried."""
        return [_info(row) for row in await retried(lambda: once(self._engine, _LIST, (model, None)))]

    async def get(self, route_id: int) -> RouteInfo:
        """Raises: ModelRouteNotFound."""
        rows = await retried(lambda: once(self._engine, _LIST, (None, route_id)))
        if not rows:
            raise ModelRouteNotFound(f"{PREFIX}{route_id}")
        return _info(rows[0])

    async def find(self, reference: str, target: str | None = None) -> RouteInfo:
        """Return the route that an operator names: ``route_12``, or a model and ``upstream[/its-model]``.

        Raises: ModelRouteNotFound, InvalidParameter when several fit.
        """
        if target is None:
            number = find_route_id(reference)
            if number is None:
                raise ModelRouteNotFound(reference)
            return await self.get(number)
        fitting = [route for route in await self.list(reference) if target in (route.entry.upstream, route.entry.pool)]
        if not fitting:
            raise ModelRouteNotFound(f"{reference} -> {target}")
        if len(fitting) > 1:
            raise InvalidParameter(
                f"'{target}' fits several routes: {listed(route.entry.pool for route in fitting)}.", param="upstream"
            )
        return fitting[0]

    async def add(
        self,
        model: str,
        upstream: str,
        upstream_model: str,
        *,
        actor: Actor,
        priority: int = 0,
        weight: int = 1,
        is_enabled: bool = True,
        needs_permission: bool = False,
        operations: Iterable[Operation] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> RouteInfo:
        """Add a route. Raises: ModelNotFound, UpstreamNotFound, InvalidParameter, ModelRouteExists."""
        entry = RouteEntry(
            model,
            upstream,
            checked_upstream_model(upstream_model),
            priority=checked_number("priority", priority, 0, MAX_PRIORITY),
            weight=checked_number("weight", weight, 1, MAX_PRIORITY),
            is_enabled=is_enabled,
            needs_permission=needs_permission,
            operations=None if operations is None else frozenset(operations),
            options=checked_options(options),
        )
        async with changing(self._engine) as connection:
            provider = await self._provider_of(connection, upstream)
            self._check(entry, provider)
            route_id = await self.insert(connection, entry, actor=actor)
        return await self.get(route_id)

    async def update(
        self,
        route_id: int,
        *,
        actor: Actor,
        priority: int | Keep = KEEP,
        weight: int | Keep = KEEP,
        is_enabled: bool | Keep = KEEP,
        needs_permission: bool | Keep = KEEP,
        operations: Iterable[Operation] | Keep | None = KEEP,
        options: Mapping[str, Any] | Keep = KEEP,
    ) -> RouteInfo:
        """Change what is given. Raises: ModelRouteNotFound, ModelNotFound, InvalidParameter."""
        async with changing(self._engine) as connection:
            old = await self._lock(connection, route_id)
            new = RouteEntry(
                old.model,
                old.upstream,
                old.upstream_model,
                priority=old.priority if priority is KEEP else checked_number("priority", priority, 0, MAX_PRIORITY),
                weight=old.weight if weight is KEEP else checked_number("weight", weight, 1, MAX_PRIORITY),
                is_enabled=old.is_enabled if is_enabled is KEEP else is_enabled,
                needs_permission=old.needs_permission if needs_permission is KEEP else needs_permission,
                operations=old.operations
                if operations is KEEP
                else (None if operations is None else frozenset(operations)),
                options=old.options if options is KEEP else checked_options(options),
            )
            if new.operations != old.operations:
                self._check(new, await self._provider_of(connection, new.upstream))
            if new != old:
                await connection.exec_driver_sql(_UPDATE, (route_id, *_values(new)))
                was, now = changes(_public(old), _public(new))
                await note(connection, actor, "route.update", _target(route_id), before=was, after=now)
        return await self.get(route_id)

    async def remove(self, route_id: int, *, actor: Actor) -> RouteInfo:
        """Take the route away from new tasks; running ones go on. Returns what it was. Raises: ModelRouteNotFound."""
        removed = await self.get(route_id)
        async with changing(self._engine) as connection:
            old = await self._lock(connection, route_id)
            await connection.exec_driver_sql(
                "UPDATE routes SET removed_at = now(), updated_at = now() WHERE id = $1", (route_id,)
            )
            await note(connection, actor, "route.remove", _target(route_id), before=_public(old))
        return removed

    async def problems(self) -> Sequence[str]:
        """Return, as sentences, which rows the catalogue and the providers do not bear out, and what nobody serves."""
        found = []
        served: dict[str, set[Operation]] = {}
        catalog = self._catalog()
        rows = await retried(lambda: once(self._engine, ROUTES_WITH_ACCOUNTS))
        for row in rows:
            entry = entry_of(row)
            if entry.model not in catalog.models and (
                catalog.find_known(entry.model) or entry.model in catalog.problems
            ):
                continue  # kept for the day the model comes, or comes back
            try:
                self._check(entry, row["provider"])
            except MediagateError as error:
                found.append(f"{PREFIX}{row['id']} ({entry.model} -> {entry.pool}): {error.message}")
                continue
            if entry.is_enabled and row["state"] == "active":
                operations = catalog.models[entry.model].operations
                served.setdefault(entry.model, set()).update(entry.operations or operations)
        for model in catalog.models.values() if rows else ():
            unserved = sorted(model.operations - served.get(model.id, set()))
            if unserved:
                found.append(f"{model.id}: no enabled route to an active account for {listed(unserved)}.")
        return found

    # --- inside of a change (also the seed's) ---------------------------------------------------------------------

    async def insert(self, connection: AsyncConnection, entry: RouteEntry, *, actor: Actor) -> int:
        """Write a new route, or one that was removed. Raises: ModelRouteExists, UpstreamNotFound."""
        try:
            rows = await rows_of(
                connection, _INSERT, entry.model, entry.upstream, entry.upstream_model, *_values(entry)
            )
        except IntegrityError as error:
            raise UpstreamNotFound(entry.upstream) from error
        if not rows:
            raise ModelRouteExists(entry.model, entry.pool)
        route_id: int = rows[0]["id"]
        await note(connection, actor, "route.add", _target(route_id), after=_public(entry))
        return route_id

    async def _lock(self, connection: AsyncConnection, route_id: int) -> RouteEntry:
        rows = await rows_of(
            connection, "SELECT * FROM routes WHERE id = $1 AND removed_at IS NULL FOR UPDATE", route_id
        )
        if not rows:
            raise ModelRouteNotFound(f"{PREFIX}{route_id}")
        return entry_of(rows[0])

    async def _provider_of(self, connection: AsyncConnection, upstream: str) -> str:
        rows = await rows_of(
            connection, "SELECT provider FROM upstreams WHERE name = $1 AND state <> 'deleted'", upstream
        )
        if not rows:
            raise UpstreamNotFound(upstream)
        provider: str = rows[0]["provider"]
        return provider

    def _check(self, entry: RouteEntry, provider: str) -> None:
        """Raises: InvalidParameter, ModelNotFound."""
        catalog = self._catalog()
        model = catalog.find_known(entry.model) or catalog.get_model(entry.model)
        check_route(entry, model.operations, provider, self._providers)


def check_route(
    entry: RouteEntry, does: frozenset[Operation], provider: str, providers: Mapping[str, Capabilities]
) -> None:
    """Judge a route of a model that ``does`` these operations. Raises: InvalidParameter."""
    capabilities = providers.get(provider)
    if capabilities is None:
        raise unknown("provider", provider, providers)
    wanted = does if entry.operations is None else entry.operations
    strange = wanted - does
    if strange or not wanted:
        raise InvalidParameter(
            f"'operations' must be some of what '{entry.model}' does: {listed(sorted(does))}.", param="operations"
        )
    cannot = sorted(wanted - capabilities.operations)
    if cannot:
        raise InvalidParameter(
            f"The provider '{provider}' cannot do {listed(cannot)}. Name the 'operations' of this route.",
            param="operations",
        )


def entry_of(row: Mapping[str, Any]) -> RouteEntry:
    """Return a row as the registry has it; a removed one is a disabled one, for the tasks that it still serves."""
    return RouteEntry(
        row["model"],
        row["upstream"],
        row["upstream_model"],
        priority=row["priority"],
        weight=row["weight"],
        is_enabled=row["is_enabled"] and row["removed_at"] is None,
        needs_permission=row["needs_permission"],
        operations=None if row["operations"] is None else frozenset(map(Operation, row["operations"])),
        options=from_json(row["options"]),
    )


def _values(entry: RouteEntry) -> tuple[Any, ...]:
    return (
        entry.priority,
        entry.weight,
        entry.is_enabled,
        entry.needs_permission,
        None if entry.operations is None else sorted(entry.operations),
        json.dumps(entry.options),
    )


def _public(entry: RouteEntry) -> dict[str, Any]:
    return {
        "model": entry.model,
        "upstream": entry.upstream,
        "upstream_model": entry.upstream_model,
        "priority": entry.priority,
        "weight": entry.weight,
        "enabled": entry.is_enabled,
        "needs_permission": entry.needs_permission,
        "operations": None if entry.operations is None else sorted(entry.operations),
        "options": dict(entry.options),
    }


def _target(route_id: int) -> str:
    return f"route:{route_id}"


def _info(row: Mapping[str, Any]) -> RouteInfo:
    return RouteInfo(row["id"], entry_of(row), row["created_at"], row["updated_at"])


_LIST = """
SELECT * FROM routes WHERE removed_at IS NULL AND ($1::text IS NULL OR model = $1) AND ($2::bigint IS NULL OR id = $2)
 ORDER BY model, priority, upstream, upstream_model"""

ROUTES_WITH_ACCOUNTS = """
SELECT r.*, u.provider, u.state FROM routes r JOIN upstreams u ON u.name = r.upstream
 WHERE r.removed_at IS NULL ORDER BY r.model, r.priority, r.id"""

_INSERT = """
INSERT INTO routes AS r (model, upstream, upstream_model, priority, weight, is_enabled, needs_permission, operations,
  options)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb)
ON CONFLICT (model, upstream, upstream_model) DO UPDATE SET priority = excluded.priority, weight = excluded.weight,
   is_enabled = excluded.is_enabled, needs_permission = excluded.needs_permission, operations = excluded.operations,
   options = excluded.options, removed_at = NULL, updated_at = now()
 WHERE r.removed_at IS NOT NULL RETURNING id"""

_UPDATE = """
UPDATE routes SET priority = $2, weight = $3, is_enabled = $4, needs_permission = $5, operations = $6,
       options = $7::text::jsonb, updated_at = now() WHERE id = $1"""
