"""A fake of ComfyUI behind a proxy that wants a key: it validates graphs and deduplicates nothing."""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from aiohttp import web

from app.upstreams.contract.harness import SECRET, SUBMIT_BEHAVIOURS
from tests.providers.fakes.apimart import FILM, Seen, cut_short, png

NODES = {
    "CLIPTextEncode": {"text"},
    "EmptyLatentImage": {"width", "height", "batch_size"},
    "KSampler": {"seed", "positive", "negative", "latent_image", "model"},
    "CheckpointLoaderSimple": {"ckpt_name"},
    "LoadImage": {"image"},
    "LoadImageMask": {"image", "channel"},
    "LoadVideo": {"file"},
    "WanImageToVideo": {"length", "width", "height", "start_image", "end_image"},
    "CreateVideo": {"fps", "images"},
    "SaveImage": {"filename_prefix", "images"},
    "SaveVideo": {"filename_prefix", "video"},
}
CHECKPOINTS = {"flux.safetensors"}


def _invalid(kind: str, message: str, details: str) -> tuple[int, Any]:
    error = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": ""}
    nodes = {"5": {"errors": [{"type": kind, "message": message, "details": details}], "class_type": "X"}}
    return 400, {"error": error, "node_errors": nodes}


SUBMITS: dict[str, tuple[int, Any]] = {
    "busy": (429, {"error": "slow down"}),
    "busy 2": (429, {"error": "slow down"}),
    "unauthorized": (401, {"error": f"no entry with {SECRET}"}),
    "bad_request": _invalid("value_bigger_than_max", f"Value 99999 bigger than max of 16384 {SECRET}", SECRET),
    "retired": _invalid("value_not_in_list", "Value not in list", f"ckpt_name: 'gone' not in {SECRET}"),
    "error 500": (500, f"500 Internal Server Error {SECRET}"),
    "error 502": (502, f"<html><h1>Bad Gateway</h1>{SECRET}</html>"),
    "error 503": (503, "<html>Service Unavailable</html>"),
}
EXECUTION_ERROR = {
    "node_id": "3",
    "node_type": "KSampler",
    "exception_type": "RuntimeError",
    "exception_message": f"mat1 and mat2 shapes cannot be multiplied {SECRET}",
    "traceback": [f"/home/operator/{SECRET}"],
}
NO_MEMORY = {
    "node_id": "3",
    "node_type": "KSampler",
    "exception_type": "torch.OutOfMemoryError",
    "exception_message": "Allocation on device 0 would exceed allowed memory. (out of memory)",
}


