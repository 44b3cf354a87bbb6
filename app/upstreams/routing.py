"""Chooses among a model's routes: who can serve the request at all, and of those, who should.

Pure: what is blocked is told, randomness is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from app.requests import ImageRequest, Operation, VideoRequest
from app.upstreams.health import Blocked
from app.upstreams.protocols import Picky, Provider
from app.upstreams.registry import Registry, RouteEntry, UnknownUpstream

STAND_IN = "stand_in"
"""The option of a route that only fills in while the model has no other."""


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
    is_public: bool = True,
) -> Candidates:
    """Return the enabled routes whose provider can serve this very request. ``upstream`` pins the account.

    A stand-in is one only while nothing else is set up for the model, however busy or unable that is: nobody pays for a
    demo picture. A costlier route needs no permission where there is no other: else its only vendor could not serve.
    ``is_public``: upstreams can read our signed URLs.
    """
    set_up = [found for route in registry.routes_of(model) if (found := _set_up(registry, route)) is not None]
    in_use = [(route, provider) for route, provider, is_active in set_up if is_active]
    real = [(route, provider) for route, provider in in_use if not is_stand_in(route)]
    has_vendor = any(not is_stand_in(route) for route, _, _ in set_up)
    usable = [
        (route, provider)
        for route, provider in (real if has_vendor else in_use)
        if upstream in (None, route.upstream) and _does(route, provider, request)
    ]
    is_permitted = may_cost_more or all(route.needs_permission for route, _ in usable)
    routes: list[RouteEntry] = []
    reasons: list[str] = []
    if (
        has_vendor
        and upstream is not None
        and any(route.upstream == upstream and is_stand_in(route) for route, _ in in_use)
    ):
        reasons.append("the upstream that made the source is not used any more")
    for route, provider in usable:
        if route.needs_permission and not is_permitted:
            reasons.append("a costlier route needs 'official_fallback': true")
            continue
        reason = None if is_public else _out_of_reach(request, provider)
        if reason is None and isinstance(provider, Picky):
            reason = provider.why_not(request, route.upstream_model, registry.upstream(route.upstream))
        if reason is None:
            routes.append(route)
        else:
            reasons.append(reason)
    return Candidates(tuple(routes), tuple(dict.fromkeys(reasons)))


def serving(registry: Registry, model: str) -> tuple[RouteEntry, ...]:
    """Return the routes that take new tasks of the model, whatever their health: stand-ins only without a vendor."""
    set_up = [found for route in registry.routes_of(model) if (found := _set_up(registry, route)) is not None]
    real = [found for found in set_up if not is_stand_in(found[0])]
    return tuple(route for route, _, is_active in real or set_up if is_active)


def is_served(registry: Registry, model: str) -> bool:
    """Whether an upstream is set up that takes new tasks of the model, whatever its health."""
    return bool(serving(registry, model))


def is_stand_in(route: RouteEntry) -> bool:
    """Whether the route only fills in while the model has no other."""
    return route.options.get(STAND_IN) is True


def _out_of_reach(request: ImageRequest | VideoRequest, provider: Provider) -> str | None:
    """Return why an upstream that reads inputs by URL cannot have these, where nobody outside reaches us."""
    if isinstance(request, ImageRequest) or request.operation is Operation.VIDEO_REMIX:
        return None
    given = {"videos": request.videos, "audios": request.audios}
    fetched = [name for name, files in given.items() if files and name in provider.capabilities.fetches]
    if not fetched:
        return None
    return f"it reads {' and '.join(fetched)} by URL, and this gateway has no public address (MEDIAGATE_PUBLIC_URL)"


def _set_up(registry: Registry, route: RouteEntry) -> tuple[RouteEntry, Provider, bool] | None:
    """Return an enabled route of an account that was not deleted, its provider, and whether it takes new tasks.

    A drained vendor is still the vendor: nobody who pays gets a stand-in's picture meanwhile.
    """
    try:
        account, provider = registry.account(route.upstream), registry.provider_of(route.upstream)
    except UnknownUpstream:
        return None
    if not route.is_enabled or account.state == "deleted":
        return None
    return route, provider, account.state == "active"


def _does(route: RouteEntry, provider: Provider, request: ImageRequest | VideoRequest) -> bool:
    allowed = provider.capabilities.operations
    return request.operation in (allowed if route.operations is None else allowed & route.operations)


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
