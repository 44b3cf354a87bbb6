"""The OpenAPI document: what routes have in common, and the examples that only the catalogue knows."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.examples import error_example
from app.api.samples import ANSWERS, ORDERS
from app.api.v1.wire import ErrorEnvelope
from app.catalog.load import Catalog
from app.errors import (
    BY_REASON,
    CsrfFailed,
    DatabaseUnavailable,
    InternalError,
    InvalidApiKey,
    IpNotAllowed,
    MediagateError,
    MissingApiKey,
    SessionEnded,
    TooManyRequests,
)

Json = dict[str, Any]

DESCRIPTION = """\
Image and video generation with prepaid credits, compatible with the OpenAI SDKs: point `base_url` at `/v1`.

Every error has the same envelope; `reason` is the stable machine word. A failed task never costs a credit.
"""

TAGS = [
    {"name": "Images", "description": "Make and edit images, at once, streamed or in the background."},
    {"name": "Videos", "description": "Videos are tasks: submit, then poll. OpenAI's Videos API works too."},
    {"name": "Tasks", "description": "Everything that was asked for, whichever route created it."},
    {"name": "Files", "description": "The bytes of results."},
    {"name": "Models", "description": "What can be used, with parameters and prices."},
    {"name": "Account", "description": "Credits, the ledger, and what was used."},
    {"name": "Webhooks", "description": "Be told when a task ends: endpoints, their secrets, and what was sent."},
    {"name": "Administration", "description": "For keys with the scope `admin:*`."},
    {"name": "Operations", "description": "For load balancers and operators."},
]

BINARY: Json = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
EVENTS: Json = {  # one server-sent event
    "text/event-stream": {
        "schema": {
            "type": "object",
            "properties": {
                "event": {"type": "string"},
                "data": {"type": "string", "contentMediaType": "application/json"},
            },
            "required": ["event", "data"],
        }
    }
}


EVERYWHERE: tuple[type[MediagateError], ...] = (
    MissingApiKey,
    InvalidApiKey,
    SessionEnded,
    CsrfFailed,
    IpNotAllowed,
    TooManyRequests,
    InternalError,
    DatabaseUnavailable,
)


def header(description: str, kind: str = "string") -> Json:
    return {"description": description, "schema": {"type": kind}}


FILE_HEADERS: Json = {
    "ETag": header("Strong: the SHA-256 of the file."),
    "Accept-Ranges": header("`bytes`"),
    "Content-Length": header("Exact.", "integer"),
    "x-task-id": header("The task."),
}
TASK_HEADERS: Json = {"x-task-id": header("The task.")}
CHARGED_HEADERS: Json = TASK_HEADERS | {
    "x-credits-charged": header("What this task cost.", "integer"),
    "x-credits-remaining": header("What the account can spend now.", "integer"),
}
REPLAYED: Json = {
    "idempotent-replayed": header("`true`: the request was sent before, and this is about the task it made then.")
}
POLL_HEADERS: Json = TASK_HEADERS | {
    "openai-poll-after-ms": header("While it is not done: when to look again.", "integer")
}


def errors(*kinds: type[MediagateError]) -> dict[int | str, Json]:
    """Document the statuses of these errors, with their reasons, and of those that belong to every route with a key."""
    found: dict[int, dict[str, Json]] = {}
    for kind in (*kinds, *EVERYWHERE):
        found.setdefault(kind.status, {})[kind.reason] = {"value": {}}  # filled in by `document`
    return {
        status: {
            "model": ErrorEnvelope,
            "description": ", ".join(f"`{reason}`" for reason in examples),
            "content": {"application/json": {"examples": examples}},
        }
        for status, examples in sorted(found.items())
    }


REPEATABLE: Json = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Your own word for this request. Sent again with the same key, it means the same task: no "
            "second charge, for at least 48 hours. With another request the key is a 400 `idempotency_key_reused`. "
            "The field `idempotency_key` does the same.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
        }
    ]
}
"""Joined to the ``openapi_extra`` of every route that makes a task."""


def json_body(schema: str, *, examples: Json | None = None) -> Json:
    """Document a JSON body that the route reads by hand. ``schema`` is a name in `app.api.v1.schemas`."""
    return {"requestBody": {"required": True, "content": {"application/json": _content(schema, examples)}}}


def form_or_json_body(form: str, schema: str, *, examples: Json | None = None) -> Json:
    """Document a body that comes as multipart/form-data or as JSON."""
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": _content(form, None), "application/json": _content(schema, examples)},
        }
    }


def _content(schema: str, examples: Json | None) -> Json:
    content: Json = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return content


def install(app: FastAPI) -> None:
    """Build the document when it is asked for, and anew when other models are in force."""
    built_of: Catalog | None = None

    def build() -> Json:
        nonlocal built_of
        services = app.state.services
        try:
            catalog: Catalog = services.catalog
        except DatabaseUnavailable:  # the document needs no database
            catalog = services.catalogs.shown()
        if app.openapi_schema is None or catalog is not built_of:
            app.openapi_schema, built_of = document(app, catalog), catalog
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def document(app: FastAPI, catalog: Catalog) -> Json:
    """Return the whole document. Bodies read by hand bring their schemas; model names come from the catalogue."""
    from app.api.v1 import schemas  # imported late: it imports nothing of ours, but its text is long

    found = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = found.setdefault("components", {}).setdefault("schemas", {})
    components |= schemas.bodies(
        image_models=[model.id for model in catalog.models.values() if model.type == "image"],
        video_models=[model.id for model in catalog.models.values() if model.type == "video"],
        default_image_model=catalog.default_image_model,
        default_video_model=catalog.default_video_model,
    )
    for name, answer in ANSWERS.items():
        if name in components:
            components[name]["examples"] = [answer]
    for path in found["paths"].values():
        for operation in path.values():
            # Query and path faults are 400 here, never FastAPI's 422.
            operation.get("responses", {}).pop("422", None)
            _fill_in(operation)
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    return found


def _fill_in(operation: Json) -> None:
    """Add samples that hold nulls: FastAPI's own builder drops those from whatever it is given."""
    for answer in operation["responses"].values():
        for reason, example in answer.get("content", {}).get("application/json", {}).get("examples", {}).items():
            if reason in BY_REASON:
                example["value"] = error_example(BY_REASON[reason])
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None and operation["operationId"] in ORDERS:
        body["examples"] = {"usual": {"value": ORDERS[operation["operationId"]]}}
