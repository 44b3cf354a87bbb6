"""Models: what each makes, takes and costs, whether it can be had now, and its code. Open to people not signed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app.accounts.sessions import Session
from app.api.deps import ServicesDep
from app.catalog.model import ENDPOINTS, Model
from app.console import shell, tables, wording
from app.console.snippets import Snippet, snippets
from app.console.user.playground_form import described, price_hint, value_text
from app.console.user.prices import TYPES, Offer, matches
from app.console.visitor import ConsoleRoute, SessionDep, SignInNeeded
from app.console.wording import _
from app.errors import ModelNotFound
from app.requests import Operation
from app.upstreams.routing import is_served
from app.wiring import Services

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

PAGE = "/console/models"
TABS = ("overview", "api")
MEDIA: Mapping[str, str] = {"image": _("Pictures"), "video": _("Videos"), "audio": _("Sounds")}
FIRST_CALLS = ((Operation.IMAGE_GENERATE, "first_image"), (Operation.VIDEO_GENERATE, "first_video"))


@dataclass(frozen=True, slots=True)
class Onlooker:
    """Who looks at the catalogue: maybe nobody that we know."""

    request: Request
    services: Services
    session: Session | None

    @property
    def gettext(self) -> Callable[[str], str]:
        return shell.texts_of(self.request).gettext

    def page(self, template: str, **context: Any) -> Response:
        layout = "page.html" if self.session else "public.html"
        return shell.render(self.request, template, nav=PAGE, layout=layout, **context)


async def onlooker(request: Request, services: ServicesDep, session: SessionDep) -> Onlooker:
    """Raises: SignInNeeded, where the catalogue is not for everybody."""
    if session is None and not services.settings.public_models:
        raise SignInNeeded
    return Onlooker(request, services, session)


SomeOnlooker = Annotated[Onlooker, Depends(onlooker)]


@router.get(PAGE)
async def catalogue(looker: SomeOnlooker) -> Response:
    request, services = looker.request, looker.services
    q, kind = tables.query(request, "q"), tables.query(request, "type", TYPES)
    offers = [
        (Offer.of(model, is_served=is_served(services.registry, model.id)), price_hint(model, looker.gettext))
        for model in services.catalog.models.values()
    ]
    models = services.catalog.models
    return looker.page(
        "user/models.html",
        offers=[pair for pair in offers if matches(models[pair[0].id], q, kind)],
        count=len(offers),
        missing=sum(not offer.is_served for offer, _price in offers),
        is_filtered=bool(q or kind),
        operations=wording.OPERATIONS,
    )


@router.get(PAGE + "/{model_id}")
async def one_model(looker: SomeOnlooker, model_id: str) -> Response:
    """Show one model. Raises: ModelNotFound."""
    services = looker.services
    model = services.catalog.models.get(model_id)
    if model is None:
        raise ModelNotFound(model_id)
    return looker.page(
        "user/model.html",
        offer=Offer.of(model, is_served=is_served(services.registry, model.id)),
        price=price_hint(model, looker.gettext),
        value_text=partial(value_text, gettext=looker.gettext),
        told=described(model, looker.gettext),
        tab=tables.query(looker.request, "tab", TABS) or TABS[0],
        endpoints=list(_endpoints(model)),
        code=_code(looker, model),
        operations=wording.OPERATIONS,
        media=MEDIA,
    )


def _endpoints(model: Model) -> Iterator[tuple[str, str]]:
    """Yield what the model can do, and where that is asked for."""
    for operation in Operation:
        if operation in model.operations:
            yield operation.value, ENDPOINTS[operation]


def _code(looker: Onlooker, model: Model) -> list[Snippet]:
    """Return the shortest whole program that uses the model; none for one that needs a file to begin with."""
    for operation, name in FIRST_CALLS:
        if operation in model.operations:
            return snippets(name, looker.services.settings.base_url, model=model.id, gettext=looker.gettext)
    return []
