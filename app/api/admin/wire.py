"""The shapes of the administration: accounts at vendors and routes, without any secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from app.api.v1.wire import Wire, unix
from app.catalog.inspection import Check
from app.catalog.routes import RouteInfo
from app.catalog.upstreams import UpstreamInfo
from app.requests import Operation


class UpstreamAccount(Wire):
    """All but the secret, which nobody can read again."""

    object: Literal["upstream"] = "upstream"
    name: str
    provider: str
    state: Literal["active", "draining", "disabled", "deleted"]
    base_url: str | None
    options: dict[str, Any]
    concurrency: int
    has_secret: bool
    version: int
    """Of address, options and secret: the one that new tasks get."""
    versions: int
    """How many are still kept for running tasks."""
    open_tasks: int
    created_at: int
    updated_at: int

    @classmethod
    def of(cls, info: UpstreamInfo) -> UpstreamAccount:
        return cls(
            name=info.name,
            provider=info.provider,
            state=info.state,
            base_url=info.base_url,
            options=dict(info.options),
            concurrency=info.concurrency,
            has_secret=info.has_secret,
            version=info.version,
            versions=info.versions,
            open_tasks=info.open_tasks,
            created_at=unix(info.created_at),
            updated_at=unix(info.updated_at),
        )


class UpstreamList(Wire):
    object: Literal["list"] = "list"
    data: list[UpstreamAccount]


class UpstreamCheck(Wire):
    name: Literal["state", "secret", "routes", "host", "vendor", "models"]
    ok: bool
    """Nothing is wrong, as far as anybody can tell."""
    outcome: Literal["good", "bad", "unknown"]
    found: str
    took_ms: int | None
    """How long the host or the vendor took."""
    missing_models: list[str]
    """Of `models`: upstream models of routes that the vendor's own list lacks."""

    @classmethod
    def of(cls, check: Check) -> UpstreamCheck:
        return cls(
            name=check.name,
            ok=check.is_good,
            outcome=check.outcome,
            found=check.found,
            took_ms=check.took_ms,
            missing_models=list(check.missing),
        )


class UpstreamTest(Wire):
    """What a look at an account found. Nothing was charged, and nothing was changed."""

    object: Literal["upstream.test"] = "upstream.test"
    upstream: str
    ok: bool
    checks: list[UpstreamCheck]

    @classmethod
    def of(cls, name: str, checks: Sequence[Check]) -> UpstreamTest:
        shown = [UpstreamCheck.of(check) for check in checks]
        return cls(upstream=name, ok=all(check.ok for check in shown), checks=shown)


class ModelRoute(Wire):
    object: Literal["route"] = "route"
    id: str
    model: str
    upstream: str
    upstream_model: str
    priority: int
    weight: int
    enabled: bool
    needs_permission: bool
    operations: list[Operation] | None
    options: dict[str, Any]
    created_at: int
    updated_at: int

    @classmethod
    def of(cls, info: RouteInfo) -> ModelRoute:
        entry = info.entry
        return cls(
            id=info.public_id,
            model=entry.model,
            upstream=entry.upstream,
            upstream_model=entry.upstream_model,
            priority=entry.priority,
            weight=entry.weight,
            enabled=entry.is_enabled,
            needs_permission=entry.needs_permission,
            operations=None if entry.operations is None else sorted(entry.operations),
            options=dict(entry.options),
            created_at=unix(info.created_at),
            updated_at=unix(info.updated_at),
        )


class RouteList(Wire):
    object: Literal["list"] = "list"
    data: list[ModelRoute]
