"""The one HTTP client for upstreams: deadlines, size limits, base64 decoded while it arrives, and an honest answer to
the question that matters after a failure: may the upstream have accepted it?

What a status or an error body means is each provider's; `default_error` is the common reading.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiohttp
import structlog
from yarl import URL

from app.errors import NO_ROOM, MediagateError
from app.failpoints import failpoint
from app.fetch.client import Fetched, SafeFetcher
from app.media.base64_stream import DivertedValue, JsonScanner, ScanError, render_json
from app.upstreams.protocols import (
    Upstream,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)
from app.upstreams.wording import cleaned
from app.values import utcnow

log = structlog.get_logger()

T = TypeVar("T")

MIB = 1024 * 1024
CONNECT_S = 5.0
PIECE = 256 * 1024
ERROR_BODY_BYTES = 64 * 1024
RESULTS_AT_ONCE = 32
"""Of one upstream account: a result host that hangs keeps no other account's results waiting."""
FULL_WAIT_S = 1.0
"""How often a download is tried again while our disk is full."""
Phase = Literal["submit", "read"]
"""``submit``: a lost answer is UpstreamOutcomeUnknown. ``read``: a lost one is UpstreamError, and may be repeated."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart form: text, or a file of ours."""

    name: str
    value: str | Path
    filename: str | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer.

    ``document`` is the JSON, with base64 values diverted to files; None without a body, or when an error's was no JSON.
    """

    status: int
    headers: Mapping[str, str]
    """Lower-case names."""
    document: Any
    text: str
    """The first part of a body that was not JSON; never to be shown."""
    values: Sequence[DivertedValue] = ()
    """Files of the diverted values, in the order of the body; the document holds the same objects in their places."""

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def retry_after_s(self) -> float | None:
        """What the upstream asks us to wait: ``retry-after-ms``, else ``retry-after`` in seconds or as a date."""
        millis = self.headers.get("retry-after-ms", "")
        if millis.isdigit():
            return int(millis) / 1000
        text = self.headers.get("retry-after", "")
        try:
            return max(float(text), 0.0)
        except ValueError:
            pass
        try:
            return max((parsedate_to_datetime(text) - utcnow()).total_seconds(), 0.0)
        except (TypeError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one call. Seconds and bytes."""

    read_s: float = 30.0
    """Until the answer's head, and between two pieces of its body."""
    total_s: float = 60.0
    document_bytes: int = 16 * MIB
    """Of the JSON without its diverted values."""
    value_bytes: int = 64 * MIB
    """Of one diverted value, decoded."""


IMAGE = Limits(read_s=600.0, total_s=660.0)
POLL = Limits(read_s=15.0, total_s=60.0)
PROBE = Limits(read_s=5.5, total_s=5.5)
HASTY = Limits(read_s=3.0, total_s=3.0)
"""For a probe's second question: the first one's answer is not to be lost over it."""
INLINE_VIDEO = Limits(read_s=30.0, total_s=300.0, value_bytes=512 * MIB)


