"""Finds the providers by name, and holds the upstream accounts and routes of this moment.

The accounts and routes are rows that administrators change at run time; ``app.catalog.book`` reads them and hands
over a `Snapshot`. A *pool* is ``<upstream>/<upstream's model>``: the unit of concurrency, rate and breaker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any, Literal

from app.requests import Operation
from app.upstreams.protocols import Capabilities, Probe, Provider, Upstream

ENTRY_POINTS = "mediagate.providers"
PACKAGE = "app.providers"
UpstreamState = Literal["active", "draining", "disabled", "deleted"]
"""Only ``active`` takes new tasks; in every other state the running ones go on, and ``deleted`` goes when they end."""


class DuplicateProvider(Exception):
    """Two providers claim one name."""


@dataclass(frozen=True, slots=True)
class Found:
    """A provider, and the package that brought it."""

    provider: Provider
    package: str
    """Name and version of another package; ``mediagate`` for our own."""


def survey() -> dict[str, Found]:
    """Return every provider by name: the modules of ``app.providers``, and other packages' entry points.

    Raises: DuplicateProvider.
    """
    modules = [import_module(f"{PACKAGE}.{m.name}") for m in iter_modules(import_module(PACKAGE).__path__)]
    made = [Found(module.provider(), "mediagate") for module in modules]
    for entry in entry_points(group=ENTRY_POINTS):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "?"
        made.append(Found(entry.load()(), package))
    by_name: dict[str, Found] = {}
    for found in made:
        name = found.provider.name
        if name in by_name:
            raise DuplicateProvider(f"'{name}' comes from {by_name[name].package} and from {found.package}")
        by_name[name] = found
    return by_name


def discover() -> dict[str, Provider]:
    """Return every provider by name. Raises: DuplicateProvider."""
    return {name: found.provider for name, found in survey().items()}


@dataclass(frozen=True, slots=True)
class Account:
    """One upstream account with all of its credentials that may still be needed."""

    state: UpstreamState
    concurrency: int
    """Tasks of one pool that may be with this account at once."""
    newest: int
    """The credential version for new tasks."""
    by_version: Mapping[int, Upstream]
    """Credential version -> the account with that secret. A task keeps the version that took it."""

    @property
    def provider(self) -> str:
        """The name of its provider: the same in every version."""
        return self.by_version[self.newest].provider


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """Public model -> one upstream's model."""

    model: str
    upstream: str
    upstream_model: str
    priority: int = 0
    """Lower goes first."""
    weight: int = 1
    """Share among routes of equal priority."""
    is_enabled: bool = True
    needs_permission: bool = False
    """A costlier route: only for requests with ``official_fallback``, unless there is no other."""
    operations: frozenset[Operation] | None = None
    """None: all of the model's."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pool(self) -> str:
        return f"{self.upstream}/{self.upstream_model}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    accounts: Mapping[str, Account]
    routes: Mapping[str, tuple[RouteEntry, ...]]
    """Public model -> its routes."""


class UnknownUpstream(Exception):
    """No such account, or not with this credential any more."""


class Registry:
    """What this process knows of providers, accounts and routes. Replaced whole, never changed in place."""

    def __init__(self, providers: Mapping[str, Provider], snapshot: Snapshot | None = None) -> None:
        self._providers = dict(providers)
        self._snapshot = snapshot or Snapshot({}, {})

    @property
    def capabilities(self) -> dict[str, Capabilities]:
        return {name: provider.capabilities for name, provider in self._providers.items()}

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    def replace(self, snapshot: Snapshot) -> None:
        """Take over a newer state of the accounts and routes."""
        self._snapshot = snapshot

    def account(self, upstream: str) -> Account:
        """Raises: UnknownUpstream."""
        try:
            return self._snapshot.accounts[upstream]
        except KeyError:
            raise UnknownUpstream(upstream) from None

    def upstream(self, name: str, credential: int | None = None) -> Upstream:
        """Return the account with the secret of that version; None: the newest. Raises: UnknownUpstream."""
        account = self.account(name)
        try:
            return account.by_version[account.newest if credential is None else credential]
        except KeyError:
            raise UnknownUpstream(f"{name} credential {credential}") from None

    def provider_of(self, upstream: str) -> Provider:
        """Raises: UnknownUpstream."""
        account = self.account(upstream)
        return self._providers[account.provider]

    def lacks_secret(self, upstream: str) -> bool:
        """Whether the account's vendor wants a secret, and it has none. Raises: UnknownUpstream."""
        account, provider = self.account(upstream), self.provider_of(upstream)
        newest = account.by_version[account.newest]
        return newest.secret is None and isinstance(provider, Probe) and provider.needs_secret(newest)

    def provider(self, name: str) -> Provider | None:
        """Return the provider of that name, if it is installed."""
        return self._providers.get(name)

    def routes_of(self, model: str) -> tuple[RouteEntry, ...]:
        return self._snapshot.routes.get(model, ())

    def route_of(self, model: str, pool: str) -> RouteEntry | None:
        """Return the route of a running task, or None when an administrator removed it meanwhile."""
        return next((route for route in self.routes_of(model) if route.pool == pool), None)

    async def close(self) -> None:
        """Let the providers end what they keep open."""
        for provider in self._providers.values():
            close = getattr(provider, "close", None)
            if close is not None:
                await close()
