"""The catalogue as one YAML file, out and in, and what differs between two states of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import yaml

from app.catalog.document import CatalogError, parse_document, plain_scalars
from app.catalog.entries import Entry, checked_entry, refused
from app.catalog.load import Files, whole
from app.catalog.prices import PriceDifference, price_differences
from app.catalog.timeline import ModelVersion
from app.catalog.wording import listed
from app.errors import InvalidParameter
from app.upstreams.registry import RouteEntry

IMPORT = "import.yaml"
TOP = ("version", "default_image_model", "default_video_model", "refused_fields", "size_tables", "families", "models")
MAX_COMPLAINTS = 20
MAX_IMPORT_CHARS = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What differs in one model."""

    model: str
    change: Literal["added", "changed", "withdrawn"]
    fields: tuple[str, ...]
    """The parts of the entry that differ."""
    before: Mapping[str, Any]
    """Those parts, as they were; of a model that is added: nothing."""
    after: Mapping[str, Any]
    prices: tuple[PriceDifference, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file of models says, read and checked."""

    entries: Mapping[str, Entry]
    ignored: tuple[str, ...]
    """Sentences: what the file says beside, and who decides that."""


@dataclass(frozen=True, slots=True)
class Import:
    """What a file of models would change, or did."""

    effective_from: datetime
    changes: tuple[ModelChange, ...]
    unchanged: tuple[str, ...]
    missing: tuple[str, ...]
    """Offered here, and not in the file: untouched, unless it was said that they are to be withdrawn."""
    ignored: tuple[str, ...]
    """Sentences: what the file says beside, and who decides that."""
    versions: tuple[ModelVersion, ...] = ()
    """Those that were made; none in a preview."""


def compare(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> list[ModelChange]:
    """Return what differs, model by model; those that are in ``before`` alone count as withdrawn."""
    found = []
    for model in dict.fromkeys([*after, *before]):
        change = difference(model, before.get(model), after.get(model))
        if change is not None:
            found.append(change)
    return found


def difference(model: str, before: Entry | None, after: Entry | None) -> ModelChange | None:
    """Return what differs in one model, or None."""
    old, new = {} if before is None else before.data, {} if after is None else after.data
    names = tuple(name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name))
    if before is after or (before is not None and after is not None and not names):
        return None
    return ModelChange(
        model,
        "added" if before is None else "withdrawn" if after is None else "changed",
        names,
        {name: old[name] for name in names if name in old},
        {name: new[name] for name in names if name in new},
        price_differences(None if before is None else before.spec, None if after is None else after.spec),
    )


def exported(files: Files, entries: Mapping[str, Entry], routes: Iterable[RouteEntry], *, version: str) -> str:
    """Return a file of models that says what ``entries`` say; the routes are those in use, the rest is the file's."""
    data = {name: deepcopy(files.document.data[name]) for name in TOP if name in files.document.data}
    by_model: dict[str, list[dict[str, Any]]] = {}
    for route in routes:
        by_model.setdefault(route.model, []).append(_route(route))
    data |= {
        "version": version,
        "models": {
            model: deepcopy(entry.data) | {"routes": by_model.get(model) or _first_routes(files, model)}
            for model, entry in entries.items()
        },
    }
    return dump(data)


def dump(data: Any) -> str:
    """Return YAML that our reader, and anybody else's, reads as the same data."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return text


def read_import(files: Files, text: str) -> Imported:
    """Read a file of models. Its families are its own, or this gateway's; its routes and tables are not for it to say.

    Raises: InvalidParameter, with every complaint about every model, each with its line.
    """
    if len(text) > MAX_IMPORT_CHARS:
        raise InvalidParameter(f"The file is longer than {MAX_IMPORT_CHARS} characters.", param="yaml")
    entries: dict[str, Entry] = {}
    try:
        document = parse_document(text, IMPORT)
        for name in document.data:
            if name not in TOP:
                raise document.error((name,), f"unknown key '{name}'; known: {listed(TOP)}")
        models = document.data.get("models")
        if not isinstance(models, dict) or not models:
            raise document.error(("models",), "models: missing")
        own = document.data.get("families")
        document.data["families"] = {**files.families, **(own if isinstance(own, dict) else {})}
        ignored = _ignored(files, document.data)
        document = whole(document)
    except CatalogError as error:
        raise refused(error, "yaml") from None
    complaints = []
    for model, entry in document.data["models"].items():
        try:
            if not isinstance(entry, dict):
                raise document.error(("models", model), f"models.{model}: expected a mapping")
            entries[model] = checked_entry(files, model, document)
        except CatalogError as error:
            complaints.append(str(error))
    if complaints:
        raise refused(CatalogError("\n".join(complaints[:MAX_COMPLAINTS])), "yaml")
    return Imported(entries, ignored)


def _ignored(files: Files, data: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for name in ("default_image_model", "default_video_model", "refused_fields"):
        if name in data and data[name] != files.document.data.get(name):
            found.append(f"'{name}' differs and is not taken over: it is set in the gateway's own models.yaml.")
    tables = data.get("size_tables")
    for name, table in tables.items() if isinstance(tables, dict) else ():
        if table != files.document.data["size_tables"].get(name):
            found.append(f"The size table '{name}' differs and is not taken over: it belongs to models.yaml.")
    if any(isinstance(entry, dict) and entry.get("routes") for entry in data["models"].values()):
        found.append("Routes are not taken over: they are changed one by one.")
    return tuple(found)


def _route(route: RouteEntry) -> dict[str, Any]:
    told: dict[str, Any] = {"upstream": route.upstream, "model": route.upstream_model, "priority": route.priority}
    if route.operations is not None:
        told["operations"] = sorted(operation.value for operation in route.operations)
    if route.options:
        told["options"] = dict(route.options)
    if route.weight != 1:
        told["weight"] = route.weight
    if route.needs_permission:
        told["needs_permission"] = True
    return told


def _first_routes(files: Files, model: str) -> list[Any]:
    entry = files.document.data["models"].get(model) or {}
    return deepcopy(entry.get("routes") or [])


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would not read as the same text, and names no part by an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.yaml_implicit_resolvers = {
    first: list(words) for first, words in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in plain_scalars():
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)
