"""JSON bodies over a real socket: data: URLs become files, and every fault is named."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.api.body import spool_folder
from app.media.base64_stream import Base64Sink
from app.settings import Settings
from tests.api.bodies import Client, reading_app, serving, upload

KIB, MIB = 1024, 1024 * 1024


def data_url(raw: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(raw).decode()}"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    settings = Settings(data=tmp_path_factory.mktemp("data"), json_body_bytes=8 * MIB, data_url_bytes=4 * MIB)
    async with serving(reading_app(settings)) as port:
        yield Client(port, settings)


# --- what is read ----


async def test_fields_arrive_without_nulls(client: Client) -> None:
    answer = await client.json({"prompt": "狐狸", "n": None, "metadata": {"a": "b", "c": None}, "seed": 1.5, "x": []})

    assert answer.status == 200
    assert answer.json == {"prompt": "狐狸", "metadata": {"a": "b"}, "seed": 1.5, "x": []}


@pytest.mark.parametrize("step", [None, 1000, 64 * KIB])
async def test_data_urls_in_any_media_field_become_uploads(client: Client, step: int | None) -> None:
    raw = [os.urandom(size) for size in (1, 2, 3, 300_000)]
    document = {
        "image": [data_url(raw[0]), "https://a.example/b.png"],
        "image_urls": data_url(raw[1], "IMAGE/jpeg"),
        "mask": {"image_url": data_url(raw[2])},
        "first_frame_image": {"image_url": {"url": data_url(raw[3])}},
        "video_urls": ["https://a.example/v.mp4"],
        "input_reference": [{"url": "http://a.example/c.png"}],
    }

    answer = await client.post(json.dumps(document).encode(), step=step)

    assert answer.json == {
        "image": [upload(raw[0]), "https://a.example/b.png"],
        "image_urls": upload(raw[1]),
        "mask": upload(raw[2]),
        "first_frame_image": upload(raw[3]),
        "video_urls": ["https://a.example/v.mp4"],
        "input_reference": ["http://a.example/c.png"],
    }


async def test_openais_images_become_image_after_those_that_are_there(client: Client) -> None:
    answer = await client.json(
        {
            "image": "https://a.example/1",
            "images": [{"image_url": "https://a.example/2"}, {"image_url": data_url(b"3")}],
        }
    )

    assert answer.json == {"image": ["https://a.example/1", "https://a.example/2", upload(b"3")]}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/x+json",
        None,
    ],
)
async def test_json_is_taken_under_its_usual_names_and_without_any(client: Client, content_type: str | None) -> None:
    answer = await client.post(b' \n{"prompt": "x"}', content_type)

    assert answer.json == {"prompt": "x"}


async def test_a_prompt_may_begin_like_a_data_url(client: Client) -> None:
    answer = await client.json({"prompt": "data: two bars, base64, red"})

    assert answer.json == {"prompt": "data: two bars, base64, red"}


# --- what is refused ----


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"", None, "empty"),
        (b"[]", None, "JSON object"),
        (b'"x"', None, "JSON object"),
        (b"null", None, "JSON object"),
        (b'{"prompt": "x" 1}', None, "line 1, column 16"),
        (b'{"prompt": "x"\n "n": 1}', None, "line 2, column 2"),
        (b'{"prompt": "x"', None, "not valid JSON"),
        (b'{"prompt": "\xff"}', None, "not UTF-8"),
        (b'{"seed": NaN}', None, "NaN"),
        (b'{"n": 1, "prompt": "x", "n": 2}', "n", "'n' is given twice"),
        (b'{"metadata": {"a": "1", "a": "2"}}', "a", "'a' is given twice"),
        (b'{"\\ud800": 1, "\\ud800": 1}', "\\ud800", "given twice"),
        (b'{"prompt": "a\\u0000b"}', "prompt", "not Unicode text"),
        (b'{"prompt": "a\\ud800b"}', "prompt", "not Unicode text"),
        (b'{"metadata": {"a\\u0000": "b"}}', "metadata", "not Unicode text"),
        (b'{"a\\u0000": 1}', "a\\x00", "not Unicode text"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "a", "nested too deep"),
        (b'{"x": [' + b"1," * 60_000 + b"1]}", "x", "too many values"),
        (
            b'{"image": ["data:image/png;base64,QUJD", "data:image/png;base64,Q!JD"]}',
            "image",
            "'image[1]' is not valid base64",
        ),
        (b'{"images": [{"image_url": "data:image/png;base64,QUJ"}]}', "images", "'images[0].image_url'"),
        (b'{"image": "data:image/png,QUJD"}', "image", "not base64"),
        (b'{"image": "data:text/html;base64,QUJD"}', "image", "'text/html'; only images"),
        (b'{"image": "data:;base64,QUJD"}', "image", "'text/plain'; only images"),
        (b'{"mask": "data:video/mp4;base64,QUJD"}', "mask", "'video/mp4'; only images"),
        (b'{"video_url": "data:video/mp4;base64,QUJD"}', "video_url", "public http(s) URL"),
        (b'{"audio_urls": ["https://a.example/", "data:audio/mp3;base64,QUJD"]}', "audio_urls", "'audio_urls[1]'"),
        (b'{"prompt": "data:image/png;base64,QUJD"}', "prompt", "does not take a data: URL"),
        (b'{"metadata": {"a": ["data:image/png;base64,QUJD"]}}', "metadata", "'metadata.a[0]'"),
        (b'{"image": "ftp://a.example/x"}', "image", "must be an http(s) URL"),
        (b'{"image": 5}', "image", "must be an http(s) URL"),
        (b'{"image": [[]]}', "image", "'image[0]' must be"),
        (b'{"image_urls": [null]}', "image_urls", "'image_urls[0]' must be"),
        (b'{"image": ""}', "image", "must be an http(s) URL"),
        (b'{"images": [{"file_id": "file-1"}]}', "images", "file_id"),
        (b'{"input_reference": {"file_id": "file-1"}}', "input_reference", "file_id"),
        (b'{"image": {"other": "x"}}', "image", "must be"),
    ],
)
async def test_a_fault_is_a_400_that_names_its_field(
    client: Client, body: bytes, param: str | None, words: str
) -> None:
    answer = await client.post(body)

    assert answer.error == (400, "invalid_parameter", param)
    assert words in answer.message
    assert client.spooled() == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b'{"prompt": "x"}'),
        ("text/plain", b'{"prompt": "x"}'),
        ("application/json; charset=utf-16", b'{"prompt": "x"}'),
        ("application/octet-stream", b"x"),
        (None, b"prompt=x"),
    ],
)
async def test_other_content_types_are_a_415(client: Client, content_type: str | None, body: bytes) -> None:
    answer = await client.post(body, content_type)

    assert answer.error == (415, "unsupported_media_type", None)


async def test_a_compressed_body_is_a_415(client: Client) -> None:
    answer = await client.post(b"x", content_encoding="gzip")

    assert answer.error == (415, "unsupported_media_type", None)


async def test_a_data_url_above_its_limit_is_a_413_that_names_it(client: Client) -> None:
    answer = await client.json({"image": ["https://a.example", data_url(bytes(4 * MIB + 1))]})

    assert answer.error == (413, "body_too_large", "image")
    assert "'image[1]' is larger than 4 MiB" in answer.message


async def test_text_that_is_no_data_url_has_a_limit_of_its_own(client: Client) -> None:
    answer = await client.json({"prompt": "x" * (4 * MIB)})

    assert answer.error == (413, "body_too_large", None)


async def test_a_declared_length_above_the_limit_is_answered_before_anything_is_read(client: Client) -> None:
    head = f"POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {8 * MIB + 1}\r\n\r\n"

    answer = await client.raw([head.encode()])

    assert answer.error == (413, "body_too_large", None)


async def test_a_body_without_a_length_is_stopped_at_the_limit(client: Client) -> None:
    head = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    start = b'{"image": ["data:image/png;base64,'
    chunk = b"QUJD" * (16 * KIB)

    answer = await client.raw([head, *(b"%x\r\n%b\r\n" % (len(c), c) for c in [start, *[chunk] * 130])])

    assert answer.status == 413


async def test_a_client_that_leaves_halfway_leaves_nothing_behind(client: Client) -> None:
    head = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"

    for sent in (b"", b'{"image": "data:image/png;base64,QUJD'):
        with suppress(EOFError, OSError):  # there may be nobody to answer any more
            await client.raw([head, sent], half_close=True)

    assert (await client.json({"prompt": "still there"})).status == 200
    assert client.spooled() == []


# --- the spool ----


async def test_a_cancelled_request_leaves_no_folder(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    inside = asyncio.Event()

    async def handle() -> None:
        async with spool_folder(settings) as folder:
            (folder / "part-1").write_bytes(b"x")
            inside.set()
            await asyncio.Event().wait()

    handling = asyncio.create_task(handle())
    await inside.wait()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling

    assert list(settings.spool_dir.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_a_full_disk_is_a_503_and_any_other_fault_of_it_a_500(
    client: Client, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(Base64Sink, "push", fail)
    answer = await client.json({"image": data_url(b"x")})

    assert answer.status == (500 if code == errno.EIO else 503)
    assert client.spooled() == []
