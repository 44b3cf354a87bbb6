"""The client for upstreams: sends once, reads what is empty as empty, and repeats no stranger's words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from app.fetch.client import SafeFetcher
from app.settings import Settings
from app.upstreams.contract.harness import SECRET
from app.upstreams.http import Answer, Phase, UpstreamHttp, default_error
from app.upstreams.protocols import UpstreamError, UpstreamOutcomeUnknown

PHASES: list[Phase] = ["submit", "read"]


@dataclass
class Server:
    """Answers /empty, /none and /fine; cuts /cut before the head."""

    url: str = ""
    arrived: list[str] = field(default_factory=list)
    peers: set[object] = field(default_factory=set)

    async def handle(self, request: web.Request) -> web.Response:
        self.arrived.append(f"{request.method} {request.path}")
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        match request.path:
            case "/cut":
                request.transport.close()
            case "/none":
                return web.Response(status=204)
            case "/fine":
                return web.json_response({"fine": True})
        return web.Response()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path}", server.handle)
    runner = web.AppRunner(app, access_log=None)
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


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_what_is_cut_before_the_head_arrived_once(server: Server, http: UpstreamHttp, method: str) -> None:
    await http.send("GET", f"{server.url}/fine", phase="read")  # aiohttp resends on kept connections only

    with pytest.raises(UpstreamError) as caught:
        await http.send(method, f"{server.url}/cut", phase="submit")

    assert type(caught.value) is UpstreamOutcomeUnknown
    assert server.arrived == ["GET /fine", f"{method} /cut"]
    assert len(server.peers) == 1


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
