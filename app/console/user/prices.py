"""Prices: every model in force with what it costs, and a tool that says what a request would cost, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.catalog.model import Model
from app.catalog.parameters import Choice, Integer, Parameter, Size
from app.catalog.pricing import PricePerSecond
from app.catalog.simulate import Simulation, simulate
from app.console import refusals, shell, tables, wording
from app.console.user.playground_form import label_of, value_text
from app.console.visitor import ConsoleRoute, SomeVisitor
from app.errors import MediagateError
from app.requests import Operation
from app.upstreams.routing import is_served

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

SQUARE = "1:1"
TYPES = ("image", "video")
MOST_CHARS = 40
"""Of a number, or a word, in the quote tool."""
SOURCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Cost:
    """One price of a model. ``word``: the parameter's value that has it; None: there is but one price."""

    word: str | None
    credits: int
    pixels: str | None
    """Of a square picture, where the word decides the pixels."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as the list shows it."""

    id: str
    title: str
    description: str
    type: str
    operations: tuple[str, ...]
    unit: str
    by: str | None
    costs: tuple[Cost, ...]
    adds_references: bool
    """Seconds of reference videos are added."""
    source_seconds: tuple[int, int] | None
    """An edit is billed by its source's seconds, within these."""
    is_served: bool

    @classmethod
    def of(cls, model: Model, *, is_served: bool) -> Offer:
        price = model.spec.price
        timed = price if isinstance(price, PricePerSecond) else None
        edit = timed.edit if timed else None
        return cls(
            model.id,
            model.title,
            model.spec.description,
            model.type,
            tuple(operation.value for operation in Operation if operation in model.operations),
            price.unit,
            price.by,
            tuple(_costs(model)),
            timed is not None and bool(timed.adds_input_seconds),
            None if edit is None else (edit.minimum, edit.maximum),
            is_served,
        )


def _costs(model: Model) -> Iterator[Cost]:
    price = model.spec.price
    if isinstance(price.credits, int):
        yield Cost(None, price.credits, None)
        return
    is_tier = model.type == "image" and price.by == model.spec.sizes.tier
    for word, credits in price.credits.items():
        yield Cost(word, credits, model.table.pixels.get(SQUARE, {}).get(word) if is_tier else None)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the quote tool, with what was chosen."""

    name: str
    options: tuple[str, ...]
    """Empty: a whole number."""
    value: str
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """The quote tool: a model, its fields, and the answer."""

    model: Model
    operation: Operation
    operations: tuple[str, ...]
    fields: tuple[Field, ...]
    takes_seconds: bool
    seconds: float | None
    simulation: Simulation | None
    error: str | None


@router.get("/console/prices")
async def prices(visitor: SomeVisitor) -> Response:
    request = visitor.request
    models = visitor.services.catalog.models
    q, kind = tables.query(request, "q"), tables.query(request, "type", TYPES)
    registry = visitor.services.registry
    offers = [
        Offer.of(model, is_served=is_served(registry, model.id)) for model in models.values() if matches(model, q, kind)
    ]
    if tables.wants_csv(request):
        return _csv(offers)
    chosen = models.get(tables.query(request, "model") or "") or next(iter(models.values()), None)
    return visitor.page(
        "user/quote.html" if shell.is_fragment(request) else "user/prices.html",
        nav="/console/prices",
        offers=offers,
        models={model.id: model.title for model in models.values()},
        tool=None if chosen is None else _tool(request, chosen),
        operations=wording.OPERATIONS,
        label_of=partial(label_of, gettext=visitor.gettext),
        value_text=partial(value_text, gettext=visitor.gettext),
        is_filtered=bool(q or kind),
        csv=shell.with_query(request, format="csv"),
    )


def matches(model: Model, q: str | None, kind: str | None) -> bool:
    """Whether a list of models that is filtered like this shows one."""
    text = f"{model.id} {model.title} {model.spec.description}".casefold()
    return (q is None or q.casefold() in text) and kind in (None, model.type)


def _csv(offers: list[Offer]) -> Response:
    return tables.csv_file(
        "prices.csv",
        {
            "model": lambda row: row[0].id,
            "type": lambda row: row[0].type,
            "unit": lambda row: row[0].unit,
            "parameter": lambda row: row[0].by,
            "value": lambda row: row[1].word,
            "credits": lambda row: row[1].credits,
        },
        [(offer, cost) for offer in offers for cost in offer.costs],
    )


def _tool(request: Request, model: Model) -> Tool:
    asked = dict(request.query_params)
    if asked.get("asked", model.id) != model.id:
        asked = {}  # what was said of another model says nothing of this one
    operations = tuple(operation.value for operation in Operation if operation in model.operations)
    operation = Operation(asked["operation"] if asked.get("operation") in operations else operations[0])
    fields = tuple(
        field_of(asked, name, parameter) for name, parameter in shown_parameters(model.spec.parameters, operation)
    )
    price = model.spec.price
    is_edit = operation is Operation.VIDEO_EDIT
    takes_seconds = isinstance(price, PricePerSecond) and (is_edit or bool(price.adds_input_seconds))
    seconds = seconds_of(asked.get("input_seconds", ""))
    if takes_seconds and is_edit and seconds is None:
        seconds = SOURCE_SECONDS
    simulation, error = None, None
    try:
        simulation = simulate(
            model,
            given_fields(model.spec.parameters, fields),
            operation=operation,
            input_seconds=seconds if takes_seconds else None,
        )
    except MediagateError as problem:
        error = refusals.of_error(problem, shell.texts_of(request))
    return Tool(model, operation, operations, fields, takes_seconds, seconds, simulation, error)


def shown_parameters(
    parameters: Mapping[str, Parameter], operation: Operation
) -> Iterator[tuple[str, Choice | Size | Integer]]:
    """Yield what can matter for the price, or for whether the request is possible."""
    for name, parameter in parameters.items():
        if not parameter.applies_to(operation):
            continue
        match parameter:
            case Size():
                yield name, parameter
            case Choice() if len(parameter.choices) > 1:
                yield name, parameter
            case Integer() if parameter.default is not None:
                yield name, parameter


def field_of(asked: Mapping[str, str], name: str, parameter: Choice | Size | Integer) -> Field:
    given = asked.get(name, "")[:MOST_CHARS]
    if isinstance(parameter, Integer):
        value = given if given.isascii() and given.isdigit() and len(given) < 10 else str(parameter.default)
        return Field(name, (), value, parameter.minimum, parameter.maximum)
    options = parameter.choices if isinstance(parameter, Choice) else (*parameter.values, *parameter.words)
    initial = parameter.initial or ""
    if initial not in options:  # a size in pixels; or none, which leaves it to the model
        options = (initial, *options)
    return Field(name, options, given if given in options else initial)


def given_fields(parameters: Mapping[str, Parameter], fields: tuple[Field, ...]) -> dict[str, Any]:
    """Return the fields as a request has them. What stands at its default is left out, as most requests do."""
    found: dict[str, Any] = {}
    for field in fields:
        parameter = parameters[field.name]
        if field.value not in ("", str(getattr(parameter, "initial", None))):
            found[field.name] = field.value if field.options else int(field.value)
    return found


def seconds_of(text: str) -> float | None:
    try:
        seconds = float(text[:MOST_CHARS])
    except ValueError:
        return None
    return seconds if isfinite(seconds) and seconds > 0 else None
