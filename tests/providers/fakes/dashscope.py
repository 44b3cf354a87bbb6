"""A fake DashScope: as strict about HappyHorse as the vendor is said to be. Contract: upstream-videos.md 4, 10, 13."""

from __future__ import annotations

import base64
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import web

from app.upstreams.contract.harness import POLL_BEHAVIOURS, SECRET
from tests.providers.fakes.ark import VIDEO, cut, cut_short

MODEL = "happyhorse-1.0"
KINDS = ("t2v", "i2v", "r2v", "video-edit")
TAKES = {
    "t2v": {"resolution", "ratio", "duration", "watermark", "seed"},
    "i2v": {"resolution", "duration", "watermark", "seed"},
    "r2v": {"resolution", "ratio", "duration", "watermark", "seed"},
    "video-edit": {"resolution", "audio_setting", "watermark", "seed"},
}
LOCAL_TIME = "2026-11-24 18:03:07.123"  # of Beijing, without saying so
REFUSALS: dict[str, tuple[int, str, str]] = {
    "busy": (429, "Throttling.RateQuota", "Requests rate limit exceeded, please try again later."),
    "busy 2": (429, "Throttling", "Too many requests."),
    "unauthorized": (401, "InvalidApiKey", f"Invalid API-key provided: {SECRET}."),
    "quota": (400, "Arrearage", "Access denied, please make sure your account is in good standing."),
    "bad_request": (400, "InvalidParameter", "the size is not match https://help.example.com/error request_id: 1-2"),
    "moderated": (400, "DataInspectionFailed", "Input data may contain inappropriate content."),
    "retired": (404, "ModelNotFound", "Model can not be found."),
    "error 500": (500, "InternalError", "An internal error has occurred."),
    "error 503": (503, "ModelUnavailable", "The model is not available."),
}


