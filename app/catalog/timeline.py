"""Which catalogue is in force: a pure function of the files, the versions and the time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from app.catalog.document import CatalogError, plain_document
from app.catalog.entries import Entry, checked_entry
from app.catalog.load import Catalog, Files, Offer, assemble

Kind = Literal["entry", "withdrawn", "file"]
State = Literal["scheduled", "in_force", "past", "cancelled"]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """What an administrator decided about one model, from a moment on."""

    model: str
    number: int
    """Counts from 1 for each model, and is never used twice; 0 is the file."""
    kind: Kind
    """``entry``: this entry; ``withdrawn``: no offer; ``file``: whatever the file says, again."""
    entry: Mapping[str, Any] | None
    """The whole entry as plain data; None unless ``kind`` is ``entry`` (or this is the file's, number 0)."""
    effective_from: datetime | None
    """None: the file, which holds where no version does."""
    note: str
    created_by: str
    created_at: datetime | None
    cancelled_at: datetime | None = None
    cancelled_by: str | None = None

    @property
    def name(self) -> str:
        """What quotes remember as their ``price_version``."""
        return f"{self.model}@{self.number}"


def ruling(versions: Iterable[ModelVersion], now: datetime) -> dict[str, ModelVersion]:
    """Return, by model, the version that holds at ``now``: the latest to begin, and of two at once the later made."""
    found: dict[str, ModelVersion] = {}
    for version in sorted(_counting(versions), key=_order):
        if version.effective_from is not None and version.effective_from <= now:
            found[version.model] = version
    return found


def next_change(versions: Iterable[ModelVersion], now: datetime) -> datetime | None:
    """Return when the next version begins, if one does."""
    later = upcoming(versions, now)
    return later[0].effective_from if later else None


def upcoming(versions: Iterable[ModelVersion], now: datetime) -> list[ModelVersion]:
    """Return the versions that begin after ``now``, the next one first."""
    return [version for version in sorted(_counting(versions), key=_order) if _order(version)[0] > now]


def state_of(version: ModelVersion, versions: Iterable[ModelVersion], now: datetime) -> State:
    if version.cancelled_at is not None:
        return "cancelled"
    if version.effective_from is not None and version.effective_from > now:
        return "scheduled"
    ruler = ruling(versions, now).get(version.model)
    return "in_force" if (0 if ruler is None else ruler.number) == version.number else "past"


def in_force(files: Files, versions: Sequence[ModelVersion], now: datetime) -> Catalog:
    """Return the catalogue that holds at ``now``: the file's models, each replaced by the version that rules it.

    A version that no longer fits (its size table left the file, say) is not offered, and said in ``problems``:
    selling at another price would be worse.
    """
    offers, problems = files.offers(), {}
    retired: dict[str, Offer] = {}
    for model, ruler in ruling(versions, now).items():
        if ruler.kind == "file":
            continue  # what the file says holds: an offer, or no such model
        if ruler.kind == "withdrawn":
            offers.pop(model, None)
            last = _last_offer(files, versions, ruler)
            if last is not None:
                retired[model] = last
            continue
        try:
            offers[model] = Offer(entry_in(files, ruler).spec, ruler.name)
        except CatalogError as error:
            offers.pop(model, None)
            problems[model] = str(error)
    planned = _planned(files, versions, now, known={*offers, *retired, *problems})
    return assemble(files, offers, retired=retired, planned=planned, problems=problems)


def _planned(
    files: Files, versions: Iterable[ModelVersion], now: datetime, *, known: Collection[str]
) -> dict[str, Offer]:
    """Return the models that no version offers before later."""
    found: dict[str, Offer] = {}
    for version in sorted(_counting(versions), key=_order):
        if version.kind != "entry" or version.model in known or _order(version)[0] <= now or version.model in found:
            continue
        try:
            found[version.model] = Offer(entry_in(files, version).spec, version.name)
        except CatalogError:
            continue  # said when its time has come
    return found


def entry_in(files: Files, version: ModelVersion) -> Entry:
    """Return what a version of kind ``entry`` says. Raises: CatalogError when it does not fit the files any more."""
    return checked_entry(
        files, version.model, plain_document(version.entry or {}, version.name).below("models", version.model)
    )


def entry_at(files: Files, versions: Iterable[ModelVersion], model: str, now: datetime) -> Entry | None:
    """Return what is offered under this name at ``now``, or None. Raises: CatalogError for a version that is broken."""
    ruler = ruling(versions, now).get(model)
    if ruler is not None and ruler.kind != "file":
        return entry_in(files, ruler) if ruler.kind == "entry" else None
    return file_entry(files, model)


def file_entry(files: Files, model: str) -> Entry | None:
    """Return what the file says about a model, if it has it."""
    data = files.entry(model)
    return None if data is None else Entry(data, files.file.models[model])


def entries_at(files: Files, versions: Sequence[ModelVersion], now: datetime) -> dict[str, Entry]:
    """Return every entry that is offered at ``now``, in the order of the catalogue; broken ones are left out."""
    found = {}
    for model in in_force(files, versions, now).models:
        entry = entry_at(files, versions, model, now)
        if entry is not None:
            found[model] = entry
    return found


def _last_offer(files: Files, versions: Sequence[ModelVersion], withdrawn: ModelVersion) -> Offer | None:
    """Return the model as it was offered before it was withdrawn."""
    earlier = sorted((v for v in _counting(versions) if v.model == withdrawn.model), key=_order)
    for version in reversed([v for v in earlier if _order(v) < _order(withdrawn)]):
        if version.kind == "entry":
            try:
                return Offer(entry_in(files, version).spec, version.name)
            except CatalogError:
                continue
        if version.kind == "file":
            break
    return files.offers().get(withdrawn.model)


def _counting(versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    return [version for version in versions if version.cancelled_at is None]


def _order(version: ModelVersion) -> tuple[datetime, int]:
    if version.effective_from is None:
        raise ValueError("the file's version takes no part in this")
    return version.effective_from, version.number
