"""Turns paid requests away before anything is done for them, when those inside get on too slowly."""

from __future__ import annotations

import random
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Overloaded
from app.generation.turns import Turn, Turns, taking

RETRY_AFTER_S = (1, 5)
_PAID = re.compile(r"/v1/(?:images|videos)(?:/.*)?")


class Shedder:
    """Pure ASGI middleware, right inside the shell, which renders what is raised here: before routing, key and body.

    Whatever is no paid POST passes: reading, polling, cancelling and the probes cost little, and take load away.
    """

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not _PAID.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        turn = self._turns.enter()
        if turn is None:
            raise Overloaded(
                "More requests arrive than can be taken just now. Nothing was done or charged. Try again.",
                retry_after_s=random.randint(*RETRY_AFTER_S),  # noqa: S311 - spreads the retries
            )
        with taking(turn):
            await self._app(scope, _RestingBody(receive, turn), send)


class _RestingBody:
    """``receive`` of a turn: while the body is on its way, the caller's line is at work and not we."""

    def __init__(self, receive: Receive, turn: Turn) -> None:
        self._receive = receive
        self._turn = turn
        self._is_complete = False

    async def __call__(self) -> Message:
        if self._is_complete:
            return await self._receive()
        self._turn.rest()
        try:
            message = await self._receive()
        finally:
            self._turn.resume()
        self._is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message