class Refuse(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


@dataclass
class Task:
    id: str
    body: dict[str, Any]
    created_ms: int
    status: str = "PENDING"
    error: tuple[str, str] | None = None
    video_url: str | None = ""


@dataclass
class FakeDashScope:
    tasks: dict[str, Task] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Accepted ones, as they came."""
    uploads: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """oss:// URL -> model it was uploaded for, bytes."""
    upload_host: str | None = None
    upload_status: int = 200
    max_file_size_mb: int = 100
    page_limit: int = 100
    instead: Any = None
    """A document that every GET answers."""
    url: str = ""
    host: str = ""
    _policies: dict[str, str] = field(default_factory=dict)
    _behaviours: dict[str, deque[str]] = field(default_factory=lambda: {"submit": deque(), "poll": deque()})
    _numbers: count[int] = field(default_factory=lambda: count(1))
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=128 * 1024 * 1024)
        add = app.router.add_route
        add("POST", "/api/v1/services/aigc/video-generation/video-synthesis", self._checked(self._submit))
        add("GET", "/api/v1/tasks", self._checked(self._list))
        add("GET", "/api/v1/tasks/{id}", self._checked(self._get))
        add("POST", "/api/v1/tasks/{id}/cancel", self._checked(self._cancel))
        add("GET", "/api/v1/uploads", self._checked(self._policy))
        add("POST", "/store", self._store)
        add("GET", "/results/{name}", self._result)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def will(self, *behaviours: str) -> None:
        for word in behaviours:
            self._behaviours["poll" if word in POLL_BEHAVIOURS else "submit"].append(word)

    def add(self, *, model: str, prompt: str, status: str = "SUCCEEDED", age_s: float = 0.0) -> Task:
        """Let there be a task that somebody else made."""
        body = {"model": model, "input": {"prompt": prompt}, "parameters": {"resolution": "720P"}}
        task = Task(f"0385dc79-{next(self._numbers):04d}", body, int((time.time() - age_s) * 1000), status)
        self.tasks[task.id] = task
        return task

    def _next(self, kind: str) -> str:
        return self._behaviours[kind].popleft() if self._behaviours[kind] else ""

    def _checked(self, handle: Any) -> Any:
        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                if request.headers.get("Authorization") != f"Bearer {SECRET}":  # also a key of another region
                    raise Refuse(401, "InvalidApiKey", "Invalid API-key provided.")
                if self.instead is not None and request.method == "GET":
                    return web.json_response(self.instead)
                found: web.StreamResponse = await handle(request)
                return found
            except Refuse as no:
                body = {"code": no.code, "message": no.message, "request_id": "7574ee8f-0000-11fb"}
                return web.json_response(body, status=no.status)

        return handler

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        word = self._next("submit")
        if word in REFUSALS:
            status, code, message = REFUSALS[word]
            headers = {"Retry-After": "2"} if word == "busy 2" else {}
            return web.json_response({"code": code, "message": message}, status=status, headers=headers)
        if word == "error 502":
            return web.Response(status=502, text="<html>Bad gateway</html>", content_type="text/html")
        if word.startswith("refuse "):
            _, number, code = word.split(" ", 2)
            raise Refuse(int(number), code, "No.")
        if request.headers.get("X-DashScope-Async") != "enable":
            raise Refuse(403, "AccessDenied", "current user api does not support synchronous calls")
        self._judge(body, may_resolve=request.headers.get("X-DashScope-OssResourceResolve") == "enable")
        self.bodies.append(body)
        task = Task(f"0385dc79-{next(self._numbers):04d}", body, int(time.time() * 1000))
        self.tasks[task.id] = task
        match word:
            case "cut":
                return await cut(request)
            case "garbage":
                return web.Response(text="<html>welcome</html>", content_type="text/html")
            case "no_id":
                return web.json_response({"request_id": "4909100c", "output": {"task_status": "PENDING"}})
        output = {"task_id": task.id, "task_status": "PENDING"}
        return web.json_response({"request_id": "4909100c-7b5a", "output": output})

    def _judge(self, body: Any, *, may_resolve: bool) -> None:
        model = body.get("model", "")
        kind = model.removeprefix(f"{MODEL}-")
        if not model.startswith(f"{MODEL}-") or kind not in KINDS:
            raise Refuse(404, "ModelNotFound", "Model can not be found.")
        said, parameters = body.get("input") or {}, body.get("parameters") or {}
        if kind != "i2v" and not said.get("prompt"):
            raise Refuse(400, "BadRequest.EmptyInput", "prompt is required")
        for name in parameters.keys() - TAKES[kind]:
            raise Refuse(400, "InvalidParameter", f"parameters.{name} is not supported")
        for name, is_right in {
            "resolution": lambda value: value in ("720P", "1080P"),
            "ratio": lambda value: value in ("16:9", "9:16", "1:1", "4:3", "3:4"),
            "duration": lambda value: type(value) is int and 3 <= value <= 15,
            "audio_setting": lambda value: value in ("auto", "origin"),
            "watermark": lambda value: type(value) is bool,
            "seed": lambda value: type(value) is int and 0 <= value <= 2_147_483_647,
        }.items():
            if name in parameters and not is_right(parameters[name]):
                raise Refuse(400, "InvalidParameter", f"parameters.{name} is not valid")
        media = said.get("media") or []
        types = [item["type"] for item in media]
        fits = {
            "t2v": not media,
            "i2v": types == ["first_frame"],
            "r2v": 1 <= len(media) <= 9 and set(types) == {"reference_image"},
            "video-edit": types[:1] == ["video"] and set(types[1:]) <= {"reference_image"} and len(media) <= 6,
        }
        if not fits[kind]:
            raise Refuse(400, "InvalidParameter", "input.media does not fit the model")
        for item in media:
            if set(item) != {"type", "url"}:
                raise Refuse(400, "InvalidParameter", "input.media has an unknown field")
            self._judge_url(item, model, may_resolve=may_resolve)

    def _judge_url(self, item: dict[str, str], model: str, *, may_resolve: bool) -> None:
        url = item["url"]
        if url.startswith("oss://"):
            if not may_resolve or self.uploads.get(url, ("", b""))[0] != model:
                raise Refuse(400, "InvalidURL", "The URL cannot be resolved.")
        elif url.startswith("data:"):
            head, _, data = url.partition(";base64,")
            if item["type"] == "video" or not head.startswith("data:image/"):
                raise Refuse(400, "InvalidParameter.DataInspection", "Unable to download the media resource.")
            base64.b64decode(data, validate=True)
        elif not url.startswith("https://"):
            raise Refuse(400, "InvalidURL", "The URL is not valid.")

    async def _get(self, request: web.Request) -> web.StreamResponse:
        word = self._next("poll")
        task = self.tasks.get(request.match_info["id"])
        if word == "poll 500":
            raise Refuse(500, "InternalError.Timeout", "No.")
        if word == "poll cut":
            return await cut_short(request)
        if task is None or word == "expired":
            output = {"task_id": request.match_info["id"], "task_status": "UNKNOWN"}
            return web.json_response({"request_id": "a1", "output": output})
        if word:
            self._become(task, word)
        elif task.status in ("PENDING", "RUNNING", "SUSPENDED"):
            task.status = "SUCCEEDED"
        return web.json_response(self._record(task))

    def _become(self, task: Task, word: str) -> None:
        match word:
            case "pending":
                task.status = "PENDING"
            case "running":
                task.status = "RUNNING"
            case "unknown_word":
                task.status = "GALLOPING"
            case "failed":
                task.status, task.error = "FAILED", ("InternalError", "The task failed.")
            case "moderated_late":
                task.status, task.error = "FAILED", ("DataInspectionFailed", "Output data may be inappropriate.")
            case "no_result":
                task.status, task.video_url = "SUCCEEDED", None
            case "result 403":
                task.status, task.video_url = "SUCCEEDED", f"{self.url}/results/gone"
            case _:
                raise AssertionError(word)

    def _record(self, task: Task) -> dict[str, Any]:
        output: dict[str, Any] = {"task_id": task.id, "task_status": task.status, "submit_time": LOCAL_TIME}
        answer: dict[str, Any] = {"request_id": "caa62a12-8841", "output": output}
        if task.status in ("PENDING", "RUNNING"):
            return answer
        output |= {"scheduled_time": LOCAL_TIME, "end_time": LOCAL_TIME}
        if task.error is not None:
            output["code"], output["message"] = task.error
        if task.status == "SUCCEEDED":
            parameters = task.body["parameters"]
            made = parameters.get("duration", 5)
            read = 5 if task.body["model"].endswith("-video-edit") else 0
            output["orig_prompt"] = task.body["input"].get("prompt", "")[:5000]
            if task.video_url is not None:
                output["video_url"] = task.video_url or f"{self.url}/results/{task.id}.mp4?Expires=1&Signature=x"
            answer["usage"] = {
                "duration": made + read,
                "input_video_duration": read,
                "output_video_duration": made,
                "video_count": 1,
                "SR": int(parameters.get("resolution", "1080P")[:-1]),
                "ratio": "16:9",
            }
        return answer

    async def _list(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        page, size = int(query.get("page_no", "1")), min(int(query.get("page_size", "10")), self.page_limit)
        found = [
            {
                "api_key_id": "7003",
                "gmt_create": task.created_ms,
                "model_name": task.body["model"],
                "region": "cn-beijing",
                "request_id": "caa62a12",
                "status": task.status,
                "task_id": task.id,
            }
            for task in reversed(self.tasks.values())
            if query.get("status", task.status) == task.status
        ]
        answer = {"request_id": "a2", "total": len(found), "total_page": -(-len(found) // size)}
        return web.json_response(
            answer | {"page_no": page, "page_size": size, "data": found[(page - 1) * size :][:size]}
        )

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        task = self.tasks.get(request.match_info["id"])
        if task is None or task.status != "PENDING":
            raise Refuse(400, "UnsupportedOperation", "Failed to cancel the task, please confirm its status.")
        task.status = "CANCELED"
        return web.json_response({"request_id": "a3"})

    async def _policy(self, request: web.Request) -> web.StreamResponse:
        assert request.query["action"] == "getPolicy"
        folder = f"dashscope-instant/{next(self._numbers)}"
        self._policies[folder] = request.query["model"]
        data = {
            "policy": "eyJleHBpcmF0aW9u",
            "signature": "g5K=",
            "upload_dir": folder,
            "upload_host": self.upload_host or f"{self.url}/store",
            "expire_in_seconds": 300,
            "max_file_size_mb": self.max_file_size_mb,
            "oss_access_key_id": "LTAI",
            "x_oss_object_acl": "private",
            "x_oss_forbid_overwrite": "true",
        }
        return web.json_response({"request_id": "52f4383a", "data": data})

    async def _store(self, request: web.Request) -> web.StreamResponse:
        assert "Authorization" not in request.headers, "our key must not travel to the store"
        if self.upload_status != 200:
            return web.Response(status=self.upload_status, text="<Error><Code>ServiceUnavailable</Code></Error>")
        if request.content_length is None:
            return web.Response(status=411, text="<Error><Code>MissingContentLength</Code></Error>")
        fields: dict[str, str] = {}
        async for part in await request.multipart():
            assert "file" not in fields, "OSS ignores what follows the file"
            if part.name != "file":  # type: ignore[union-attr]
                fields[str(part.name)] = await part.text()  # type: ignore[union-attr]
                continue
            wanted = {"OSSAccessKeyId", "Signature", "policy", "key", "x-oss-object-acl", "x-oss-forbid-overwrite"}
            folder = fields.get("key", "").rpartition("/")[0]
            url = f"oss://{fields.get('key')}"
            if not wanted <= fields.keys() or folder not in self._policies or url in self.uploads:
                return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
            self.uploads[url] = self._policies[folder], bytes(await part.read())  # type: ignore[union-attr]
            fields["file"] = "read"
        return web.Response(status=200 if fields.get("success_action_status") == "200" else 204)

    async def _result(self, request: web.Request) -> web.StreamResponse:
        assert "Authorization" not in request.headers, "our key must not travel to the store"
        if request.match_info["name"] == "gone":
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
        return web.Response(body=VIDEO, content_type="video/mp4")
