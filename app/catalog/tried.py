"""The model that a question is about: as it is in force, a version of it, with another price, or as a draft says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.catalog.document import CatalogError
from app.catalog.entries import Entry, read_entry
from app.catalog.judging import offered
from app.catalog.load import Catalog, Files, Offer, assemble
from app.catalog.model import Model
from app.catalog.prices import PriceEdit, edited
from app.catalog.states import known_entry
from app.catalog.timeline import ModelVersion, entries_at, entry_in, file_entry
from app.catalog.wording import shown
from app.errors import InvalidParameter, ModelNotFound, ModelVersionNotFound

Price = Mapping[str, Any] | PriceEdit


def tried(
    files: Files,
    versions: Sequence[ModelVersion],
    current: Catalog,
    now: datetime,
    model: str,
    *,
    draft: Entry | None = None,
    number: int | None = None,
    price: Price | None = None,
) -> Model:
    """Return the model with the first of these that is given, then with this ``price``; with none: as in force.

    Raises: ModelNotFound, ModelVersionNotFound, InvalidParameter.
    """
    name = "draft"
    if draft is not None:
        entry = draft
    elif number is not None:
        entry, name = _of_version(files, versions, model, number)
    else:
        found = known_entry(files, versions, model, now)
        if found is None:
            raise ModelNotFound(shown(model)[1:-1], current.models)
        entry = found
        if price is None and (known := current.find_known(model)) is not None:
            name = known.version
    if price is not None:
        name = "draft"
        data = (
            edited(entry.data, entry.spec.price, price)
            if isinstance(price, PriceEdit)
            else {**entry.data, "price": dict(price)}
        )
        entry = read_entry(files, model, data)
    offers = {other.id: Offer(other.spec, other.version) for other in current.models.values()}
    return assemble(files, offers | {model: Offer(entry.spec, name)}).models[model]


def repriced(files: Files, versions: Sequence[ModelVersion], model: str, price: PriceEdit, at: datetime) -> Entry:
    """Return what will hold at ``at``, with other numbers. Raises: ModelNotFound, InvalidParameter."""
    entry = offered(files, versions, model, at)
    if entry is None:
        raise ModelNotFound(shown(model)[1:-1], entries_at(files, versions, at))
    return read_entry(files, model, edited(entry.data, entry.spec.price, price))


def _of_version(files: Files, versions: Sequence[ModelVersion], model: str, number: int) -> tuple[Entry, str]:
    """Raises: ModelVersionNotFound, InvalidParameter."""
    version = next((v for v in versions if (v.model, v.number) == (model, number)), None)
    if version is None and number != 0:
        raise ModelVersionNotFound(model, number)
    if version is not None and version.kind == "withdrawn":
        raise InvalidParameter(f"Version {number} of '{model}' withdraws it: there is no price.", param="version")
    try:
        entry = entry_in(files, version) if version and version.entry else file_entry(files, model)
    except CatalogError as error:
        raise InvalidParameter(str(error), param="version") from None
    if entry is None:
        raise ModelVersionNotFound(model, number)
    return entry, version.name if version and version.entry else files.version
