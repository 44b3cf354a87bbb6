"""Quotes: what a request would cost, judged by the code that judges the request."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.api.deps import AnyPrincipal, IntakeDep, ServicesDep
from app.api.openapi import errors, json_body
from app.api.v1 import schemas, wire
from app.api.v1.answers import json_answer
from app.catalog.pricing import Quote
from app.errors import (
    InputUrlRefused,
    InvalidApiKey,
    InvalidMedia,
    InvalidParameter,
    MissingParameter,
    ModelNotAllowed,
    ModelNotFound,
    PriceAboveMax,
    ResultExpired,
    TaskNotFound,
    UnsupportedParameter,
)

router = APIRouter(prefix="/v1", tags=["Models"])


class QuoteReply(wire.Wire):
    """What the request would hold, and at most cost."""

    credits: int
    unit: str
    unit_credits: int
    quantity: int
    price_version: str
    explain: str

    @classmethod
    def of(cls, quote: Quote) -> QuoteReply:
        return cls(
            credits=quote.credits,
            unit=quote.unit,
            unit_credits=quote.unit_credits,
            quantity=quote.quantity,
            price_version=quote.price_version,
            explain=quote.explain,
        )


@router.post(
    "/quote",
    summary="Price a request",
    description="The body of the request and the `endpoint` it is for. What the endpoint would refuse is refused here "
    "too; nothing is held, and nothing is made. A remix needs its source's id: in the endpoint, or as `id`.",
    response_model=QuoteReply,
    responses=errors(
        InvalidParameter, MissingParameter, UnsupportedParameter, InvalidMedia, InputUrlRefused, PriceAboveMax,
        InvalidApiKey, ModelNotAllowed, ModelNotFound, TaskNotFound, ResultExpired,
    ),
    openapi_extra=json_body("Quote", examples=schemas.QUOTE_EXAMPLES),
    operation_id="quote",
)  # fmt: skip
async def quote(principal: AnyPrincipal, intake: IntakeDep, services: ServicesDep) -> Response:
    endpoint = intake.fields.pop("endpoint", None)
    if endpoint is None:
        raise MissingParameter("endpoint")
    found = await services.quotes.quote(principal, str(endpoint).removeprefix("/v1/").strip("/"), intake)
    return json_answer(QuoteReply.of(found))
