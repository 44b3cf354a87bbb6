"""What requests would cost: one request, and a table of every combination that a price tells apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from app.catalog import pricing
from app.catalog.inputs import Input
from app.catalog.model import Model
from app.catalog.parameters import Choice, Integer, Size
from app.catalog.pricing import PricePerSecond, Quote
from app.catalog.spec import ModelSpec
from app.errors import InvalidParameter
from app.requests import Operation

PLACEHOLDER = "https://reference.invalid/1"
MAX_SECONDS_SHOWN = 60
MAX_ROWS = 500
MAX_INPUT_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Simulation:
    """A quote as a request would get it, and how the request was understood."""

    model: str
    operation: Operation
    params: Mapping[str, Any]
    warnings: tuple[str, ...]
    quote: Quote


@dataclass(frozen=True, slots=True)
class ExampleQuote:
    """One combination at the price before and after; None: that side does not have it."""

    operation: Operation
    params: Mapping[str, Any]
    """Such as ``quality``, ``size`` and ``pixels``; ``resolution`` and ``seconds``; ``source_seconds`` of an edit."""
    before: int | None
    after: int | None

    @property
    def difference(self) -> int | None:
        return None if self.before is None or self.after is None else self.after - self.before


def simulate(
    model: Model,
    fields: Mapping[str, Any],
    *,
    operation: Operation | None = None,
    input_seconds: float | None = None,
) -> Simulation:
    """Price a request without its files: those that the operation needs are taken as given.

    ``input_seconds``: of an edit's source, or of the reference videos together. Raises: what the request would.
    """
    fields = {"prompt": "A simulation.", **fields}
    wanted = operation or _usual(model.spec)
    if operation is not None and operation not in model.operations:
        model.choose(fields, operation=operation)  # says what the model can do instead
    fields |= {name: PLACEHOLDER for name in _needed(model.spec, fields, wanted, input_seconds)}
    starts_as = Operation.VIDEO_GENERATE if wanted is Operation.VIDEO_EDIT else wanted
    choice = model.choose(fields, operation=starts_as)
    if model.needs_input_seconds(choice) and (input_seconds is None or not 0 < input_seconds <= MAX_INPUT_SECONDS):
        raise InvalidParameter(
            "'input_seconds' must be the seconds of the videos that come along: they are part of the price.",
            param="input_seconds",
        )
    quote = model.quote(choice, input_seconds=input_seconds)
    return Simulation(model.id, choice.operation, choice.params, tuple(choice.warnings), quote)


def examples(before: Model | None, after: Model | None) -> list[ExampleQuote]:
    """Return every combination that either side prices, in order, with both prices."""
    old = {} if before is None else dict(islice(_priced(before), MAX_ROWS))
    new = {} if after is None else dict(islice(_priced(after), MAX_ROWS))
    return [
        ExampleQuote(key[0], dict(key[1:]), old.get(key), new.get(key)) for key in list(dict.fromkeys([*new, *old]))
    ]


Key = tuple[Any, ...]


def _priced(model: Model) -> Iterator[tuple[Key, int]]:
    """Yield each combination as a key, and its price. Operations of equal price are told once."""
    spec, price = model.spec, model.spec.price
    tier = spec.parameters[spec.sizes.tier]
    tiers = tier.choices if isinstance(tier, Choice) else ()
    by = spec.parameters.get(price.by) if price.by else None
    words = by.choices if isinstance(by, Choice) and price.by != spec.sizes.tier else (None,)
    for operation in _told(spec):
        for at in tiers:
            for word in words:
                params: dict[str, Any] = {spec.sizes.tier: at} | ({} if word is None else {str(price.by): word})
                for more, seconds in _variants(model, operation, str(at)):
                    key = (operation, *params.items(), *more)
                    is_edit = operation is Operation.VIDEO_EDIT and seconds is not None
                    quote = pricing.quote(
                        price,
                        operation=operation,
                        params=params | {"duration": seconds},
                        media={},
                        input_seconds=float(seconds) if is_edit and seconds else None,
                        version=model.version,
                    )
                    yield key, int(quote.credits)


def _told(spec: ModelSpec) -> list[Operation]:
    first = _usual(spec)
    price = spec.price
    if isinstance(price, PricePerSecond) and price.edit is not None and Operation.VIDEO_EDIT in spec.operations:
        return list(dict.fromkeys([first, Operation.VIDEO_EDIT]))
    return [first]


def _variants(model: Model, operation: Operation, tier: str) -> Iterator[tuple[list[tuple[str, Any]], int | None]]:
    """Yield what else tells requests apart: the seconds where they are priced, else the shapes of a picture."""
    spec, price = model.spec, model.spec.price
    if isinstance(price, PricePerSecond):
        if operation is Operation.VIDEO_EDIT and price.edit is not None:
            name, least, most = "source_seconds", price.edit.minimum, price.edit.maximum
        else:
            duration = spec.parameters["duration"]
            if not isinstance(duration, Integer):
                raise TypeError("the loader lets no such model through")
            name, least, most = "seconds", duration.minimum, duration.maximum
        step = max(1, (most - least) // MAX_SECONDS_SHOWN)
        yield from (([(name, seconds)], seconds) for seconds in sorted({*range(least, most + 1, step), most}))
        return
    size = spec.parameters["size"]
    shapes = size.values if spec.type == "image" and isinstance(size, Size) else ()
    for ratio in shapes:
        pixels = model.table.pixels.get(ratio, {}).get(tier)
        yield [("size", ratio), *([("pixels", pixels)] if pixels else [])], None
    if not shapes:
        yield [], None


def _usual(spec: ModelSpec) -> Operation:
    usual = Operation.IMAGE_GENERATE if spec.type == "image" else Operation.VIDEO_GENERATE
    return usual if usual in spec.operations else spec.operations[0]


def _needed(
    spec: ModelSpec, fields: Mapping[str, Any], operation: Operation, input_seconds: float | None
) -> Iterator[str]:
    """Yield the inputs that this operation cannot do without, and that the caller left out."""

    def is_absent(name: str, entry: Input) -> bool:
        return not any(public in fields for public in (name, *entry.also))

    price = spec.price
    adds = price.adds_input_seconds if isinstance(price, PricePerSecond) else ()
    for name, entry in spec.inputs.items():
        if not is_absent(name, entry):
            continue
        if operation is Operation.VIDEO_EDIT:
            is_needed = entry.becomes is operation
        elif operation is Operation.IMAGE_EDIT:
            is_needed = name == "image_urls"
        else:
            is_needed = input_seconds is not None and name in adds[:1]
        if is_needed:
            yield name
