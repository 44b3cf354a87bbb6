"""Runs an operator's graphs on a ComfyUI server, and looks for their files in its history.

Options of the account: ``graphs``, by the route's model (below); ``image_poll_s`` and ``image_wait_s``, how often and
how long one call looks for its image. Option of a route: its own ``graphs``, without the model. A secret is sent as a
Bearer token, for a proxy in front: ComfyUI itself knows none and must not be reached by strangers. ::

    graphs:
      flux: {graph: /etc/mediagate/flux.json, binding: /etc/mediagate/flux.yaml}
      wan: [{graph: ..., binding: ...}, {graph: ..., binding: ...}]    # the first that fits the request's inputs

ComfyUI tells progress only over a websocket, which is not used: the queue tells whether a job waits or runs.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid5

from app.providers.comfyui import answers
from app.providers.comfyui.graph import Workflow, load
from app.providers.comfyui.requests import Files, files_of, values_of, why_not
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.upstreams.http import MIB, POLL, PROBE, Limits, Part
from app.upstreams.protocols import (
    Call,
    Capabilities,
    Finished,
    ImageResult,
    PartialSink,
    Probed,
    Progress,
    SubmitSafety,
    Upstream,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
    Verdict,
    VideoResult,
)

BASE_URL = "http://127.0.0.1:8188"
SUBMIT = Limits(read_s=30.0, total_s=60.0)
UPLOAD = Limits(read_s=60.0, total_s=300.0)
IMAGE_BYTES = 64 * MIB
IMAGE_POLL_S, IMAGE_WAIT_S = 1.0, 600.0
JOBS = UUID("8f9b6c1e-5a0d-5d3e-9b57-3f1f0e6a2c44")
"""Name space of our job ids."""
FOLDER = "mediagate"
"""Of our uploads, below the server's input folder."""


def job_id(client_token: str) -> str:
    """Return the prompt_id of a token: a resend finds the job of the first sending."""
    return str(uuid5(JOBS, client_token))


