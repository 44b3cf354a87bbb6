"""A fake of Google's APIs: Gemini images, Veo on the Agent Platform and in the older Gemini shape.

As strict as the real one: an unknown field, a key in the wrong place or a value nobody offers is a 400, 401 or 404.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import av
from aiohttp import web
from PIL import Image

from app.upstreams.contract.harness import SECRET
from tests.providers.fakes.google_rules import Refused, camel, check_image, check_video

PROJECT = "acme-media"
IMAGE_MODELS = ("gemini-3-pro-image", "gemini-3.1-flash-image")
VIDEO_MODELS = ("veo-3.1-generate-001", "veo-3.1-fast-generate-001", "veo-3.1-lite-generate-001")
PREVIEWS = ("gemini-3-pro-image-preview", "veo-3.1-generate-preview")
RAI = {
    "raiMediaFilteredCount": 1,
    "raiMediaFilteredReasons": ["Veo could not make this video: it violates usage guidelines. Support codes: 29310472"],
}


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer given as it is."""

    status: int
    document: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


def error(status: int, word: str, message: str, *details: Mapping[str, Any]) -> Raw:
    """An error in Google's form."""
    return Raw(status, {"error": {"code": status, "message": message, "status": word, "details": list(details)}})


def retry_info(delay: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def quota_failure(*ids: str) -> dict[str, Any]:
    violations = [{"quotaId": one, "quotaMetric": "generativelanguage.googleapis.com/requests"} for one in ids]
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}


def error_info(reason: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}


PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel"
SUBMITS = {
    "busy": error(429, "RESOURCE_EXHAUSTED", "Resource exhausted.", quota_failure(PER_MINUTE)),
    "busy 2": Raw(
        429, {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}}, {"Retry-After": "2"}
    ),
    "unauthorized": error(401, "UNAUTHENTICATED", f"Request had invalid credentials: {SECRET}"),
    "quota": error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", quota_failure(PER_DAY)),
    "bad_request": error(
        400, "INVALID_ARGUMENT", f"The image is not readable by {SECRET} at https://x.googleapis.com/v1"
    ),
    "retired": error(404, "NOT_FOUND", "This model models/veo-3.0 is no longer available to new users."),
    "error 500": error(500, "INTERNAL", "An internal error has occurred."),
    "error 502": Raw(502, f"<html><body>Bad Gateway {SECRET}</body></html>"),
    "error 503": error(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "garbage": Raw(200, "<html>hello</html>"),
    "no_id": Raw(200, {}),
}
MODERATED_IMAGE = Raw(200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {}})
MODERATED_VIDEO = error(400, "INVALID_ARGUMENT", "The prompt violates our usage guidelines. Try rephrasing it.")
POLLS = {
    "poll 500": error(500, "INTERNAL", "An internal error has occurred."),
    "expired": error(404, "NOT_FOUND", "Operation not found."),
}
ENDS: dict[str, dict[str, Any]] = {
    "pending": {},
    "running": {"done": False, "metadata": {"@type": "type.googleapis.com/x"}},
    "failed": {"done": True, "error": {"code": 13, "message": "Video generation failed."}},
    "moderated_late": {"done": True, "response": RAI},
    "no_result": {"done": True, "response": {"videos": []}},
}