@dataclass(slots=True)
class UpstreamHttp:
    """One per process; `close` it at the end."""

    fetcher: SafeFetcher
    _sessions: dict[Phase, aiohttp.ClientSession] = field(default_factory=dict, init=False)
    _places: dict[str, asyncio.Semaphore] = field(default_factory=dict, init=False)
    """By upstream account: where its result downloads queue."""

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def send(
        self,
        method: str,
        url: str,
        *,
        phase: Phase,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        form: Sequence[Part] | None = None,
        params: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        limits: Limits = Limits(),
        divert: frozenset[str] = frozenset(),
        folder: Path | None = None,
    ) -> Answer:
        """Send one request and read its whole answer. Never retries, follows no redirect.

        ``divert``: names of JSON fields whose base64 goes to files in ``folder``. ``json`` may hold `Base64Of`
        values: files that are encoded from disk while the body is sent.
        Raises: UpstreamBusy when nothing was sent; for a lost, cut, endless or unreadable answer
        UpstreamOutcomeUnknown (submit) or UpstreamError (read).
        """
        async with self.stream(
            method, url, phase=phase, headers=headers, json=json, form=form, params=params, limits=limits
        ) as response:
            return await _read_answer(response, phase, limits, divert, folder)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        phase: Phase,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        form: Sequence[Part] | None = None,
        params: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        limits: Limits = Limits(),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """As `send`, for an answer that is read piece by piece (SSE). Failures inside the block are sorted alike."""
        body, more = _body(json, form)
        timeout = aiohttp.ClientTimeout(
            total=limits.total_s, connect=CONNECT_S, sock_connect=CONNECT_S, sock_read=limits.read_s
        )
        sent = False
        try:
            async with self._client(phase).request(
                method,
                url,
                headers={**more, **(headers or {})},
                data=body,
                params=params,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                sent = True
                if phase == "submit":
                    await failpoint("after_post_sent")
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UpstreamBusy(f"cannot connect: {type(error).__name__}") from None
        except UpstreamError:
            raise
        except OSError as error:
            if error.errno in NO_ROOM and not isinstance(error, aiohttp.ClientError):
                raise  # the answer came; it is our disk that is full
            raise lost(phase, f"{'reading the answer' if sent else 'sending'}: {type(error).__name__}") from None
        except aiohttp.ClientError as error:
            raise lost(phase, f"{'reading the answer' if sent else 'sending'}: {type(error).__name__}") from None

    async def download(
        self,
        url: str,
        out: Path,
        *,
        upstream: Upstream,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = 512 * MIB,
        total_s: float = 300.0,
        follow_with_headers: bool = False,
    ) -> int:
        """Write what the upstream's own API serves (with our key) into ``out``; returns its size.

        A redirect leads on without our key and as `fetch` goes, unless it stays on the same origin and
        ``follow_with_headers`` is set. Raises: UpstreamError, with the status where there was one; OSError as `fetch`.
        """

        async def once() -> int:
            return await self._download(url, out, upstream, headers, max_bytes, total_s, follow_with_headers)

        return await _with_room(once, wait_s=total_s)

    async def _download(
        self,
        url: str,
        out: Path,
        upstream: Upstream,
        headers: Mapping[str, str] | None,
        max_bytes: int,
        total_s: float,
        follow_with_headers: bool,
    ) -> int:
        limits = Limits(read_s=30.0, total_s=total_s)
        for _ in range(4):
            async with self.stream("GET", url, phase="read", headers=headers, limits=limits) as response:
                if response.status in (301, 302, 303, 307, 308):
                    target = response.url.join(URL(response.headers.get("location", "")))
                elif response.status == 200:
                    return await _save(response.content.iter_chunked(PIECE), out, max_bytes)
                else:
                    raise UpstreamError(f"download: status {response.status}", http_status=response.status)
            if not (follow_with_headers and target.origin() == response.url.origin()):
                fetched = await self.fetch(str(target), out, upstream=upstream, max_bytes=max_bytes, total_s=total_s)
                return fetched.size_bytes
            url = str(target)
        raise UpstreamError("download: too many redirects")

    async def fetch(
        self, url: str, out: Path, *, upstream: Upstream, max_bytes: int = 512 * MIB, total_s: float = 300.0
    ) -> Fetched:
        """Write what a result URL leads to, without any key, through the safe fetcher.

        It goes to any public host, or to those the account's option ``result_hosts`` names. ``total_s`` is for the
        transfer; before it, the account's downloads queue. Raises: UpstreamError; OSError when our disk is full, and
        was for ``total_s``: what was paid for waits for room.
        """
        hosts = upstream.options.get("result_hosts")
        place = self._places.setdefault(upstream.name, asyncio.Semaphore(RESULTS_AT_ONCE))

        async def once() -> Fetched:
            return await self.fetcher.fetch(
                url, out, param="result", max_bytes=max_bytes, total_s=total_s, host_suffixes=hosts
            )

        try:
            async with place:
                return await _with_room(once, wait_s=total_s)
        except MediagateError as error:
            raise UpstreamError(f"result: {error.reason}") from None

    def _client(self, phase: Phase) -> aiohttp.ClientSession:
        """A submit has a connection of its own: a kept one may end just as we send, and nobody could tell."""
        session = self._sessions.get(phase)
        if session is None:
            session = self._sessions[phase] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, force_close=phase == "submit"),
                read_bufsize=PIECE,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent",),
                headers={"User-Agent": "mediagate"},
            )
            # aiohttp would send a GET, PUT or DELETE again by itself when a kept connection ends before the head.
            session._retry_connection = False
        return session


