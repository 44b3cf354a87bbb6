"""Models as administrators see them: what holds, what comes next, and what is amiss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from app.catalog.document import CatalogError
from app.catalog.entries import Entry
from app.catalog.load import Catalog, Files
from app.catalog.prices import PriceField, price_fields
from app.catalog.routes import entry_of
from app.catalog.timeline import ModelVersion, entry_at, entry_in, file_entry, ruling, upcoming
from app.requests import Operation

Word = Literal["offered", "withdrawn", "scheduled", "broken"]


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model as administrators see it."""

    id: str
    state: Word
    """``scheduled``: only a later version offers it; ``broken``: its version does not fit the file any more."""
    type: str
    title: str
    operations: tuple[Operation, ...]
    price_version: str
    """What quotes remember now: the file's version, or ``<model>@<number>``."""
    number: int
    """Of the version in force; 0: the file."""
    since: datetime | None
    next: ModelVersion | None
    """The one that begins next."""
    is_in_file: bool
    differs: bool
    """Whether what holds is not what the file says."""
    entry: Mapping[str, Any]
    """What holds, held last, or will hold: whole, without routes."""
    prices: tuple[PriceField, ...]
    unserved: tuple[Operation, ...]
    """Operations for which there is no enabled route to an active account."""
    problem: str | None


def states(
    files: Files, versions: Sequence[ModelVersion], catalog: Catalog, routes: Iterable[Mapping[str, Any]], now: datetime
) -> list[ModelState]:
    """Return every model that the file or a version names, in the order of the catalogue, the others last."""
    served: dict[str, set[Operation]] = {}
    for row in routes:
        route = entry_of(row)
        if route.is_enabled and row["state"] == "active":
            served.setdefault(route.model, set()).update(route.operations or frozenset(Operation))
    names = dict.fromkeys([*catalog.models, *files.file.models, *(version.model for version in versions)])
    found = (_state(files, versions, catalog, served.get(name, set()), name, now) for name in names)
    return [state for state in found if state is not None]


def _state(
    files: Files, versions: Sequence[ModelVersion], catalog: Catalog, served: set[Operation], model: str, now: datetime
) -> ModelState | None:
    own = [version for version in versions if version.model == model]
    ruler = ruling(own, now).get(model)
    later = upcoming(own, now)
    entry = known_entry(files, own, model, now)
    if entry is None and (ruler is None or ruler.kind != "entry"):
        return None  # only versions that were cancelled
    data = entry.data if entry is not None else dict((ruler.entry if ruler else None) or {})
    word: Word = "offered"
    if model in catalog.problems:
        word = "broken"
    elif model not in catalog.models:
        word = "withdrawn" if ruler is not None else "scheduled"
    known = file_entry(files, model)
    operations = entry.spec.operations if entry is not None else ()
    is_from_file = ruler is None or ruler.kind == "file"
    return ModelState(
        id=model,
        state=word,
        type=str(data.get("type", "")),
        title=str(data.get("title", model)),
        operations=tuple(operations),
        price_version=files.version if ruler is None or is_from_file else ruler.name,
        number=0 if ruler is None else ruler.number,
        since=None if ruler is None else ruler.effective_from,
        next=later[0] if later else None,
        is_in_file=known is not None,
        differs=not is_from_file and (word != "offered" or known is None or data != known.data),
        entry=data,
        prices=price_fields(entry.spec.price) if entry is not None else (),
        unserved=tuple(o for o in operations if o not in served) if word in ("offered", "scheduled") else (),
        problem=catalog.problems.get(model),
    )


def known_entry(files: Files, versions: Sequence[ModelVersion], model: str, now: datetime) -> Entry | None:
    """Return what is offered under this name, else what was or will be; None for a name that never had an entry."""
    own = [version for version in versions if version.model == model and version.cancelled_at is None]
    try:
        offered = entry_at(files, own, model, now)
    except CatalogError:
        return None
    if offered is not None:
        return offered
    dated = [version for version in own if version.kind == "entry"]
    later = upcoming(dated, now)
    past = [version for version in dated if version not in later]
    for version in (*sorted(past, key=_moment, reverse=True), *sorted(dated, key=_moment)):
        try:
            return entry_in(files, version)
        except CatalogError:
            continue
    return file_entry(files, model)


def _moment(version: ModelVersion) -> tuple[datetime | None, int]:
    return version.effective_from, version.number
