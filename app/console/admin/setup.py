"""What is to be set up before a gateway is really in use, each with whether it was done, as the data say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.console.visitor import Visitor
from app.generation.journal import AuditSearch
from app.upstreams.registry import Registry, RouteEntry
from app.upstreams.routing import is_stand_in, serving

NOBODY = ("up", "seed", "system")
"""Actors of our own: what a fresh gateway brings along."""
FIRST_ROWS = 50
UPSTREAMS, MODELS = "/console/admin/upstreams", "/console/admin/models"


@dataclass(frozen=True, slots=True)
class Step:
    text: str
    help: str
    """What it is for; of a step that was begun, what is missing."""
    link: str
    is_done: bool
    is_needed: bool = True
    """False: the gateway can be used without it."""


async def steps_of(visitor: Visitor) -> Sequence[Step]:
    services, _ = visitor.services, visitor.gettext
    settings = services.settings
    has_upstream = any(
        one.state == "active" and _is_vendors(services.registry, one.name)
        for one in await services.book.upstreams.list()
    )
    routes = {model: serving(services.registry, model) for model in services.catalog.models}
    vendors = {model: [route for route in served if not is_stand_in(route)] for model, served in routes.items()}
    drawn = sorted(model for model, served in routes.items() if served and not vendors[model])
    unmade = sorted(model for model, served in routes.items() if not served)

    async def was_done(action: str, *, apart_from: str | None = None) -> bool:
        rows, _more = await services.audit_log.search(AuditSearch(action=action, limit=FIRST_ROWS))
        return any(row.actor not in NOBODY and row.target != apart_from for row in rows)

    return (
        Step(
            _("Choose a password of your own"),
            _("So that you can sign in again without a link."),
            "/console/account",
            await services.logins.has_password(visitor.account_id),
        ),
        Step(
            _("Add an upstream account with its secret"),
            _("Until then only the built-in demo models answer."),
            UPSTREAMS,
            has_upstream,
        ),
        await _route_step(visitor, [route for served in vendors.values() for route in served]),
        Step(
            _("Let every offered model be made"),
            (
                _("Nobody can make these; add a route, or withdraw them: %(models)s") % {"models": _listed(unmade)}
                if unmade
                else _("The demo draws these, at their full price; add a route, or withdraw them: %(models)s")
                % {"models": _listed(drawn)}
            ),
            UPSTREAMS if unmade else MODELS,
            not unmade and not drawn,
            is_needed=bool(unmade),
        ),
        Step(
            _("Look through the prices"),
            _("The prices that come with the gateway are samples. Set your own."),
            MODELS,
            await was_done("model"),
            is_needed=False,
        ),
        Step(
            _("Create the first user"),
            _("The invitation link is shown once: send it to the user."),
            "/console/admin/users/new",
            await was_done("account.create", apart_from=f"account:{visitor.account_id}"),
            is_needed=False,
        ),
        Step(
            _("Give somebody credits"),
            _("By hand, or by redeem codes."),
            "/console/admin/users",
            await was_done("credits"),
        ),
        Step(
            _("Set MEDIAGATE_PUBLIC_URL"),
            _("Links to results and invitations begin with it. Now with %(url)s, which only this machine can open.")
            % {"url": settings.base_url},
            "/console/admin/settings?q=PUBLIC_URL",
            settings.is_public,
            is_needed=False,
        ),
        Step(
            _("Set MEDIAGATE_METRICS_TOKEN"),
            _("Then your monitoring can read /metrics."),
            "/console/admin/settings?q=METRICS",
            settings.metrics_token is not None,
            is_needed=False,
        ),
    )


async def _route_step(visitor: Visitor, routes: Sequence[RouteEntry]) -> Step:
    """Whether a vendor's route takes tasks now: it is enabled, its model is offered, and its upstream can be used."""
    services, _ = visitor.services, visitor.gettext
    usable = [route for route in routes if not services.registry.lacks_secret(route.upstream)]
    health = services.health
    ill = {*await health.blocked(route.pool for route in usable), *await health.doubted(route.pool for route in usable)}
    working = [route for route in usable if route.pool not in ill]
    if not routes:
        help, link = _("No offered model has an enabled route to an active account."), f"{UPSTREAMS}"
    elif not usable:
        help, link = _("The account has no secret: %(upstream)s"), f"{UPSTREAMS}/{routes[0].upstream}"
    else:
        help, link = _("The upstream does not work now: %(upstream)s"), f"{UPSTREAMS}/{usable[0].upstream}"
    upstream = (usable or routes)[0].upstream if routes else ""
    return Step(_("Let it serve a model"), help % {"upstream": upstream}, link, bool(working))


def _is_vendors(registry: Registry, upstream: str) -> bool:
    """Whether it is an account that can be used and is more than a stand-in for vendors."""
    routes = [route for model in registry.snapshot.routes.values() for route in model if route.upstream == upstream]
    if upstream not in registry.snapshot.accounts or (routes and all(is_stand_in(route) for route in routes)):
        return False
    return not registry.lacks_secret(upstream)


def _listed(models: Iterable[str], *, most: int = 5) -> str:
    names = list(models)
    return ", ".join(names[:most]) + (f" +{len(names) - most}" if len(names) > most else "")
