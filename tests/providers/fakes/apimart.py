"""A fake of APIMart: strict about keys and their types, with both envelopes, replayed keys, and tasks that can be led.

Its own list of keys, not the provider's: a mistake there must show here.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from PIL import Image

from app.upstreams.contract.harness import SECRET, SUBMIT_BEHAVIOURS

VERSION = "2026-07-27"
FILM = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"film" * 64

_IMAGE = {"model", "prompt", "size", "resolution", "n", "image_urls"}
_OFFICIAL = {"quality", "background", "moderation", "output_format", "output_compression", "mask_url"}
_SEEDANCE = {
    *("model", "prompt", "duration", "size", "resolution", "image_urls", "image_with_roles", "video_urls"),
    *("audio_urls", "generate_audio", "seed", "return_last_frame", "tools"),
}
_VEO = {"model", "prompt", "duration", "aspect_ratio", "resolution"}
KEYS: Mapping[str, set[str]] = {
    "gpt-image-2": _IMAGE | {"official_fallback"},
    "gpt-image-2-official": _IMAGE | _OFFICIAL,
    "gemini-3-pro-image-preview": _IMAGE | {"official_fallback"},
    "gemini-3.1-flash-lite-image": _IMAGE,
    "doubao-seedance-2.0": _SEEDANCE,
    "doubao-seedance-2.0-fast": _SEEDANCE,
    "veo3.1-fast": _VEO | {"image_urls", "generation_type", "enable_gif", "official_fallback"},
    "veo3.1-quality": _VEO | {"image_urls", "generation_type", "enable_gif", "official_fallback"},
    "veo3.1-lite": _VEO | {"enable_gif"},
    "veo3.1-fast-official": _VEO | {"first_frame_image", "last_frame_image", "seed", "generate_audio"},
    "happyhorse-1.0": {
        *("model", "prompt", "duration", "size", "resolution", "first_frame_image", "image_urls", "video_url"),
        *("audio_setting", "watermark", "seed"),
    },
}
RESOLUTIONS = {
    "gpt-image": {"1k", "2k", "4k"},
    "gemini-3-": {"1K", "2K", "4K"},
    "gemini-3.1": {"1K", "2K", "4K"},
    "doubao-seedance-2.0-fast": {"480p", "720p"},
    "doubao-seedance": {"480p", "720p", "1080p"},
    "veo": {"720p", "1080p", "4k"},
    "happyhorse": {"720P", "1080P"},
}


class Refused(Exception):
    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, dict(headers or {})

    def answer(self) -> web.Response:
        error = {"code": self.status, "message": str(self), "type": self.kind}
        return web.json_response({"error": error}, status=self.status, headers=self.headers)


SUBMITS = {
    "busy": Refused(429, "rate_limit_error", "Too many requests"),
    "busy 2": Refused(429, "rate_limit_error", "Too many requests", {"Retry-After": "2"}),
    "unauthorized": Refused(401, "authentication_error", f"Invalid API key {SECRET}"),
    "quota": Refused(402, "payment_required", f"Insufficient balance of {SECRET}"),
    "bad_request": Refused(400, "invalid_request_error", f"image_urls exceeds max 16, see https://x.io/{SECRET}"),
    "moderated": Refused(400, "invalid_request_error", "The prompt contains sensitive words"),
    "retired": Refused(404, "not_found_error", "The model is no longer available"),
    "error 500": Refused(500, "server_error", f"Internal error for {SECRET}"),
    "error 503": Refused(503, "service_unavailable", "Try again later"),
}
TASK_ERRORS = {
    "failed": {"code": 500, "message": f"generation failed at node {SECRET}", "type": "server_error"},
    "moderated_late": {"code": 400, "message": "Output blocked by the safety system", "type": "invalid_request_error"},
}


@dataclass(slots=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any = None


@dataclass(slots=True)
class FakeTask:
    id: str
    model: str
    kind: str
    is_done: bool = True
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class FakeApimart:
    envelope: str = "object"
    """``object`` (as the version header asks for), ``array`` (an older server), ``clone`` (no envelope)."""
    url_form: str = "list"
    """``list`` or ``string``."""
    status_word: str = "completed"
    answer: tuple[int, Any] | None = None
    """What the next submit is answered with, accepted or not."""
    record: dict[str, Any] | None = None
    """Merged into the records of tasks."""
    balance: float = 12.5
    accepted: int = 0
    seen: list[Seen] = field(default_factory=list)
    tasks: dict[str, FakeTask] = field(default_factory=dict)
    uploads: list[bytes] = field(default_factory=list)
    submits: deque[str] = field(default_factory=deque)
    polls: deque[str] = field(default_factory=deque)
    files: set[str] = field(default_factory=set)
    """Words of files refused with 403."""
    port: int = 0
    _by_key: dict[str, tuple[str, str]] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sent(self) -> Any:
        """The body of the last submit."""
        return next(s.body for s in reversed(self.seen) if s.path.endswith(("/generations", "/remix")))

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/images/generations", self._images)
        app.router.add_post("/v1/videos/generations", self._videos)
        app.router.add_post("/v1/videos/{id}/remix", self._remix)
        app.router.add_get("/v1/tasks/{id}", self._task)
        app.router.add_get("/v1/user/balance", self._tell_balance)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/uploads/images", self._upload)
        app.router.add_get("/files/{name}", self._file)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def will(self, *behaviours: str) -> None:
        for word in behaviours:
            (self.submits if word in SUBMIT_BEHAVIOURS else self.polls).append(word)

    # --- submits ------------------------------------------------------------------------------------------------------

    async def _images(self, request: web.Request) -> web.StreamResponse:
        return await self._submit(request, "images")

    async def _videos(self, request: web.Request) -> web.StreamResponse:
        return await self._submit(request, "videos")

    async def _remix(self, request: web.Request) -> web.StreamResponse:
        return await self._submit(request, "videos", original=request.match_info["id"])

    async def _submit(self, request: web.Request, kind: str, original: str | None = None) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text)
        self.seen.append(Seen("POST", request.path, dict(request.headers), body))
        behaviour = self.submits.popleft() if self.submits else ""
        try:
            _authorized(request)
            key = _key(request)
            if behaviour in SUBMITS:
                raise SUBMITS[behaviour]
            if key in self._by_key:
                known, task_id = self._by_key[key]
                if known != text:
                    raise Refused(400, "invalid_request_error", "Idempotency-Key was used with another body")
                return self._accepted(request, self.tasks[task_id], {"idempotency-replayed": "true"})
            self._check(body, kind, original)
        except Refused as refused:
            return refused.answer()
        if behaviour == "error 502":
            return web.Response(status=502, text=f"<html><h1>Bad Gateway</h1>{SECRET}</html>", content_type="text/html")
        self.accepted += 1
        task = FakeTask(f"task_{self.accepted:026d}", body["model"], kind)
        self.tasks[task.id] = task
        self._by_key[key] = (text, task.id)
        match behaviour:
            case "cut":
                assert request.transport is not None
                request.transport.close()
            case "garbage":
                return web.Response(text="<html>hello</html>", content_type="text/html")
            case "no_id":
                return web.json_response({"code": 200, "data": [{"status": "submitted"}]})
        if self.answer is not None:
            status, document = self.answer
            return web.json_response(document, status=status)
        return self._accepted(request, task, {})

    def _accepted(self, request: web.Request, task: FakeTask, headers: Mapping[str, str]) -> web.Response:
        if self.envelope == "clone":
            document: Any = {"id": task.id, "object": "generation.task", "status": "queued", "model": task.model}
        elif self.envelope == "object" and request.headers.get("X-APIMart-Response-Version") == VERSION:
            data = {"object": "generation.task", "id": task.id, "status": "submitted"}
            document = {"code": 200, "data": data, "request_id": "req_1"}
        else:
            document = {"code": 200, "data": [{"status": "submitted", "task_id": task.id}]}
        return web.json_response(document, headers=headers)

    def _check(self, body: dict[str, Any], kind: str, original: str | None) -> None:
        model = body.get("model")
        if model not in KEYS:
            raise Refused(404, "not_found_error", f"model {model} not found")
        if original is not None:
            return self._check_remix(body, original)
        strange = set(body) - KEYS[model]
        if strange:
            raise Refused(400, "invalid_request_error", f"unknown parameter: {sorted(strange)}")
        for key, value in body.items():
            if value is None:
                raise Refused(400, "invalid_request_error", f"{key} must not be null")
            if key.endswith(("_url", "first_frame_image", "last_frame_image")) or key.endswith("_urls"):
                for url in value if isinstance(value, list) else [value]:
                    if not re.match(r"https?://", url):
                        raise Refused(400, "invalid_request_error", f"{key} must be a URL")
        tiers = next(tiers for start, tiers in RESOLUTIONS.items() if model.startswith(start))
        if body.get("resolution") not in tiers:
            raise Refused(400, "invalid_request_error", f"resolution must be one of {sorted(tiers)}")
        if kind == "images":
            if type(body.get("n")) is not int:
                raise Refused(400, "invalid_request_error", "n must be a number")
        else:
            _check_video(body, model)

    def _check_remix(self, body: dict[str, Any], original: str) -> None:
        if set(body) - {"model", "prompt", "raw", "aspect_ratio", "resolution"}:
            raise Refused(400, "invalid_request_error", "unknown parameter")
        if original not in self.tasks:
            raise Refused(404, "not_found_error", "task not found")
        if body["model"] not in ("veo3.1-fast", "veo3.1-quality") or self.tasks[original].model != body["model"]:
            raise Refused(400, "invalid_request_error", "model must be that of the original")
        if not self.tasks[original].is_done:
            raise Refused(400, "invalid_request_error", "the original task is not completed")

    # --- the rest -----------------------------------------------------------------------------------------------------

    async def _task(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen("GET", request.path, dict(request.headers)))
        behaviour = self.polls.popleft() if self.polls else ""
        try:
            _authorized(request)
        except Refused as refused:
            return refused.answer()
        task = self.tasks.get(request.match_info["id"])
        if behaviour == "expired" or task is None:
            return Refused(404, "not_found_error", "task not found").answer()
        if behaviour == "poll 500":
            return Refused(500, "server_error", f"broken {SECRET}").answer()
        if behaviour == "poll cut":
            return await cut_short(request)
        if behaviour == "result 403":
            self.files.add(task.id)
        data = {
            "id": task.id,
            "created": 1,
            "estimated_time": 80,
            **self._state(task, behaviour),
            **(self.record or {}),
        }
        document = data if self.envelope == "clone" else {"code": 200, "data": data}
        return web.json_response(document)

    def _state(self, task: FakeTask, behaviour: str) -> dict[str, Any]:
        word, _, percent = behaviour.partition(" ")
        if word in ("pending", "running", "unknown_word"):
            status = {"pending": "pending", "running": "processing", "unknown_word": "pondering"}[word]
            return {"status": status, "progress": int(percent or (0 if word == "pending" else 40))}
        if word in TASK_ERRORS:
            return {"status": "failed", "progress": 100, "error": TASK_ERRORS[word]}
        if word == "no_result":
            return {"status": "completed", "progress": 100, "result": {task.kind: []}}
        name = f"{task.id}.{'png' if task.kind == 'images' else 'mp4'}"
        url = f"{self.url}/files/{name}"
        item = {"url": [url] if self.url_form == "list" else url, "expires_at": int(time.time()) + 3600}
        result: dict[str, Any] = {task.kind: [item]}
        if task.kind == "videos":
            result["thumbnail_url"] = f"{self.url}/files/thumb-{task.id}.png"
        return {"status": self.status_word, "progress": 100, "result": result, "cost": 0.064, "credits_cost": 0.64}

    async def _tell_balance(self, request: web.Request) -> web.StreamResponse:
        try:
            _authorized(request)
        except Refused as refused:
            return refused.answer()
        answer = {"success": True, "message": "", "remain_balance": self.balance, "used_balance": 3.5}
        return web.json_response(answer)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        try:
            _authorized(request)
        except Refused as refused:
            return refused.answer()
        data = [{"id": model, "object": "model"} for model in KEYS]
        return web.json_response({"object": "list", "data": data, "success": True})

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen("POST", request.path, dict(request.headers)))
        behaviour = self.polls.popleft() if self.polls and self.polls[0].startswith("upload") else ""
        try:
            _authorized(request)
        except Refused as refused:
            return refused.answer()
        reader = await request.multipart()
        part = await reader.next()
        assert part is not None
        assert part.name == "file"  # type: ignore[union-attr]
        data = bytes(await part.read())  # type: ignore[union-attr]
        assert await reader.next() is None
        if behaviour == "upload 413":
            return web.json_response(
                {"error": {"message": "file too large", "type": "invalid_request_error"}}, status=413
            )
        if behaviour == "upload 500":
            return web.json_response({"error": {"message": "oops", "type": "server_error"}}, status=500)
        if behaviour == "upload cut":
            assert request.transport is not None
            request.transport.close()
        self.uploads.append(data)
        number = len(self.uploads)
        return web.json_response(
            {
                "url": f"https://cdn.example/uploads/{number}.png",
                "filename": part.filename,  # type: ignore[union-attr]
                "content_type": "image/png",
                "bytes": len(data),
                "created_at": 1785571200,
            }
        )

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.seen.append(Seen("GET", request.path, dict(request.headers)))
        assert "Authorization" not in request.headers, "our key went to a result's host"
        if any(word in name for word in self.files):
            return web.Response(status=403, text="<Error>AccessDenied</Error>")
        return web.Response(body=FILM if name.endswith("mp4") else png())


async def cut_short(request: web.Request) -> web.StreamResponse:
    """Break off within the answer: before it, a client asks a second time by itself."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"code": 200, "data": ')
    assert request.transport is not None
    request.transport.close()
    return response