class ComfyuiProvider:
    """Before a graph is sent, the queue and the history are asked whether it arrived already: no job is made twice."""

    name = "comfyui"
    capabilities = Capabilities(
        operations=frozenset(Operation), submit=SubmitSafety.IDEMPOTENT, cancel=True, poll_s=3.0
    )

    def why_not(self, request: ImageRequest | VideoRequest, model: str, upstream: Upstream) -> str | None:
        """See `Picky`. What a route's own graphs can do shows only when they are used."""
        pairs = _pairs(_of(upstream.options.get("graphs"), model))
        if not pairs:
            return None
        try:
            complaints = [why_not(request, load(*pair).binding) for pair in pairs]
        except UpstreamDenied:
            return None  # a mistake of ours is no fault of the request
        return _best(complaints)

    async def generate_image(
        self, request: ImageRequest, call: Call, on_partial: PartialSink | None = None
    ) -> ImageResult:
        """Queue the graph, wait for it, and fetch its first picture.

        Once queued nothing but the job's own end is definite: whatever else happens is UpstreamOutcomeUnknown, and the
        same token leads back to the same job.
        """
        workflow = _workflow(request, call)
        await self._queue(request, workflow, call)
        try:
            file = await _first_file(job_id(call.client_token), workflow, call)
            out = call.out_dir / f"image{Path(file['filename']).suffix.lower()}"
            await call.http.download(
                _view(file, call), out, upstream=call.upstream, headers=_headers(call), max_bytes=IMAGE_BYTES
            )
        except (UpstreamFailed, UpstreamOutcomeUnknown, _NoMemory):
            raise
        except UpstreamError as error:
            raise UpstreamOutcomeUnknown(f"queued, then: {error}", http_status=error.http_status) from None
        return ImageResult(out)

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        """Queue the graph, unless it is queued."""
        return UpstreamJob(await self._queue(request, _workflow(request, call), call))

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        """Look for the job in the queue, then in the history."""
        word, record = await _state(job.id, call)
        if record is None:
            return Progress(started=word == "running")
        _films(record, call)
        return Finished()

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        """Fetch the first film of a finished job."""
        _, record = await _state(job.id, call)
        if record is None:
            raise UpstreamError("the job is not done any more")
        file = _films(record, call)[0]
        out = call.out_dir / f"video{Path(file['filename']).suffix.lower()}"
        await call.http.download(_view(file, call), out, upstream=call.upstream, headers=_headers(call))
        return VideoResult(video=out)

    async def cancel_video(self, job: UpstreamJob, call: Call) -> bool:
        """Take the job out of the queue, or interrupt it. False when it had already ended with a result."""
        word = answers.place_in_queue(await _get(call, "/queue"), job.id)
        if word == "pending":
            await _post(call, "/queue", {"delete": [job.id]})
            word = answers.place_in_queue(await _get(call, "/queue"), job.id)
        if word == "running":
            await _post(call, "/interrupt", {"prompt_id": job.id})
            return True
        record = (await _get(call, f"/history/{job.id}")).get(job.id)
        return word is None and not (isinstance(record, dict) and record.get("outputs"))

    def needs_secret(self, upstream: Upstream) -> bool:
        """See `Probe`: only a proxy in front asks for one."""
        return False

    async def probe(self, call: Call, models: Collection[str]) -> Probed:
        """Read the queue; where it is shown without our secret, too, nothing in front judges it."""
        await _read_queue(call, _headers(call))
        if call.upstream.secret is None:
            return Probed(Verdict.OPEN)
        try:
            await _read_queue(call, {})
        except UpstreamError:
            return Probed(Verdict.ACCEPTED)
        return Probed(Verdict.OPEN)

    async def _queue(self, request: ImageRequest | VideoRequest, workflow: Workflow, call: Call) -> str:
        """Return the job's id. Raises: UpstreamError."""
        ours = job_id(call.client_token)
        if await _is_known(ours, call):
            return ours
        files = await _upload_all(files_of(request, workflow.binding), call)
        graph = workflow.filled({**values_of(request, workflow.binding, call.client_token), **files})
        body = {"prompt": graph, "client_id": "mediagate", "prompt_id": ours}
        answer = await call.http.send(
            "POST", _url(call, "/prompt"), phase="submit", headers=_headers(call), json=body, limits=SUBMIT
        )
        theirs = answers.accepted(answer)
        if theirs != ours:  # a server from before mid-2025: it could not be found again
            await _post(call, "/queue", {"delete": [theirs]})
            raise UpstreamFailed("this ComfyUI is too old: it does not take our prompt_id")
        return ours


class _NoMemory(UpstreamBusy):
    """The job ended for want of memory: nothing was made, and another route may do."""


# --- graphs -----------------------------------------------------------------------------------------------------------


def _workflow(request: ImageRequest | VideoRequest, call: Call) -> Workflow:
    """Return the first graph that fits. Raises: UpstreamRejected when none does, UpstreamDenied when there is none."""
    pairs = _all_pairs(call)
    if not pairs:
        raise UpstreamDenied("the account has no graph for this model")
    workflows = [load(*pair) for pair in pairs]
    complaints = [why_not(request, workflow.binding) for workflow in workflows]
    if (best := _best(complaints)) is not None:
        raise UpstreamRejected(public=best)
    return workflows[complaints.index(None)]


def _best(complaints: Sequence[str | None]) -> str | None:
    """Return None where one graph fits, else the complaint that helps most: how many of such an input may be given."""
    said = [complaint for complaint in complaints if complaint is not None]
    return min(said, key=lambda one: "must hold" not in one) if len(said) == len(complaints) else None


def _all_pairs(call: Call) -> list[tuple[str, str]]:
    return _pairs(call.options.get("graphs")) or _pairs(_of(call.upstream.options.get("graphs"), call.model))


