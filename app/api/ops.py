"""Health and readiness, for load balancers and operators."""

from __future__ import annotations

import asyncio
from typing import Literal

import structlog
from fastapi import APIRouter, Request
from pydantic import Field
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from app.api.deps import ServicesDep
from app.api.v1.answers import json_answer
from app.api.v1.wire import Wire
from app.migrate import current_revision
from app.wiring import Services

router = APIRouter(tags=["Operations"])
log = structlog.get_logger()

CHECK_S = 2.0


class Health(Wire):
    status: Literal["ok"] = "ok"


class Readiness(Wire):
    status: Literal["ready", "not_ready"]
    reason: str | None = None
    degraded: list[str] = Field(default_factory=list)


@router.head("/healthz", include_in_schema=False)
@router.get(
    "/healthz",
    summary="Is the process alive?",
    description="Touches nothing else.",
    response_model=Health,
    operation_id="healthz",
)
async def healthz() -> Response:
    return json_answer(Health())


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Can it serve?",
    description="The database must answer and be migrated. Without Redis the gateway works on, degraded.",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not now; `reason` says why."}},
    operation_id="readyz",
)
async def readyz(request: Request, services: ServicesDep) -> Response:
    if services.waiters.is_stopping:
        return json_answer(Readiness(status="not_ready", reason="stopping"), status=503)
    fault, has_redis = await asyncio.gather(
        _database_fault(services, request.app.state.head_revision), _has_redis(services)
    )
    if fault is not None:
        return json_answer(Readiness(status="not_ready", reason=fault), status=503)
    return json_answer(Readiness(status="ready", degraded=[] if has_redis else ["redis"]))


async def _database_fault(services: Services, wanted: str) -> str | None:
    try:
        async with asyncio.timeout(CHECK_S), services.engine.connect() as connection:
            found = await current_revision(connection)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        log.warning("readyz.database", error=type(error).__name__)
        return "database_unavailable"
    return None if found == wanted else "not_migrated"


async def _has_redis(services: Services) -> bool:
    try:
        async with asyncio.timeout(CHECK_S):
            await services.redis.ping()
    except (RedisError, OSError, TimeoutError):
        return False
    return True