def _authorized(request: web.Request) -> None:
    if request.headers.get("Authorization") != f"Bearer {SECRET}":
        raise Refused(401, "authentication_error", "Invalid API key")


def _key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not re.fullmatch(r"[!-~]{1,191}", key):
        raise Refused(400, "invalid_request_error", "a bad key for this call")
    return key


def _check_video(body: Mapping[str, Any], model: str) -> None:
    def refuse(message: str) -> None:
        raise Refused(400, "invalid_request_error", message)

    duration = body.get("duration")
    if duration is not None and type(duration) is not int:
        refuse("duration must be a number")
    if model.startswith("veo"):
        if duration != 8 or body.get("aspect_ratio") not in ("16:9", "9:16"):
            refuse("duration must be 8, aspect_ratio 16:9 or 9:16")
        if body.get("enable_gif") and body["resolution"] != "720p":
            refuse("enable_gif needs 720p")
        if body.get("generation_type") == "reference" and model == "veo3.1-quality":
            refuse("quality has no reference mode")
        if body.get("generation_type") == "frame" and len(body.get("image_urls", ())) > 2:
            refuse("frame takes two images")
    if model.startswith("doubao"):
        if "image_urls" in body and "image_with_roles" in body:
            refuse("image_urls and image_with_roles exclude each other")
        if body.get("audio_urls") and not (body.get("image_urls") or body.get("video_urls")):
            refuse("audio_urls needs an image or a video")
    if model.startswith("happyhorse"):
        media = [key for key in ("video_url", "first_frame_image", "image_urls") if key in body]
        if len(media) > 1 and media != ["video_url", "image_urls"]:
            raise Refused(400, "mixed_media_not_allowed", "media cannot be mixed")


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 18), colour).save(out, "PNG")
    return out.getvalue()
