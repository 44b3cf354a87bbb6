"""The JSON Schema of every model, and requests nobody would write."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import MediagateError
from app.requests import Operation
from tests.unit.catalogs import URL, shipped

NAMES = list(shipped().models)
TYPES = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}


def accepts(schema, value) -> bool:
    """Judge a value by the few JSON Schema words that our schemas use."""
    if "anyOf" in schema:
        return any(accepts(one, value) for one in schema["anyOf"])
    if "const" in schema and value != schema["const"]:
        return False
    if "type" in schema and (
        not isinstance(value, TYPES[schema["type"]]) or (isinstance(value, bool) and schema["type"] == "integer")
    ):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return False
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9):
            return False
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return False
    if isinstance(value, list):
        return len(value) <= schema.get("maxItems", 10**9) and all(accepts(schema["items"], item) for item in value)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return all(name in value for name in schema.get("required", [])) and all(
            accepts(known[name], item) for name, item in value.items() if name in known
        )
    return True


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_accepts_the_defaults_and_so_does_the_model(name):
    model = shipped().models[name]
    schema = model.parameters_schema()
    properties = schema["properties"]
    defaults = {field: shape["default"] for field, shape in properties.items() if "default" in shape}

    body = {"model": name, "prompt": "a fox", **defaults}
    operations = model.operations - {Operation.VIDEO_EDIT, Operation.IMAGE_EDIT}
    chosen = []
    for operation in operations:
        applies = {
            field: value
            for field, value in body.items()
            if (spec := model.spec.parameters.get(field)) is None or spec.applies_to(operation)
        }
        chosen.append(
            (model.choose(applies, operation=operation), model.choose({"prompt": "a fox"}, operation=operation))
        )

    assert accepts(schema, body)
    assert all(explicit.params == implicit.params for explicit, implicit in chosen)


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_is_plain_json_and_describes_every_field(name):
    schema = shipped().models[name].parameters_schema()

    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    undescribed = [field for field, shape in schema["properties"].items() if not shape.get("description")]
    assert undescribed == ["model"]
    assert all({"type", "anyOf", "const"} & set(shape) for shape in schema["properties"].values())


def test_the_schema_has_the_limits_of_the_table():
    video = shipped().models["doubao-seedance-2.0"].parameters_schema()["properties"]
    image = shipped().models["gemini-3-pro-image-preview-2k"].parameters_schema()["properties"]
    horse = shipped().models["happyhorse-1.0"].parameters_schema()

    assert (video["duration"]["minimum"], video["duration"]["maximum"], video["duration"]["default"]) == (4, 15, 5)
    assert video["resolution"]["enum"] == ["480p", "720p"]
    assert video["image_urls"]["anyOf"][1]["maxItems"] == 9
    assert image["quality"]["enum"] == ["hd", "medium", "2k", "auto"]
    assert "adaptive" in video["size"]["anyOf"][0]["enum"]
    assert horse["required"] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_the_schema_refuses_the_model_refuses_too(name):
    model = shipped().models[name]
    for field, shape in model.parameters_schema()["properties"].items():
        for value in (object, -(10**9), 10**9, "§", 1.5, [[1]], {"a": 1}):
            body = {"prompt": "a fox", field: value}
            if value is object or field in ("model", "user", "safety_identifier") or accepts(shape, value):
                continue
            if (spec := model.spec.parameters.get(field)) is not None and spec.kind == "hint" and value == "§":
                continue
            with pytest.raises(MediagateError):
                model.choose(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([URL, "16:9", "hd", "720p"]),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({name for model in shipped().models.values() for name in model.parameters_schema()["properties"]})
field_names = st.sampled_from(FIELDS) | st.text(max_size=8)


def outcome(model, fields, operation=None):
    """Return the choice, or the error a client would see; anything else fails the test by itself."""
    try:
        return model.choose(fields, operation=operation)
    except MediagateError as error:
        return error


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    name=st.sampled_from(NAMES),
    operation=st.none() | st.sampled_from(Operation),
    fields=st.dictionaries(field_names, json_values, max_size=6),
    prompt=st.just("a fox") | json_values,
)
def test_whatever_is_sent_the_answer_is_a_choice_or_an_error_for_the_client(name, operation, fields, prompt):
    model = shipped().models[name]

    result = outcome(model, {**fields, "prompt": prompt}, operation)

    if isinstance(result, MediagateError):
        assert result.status == 400
        assert result.param is not None
        assert result.message.encode().decode() == result.message
        return
    assert json.loads(json.dumps(result.params, allow_nan=False)) == result.params
    assert all(warning.encode() for warning in result.warnings)
    assert result.operation in model.operations
    assert {"width", "height", "size", "ratio", "hints"} <= set(result.params)
    assert model.quote(result, input_seconds=4.2).credits > 0


@settings(max_examples=300, deadline=None)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_requests_made_of_allowed_values_are_never_a_server_error(data, name):
    model = shipped().models[name]
    fields: dict[str, object] = {"prompt": "a fox"}
    for field, spec in model.spec.parameters.items():
        if data.draw(st.booleans()):
            match spec.kind:
                case "choice":
                    fields[field] = data.draw(st.sampled_from(spec.words()))
                case "integer":
                    fields[field] = data.draw(st.integers(spec.minimum, spec.maximum))
                case "boolean":
                    fields[field] = data.draw(st.booleans())
                case "size":
                    fields[field] = data.draw(st.sampled_from([*spec.values, *spec.words]))
                case "hint":
                    fields[field] = data.draw(st.sampled_from(spec.values or ("u1",)))
    for field, media in model.spec.inputs.items():
        if data.draw(st.booleans()):
            fields[field] = URL if media.single else [URL] * data.draw(st.integers(1, media.maximum))

    result = outcome(model, fields)

    if isinstance(result, MediagateError):
        assert result.reason == "invalid_parameter"
        assert result.param in fields
        return
    assert model.quote(result, input_seconds=1.0).quantity >= 1
