"""What must hold between the parts of one model's entry, and between it, the size tables and the upstreams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.catalog.document import CatalogError, Document
from app.catalog.model import OUTSIDE_FIELDS, SIZE
from app.catalog.parameters import Choice, Integer, Size
from app.catalog.pricing import PricePerSecond
from app.catalog.rules import ByCount, IgnoredWith, OnlyWhen
from app.catalog.sizes import SizeError, SizeTable, image_pixels, parse_ratio
from app.catalog.spec import ModelSpec, UpstreamSpec
from app.catalog.wording import listed
from app.requests import Operation
from app.upstreams.protocols import Capabilities


def check_model(
    document: Document,
    name: str,
    spec: ModelSpec,
    tables: Mapping[str, SizeTable],
    upstreams: Mapping[str, UpstreamSpec],
    providers: Mapping[str, Capabilities],
) -> None:
    """Raises: CatalogError for the first thing that does not fit, at the line where it stands."""
    check_entry(document, name, spec, tables)
    _Entry(document, name, spec).check_routes(upstreams, providers)


def check_entry(document: Document, name: str, spec: ModelSpec, tables: Mapping[str, SizeTable]) -> None:
    """Judge all but the routes. Raises: CatalogError for the first thing that does not fit, at its place."""
    entry = _Entry(document, name, spec)
    entry.check_operations()
    entry.check_names()
    entry.check_rules()
    entry.check_sizes(tables)
    entry.check_price()


@dataclass(frozen=True, slots=True)
class _Entry:
    document: Document
    name: str
    spec: ModelSpec

    def error(self, message: str, *place: str | int) -> CatalogError:
        return self.document.error(("models", self.name, *place), f"model '{self.name}': {message}")

    def check_operations(self) -> None:
        for operation in self.spec.operations:
            if operation.kind != self.spec.type:
                raise self.error(f"'{operation}' is no operation of a model that makes {self.spec.type}s", "operations")
        for section, entries in (("parameters", self.spec.parameters), ("inputs", self.spec.inputs)):
            for key, value in entries.items():
                if value.operations is not None and not set(value.operations) & set(self.spec.operations):
                    raise self.error(f"'{key}' is for no operation of this model", section, key)
        for key, media in self.spec.inputs.items():
            if media.becomes is not None and media.becomes not in self.spec.operations:
                raise self.error(f"'{key}' becomes '{media.becomes}', which this model does not do", "inputs", key)

    def check_names(self) -> None:
        seen: dict[str, str] = dict.fromkeys(OUTSIDE_FIELDS, "the gateway")
        for section, key, public in self._public():
            if public in seen:
                raise self.error(f"the field '{public}' is already used by {seen[public]}", section, key)
            seen[public] = f"'{key}'"
        for key, media in self.spec.inputs.items():
            if media.single and media.maximum != 1:
                raise self.error(f"'{key}' is single and cannot hold {media.maximum} files", "inputs", key)
            if media.read_as is None:
                continue
            target = self.spec.inputs.get(media.read_as)
            if target is None or target.read_as is not None or target.media != media.media:
                raise self.error(f"'{key}' cannot be read as '{media.read_as}'", "inputs", key, "read_as")
            if media.maximum > target.maximum:
                raise self.error(f"'{key}' may hold more files than '{media.read_as}'", "inputs", key)
        for key in self.spec.prompt_optional_with:
            if key not in self.spec.inputs:
                raise self.error(f"unknown input '{key}'", "prompt_optional_with")

    def _public(self) -> Iterator[tuple[str, str, str]]:
        for key, parameter in self.spec.parameters.items():
            yield from (("parameters", key, public) for public in (key, *parameter.also))
        for key, media in self.spec.inputs.items():
            yield from (("inputs", key, public) for public in (key, *media.also))

    def check_rules(self) -> None:
        parameters, inputs = self.spec.parameters, self.spec.inputs
        for index, rule in enumerate(self.spec.rules):
            place = ("rules", index)
            for key in rule.names:
                if key not in parameters and key not in inputs:
                    raise self.error(f"the rule names '{key}', which this model does not have", *place)
            if isinstance(rule, (OnlyWhen, ByCount, IgnoredWith)) and rule.param not in parameters:
                raise self.error(f"'{rule.param}' is no parameter", *place)
            if isinstance(rule, ByCount):
                choice = parameters[rule.param]
                if not isinstance(choice, Choice) or set(rule.ranges) != set(choice.values):
                    raise self.error(f"every value of '{rule.param}' needs its range, and no other word", *place)
            if isinstance(rule, OnlyWhen):
                choice = parameters[rule.param]
                strange = set(rule.values) - set(choice.values) if isinstance(choice, Choice) else set()
                if strange:
                    raise self.error(f"'{rule.param}' has no value {listed(sorted(map(str, strange)))}", *place)

    def check_sizes(self, tables: Mapping[str, SizeTable]) -> None:
        table = tables.get(self.spec.sizes.table)
        if table is None:
            raise self.error(f"unknown size table '{self.spec.sizes.table}'; known: {listed(tables)}", "sizes", "table")
        tier = self._choice(self.spec.sizes.tier, "sizes", "tier")
        size = self.spec.parameters.get(SIZE)
        if not isinstance(size, Size):
            raise self.error(f"a parameter '{SIZE}' of kind 'size' is missing", "parameters")
        place = ("parameters", SIZE)
        for ratio in size.values:
            value = parse_ratio(ratio)
            row = table.row(value) if value is not None else None
            if row is None and (self.spec.type == "video" or table.off_table == "refuse" or value is None):
                raise self.error(f"the size table '{self.spec.sizes.table}' has no row for '{ratio}'", *place)
            if row is not None and self.spec.type == "video" and row != ratio:
                raise self.error(f"'{ratio}' is called '{row}' in the size table", *place)
        rows = table.pixels if self.spec.type == "image" else {ratio: table.pixels[ratio] for ratio in size.values}
        for ratio, tiers in rows.items():
            missing = [word for word in tier.choices if word not in tiers]
            if missing:
                raise self.document.error(
                    ("size_tables", self.spec.sizes.table, "pixels", ratio),
                    f"the size table '{self.spec.sizes.table}' has no pixels for {ratio} at {listed(missing)}, "
                    f"which the model '{self.name}' needs",
                )
        if self.spec.type == "image" and "1:1" not in rows:
            raise self.error(f"the size table '{self.spec.sizes.table}' has no row for '1:1'", "sizes", "table")
        if self.spec.type == "video" and size.default not in (*size.values, *size.words):
            raise self.error(f"the default '{size.default}' is none of the values", *place, "default")
        if self.spec.type == "image":
            try:
                image_pixels(table, size.default, tier.choices[0])
            except SizeError as error:
                raise self.error(f"the default '{size.default}' cannot be made: {error}", *place, "default") from None

    def _choice(self, key: str, *place: str) -> Choice:
        parameter = self.spec.parameters.get(key)
        if not isinstance(parameter, Choice):
            raise self.error(f"'{key}' is no choice parameter of this model", *place)
        if parameter.initial is None or parameter.operations is not None:
            raise self.error(f"'{key}' needs a default, for every operation", "parameters", key)
        return parameter

    def check_price(self) -> None:
        price = self.spec.price
        beyond = sorted(set(self.spec.operations) - price.operations)
        if beyond:
            raise self.error(f"the price per {price.unit} covers no {listed(beyond)}", "price")
        if isinstance(price.credits, dict):
            choices = self._choice(price.by or "", "price", "by").choices
            missing = [word for word in choices if word not in price.credits]
            if missing:
                raise self.error(f"no price for {price.by} {listed(missing)}", "price", "credits")
            strange = [word for word in price.credits if word not in choices]
            if strange:
                raise self.error(f"a price for {price.by} {listed(strange)}, which does not exist", "price", "credits")
        if not isinstance(price, PricePerSecond):
            return
        duration = self.spec.parameters.get("duration")
        if not isinstance(duration, Integer) or duration.default is None or duration.minimum < 1:
            raise self.error("a price per second needs an integer 'duration' from 1 with a default", "price")
        for key in price.adds_input_seconds:
            if key not in self.spec.inputs or self.spec.inputs[key].media != "video":
                raise self.error(f"'{key}' is no video input", "price", "adds_input_seconds")

    def check_routes(self, upstreams: Mapping[str, UpstreamSpec], providers: Mapping[str, Capabilities]) -> None:
        if not self.spec.routes:
            raise self.error("routes: missing", "routes")
        served: set[Operation] = set()
        for index, route in enumerate(self.spec.routes):
            place = ("routes", index)
            upstream = upstreams.get(route.upstream)
            if upstream is None:
                known = listed(upstreams)
                raise self.error(f"unknown upstream '{route.upstream}'; known: {known}", *place, "upstream")
            operations = set(self.spec.operations if route.operations is None else route.operations)
            if operations - set(self.spec.operations):
                strange = listed(sorted(operations - set(self.spec.operations)))
                raise self.error(f"the route names {strange}, which this model does not do", *place, "operations")
            cannot = operations - providers[upstream.provider].operations
            if cannot:
                raise self.error(
                    f"unroutable: the provider '{upstream.provider}' cannot do {listed(sorted(cannot))}", *place
                )
            served |= operations
        unserved = set(self.spec.operations) - served
        if unserved:
            raise self.error(f"unroutable: no route for {listed(sorted(unserved))}", "routes")
