"""The fetcher against servers that misbehave, over real sockets on loopback."""

# ruff: noqa: ASYNC240 - the files of a test are small

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from app.errors import InputUrlRefused, InputUrlUnreachable, InvalidMedia, InvalidRequest
from app.fetch.client import FetchLimits, SafeFetcher, _PinnedConnector
from app.fetch.guard import Refused
from app.settings import Settings

KIB, MIB = 1024, 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
IMAGES = frozenset({"image/png", "image/jpeg", "image/webp"})
FAST = FetchLimits(
    resolve_s=0.3, connect_s=1.0, first_byte_s=0.3, gap_s=0.3, slow_window_s=0.2, slow_bytes_per_s=1 * MIB
)

Behaviour = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Site:
    """A loopback server that does what a test says, and remembers who came."""

    port: int
    requests: list[str] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@asynccontextmanager
async def site(behave: Behaviour, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            here.requests.append(head)
            await behave(head, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the fetcher left, as it should
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    here = Site(server.sockets[0].getsockname()[1])
    async with server:
        yield here


def answer(body: bytes = PNG, *, status: str = "200 OK", length: int | None = None, **headers: str) -> Behaviour:
    async def behave(_: str, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return behave


class Names:
    """A resolver that gives each name's answers in turn, the last one for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("no such name")
        given = self.answers[host]
        return given.pop(0) if len(given) > 1 else given[0]


@asynccontextmanager
async def fetching(*allowed: str, names: Names | None = None, **options: Any) -> AsyncIterator[SafeFetcher]:
    limits = options.pop("limits", FAST)
    context = options.pop("ssl_context", None)
    settings = Settings(fetch_allow_hosts=allowed, **options)
    fetcher = SafeFetcher(settings, names or Names(), limits=limits, ssl_context=context)
    yield fetcher
    await fetcher.close()


async def fetch(fetcher: SafeFetcher, url: str, out: Path, **options: Any) -> Any:
    given = {"param": "image", "max_bytes": MIB, "allowed_types": IMAGES, **options}
    return await fetcher.fetch(url, out, **given)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "fetched"


# --- what works ----


async def test_an_allow_listed_loopback_server_gives_the_file_and_what_it_is(out: Path) -> None:
    async with site(answer(content_type="text/html")) as here, fetching(f"127.0.0.1:{here.port}") as fetcher:
        found = await fetch(fetcher, here.url("/a.png?x=%2F"), out)

    assert out.read_bytes() == PNG
    assert (found.path, found.size_bytes, found.mime) == (out, len(PNG), "image/png")
    assert found.sha256 == hashlib.sha256(PNG).digest()
    assert here.requests[0].startswith("GET /a.png?x=%2F HTTP/1.1\r\n")


async def test_a_request_carries_nothing_that_identifies_its_sender(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with site(answer(set_cookie="a=b")) as here, fetching(f"127.0.0.1:{here.port}") as fetcher:
        await fetch(fetcher, here.url(), out)
        await fetch(fetcher, here.url(), out.with_name("second"))

    names = {line.split(":")[0].lower() for line in here.requests[1].splitlines()[1:] if line}
    assert names == {"host", "accept", "accept-encoding", "user-agent", "connection"}
    assert "accept-encoding: identity" in here.requests[1].lower()


async def test_redirects_are_followed_three_times_and_each_is_judged(out: Path) -> None:
    async def behave(head: str, writer: asyncio.StreamWriter) -> None:
        hop = int(head.split()[1].strip("/"))
        next_hop = answer() if hop == 0 else answer(b"", status="302 Found", location=f"/{hop - 1}")
        await next_hop(head, writer)

    async with site(behave) as here, fetching(f"127.0.0.1:{here.port}") as fetcher:
        assert (await fetch(fetcher, here.url("/3"), out)).size_bytes == len(PNG)
        with pytest.raises(InputUrlUnreachable):
            await fetch(fetcher, here.url("/4"), out.with_name("second"))

    assert len(here.requests) == 4 + 4


async def test_chunked_bodies_and_slow_starts_within_the_limits_are_fine(out: Path) -> None:
    async def behave(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (PNG[:3], PNG[3:70], PNG[70:]):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with site(behave) as here, fetching(f"127.0.0.1:{here.port}") as fetcher:
        await fetch(fetcher, here.url(), out)

    assert out.read_bytes() == PNG


async def test_a_name_is_resolved_once_and_the_connection_goes_to_that_answer(out: Path) -> None:
    names = Names(rebind_example=[["127.0.0.1"], ["::1"]])
    async with site(answer()) as here, fetching(f"rebind.example:{here.port}", names=names) as fetcher:
        await fetch(fetcher, here.url(host="rebind.example"), out)

    assert names.asked == ["rebind.example"]
    assert f"Host: rebind.example:{here.port}" in here.requests[0]


# --- where it must not go ----

LOOPBACK_FORMS = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0.0.0.0:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://１２７.0.0.1:{port}/",
    "http://user@127.0.0.1:{port}/",
    "http://loop.example:{port}/",
    "http://mixed.example:{port}/",
    "http://mapped.example:{port}/",
    "http://empty.example:{port}/",
]


@pytest.mark.parametrize("form", LOOPBACK_FORMS)
async def test_the_canary_on_loopback_sees_no_connection(out: Path, form: str) -> None:
    names = Names(
        localhost=[["127.0.0.1"]],
        loop_example=[["127.0.0.1"]],
        mixed_example=[["8.8.8.8", "127.0.0.1"]],
        mapped_example=[["::ffff:127.0.0.1"]],
        empty_example=[[]],
    )
    async with site(answer()) as canary, fetching(names=names, fetch_ports=(canary.port,)) as fetcher:
        with pytest.raises(InputUrlRefused) as caught:
            await fetch(fetcher, form.format(port=canary.port), out)

    assert canary.connections == 0
    assert caught.value.param == "image"
    assert caught.value.message == "The URL in 'image' is not allowed. It must be a public URL."
    assert not out.exists()


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "goal",
    ["http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:{canary}/", "http://rebind.example:{canary}/"],
)
async def test_a_redirect_never_leads_inside(out: Path, hops: int, goal: str) -> None:
    names = Names(rebind_example=[["127.0.0.1"]])

    async def behave(head: str, writer: asyncio.StreamWriter) -> None:
        left = int(head.split()[1].strip("/"))
        location = f"/{left - 1}" if left > 1 else goal.format(canary=canary.port)
        await answer(b"", status="302 Found", location=location)(head, writer)

    async with site(answer()) as canary, site(behave) as here:
        ports = (80, canary.port)
        async with fetching(f"127.0.0.1:{here.port}", names=names, fetch_ports=ports) as fetcher:
            with pytest.raises(InputUrlRefused if hops <= 3 else InputUrlUnreachable):
                await fetch(fetcher, here.url(f"/{hops}"), out)

    assert canary.connections == 0
    assert len(here.requests) == hops


async def test_a_name_that_turns_private_between_two_hops_is_refused(out: Path) -> None:
    async with site(answer()) as canary:
        names = Names(turn_example=[["127.0.0.1"]])
        redirect = answer(b"", status="307 Temporary Redirect", location=canary.url(host="turn.example"))
        async with site(redirect) as here:
            options = {"names": names, "fetch_ports": (canary.port,)}
            async with fetching(f"127.0.0.1:{here.port}", **options) as fetcher:
                with pytest.raises(InputUrlRefused):
                    await fetch(fetcher, here.url(), out)

    assert canary.connections == 0


async def test_a_peer_that_is_not_the_pinned_address_gets_no_request() -> None:
    async with site(answer()) as here:
        connector = _PinnedConnector(("127.0.0.1",), ssl_context=ssl.create_default_context())
        connector._pinned = frozenset({"8.8.8.8"})
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(Refused):
                await session.get(here.url())

    assert here.requests == []


async def test_host_suffixes_narrow_every_hop(out: Path) -> None:
    async with site(answer()) as here, fetching(f"127.0.0.1:{here.port}") as fetcher:
        with pytest.raises(InputUrlRefused):
            await fetch(fetcher, here.url(), out, host_suffixes=(".cdn.example",))

    assert here.connections == 0


@pytest.mark.parametrize(("host", "is_let"), [("cdn.example", True), ("a.cdn.example", True), ("acdn.example", False)])
@pytest.mark.parametrize("suffix", ["cdn.example", ".CDN.example"])
async def test_a_host_suffix_ends_at_a_dot(out: Path, host: str, suffix: str, is_let: bool) -> None:
    names = Names(**{host.replace(".", "_"): [["127.0.0.1"]]})
    async with site(answer()) as here, fetching(f"{host}:{here.port}", names=names) as fetcher:
        with nullcontext() if is_let else pytest.raises(InputUrlRefused):
            await fetch(fetcher, f"http://{host}:{here.port}/", out, host_suffixes=(suffix,))

    assert here.connections == is_let


async def test_a_port_that_is_not_listed_is_refused(out: Path) -> None:
    async with site(answer()) as here, fetching() as fetcher:
        with pytest.raises(InputUrlRefused):
            await fetch(fetcher, f"http://public.example:{here.port}/", out)


# --- what servers may do to us ----


async def _refuses(
    out: Path, behave: Behaviour, kind: type[InvalidRequest] = InputUrlUnreachable, **options: Any
) -> InvalidRequest:
    async with site(behave) as here, fetching(f"127.0.0.1:{here.port}") as fetcher:
        with pytest.raises(kind) as caught:
            await fetch(fetcher, here.url(), out, **options)

    assert not out.exists()
    assert "127.0.0.1" not in caught.value.message
    return caught.value


async def test_an_endless_body_is_stopped_at_the_limit_whatever_was_declared(out: Path) -> None:
    async def behave(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + PNG)
        while not writer.is_closing():
            writer.write(bytes(64 * KIB))
            await writer.drain()

    error = await _refuses(out, behave)

    assert error.message == "The URL in 'image' leads to a file larger than 1 MiB."


async def test_a_declared_length_above_the_limit_is_not_read_at_all(out: Path) -> None:
    error = await _refuses(out, answer(b"", length=MIB + 1))

    assert "larger than 1 MiB" in error.message


@pytest.mark.parametrize("limit", [len(PNG) - 1, len(PNG)])
async def test_the_limit_is_exact(out: Path, limit: int) -> None:
    if limit < len(PNG):
        await _refuses(out, answer(), max_bytes=limit)
        return
    async with site(answer()) as here, fetching(f"127.0.0.1:{here.port}") as fetcher:
        assert (await fetch(fetcher, here.url(), out, max_bytes=limit)).size_bytes == limit


@pytest.mark.parametrize(
    "behave",
    [
        answer(status="404 Not Found"),
        answer(status="206 Partial Content"),
        answer(status="204 No Content"),
        answer(status="500 Oops"),
        answer(status="302 Found"),
        answer(length=len(PNG) + 1),
        answer(gzip.compress(PNG), content_encoding="gzip"),
        answer(gzip.compress(PNG), content_encoding="br, identity"),
        answer(transfer_encoding="chunked"),
    ],
    ids=["404", "206", "204", "500", "no location", "cut", "gzip", "br", "length and chunked"],
)
async def test_every_other_answer_is_unreachable_without_any_detail(out: Path, behave: Behaviour) -> None:
    error = await _refuses(out, behave)

    assert error.message == "The URL in 'image' could not be read."
    assert error.param == "image"


async def test_garbage_instead_of_http_is_unreachable(out: Path) -> None:
    async def behave(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n" * 100)

    await _refuses(out, behave)


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + PNG]
)
async def test_silence_is_given_up(out: Path, start: bytes) -> None:
    async def behave(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        await writer.drain()
        await asyncio.wait_for(writer.wait_closed(), 30)

    async with site(behave) as here:
        limits = FetchLimits(connect_s=0.1, first_byte_s=0.1, gap_s=0.1)
        async with fetching(f"127.0.0.1:{here.port}", limits=limits) as fetcher:
            with pytest.raises(InputUrlUnreachable):
                await fetch(fetcher, here.url(), out)

    assert not out.exists()


async def test_a_drip_is_given_up_although_it_never_pauses(out: Path) -> None:
    async def behave(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + PNG[:8])
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)  # the misbehaviour itself

    await _refuses(out, behave)


async def test_the_whole_fetch_has_one_deadline(out: Path) -> None:
    async def behave(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + PNG)
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)  # the misbehaviour itself

    async with site(behave) as here, fetching(f"127.0.0.1:{here.port}", limits=FetchLimits()) as fetcher:
        with pytest.raises(InputUrlUnreachable):
            await fetch(fetcher, here.url(), out, total_s=0.2)

    assert not out.exists()


async def test_a_name_that_does_not_resolve_in_time_or_at_all_is_unreachable(out: Path) -> None:
    class Slow:
        async def resolve(self, host: str, port: int) -> list[str]:
            await asyncio.Event().wait()
            return []

    async with fetching() as fetcher:
        with pytest.raises(InputUrlUnreachable):
            await fetch(fetcher, "https://unknown.example/", out)
    async with fetching(names=Slow()) as fetcher:  # type: ignore[arg-type]
        with pytest.raises(InputUrlUnreachable):
            await fetch(fetcher, "https://slow.example/", out)


async def test_a_closed_port_is_unreachable(out: Path) -> None:
    async with site(answer()) as gone:
        pass

    async with fetching(f"127.0.0.1:{gone.port}") as fetcher:
        with pytest.raises(InputUrlUnreachable):
            await fetch(fetcher, gone.url(), out)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", "an empty file"),
        (b"<html>", "a file of an unknown type"),
        (b"x" * 500, "a file of an unknown type"),
        (b"GIF89a" + bytes(90), "image/gif"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(90), "video/mp4"),
    ],
)
async def test_the_first_bytes_decide_and_not_the_declared_type(out: Path, body: bytes, found: str) -> None:
    error = await _refuses(out, answer(body, content_type="image/png"), InvalidMedia)

    assert error.message == f"The URL in 'image' leads to {found}. Allowed: image/jpeg, image/png, image/webp."
    assert error.param == "image"


async def test_what_our_disk_refuses_is_not_the_urls_fault(out: Path) -> None:
    out.write_bytes(b"somebody else's")
    async with site(answer()) as here, fetching(f"127.0.0.1:{here.port}") as fetcher:
        with pytest.raises(FileExistsError):
            await fetch(fetcher, here.url(), out)

    assert out.read_bytes() == b"somebody else's"


# --- fairness ----


async def test_one_owner_has_four_fetches_at_a_time_and_others_do_not_wait_for_them(out: Path) -> None:
    running, peak, go, full = 0, 0, asyncio.Event(), asyncio.Event()

    async def behave(head: str, writer: asyncio.StreamWriter) -> None:
        nonlocal running, peak
        if "/quick" not in head:
            running += 1
            peak = max(peak, running)
            if running == 4:
                full.set()
            await go.wait()
            running -= 1
        await answer()(head, writer)

    limits = FetchLimits(per_owner=4, per_process=6)
    async with site(behave) as here, fetching(f"127.0.0.1:{here.port}", limits=limits) as fetcher:
        slow = [
            asyncio.create_task(fetch(fetcher, here.url(), out.with_name(f"slow-{n}"), owner="greedy"))
            for n in range(9)
        ]
        await asyncio.wait_for(full.wait(), 30)
        await fetch(fetcher, here.url("/quick"), out, owner="other")
        go.set()
        await asyncio.gather(*slow)

    assert peak == 4
    assert fetcher._owner_slots == {}


# --- TLS ----


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for good.example, and a client's that trusts its maker."""
    authority = trustme.CA()
    server_side, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("good.example").configure_cert(server_side)
    authority.configure_trust(trusting)
    return server_side, trusting


@pytest.mark.parametrize(("name", "is_right"), [("good.example", True), ("other.example", False)])
async def test_the_certificate_must_be_of_the_name_although_the_address_is_pinned(
    out: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext], name: str, is_right: bool
) -> None:
    server_side, trusting = tls
    names = Names(good_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])

    async with (
        site(answer(), tls=server_side) as here,
        fetching(f"{name}:{here.port}", names=names, ssl_context=trusting) as fetcher,
    ):
        url = f"https://{name}:{here.port}/"
        if is_right:
            assert (await fetch(fetcher, url, out)).size_bytes == len(PNG)
        else:
            with pytest.raises(InputUrlUnreachable):
                await fetch(fetcher, url, out)

    assert len(here.requests) == int(is_right)


async def test_https_does_not_lead_to_http(out: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_side, trusting = tls
    names = Names(good_example=[["127.0.0.1"]])

    async with (
        site(answer()) as plain,
        site(answer(b"", status="301 Moved", location=plain.url()), tls=server_side) as here,
        fetching(f"good.example:{here.port}", f"127.0.0.1:{plain.port}", names=names, ssl_context=trusting) as fetcher,
    ):
        with pytest.raises(InputUrlRefused):
            await fetch(fetcher, f"https://good.example:{here.port}/", out)

    assert plain.connections == 0


async def test_the_systems_resolver_is_used_by_default_and_its_answer_judged(out: Path) -> None:
    fetcher = SafeFetcher(Settings(), limits=FAST)

    with pytest.raises(InputUrlRefused):
        await fetch(fetcher, "http://localhost/", out)

    await fetcher.close()
    assert os.listdir(out.parent) == []
