"""Fetch a URL that a stranger gave us, into a file, without going anywhere that is not public.

Each hop is judged before it is resolved, its addresses before one is connected to, and the connection goes to exactly
those addresses. Whatever fails, the caller learns only that the URL was refused or unreachable; our log knows why.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol
from urllib.parse import urljoin

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.tracing import Trace
from yarl import URL

from app.errors import InputUrlRefused, InputUrlUnreachable, InvalidMedia
from app.fetch.guard import Refused, Rules, Target, judge_addresses, judge_url
from app.fetch.sniff import HEAD_BYTES, sniff
from app.settings import MIB, Settings

log = structlog.get_logger(__name__)

MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WRITE_BYTES = 256 * 1024
DROP_BYTES, DROP_S = 16 * 1024, 1.0
_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "Mediagate"}


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long one fetch may take, and how many may run. Seconds, bytes."""

    resolve_s: float = 3.0
    connect_s: float = 5.0
    first_byte_s: float = 10.0
    gap_s: float = 10.0
    slow_window_s: float = 20.0
    slow_bytes_per_s: float = 32 * 1024
    """Slower than this over a whole window is given up."""
    per_owner: int = 4
    per_process: int = 64


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete file, flushed to the page cache."""

    path: Path
    size_bytes: int
    sha256: bytes
    mime: str | None
    """By its first bytes; None when they are of no type we know."""


class Resolver(Protocol):
    """Turns a name into addresses; swapped in tests."""

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return every address. Raises: OSError."""


class Unreachable(Exception):
    """The fetch failed. The message is for our log; ``public`` may be shown, as it tells nothing of a network."""

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        self.public = public


class WrongFile(Exception):
    """The URL leads to a file, and not to one that is allowed. The message goes on after the URL's name."""


