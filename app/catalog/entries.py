"""One model's whole entry, as an administrator hands it over: read by the very checks that the file has to pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from app.catalog.checks import check_entry
from app.catalog.document import CatalogError, Document, parse_document, plain_document
from app.catalog.load import Files, whole
from app.catalog.rows import NAME
from app.catalog.spec import ModelSpec
from app.catalog.wording import is_storable, printable, shown
from app.errors import InvalidParameter

MAX_ENTRY_CHARS = 100_000
MAX_MESSAGE_CHARS = 4000
DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Entry:
    """A checked entry: as plain data, complete, without routes; and what it means."""

    data: dict[str, Any]
    spec: ModelSpec


def read_entry(files: Files, model: str, given: Mapping[str, Any] | str) -> Entry:
    """Read an entry: plain data, or YAML whose top is the entry itself. ``family`` may name one of the file's.

    Raises: InvalidParameter, whose message names the line (of YAML) or the path, and what is wrong there.
    """
    if isinstance(given, str) and len(given) > MAX_ENTRY_CHARS:  # reading it would take long
        raise InvalidParameter(f"More than {MAX_ENTRY_CHARS} characters.", param=DOCUMENT)
    try:
        document = parse_document(given, DOCUMENT) if isinstance(given, str) else plain_document(given, DOCUMENT)
        return entry_of(files, model, document)
    except CatalogError as error:
        raise refused(error) from None


def entry_of(files: Files, model: str, document: Document) -> Entry:
    """Return the checked entry that a document is. Raises: CatalogError."""
    if not NAME.fullmatch(model):
        raise CatalogError(f"{shown(model)} is no name for a model: 1 to 100 of A-Z a-z 0-9 . _ - are allowed")
    document = document.below("models", model)
    if isinstance(document.data["models"][model], dict) and "routes" in document.data["models"][model]:
        raise document.error(("models", model, "routes"), "routes are kept apart from versions: leave them out")
    document.data["families"] = files.families
    return checked_entry(files, model, whole(document))


def checked_entry(files: Files, model: str, document: Document) -> Entry:
    """Return the entry ``models.<model>`` of a document whose entries are whole. Raises: CatalogError."""
    place = ("models", model)
    data = {name: value for name, value in document.data["models"][model].items() if name != "routes"}
    try:
        spec = ModelSpec.model_validate(data)
    except ValidationError as error:
        raise document.below_errors(place, error) from None
    check_entry(document, model, spec, files.file.size_tables)
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    except ValueError:  # no number at all
        text = "\0"
    if not is_storable(text) or "\\u0000" in text or len(text) > MAX_ENTRY_CHARS:
        raise document.error(place, f"more than {MAX_ENTRY_CHARS} characters, or one that no database can hold")
    return Entry(data, spec)


def refused(error: CatalogError, param: str = DOCUMENT) -> InvalidParameter:
    return InvalidParameter(printable(str(error))[:MAX_MESSAGE_CHARS], param=param)
