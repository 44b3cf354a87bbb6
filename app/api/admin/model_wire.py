"""The shapes of models, their versions and their prices, for administrators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from app.api.v1.quote import QuoteReply
from app.api.v1.wire import Wire, find_unix, unix
from app.catalog.exchange import Import, ModelChange, dump
from app.catalog.prices import PriceField
from app.catalog.simulate import ExampleQuote, Simulation
from app.catalog.states import ModelState
from app.catalog.takeover import ListedVersion, Takeover
from app.requests import Operation

Json = dict[str, Any]


class PriceNumber(Wire):
    path: str
    """How a price edit names it: `credits`, `credits.hd`, `edit.minimum`."""
    label: str
    value: int

    @classmethod
    def of(cls, field: PriceField) -> PriceNumber:
        return cls(path=field.path, label=field.label, value=field.value)


class NextVersion(Wire):
    number: int
    kind: Literal["entry", "withdrawn", "file"]
    effective_from: int | None
    note: str


class ManagedModel(Wire):
    object: Literal["managed_model"] = "managed_model"
    id: str
    type: str
    title: str
    state: Literal["offered", "withdrawn", "scheduled", "broken"]
    operations: list[Operation]
    price_version: str
    """What quotes remember now: the file's version, or `<model>@<number>`."""
    version: int
    """The number in force; 0: the file."""
    since: int | None
    next: NextVersion | None
    in_file: bool
    differs_from_file: bool
    prices: list[PriceNumber]
    unserved: list[Operation]
    """Operations that no enabled route to an active account serves."""
    problem: str | None

    @classmethod
    def of(cls, state: ModelState) -> ManagedModel:
        return cls(**_told(state))


class ManagedModelDetails(ManagedModel):
    entry: Json
    """The whole entry, without routes."""
    yaml: str
    """The same, to be edited."""

    @classmethod
    def of(cls, state: ModelState) -> ManagedModelDetails:
        return cls(**_told(state), entry=dict(state.entry), yaml=dump(dict(state.entry)))


class ManagedModelList(Wire):
    object: Literal["list"] = "list"
    data: list[ManagedModel]


class PriceChange(Wire):
    path: str
    label: str
    before: int | None
    after: int | None


class ModelChangeObject(Wire):
    model: str
    change: Literal["added", "changed", "withdrawn"]
    fields: list[str]
    before: Json
    after: Json
    prices: list[PriceChange]

    @classmethod
    def of(cls, change: ModelChange) -> ModelChangeObject:
        return cls(
            model=change.model,
            change=change.change,
            fields=list(change.fields),
            before=dict(change.before),
            after=dict(change.after),
            prices=[
                PriceChange(path=price.path, label=price.label, before=price.before, after=price.after)
                for price in change.prices
            ],
        )


class TakeoverObject(Wire):
    version: str
    """The name of the version that begins then."""
    effective_from: int
    change: ModelChangeObject
    """What it changes in what was made here: a version holds a whole entry."""

    @classmethod
    def of(cls, then: Takeover) -> TakeoverObject:
        at = then.version.effective_from
        if at is None:
            raise ValueError("the file's version takes over from nothing")
        return cls(version=then.version.name, effective_from=unix(at), change=ModelChangeObject.of(then.change))


class ModelVersionObject(Wire):
    object: Literal["model_version"] = "model_version"
    name: str
    model: str
    number: int
    kind: Literal["entry", "withdrawn", "file"]
    state: Literal["scheduled", "in_force", "past", "cancelled"]
    effective_from: int | None
    """None: the file, which holds where no version does."""
    note: str
    created_by: str
    created_at: int | None
    cancelled_at: int | None
    cancelled_by: str | None
    entry: Json | None
    then: TakeoverObject | None
    """Of a version just made: what is planned already and takes over from it; null: nothing."""

    @classmethod
    def of(cls, listed: ListedVersion) -> ModelVersionObject:
        version = listed.version
        return cls(
            name=version.name,
            model=version.model,
            number=version.number,
            kind=version.kind,
            state=listed.state,
            effective_from=find_unix(version.effective_from),
            note=version.note,
            created_by=version.created_by,
            created_at=find_unix(version.created_at),
            cancelled_at=find_unix(version.cancelled_at),
            cancelled_by=version.cancelled_by,
            entry=None if version.entry is None else dict(version.entry),
            then=None if listed.then is None else TakeoverObject.of(listed.then),
        )


class ModelVersionList(Wire):
    object: Literal["list"] = "list"
    data: list[ModelVersionObject]


class PriceExample(Wire):
    operation: Operation
    params: Json
    before: int | None
    after: int | None
    difference: int | None

    @classmethod
    def of(cls, example: ExampleQuote) -> PriceExample:
        return cls(
            operation=example.operation,
            params=dict(example.params),
            before=example.before,
            after=example.after,
            difference=example.difference,
        )


class PriceSimulation(Wire):
    object: Literal["price_simulation"] = "price_simulation"
    model: str
    operation: Operation
    params: Json
    quote: QuoteReply
    warnings: list[str]
    examples: list[PriceExample]
    """Every priced combination, beside what is in force; only where they were asked for."""

    @classmethod
    def of(cls, simulation: Simulation, examples: Iterable[ExampleQuote]) -> PriceSimulation:
        return cls(
            model=simulation.model,
            operation=simulation.operation,
            params=dict(simulation.params),
            quote=QuoteReply.of(simulation.quote),
            warnings=list(simulation.warnings),
            examples=[PriceExample.of(example) for example in examples],
        )


class ModelImport(Wire):
    object: Literal["model_import"] = "model_import"
    dry_run: bool
    effective_from: int
    changes: list[ModelChangeObject]
    unchanged: list[str]
    missing: list[str]
    """Offered here and not in the file: untouched, unless `withdraw_missing` was said."""
    ignored: list[str]
    versions: list[str]
    """The names of those that were made."""

    @classmethod
    def of(cls, found: Import, *, dry_run: bool) -> ModelImport:
        return cls(
            dry_run=dry_run,
            effective_from=unix(found.effective_from),
            changes=[ModelChangeObject.of(change) for change in found.changes],
            unchanged=list(found.unchanged),
            missing=list(found.missing),
            ignored=list(found.ignored),
            versions=[version.name for version in found.versions],
        )


def _told(state: ModelState) -> Json:
    coming = state.next
    return {
        "id": state.id,
        "type": state.type,
        "title": state.title,
        "state": state.state,
        "operations": sorted(state.operations),
        "price_version": state.price_version,
        "version": state.number,
        "since": find_unix(state.since),
        "next": None
        if coming is None
        else NextVersion(
            number=coming.number,
            kind=coming.kind,
            effective_from=find_unix(coming.effective_from),
            note=coming.note,
        ),
        "in_file": state.is_in_file,
        "differs_from_file": state.differs,
        "prices": [PriceNumber.of(field) for field in state.prices],
        "unserved": list(state.unserved),
        "problem": state.problem,
    }