class SafeFetcher:
    """One per process. ``await close()`` at the end."""

    def __init__(
        self,
        settings: Settings,
        resolver: Resolver | None = None,
        *,
        limits: FetchLimits | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Raises: ValueError when a network in the settings is none."""
        self._rules = Rules.of(
            ports=settings.fetch_ports,
            allow_http=settings.fetch_allow_http,
            allow_hosts=settings.fetch_allow_hosts,
            refuse_networks=settings.fetch_refuse_networks,
            own_url=settings.public_url,
        )
        self._limits = limits or FetchLimits()
        self._resolver: Resolver = SystemResolver() if resolver is None else resolver
        self._ssl = ssl_context or ssl.create_default_context()
        self._process_slots = asyncio.Semaphore(self._limits.per_process)
        self._owner_slots: dict[Hashable, tuple[asyncio.Semaphore, int]] = {}

    async def close(self) -> None:
        """Let go of the threads that resolve names."""
        if isinstance(self._resolver, SystemResolver):
            self._resolver.close()

    async def fetch(
        self,
        url: str,
        out: Path,
        *,
        param: str,
        max_bytes: int,
        allowed_types: frozenset[str] | None = None,
        owner: Hashable = None,
        total_s: float = 60.0,
        host_suffixes: Sequence[str] | None = None,
    ) -> Fetched:
        """Write what ``url`` leads to into ``out``, which must not exist, and remove it again on any failure.

        ``allowed_types`` are media types as ``sniff`` tells them; ``host_suffixes`` narrows the hosts to these and
        those below them, for every hop; ``owner`` is whose share of the slots it takes, None: none, as the caller
        limits how many there are at once; ``total_s`` covers all of it, the wait for a slot too. Raises:
        InputUrlRefused, InputUrlUnreachable; InvalidMedia for a file that is empty or of another type; OSError when
        the disk is full.
        """
        hop = _Hop("")
        try:
            async with asyncio.timeout(total_s), self._slot(owner):
                return await self._follow(url, out, hop, max_bytes, allowed_types, host_suffixes)
        except Refused as error:
            log.info("fetch.refused", host=hop.host, why=str(error))
            raise InputUrlRefused(
                f"The URL in '{param}' is not allowed. It must be a public URL.", param=param
            ) from None
        except WrongFile as error:
            log.info("fetch.wrong_file", host=hop.host, why=str(error))
            raise InvalidMedia(f"The URL in '{param}' leads to {error}.", param=param) from None
        except (Unreachable, TimeoutError) as error:
            log.info("fetch.failed", host=hop.host, why=str(error) or "timeout")
            public = getattr(error, "public", None) or "could not be read"
            raise InputUrlUnreachable(f"The URL in '{param}' {public}.", param=param) from None

    def check(self, url: str, *, param: str) -> None:
        """Judge what can be judged without the network. Raises: InputUrlRefused."""
        try:
            target = judge_url(url, self._rules)
            if target.address is not None and not target.is_allow_listed:
                judge_addresses([target.address], self._rules)
        except Refused as error:
            log.info("fetch.refused", why=str(error))
            raise InputUrlRefused(
                f"The URL in '{param}' is not allowed. It must be a public URL.", param=param
            ) from None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, total_s: float) -> int:
        """Send ``body`` once and return the status; no redirect is followed, and what is answered is dropped.

        Raises: Refused, Unreachable, TimeoutError. Who calls limits how many there are at once.
        """
        async with asyncio.timeout(total_s):
            target = judge_url(url, self._rules)
            addresses = await self._resolve(target)
            async with self._open(target, addresses, headers=headers, body=body) as response:
                await _drop(response)
                return response.status

    async def _follow(
        self,
        url: str,
        out: Path,
        hop: _Hop,
        max_bytes: int,
        allowed_types: frozenset[str] | None,
        host_suffixes: Sequence[str] | None,
    ) -> Fetched:
        for _ in range(MAX_REDIRECTS + 1):
            target = judge_url(url, self._rules)
            hop.host = target.host
            if host_suffixes is not None and not f".{target.host}".endswith(
                tuple(f".{suffix.lower().lstrip('.')}" for suffix in host_suffixes)
            ):
                raise Refused("host suffix")
            addresses = await self._resolve(target)
            async with self._open(target, addresses) as response:
                if response.status not in _REDIRECTS:
                    return await self._store(response, out, max_bytes, allowed_types)
                location = response.headers.get("Location", "")
            if not location:
                raise Unreachable("redirect without a location")
            try:
                url = urljoin(target.url, location)
            except ValueError:
                raise Refused("malformed redirect") from None
            if target.scheme == "https" and not url.lower().startswith("https:"):
                raise Refused("redirect from https to something else")
        raise Unreachable("too many redirects")

    async def _resolve(self, target: Target) -> tuple[str, ...]:
        """Return the addresses that may be connected to: all of the name's, or none."""
        address = target.address
        if address is None:
            try:
                async with asyncio.timeout(self._limits.resolve_s):
                    found = await self._resolver.resolve(target.host, target.port)
            except (OSError, UnicodeError) as error:
                raise Unreachable(f"name not resolved: {error}") from None
        else:
            found = [address]
        if target.is_allow_listed and found:
            return tuple(found)
        return judge_addresses(found, self._rules)

    @asynccontextmanager
    async def _open(
        self,
        target: Target,
        addresses: tuple[str, ...],
        *,
        headers: Mapping[str, str] = _HEADERS,
        body: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Connect to one of the addresses and read the answer's head. Nothing is shared with any other fetch."""
        connector = _PinnedConnector(addresses, ssl_context=self._ssl)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_s)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_WRITE_BYTES,
        ) as session:
            try:
                async with asyncio.timeout(self._limits.connect_s + self._limits.first_byte_s):
                    response = await session.request(
                        "GET" if body is None else "POST",
                        URL(target.url, encoded=True),
                        headers=headers,
                        data=body,
                        allow_redirects=False,
                    )
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise Unreachable(f"no answer: {type(error).__name__}") from None
            try:
                yield response
            finally:
                response.close()

    async def _store(
        self, response: aiohttp.ClientResponse, out: Path, max_bytes: int, allowed_types: frozenset[str] | None
    ) -> Fetched:
        if response.status != 200:
            raise Unreachable(f"status {response.status}")
        if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise Unreachable("content encoding")
        if (response.content_length or 0) > max_bytes:
            raise _too_large(max_bytes)
        file = out.open("xb", buffering=_WRITE_BYTES)
        try:
            with file:
                return await self._copy(response, file, out, max_bytes, allowed_types)
        except BaseException:
            out.unlink(missing_ok=True)  # noqa: ASYNC240 - must happen even while this is being cancelled
            raise

    async def _copy(
        self,
        response: aiohttp.ClientResponse,
        file: IO[bytes],
        out: Path,
        max_bytes: int,
        allowed_types: frozenset[str] | None,
    ) -> Fetched:
        size, digest, head = 0, hashlib.sha256(), b""
        is_judged = False
        async for chunk in self._chunks(response):
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            digest.update(chunk)
            file.write(chunk)
            if len(head) < HEAD_BYTES:
                head += chunk[: HEAD_BYTES - len(head)]
            if not is_judged and len(head) == HEAD_BYTES:
                _judge_type(head, allowed_types)
                is_judged = True
        if not is_judged:
            _judge_type(head, allowed_types)
        return Fetched(out, size, digest.digest(), sniff(head))

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the body. Raises: Unreachable for a cut, stalled or dripping one."""
        window_start, window_bytes = time.monotonic(), 0
        while True:
            try:
                async with asyncio.timeout(self._limits.gap_s):
                    chunk = await response.content.readany()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise Unreachable(f"body broke off: {type(error).__name__}") from None
            if not chunk:
                return
            yield chunk
            window_bytes += len(chunk)
            passed = time.monotonic() - window_start
            if passed >= self._limits.slow_window_s:
                if window_bytes < self._limits.slow_bytes_per_s * passed:
                    raise Unreachable("too slow")
                window_start, window_bytes = time.monotonic(), 0

    @asynccontextmanager
    async def _slot(self, owner: Hashable) -> AsyncIterator[None]:
        """Wait for a place: first among the owner's own fetches, so that waiting takes none from others."""
        if owner is None:
            yield
            return
        semaphore, users = self._owner_slots.get(owner, (asyncio.Semaphore(self._limits.per_owner), 0))
        self._owner_slots[owner] = (semaphore, users + 1)
        try:
            async with semaphore, self._process_slots:
                yield
        finally:
            semaphore, users = self._owner_slots.pop(owner)
            if users > 1:
                self._owner_slots[owner] = (semaphore, users - 1)


