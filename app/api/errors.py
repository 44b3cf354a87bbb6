"""Renders every error in the one envelope: ours, the router's, request validation, and what nobody foresaw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match

from app.catalog.wording import shown
from app.db import is_transient, may_have_committed
from app.errors import (
    NO_ROOM,
    DatabaseUnavailable,
    InternalError,
    InvalidParameter,
    MediagateError,
    MethodNotAllowed,
    OutcomeUnknown,
    Overloaded,
    QueueFull,
    RangeNotSatisfiable,
    RouteNotFound,
    SecretDamaged,
    WrongPepper,
    WrongSecretsKey,
)
from app.intake import Intake
from app.values import task_public_id

log = structlog.get_logger()

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
RETRY_AFTER_S = range(1, 61)  # the SDKs give up, or back off on their own, far above
OPERATORS_OWN = (SecretDamaged, WrongPepper, WrongSecretsKey)
"""How the gateway is set up is no fault of a customer's, and none of their business."""
INTERNAL_MESSAGE = "Something went wrong on our side. Tell your administrator the request id."


def install(app: FastAPI) -> None:
    """Let `render` answer for every error that we foresee; for the others the shell around all of it does."""

    async def handle(request: Request, error: Exception) -> Response:
        return render(public_error(error, request), request)

    for kind in (MediagateError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)


def public_error(error: BaseException, request: Request) -> MediagateError:
    """Return what the client is told about ``error``; an unforeseen one is logged here with its traceback."""
    if isinstance(error, OPERATORS_OWN) and not request.url.path.startswith("/admin/"):
        log.error(
            "request.failed", method=request.method, path=request.url.path, reason=error.reason, why=error.message
        )
        return InternalError(INTERNAL_MESSAGE)
    if isinstance(error, MediagateError):
        return error
    if isinstance(error.__cause__, MediagateError):  # FastAPI wraps what receive() raises
        return error.__cause__
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _router_error(error, request)
    if isinstance(error, (SQLAlchemyError, ConnectionError)) and is_transient(error):
        log.warning("request.database_unavailable", error=type(error).__name__)
        kind = OutcomeUnknown if may_have_committed(error) else DatabaseUnavailable
        return kind("The database is not reachable just now. Try again.", retry_after_s=2)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        log.error("request.disk_full", method=request.method, path=request.url.path, error=str(error))
        return Overloaded("The server's disk is full just now. Try again.", retry_after_s=10)
    log.error("request.failed", method=request.method, path=request.url.path, exc_info=error)
    return InternalError(INTERNAL_MESSAGE)


def render(error: MediagateError, request: Request) -> Response:
    """Return the envelope, with the headers that steer the SDKs' own retries."""
    request.scope.setdefault("state", {})["reason"] = error.reason  # for the metrics
    headers: dict[str, str] = {}
    error.task_id = error.task_id or _task_of(request)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(allowed_methods(request))
    if isinstance(error, RangeNotSatisfiable):
        headers["content-range"] = f"bytes */{error.size_bytes}"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(min(max(error.retry_after_s, RETRY_AFTER_S.start), RETRY_AFTER_S.stop - 1))
    if error.task_id is not None:
        headers["x-task-id"] = error.task_id
    retry = _should_retry(error, request)
    if retry is not None:
        headers["x-should-retry"] = "true" if retry else "false"
    return JSONResponse(envelope(error, request), status_code=error.status, headers=headers)


def envelope(error: MediagateError, request: Request) -> dict[str, Any]:
    return {"error": error.body(request_id_of(request))}


def request_id_of(request: Request) -> str | None:
    """Return the id that the middleware gave this request."""
    found: str | None = request.scope.get("state", {}).get("request_id")
    return found


def _task_of(request: Request) -> str | None:
    """Return the task that this request is about by now: one it named, made, or joined."""
    state = request.scope.get("state", {})
    intake: Intake | None = state.get("intake")
    found: str | None = state.get("task_id")
    return found or (task_public_id(intake.task_id) if intake is not None and intake.task_id is not None else None)


def note_task(request: Request, task_id: str) -> None:
    """Tie whatever fails from here on to the task that now exists: the SDK must not send the request again."""
    request.state.task_id = task_id


def allowed_methods(request: Request) -> list[str]:
    """Return every method that some route takes at this path; the router itself knows only those of the first.

    A path that a route names word for word is that route's alone: ``generations`` is no id.
    """
    routes = list(_leaves(request.app.router.routes))
    routes = [route for route in routes if getattr(route, "path", None) == request.url.path] or routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _leaves(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Yield the routes themselves: FastAPI keeps included routers whole."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from _leaves(included.routes)


def _should_retry(error: MediagateError, request: Request) -> bool | None:
    """Whether the SDK should send the request again by itself; None leaves it to the SDK.

    They retry every 5xx twice without an idempotency key: after a task was created that would be a second charge.
    """
    if error.task_id is not None or error.status in (502, 504):
        return False
    if (error.status == 500 or isinstance(error, OutcomeUnknown)) and request.method not in ("GET", "HEAD"):
        return False  # nobody knows how far it came
    return True if error.status == 503 or isinstance(error, QueueFull) else None  # shed before any work


def _invalid(error: RequestValidationError) -> InvalidParameter:
    """Name a query or path parameter, what it was, and what it may be, in the words of all our errors."""
    first = error.errors()[0]
    param, limits = str(first["loc"][-1]), first.get("ctx", {})
    match first["type"]:
        case "literal_error":
            allowed = limits["expected"].replace("'", "").replace(" or ", ", ")
        case "greater_than_equal":
            allowed = f"a number from {limits['ge']:g}"
        case "less_than_equal":
            allowed = f"a number up to {limits['le']:g}"
        case "string_too_long":
            allowed = f"at most {limits['max_length']} characters"
        case "string_pattern_mismatch":
            allowed = "visible ASCII characters"
        case "float_parsing" | "finite_number":
            allowed = "a number"
        case _:
            allowed = "a whole number"
    return InvalidParameter(f"Invalid value for '{param}': {shown(first['input'])}. Allowed: {allowed}.", param=param)


def _router_error(error: HTTPException, request: Request) -> MediagateError:
    if error.status_code == 404:
        return RouteNotFound(f"There is no {request.method} {request.url.path[:200]} here. See /docs.")
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.url.path[:200]} does not take {request.method}. See /docs.")
    if error.status_code < 500:
        return InvalidParameter(str(error.detail))
    log.error("request.failed", method=request.method, path=request.url.path, exc_info=error)
    return InternalError(INTERNAL_MESSAGE)