async def _with_room(work: Callable[[], Awaitable[T]], *, wait_s: float) -> T:
    """Do it again while our disk is full. Raises: OSError when it still is."""
    until = time.monotonic() + wait_s
    while True:
        try:
            return await work()
        except OSError as error:
            if error.errno not in NO_ROOM or time.monotonic() >= until:
                raise
            log.error("disk.full", error=str(error))
        await asyncio.sleep(FULL_WAIT_S)


def lost(phase: Phase, what: str) -> UpstreamError:
    """Return the error for an answer that was lost on its way."""
    return UpstreamOutcomeUnknown(what) if phase == "submit" else UpstreamError(what)


def default_error(answer: Answer, phase: Phase, *, said: str | None = None) -> UpstreamError:
    """Return the common reading of an answer that is not 2xx; ``said`` is the upstream's own word for our log.

    A provider looks into the body first, and asks this for what it does not know. The message is cleaned.
    """
    status, note = answer.status, f"status {answer.status}: {cleaned(said or answer.text) or 'no words'}"
    if status == 429:
        return UpstreamBusy(note, retry_after_s=answer.retry_after_s, http_status=status)
    if status in (401, 402, 403):
        return UpstreamDenied(note, is_spent=status == 402, http_status=status)
    if status in (404, 410) and phase == "submit":
        return UpstreamDenied(note, http_status=status)  # a retired model, a wrong base URL: ours to mend
    if status in (408, 409) or status >= 500 or 300 <= status < 400:
        error = lost(phase, note)
        error.http_status = status
        return error
    if phase == "submit":
        return UpstreamRejected(note, http_status=status)
    return UpstreamError(note, http_status=status)


def _body(json: Any, form: Sequence[Part] | None) -> tuple[Any, dict[str, str]]:
    if form is not None:
        return _multipart(form), {}
    if json is None:
        return None, {}
    rendered = render_json(json)
    return rendered.pieces(), {"content-type": "application/json", "content-length": str(rendered.size_bytes)}


def _multipart(form: Sequence[Part]) -> aiohttp.MultipartWriter:
    writer = aiohttp.MultipartWriter("form-data")
    for part in form:
        if isinstance(part.value, Path):
            # aiohttp closes what it has sent, and what it could not send.
            payload = writer.append(
                part.value.open("rb"), {"Content-Type": part.content_type or "application/octet-stream"}
            )
            payload.set_content_disposition("form-data", name=part.name, filename=part.filename or part.value.name)
        else:
            writer.append(part.value).set_content_disposition("form-data", name=part.name)
    return writer


async def _read_answer(
    response: aiohttp.ClientResponse, phase: Phase, limits: Limits, divert: frozenset[str], folder: Path | None
) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    if not 200 <= response.status < 300:
        raw = await _at_most(response.content.iter_chunked(PIECE), ERROR_BODY_BYTES)
        text = raw.decode("utf-8", "replace")
        try:
            return Answer(response.status, headers, jsonlib.loads(raw), text)
        except ValueError:
            return Answer(response.status, headers, None, text)
    place = folder or Path("/nonexistent")
    scanner = JsonScanner(place, keys=divert, value_bytes=limits.value_bytes, document_bytes=limits.document_bytes)
    has_body = False
    try:
        with scanner:
            async for piece in response.content.iter_chunked(PIECE):
                has_body = True
                scanner.push(piece)
            if not has_body:  # 204, and what means the same
                return Answer(response.status, headers, None, "")
            scanned = scanner.finish()
    except ScanError as error:
        raise lost(phase, f"status {response.status}, unreadable: {type(error).__name__}") from None
    return Answer(response.status, headers, scanned.document, "", tuple(scanned.values))


async def _at_most(pieces: AsyncIterable[bytes], limit: int) -> bytes:
    got = bytearray()
    async for piece in pieces:
        got += piece
        if len(got) >= limit:
            break
    return bytes(got[:limit])


async def _save(pieces: AsyncIterable[bytes], out: Path, max_bytes: int) -> int:
    size = 0
    try:
        with out.open("wb") as file:
            async for piece in pieces:
                size += len(piece)
                if size > max_bytes:
                    raise UpstreamError(f"download: larger than {max_bytes} bytes")
                file.write(piece)
    except BaseException:
        out.unlink(missing_ok=True)  # noqa: ASYNC240 - must happen even while this is being cancelled
        raise
    return size
