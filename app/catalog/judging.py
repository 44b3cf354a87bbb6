"""What a version of a model may not do to the rest: to routes, defaults, and tasks of before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.catalog.document import CatalogError
from app.catalog.entries import Entry
from app.catalog.load import Files
from app.catalog.routes import check_route, entry_of
from app.catalog.states import known_entry
from app.catalog.timeline import ModelVersion, entry_at, file_entry
from app.errors import InvalidParameter
from app.upstreams.protocols import Capabilities


def judge(
    files: Files,
    providers: Mapping[str, Capabilities],
    versions: Sequence[ModelVersion],
    version: ModelVersion,
    entry: Entry | None,
    routes: Sequence[Any],
) -> None:
    """Judge a version by those that are there. Raises: InvalidParameter."""
    model, at = version.model, version.effective_from
    if at is None:
        raise ValueError("a new version begins at some moment")
    if version.kind == "withdrawn" and offered(files, versions, model, at) is None:
        raise InvalidParameter(f"'{model}' is not offered then: there is nothing to withdraw.", param="withdraw")
    known = known_entry(files, [v for v in versions if v.model == model], model, at)
    if entry is not None and known is not None and entry.spec.type != known.spec.type:
        raise InvalidParameter(
            f"models.{model}.type: this model makes {known.spec.type}s, and its keys and tasks rely on that.",
            param="document",
        )
    if version.kind == "withdrawn" and model in files.defaults:
        raise InvalidParameter(
            f"'{model}' is a default model: name another default in models.yaml first.", param="withdraw"
        )
    spec = entry.spec if entry is not None else None
    if version.kind == "file" and (file := file_entry(files, model)) is not None:
        spec = file.spec
    for row in routes if spec is not None else ():
        route = entry_of(row)
        if spec is None or route.model != model:
            continue
        try:
            check_route(route, frozenset(spec.operations), row["provider"], providers)
        except InvalidParameter as error:
            raise InvalidParameter(
                f"models.{model}.operations: the route to {route.pool} does not fit: {error.message}",
                param="document",
            ) from None


def offered(files: Files, versions: Sequence[ModelVersion], model: str, at: datetime) -> Entry | None:
    """Return what is on offer then; None also where it does not fit the file."""
    try:
        return entry_at(files, versions, model, at)
    except CatalogError:
        return None
