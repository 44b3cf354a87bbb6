"""The client for upstreams: sends once, reads what is empty as empty, and repeats no stranger's words."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.fetch.client import SafeFetcher
from app.settings import Settings
from app.upstreams import http as client
from app.upstreams.contract.harness import SECRET
from app.upstreams.http import Answer, Phase, UpstreamHttp, default_error
from app.upstreams.protocols import Upstream, UpstreamError, UpstreamOutcomeUnknown

PHASES: list[Phase] = ["submit", "read"]


@dataclass
class Server:
    """Answers /empty, /none and /fine; cuts /cut before the head."""

    url: str = ""
    arrived: list[str] = field(default_factory=list)
    peers: set[object] = field(default_factory=set)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        self.arrived.append(f"{request.method} {request.path}")
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        match request.path:
            case "/cut":
                request.transport.close()
            case "/moved":
                raise web.HTTPFound(f"{self.url}/fine")
            case "/hang":
                self.hanging.set()
                await asyncio.Event().wait()
            case "/none":
                return web.Response(status=204)
            case "/fine":
                return web.json_response({"fine": True})
        return web.Response()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[UpstreamHttp]:
    fetcher = SafeFetcher(Settings())
    http = UpstreamHttp(fetcher)
    yield http
    await http.close()
    await fetcher.close()


@pytest.fixture
async def results(server: Server) -> AsyncIterator[UpstreamHttp]:
    fetcher = SafeFetcher(Settings(fetch_allow_hosts=[server.url.removeprefix("http://")]))
    http = UpstreamHttp(fetcher)
    yield http
    await http.close()
    await fetcher.close()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_what_is_cut_before_the_head_arrived_once(
    server: Server, http: UpstreamHttp, method: str, phase: Phase
) -> None:
    await http.send("GET", f"{server.url}/fine", phase="read")  # aiohttp resends on kept connections only

    with pytest.raises(UpstreamError) as caught:
        await http.send(method, f"{server.url}/cut", phase=phase)

    assert type(caught.value) is (UpstreamOutcomeUnknown if phase == "submit" else UpstreamError)
    assert server.arrived == ["GET /fine", f"{method} /cut"]
    assert len(server.peers) == (2 if phase == "submit" else 1)


async def test_a_submit_has_a_connection_of_its_own_and_polls_share_theirs(server: Server, http: UpstreamHttp) -> None:
    for phase in ("submit", "submit", "read", "read"):
        await http.send("POST", f"{server.url}/fine", phase=phase)

    assert len(server.peers) == 3


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("path", "status"), [("none", 204), ("empty", 200)])
async def test_an_empty_body_is_an_answer_without_a_document(
    server: Server, http: UpstreamHttp, path: str, status: int, phase: Phase
) -> None:
    answer = await http.send("DELETE", f"{server.url}/{path}", phase=phase)

    assert (answer.status, answer.document, answer.text, answer.values) == (status, None, "", ())
    assert answer.is_ok


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("status", [302, 400, 401, 404, 408, 429, 500])
@pytest.mark.parametrize("is_said", [True, False])
def test_the_common_reading_repeats_no_secret(status: int, phase: Phase, is_said: bool) -> None:
    words = f"Your key {SECRET} is unknown at https://10.1.2.3/v1, see http://internal.example.com"
    answer = Answer(status, {}, None, "" if is_said else words)

    error = default_error(answer, phase, said=words if is_said else None)

    assert str(error).startswith(f"status {status}: Your key ")
    for part in (SECRET, "10.1.2.3", "internal"):
        assert part not in f"{error} {error.public}"
    assert error.http_status == status


def test_the_common_reading_of_no_words_says_so() -> None:
    assert str(default_error(Answer(500, {}, None, "{}"), "read")) == "status 500: no words"


# --- results ----


async def test_a_result_host_that_hangs_keeps_no_other_account_waiting(
    server: Server, results: UpstreamHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RESULTS_AT_ONCE", 1)
    url, slow = f"{server.url}/fine", Upstream("slow", "openai")
    hanging = asyncio.create_task(results.fetch(f"{server.url}/hang", tmp_path / "a", upstream=slow, total_s=0.5))
    await asyncio.wait_for(server.hanging.wait(), 30)
    queued = asyncio.create_task(results.fetch(url, tmp_path / "b", upstream=slow, total_s=0.5))

    await results.fetch(url, tmp_path / "c", upstream=Upstream("other", "openai"))

    assert not hanging.done()
    with pytest.raises(UpstreamError):
        await hanging
    assert (await queued).size_bytes  # its time began when it had its place


@pytest.mark.parametrize("way", ["fetch", "download"])
async def test_a_result_waits_for_room_on_our_disk(
    server: Server, results: UpstreamHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(client, "FULL_WAIT_S", 0.01)
    out, upstream, path = tmp_path / "out", Upstream("a", "openai"), "fine"
    if way == "fetch":  # the first write of each finds no room
        monkeypatch.setattr(results.fetcher, "_copy", once_full(results.fetcher._copy))
    else:
        out.symlink_to("/dev/full")
    await getattr(results, way)(f"{server.url}/{path}", out, upstream=upstream)

    assert out.read_bytes() == b'{"fine": true}'
    assert len(server.arrived) == 2


@pytest.mark.parametrize("way", ["fetch", "download"])
async def test_a_disk_that_stays_full_is_no_fault_of_the_upstream(
    server: Server, results: UpstreamHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(results.fetcher, "_copy", full)
    monkeypatch.setattr(client, "_save", full)

    with pytest.raises(OSError, match="full"):
        await getattr(results, way)(f"{server.url}/fine", tmp_path / "a", upstream=Upstream("a", "openai"), total_s=0.1)


def once_full(copy: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    tries = iter([OSError(errno.ENOSPC, "full")])

    async def write(*arguments: Any) -> Any:
        for error in tries:
            raise error
        return await copy(*arguments)

    return write


async def test_results_come_from_the_account_s_hosts_only(
    server: Server, results: UpstreamHttp, tmp_path: Path
) -> None:
    upstream = Upstream("a", "openai", options={"result_hosts": ["cdn.example"]})

    for way in (results.fetch, results.download):
        with pytest.raises(UpstreamError, match="input_url_refused"):
            await way(f"{server.url}/moved", tmp_path / "a", upstream=upstream)

    assert server.arrived == ["GET /moved"]  # its own API, and not where that leads to
