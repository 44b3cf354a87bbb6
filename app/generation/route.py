"""Decides which upstream gets a task: capability first, then health. Also where a refused one goes next."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from app.errors import ProviderUnavailable, UnsupportedParameter
from app.requests import ImageRequest, VideoRequest
from app.upstreams.health import Health
from app.upstreams.registry import Registry, RouteEntry
from app.upstreams.routing import Candidates, capable, ordered

PERMISSION = "official_fallback"
"""The public field that permits a costlier route."""
RETRY_MAX_S = 60


class Router:
    def __init__(self, registry: Registry, health: Health, *, is_public: bool, random: Random | None = None) -> None:
        self._registry = registry
        self._health = health
        self._is_public = is_public
        self._random = random or Random()  # noqa: S311 - spreads load, protects nothing

    async def choices(
        self, model: str, request: ImageRequest | VideoRequest, params: Mapping[str, Any], *, upstream: str | None
    ) -> tuple[RouteEntry, ...]:
        """Return the routes for a new task: the first is the one to take, the others stand in while its queue is full.

        ``upstream`` pins the account. Raises: UnsupportedParameter when no route can ever serve it, and why;
        ProviderUnavailable when those that can are all cut off just now. A pool that only asked to wait is chosen all
        the same, where there is no other: the task waits for it.
        """
        found = self._capable(model, request, params, upstream)
        if not found.routes:
            if found.reasons:
                raise UnsupportedParameter(f"No upstream of '{model}' can do this: {'; '.join(found.reasons)}.")
            raise ProviderUnavailable(f"No upstream serves '{model}' just now. Try later.", retry_after_s=30)
        blocked = await self._health.blocked(route.pool for route in found.routes)
        if all(route.pool in blocked and blocked[route.pool].why == "broken" for route in found.routes):
            soonest = min(blocked[route.pool].seconds for route in found.routes)
            raise ProviderUnavailable(
                f"The upstreams of '{model}' are failing just now. Try again.",
                retry_after_s=min(int(soonest) + 1, RETRY_MAX_S),
            )
        first, *others = ordered(found.routes, blocked, self._random)
        return first, *(route for route in others if route.pool not in blocked)

    async def elsewhere(
        self, model: str, request: ImageRequest | VideoRequest, params: Mapping[str, Any], *, pool: str
    ) -> RouteEntry | None:
        """Return another route that is free now, for a task that ``pool`` cannot take; None: there is none."""
        found = self._capable(model, request, params, None)
        others = [route for route in found.routes if route.pool != pool]
        blocked = await self._health.blocked(route.pool for route in others)
        free = [route for route in others if route.pool not in blocked]
        return ordered(free, {}, self._random)[0] if free else None

    def _capable(
        self, model: str, request: ImageRequest | VideoRequest, params: Mapping[str, Any], upstream: str | None
    ) -> Candidates:
        return capable(
            self._registry,
            model,
            request,
            may_cost_more=bool(params.get(PERMISSION)),
            upstream=upstream,
            is_public=self._is_public,
        )