class FakeGoogle:
    """One server for all APIs. ``will`` and ``say`` script the next answers; all else works at once."""

    def __init__(self) -> None:
        self.accepted = 0
        self.seen: list[Seen] = []
        self.video = tiny_mp4()
        self.parts: list[dict[str, Any]] = default_parts()
        self.usage = {"promptTokenCount": 560, "candidatesTokenCount": 1130, "thoughtsTokenCount": 70,
                      "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}]}  # fmt: skip
        self.download_to: str | None = None
        """Where the keyed download leads; None: to another path of this server."""
        self.refuse_downloads = False
        self._submits: deque[str | Raw] = deque()
        self._polls: deque[str | Raw] = deque()
        self._operations: set[str] = set()
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application(client_max_size=256 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def will(self, *behaviours: str) -> None:
        for word in behaviours:
            known_poll = word in POLLS or word in ENDS or word in ("poll cut", "result 403")
            (self._polls if known_poll else self._submits).append(word)

    def say(self, *answers: Raw) -> None:
        """The next submits are answered like this."""
        self._submits += answers

    def tell(self, *answers: Raw) -> None:
        """The next polls are answered like this."""
        self._polls += answers

    def know(self, operation: str) -> None:
        """An operation that somebody submitted."""
        self._operations.add(operation)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.seen.append(Seen(request.method, request.path, dict(request.headers), body))
        path, _, method = request.path.rpartition(":")
        try:
            if "/files/" in request.path:
                return self._download(request)
            if request.method == "GET" and request.path.endswith("/models"):
                return self._list(request)
            place = self._place(request)
            if request.method == "GET" and "/operations/" in request.path:
                return await self._poll(request, request.path.removeprefix("/v1beta/"), gemini=True)
            if request.method != "POST":
                raise Refused(404, "NOT_FOUND", "Not found.")
            if method == "fetchPredictOperation" and place != "gemini":
                return await self._fetch_operation(request, camel(body))
            model = path.rpartition("/")[2]
            if model in PREVIEWS:
                raise Refused(404, "NOT_FOUND", f"models/{model} is no longer available.")
            if method == "generateContent" and model in IMAGE_MODELS:
                return await self._image(request, camel(body), model, gemini=place == "gemini")
            if method == "predictLongRunning" and model in VIDEO_MODELS:
                return await self._video(request, camel(body), model, path, gemini=place == "gemini")
            raise Refused(404, "NOT_FOUND", f"{path} is not found for this API version.")
        except Refused as refused:
            return _answer(error(refused.status, refused.word, refused.message, *refused.details))

    def _list(self, request: web.Request) -> web.StreamResponse:
        """One page of one model: who reads only the first learns little. Express keys see no list."""
        key, bearer = request.headers.get("x-goog-api-key"), request.headers.get("Authorization")
        if request.path == "/v1beta/models":
            if key != SECRET:
                text = "API key not valid. Please pass a valid API key."
                raise Refused(400, "INVALID_ARGUMENT", text, (error_info("API_KEY_INVALID"),))
            field, names = "models", [f"models/{name}" for name in (*IMAGE_MODELS, *PREVIEWS)]
        elif request.path == "/v1beta1/publishers/google/models":
            if bearer != f"Bearer {SECRET}":
                text = "API keys are not supported by this API."
                raise Refused(401, "UNAUTHENTICATED", text, (error_info("CREDENTIALS_MISSING"),))
            field, names = "publisherModels", [f"publishers/google/models/{name}" for name in VIDEO_MODELS]
        else:
            raise Refused(404, "NOT_FOUND", "Not found.")
        page = int(request.query.get("pageToken", "0"))
        more = {"nextPageToken": str(page + 1)} if page + 1 < len(names) else {}
        return _answer(Raw(200, {field: [{"name": names[page], "version": "1"}], **more}))

    def _place(self, request: web.Request) -> str:
        """Return which API the path belongs to. Raises: Refused for another path, or a key in the wrong place."""
        if "key" in request.query:
            raise Refused(400, "INVALID_ARGUMENT", "No keys in addresses.")
        if request.method == "POST" and request.content_type != "application/json":
            raise Refused(400, "INVALID_ARGUMENT", "Not JSON.")
        version, _, resource = request.path.removeprefix("/").partition("/")
        key, bearer = request.headers.get("x-goog-api-key"), request.headers.get("Authorization")
        if version in ("v1", "v1beta") and resource.startswith("models/"):
            self._needs(key == SECRET and bearer is None)
            return "gemini"
        if version == "v1beta1" and resource.startswith("publishers/google/models/"):
            self._needs(key == SECRET and bearer is None)
            return "express"
        if version == "v1beta1" and resource.startswith(f"projects/{PROJECT}/locations/"):
            # An operation of an express key lies in a project too, and its own key may ask for it.
            is_poll = resource.endswith(":fetchPredictOperation")
            self._needs((bearer == f"Bearer {SECRET}" and key is None) or (is_poll and key == SECRET))
            return "project"
        raise Refused(404, "NOT_FOUND", "Not found.")

    @staticmethod
    def _needs(is_right: bool) -> None:
        if not is_right:
            raise Refused(401, "UNAUTHENTICATED", "Request is missing required authentication credential.")

    async def _scripted(self, request: web.Request, script: deque[str | Raw]) -> str | web.StreamResponse | None:
        told = script.popleft() if script else None
        if isinstance(told, Raw):
            return _answer(told)
        if told in SUBMITS or told in POLLS:
            self.accepted += told in ("garbage", "no_id")
            return _answer(SUBMITS.get(told) or POLLS[told])
        return told

    async def _image(self, request: web.Request, body: Any, model: str, *, gemini: bool) -> web.StreamResponse:
        check_image(body, model, gemini=gemini)
        told = await self._scripted(request, self._submits)
        if isinstance(told, web.StreamResponse):
            return told
        if told == "moderated":
            return _answer(MODERATED_IMAGE)
        self.accepted += 1
        if told == "cut":
            return _cut(request)
        content = {"role": "model", "parts": self.parts}
        candidate = {"content": content, "finishReason": "STOP", "index": 0}
        return _answer(
            Raw(
                200, {"candidates": [candidate], "usageMetadata": self.usage, "modelVersion": model, "responseId": "r1"}
            )
        )

    async def _video(
        self, request: web.Request, body: Any, model: str, path: str, *, gemini: bool
    ) -> web.StreamResponse:
        check_video(body, model, gemini=gemini)
        told = await self._scripted(request, self._submits)
        if isinstance(told, web.StreamResponse):
            return told
        if told == "moderated":
            return _answer(MODERATED_VIDEO)
        self.accepted += 1
        resource = path.partition("/")[2].partition("/")[2]
        if resource.startswith("publishers/"):
            resource = f"projects/{PROJECT}/locations/us-central1/{resource}"
        name = f"{resource}/operations/op-{self.accepted}"
        self._operations.add(name)
        return _cut(request) if told == "cut" else _answer(Raw(200, {"name": name}))

    async def _fetch_operation(self, request: web.Request, body: Any) -> web.StreamResponse:
        name = body.get("operationName", "") if isinstance(body, dict) else ""
        resource = request.path.removeprefix("/v1beta1/").rpartition(":")[0]
        if (
            not isinstance(body, dict)
            or set(body) != {"operationName"}
            or not name.startswith(f"{resource}/operations/")
        ):
            raise Refused(400, "INVALID_ARGUMENT", "The operation does not belong to this model.")
        return await self._poll(request, name, gemini=False)

    async def _poll(self, request: web.Request, name: str, *, gemini: bool) -> web.StreamResponse:
        if name not in self._operations:
            raise Refused(404, "NOT_FOUND", "Operation not found.")
        told = await self._scripted(request, self._polls)
        if isinstance(told, web.StreamResponse):
            return told
        if told == "poll cut":
            return _cut(request)
        if told is not None and told in ENDS:
            ended = ENDS[told]
            if gemini and "response" in ended:
                ended = {"done": True, "response": {"generateVideoResponse": ended["response"]}}
            return _answer(Raw(200, {"name": name, **ended}))
        self.refuse_downloads = self.refuse_downloads or told == "result 403"
        if gemini:
            uri = f"{self.url}/v1beta/files/{name.rpartition('/')[2]}:download?alt=media"
            inner = {"generatedSamples": [{"video": {"uri": uri}}]}
            return _answer(Raw(200, {"name": name, "done": True, "response": {"generateVideoResponse": inner}}))
        return await self._inline(request, name)

    async def _inline(self, request: web.Request, name: str) -> web.StreamResponse:
        """The operation with the video inside, sent in pieces."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(f'{{"name":"{name}","done":true,"response":{{"videos":[{{"bytesBase64Encoded":"'.encode())
        for start in range(0, len(self.video), 768 * 1024):
            await response.write(base64.b64encode(self.video[start : start + 768 * 1024]))
        await response.write(b'","mimeType":"video/mp4"}]}}')
        await response.write_eof()
        return response

    def _download(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("x-goog-api-key") != SECRET and not request.path.startswith("/bucket/"):
            raise Refused(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers.")
        if self.refuse_downloads:
            raise Refused(403, "PERMISSION_DENIED", "You do not have permission to access the File, or it is gone.")
        if request.path.startswith("/v1beta/"):
            target = self.download_to or f"/download{request.path_qs}"
            return web.Response(status=302, headers={"Location": target})
        return web.Response(body=self.video, content_type="video/mp4")


def _answer(raw: Raw) -> web.Response:
    if isinstance(raw.document, str):
        return web.Response(status=raw.status, text=raw.document, content_type="text/html", headers=dict(raw.headers))
    return web.json_response(raw.document, status=raw.status, headers=dict(raw.headers))


def _cut(request: web.Request) -> web.StreamResponse:
    transport = request.transport
    assert isinstance(transport, asyncio.Transport)
    transport.abort()
    return web.Response()


def inline(data: bytes, *, mime: str = "image/png", snake: bool = False, **more: Any) -> dict[str, Any]:
    """One part of an answer that holds an image."""
    text = base64.b64encode(data).decode()
    if snake:
        return {"inline_data": {"mime_type": mime, "data": text}, **more}
    return {"inlineData": {"mimeType": mime, "data": text}, **more}


def default_parts() -> list[dict[str, Any]]:
    """A draft that is thought, then what was asked for; keys of both spellings."""
    return [
        {"text": "I plan the picture.", "thought": True},
        inline(png("red"), thought=True),
        {"text": "Here it is."},
        inline(png("blue"), snake=True, thoughtSignature=base64.b64encode(b"s" * 600).decode()),
    ]


def png(colour: str, size: tuple[int, int] = (64, 36)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


@cache
def tiny_mp4() -> bytes:
    """A readable film of one second."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for _ in range(8):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 36), "green"))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()
