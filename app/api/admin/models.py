"""Models and prices, for administrators: versions with the moment they begin, prices tried, the whole as one file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.api.admin.bodies import Body, documented, reads
from app.api.admin.deps import AdminActor
from app.api.admin.model_wire import (
    ManagedModel,
    ManagedModelDetails,
    ManagedModelList,
    ModelImport,
    ModelVersionList,
    ModelVersionObject,
    PriceSimulation,
)
from app.api.openapi import errors
from app.api.v1.answers import json_answer
from app.api.v1.tasks import NAME
from app.catalog.prices import PriceEdit
from app.catalog.versions import ModelVersions
from app.errors import (
    DatabaseUnavailable,
    InvalidParameter,
    ModelNotFound,
    ModelVersionFixed,
    ModelVersionNotFound,
    ScopeMissing,
    UnsupportedParameter,
)
from app.requests import Operation

router = APIRouter(prefix="/admin/v1/models", tags=["Administration"])

READ = errors(ScopeMissing, DatabaseUnavailable)
ONE = errors(InvalidParameter, ScopeMissing, ModelNotFound, DatabaseUnavailable)
CHANGE = errors(InvalidParameter, ScopeMissing, ModelNotFound, DatabaseUnavailable)
CANCEL = errors(InvalidParameter, ModelVersionFixed, ScopeMissing, ModelVersionNotFound, DatabaseUnavailable)
SIMULATE = errors(
    InvalidParameter, UnsupportedParameter, ScopeMissing, ModelNotFound, ModelVersionNotFound, DatabaseUnavailable
)
IMPORT = errors(InvalidParameter, ScopeMissing, DatabaseUnavailable)
ModelName = Annotated[str, Path(max_length=100, pattern=NAME)]
MOMENT_NOTE = "Unix seconds, or ISO 8601 with an offset. Absent: now."
YAML_TYPE = "application/yaml"


async def get_versions(request: Request) -> ModelVersions:
    services: Any = request.app.state.services
    versions: ModelVersions = services.model_versions
    return versions


VersionsDep = Annotated[ModelVersions, Depends(get_versions)]


class ModelVersionCreate(Body):
    """One of `document`, `price`, `withdraw` and `use_file`."""

    document: dict[str, Any] | str | None = Field(None, description="The whole entry, without routes: JSON, or YAML.")
    price: dict[str, int] | None = Field(None, description="Numbers of the price by their paths; the rest stays.")
    withdraw: bool = Field(False, description="Offer the model no longer. Old tasks go on.")
    use_file: bool = Field(False, description="Whatever models.yaml says holds again.")
    effective_from: int | str | None = Field(None, description=MOMENT_NOTE)
    note: str = Field(description="Why. Everybody who reads the history sees it.")


class PriceSimulate(Body):
    model: str
    parameters: dict[str, Any] = Field(default_factory=dict, description="As in a request, without files.")
    operation: Operation | None = Field(None, description="Absent: the generation.")
    input_seconds: float | None = Field(None, description="Of an edit's source, or of the reference videos.")
    version: int | None = Field(None, description="Price it with this version; 0: the file.")
    price: dict[str, Any] | None = Field(None, description="Price it with this price instead: the whole rule.")
    document: dict[str, Any] | str | None = Field(None, description="Price it with this entry instead.")
    with_examples: bool = Field(False, description="Also every priced combination, beside what is in force.")


class ModelsImport(Body):
    yaml: str = Field(description="A file of models, such as the export. Its routes and size tables are not taken.")
    effective_from: int | str | None = Field(None, description=MOMENT_NOTE)
    withdraw_missing: bool = Field(False, description="Withdraw what is offered here and is not in the file.")
    note: str = Field("", description="Why. Needed, unless this is a dry run.")


@router.get(
    "",
    summary="List models with their versions and prices",
    description="Every model that the file or a version names, also those that were withdrawn.",
    response_model=ManagedModelList,
    responses=READ,
    operation_id="list_managed_models",
)
async def list_models(actor: AdminActor, versions: VersionsDep) -> Response:
    return json_answer(ManagedModelList(data=[ManagedModel.of(state) for state in await versions.list()]))


@router.get(
    "/export",
    summary="Export the models in force",
    description="As one file of models, with the routes in use.",
    response_class=Response,
    responses={
        200: {"description": "YAML.", "content": {YAML_TYPE: {"schema": {"type": "object"}}}},
        **READ,
    },
    operation_id="export_models",
)
async def export_models(actor: AdminActor, versions: VersionsDep) -> Response:
    headers = {"content-disposition": 'attachment; filename="models.yaml"'}
    return Response(await versions.export(), media_type=YAML_TYPE, headers=headers)


@router.post(
    "/import",
    summary="Import a file of models",
    description="A version for every model that differs: all of them, or none. `dry_run` only tells what differs.",
    response_model=ModelImport,
    responses=IMPORT,
    operation_id="import_models",
    openapi_extra=documented(ModelsImport),
)
async def import_models(
    actor: AdminActor,
    versions: VersionsDep,
    body: Annotated[ModelsImport, Depends(reads(ModelsImport))],
    dry_run: Annotated[bool, Query(description="Change nothing.")] = False,
) -> Response:
    at = _moment(body.effective_from)
    if dry_run:
        found = await versions.preview(body.yaml, effective_from=at, withdraw_missing=body.withdraw_missing)
    else:
        found = await versions.apply(
            body.yaml, note=body.note, actor=actor, effective_from=at, withdraw_missing=body.withdraw_missing
        )
    return json_answer(ModelImport.of(found, dry_run=dry_run))


@router.post(
    "/simulate",
    summary="Price a request without making it",
    description="With the price in force, a version's, another price, or a whole draft.",
    response_model=PriceSimulation,
    responses=SIMULATE,
    operation_id="simulate_price",
    openapi_extra=documented(PriceSimulate),
)
async def simulate_price(
    actor: AdminActor, versions: VersionsDep, body: Annotated[PriceSimulate, Depends(reads(PriceSimulate))]
) -> Response:
    meant: dict[str, Any] = {"number": body.version, "price": body.price, "document": body.document}
    simulation = await versions.simulate(
        body.model, body.parameters, operation=body.operation, input_seconds=body.input_seconds, **meant
    )
    examples = await versions.examples(body.model, **meant) if body.with_examples else ()
    return json_answer(PriceSimulation.of(simulation, examples))


@router.get(
    "/{model}",
    summary="Read a model with its whole entry",
    response_model=ManagedModelDetails,
    responses=ONE,
    operation_id="get_managed_model",
)
async def get_model(actor: AdminActor, versions: VersionsDep, model: ModelName) -> Response:
    return json_answer(ManagedModelDetails.of(await versions.get(model)))


@router.get(
    "/{model}/versions",
    summary="List a model's versions",
    description="Newest first; number 0 is the file.",
    response_model=ModelVersionList,
    responses=ONE,
    operation_id="list_model_versions",
)
async def list_versions(actor: AdminActor, versions: VersionsDep, model: ModelName) -> Response:
    return json_answer(ModelVersionList(data=[ModelVersionObject.of(v) for v in await versions.versions(model)]))


@router.post(
    "/{model}/versions",
    summary="Change a model or its price",
    description="Now, or from a moment on. Tasks that were accepted keep their price.",
    status_code=201,
    response_model=ModelVersionObject,
    responses=CHANGE,
    operation_id="create_model_version",
    openapi_extra=documented(ModelVersionCreate),
)
async def create_version(
    actor: AdminActor,
    versions: VersionsDep,
    model: ModelName,
    body: Annotated[ModelVersionCreate, Depends(reads(ModelVersionCreate, creates=True))],
) -> Response:
    made = await versions.add(
        model,
        document=body.document,
        price=None if body.price is None else PriceEdit(body.price),
        withdraw=body.withdraw,
        use_file=body.use_file,
        effective_from=_moment(body.effective_from),
        note=body.note,
        actor=actor,
    )
    return json_answer(ModelVersionObject.of(made), status=201)


@router.delete(
    "/{model}/versions/{number}",
    summary="Cancel a version that has not begun",
    response_model=ModelVersionObject,
    responses=CANCEL,
    operation_id="cancel_model_version",
)
async def cancel_version(
    actor: AdminActor, versions: VersionsDep, model: ModelName, number: Annotated[int, Path(ge=0, le=2**31 - 1)]
) -> Response:
    return json_answer(ModelVersionObject.of(await versions.cancel(model, number, actor=actor)))


def _moment(given: int | str | None) -> datetime | None:
    """Raises: InvalidParameter."""
    if given is None:
        return None
    try:
        return datetime.fromisoformat(given) if isinstance(given, str) else datetime.fromtimestamp(given, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidParameter(
            "'effective_from' must be Unix seconds, or a time such as 2026-12-01T00:00:00+00:00.",
            param="effective_from",
        ) from None
