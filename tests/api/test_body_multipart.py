"""Multipart bodies over a real socket: files go to disk as they arrive, and every limit holds at its first byte."""

from __future__ import annotations

import base64
import hashlib
import os
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from app.api.body import read_body
from app.settings import Settings
from tests.api.bodies import BOUNDARY, FORM, Client, form, reading_app, serving, upload

KIB, MIB = 1024, 1024 * 1024
URL = "https://a.example/b.png"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    settings = Settings(
        data=tmp_path_factory.mktemp("data"),
        upload_file_bytes=4 * MIB,
        upload_total_bytes=10 * MIB,
        upload_text_bytes=32 * KIB,
        upload_fields=12,
        data_url_bytes=MIB,
    )
    async with serving(reading_app(settings)) as port:
        yield Client(port, settings)


async def read(client: Client, *parts: Any, **options: Any) -> Any:
    answer = await client.post(form(*parts), FORM, **options)
    assert answer.status == 200, answer.body
    return answer.json


# --- what is read ----


@pytest.mark.parametrize("step", [None, 1, 7, 1000])
async def test_files_arrive_bit_by_bit_whatever_the_chunks(client: Client, step: int | None) -> None:
    raw = f"\r\n--{BOUNDARY[:-1]}\r\n\r--\r\n--".encode() * 5 + os.urandom(500)

    fields = await read(
        client,
        ("prompt", "雪"),
        ("image[]", raw, "a.png"),
        ("image[]", raw[::-1], "b.png"),
        ("mask", b"", "m.png"),
        step=step,
    )

    assert fields == {
        "prompt": "雪",
        "image": [upload(raw, "a.png"), upload(raw[::-1], "b.png")],
        "mask": upload(b"", "m.png"),
    }


async def test_what_the_sdks_flattened_is_what_their_callers_wrote(client: Client) -> None:
    fields = await read(
        client,
        ("n", "1"),
        ("seed", "-5"),
        ("duration", "8.5"),
        ("seconds", "8"),
        ("stream", "true"),
        ("generate_audio", "False"),
        ("watermark", "yes"),
        ("size", "1024x1024"),
        ("user", ""),
        ("image_urls[]", URL),
        ("metadata[a]", "1"),
        ("metadata[b]", "2"),
    )

    assert fields == {
        "n": 1,
        "seed": -5,
        "duration": "8.5",
        "seconds": "8",
        "stream": True,
        "generate_audio": False,
        "watermark": "yes",
        "size": "1024x1024",
        "image_urls": [URL],
        "metadata": {"a": "1", "b": "2"},
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["image"], URL),
        (["image", "image"], [URL, URL]),
        (["image[]"], [URL]),
        (["image", "image[]"], [URL, URL]),
        (["image[]", "image"], [URL, URL]),
        (["image[0]", "image[1]"], [URL, URL]),
        (["image[image_url]"], URL),
        (["images[][image_url]", "images[][image_url]"], [URL, URL]),
        (["images[0][image_url]", "images[1][image_url]"], [URL, URL]),
        (["image", "images[0][image_url]"], [URL, URL]),
        (["image[0][image_url][url]"], [URL]),
    ],
)
async def test_urls_and_files_may_be_spelled_in_every_known_way(
    client: Client, names: list[str], expected: Any
) -> None:
    assert await read(client, *((name, URL) for name in names)) == {"image": expected}


