"""Models: OpenAI's list, with what each can do, takes and costs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from app.api.deps import AnyPrincipal, ServicesDep
from app.api.openapi import errors
from app.api.v1 import wire
from app.api.v1.answers import json_answer
from app.catalog.model import Model
from app.errors import InvalidApiKey, ModelNotAllowed, ModelNotFound

router = APIRouter(prefix="/v1/models", tags=["Models"])


class ModelDetails(wire.Wire):
    title: str
    type: str
    operations: list[str]
    parameters: dict[str, Any]
    price: dict[str, Any]


class ModelObject(wire.Wire):
    """OpenAI's Model object, and under `mediagate` what it lacks."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    mediagate: ModelDetails

    @classmethod
    def of(cls, model: Model) -> ModelObject:
        details = ModelDetails(
            title=model.title,
            type=model.type,
            operations=sorted(operation.value for operation in model.operations),
            parameters=model.parameters_schema(),
            price=model.price_summary(),
        )
        return cls(id=model.id, created=model.created, owned_by=model.owned_by, mediagate=details)


class ModelList(wire.Wire):
    object: str = "list"
    data: list[ModelObject]


@router.get(
    "",
    summary="List models",
    description="The models that this API key may use, with parameters (JSON Schema) and prices.",
    response_model=ModelList,
    responses=errors(InvalidApiKey),
    operation_id="list_models",
)
async def list_models(principal: AnyPrincipal, services: ServicesDep) -> Response:
    models = [model for model in services.catalog.models.values() if principal.may_use(model.id)]
    return json_answer(ModelList(data=[ModelObject.of(model) for model in models]))


@router.get(
    "/{model_id}",
    summary="Read a model",
    response_model=ModelObject,
    responses=errors(InvalidApiKey, ModelNotAllowed, ModelNotFound),
    operation_id="get_model",
)
async def get_model(
    model_id: Annotated[str, Path(description="A name from the list.")], principal: AnyPrincipal, services: ServicesDep
) -> Response:
    model = services.catalog.get_model(model_id)
    if not principal.may_use(model.id):
        raise ModelNotAllowed(f"This API key may not use the model '{model.id}'.", param="model")
    return json_answer(ModelObject.of(model))
