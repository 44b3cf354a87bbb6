"""A provider as a package of its own brings one, in the three kinds of submit safety; its vendor is `FakeUpstream`.

Real processes find it by its entry points: `install` writes what an installed package has beside its code.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from app.requests import ImageRequest, Operation, VideoRequest
from app.upstreams.http import Answer, Limits, default_error
from app.upstreams.protocols import (
    Call,
    Capabilities,
    Finished,
    ImageResult,
    PartialSink,
    Progress,
    Provider,
    SubmitSafety,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    VideoResult,
)

SUBMIT = Limits(read_s=2.0, total_s=4.0)
READ = Limits(read_s=2.0, total_s=4.0)
VIDEO_BYTES = 4 * 1024 * 1024
POLL_S = 0.1
OPERATIONS = frozenset({Operation.IMAGE_GENERATE, Operation.IMAGE_EDIT, Operation.VIDEO_GENERATE})


class Vendor:
    """One kind: what the vendor promises about a submit whose answer was lost."""

    def __init__(self, safety: SubmitSafety) -> None:
        self.safety = safety
        self.name = f"faults-{safety.value}"
        self.capabilities = Capabilities(OPERATIONS, safety, poll_s=POLL_S)

    async def generate_image(
        self, request: ImageRequest, call: Call, on_partial: PartialSink | None = None
    ) -> ImageResult:
        answer = await self._submit("images", request.prompt, call)
        if not answer.values:
            raise UpstreamOutcomeUnknown("no image in the answer")
        return ImageResult(answer.values[0].file)

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        answer = await self._submit("videos", request.prompt, call)
        job = answer.document.get("id") if isinstance(answer.document, dict) else None
        if not isinstance(job, str):
            raise UpstreamOutcomeUnknown("no id in the answer")
        return UpstreamJob(job)

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        answer = await self._read(f"videos/{job.id}", call)
        match answer:
            case {"status": "done"}:
                return Finished()
            case {"status": "failed"}:
                raise UpstreamFailed("failed", public="The upstream could not make it")
            case {"status": "running"}:
                return Progress(50)
        raise UpstreamError("no status")

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        video, thumbnail = call.out_dir / "video", call.out_dir / "thumbnail.webp"
        await call.http.download(
            _url(call, f"videos/{job.id}/content"), video, upstream=call.upstream, max_bytes=VIDEO_BYTES, total_s=6.0
        )
        shutil.copy(THUMBNAIL, thumbnail)
        return VideoResult(video, thumbnail)

    async def _submit(self, what: str, prompt: str, call: Call) -> Answer:
        answer = await call.http.send(
            "POST",
            _url(call, what),
            phase="submit",
            json={"prompt": prompt, "client_token": call.client_token, "safety": self.safety.value},
            limits=SUBMIT,
            divert=frozenset({"b64_json"}),
            folder=call.out_dir,
        )
        if answer.is_ok:
            return answer
        if isinstance(answer.document, dict) and answer.document.get("code") == "moderated":
            raise UpstreamModerated("moderated", http_status=answer.status)
        raise default_error(answer, "submit")

    async def _read(self, path: str, call: Call) -> Any:
        answer = await call.http.send("GET", _url(call, path), phase="read", limits=READ)
        if answer.is_ok:
            return answer.document
        raise default_error(answer, "read")


class ListingVendor(Vendor):
    """Has a list of recent jobs, each with the token it was sent with."""

    async def find_submitted(self, request: VideoRequest, call: Call, sent_at: datetime) -> UpstreamJob | None:
        jobs = await self._read(f"videos?client_token={call.client_token}", call)
        if not isinstance(jobs, list):
            raise UpstreamError("no list")
        return UpstreamJob(jobs[0]["id"]) if jobs else None


def idempotent() -> Vendor:
    return Vendor(SubmitSafety.IDEMPOTENT)


def listing() -> ListingVendor:
    return ListingVendor(SubmitSafety.LISTABLE)


def blind() -> Vendor:
    return Vendor(SubmitSafety.BLIND)


THUMBNAIL = Path(__file__).with_name("thumbnail.webp")


def providers() -> dict[str, Provider]:
    """Return all of them, as this process would find them if they were installed."""
    return {vendor.name: vendor for vendor in (idempotent(), listing(), blind())}


def install(folder: Path) -> Path:
    """Write the metadata of a package with these providers; return the folder for PYTHONPATH."""
    info = folder / "mediagate_faults-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mediagate-faults\nVersion: 1.0\n")
    lines = [f"{name} = {__name__}:{name}" for name in ("idempotent", "listing", "blind")]
    (info / "entry_points.txt").write_text("\n".join(["[mediagate.providers]", *lines, ""]))
    return folder


def _url(call: Call, path: str) -> str:
    return f"{call.upstream.base_url}/{path}"
