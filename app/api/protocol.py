"""The server's HTTP protocol, which answers even to what is no HTTP in our envelope."""

from __future__ import annotations

import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.middleware import new_request_id
from app.errors import InvalidParameter


class EnvelopeProtocol(HttpToolsProtocol):
    """Nothing of the application has run when the parser gives up: this is the whole answer."""

    def send_400_response(self, msg: str) -> None:
        request_id = new_request_id()
        error = InvalidParameter(
            "This is not a valid HTTP request: its first line, or one of its headers, is malformed."
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
