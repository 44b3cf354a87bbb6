"""The OpenAPI document: what routes have in common, and the examples that only the catalogue knows."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.v1.wire import ErrorEnvelope
from app.catalog.load import Catalog
from app.errors import (
    DatabaseUnavailable,
    InternalError,
    InvalidApiKey,
    IpNotAllowed,
    MediagateError,
    MissingApiKey,
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
    {"name": "Administration", "description": "For keys with the scope `admin:*`."},
    {"name": "Operations", "description": "For load balancers and operators."},
]

BINARY: Json = {"*/*": {"schema": {"type": "string", "format": "binary"}}}


EVERYWHERE: tuple[type[MediagateError], ...] = (
    MissingApiKey,
    InvalidApiKey,
    IpNotAllowed,
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
POLL_HEADERS: Json = TASK_HEADERS | {
    "openai-poll-after-ms": header("While it is not done: when to look again.", "integer")
}


def errors(*kinds: type[MediagateError]) -> dict[int | str, Json]:
    """Document the statuses of these errors, with their reasons, and of those that belong to every route with a key."""
    reasons: dict[int, list[str]] = {}
    for kind in (*kinds, *EVERYWHERE):
        reasons.setdefault(kind.status, []).append(kind.reason)
    return {
        status: {"model": ErrorEnvelope, "description": ", ".join(f"`{word}`" for word in dict.fromkeys(words))}
        for status, words in sorted(reasons.items())
    }


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
    """Build the document at its first request, with the catalogue of the running services."""

    def build() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = document(app, app.state.services.catalog)
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
    for path in found["paths"].values():
        for operation in path.values():
            # Query and path faults are 400 here, never FastAPI's 422.
            operation.get("responses", {}).pop("422", None)
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    return found
