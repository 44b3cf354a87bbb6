"""The server's HTTP protocol: it answers even to what is no HTTP in our envelope, and what it keeps or waits for has an
end, in a head, behind a body and after an answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.middleware import new_request_id
from app.errors import InvalidParameter

HEAD_BYTES = 128 * 1024
"""Of a head, or of trailers. The shell judges a whole head, by its setting; the parser would collect for ever."""
HEAD_S = 10.0
"""How long a connection may take to send one, from its opening or its first byte."""
REST_S = 5.0
"""Who is answered in the middle of his body may send the rest of it, so that he reads the answer; then we hang up."""


class EnvelopeProtocol(HttpToolsProtocol):
    """Nothing of the application has run when the parser, or our patience, gives up: this is the whole answer."""

    head_s = HEAD_S
    rest_s = REST_S

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._loose_bytes = 0
        self._is_in_head = True
        self._is_moving = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._is_moving = False
        super().data_received(data)
        self._loose_bytes = 0 if self._is_moving else self._loose_bytes + len(data)
        if self._loose_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("too large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._is_in_head:  # a further request on this connection
            self._stop_timer()
            self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # what follows a body is of no use to us
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head, self._is_moving = False, True
        self._stop_timer()
        self._unset_keepalive_if_required()  # it is set in here when the rest of a body and this head came as one
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._is_moving = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_moving = True
        super().on_message_complete()
        if self._timer is not None:  # the rest of an answered request has come: the connection may be used again
            self._stop_timer()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.rest_s, self._give_up)

    def send_400_response(self, msg: str) -> None:
        self._stop_timer()
        cycle = self.cycle
        if cycle is not None and cycle.response_started and (cycle.more_body or not cycle.response_complete):
            self.transport.close()  # this request has its answer, or a part of it
            return
        request_id = new_request_id()
        error = InvalidParameter(
            "This is not a valid HTTP request: its first line, or one of its headers, is malformed, or it is too long."
        )
        body = json.dumps({"error": error.body(request_id)}).encode()
        head = (
            "HTTP/1.1 400 Bad Request",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id}",
            "x-content-type-options: nosniff",
            "connection: close",
        )
        self.transport.write("\r\n".join((*head, "", "")).encode() + body)
        self.transport.close()

    def _expect_head(self) -> None:
        self._is_in_head = True
        self._timer = self.loop.call_later(self.head_s, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