def _of(graphs: Any, model: str) -> Any:
    return graphs.get(model) if isinstance(graphs, Mapping) else None


def _pairs(option: Any) -> list[tuple[str, str]]:
    """Return the (graph, binding) files that an option names."""
    listed = option if isinstance(option, Sequence) and not isinstance(option, str) else [option]
    pairs = [(one.get("graph"), one.get("binding")) for one in listed if isinstance(one, Mapping)]
    return [(graph, binding) for graph, binding in pairs if isinstance(graph, str) and isinstance(binding, str)]


# --- jobs -------------------------------------------------------------------------------------------------------------


async def _is_known(job: str, call: Call) -> bool:
    try:
        await _state(job, call)
    except UpstreamFailed:
        return False
    return True


async def _state(job: str, call: Call) -> tuple[str, Mapping[str, Any] | None]:
    """Return where the job is: ``running``, ``pending``, or ``ended`` with its record. Raises: UpstreamFailed: nowhere.

    The queue is asked first: a job goes from there to the history, and so cannot be missed in between.
    """
    word = answers.place_in_queue(await _get(call, "/queue"), job)
    if word is not None:
        return word, None
    record = (await _get(call, f"/history/{job}")).get(job)
    if not isinstance(record, dict):
        raise UpstreamFailed("the job is not known any more")
    return "ended", record


async def _first_file(job: str, workflow: Workflow, call: Call) -> dict[str, str]:
    """Wait for the job's first picture. Raises: UpstreamFailed, _NoMemory, UpstreamError when time is up."""
    options = call.upstream.options
    pause_s, wait_s = _seconds(options, "image_poll_s", IMAGE_POLL_S), _seconds(options, "image_wait_s", IMAGE_WAIT_S)
    until = time.monotonic() + wait_s
    while True:
        record, trouble = None, ""
        try:
            trouble, record = await _state(job, call)
        except UpstreamFailed:
            raise
        except UpstreamError as error:
            trouble = str(error)
        if record is not None:
            try:
                files = answers.ended(record, answers.STILLS, workflow.binding.output)
            except UpstreamBusy as error:
                raise _NoMemory(str(error)) from None
            if not files:
                raise UpstreamFailed("done, without a picture")
            return files[0]
        if time.monotonic() + pause_s > until:
            raise UpstreamOutcomeUnknown(f"not done after {wait_s:g} s: {trouble}")
        await asyncio.sleep(pause_s)


def _films(record: Mapping[str, Any], call: Call) -> list[dict[str, str]]:
    """Raises: UpstreamFailed, also when there is no film."""
    try:
        files = answers.ended(record, answers.FILMS, _output_of(record, call))
    except UpstreamBusy as error:
        raise UpstreamFailed(str(error), public=answers.NO_MEMORY) from None
    if not files:
        raise UpstreamFailed("done, without a video")
    return files


def _output_of(record: Mapping[str, Any], call: Call) -> tuple[str, ...]:
    """Return the binding's ``output`` of the graph that this job ran."""
    sent = record.get("prompt")
    nodes = sent[2] if isinstance(sent, list) and len(sent) > 2 and isinstance(sent[2], dict) else {}
    try:
        workflows = [load(*pair) for pair in _all_pairs(call)]
    except UpstreamDenied:
        return ()
    return next((workflow.binding.output for workflow in workflows if set(workflow.graph) == set(nodes)), ())


# --- files ------------------------------------------------------------------------------------------------------------


async def _upload_all(files: Files, call: Call) -> dict[str, Any]:
    """Put the inputs into the server's input folder, under names made of their content; return what to bind."""
    values: dict[str, Any] = {}
    first: dict[str, str] | None = None
    for name, given in files.items():
        if name == "mask":
            values[name] = _bound(await _upload_mask(given[0], first, call))
            continue
        places = [await _upload(file, call) for file in given]
        first = first or places[0]
        bound = [_bound(place) for place in places]
        values[name] = bound if name in ("images", "videos", "audios") else bound[0]
    return values


