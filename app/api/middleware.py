"""What surrounds every request: its id, its limits while the body arrives, and an answer even to the unforeseen."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import public_error, render
from app.errors import InvalidParameter
from app.failpoints import failpoint
from app.intake import Intake
from app.settings import Settings

log = structlog.get_logger(__name__)

T = TypeVar("T")

REQUEST_ID_HEADER = b"x-request-id"
REPLAYED_HEADER = (b"idempotent-replayed", b"true")
NOT_STORED = (b"cache-control", b"no-store")
"""Of every answer that is somebody's, errors too; a file's own header says how long its owner may keep it."""
OWNED = ("/v1/", "/admin/", "/api/")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")


class RequestShell:
    """Pure ASGI middleware, the outermost of ours. ``scope["state"]["request_id"]`` is the request's id.

    What escapes the app before its answer started becomes an answer in the error envelope; afterwards it goes on to
    the server, which breaks the connection.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, scope, request_id)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                self._check_head(scope)
                await self._app(scope, _PacedBody(receive, self._settings), answer.send)
            except ClientDisconnect:
                log.info("request.client_left")
            except Exception as error:
                if answer.is_started:
                    raise
                request = Request(scope, receive)
                await render(public_error(error, request), request)(scope, receive, answer.send)
            finally:
                answer.note_delivery()

    def _check_head(self, scope: Scope) -> None:
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if size > self._settings.header_bytes:
            raise InvalidParameter(
                f"The request's URL and headers are larger than {self._settings.header_bytes} bytes."
            )


class _PacedBody:
    """``receive``, with limits on how slowly a body may arrive. After the body it waits as long as it takes."""

    def __init__(self, receive: Receive, settings: Settings) -> None:
        self._receive = receive
        self._gap_s = settings.body_gap_s
        self._total_s = settings.body_total_s
        self._deadline: float | None = None
        self._is_complete = False

    async def __call__(self) -> Message:
        if self._is_complete:
            return await self._receive()
        if self._deadline is None:
            self._deadline = time.monotonic() + self._total_s
        left = self._deadline - time.monotonic()
        too_slow = InvalidParameter("The request body arrived too slowly.")  # not 408: the SDKs would try again
        if left <= 0:
            raise too_slow
        try:
            async with asyncio.timeout(min(self._gap_s, left)):
                message = await self._receive()
        except TimeoutError:
            raise too_slow from None
        self._is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message


class _Answer:
    """``send``, with our headers on the answer's start: those of every answer, and ``state["answer_headers"]``."""

    def __init__(self, send: Send, scope: Scope, request_id: str) -> None:
        self._send = send
        self._scope = scope
        self._is_post = scope["method"] == "POST"
        self._request_id = request_id
        self.is_started = False
        self._has_left = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._is_post:
                await failpoint("before_response")
            self.is_started = True
            present = {name.lower() for name, _ in message.get("headers", ())}
            ours = (
                (REQUEST_ID_HEADER, self._request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
                *self._scope.get("state", {}).get("answer_headers", ()),
            )
            if self._scope["path"].startswith(OWNED):
                ours = (*ours, NOT_STORED)
            added = [(name, value) for name, value in ours if name not in present]
            intake = self._intake
            if intake is not None and intake.is_replay:
                added.append(REPLAYED_HEADER)
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        is_heard = is_last and self._intake is not None and not self._intake.gone.is_set()  # sending sets it too
        await self._send(message)
        self._has_left = is_heard

    @property
    def _intake(self) -> Intake | None:
        found: Intake | None = self._scope.get("state", {}).get("intake")
        return found

    def note_delivery(self) -> None:
        """Remember that an answer about a task has left: only what did not arrive is joined by a retry."""
        intake = self._intake
        if self._has_left and intake is not None and intake.task_id is not None:
            self._scope["app"].state.services.idempotency.handed_over(intake.task_id)


def new_request_id() -> str:
    return f"req_{secrets.token_hex(12)}"


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return new_request_id()
