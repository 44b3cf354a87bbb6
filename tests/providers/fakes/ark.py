"""A fake Ark: as strict about a Seedance request as the vendor is said to be (upstream-videos.md 2, 10, 13)."""

from __future__ import annotations

import base64
import binascii
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import web

from app.upstreams.contract.harness import POLL_BEHAVIOURS, SECRET

MODEL = "doubao-seedance-2-0-260128"
FAST = "doubao-seedance-2-0-fast-260128"
VIDEO = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 40
FIELDS = frozenset(
    {
        "model",
        "content",
        "safety_identifier",
        "callback_url",
        "return_last_frame",
        "service_tier",
        "execution_expires_after",
        "priority",
        "generate_audio",
        "draft",
        "camera_fixed",
        "watermark",
        "seed",
        "resolution",
        "ratio",
        "duration",
        "frames",
        "tools",
        "output_format",
        "omni_reference_task_type",
    }
)
ROLES = {
    "image_url": {"first_frame", "last_frame", "reference_image"},
    "video_url": {"reference_video"},
    "audio_url": {"reference_audio"},
}
REFUSALS: dict[str, tuple[int, str, str]] = {
    "busy": (429, "RateLimitExceeded.EndpointRPMExceeded", "Too many requests."),
    "busy 2": (429, "ServerOverloaded", "The service is overloaded."),
    "unauthorized": (401, "AuthenticationError", f"The API key {SECRET} is not valid. Request id: 0217abcdef"),
    "quota": (403, "AccountOverdueError", "The account 2100123456789 is overdue."),
    "bad_request": (400, "InvalidParameter", "The parameter `duration` is not valid. Request id: 0217abcdef"),
    "moderated": (400, "InputTextSensitiveContentDetected", "The input text may hold sensitive information."),
    "retired": (404, "InvalidEndpointOrModel.NotFound", "The model does not exist or you have no access."),
    "error 500": (500, "InternalServiceError", "The service failed."),
    "error 503": (503, "InternalServiceError", "The service is down."),
}