async def _upload(file: MediaFile, call: Call) -> dict[str, str]:
    name = f"{file.sha256.hex()[:32]}.{_extension(file)}"
    return await _uploaded("/upload/image", [Part("image", file.path, filename=name, content_type=file.mime)], call)


async def _upload_mask(mask: MediaFile, original: dict[str, str] | None, call: Call) -> dict[str, str]:
    """The server makes one picture: the original's colours, the mask's alpha."""
    if original is None:
        return await _upload(mask, call)
    stem = Path(original["filename"]).stem
    part = Part("image", mask.path, filename=f"{stem[:32]}-{mask.sha256.hex()[:32]}.png", content_type=mask.mime)
    return await _uploaded("/upload/mask", [part, Part("original_ref", json.dumps(original))], call)


async def _uploaded(path: str, parts: list[Part], call: Call) -> dict[str, str]:
    """Nothing is queued yet, so whatever is lost here is only a delay."""
    form = [*parts, Part("type", "input"), Part("subfolder", FOLDER), Part("overwrite", "true")]
    try:
        answer = await call.http.send(
            "POST", _url(call, path), phase="read", headers=_headers(call), form=form, limits=UPLOAD
        )
        if answer.status == 413:
            raise UpstreamRejected("upload: 413", public="An input is too large for this upstream.")
        document = answers.readable(answer)
    except (UpstreamRejected, UpstreamDenied, UpstreamBusy):
        raise
    except UpstreamError as error:
        raise UpstreamBusy(f"upload: {error}", http_status=error.http_status) from None
    name, folder = document.get("name"), document.get("subfolder") or ""
    if not isinstance(name, str) or not name or not isinstance(folder, str):
        raise UpstreamBusy("upload: an answer without a name")
    return {"filename": name, "subfolder": folder, "type": str(document.get("type") or "input")}


def _bound(place: Mapping[str, str]) -> str:
    return f"{place['subfolder']}/{place['filename']}" if place["subfolder"] else place["filename"]


def _extension(file: MediaFile) -> str:
    kind = file.mime.rpartition("/")[2].lower()
    return {"jpeg": "jpg", "quicktime": "mov", "mpeg": "mp3", "x-wav": "wav"}.get(kind, kind)


# --- the wire ---------------------------------------------------------------------------------------------------------


async def _get(call: Call, path: str) -> Mapping[str, Any]:
    return answers.readable(
        await call.http.send("GET", _url(call, path), phase="read", headers=_headers(call), limits=POLL)
    )


async def _read_queue(call: Call, headers: Mapping[str, str]) -> None:
    """Raises: UpstreamError, also for an answer that is no queue."""
    url = _url(call, "/queue")
    answer = await call.http.send("GET", url, phase="read", headers=headers, limits=PROBE)
    answers.place_in_queue(answers.readable(answer), "")


async def _post(call: Call, path: str, body: Mapping[str, Any]) -> None:
    """Post something whose answer has no body. Raises: UpstreamError."""
    async with call.http.stream(
        "POST", _url(call, path), phase="read", headers=_headers(call), json=body, limits=POLL
    ) as response:
        if not 200 <= response.status < 300:
            raise UpstreamError(f"status {response.status}", http_status=response.status)


def _view(file: Mapping[str, str], call: Call) -> str:
    return _url(call, f"/view?{urlencode(file)}")


def _url(call: Call, path: str) -> str:
    return (call.upstream.base_url or BASE_URL).rstrip("/") + path


def _headers(call: Call) -> dict[str, str]:
    secret = call.upstream.secret
    return {"Authorization": f"Bearer {secret.get_secret_value()}"} if secret else {}


def _seconds(options: Mapping[str, Any], name: str, default: float) -> float:
    value = options.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else default
