"""Reads the catalogue and refuses it at start-up when its parts do not fit, naming file and line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.catalog.checks import check_model
from app.catalog.document import CatalogError, Document, read_document
from app.catalog.model import Model
from app.catalog.spec import ModelsFile, ModelSpec, UpstreamsFile, UpstreamSpec
from app.catalog.wording import listed, shown
from app.errors import InvalidParameter, ModelNotFound
from app.requests import Operation
from app.upstreams.protocols import Capabilities

__all__ = ["Catalog", "CatalogError", "Files", "Offer", "assemble", "load_catalog", "read_files", "whole"]

MODELS_FILE, UPSTREAMS_FILE = "models.yaml", "upstreams.yaml"
_MERGED = frozenset({"parameters", "inputs"})


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every public model that is offered, checked against the size tables, the upstreams and the providers."""

    version: str
    """Of the file's price list. A model's own may be that of an administrator's version."""
    default_image_model: str
    default_video_model: str
    models: dict[str, Model]
    """In the order of the file."""
    upstreams: dict[str, UpstreamSpec]
    retired: dict[str, Model] = field(default_factory=dict)
    """Models that were withdrawn, as they were offered last: for what goes on from an old task."""
    planned: dict[str, Model] = field(default_factory=dict)
    """Models that are offered only later: for the routes that they will need."""
    problems: dict[str, str] = field(default_factory=dict)
    """Model -> why the version that should hold cannot be offered. Never another price instead: no offer."""

    def get_model(self, name: str) -> Model:
        """Raises: ModelNotFound, listing the names that exist."""
        model = self.models.get(name)
        if model is None:
            raise ModelNotFound(shown(name)[1:-1], self.models)
        return model

    def find_known(self, name: str) -> Model | None:
        """Return a model that is offered, was, or will be."""
        return self.models.get(name) or self.retired.get(name) or self.planned.get(name)

    def pick(self, fields: Mapping[str, Any], operation: Operation) -> Model:
        """Return the model that the request names, or the default of this kind of request.

        What continues an old task may name a model that was withdrawn. Raises: InvalidParameter, ModelNotFound.
        """
        name = fields.get("model")
        if name is None:
            name = self.default_image_model if operation.kind == "image" else self.default_video_model
        if not isinstance(name, str):
            raise InvalidParameter(
                f"Invalid value for 'model': {shown(name)}. Allowed: {listed(self.models)}.", param="model"
            )
        if operation is Operation.VIDEO_REMIX and name in self.retired:
            return self.retired[name]
        return self.get_model(name)


@dataclass(frozen=True, slots=True)
class Files:
    """The two files as they were read: what holds where no administrator's version says otherwise."""

    file: ModelsFile
    document: Document
    """``models.yaml``, with every model's entry whole."""
    families: dict[str, Any]
    upstreams: dict[str, UpstreamSpec]
    providers: Mapping[str, Capabilities]

    @property
    def version(self) -> str:
        return self.file.version

    @property
    def defaults(self) -> tuple[str, str]:
        return self.file.default_image_model, self.file.default_video_model

    def entry(self, model: str) -> dict[str, Any] | None:
        """Return a model's whole entry as plain data, without its routes; None for one that the file does not have."""
        found = self.document.data["models"].get(model)
        return None if found is None else {name: value for name, value in found.items() if name != "routes"}

    def catalog(self) -> Catalog:
        """Return what the files say, as if there were no versions."""
        return assemble(self, self.offers())

    def offers(self) -> dict[str, Offer]:
        return {name: Offer(spec, self.file.version) for name, spec in self.file.models.items()}


@dataclass(frozen=True, slots=True)
class Offer:
    """What one model is, and the name of the price list or version that says so."""

    spec: ModelSpec
    version: str


def load_catalog(config_dir: Path, *, providers: Mapping[str, Capabilities]) -> Catalog:
    """Read ``models.yaml`` and ``upstreams.yaml``. Raises: CatalogError (``models.yaml:42: ...``)."""
    return read_files(config_dir, providers=providers).catalog()


def read_files(config_dir: Path, *, providers: Mapping[str, Capabilities]) -> Files:
    """Read and check ``models.yaml`` and ``upstreams.yaml``. Raises: CatalogError (``models.yaml:42: ...``)."""
    upstreams = _read_upstreams(read_document(config_dir / UPSTREAMS_FILE), providers)
    document = whole(read_document(config_dir / MODELS_FILE))
    families = document.data.pop("families", None) or {}
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
    return Files(file, document, families, upstreams, providers)


def whole(document: Document) -> Document:
    """Return the document with every model's entry completed from its families. Raises: CatalogError."""
    return document.inherited("models", "families", key="family", merged=_MERGED)


def assemble(
    files: Files,
    offers: Mapping[str, Offer],
    *,
    retired: Mapping[str, Offer] | None = None,
    planned: Mapping[str, Offer] | None = None,
    problems: Mapping[str, str] | None = None,
) -> Catalog:
    """Return the catalogue of these offers. Pure: everything in them was checked."""
    specs = {name: offer.spec for name, offer in offers.items()}
    holders = _holders(files.file.refused_fields, specs)

    def model(name: str, offer: Offer, holders: Mapping[str, tuple[str, ...]]) -> Model:
        return Model(name, offer.spec, files.file.size_tables[offer.spec.sizes.table], offer.version, holders)

    def apart(name: str, offer: Offer) -> Model:
        return model(name, offer, _holders(files.file.refused_fields, {**specs, name: offer.spec}))

    return Catalog(
        files.file.version,
        files.file.default_image_model,
        files.file.default_video_model,
        {name: model(name, offer, holders) for name, offer in offers.items()},
        files.upstreams,
        retired={name: apart(name, offer) for name, offer in (retired or {}).items()},
        planned={name: apart(name, offer) for name, offer in (planned or {}).items()},
        problems=dict(problems or {}),
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


def _holders(refused: Iterable[str], specs: Mapping[str, ModelSpec]) -> dict[str, tuple[str, ...]]:
    holders: dict[str, tuple[str, ...]] = {name: () for name in refused}
    for model, spec in specs.items():
        for name in _public_names(spec):
            holders[name] = (*holders.get(name, ()), model)
    return holders
