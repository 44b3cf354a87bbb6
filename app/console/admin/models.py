"""Models and prices, for administrators: what is offered, each one's history, and what requests would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from app.catalog.exchange import dump
from app.catalog.model import Model
from app.catalog.prices import PriceEdit
from app.catalog.pricing import PricePerSecond
from app.catalog.simulate import Simulation
from app.catalog.states import ModelState
from app.catalog.takeover import ListedVersion
from app.console import refusals, shell, tables, wording
from app.console.admin.model_forms import MODELS, Number, label_of, numbers_of
from app.console.user.prices import SOURCE_SECONDS, TYPES, field_of, given_fields, seconds_of, shown_parameters
from app.console.visitor import AdminVisitor, ConsoleRoute, Form, FormDep, Visitor, blank, go
from app.console.wording import _
from app.errors import MediagateError, ModelNotFound
from app.requests import Operation

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

STATES: Mapping[str, str] = {
    "offered": _("Offered"),
    "scheduled": _("Scheduled"),
    "withdrawn": _("No longer offered"),
    "broken": _("Broken"),
}
WORDS: Mapping[str, str] = {"past": "replaced", "withdrawn": "retired"}
"""Where the console has another word than the service."""

COLUMNS: Mapping[str, Callable[[ModelState], object]] = {
    "model": lambda state: state.id,
    "title": lambda state: state.title,
    "type": lambda state: state.type,
    "state": lambda state: state.state,
    "version": lambda state: state.price_version,
    "prices": lambda state: " ".join(f"{field.path}={field.value}" for field in state.prices),
    "operations": lambda state: " ".join(state.operations),
}
VERSION_COLUMNS: Mapping[str, Callable[[ListedVersion], object]] = {
    "version": lambda one: one.version.number,
    "state": lambda one: one.state,
    "kind": lambda one: one.version.kind,
    "effective_from": lambda one: one.version.effective_from,
    "created_by": lambda one: one.version.created_by,
    "created_at": lambda one: one.version.created_at,
    "reason": lambda one: one.version.note,
    "cancelled_by": lambda one: one.version.cancelled_by,
    "cancelled_at": lambda one: one.version.cancelled_at,
}


@router.get(MODELS)
async def models(visitor: AdminVisitor) -> Response:
    request = visitor.request
    q, kind = tables.query(request, "q"), tables.query(request, "type", TYPES)
    state = tables.query(request, "state", STATES)
    every = await visitor.services.model_versions.list()
    found = [one for one in every if _matches(one, q) and kind in (None, one.type) and state in (None, one.state)]
    if tables.wants_csv(request):
        return tables.csv_file("models.csv", COLUMNS, found)
    routes = await visitor.services.book.routes.list()
    return visitor.page(
        "admin/models.html",
        nav=MODELS,
        rows=found,
        served=Counter(route.entry.model for route in routes if route.entry.is_enabled),
        state_words=WORDS,
        states_of_models=visitor.choices(STATES),
        query=lambda name: tables.query(request, name),
        operations=wording.OPERATIONS,
        csv=shell.with_query(request, format="csv"),
        is_filtered=tables.is_filtered(request),
    )


def _matches(state: ModelState, q: str | None) -> bool:
    return q is None or q.casefold() in f"{state.id} {state.title} {state.entry.get('description', '')}".casefold()


# --- one of them ----------------------------------------------------------------------------------------------------


@router.get(MODELS + "/{model}")
async def model_page(visitor: AdminVisitor, model: str) -> Response:
    state = await visitor.services.model_versions.get(model)
    if tables.wants_csv(visitor.request):
        return tables.csv_file(
            "versions.csv", VERSION_COLUMNS, await visitor.services.model_versions.versions(state.id)
        )
    return await show_model(visitor, state)


async def show_model(visitor: Visitor, state: ModelState, form: Form | None = None, *, status: int = 200) -> Response:
    """Show a model; ``form`` is one of its price that could not be done."""
    services = visitor.services
    numbers = numbers_of(visitor, state.entry, state.prices)
    return visitor.page(
        "admin/model.html",
        status=status,
        nav=MODELS,
        state=state,
        numbers=numbers,
        form=form or blank(**{number.field: number.value for number in numbers}),
        versions=await services.model_versions.versions(state.id),
        state_words=WORDS,
        routes=await services.book.routes.list(state.id),
        operations=wording.OPERATIONS,
        yaml=dump(dict(state.entry)),
    )


@router.post(MODELS + "/{model}/versions/{number}/cancel")
async def cancel_version(visitor: AdminVisitor, model: str, number: int, form: FormDep) -> Response:
    await visitor.services.model_versions.cancel(model, number, actor=visitor.actor)
    return go(visitor.request, f"{MODELS}/{model}", done="version-cancelled")


# --- what requests would cost ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """One price of the request, or why there is none."""

    name: str
    simulation: Simulation | None
    error: str | None


@router.get(MODELS + "/{model}/simulate")
async def simulator(visitor: AdminVisitor, model: str) -> Response:
    request, versions = visitor.request, visitor.services.model_versions
    state = await versions.get(model)
    known = visitor.services.catalog.find_known(model)
    if known is None:
        raise ModelNotFound(model, visitor.services.catalog.models)
    asked = dict(request.query_params)
    offered = tuple(operation.value for operation in Operation if operation in known.operations)
    operation = Operation(asked["operation"] if asked.get("operation") in offered else offered[0])
    fields = tuple(
        field_of(asked, name, parameter) for name, parameter in shown_parameters(known.spec.parameters, operation)
    )
    seconds = _input_seconds(known, operation, asked.get("input_seconds", ""))
    listed = [one.version for one in await versions.versions(model) if one.version.kind != "withdrawn"]
    numbered = {str(version.number): version for version in listed if version.number == 0 or version.entry is not None}
    chosen = asked["version"] if asked.get("version") in numbered else ""
    draft = _draft(visitor, state, asked)
    request_of = _Asked(visitor, model, given_fields(known.spec.parameters, fields), operation, seconds[1])
    answers = [await request_of.answer(visitor.gettext("Now"))]
    if chosen:
        answers.append(await request_of.answer(_version_name(visitor, chosen), number=int(chosen)))
    changed = {number.path: number.value for number in draft}
    if changed != {field.path: field.value for field in state.prices}:
        answers.append(await request_of.answer(visitor.gettext("Draft"), price=PriceEdit(changed)))
    return visitor.page(
        "admin/model_simulator.html" if shell.is_fragment(request) else "admin/model_simulate.html",
        nav=MODELS,
        state=state,
        operation=operation.value,
        offered=offered,
        fields=fields,
        takes_seconds=seconds[0],
        seconds=seconds[1],
        versions=[(number, _version_name(visitor, number)) for number in numbered],
        chosen=chosen,
        draft=draft,
        answers=answers,
        operations=wording.OPERATIONS,
    )


def _version_name(visitor: Visitor, number: str) -> str:
    return visitor.gettext("The file") if number == "0" else visitor.gettext("Version %(number)s") % {"number": number}


def _input_seconds(model: Model, operation: Operation, text: str) -> tuple[bool, float | None]:
    """Return whether the price asks for seconds of what comes along, and how many were named."""
    price = model.spec.price
    is_edit = operation is Operation.VIDEO_EDIT
    takes = isinstance(price, PricePerSecond) and (is_edit or bool(price.adds_input_seconds))
    if not takes:
        return False, None
    return True, seconds_of(text) or (SOURCE_SECONDS if is_edit else None)


def _draft(visitor: Visitor, state: ModelState, asked: Mapping[str, str]) -> list[Number]:
    """Return the price's numbers as they are tried; what is no number is the one in force."""
    found = []
    for field in state.prices:
        text = asked.get(f"price.{field.path}", "").strip()[:12]
        value = int(text) if text.isascii() and text.isdigit() else field.value
        found.append(Number(field.path, label_of(visitor, state.entry, field.path), value))
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request of the simulator, to be priced in more than one way."""

    visitor: Visitor
    model: str
    given: Mapping[str, Any]
    operation: Operation
    seconds: float | None

    async def answer(self, name: str, **how: Any) -> Answer:
        try:
            simulation = await self.visitor.services.model_versions.simulate(
                self.model, self.given, operation=self.operation, input_seconds=self.seconds, **how
            )
        except MediagateError as error:
            if error.status >= 500:
                raise
            return Answer(name, None, refusals.of_error(error, shell.texts_of(self.visitor.request)))
        return Answer(name, simulation, None)