@dataclass(slots=True)
class FakeComfyui:
    is_old: bool = False
    """A server from before mid-2025, which makes the id itself."""
    is_open: bool = False
    """There is no proxy that wants a key."""
    accepted: int = 0
    """Every accepted graph counts: nothing is deduplicated."""
    graphs: dict[str, Any] = field(default_factory=dict)
    """By job id."""
    history: dict[str, Any] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    inputs: dict[str, bytes] = field(default_factory=dict)
    """Uploaded files by ``subfolder/name``."""
    masks: list[dict[str, Any]] = field(default_factory=list)
    """``original_ref`` of the masks."""
    seen: list[Seen] = field(default_factory=list)
    submits: deque[str] = field(default_factory=deque)
    polls: deque[str] = field(default_factory=deque)
    outputs: dict[str, Any] | None = None
    """What finished jobs made, where it is not the usual."""
    error: Mapping[str, Any] = field(default_factory=lambda: EXECUTION_ERROR)
    stays: str | None = None
    """``pending`` or ``running``: new jobs stay there."""
    port: int = 0
    _refuse_files: bool = False
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024, middlewares=[self._proxy])
        app.router.add_post("/prompt", self._prompt)
        app.router.add_get("/queue", self._queue)
        app.router.add_post("/queue", self._delete)
        app.router.add_post("/interrupt", self._interrupt)
        app.router.add_get("/history/{id}", self._history)
        app.router.add_get("/view", self._view)
        app.router.add_post("/upload/{kind:image|mask}", self._upload)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def will(self, *behaviours: str) -> None:
        for word in behaviours:
            (self.submits if word in SUBMIT_BEHAVIOURS else self.polls).append(word)

    @web.middleware
    async def _proxy(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.seen.append(Seen(request.method, request.path_qs, dict(request.headers)))
        if not self.is_open and request.headers.get("Authorization") != f"Bearer {SECRET}":
            return web.Response(status=401, text="no entry")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _prompt(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen[-1].body = body
        behaviour = self.submits.popleft() if self.submits else ""
        if behaviour in SUBMITS:
            return _answer(*SUBMITS[behaviour], retry_after="2" if behaviour == "busy 2" else None)
        job = body.get("prompt_id") or ""
        assert set(body) == {"prompt", "client_id", "prompt_id"}
        assert job == str(UUID(job)), "not canonical"
        refusal = self._invalid(body["prompt"])
        if refusal is not None:
            return _answer(*refusal)
        if self.is_old:
            job = str(UUID(int=self.accepted))
        self.accepted += 1
        self.graphs[job] = body["prompt"]
        {"pending": self.pending, "running": self.running}.get(self.stays or "", []).append(job)
        if self.stays is None:
            self.finish(job)
        if behaviour == "cut":
            assert request.transport is not None
            request.transport.close()
        if behaviour == "garbage":
            return web.Response(text="<html>hello</html>", content_type="text/html")
        answer = {"prompt_id": job, "number": self.accepted, "node_errors": {}}
        return web.json_response({} if behaviour == "no_id" else answer)

    def _invalid(self, graph: dict[str, Any]) -> tuple[int, Any] | None:
        for node in graph.values():
            if node["class_type"] not in NODES:
                error = {"type": "invalid_prompt", "message": "node type not found", "details": node["class_type"]}
                return 400, {"error": error, "node_errors": {}}
            assert set(node["inputs"]) <= NODES[node["class_type"]]
            for key, value in node["inputs"].items():
                known = CHECKPOINTS if key == "ckpt_name" else self.inputs if key in ("image", "file") else None
                if known is not None and value not in known:
                    return _invalid("value_not_in_list", "Value not in list", f"{key}: '{value}' not in []")
                if key in ("width", "height") and value > 16384:
                    return _invalid("value_bigger_than_max", f"Value {value} bigger than max of 16384", key)
        return None

    def finish(self, job: str) -> None:
        """Move a job into the history, with what its graph saves."""
        for queue in (self.pending, self.running):
            if job in queue:
                queue.remove(job)
        graph = self.graphs[job]
        outputs = {}
        for node, content in graph.items():
            if content["class_type"] == "SaveImage":
                outputs[node] = {"images": [{"filename": f"{job}.png", "subfolder": "", "type": "output"}]}
            if content["class_type"] == "SaveVideo":
                item = {"filename": f"{job} film.mp4", "subfolder": "video", "type": "output"}
                outputs[node] = {"images": [item], "animated": [True]}
        self.history[job] = {
            "prompt": [1, job, graph, {"client_id": "mediagate"}, list(outputs)],
            "outputs": outputs if self.outputs is None else self.outputs,
            "status": {"status_str": "success", "completed": True, "messages": [["execution_start", {}]]},
        }

    def _end_badly(self, event: str, data: Mapping[str, Any]) -> None:
        for job in self.history:
            self.history[job]["outputs"] = {}
            self.history[job]["status"] = {
                "status_str": "error",
                "completed": False,
                "messages": [["execution_start", {}], [event, dict(data)]],
            }

    async def _queue(self, request: web.Request) -> web.StreamResponse:
        behaviour = self.polls.popleft() if self.polls and self.graphs else ""
        running, pending = list(self.running), list(self.pending)
        match behaviour:
            case "poll 500":
                return web.Response(status=500, text=f"broken {SECRET}")
            case "poll cut":
                return await cut_short(request)
            case "pending":
                pending += list(self.graphs)
            case "running":
                running += list(self.graphs)
            case "failed":
                self._end_badly("execution_error", self.error)
            case "interrupted":
                self._end_badly("execution_interrupted", {"node_id": "3"})
            case "expired":
                self.history.clear()
            case "no_result":
                for record in self.history.values():
                    record["outputs"] = {}
            case "result 403":
                self._refuse_files = True
        item = [[0, "a-job-of-somebody-else", {}, {}, []]]
        return web.json_response(
            {
                "queue_running": [[1, job, self.graphs[job], {}, []] for job in running],
                "queue_pending": item + [[2, job, self.graphs[job], {}, []] for job in pending],
            }
        )

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        for job in (await request.json())["delete"]:
            if job in self.pending:
                self.pending.remove(job)
        return web.Response(status=200)

    async def _interrupt(self, request: web.Request) -> web.StreamResponse:
        job = (await request.json())["prompt_id"]
        if job in self.running:
            self.finish(job)
            self._end_badly("execution_interrupted", {})
        return web.Response(status=200)

    async def _history(self, request: web.Request) -> web.StreamResponse:
        job = request.match_info["id"]
        return web.json_response({job: copy.deepcopy(self.history[job])} if job in self.history else {})

    async def _view(self, request: web.Request) -> web.StreamResponse:
        assert set(request.query) == {"filename", "subfolder", "type"}
        if self._refuse_files:
            return web.Response(status=403)
        name = request.query["filename"]
        assert request.query["subfolder"] == ("video" if name.endswith(".mp4") else "")
        return web.Response(body=FILM if name.endswith(".mp4") else png())

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        behaviour = self.polls.popleft() if self.polls and self.polls[0].startswith("upload") else ""
        form = await request.post()
        if behaviour:
            return web.Response(status=int(behaviour.split()[1]), text="<html>no</html>")
        file = form["image"]
        assert isinstance(file, web.FileField)
        assert (form["type"], form["overwrite"]) == ("input", "true")
        name = f"{form['subfolder']}/{file.filename}"
        if request.match_info["kind"] == "mask":
            reference = json.loads(str(form["original_ref"]))
            assert f"{reference['subfolder']}/{reference['filename']}" in self.inputs
            self.masks.append(reference)
        self.inputs[name] = file.file.read()
        return web.json_response({"name": file.filename, "subfolder": form["subfolder"], "type": "input"})


def _answer(status: int, document: Any, *, retry_after: str | None = None) -> web.Response:
    headers = {"Retry-After": retry_after} if retry_after else {}
    if isinstance(document, str):
        return web.Response(status=status, text=document, content_type="text/html", headers=headers)
    return web.json_response(document, status=status, headers=headers)
