"""Price rules, quotes, and the charge for what was delivered.

A price is data; this module knows three units: an image, a second, a call. The quote is frozen into the task when its
hold is placed, so a later change of the price list never touches a running task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from app.catalog.frozen import Frozen
from app.requests import Operation
from app.values import Credits

MAX_UNIT_CREDITS = 1_000_000_000
PositiveCredits = Annotated[int, Field(ge=1, le=MAX_UNIT_CREDITS)]


@dataclass(frozen=True, slots=True)
class Quote:
    """The most a request can cost, and how that was computed. It equals the hold."""

    credits: Credits
    unit: str
    """``image``, ``second`` or ``call``."""
    unit_credits: int
    quantity: int
    """Units in ``credits``, those of the inputs included."""
    price_version: str
    explain: str
    input_quantity: int = 0
    """Seconds of reference videos among ``quantity``."""
    source_seconds: float | None = None
    """Measured seconds of an edit's source; None for everything else."""
    minimum: int = 1
    """Fewest units that are charged for anything delivered."""

    def frozen(self) -> dict[str, Any]:
        """Return plain JSON for the task's row; ``charge`` needs nothing else."""
        return {
            "credits": int(self.credits),
            "unit": self.unit,
            "unit_credits": self.unit_credits,
            "quantity": self.quantity,
            "price_version": self.price_version,
            "explain": self.explain,
            "input_quantity": self.input_quantity,
            "source_seconds": self.source_seconds,
            "minimum": self.minimum,
        }


class PriceBase(Frozen):
    by: str | None = None
    """The choice parameter that decides the price; None: one price."""
    credits: PositiveCredits | dict[str, PositiveCredits]

    @model_validator(mode="after")
    def _by_and_credits_agree(self) -> Self:
        if (self.by is None) != isinstance(self.credits, int):
            raise ValueError("'by' names a parameter and 'credits' then has a price for each of its values, or neither")
        return self

    def unit_credits(self, params: Mapping[str, Any]) -> int:
        return self.credits if isinstance(self.credits, int) else self.credits[params[self._key()]]

    def label(self, params: Mapping[str, Any]) -> str:
        return "" if self.by is None else f" ({params[self.by]})"

    def _key(self) -> str:
        if self.by is None:
            raise ValueError("a flat price has no key")
        return self.by


class PricePerImage(PriceBase):
    unit: Literal["image"]

    @property
    def operations(self) -> frozenset[Operation]:
        return frozenset({Operation.IMAGE_GENERATE, Operation.IMAGE_EDIT})


class PricePerCall(PriceBase):
    unit: Literal["call"]

    @property
    def operations(self) -> frozenset[Operation]:
        return frozenset(Operation)


class SourceSeconds(Frozen):
    """An edit is billed by its source's length, rounded up, within these bounds."""

    minimum: int = Field(ge=1)
    maximum: int = Field(ge=1)

    @model_validator(mode="after")
    def _range_makes_sense(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class PricePerSecond(PriceBase):
    unit: Literal["second"]
    adds_input_seconds: tuple[str, ...] = ()
    """Input fields whose videos' seconds are added to the price."""
    edit: SourceSeconds | None = None

    @property
    def operations(self) -> frozenset[Operation]:
        # A remix is priced per call: what it adds, and to what, is not a number of seconds we are told.
        return frozenset({Operation.VIDEO_GENERATE} | ({Operation.VIDEO_EDIT} if self.edit else set()))


Price = Annotated[PricePerImage | PricePerSecond | PricePerCall, Field(discriminator="unit")]


def needs_input_seconds(price: Price, operation: Operation, media: Mapping[str, Any]) -> bool:
    """Whether a quote needs the measured seconds of the input videos."""
    if not isinstance(price, PricePerSecond):
        return False
    return operation is Operation.VIDEO_EDIT or any(media.get(name) for name in price.adds_input_seconds)


def quote(
    price: Price,
    *,
    operation: Operation,
    params: Mapping[str, Any],
    media: Mapping[str, Any],
    input_seconds: float | None,
    version: str,
) -> Quote:
    """Return the price of one request. ``input_seconds``: of an edit's source, or the sum over the reference videos.

    Raises: ValueError when ``input_seconds`` is needed and missing: the caller must measure first.
    """
    each, label = price.unit_credits(params), price.label(params)
    if not isinstance(price, PricePerSecond):
        explain = f"1 {price.unit} x {_credits(each)}{label}"
        return Quote(Credits(each), price.unit, each, 1, version, explain)
    if not needs_input_seconds(price, operation, media):
        seconds = int(params["duration"])
        explain = f"{seconds} s x {_credits(each)}{label}"
        return Quote(Credits(seconds * each), price.unit, each, seconds, version, explain)
    if input_seconds is None or not math.isfinite(input_seconds) or input_seconds <= 0:
        raise ValueError("the seconds of the input videos must be measured before the quote")
    measured = round(input_seconds, 3)  # milliseconds: 5.0000001 is 5 s and its last bit, not 6
    if operation is Operation.VIDEO_EDIT and price.edit is not None:
        bounds = price.edit
        seconds = min(max(math.ceil(measured), bounds.minimum), bounds.maximum)
        explain = f"{seconds} s (source {measured:g} s) x {_credits(each)}{label}"
        return Quote(
            Credits(seconds * each), price.unit, each, seconds, version, explain,
            source_seconds=measured, minimum=bounds.minimum,
        )  # fmt: skip
    own, added = int(params["duration"]), math.ceil(measured)
    explain = f"({own} s + {added} s of reference video) x {_credits(each)}{label}"
    total = own + added
    return Quote(Credits(total * each), price.unit, each, total, version, explain, input_quantity=added)


def charge(frozen: Mapping[str, Any], delivered: float | None) -> Credits:
    """Return what a finished task costs: the measured units at the frozen price, at most the quote.

    ``delivered`` is the number of images, or the seconds of the delivered video; None or 0 is nothing, and costs
    nothing. An edit is billed by its source, unless the result is at least a second shorter.
    """
    if delivered is None or not delivered > 0:
        return Credits(0)
    most: int = frozen["credits"]
    if frozen["unit"] != "second":
        return Credits(most)
    quantity, minimum = int(frozen["quantity"]), int(frozen["minimum"])
    source: float | None = frozen["source_seconds"]
    delivered = min(delivered, quantity)  # more than was asked for is ours
    if source is not None:
        is_short = delivered <= min(source, quantity) - 1
        seconds = max(math.ceil(round(delivered, 3)), minimum) if is_short else quantity
    else:
        # 5 s of frames and sound last 5.04 s: to the nearest second, never up.
        seconds = max(math.floor(delivered + 0.5), minimum) + int(frozen["input_quantity"])
    return Credits(min(most, seconds * int(frozen["unit_credits"])))


def _credits(number: int) -> str:
    return f"{number} credit" if number == 1 else f"{number} credits"
