"""Bodies that mean harm, byte by byte over a socket to a real process: an answer in the envelope, and nothing left."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.credits.ledger import Ledger
from tests.factories import make_account, make_key
from tests.plugins.gateway import Gateway

MIB = 1 << 20
BOUNDARY = "----limits"
OPEN = f"--{BOUNDARY}\r\n".encode()
CLOSE = f"--{BOUNDARY}--\r\n".encode()
FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
ANSWER_S = 60


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    error: dict[str, object]
    sent_bytes: int


@dataclass
class Sender:
    """One account's raw connection to the gateway."""

    gateway: Gateway
    engine: AsyncEngine
    account_id: int
    secret: str

    async def post(
        self,
        body: Callable[[], Iterator[bytes]],
        *,
        content_type: str = f"multipart/form-data; boundary={BOUNDARY}",
        length: int | None = None,
        more: bytes = b"",
    ) -> Answer:
        """Send it in chunks, or as ``length`` says, until it is over or an answer is there."""
        host, port = self.gateway.base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        head = (
            f"POST /v1/images/edits HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {self.secret}\r\n"
            f"Content-Type: {content_type}\r\n{framing}\r\n"
        )
        writer.write(head.encode() + more + b"\r\n")
        answer = asyncio.create_task(all_of(reader))
        sent = 0
        try:
            for piece in body():
                if answer.done():
                    break
                writer.write(piece if length is not None else b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
                sent += len(piece)
            if length is None:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        except ConnectionError:
            pass  # it would not hear more
        async with asyncio.timeout(ANSWER_S):
            raw = await answer
        writer.close()
        head_bytes, _, content = raw.partition(b"\r\n\r\n")
        assert head_bytes, f"no answer after {sent} bytes"
        return Answer(int(head_bytes.split()[1]), json.loads(content)["error"], sent)


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """Read one answer; a server that will not hear the rest of a body may reset the connection after it."""
    raw = b""
    with suppress(ConnectionError):
        while piece := await reader.read(65_536):
            raw += piece
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", raw)
            if length is not None and len(raw.partition(b"\r\n\r\n")[2]) >= int(length[1]):
                break
    return raw


@pytest.fixture
async def sender(gateway: Gateway) -> AsyncIterator[Sender]:
    engine = db.make_engine(gateway.database_url, pool_size=1)
    account = await make_account(engine, credits=100)
    yield Sender(gateway, engine, account.id, (await make_key(engine, account)).secret)
    await engine.dispose()


def part(name: str, value: bytes = b"x") -> bytes:
    return OPEN + f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"


def whole(*pieces: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter(pieces)


def film_of(size_bytes: int, start: bytes) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        yield start
        for _ in range(size_bytes // MIB):
            yield bytes(MIB)
        yield b"\r\n" + CLOSE

    return pieces


BAD = {
    "ten thousand parts": whole(*(part(f"field{number}") for number in range(10_000)), CLOSE),
    "ten thousand parts of one name": whole(*(part("prompt") for _ in range(10_000)), CLOSE),
    "a thousand files": whole(*(OPEN + FILE + b"x\r\n" for _ in range(1000)), CLOSE),
    "a part's header without an end": whole(OPEN, b"X-Long: ", *(b"a" * 1000 for _ in range(2000))),
    "ten thousand headers of one part": whole(OPEN, *(b"X-%d: a\r\n" % number for number in range(10_000))),
    "no closing boundary": whole(part("prompt"), OPEN + FILE, b"\x89PNG\r\n\x1a\n"),
    "no boundary at all": whole(b"just bytes " * 100),
    "only dashes": whole(b"-" * 100_000),
    "a form in a form": whole(
        OPEN, b'Content-Disposition: form-data; name="image"\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n',
        b'--in\r\nContent-Disposition: file; filename="../../etc/passwd"\r\n\r\nx\r\n--in--\r\n', CLOSE,
    ),
    "a text of ten MiB": whole(part("prompt", b"x" * 10 * MIB), CLOSE),
    "a name of a MiB": whole(part("p" * MIB), CLOSE),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
async def test_a_form_that_makes_no_sense_is_refused_in_the_envelope(sender: Sender, what: str) -> None:
    answer = await sender.post(BAD[what])

    assert answer.status in (400, 413), answer
    assert answer.error["message"]


async def test_a_body_that_is_declared_too_large_is_refused_before_a_byte_of_it_is_sent(sender: Sender) -> None:
    answer = await sender.post(whole(), length=sender.gateway.settings.upload_total_bytes + 1)

    assert (answer.status, answer.sent_bytes) == (413, 0)


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_file_of_251_mib_ends_at_its_limit(sender: Sender, is_declared: bool) -> None:
    limit = sender.gateway.settings.upload_file_bytes
    size = 251 * MIB
    body = film_of(size, OPEN + FILE)
    before = psutil.Process(sender.gateway.api.pid).memory_info().rss

    answer = await sender.post(body, length=size + len(OPEN + FILE) + 2 + len(CLOSE) if is_declared else None)

    assert answer.status == 413
    assert answer.sent_bytes < limit + 40 * MIB  # and what lay in the buffers between
    assert psutil.Process(sender.gateway.api.pid).memory_info().rss - before < 50 * MIB


async def test_a_request_header_of_a_mib_is_refused(sender: Sender) -> None:
    answer = await sender.post(whole(), length=0, more=b"X-Long: " + b"a" * MIB + b"\r\n")

    assert answer.status in (400, 431)  # the parser's own limit comes first


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"prompt":' * 50_000, '{"prompt": "' + "\\u0041" * 10], ids=str.__len__
)
async def test_json_that_nests_without_end_is_refused(sender: Sender, text: str) -> None:
    answer = await sender.post(whole(text.encode()), content_type="application/json", length=len(text))

    assert answer.status == 400, answer


async def test_after_all_of_them_nothing_is_held_and_nothing_lies_in_the_spool(sender: Sender) -> None:
    for body in BAD.values():
        await sender.post(body)

    balance = await Ledger(sender.engine).balance(sender.account_id)
    assert (balance.credits, balance.held) == (100, 0)
    async with asyncio.timeout(10):
        while any(sender.gateway.settings.spool_dir.iterdir()):  # noqa: ASYNC110 - nothing tells of an empty folder
            await asyncio.sleep(0.05)