class SystemResolver:
    """The system's own resolver, on threads of its own: slow names must not take the threads that others need."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="resolve")

    async def resolve(self, host: str, port: int) -> list[str]:
        """See Resolver."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _addresses, host, port)

    def close(self) -> None:
        """Do not wait for look-ups that hang."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class _Hop:
    """Where we are, for the log."""

    host: str


class _PinnedConnector(aiohttp.TCPConnector):
    """Connects to the given addresses and to nothing else, whatever a second look-up would say."""

    def __init__(self, addresses: tuple[str, ...], *, ssl_context: ssl.SSLContext) -> None:
        super().__init__(
            resolver=_PinnedResolver(addresses), use_dns_cache=False, force_close=True, limit=1, ssl=ssl_context
        )
        self._pinned = frozenset(addresses)

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature of aiohttp
    ) -> aiohttp.connector.Connection:
        """Check the peer once more, before a byte of the request is sent."""
        connection = await super().connect(req, traces, timeout)
        transport = connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        if peer is None or peer[0] not in self._pinned:
            connection.close()
            raise Refused("connected to another address")
        return connection


class _PinnedResolver(AbstractResolver):
    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def _drop(response: aiohttp.ClientResponse) -> None:
    """Read a short answer to its end, so that the receiver is not cut off; a long or slow one is not waited for."""
    try:
        async with asyncio.timeout(DROP_S):
            await response.content.readexactly(DROP_BYTES)
    except (asyncio.IncompleteReadError, aiohttp.ClientError, OSError, ValueError):
        return


def _addresses(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _judge_type(head: bytes, allowed_types: frozenset[str] | None) -> None:
    mime = sniff(head)
    if head and (allowed_types is None or mime in allowed_types):
        return
    found = (mime or "a file of an unknown type") if head else "an empty file"
    raise WrongFile(f"{found}. Allowed: {', '.join(sorted(allowed_types))}" if allowed_types else found)


def _too_large(max_bytes: int) -> Unreachable:
    return Unreachable("too large", public=f"leads to a file larger than {max_bytes / MIB:g} MiB")
