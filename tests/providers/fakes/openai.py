"""A fake of OpenAI's Images API and of the Videos protocol: as strict as the vendor, and able to misbehave on order.

``style`` makes it a relay instead: results as URLs or data: URLs, references in JSON, a URL in the video object.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from typing import Any

from aiohttp import BodyPartReader, web

from tests.providers.fakes.openai_data import (
    EDIT_FIELDS,
    GENERATION_FIELDS,
    MODERATED,
    MP4,
    PNG,
    SECRET_ECHO,
    SUBMIT_ERRORS,
    USAGE,
    VIDEO_SIZES,
    Seen,
    Style,
    error,
    picture,
)


class FakeOpenAI:
    """One server on loopback; ``secret`` is the only key it takes (None: it asks for none)."""

    def __init__(self, secret: str | None, style: Style | None = None) -> None:
        self.secret = secret
        self.style = style or Style()
        self.seen: list[Seen] = []
        self.accepted = 0
        self.submits: deque[Any] = deque()
        self.polls: deque[Any] = deque()
        self.poll_after_ms: int | None = None
        self.content_answer = "ok"
        self.file_hits: list[dict[str, str]] = []
        self.file_answers: deque[int] = deque()
        self._videos: dict[str, dict[str, Any]] = {}
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()
        self.port = 0
        self.file_port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        app = web.Application(client_max_size=256 * 1024**2)
        app.router.add_post("/v1/images/generations", self._generations)
        app.router.add_post("/v1/images/edits", self._edits)
        app.router.add_post("/v1/videos", self._create_video)
        app.router.add_get("/v1/videos/{id}", self._get_video)
        app.router.add_delete("/v1/videos/{id}", self._delete_video)
        app.router.add_get("/v1/videos/{id}/content", self._content)
        app.router.add_post("/v1/videos/{id}/remix", self._remix)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/files/{name}", self._file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        sites = [web.TCPSite(self._runner, "127.0.0.1", 0) for _ in range(2)]
        for site in sites:
            await site.start()
        self.port, self.file_port = (address[1] for address in self._runner.addresses)

    async def stop(self) -> None:
        self._stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()

    # --- images -------------------------------------------------------------------------------------------------------

    async def _generations(self, request: web.Request) -> web.StreamResponse:
        seen = await self._note(request)
        if seen.json is None:
            return self._refuse("JSON expected")
        return await self._image(request, seen, seen.json, GENERATION_FIELDS, "image_generation")

    async def _edits(self, request: web.Request) -> web.StreamResponse:
        seen = await self._note(request)
        if seen.json is not None and not self.style.is_strict:
            return await self._image(request, seen, seen.json, EDIT_FIELDS, "image_edit")
        if not seen.form:
            return self._refuse("multipart expected")
        names = [name for name, *_ in seen.files()]
        images = [name for name in names if name != "mask"]
        if images not in (["image"], ["image[]"] * len(images)) or not images or names.count("mask") > 1:
            return self._refuse(f"wrong file parts: {names}")
        for name, _, content_type, value in seen.files():
            if content_type not in ("image/png", "image/jpeg", "image/webp") or not value:
                return self._refuse(f"wrong type of {name}: {content_type}")
            if name == "mask" and content_type != "image/png":
                return self._refuse("mask must be PNG")
        fields: dict[str, Any] = seen.texts()
        for name in ("n", "partial_images", "output_compression"):
            if name in fields:
                fields[name] = int(fields[name])
        if "stream" in fields:
            fields["stream"] = {"true": True, "false": False}[fields["stream"]]
        return await self._image(request, seen, fields, EDIT_FIELDS, "image_edit")

    async def _image(
        self, request: web.Request, seen: Seen, fields: dict[str, Any], known: frozenset[str], kind: str
    ) -> web.StreamResponse:
        refused = self._unauthorized(seen) or (self._image_complaint(fields, known) if self.style.is_strict else None)
        if refused is not None:
            return refused
        order = self.submits.popleft() if self.submits else None
        early = await self._misbehave(request, order)
        if early is not None:
            return early
        self.accepted += 1
        if order == "garbage":
            return web.Response(text="<p>OK</p>", content_type="text/html")
        if order == "no_id":
            return web.json_response({"created": 1, "data": []})
        if fields.get("stream"):
            return await self._stream(request, kind, int(fields.get("partial_images", 0)), order)
        item = {"revised_prompt": "a better fox"} | self._result_of(request)
        return web.json_response(
            {"created": 1, "data": [item], "usage": USAGE, "output_format": "png", "quality": "low", "size": "1x1"}
        )

    def _result_of(self, request: web.Request) -> dict[str, Any]:
        text = base64.b64encode(PNG).decode()
        match self.style.result:
            case "url":
                return {"url": f"http://127.0.0.1:{self.file_port}/files/a.png?sig=1"}
            case "own_url":
                return {"url": f"http://127.0.0.1:{self.port}/files/a.png", "b64_json": None}
            case "relative":
                return {"url": "/files/a.png"}
            case "data":
                return {"url": f"data:image/png;base64,{text}"}
        return {"b64_json": text}

    async def _stream(self, request: web.Request, kind: str, partials: int, order: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)

        async def event(name: str, document: Any) -> None:
            text = f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()
            middle = len(text) // 3  # in pieces that respect no line
            for piece in (text[:3], text[3:middle], text[middle:]):
                await response.write(piece)

        more = {"created_at": 1, "size": "1024x1024", "quality": "low", "background": "auto", "output_format": "png"}
        await response.write(b": keep alive\r\n\r\n")
        for index in range(partials):
            data = {"b64_json": base64.b64encode(picture((index + 1, 1))).decode(), "partial_image_index": index}
            await event(f"{kind}.partial_image", {"type": f"{kind}.partial_image", **data, **more})
        if order == "stream cut":
            await response.write(b'event: x\ndata: {"type":"image_generation.completed","b64_json":"iVBO')
            self._cut(request)
            return response
        if order == "stream error":
            await event("error", {"type": "error", "error": {"message": "boom", "type": "server_error", "code": None}})
        elif order == "stream moderated":
            await event("error", MODERATED)
        elif order != "stream end":
            data = {"b64_json": base64.b64encode(PNG).decode(), "usage": USAGE}
            await event(f"{kind}.completed", {"type": f"{kind}.completed", **data, **more})
            await response.write(b"data: [DONE]\n\n")
        return response

    def _image_complaint(self, fields: dict[str, Any], known: frozenset[str]) -> web.Response | None:
        for name in fields:
            if name not in known:
                return self._refuse(f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
        if not isinstance(fields.get("prompt"), str) or not isinstance(fields.get("model"), str):
            return self._refuse("prompt and model are required")
        n, partials = fields.get("n", 1), fields.get("partial_images", 0)
        if not isinstance(n, int) or isinstance(n, bool) or n != 1 or partials not in (0, 1, 2, 3):
            return self._refuse("n, partial_images")
        if "partial_images" in fields and fields.get("stream") is not True:
            return self._refuse("partial_images needs stream")
        allowed = {
            "quality": ("low", "medium", "high", "auto"),
            "output_format": ("png", "jpeg", "webp"),
            "background": ("auto", "opaque", "transparent"),
            "moderation": ("auto", "low"),
        }
        for name, values in allowed.items():
            if name in fields and fields[name] not in values:
                return self._refuse(f"Invalid value for '{name}'", param=name)
        if "output_compression" in fields and fields.get("output_format") not in ("jpeg", "webp"):
            return self._refuse("output_compression needs jpeg or webp")
        if len(fields.get("safety_identifier", "")) > 64:
            return self._refuse("safety_identifier is too long")
        size = fields.get("size", "auto")
        if size != "auto":
            width, height = (int(edge) for edge in size.split("x"))
            pixels, long, short = width * height, max(width, height), min(width, height)
            if width % 16 or height % 16 or long > 3 * short or long > 3840 or not 655_360 <= pixels <= 8_294_400:
                return self._refuse(f"Invalid size '{size}'", param="size")
        return None

    # --- videos -------------------------------------------------------------------------------------------------------

    async def _create_video(self, request: web.Request) -> web.StreamResponse:
        seen = await self._note(request)
        refused = self._unauthorized(seen)
        if refused is not None:
            return refused
        fields = seen.texts() if seen.form else seen.json
        if self.style.is_strict:
            if not seen.form:
                return self._refuse("multipart expected")
            if set(fields) - {"model", "prompt", "seconds", "size"}:
                return self._refuse(f"Unknown parameters: {sorted(fields)}", code="unknown_parameter")
            if [name for name, *_ in seen.files()] not in ([], ["input_reference"]):
                return self._refuse("wrong file parts")
            if fields.get("seconds") not in ("4", "8", "12") or fields.get("size") not in VIDEO_SIZES:
                return self._refuse("Invalid seconds or size")
        return await self._accept_video(request, {"remixed_from_video_id": None, **fields})

    async def _remix(self, request: web.Request) -> web.StreamResponse:
        seen = await self._note(request)
        refused = self._unauthorized(seen)
        if refused is not None:
            return refused
        source = self._videos.get(request.match_info["id"])
        if source is None:
            return web.json_response(error("Video not found", code="not_found"), status=404)
        if set(seen.json) != {"prompt"}:
            return self._refuse("only a prompt")
        return await self._accept_video(request, {**source, **seen.json, "remixed_from_video_id": source["id"]})

    async def _accept_video(self, request: web.Request, fields: dict[str, Any]) -> web.StreamResponse:
        order = self.submits.popleft() if self.submits else None
        early = await self._misbehave(request, order)
        if early is not None:
            return early
        self.accepted += 1
        if order == "garbage":
            return web.Response(text="<p>OK</p>", content_type="text/html")
        if order == "no_id":
            return web.json_response({"object": "video", "status": "queued"})
        video = {
            "id": f"video_{self.accepted}",
            "object": "video",
            "status": "queued",
            "progress": 0,
            "created_at": 1,
            "model": fields.get("model"),
            "seconds": fields.get("seconds", "4"),
            "size": fields.get("size"),
            "prompt": fields.get("prompt"),
            "error": None,
            "remixed_from_video_id": fields["remixed_from_video_id"],
        }
        self._videos[str(video["id"])] = video
        return self._video_answer(video)

    async def _get_video(self, request: web.Request) -> web.StreamResponse:
        refused = self._unauthorized(await self._note(request))
        if refused is not None:
            return refused
        video = self._videos.get(request.match_info["id"])
        order = self.polls.popleft() if self.polls else "done"
        if video is None or order == "expired":
            return web.json_response(error("Video not found", code="not_found"), status=404)
        if isinstance(order, dict):
            return self._video_answer({**video, **order})
        if isinstance(order, tuple):
            return _answer(*order)
        match order:
            case "poll 500":
                return web.json_response(error("oops", "server_error"), status=500)
            case "poll cut":  # in the middle: aiohttp asks again when a GET got nothing at all
                response = web.StreamResponse(headers={"content-length": "100"})
                await response.prepare(request)
                await response.write(b'{"id":')
                return self._cut(request)
            case "pending":
                video |= {"status": "queued", "progress": 0}
            case "running":
                video |= {"status": "in_progress", "progress": 42}
            case "unknown_word":
                video |= {"status": "dreaming", "progress": 43}
            case "failed":
                video |= {"status": "failed", "error": {"code": "video_generation_failed", "message": "it broke"}}
            case "moderated_late":
                video |= {"status": "failed", "error": {"code": "moderation_blocked", "message": "no"}}
            case _:
                video |= {"status": "completed", "progress": 100}
        if order in ("no_result", "result 403"):
            self.content_answer = order
        return self._video_answer(video)

    def _video_answer(self, video: dict[str, Any]) -> web.Response:
        if video["status"] == "completed" and self.style.video in ("url", "metadata"):
            url = f"http://127.0.0.1:{self.file_port}/files/v.mp4?sig=1"
            video |= {"url": url} if self.style.video == "url" else {"metadata": {"url": url}}
        headers = {} if self.poll_after_ms is None else {"openai-poll-after-ms": str(self.poll_after_ms)}
        return web.json_response({"code": "success", "data": video} if self.style.inner else video, headers=headers)

    async def _delete_video(self, request: web.Request) -> web.StreamResponse:
        refused = self._unauthorized(await self._note(request))
        if refused is not None:
            return refused
        if self.polls:
            return _answer(*self.polls.popleft())
        video = self._videos.pop(request.match_info["id"], None)
        if video is None:
            return web.json_response(error("Video not found", code="not_found"), status=404)
        return web.json_response({"id": video["id"], "object": "video.deleted", "deleted": True})

    async def _content(self, request: web.Request) -> web.StreamResponse:
        refused = self._unauthorized(await self._note(request))
        if refused is not None:
            return refused
        match self.content_answer:
            case "no_result":
                return web.Response(body=b"")
            case "result 403":
                return web.json_response(error("forbidden"), status=403)
            case "gone":
                return web.json_response(error("gone"), status=410)
            case "html":
                return web.Response(text="<html>later</html>", content_type="text/html")
        if self.style.video == "redirect":
            raise web.HTTPFound(f"http://127.0.0.1:{self.file_port}/files/v.mp4?sig=1")
        return web.Response(body=MP4, content_type="video/mp4")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.file_hits.append({name.lower(): value for name, value in request.headers.items()})
        status = self.file_answers.popleft() if self.file_answers else 200
        if status != 200:
            return web.Response(status=status)
        is_video = request.match_info["name"].endswith(".mp4")
        return web.Response(body=MP4 if is_video else PNG)

    # --- the list of models -------------------------------------------------------------------------------------------

    async def _models(self, request: web.Request) -> web.StreamResponse:
        refused = None if self.style.open_list else self._unauthorized(await self._note(request))
        if refused is not None:
            return refused
        data = [{"id": one, "object": "model", "created": 1, "owned_by": "system"} for one in self.style.models]
        return web.json_response({"object": "list", "data": data})

    # --- the rest -----------------------------------------------------------------------------------------------------

    async def _note(self, request: web.Request) -> Seen:
        seen = Seen(request.method, request.path, {name.lower(): value for name, value in request.headers.items()})
        if request.content_type == "application/json" and request.can_read_body:
            seen.json = await request.json()
        elif request.content_type == "multipart/form-data":
            async for part in await request.multipart():
                assert isinstance(part, BodyPartReader)
                seen.form.append(
                    (part.name or "", part.filename, part.headers.get("content-type"), bytes(await part.read()))
                )
        self.seen.append(seen)
        return seen

    def _unauthorized(self, seen: Seen) -> web.Response | None:
        if self.secret is None or seen.headers.get("authorization") == f"Bearer {self.secret}":
            return None
        return web.json_response(error("Incorrect API key provided", code="invalid_api_key"), status=401)

    def _refuse(self, message: str, code: str | None = None, param: str | None = None) -> web.Response:
        return web.json_response(error(message, code=code, param=param), status=400)

    async def _misbehave(self, request: web.Request, order: Any) -> web.StreamResponse | None:
        """Return the answer of a submit that was refused, or that was accepted and lost."""
        if isinstance(order, tuple):
            return _answer(*order)
        if order == "unauthorized":
            text = f"Incorrect API key provided: {self.secret}. {SECRET_ECHO}"
            return web.json_response(error(text, code="invalid_api_key"), status=401)
        if order in ("cut", "hang"):
            self.accepted += 1
            if order == "hang":
                await self._stopping.wait()
            return self._cut(request)
        return _answer(*SUBMIT_ERRORS[order]) if order in SUBMIT_ERRORS else None

    def _cut(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


def _answer(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return web.Response(status=status, body=raw, headers={"content-type": "application/json", **(headers or {})})
