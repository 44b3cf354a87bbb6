"""The server's HTTP protocol, which answers even to what is no HTTP in our envelope, and waits for no endless head."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.middleware import new_request_id
from app.errors import InvalidParameter

HEAD_BYTES = 128 * 1024
"""The shell judges a whole head, by its setting; the parser itself would collect one without end."""
HEAD_S = 10.0
"""How long a connection may take to send one, from its opening or its first byte."""


class EnvelopeProtocol(HttpToolsProtocol):
    """Nothing of the application has run when the parser, or our patience, gives up: this is the whole answer."""

    head_s = HEAD_S

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_bytes = 0
        self._is_in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("too large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timer is None:  # a further request on this connection
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._stop_timer()
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
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_s, self._give_up)

    def _give_up(self) -> None:
        self._head_timer = None
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
