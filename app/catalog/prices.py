"""The numbers of a price by their paths, so that a form can show and change them without knowing the rule."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from app.catalog.pricing import MAX_UNIT_CREDITS, PriceBase
from app.catalog.spec import ModelSpec
from app.catalog.wording import listed, shown
from app.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class PriceField:
    """One number of a price."""

    path: str
    """``credits``, ``credits.hd``, ``edit.minimum``: how a `PriceEdit` names it."""
    label: str
    value: int


@dataclass(frozen=True, slots=True)
class PriceEdit:
    """Numbers of a price to be changed; whatever is not named stays."""

    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PriceDifference:
    """One number that differs; None: there is none on that side."""

    path: str
    label: str
    before: int | None
    after: int | None


def price_fields(price: PriceBase) -> tuple[PriceField, ...]:
    """Return every number of the price, in the order of the rule."""
    unit = str(price.model_dump()["unit"])
    data = price.model_dump(mode="json", exclude_none=True)
    if isinstance(price.credits, int):
        fields = [PriceField("credits", f"Credits per {unit}", price.credits)]
    else:
        fields = [
            PriceField(f"credits.{word}", f"Credits per {unit}, {price.by} {word}", number)
            for word, number in price.credits.items()
        ]
    for bound, number in (data.get("edit") or {}).items():
        word = "Fewest" if bound == "minimum" else "Most"
        fields.append(PriceField(f"edit.{bound}", f"{word} seconds of an edit's source that are billed", number))
    return tuple(fields)


def edited(entry: Mapping[str, Any], price: PriceBase, edit: PriceEdit) -> dict[str, Any]:
    """Return the entry with these numbers. What they mean is for the reader of the entry to judge.

    Raises: InvalidParameter for a path that the price does not have, and for what is no number of credits.
    """
    known = {field.path for field in price_fields(price)}
    if not edit.numbers:
        raise InvalidParameter(f"'price' names no number. Known: {listed(sorted(known))}.", param="price")
    changed = deepcopy(dict(entry))
    for path, number in edit.numbers.items():
        if path not in known:
            raise InvalidParameter(
                f"This price has no number {shown(path)}. Known: {listed(sorted(known))}.", param="price"
            )
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_UNIT_CREDITS:
            raise InvalidParameter(
                f"'{path}' must be a whole number from 1 to {MAX_UNIT_CREDITS}.", param=f"price.{path}"
            )
        section, _, word = path.partition(".")
        if word:
            changed["price"][section][word] = number
        else:
            changed["price"][section] = number
    return changed


def price_differences(before: ModelSpec | None, after: ModelSpec | None) -> tuple[PriceDifference, ...]:
    """Return the numbers that differ between two entries' prices."""
    old = {} if before is None else {field.path: field for field in price_fields(before.price)}
    new = {} if after is None else {field.path: field for field in price_fields(after.price)}
    found = []
    for path in dict.fromkeys([*old, *new]):
        was, now = old.get(path), new.get(path)
        if was is None or now is None or (was.value, was.label) != (now.value, now.label):
            label = now.label if now is not None else was.label if was is not None else path
            values = (None if was is None else was.value, None if now is None else now.value)
            found.append(PriceDifference(path, label, *values))
    return tuple(found)
