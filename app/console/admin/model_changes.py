"""Changes of a model, for administrators: first what they do, then when and why, then done.

Prices, whole entries, withdrawals and returns all become versions; nothing that was sold before is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter
from starlette.responses import Response

from app.catalog.exchange import dump
from app.catalog.prices import PriceEdit
from app.catalog.states import ModelState
from app.console import tables
from app.console.admin.model_forms import (
    CATALOGUE,
    MODELS,
    columns_of,
    document,
    effective_from,
    find_state,
    label_of,
    numbers_of,
    parts_of,
    reason,
    start_form,
)
from app.console.admin.models import show_model
from app.console.visitor import AdminVisitor, ConsoleRoute, Form, FormDep, Visitor, blank, go, once
from app.errors import InvalidParameter, MediagateError

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

Move = Literal["withdraw", "restore", "file"]


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done with a model: numbers of its price, or a whole entry."""

    model: str
    price: PriceEdit | None = None
    document: str | None = None

    @property
    def how(self) -> dict[str, Any]:
        return {"price": self.price, "document": self.document}

    @property
    def kept(self) -> Mapping[str, str]:
        """What the second step's form holds of the first's."""
        if self.price is None:
            return {"document": self.document or ""}
        return {f"price.{path}": str(number) for path, number in self.price.numbers.items()}

    @property
    def address(self) -> str:
        return f"{MODELS}/{self.model}/{'entry' if self.price is None else 'price'}/apply"


def _seen(state: ModelState | None) -> str:
    """Return what the second step is compared with: whether somebody else was faster."""
    return "" if state is None else f"{state.state} {state.price_version}"


async def _preview(
    visitor: Visitor, change: Change, state: ModelState | None, form: Form, *, status: int = 200
) -> Response:
    """Raises: what the service says of the change."""
    versions = visitor.services.model_versions
    draft = await versions.draft(change.model, **change.how)
    if draft is None:
        raise InvalidParameter("Nothing differs from what holds now.")
    difference = draft.change
    examples = await versions.examples(change.model, **change.how)
    entry = state.entry if state is not None else difference.after
    return visitor.page(
        "admin/model_preview.html",
        status=status,
        nav=MODELS,
        model=change.model,
        state=state,
        change=change,
        difference=difference,
        then=draft.then,
        labels={
            one.path: label_of(visitor, entry, one.path)
            for one in (*difference.prices, *(draft.then.change.prices if draft.then else ()))
        },
        parts=parts_of(difference),
        examples=sorted(examples, key=lambda example: example.before == example.after),
        columns=columns_of(examples),
        seen=_seen(state),
        form=form,
    )


async def _apply(visitor: Visitor, model: str, form: Form, make: Callable[[], Change]) -> Response:
    """Do it, or show the preview again with what is wrong. Raises: as ``make``, and as `_preview`."""
    state, change = await find_state(visitor, model), None
    try:
        async with once(visitor, form, back=f"{MODELS}/{model}"):
            change = make()
            if form.raw("seen") != _seen(state):
                raise InvalidParameter("The model was changed meanwhile. Look at what your change does now.")
            why, moment = reason(form), effective_from(form)
            await visitor.services.model_versions.add(
                model, **change.how, note=why, effective_from=moment, actor=visitor.actor
            )
    except MediagateError as error:
        if change is None:
            raise
        return await _preview(visitor, change, state, form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, f"{MODELS}/{model}", done="scheduled" if moment else "saved")


# --- numbers of the price -------------------------------------------------------------------------------------------


def _price(visitor: Visitor, state: ModelState, form: Form) -> Change:
    """Return the numbers that differ. Raises: InvalidParameter."""
    numbers = {}
    for number in numbers_of(visitor, state.entry, state.prices):
        given = form.needed(number.field) if number.field in form.fields else number.value
        if given != number.value:
            numbers[number.path] = given
    if not numbers:
        raise InvalidParameter("No number was changed.")
    return Change(state.id, price=PriceEdit(numbers))


@router.post(MODELS + "/{model}/price")
async def preview_price(visitor: AdminVisitor, model: str, form: FormDep) -> Response:
    state = await visitor.services.model_versions.get(model)
    try:
        return await _preview(visitor, _price(visitor, state, form), state, start_form())
    except MediagateError as error:
        return await show_model(visitor, state, form.refuse(visitor.request, error), status=error.status)


