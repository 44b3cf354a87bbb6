"""How routes and upstream accounts are just now, for the administrators' pages: in use or not, well or cut off."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from app.catalog.routes import RouteInfo
from app.catalog.upstreams import UpstreamInfo
from app.console.visitor import Visitor
from app.errors import MediagateError
from app.generation.faults import Fault
from app.upstreams.routing import is_stand_in, serving

WORST = ("open", "half_open", "paused", "healthy")
"""States of `wording.STATES`: cut off by errors, about to be tried again, paused by the vendor, or well."""
RESTING = "resting"
"""It is not asked: it or its account is switched off, or it stands in while a vendor is set up."""

ROUTE_COLUMNS: Mapping[str, Callable[[RouteLine], object]] = {
    "id": lambda line: line.route.public_id,
    "model": lambda line: line.route.entry.model,
    "upstream": lambda line: line.route.entry.upstream,
    "upstream_model": lambda line: line.route.entry.upstream_model,
    "priority": lambda line: line.route.entry.priority,
    "weight": lambda line: line.route.entry.weight,
    "enabled": lambda line: line.route.entry.is_enabled,
    "health": lambda line: line.state,
    "next_try_s": lambda line: line.seconds,
    "last_error": lambda line: line.fault.text if line.fault else None,
}


@dataclass(frozen=True, slots=True)
class RouteLine:
    """A route, and how its pool is just now."""

    route: RouteInfo
    state: str
    """One of `WORST`, or `RESTING`."""
    seconds: int | None
    """Until its pool is tried again."""
    fault: Fault | None
    """What the upstream said last, where it is not well."""
    is_stand_in: bool


@dataclass(frozen=True, slots=True)
class AccountHealth:
    """The worst that is true of an account's routes."""

    state: str
    seconds: int | None = None
    """Until the first of its pools is tried again."""
    fault: Fault | None = None


async def route_lines(visitor: Visitor, routes: Sequence[RouteInfo]) -> list[RouteLine]:
    services = visitor.services
    with suppress(MediagateError):  # a change of a moment ago is told at once; what is wrong with the book, elsewhere
        await services.book.refresh(services.registry)
    pools = {route.entry.pool for route in routes}
    blocked, doubted = await services.health.blocked(pools), await services.health.doubted(pools)
    faults = await services.faults.latest(sorted({*blocked, *doubted}))
    in_use = {
        (model, entry.pool)
        for model in {route.entry.model for route in routes}
        for entry in serving(services.registry, model)
    }

    def line_of(route: RouteInfo) -> RouteLine:
        entry = route.entry
        wait = blocked.get(entry.pool)
        if (entry.model, entry.pool) not in in_use:
            state = RESTING
        elif wait is not None:
            state = "open" if wait.why == "broken" else "paused"
        else:
            state = "half_open" if entry.pool in doubted else "healthy"
        seconds = None if wait is None or state == RESTING else max(math.ceil(wait.seconds), 1)
        fault = None if state in (RESTING, "healthy") else faults.get(entry.pool)
        return RouteLine(route, state, seconds, fault, is_stand_in(entry))

    return [line_of(route) for route in routes]


def account_health(account: UpstreamInfo, lines: Sequence[RouteLine]) -> AccountHealth:
    """Return how an account is, by ``lines``: those of all routes."""
    own = [line for line in lines if line.route.entry.upstream == account.name and line.state != RESTING]
    if account.state != "active" or not own:
        return AccountHealth(RESTING)
    state = min((line.state for line in own), key=WORST.index)
    waits = [line.seconds for line in own if line.seconds is not None]
    fault = max((line.fault for line in own if line.fault), key=lambda one: one.at, default=None)
    return AccountHealth(state, min(waits, default=None), fault)
