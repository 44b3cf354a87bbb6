"""Reads the catalogue and refuses it at start-up when its parts do not fit, naming file and line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.catalog.checks import check_model
from app.catalog.document import CatalogError, Document, read_document
from app.catalog.model import Model
from app.catalog.options import GATEWAY_FIELDS
from app.catalog.parameters import Boolean, Integer
from app.catalog.spec import ModelsFile, ModelSpec, UpstreamsFile, UpstreamSpec
from app.catalog.wording import listed, shown
from app.errors import InvalidParameter, ModelNotFound
from app.requests import Operation
from app.upstreams.protocols import Capabilities

__all__ = ["Catalog", "CatalogError", "load_catalog"]

MODELS_FILE, UPSTREAMS_FILE = "models.yaml", "upstreams.yaml"
_MERGED = frozenset({"parameters", "inputs"})


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every public model and every upstream of the files, checked against each other and against the providers."""

    version: str
    """Of the price list."""
    default_image_model: str
    default_video_model: str
    models: dict[str, Model]
    """In the order of the file."""
    upstreams: dict[str, UpstreamSpec]
    field_types: dict[str, str]
    """Public field -> ``integer``, ``boolean``, ``text``, ``media`` or ``object``: how a form's text is to be read."""

    def get_model(self, name: str) -> Model:
        """Raises: ModelNotFound, listing the names that exist."""
        model = self.models.get(name)
        if model is None:
            raise ModelNotFound(shown(name)[1:-1], self.models)
        return model

    def pick(self, fields: Mapping[str, Any], operation: Operation) -> Model:
        """Return the model that the request names, or the default of this kind of request.

        Raises: InvalidParameter, ModelNotFound.
        """
        name = fields.get("model")
        if name is None:
            name = self.default_image_model if operation.kind == "image" else self.default_video_model
        if not isinstance(name, str):
            raise InvalidParameter(
                f"Invalid value for 'model': {shown(name)}. Allowed: {listed(self.models)}.", param="model"
            )
        return self.get_model(name)


def load_catalog(config_dir: Path, *, providers: Mapping[str, Capabilities]) -> Catalog:
    """Read ``models.yaml`` and ``upstreams.yaml``. Raises: CatalogError (``models.yaml:42: ...``)."""
    upstreams = _read_upstreams(read_document(config_dir / UPSTREAMS_FILE), providers)
    document = read_document(config_dir / MODELS_FILE)
    document = document.inherited("models", "families", key="family", merged=_MERGED)
    document.data.pop("families", None)
    try:
        file = ModelsFile.model_validate(document.data)
    except ValidationError as error:
        raise document.invalid(error) from None
    for name, table in file.size_tables.items():
        for place, complaint in table.complaints():
            raise document.error(("size_tables", name, "pixels", *place), complaint)
    for name, spec in file.models.items():
        check_model(document, name, spec, file.size_tables, upstreams, providers)
    _check_default(document, file, "default_image_model", "image")
    _check_default(document, file, "default_video_model", "video")
    holders = _holders(file)
    models = {
        name: Model(name, spec, file.size_tables[spec.sizes.table], file.version, holders)
        for name, spec in file.models.items()
    }
    return Catalog(
        file.version, file.default_image_model, file.default_video_model, models, upstreams, _field_types(file)
    )


def _read_upstreams(document: Document, providers: Mapping[str, Capabilities]) -> dict[str, UpstreamSpec]:
    try:
        file = UpstreamsFile.model_validate(document.data)
    except ValidationError as error:
        raise document.invalid(error) from None
    for name, upstream in file.upstreams.items():
        if upstream.provider not in providers:
            raise document.error(
                ("upstreams", name, "provider"),
                f"unknown provider '{upstream.provider}'; known: {listed(sorted(providers)) or 'none'}",
            )
    return {name: upstream.model_copy(update={"name": name}) for name, upstream in file.upstreams.items()}


def _check_default(document: Document, file: ModelsFile, key: str, kind: str) -> None:
    name = getattr(file, key)
    spec = file.models.get(name)
    if spec is None:
        raise document.error((key,), f"the default model '{name}' is not among the models")
    if spec.type != kind:
        raise document.error((key,), f"the default model '{name}' does not make a {kind}")


def _public_names(spec: ModelSpec) -> list[str]:
    names: list[str] = []
    for entries in (spec.parameters, spec.inputs):
        for name, entry in entries.items():
            names += (name, *entry.also)
    return names


def _holders(file: ModelsFile) -> dict[str, tuple[str, ...]]:
    holders: dict[str, tuple[str, ...]] = {name: () for name in file.refused_fields}
    for model, spec in file.models.items():
        for name in _public_names(spec):
            holders[name] = (*holders.get(name, ()), model)
    return holders


def _field_types(file: ModelsFile) -> dict[str, str]:
    types = {"prompt": "text", "model": "text"}
    types |= {name: _schema_type(field.schema) for name, field in GATEWAY_FIELDS.items()}
    for spec in file.models.values():
        for name, parameter in spec.parameters.items():
            word = {Integer: "integer", Boolean: "boolean"}.get(type(parameter), "text")
            types |= dict.fromkeys((name, *parameter.also), word)
        for name, entry in spec.inputs.items():
            types |= dict.fromkeys((name, *entry.also), "media")
    return types


def _schema_type(schema: Mapping[str, Any]) -> str:
    word = str(schema["type"])
    return "text" if word == "string" else word
