"""What the pages of models share: prices in words, when a change begins and why, and what it would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.catalog.exchange import ModelChange, dump
from app.catalog.prices import PriceField
from app.catalog.simulate import ExampleQuote
from app.catalog.states import ModelState
from app.catalog.version_rows import MAX_NOTE_CHARS
from app.console.visitor import Form, Visitor, blank
from app.console.wording import _
from app.errors import InvalidParameter, ModelNotFound

MODELS = "/console/admin/models"
CATALOGUE = "/console/admin/catalogue"
"""New models, and the whole as one file. Beside the models' addresses: no name of a model is taken."""

UNITS: Mapping[str, str] = {
    "image": _("Credits per image"),
    "second": _("Credits per second"),
    "call": _("Credits per call"),
}
BOUNDS: Mapping[str, str] = {
    "edit.minimum": _("Fewest seconds of an edit's source that are billed"),
    "edit.maximum": _("Most seconds of an edit's source that are billed"),
}


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a price, as a form shows it."""

    path: str
    label: str
    value: int

    @property
    def field(self) -> str:
        return f"price.{self.path}"


def numbers_of(visitor: Visitor, entry: Mapping[str, Any], fields: Sequence[PriceField]) -> list[Number]:
    return [Number(field.path, label_of(visitor, entry, field.path), field.value) for field in fields]


def label_of(visitor: Visitor, entry: Mapping[str, Any], path: str) -> str:
    """Return what a number of this entry's price is, in the reader's language."""
    if path in BOUNDS:
        return visitor.gettext(BOUNDS[path])
    price = entry.get("price") or {}
    unit = visitor.gettext(UNITS.get(price.get("unit", ""), path))
    _section, _dot, word = path.partition(".")
    return f"{unit} · {price.get('by')} {word}" if word else unit


async def find_state(visitor: Visitor, model: str) -> ModelState | None:
    try:
        return await visitor.services.model_versions.get(model)
    except ModelNotFound:
        return None


def start_form(**fields: object) -> Form:
    """Return a form of a change: now, and without a reason yet."""
    return blank(**{"when": "now", "at": "", "reason": "", **fields})


def effective_from(form: Form) -> datetime | None:
    """Return when a change begins; None: now. Raises: InvalidParameter."""
    if form.text("when") != "at":
        if form.find("at"):  # a date without its choice is more likely meant than not
            raise InvalidParameter("'at' names a moment: choose it above, or clear it to begin now.", param="at")
        return None
    try:
        moment = datetime.fromisoformat(form.text("at"))
    except ValueError:
        raise InvalidParameter("'at' must be a date and a time, in UTC.", param="at") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    if moment < datetime.now(UTC):
        raise InvalidParameter("'at' lies in the past. Choose now, or a later time (UTC).", param="at")
    return moment


def reason(form: Form) -> str:
    """Raises: InvalidParameter: whoever reads the history later wants to know why."""
    text = form.text("reason")
    if not 1 <= len(text) <= MAX_NOTE_CHARS:
        raise InvalidParameter(f"'reason' must say why, in 1 to {MAX_NOTE_CHARS} characters.", param="reason")
    return text


def document(form: Form, name: str) -> str:
    """Return a text area's YAML as it was typed: browsers send other line ends."""
    return form.raw(name).replace("\r\n", "\n")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an entry that differs, as YAML; None: it is not there."""

    name: str
    before: str | None
    after: str | None


def parts_of(change: ModelChange) -> list[Part]:
    return [
        Part(
            name,
            _yaml(change.before[name]) if name in change.before else None,
            _yaml(change.after[name]) if name in change.after else None,
        )
        for name in change.fields
    ]


def _yaml(value: object) -> str:
    return dump(value).removesuffix("...\n").strip()  # a single word is a whole document, whose end is said


def columns_of(examples: Sequence[ExampleQuote]) -> list[str]:
    """Return the names of all parameters that tell the combinations apart."""
    return list(dict.fromkeys(name for example in examples for name in example.params))