class Refuse(Exception):
    def __init__(self, status: int, code: str, message: str = "", param: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.param = status, code, message, param


@dataclass
class Task:
    id: str
    body: dict[str, Any]
    created_at: int
    status: str = "queued"
    error: dict[str, str] | None = None
    video_url: str | None = ""


@dataclass
class FakeArk:
    tasks: dict[str, Task] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Accepted ones, as they came."""
    deletes: list[Any] = field(default_factory=list)
    echo_seed: bool = True
    page_limit: int = 500
    refuse_delete: int = 0
    """A status with which a DELETE is refused."""
    instead: Any = None
    """A document that every GET answers."""
    url: str = ""
    origin: str = ""
    _behaviours: dict[str, deque[str]] = field(default_factory=lambda: {"submit": deque(), "poll": deque()})
    _numbers: count[int] = field(default_factory=lambda: count(1))
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        tasks = "/api/v3/contents/generations/tasks"
        app.router.add_post(tasks, self._checked(self._submit))
        app.router.add_get(tasks, self._checked(self._list))
        app.router.add_get(tasks + "/{id}", self._checked(self._get))
        app.router.add_delete(tasks + "/{id}", self._checked(self._delete))
        app.router.add_get("/results/{name}", self._result)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.origin = f"http://127.0.0.1:{port}"
        self.url = f"{self.origin}/api/v3"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def will(self, *behaviours: str) -> None:
        for word in behaviours:
            self._behaviours["poll" if word in POLL_BEHAVIOURS else "submit"].append(word)

    def add(self, **said: Any) -> Task:
        """Let there be a task that somebody else made."""
        made_at = said.pop("created_at", int(time.time()))
        task = Task(f"cgt-2026-{next(self._numbers):05d}", said, made_at, status="running")
        self.tasks[task.id] = task
        return task

    def _next(self, kind: str) -> str:
        return self._behaviours[kind].popleft() if self._behaviours[kind] else ""

    def _checked(self, handle: Any) -> Any:
        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                if request.headers.get("Authorization") != f"Bearer {SECRET}":
                    raise Refuse(401, "AuthenticationError", "The API key is missing or wrong.")
                if self.instead is not None and request.method == "GET":
                    return web.json_response(self.instead)
                found: web.StreamResponse = await handle(request)
                return found
            except Refuse as no:
                error = {"code": no.code, "message": no.message, "param": no.param, "type": "BadRequest"}
                return web.json_response({"error": error}, status=no.status)

        return handler

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        word = self._next("submit")
        if word in REFUSALS:
            status, code, message = REFUSALS[word]
            headers = {"Retry-After": "2"} if word == "busy 2" else {}
            return web.json_response({"error": {"code": code, "message": message}}, status=status, headers=headers)
        if word == "error 502":
            return web.Response(status=502, text="<html>Bad gateway</html>", content_type="text/html")
        if word.startswith("refuse "):  # a code of the test's own: "refuse 429 SetLimitExceeded"
            _, number, code = word.split(" ", 2)
            raise Refuse(int(number), code, "No.")
        judge(body)
        self.bodies.append(body)
        said = {name: value for name, value in body.items() if value is not None}
        task = Task(f"cgt-2026-{next(self._numbers):05d}", said, int(time.time()))
        self.tasks[task.id] = task
        match word:
            case "cut":
                return await cut(request)
            case "garbage":
                return web.Response(text="<html>welcome</html>", content_type="text/html")
            case "no_id":
                return web.json_response({})
        return web.json_response({"id": task.id})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        word = self._next("poll")
        task = self.tasks.get(request.match_info["id"])
        if word == "poll 500":
            raise Refuse(500, "InternalServiceError", "No.")
        if word == "poll cut":
            return await cut_short(request)
        if task is None or word == "expired":
            raise Refuse(404, "ResourceNotFound", "The task is not found.")
        if word:
            self._become(task, word)
        elif task.status in ("queued", "running"):
            task.status = "succeeded"
        return web.json_response(self._record(task))

    def _become(self, task: Task, word: str) -> None:
        match word:
            case "pending":
                task.status = "queued"
            case "running":
                task.status = "running"
            case "unknown_word":
                task.status = "contemplating"
            case "failed":
                task.status = "failed"
                task.error = {"code": "InternalServiceError", "message": "The task failed."}
            case "moderated_late":
                task.status = "failed"
                task.error = {"code": "OutputVideoSensitiveContentDetected.PolicyViolation", "message": "No."}
            case "no_result":
                task.status, task.video_url = "succeeded", None  # as after 24 hours
            case "result 403":
                task.status, task.video_url = "succeeded", f"{self.origin}/results/gone"
            case _:
                raise AssertionError(word)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        page, size = int(query.get("page_num", "1")), min(int(query.get("page_size", "10")), self.page_limit)
        ids = query.getall("filter.task_ids", [])
        found = [
            task
            for task in reversed(self.tasks.values())
            if (not ids or task.id in ids)
            and query.get("filter.status", task.status) == task.status
            and query.get("filter.model", task.body["model"]) == task.body["model"]
        ]
        items = [self._record(task) for task in found[(page - 1) * size : page * size]]
        return web.json_response({"total": len(found), "items": items})

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        self.deletes.append(await request.json())
        task = self.tasks.get(request.match_info["id"])
        if self.refuse_delete:
            raise Refuse(self.refuse_delete, "SomethingNew", "No.")
        if task is None:
            raise Refuse(404, "ResourceNotFound", "The task is not found.")
        if task.status == "running":
            raise Refuse(400, "InvalidAction.RunningTaskDeletion", "A running task cannot be deleted.")
        if task.status == "queued":
            task.status = "cancelled"
        else:
            del self.tasks[task.id]
        return web.json_response({})

    async def _result(self, request: web.Request) -> web.StreamResponse:
        assert "Authorization" not in request.headers, "our key must not travel to the store"
        if request.match_info["name"] == "gone":
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
        return web.Response(body=VIDEO, content_type="video/mp4")

    def _record(self, task: Task) -> dict[str, Any]:
        body = task.body
        is_done = task.status == "succeeded"
        seconds = body.get("duration", 5)
        return {
            "id": task.id,
            "model": body["model"],
            "status": task.status,
            "error": task.error,
            "content": {
                "video_url": f"{self.origin}/results/{task.id}.mp4" if task.video_url == "" else task.video_url,
                "last_frame_url": None,
                "file_url": None,
            }
            if is_done
            else None,
            "usage": {"completion_tokens": seconds * 21_600, "total_tokens": seconds * 21_600} if is_done else None,
            "seed": body.get("seed", 1234) if self.echo_seed else None,
            "resolution": body.get("resolution", "720p"),
            "ratio": body.get("ratio", "16:9"),
            "duration": seconds,
            "framespersecond": 24,
            "generate_audio": body.get("generate_audio", True),
            "execution_expires_after": body.get("execution_expires_after", 172_800),
            "service_tier": "default",
            "created_at": task.created_at,
            "updated_at": task.created_at,
        }


def judge(body: Any) -> None:
    """Refuse what Ark refuses. Explicit nulls are accepted."""
    if not isinstance(body, dict):
        raise Refuse(400, "InvalidParameter", "The body is no object.")
    said = {name: value for name, value in body.items() if value is not None}
    for name in ("model", "content"):
        if name not in said:
            raise Refuse(400, "MissingParameter", f"The parameter `{name}` is missing.", name)
    for name in said.keys() - FIELDS:
        raise Refuse(400, "InvalidParameter", f"The parameter `{name}` is unknown.", name)
    if said["model"] not in (MODEL, FAST):
        raise Refuse(404, "InvalidEndpointOrModel.NotFound", "The model does not exist.")
    resolutions = {"480p", "720p"} if said["model"] == FAST else {"480p", "720p", "1080p", "4k"}
    for name, is_right in {
        "resolution": lambda value: value in resolutions,
        "ratio": lambda value: value in {"16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive"},
        "duration": lambda value: type(value) is int and (value == -1 or 4 <= value <= 15),
        "generate_audio": lambda value: type(value) is bool,
        "watermark": lambda value: type(value) is bool,
        "seed": lambda value: type(value) is int and -1 <= value <= 4_294_967_295,
        "execution_expires_after": lambda value: type(value) is int and 3600 <= value <= 259_200,
        "service_tier": lambda value: value in {"default", "flex"},
    }.items():
        if name in said and not is_right(said[name]):
            raise Refuse(400, "InvalidParameter", f"The parameter `{name}` is not valid.", name)
    judge_content(said["content"])


def judge_content(items: Any) -> None:
    roles: list[str] = []
    if not isinstance(items, list) or not items:
        raise Refuse(400, "MissingParameter", "The parameter `content` is missing.", "content")
    for index, item in enumerate(items):
        kind, where = item.get("type"), f"content[{index}]"
        if kind == "text":
            if set(item) != {"type", "text"} or not item["text"]:
                raise Refuse(400, "InvalidParameter", "A text item is not valid.", where)
            continue
        if kind not in ROLES or set(item) != {"type", kind, "role"} or set(item[kind]) != {"url"}:
            raise Refuse(400, "InvalidParameter", "An item is not valid.", where)
        if item["role"] not in ROLES[kind]:
            raise Refuse(400, "InvalidParameter", "A role is not valid.", where)
        judge_url(item[kind]["url"], kind)
        roles.append(item["role"])
    frames = [role for role in roles if role.endswith("_frame")]
    if frames and (len(frames) != len(roles) or frames not in (["first_frame"], ["first_frame", "last_frame"])):
        raise Refuse(400, "InvalidParameter.TaskTypeConstraint", "Frames and references exclude each other.")
    for role, most in (("reference_image", 9), ("reference_video", 3), ("reference_audio", 3)):
        if roles.count(role) > most:
            raise Refuse(400, "InvalidParameter", f"Too many of {role}.")
    if roles and set(roles) == {"reference_audio"}:
        raise Refuse(400, "InvalidParameter.TaskTypeConstraint", "Audio needs an image or a video.")


def judge_url(url: str, kind: str) -> None:
    if url.startswith("https://") or url.startswith("asset://"):
        return
    head, _, data = url.partition(";base64,")
    if kind != "image_url" or head not in ("data:image/png", "data:image/jpeg", "data:image/webp"):
        raise Refuse(400, "InvalidParameter", "The url is not valid.")
    try:
        base64.b64decode(data, validate=True)
    except binascii.Error:
        raise Refuse(400, "InvalidImageURL.InvalidFormat", "The image cannot be read.") from None


async def cut(request: web.Request) -> web.StreamResponse:
    """End the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_short(request: web.Request) -> web.StreamResponse:
    """End the connection amid the answer. (A GET that got nothing at all on a kept connection, aiohttp sends again.)"""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "500"})
    await response.prepare(request)
    await response.write(b'{"id":')
    assert request.transport is not None
    request.transport.abort()
    return response
