"""The server, and how it takes its leave: nobody who has sent a request, or is about to, stays without an answer."""

from __future__ import annotations

import asyncio
import math
import select
import socket
import time

import structlog
import uvicorn
from fastapi import FastAPI

from app.api.protocol import EnvelopeProtocol
from app.settings import Settings

log = structlog.get_logger()

LINGER_S = 2.0
"""How long a stopping server keeps an idle connection: its client may be about to send the next request."""
ARRIVING_S = 0.05
CANCEL_AFTER_S = 2.0
"""Those who were sent home at the end have this long to be answered."""


class Server(uvicorn.Server):
    """On SIGTERM: ``/readyz`` says so, who only watches is sent home, nothing new is accepted, what runs is finished.

    What runs longer than ``shutdown_wait_s`` is answered with what is known.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, settings: Settings) -> None:
        super().__init__(config)
        self._app = app
        self._delay_s = settings.shutdown_delay_s
        self._wait_s = settings.shutdown_wait_s
        config.timeout_graceful_shutdown = math.ceil(self._wait_s + CANCEL_AFTER_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        waiters = self._app.state.services.waiters
        self._app.state.stop_by = time.monotonic() + self._delay_s + self._wait_s
        log.info("api.stopping", connections=len(self.server_state.connections))
        self.server_state.is_stopping = True  # type: ignore[attr-defined]  # read by our connections
        waiters.stop()
        if self._delay_s:  # load balancers look at /readyz before they stop sending
            await asyncio.sleep(self._delay_s)
        late = asyncio.get_running_loop().call_later(self._wait_s, waiters.give_up)
        await super().shutdown(sockets)
        late.cancel()


class Connection(EnvelopeProtocol):
    """One connection. While the server stops, each answer says ``Connection: close``.

    An idle one is not cut off at once, as a client that sends just then would get no answer: it may send one more
    request.
    """

    @property
    def _is_stopping(self) -> bool:
        return getattr(self.server_state, "is_stopping", False)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        if self._is_stopping:
            self._linger()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._is_stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._is_stopping and self.timeout_keep_alive_task is not None:
            self._linger()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_stopping and self.timeout_keep_alive_task is not None:
            self._linger()

    def shutdown(self) -> None:
        """The server stops: finish what runs, then close."""
        if self.cycle is None or self.cycle.response_complete:
            self._linger()
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False
        # else: the head of the answer has promised to keep the connection; it lingers after its end.

    def _linger(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_S, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the idle connection, unless its next request has arrived and was not read yet."""
        if not self.transport.is_closing() and _has_unread(self.transport):
            self.timeout_keep_alive_task = self.loop.call_later(ARRIVING_S, self.timeout_keep_alive_handler)
            return
        super().timeout_keep_alive_handler()


def _has_unread(transport: asyncio.Transport) -> bool:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