@pytest.mark.parametrize("name", ["input_reference", "input_reference[image_url]", "input_reference[]", "mask"])
@pytest.mark.parametrize("size", [0, 1, 100, 200_000])
@pytest.mark.parametrize("step", [None, 33])
async def test_a_data_url_in_a_text_part_becomes_an_upload(
    client: Client, name: str, size: int, step: int | None
) -> None:
    raw = os.urandom(size)
    text = "data:image/png;base64," + base64.b64encode(raw).decode()

    fields = await read(client, (name, text), step=step and step * max(1, size // 1000))

    [value] = fields.values()
    assert value == ([upload(raw)] if name.endswith("[]") else upload(raw))


async def test_a_file_input_with_nothing_chosen_is_absent(client: Client) -> None:
    assert await read(client, ("mask", b"", ""), ("prompt", "x")) == {"prompt": "x"}


async def test_only_the_last_part_of_a_file_name_is_kept(client: Client) -> None:
    fields = await read(client, ("image", b"x", "../../etc/C:\\dir\\päss.png"))

    assert fields["image"]["filename"] == "päss.png"


async def test_what_stands_after_the_last_boundary_is_ignored(client: Client) -> None:
    answer = await client.post(form(("prompt", "x")) + b"anything\r\n", FORM)

    assert answer.json == {"prompt": "x"}


# --- what is refused ----


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"", None, "empty"),
        (form(("prompt", "x"), end=False), None, "truncated"),
        (form(("image", b"x" * 1000, "a.png"))[:500], None, "truncated"),
        (b"no boundary at all", None, "not valid multipart"),
        (b"--other\r\n\r\n", None, "not valid multipart"),
        (form(("prompt", "x"), ("prompt", "y")), "prompt", "'prompt' is given twice"),
        (form(("n", "1"), ("n[]", "1")), "n", "'n' is given twice"),
        (form(("metadata[a]", "1"), ("metadata", "1")), "metadata", "given twice"),
        (form(("metadata[a]", "1"), ("metadata[a]", "2")), "metadata", "given twice"),
        (form(("metadata[a]", "1"), ("metadata[]", "2")), "metadata", "given twice"),
        (form(("metadata[a]", "1"), ("metadata[a][b]", "2")), "metadata", "given twice"),
        (form(("a[b][c][d][e][f]", "1")), "a", "nested too deep"),
        (form(*((f"f{n}", "x") for n in range(13))), None, "more than 12 fields"),
        (form(("prompt", b"\xff")), "prompt", "not UTF-8"),
        (form(("prompt", b"a\x00b")), "prompt", "not Unicode text"),
        (form(("prompt", b"text", "prompt.txt")), "prompt", "does not take a file"),
        (form(("video_url", b"text", "v.mp4")), "video_url", "public http(s) URL"),
        (form(("image", "no url")), "image", "must be an http(s) URL"),
        (form(("image[]", URL), ("image[]", "data:image/png;base64,Q")), "image", "not valid base64"),
        (form(("image", "data:text/html;base64,QUJD")), "image", "only images"),
        (form(("image", "data:image/png,QUJD")), "image", "not base64"),
        (form(("image", "data:" + "x" * 600)), "image", "not base64"),
        (form(("input_reference[file_id]", "file-1")), "input_reference", "file_id"),
        (form(("", "x")), None, "no usable name"),
        (form(("n" * 300, "x")), None, "no usable name"),
        (f"--{BOUNDARY}\r\nX: y\r\n\r\nz\r\n--{BOUNDARY}--".encode(), None, "no usable name"),
        (f"--{BOUNDARY}\r\nX: {'y' * 5000}\r\n\r\nz\r\n--{BOUNDARY}--".encode(), None, "not valid multipart"),
        (f"--{BOUNDARY}\r\n{'X: y' * 2000}".encode(), None, "not valid multipart"),
        (f"--{BOUNDARY}\r\n".encode() + b"X: y\r\n" * 50, None, "not valid multipart"),
    ],
)
async def test_a_fault_is_a_400_that_names_its_field(
    client: Client, body: bytes, param: str | None, words: str
) -> None:
    answer = await client.post(body, FORM)

    assert answer.error == (400, "invalid_parameter", param)
    assert words in answer.message
    assert client.spooled() == []


async def test_an_encoded_part_is_refused(client: Client) -> None:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"'

    answer = await client.post(
        f"{head}\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n--{BOUNDARY}--".encode(), FORM
    )

    assert answer.error == (400, "invalid_parameter", "image")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 300])
async def test_a_boundary_that_is_missing_or_endless_is_refused(client: Client, content_type: str) -> None:
    answer = await client.post(form(("prompt", "x")), content_type)

    assert answer.error == (400, "invalid_parameter", None)


async def test_the_limit_of_a_file_is_exact_and_names_its_field(client: Client) -> None:
    assert (await read(client, ("image", bytes(4 * MIB), "a")))["image"]["size"] == 4 * MIB

    answer = await client.post(form(("image[]", b"x", "a"), ("image[]", bytes(4 * MIB + 1), "b")), FORM)

    assert answer.error == (413, "body_too_large", "image")
    assert answer.message == "The file in 'image[]' is larger than 4 MiB."
    assert client.spooled() == []


async def test_the_limit_of_a_text_names_its_field(client: Client) -> None:
    assert len((await read(client, ("prompt", "x" * 32 * KIB)))["prompt"]) == 32 * KIB

    for name in ("prompt", "image"):
        answer = await client.post(form((name, "x" * (32 * KIB + 1))), FORM)
        assert answer.error == (413, "body_too_large", name)


async def test_the_limit_of_a_data_url_names_its_field(client: Client) -> None:
    text = "data:image/png;base64," + base64.b64encode(bytes(MIB + 1)).decode()

    answer = await client.post(form(("mask", text)), FORM)

    assert answer.error == (413, "body_too_large", "mask")


async def test_the_whole_form_has_a_limit_with_and_without_a_declared_length(client: Client) -> None:
    parts = [("image[]", bytes(3 * MIB), "a")] * 4
    chunked = (
        b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nContent-Type: " + FORM.encode() + b"\r\n\r\n"
    )
    body = form(*parts)

    declared = await client.post(body, FORM)
    undeclared = await client.raw([chunked, b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n"])

    assert declared.error == undeclared.error == (413, "body_too_large", None)
    assert client.spooled() == []


async def test_a_client_that_leaves_halfway_leaves_nothing_behind(client: Client) -> None:
    head = f"POST / HTTP/1.1\r\nHost: test\r\nContent-Type: {FORM}\r\nContent-Length: 1000000\r\n\r\n".encode()

    with suppress(EOFError, OSError):  # there may be nobody to answer any more
        await client.raw([head, form(("image", bytes(100_000), "a"), end=False)], half_close=True)

    assert await read(client, ("prompt", "x")) == {"prompt": "x"}
    assert client.spooled() == []


async def test_a_form_of_megabytes_never_lies_in_memory(tmp_path: Path) -> None:
    block = os.urandom(64 * KIB)
    start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'.encode()
    chunks = iter([start, *[block] * 384, f"\r\n--{BOUNDARY}--\r\n".encode()])

    async def receive() -> Message:
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    request = Request({"type": "http", "method": "POST", "headers": [(b"content-type", FORM.encode())]}, receive)
    tracemalloc.start()
    intake = await read_body(request, settings=Settings(), spool=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert intake.fields["image"].sha256 == hashlib.sha256(block * 384).digest()
    assert peak < 2 * MIB
