"""What makes two requests the same: the route and what was asked for, not how it was written down."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from app.api.body import read_body
from app.errors import InvalidParameter
from app.intake import Sent
from app.settings import Settings
from tests.api.samples import jpeg, png

EDITS = "/v1/images/edits"
FIELDS = {"prompt": "a fox", "size": "16:9", "metadata": {"a": "1", "b": "2"}}


def sent(body: bytes, kind: str, folder: Path, *, path: str = EDITS, **headers: str) -> Sent:
    """Read a body as the API does, and return how it is known again."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [
            (name.replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in {"content_type": kind, **headers}.items()
        ],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    spool = folder / str(len(list(folder.iterdir())))
    spool.mkdir()
    intake = asyncio.run(read_body(Request(scope, receive), settings=Settings(), spool=spool))
    assert intake.sent is not None
    return intake.sent


def sent_json(fields: dict[str, Any], folder: Path, **options: str) -> Sent:
    return sent(json.dumps(fields).encode(), "application/json", folder, **options)


def sent_form(*parts: tuple[str, bytes | str], folder: Path, boundary: str = "b", filename: str = "a.png") -> Sent:
    body = b""
    for name, value in parts:
        extra = f'; filename="{filename}"' if isinstance(value, bytes) else ""
        content = value if isinstance(value, bytes) else value.encode()
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return sent(body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}", folder)


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


@pytest.mark.parametrize(
    "again",
    [
        {"metadata": {"b": "2", "a": "1"}, "size": "16:9", "prompt": "a fox"},
        {**FIELDS, "idempotency_key": "order-7"},
        {**FIELDS, "seed": None},
    ],
    ids=["order", "key", "null"],
)
def test_these_are_the_same_json(tmp_path, again):
    assert sent_json(again, tmp_path).fingerprint == sent_json(FIELDS, tmp_path).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        {**FIELDS, "prompt": "a fox "},
        {**FIELDS, "stream": True},
        {**FIELDS, "async": True},
        {**FIELDS, "n": 1},
        {**FIELDS, "metadata": {"a": "2", "b": "1"}},
        {**FIELDS, "unknown": 1},
    ],
    ids=["prompt", "stream", "async", "n", "metadata", "unknown"],
)
def test_every_field_of_the_body_counts(tmp_path, other):
    assert sent_json(other, tmp_path).fingerprint != sent_json(FIELDS, tmp_path).fingerprint


def test_the_route_counts_and_a_remix_s_source(tmp_path):
    paths = ("/v1/videos", "/v1/videos/generations", "/v1/videos/task_a/remix", "/v1/videos/task_b/remix")

    assert len({sent_json(FIELDS, tmp_path, path=path).fingerprint for path in paths}) == 4


def test_how_the_answer_is_wanted_by_a_header_does_not_count(tmp_path):
    preferring = sent_json(FIELDS, tmp_path, prefer="respond-async, wait=30")

    assert preferring.fingerprint == sent_json(FIELDS, tmp_path).fingerprint


def test_a_form_is_the_same_in_another_order_with_another_boundary_and_other_file_names(tmp_path):
    first = sent_form(("prompt", "a fox"), ("image", png()), ("n", "1"), folder=tmp_path)
    again = sent_form(
        ("n", "1"), ("image", png()), ("prompt", "a fox"), folder=tmp_path, boundary="other", filename="x.jpg"
    )

    assert first.fingerprint == again.fingerprint


def test_the_bytes_of_a_file_count_and_the_order_of_images(tmp_path):
    """The first image is the one a mask belongs to."""
    forms = [
        (("image[]", png()), ("image[]", jpeg())),
        (("image[]", jpeg()), ("image[]", png())),
        (("image[]", png()), ("image[]", png())),
    ]

    assert len({sent_form(("prompt", "a fox"), *form, folder=tmp_path).fingerprint for form in forms}) == 3


def test_a_data_url_is_its_bytes_however_it_is_written(tmp_path):
    plain = sent_json({"prompt": "a fox", "image": data_url(png())}, tmp_path)
    escaped = json.dumps({"image": data_url(png()), "prompt": "a fox"}).replace("/", "\\/").encode()
    in_form = sent_form(("prompt", "a fox"), ("image", data_url(png())), folder=tmp_path)
    as_file = sent_form(("prompt", "a fox"), ("image", png()), folder=tmp_path)

    assert sent(escaped, "application/json", tmp_path).fingerprint == plain.fingerprint
    assert in_form.fingerprint == as_file.fingerprint == plain.fingerprint


def test_the_key_comes_from_the_header_or_the_body(tmp_path):
    assert sent_json(FIELDS, tmp_path, idempotency_key="order 7~").key == "order 7~"
    assert sent_json({**FIELDS, "idempotency_key": "order-7"}, tmp_path).key == "order-7"
    assert sent_json({**FIELDS, "idempotency_key": "order-7"}, tmp_path, idempotency_key="order-7").key == "order-7"
    assert sent_json(FIELDS, tmp_path).key is None


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "a\tb"])
def test_a_key_that_is_none_is_named(tmp_path, key):
    with pytest.raises(InvalidParameter, match="Idempotency-Key") as caught:
        sent_json(FIELDS, tmp_path, idempotency_key=key)

    assert caught.value.param == "idempotency_key"


@pytest.mark.parametrize("key", ["", "x" * 256, "狐", 7, ["a"], {}])
def test_a_field_that_is_no_key_is_named(tmp_path, key):
    with pytest.raises(InvalidParameter, match="'idempotency_key'"):
        sent_json({**FIELDS, "idempotency_key": key}, tmp_path)


def test_two_different_keys_are_refused(tmp_path):
    with pytest.raises(InvalidParameter, match="differ"):
        sent_json({**FIELDS, "idempotency_key": "a"}, tmp_path, idempotency_key="b")


@pytest.mark.parametrize(
    ("count", "is_retry"), [(None, False), ("0", False), ("1", True), ("2", True), ("x", False), ("-1", False)]
)
def test_an_sdk_says_that_it_tries_again(tmp_path, count, is_retry):
    headers = {} if count is None else {"x_stainless_retry_count": count}

    assert sent_json(FIELDS, tmp_path, **headers).is_retry is is_retry
