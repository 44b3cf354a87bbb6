"""Chooses among a model's routes: who can serve the request at all, and of those, who should.

Pure: what is blocked is told, randomness is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from app.requests import ImageRequest, VideoRequest
from app.upstreams.health import Blocked
from app.upstreams.protocols import Picky
from app.upstreams.registry import Registry, RouteEntry, UnknownUpstream


@dataclass(frozen=True, slots=True)
class Candidates:
    """Routes that can serve a request, best first; or why there is none."""

    routes: tuple[RouteEntry, ...]
    reasons: tuple[str, ...] = ()
    """Why other routes cannot, for the caller."""


def capable(
    registry: Registry,
    model: str,
    request: ImageRequest | VideoRequest,
    *,
    may_cost_more: bool,
    upstream: str | None = None,
) -> Candidates:
    """Return the enabled routes whose provider can serve this very request. ``upstream`` pins the account."""
    routes: list[RouteEntry] = []
    reasons: list[str] = []
    for route in registry.routes_of(model):
        if upstream not in (None, route.upstream) or not route.is_enabled:
            continue
        if route.operations is not None and request.operation not in route.operations:
            continue
        try:
            account, provider = registry.account(route.upstream), registry.provider_of(route.upstream)
        except UnknownUpstream:
            continue
        if account.state != "active" or request.operation not in provider.capabilities.operations:
            continue
        if route.needs_permission and not may_cost_more:
            reasons.append("a costlier route needs 'official_fallback': true")
            continue
        reason = None
        if isinstance(provider, Picky):
            reason = provider.why_not(request, route.upstream_model, registry.upstream(route.upstream))
        if reason is None:
            routes.append(route)
        else:
            reasons.append(reason)
    return Candidates(tuple(routes), tuple(dict.fromkeys(reasons)))


def ordered(routes: Sequence[RouteEntry], blocked: Mapping[str, Blocked], random: Random) -> tuple[RouteEntry, ...]:
    """Return the routes in the order to try: free before blocked, then by priority, then by weighted chance.

    Blocked ones come last, the soonest free first.
    """

    def rank(route: RouteEntry) -> tuple[float, int, float]:
        wait = blocked[route.pool].seconds if route.pool in blocked else 0.0
        # Weighted sampling without replacement: the largest u ** (1 / w) goes first.
        chance = -(random.random() ** (1.0 / max(route.weight, 1)))
        return wait, route.priority, chance

    return tuple(sorted(routes, key=rank))
