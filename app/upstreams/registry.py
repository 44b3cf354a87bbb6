"""Finds the providers by name, and holds the upstream accounts a catalogue's routes may name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from app.upstreams.protocols import Capabilities, Provider, Upstream

ENTRY_POINTS = "mediagate.providers"
PACKAGE = "app.providers"


class DuplicateProvider(Exception):
    """Two providers claim one name."""


def discover() -> dict[str, Provider]:
    """Return every provider by name: the modules of ``app.providers``, and other packages' entry points.

    Raises: DuplicateProvider.
    """
    in_tree = [import_module(f"{PACKAGE}.{m.name}").provider for m in iter_modules(import_module(PACKAGE).__path__)]
    found: dict[str, Provider] = {}
    for factory in [*in_tree, *(entry.load() for entry in entry_points(group=ENTRY_POINTS))]:
        made = factory()
        if made.name in found:
            raise DuplicateProvider(made.name)
        found[made.name] = made
    return found


class Registry:
    """Providers and upstreams, looked up by name. A *pool* is ``<upstream>/<upstream's model>``."""

    def __init__(
        self, providers: Mapping[str, Provider], upstreams: Iterable[Upstream], slots: Mapping[str, int]
    ) -> None:
        self._providers = dict(providers)
        self._upstreams = {upstream.name: upstream for upstream in upstreams}
        self._slots = dict(slots)

    @property
    def capabilities(self) -> dict[str, Capabilities]:
        return {name: provider.capabilities for name, provider in self._providers.items()}

    def upstream(self, name: str) -> Upstream:
        """Return the account. Raises: KeyError when the configuration lost it."""
        return self._upstreams[name]

    def provider_of(self, upstream: str) -> Provider:
        return self._providers[self._upstreams[upstream].provider]

    def slots_of(self, upstream: str) -> int:
        """How many tasks of one pool may be with this upstream at once."""
        return self._slots[upstream]

    async def close(self) -> None:
        """Let the providers end what they keep open."""
        for provider in self._providers.values():
            close = getattr(provider, "close", None)
            if close is not None:
                await close()


def pool_name(upstream: str, model: str) -> str:
    """The unit of concurrency, rate and breaker."""
    return f"{upstream}/{model}"
