"""JSON in pieces with base64 diverted into files, and files encoded back into JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.media.base64_stream import (
    DATA_URL,
    BadBase64,
    Base64Of,
    DivertedValue,
    DocumentTooComplex,
    DocumentTooLarge,
    DuplicateKey,
    FileChanged,
    JsonScanner,
    MalformedJson,
    Rendered,
    ScanError,
    ValueTooLarge,
    render_event,
    render_json,
)

MIB = 1024 * 1024
KIB = 1024


def data_url(raw: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(raw).decode()}"


def scan(folder: Path, document: bytes, *, step: int | None = None, **options: Any) -> Any:
    given_options = {"data_urls": True, "value_bytes": MIB, "document_bytes": MIB, **options}
    with JsonScanner(folder, **given_options) as scanner:
        for start in range(0, len(document), step or max(1, len(document))):
            scanner.push(document[start : start + (step or len(document))])
        return scanner.finish()


def restored(node: Any) -> Any:
    if isinstance(node, DivertedValue):
        raw = node.file.read_bytes()
        assert (len(raw), hashlib.sha256(raw).digest()) == (node.size_bytes, node.sha256)
        return data_url(raw, node.mime) if node.mime else base64.b64encode(raw).decode()
    if isinstance(node, list):
        return [restored(item) for item in node]
    if isinstance(node, dict):
        return {key: restored(value) for key, value in node.items()}
    return node


# --- any document, any chunking ----

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "data:",
            "data:,x",
            'say "data:image/png;base64,QQ=="',
            '"b64_json": "QQ=="',
            "\\",
            '\\"',
            "d\\",
            "a\\u002c",
            "深海",
        ]
    ),
).filter(lambda text: not DATA_URL.match(text))
data_urls = st.builds(data_url, st.binary(max_size=400), st.sampled_from(["image/png", "image/jpeg;x=1", "video/mp4"]))
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts, data_urls
)
documents = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


@given(document=documents, seed=st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_any_document_in_any_spelling_and_any_chunks_means_what_json_says(document: Any, seed: int) -> None:
    source = random.Random(seed)
    raw = spelled(document, source).encode("utf-8")
    expected = json.loads(raw)

    with tempfile.TemporaryDirectory() as folder, _scanner(Path(folder)) as scanner:
        for piece in _pieces(raw, source):
            scanner.push(piece)
        found = scanner.finish()

        assert restored(found.document) == expected
        assert len(found.values) == text_count(expected)


def spelled(node: Any, source: random.Random) -> str:
    """One of the many ways to write a document: white space anywhere, escapes for any character."""
    space = lambda: source.choice(["", "", "", " ", "\n\t "])  # noqa: E731
    if isinstance(node, str):
        often = source.choice([0.0, 0.01, 0.3])
        escaped = (json.dumps(c)[1:-1] if source.random() > often else _escaped(c, source) for c in node)
        return '"' + "".join(escaped) + '"'
    if isinstance(node, list):
        return "[" + ",".join(space() + spelled(item, source) + space() for item in node) + "]"
    if isinstance(node, dict):
        pairs = (f"{space()}{spelled(k, source)}{space()}:{space()}{spelled(v, source)}" for k, v in node.items())
        return "{" + ",".join(pairs) + "}"
    return json.dumps(node)


def _escaped(letter: str, source: random.Random) -> str:
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    if letter == "/" and source.random() < 0.5:
        return "\\/"
    cased = source.choice([str.upper, str.lower])(units)
    return "".join("\\u" + cased[start : start + 4] for start in range(0, len(cased), 4))


def text_count(node: Any) -> int:
    if isinstance(node, str):
        return 1 if DATA_URL.match(node) else 0
    if isinstance(node, list):
        return sum(text_count(item) for item in node)
    return sum(text_count(item) for item in node.values()) if isinstance(node, dict) else 0


def _scanner(folder: Path) -> JsonScanner:
    return JsonScanner(folder, data_urls=True, value_bytes=MIB, document_bytes=MIB)


def _pieces(raw: bytes, source: random.Random) -> Iterator[bytes]:
    position = 0
    while position < len(raw):
        size = source.choice([1, 1, 2, 3, 5, 17, 300])
        yield raw[position : position + size]
        position += size


# --- what is diverted, and what is not ----


def test_every_place_of_a_value_is_named_by_its_path(tmp_path: Path) -> None:
    document = {
        "image": ["http://a", data_url(b"one")],
        "images": [{"image_url": data_url(b"two")}],
        "mask": data_url(b"3"),
    }

    found = scan(tmp_path, json.dumps(document).encode(), step=7)

    assert [value.path for value in found.values] == ["image[1]", "images[0].image_url", "mask"]
    assert [value.file.read_bytes() for value in found.values] == [b"one", b"two", b"3"]
    assert found.document["image"] == ["http://a", found.values[0]]


def test_keys_divert_plain_base64_wherever_the_key_is_and_however_it_is_spelled(tmp_path: Path) -> None:
    document = (
        rb'{"data": [{"b64_json" : "QUJD"}, {"b64\u005fjson": "REVG", "revised_prompt": "\"b64_json\": \"QQ==\""}]}'
    )

    found = scan(tmp_path, document, step=1, data_urls=False, keys=frozenset({"b64_json"}))

    assert [value.file.read_bytes() for value in found.values] == [b"ABC", b"DEF"]
    assert found.document["data"][1]["revised_prompt"] == '"b64_json": "QQ=="'


def test_null_numbers_and_objects_under_a_diverted_key_stay(tmp_path: Path) -> None:
    document = b'{"b64_json": null, "more": {"b64_json": 5, "deep": {"b64_json": ["QUJD"]}}}'

    found = scan(tmp_path, document, data_urls=False, keys=frozenset({"b64_json"}))

    assert found.document == json.loads(document)
    assert found.values == ()


def test_a_placeholder_cannot_be_forged(tmp_path: Path) -> None:
    with JsonScanner(tmp_path, data_urls=True, value_bytes=9, document_bytes=999) as scanner:
        scanner.push(json.dumps({"a": data_url(b"x"), "b": f"{scanner._nonce[:-1]}:0", "c": "0" * 32 + ":0"}).encode())
        document = scanner.finish().document

    assert isinstance(document["a"], DivertedValue)
    assert isinstance(document["b"], str)
    assert document["c"] == "0" * 32 + ":0"


@pytest.mark.parametrize(
    "text",
    [
        "data: the chart shows",
        "data:image/svg+xml,<svg/>",
        "data:image/png;base64",
        "data:" + "x" * 600 + ";base64,QUJD",
        "say data:image/png;base64,QUJD",
    ],
)
def test_strings_that_are_no_base64_data_url_stay_as_they_are(tmp_path: Path, text: str) -> None:
    found = scan(tmp_path, json.dumps({"prompt": text}).encode(), step=11)

    assert found.document == {"prompt": text}
    assert found.values == ()


# --- faults ----


@pytest.mark.parametrize("step", [1, 3, 4096])
@pytest.mark.parametrize(
    "value",
    [
        "QUJ",
        "QUJD=",
        "QUI=QUJD",
        "QQ==QQ==",
        "Q===",
        "QUJD QUJD",
        r"QUJD\n",
        "QUJ-",
        "%2B%2B",
        r"QUJD\\",
        r"QU\"JD",
        r"QU\\/D",
    ],
)
def test_what_is_not_strict_base64_is_refused_by_its_place(tmp_path: Path, value: str, step: int) -> None:
    document = f'{{"image": ["http://a", "data:image/png;base64,{value}"]}}'.encode()

    with pytest.raises(BadBase64) as caught:
        scan(tmp_path, document, step=step)

    assert caught.value.path == "image[1]"


def test_padding_at_the_cut_of_a_piece_does_not_let_more_follow(tmp_path: Path) -> None:
    text = base64.b64encode(b"x" * (192 * KIB - 1)).decode()
    assert len(text) == 256 * KIB

    with pytest.raises(BadBase64):
        scan(tmp_path, f'["data:image/png;base64,{text}QUJD"]'.encode())


@pytest.mark.parametrize(
    ("document", "line", "column"),
    [
        (b'{"a": 1 2}', 1, 9),
        (b'{"a": 1\n "b": 2}', 2, 2),
        (b'{"a": "data:image/png;base64,QUJD" 5}', 1, 36),
        (b'{"a":\n"data:image/png;base64,QU\\u002bD",\n"b": nope}', 3, 6),
        (b'{"a": "x', 1, 9),
        (b'{"a": "\xff"}', 1, 8),
        (b"", 1, 1),
    ],
)
def test_bad_json_is_placed_in_what_was_sent(tmp_path: Path, document: bytes, line: int, column: int) -> None:
    for step in (1, 1000):
        folder = tmp_path / str(step)
        folder.mkdir()
        with pytest.raises(MalformedJson) as caught:
            scan(folder, document, step=step)
        assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    "document", [b"[NaN]", b"[1e999]", b"[" + b"9" * 5000 + b"]", b"{]", b'{"a"}', b"]", b'"x" "y"']
)
def test_what_the_standard_library_would_bend_is_refused(tmp_path: Path, document: bytes) -> None:
    with pytest.raises(MalformedJson):
        scan(tmp_path, document)


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_document_cut_anywhere_is_malformed_and_leaves_no_open_file(tmp_path: Path, cut: int) -> None:
    document = b'{"image": "data:image/png;base64,QUJD"}'

    with pytest.raises((MalformedJson, BadBase64)):
        scan(tmp_path, document[: len(document) - cut])


def test_a_key_given_twice_is_named_also_when_one_is_spelled_with_escapes(tmp_path: Path) -> None:
    with pytest.raises(DuplicateKey) as caught:
        scan(tmp_path, rb'{"n": 1, "\u006e": 2}', refuse_duplicates=True)

    assert caught.value.path == "n"
    assert scan(tmp_path, b'{"n": 1, "n": 2}').document == {"n": 2}


@pytest.mark.parametrize("size", [100, 101, 102, 300_000])
def test_a_value_above_its_limit_is_refused_before_it_is_written(tmp_path: Path, size: int) -> None:
    document = json.dumps({"mask": data_url(b"x" * size)}).encode()

    if size == 100:
        assert scan(tmp_path, document, step=50, value_bytes=100).values[0].size_bytes == 100
        return
    with pytest.raises(ValueTooLarge) as caught:
        scan(tmp_path, document, step=64 * KIB, value_bytes=100)

    assert caught.value.path == "mask"
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 102


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"[" * 70 + b"]" * 70, DocumentTooComplex),
        (b"[" + b"0," * 60_000 + b"0]", DocumentTooComplex),
        (b'["data:;base64,"' + b',"data:;base64,"' * 70 + b"]", DocumentTooComplex),
        (b'["' + b"x" * 2 * MIB + b'"]', DocumentTooLarge),
        (b'{"' + b"x" * 2 * MIB + b'": 1}', DocumentTooLarge),
        (b" " * 2 * MIB, DocumentTooLarge),
    ],
)
def test_what_would_cost_us_memory_or_time_is_refused(tmp_path: Path, document: bytes, error: type[ScanError]) -> None:
    with pytest.raises(error):
        scan(tmp_path, document, step=64 * KIB)


# --- memory ----


def test_a_value_of_24_mb_never_lies_in_memory(tmp_path: Path) -> None:
    block = os.urandom(48 * KIB)
    text = base64.b64encode(block)
    rounds = 24 * MIB // len(block)

    tracemalloc.start()
    with JsonScanner(tmp_path, data_urls=True, value_bytes=32 * MIB, document_bytes=4 * MIB) as scanner:
        scanner.push(b'{"prompt": "a fox", "image": "data:image/png;base64,')
        for _ in range(rounds):
            scanner.push(text)
        scanner.push(b'"}')
        found = scanner.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found.values[0].sha256 == hashlib.sha256(block * rounds).digest()
    assert peak < 2 * MIB


async def test_an_answer_with_24_mb_of_base64_never_lies_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(os.urandom(24 * MIB + 1))
    expected = hashlib.sha256(base64.b64encode(file.read_bytes())).digest()

    tracemalloc.start()
    digest = hashlib.sha256()
    async for piece in Rendered((Base64Of(file, 24 * MIB + 1),)).pieces():
        digest.update(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert digest.digest() == expected
    assert peak < 2 * MIB


# --- encoding ----


@pytest.mark.parametrize("size", [0, 1, 2, 3, 192 * KIB - 1, 192 * KIB, 192 * KIB + 1, 500_001])
async def test_an_answer_has_exactly_the_length_it_promises(tmp_path: Path, size: int) -> None:
    file = tmp_path / "image"
    file.write_bytes(random.randbytes(size))
    document = {"data": [{"b64_json": Base64Of(file, size), "url": "http://x"}], "prompt": '雪 "b64_json"', "n": 1}

    rendered = render_json(document)
    sent = b"".join([piece async for piece in rendered.pieces()])

    assert len(sent) == rendered.size_bytes
    assert json.loads(sent)["data"][0]["b64_json"] == base64.b64encode(file.read_bytes()).decode()
    assert json.loads(sent)["prompt"] == '雪 "b64_json"'


async def test_an_event_is_one_data_line_and_a_blank_line(tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(b"abc")

    rendered = render_event("image_generation.completed", {"b64_json": Base64Of(file, 3), "prompt": "two\nlines"})
    sent = b"".join([piece async for piece in rendered.pieces()])

    assert sent == b'event: image_generation.completed\ndata: {"b64_json":"YWJj","prompt":"two\\nlines"}\n\n'
    assert len(sent) == rendered.size_bytes


@pytest.mark.parametrize("actual", [0, 99, 101, 1_000_000])
async def test_a_file_of_another_length_breaks_the_answer_off(tmp_path: Path, actual: int) -> None:
    file = tmp_path / "image"
    file.write_bytes(bytes(actual))

    with pytest.raises(FileChanged):
        _ = [piece async for piece in render_json([Base64Of(file, 100)]).pieces()]


async def test_half_of_a_surrogate_pair_in_an_answer_is_escaped() -> None:
    sent = b"".join([piece async for piece in render_json({"revised_prompt": "\ud83d"}).pieces()])

    assert json.loads(sent) == {"revised_prompt": "\ud83d"}
