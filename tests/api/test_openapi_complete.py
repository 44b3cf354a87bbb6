"""The OpenAPI document is whole: whoever reads only it knows every request, every answer and every error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from jsonschema_rs import Draft202012Validator

from app.api.examples import error_example
from app.errors import BY_REASON, MediagateError

Json = dict[str, Any]
NO_BODY = {"304"}


@pytest.fixture(scope="module")
def document(app: FastAPI) -> Json:
    found: Json = app.openapi()
    return found


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def schema_of(document: Json, content: Json) -> Json:
    schema: Json = content["schema"]
    return {**schema, "components": document["components"]}


def test_every_operation_says_what_it_is_for(document: Json) -> None:
    lacking = [
        name
        for name, operation in operations(document)
        if not (operation.get("summary") and operation.get("operationId") and operation.get("tags"))
    ]

    assert lacking == []


def test_every_answer_has_a_shape_or_is_a_file_and_every_json_one_an_example_that_fits(document: Json) -> None:
    checked, faults = 0, []
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status in NO_BODY:
                continue
            for kind, content in answer.get("content", {"": {}}).items():
                where = f"{name} {status} {kind}"
                if not content.get("schema"):
                    faults.append(f"{where}: no schema")
                    continue
                if kind != "application/json":
                    continue
                examples = [example["value"] for example in content.get("examples", {}).values()]
                reference = content["schema"].get("$ref", "").rpartition("/")[2]
                examples += document["components"]["schemas"].get(reference, {}).get("examples", [])
                if not examples:
                    faults.append(f"{where}: no example of {reference or 'its shape'}")
                judge = Draft202012Validator(schema_of(document, content))
                checked += len(examples)
                faults += [f"{where}: {error.message}" for example in examples for error in judge.iter_errors(example)]

    assert faults == []
    assert checked > 300


def test_every_body_has_an_example_that_its_own_schema_takes(document: Json) -> None:
    faults = []
    for name, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            continue
        reference = content["schema"].get("$ref", "").rpartition("/")[2]
        examples = [example["value"] for example in content.get("examples", {}).values()]
        examples += document["components"]["schemas"].get(reference, {}).get("examples", [])
        if not examples:
            faults.append(f"{name}: no example")
        judge = Draft202012Validator(schema_of(document, content))
        faults += [f"{name}: {error.message}" for example in examples for error in judge.iter_errors(example)]

    assert faults == []


def test_every_route_documents_its_errors(document: Json) -> None:
    not_by_key = {"/healthz", "/readyz", "/metrics"}
    lacking = [
        name
        for name, operation in operations(document)
        if name.split()[1] not in not_by_key and not {"401", "500", "503"} <= operation["responses"].keys()
    ]

    assert lacking == []


@pytest.mark.parametrize("kind", BY_REASON.values(), ids=BY_REASON)
def test_every_error_has_an_example_that_speaks(kind: type[MediagateError]) -> None:
    error = error_example(kind)["error"]

    assert (error["code"], error["type"], error["reason"]) == (kind.status, kind.type, kind.reason)
    assert len(error["message"]) > 15
