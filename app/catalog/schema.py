"""What GET /v1/models tells about a model: the JSON Schema of a request, and the price."""

from __future__ import annotations

from typing import Any

from app.catalog.options import GATEWAY_FIELDS, prompt_schema
from app.catalog.pricing import PriceBase, PricePerSecond
from app.catalog.spec import ModelSpec

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def parameters_schema(model: str, spec: ModelSpec) -> dict[str, Any]:
    """Return the schema of a request's JSON body. Rules between fields are not in it; the server judges those."""
    properties: dict[str, Any] = {"model": {"const": model}, "prompt": prompt_schema()}
    for name, parameter in spec.parameters.items():
        properties[name] = parameter.as_schema()
        properties |= {other: _same(name, parameter.as_schema()) for other in parameter.also}
    for name, media in spec.inputs.items():
        properties[name] = media.as_schema()
        properties |= {other: _same(name, media.as_schema()) for other in media.also}
    for name, field in GATEWAY_FIELDS.items():
        if spec.type in field.kinds:
            properties[name] = dict(field.schema)
    return {
        "$schema": DRAFT,
        "title": spec.title,
        "type": "object",
        "properties": properties,
        "required": [] if spec.prompt_optional_with else ["prompt"],
        "additionalProperties": True,
    }


def price_summary(price: PriceBase, version: str) -> dict[str, Any]:
    """Return the price as JSON: ``credits`` is one number, or one for each value of the parameter ``by``."""
    dumped = price.model_dump(mode="json", exclude_defaults=True)
    summary: dict[str, Any] = {"unit": dumped.pop("unit"), **dumped, "version": version}
    if isinstance(price, PricePerSecond) and price.edit is not None:
        summary["edit"] = {"billed_by": "source_seconds", **price.edit.model_dump()}
    return summary


def _same(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of another name: no default of its own, and looser where other APIs send text."""
    schema.pop("default", None)
    if schema.get("type") == "integer":
        schema = {"anyOf": [schema, {"type": "string", "pattern": "^-?[0-9]+$"}]}
    schema["description"] = f"The same as '{name}'."
    return schema