@router.post(MODELS + "/{model}/price/apply")
async def apply_price(visitor: AdminVisitor, model: str, form: FormDep) -> Response:
    state = await visitor.services.model_versions.get(model)
    try:
        return await _apply(visitor, model, form, lambda: _price(visitor, state, form))
    except MediagateError as error:  # not even its preview can be shown
        return await show_model(visitor, state, form.refuse(visitor.request, error), status=error.status)


# --- the whole entry ------------------------------------------------------------------------------------------------


@router.get(MODELS + "/{model}/entry")
async def entry(visitor: AdminVisitor, model: str) -> Response:
    versions = visitor.services.model_versions
    state = await versions.get(model)
    data, wanted = state.entry, tables.query(visitor.request, "version")
    for one in await versions.versions(model):
        if str(one.version.number) == wanted and one.version.entry is not None:
            data = one.version.entry
    shown = {name: value for name, value in data.items() if name != "routes"}
    return _entry_page(visitor, model, state, blank(document=dump(shown)))


@router.get(f"{CATALOGUE}/new")
async def new_model(visitor: AdminVisitor) -> Response:
    return _entry_page(visitor, None, None, blank(model=""))


def _entry_page(
    visitor: Visitor, model: str | None, state: ModelState | None, form: Form, *, status: int = 200
) -> Response:
    return visitor.page("admin/model_entry.html", status=status, nav=MODELS, model=model, state=state, form=form)


@router.post(MODELS + "/{model}/entry")
async def preview_entry(visitor: AdminVisitor, model: str, form: FormDep) -> Response:
    state = await visitor.services.model_versions.get(model)
    try:
        return await _preview(visitor, Change(model, document=document(form, "document")), state, start_form())
    except MediagateError as error:
        return _entry_page(visitor, model, state, form.refuse(visitor.request, error), status=error.status)


@router.post(f"{CATALOGUE}/new")
async def preview_new(visitor: AdminVisitor, form: FormDep) -> Response:
    model = form.text("model")
    try:
        if await find_state(visitor, model) is not None:
            raise InvalidParameter("A model of this name is known already: change that one.", param="model")
        return await _preview(visitor, Change(model, document=document(form, "document")), None, start_form())
    except MediagateError as error:
        return _entry_page(visitor, None, None, form.refuse(visitor.request, error), status=error.status)


@router.post(MODELS + "/{model}/entry/apply")
async def apply_entry(visitor: AdminVisitor, model: str, form: FormDep) -> Response:
    try:
        return await _apply(visitor, model, form, lambda: Change(model, document=document(form, "document")))
    except MediagateError as error:  # not even its preview can be shown
        state = await find_state(visitor, model)
        form.fields["model"] = [model]
        refused = form.refuse(visitor.request, error)
        return _entry_page(visitor, model if state else None, state, refused, status=error.status)


# --- withdrawn, back, and the file again ----------------------------------------------------------------------------


@router.get(MODELS + "/{model}/{move}")
async def move_page(visitor: AdminVisitor, model: str, move: Move) -> Response:
    return _move_page(visitor, await visitor.services.model_versions.get(model), move, start_form())


def _move_page(visitor: Visitor, state: ModelState, move: Move, form: Form, *, status: int = 200) -> Response:
    return visitor.page(
        "admin/model_move.html", status=status, nav=MODELS, state=state, move=move, seen=_seen(state), form=form
    )


@router.post(MODELS + "/{model}/{move}")
async def move_model(visitor: AdminVisitor, model: str, move: Move, form: FormDep) -> Response:
    versions = visitor.services.model_versions
    state = await versions.get(model)
    try:
        async with once(visitor, form, back=f"{MODELS}/{model}"):
            if form.raw("seen") != _seen(state):
                raise InvalidParameter("The model was changed meanwhile. Look at what your change does now.")
            why, moment = reason(form), effective_from(form)
            await versions.add(
                model,
                withdraw=move == "withdraw",
                use_file=move == "file",
                document=dict(state.entry) if move == "restore" else None,
                note=why,
                effective_from=moment,
                actor=visitor.actor,
            )
    except MediagateError as error:
        return _move_page(visitor, state, move, form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, f"{MODELS}/{model}", done="scheduled" if moment else "saved")
