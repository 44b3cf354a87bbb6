"""Translate neutral requests into jobs of the demo upstream, which lives in files and survives the caller's death.

No state is kept here but the children and the tasks that wait for them: any process may poll, fetch or cancel what
another one submitted, and goes on rendering when that one died.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from app.media.processes import ChildFailed, ChildPool
from app.providers.demo.jobs import Job, count_attempt, link_or_copy, prune
from app.providers.demo.script import ALWAYS, Script, parse_script
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
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
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    Verdict,
    VideoResult,
)

IMAGE_WALL_S = 180.0  # mostly waiting for a core
VIDEO_WALL_S = 3600.0
CPU_S = 900
MEMORY_BYTES = 2 * 1024**3
FILE_BYTES = 1024**3
BUSY_RETRY_S = 1.0
PRUNE_EVERY_S = 600.0
MAX_RENDERS = 3  # a job whose child died that often is to blame itself


def spare_cores() -> int:
    """All but one of the cores we may use, at least one."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


class DemoProvider:
    """Images and films drawn on this machine. Belongs to one event loop; ``close`` ends its children."""

    name = "demo"
    capabilities = Capabilities(
        operations=frozenset(Operation), submit=SubmitSafety.IDEMPOTENT, cancel=True, poll_s=0.5
    )

    def __init__(self, *, slots: int | None = None) -> None:
        self._slots = slots or spare_cores()
        self._images = self._open_pool()  # their own children: an image never waits until a film is done
        self._films = self._open_pool()
        self._rendering: dict[Path, asyncio.Task[None]] = {}
        self._pruned_at = float("-inf")

    async def generate_image(
        self, request: ImageRequest, call: Call, on_partial: PartialSink | None = None
    ) -> ImageResult:
        """Draw one image. The same client token always answers with the same file."""
        script = parse_script(request.prompt)
        job = Job.of_token(call.upstream.work_dir, call.client_token)
        spec, files = _image_spec(request, script)
        await self._accept(job, call, script, spec, files)
        first = await asyncio.to_thread(job.count, "sends") == 1
        accepted = await asyncio.to_thread(job.request)

        await asyncio.sleep(max(0.0, accepted["accepted_at"] + script.delay_s - time.time()))
        if script.fail:
            raise UpstreamFailed("asked for by [[fail]]")
        if not job.is_done:
            await self._draw(job, call, request.partial_images if on_partial else 0, on_partial)
        if script.lose and first:
            raise UpstreamOutcomeUnknown("asked for by [[lose]]")
        result = job.path / f"result.{request.output_format}"
        return ImageResult(await _hand_over(result, call))

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        """Begin to render. A token that was accepted before finds its job again."""
        script = parse_script(request.prompt)
        job = Job.of_token(call.upstream.work_dir, call.client_token)
        spec, files = _video_spec(request, script)
        await self._accept(job, call, script, spec, files)
        sends = await asyncio.to_thread(job.count, "sends")
        if not script.fail:
            self._begin(job, call)
        if script.lose and sends == 1:
            raise UpstreamOutcomeUnknown("asked for by [[lose]]")
        return UpstreamJob(job.id)

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        """Look at the job's files; render it if whoever did so is gone."""
        found = await self._get(job, call)
        spec = await asyncio.to_thread(found.request)
        if found.is_cancelled:
            raise UpstreamFailed("the job was cancelled")
        error = found.error()
        if error is not None:
            raise UpstreamFailed(error)
        if not (spec["fail"] or found.is_done or found.path in self._rendering or found.is_locked()):
            self._begin(found, call)
        waited = time.time() - spec["accepted_at"]
        if waited < spec["delay_s"]:
            rendered = 99 if found.is_done else found.progress()
            return Progress(min(rendered, int(99 * waited / spec["delay_s"])))
        if spec["fail"]:
            raise UpstreamFailed("asked for by [[fail]]")
        return Finished() if found.is_done else Progress(found.progress())

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        """Give the files a second name in ``call.out_dir``."""
        found = await self._get(job, call)
        names = ("result.mp4", "thumbnail.webp", "result.gif")
        video, thumbnail, gif = (found.find_result(name) for name in names)
        if video is None or not found.is_done or found.is_cancelled:
            raise UpstreamFailed("the result is gone")
        return VideoResult(
            video=await _hand_over(video, call),
            thumbnail=await _hand_over(thumbnail, call) if thumbnail else None,
            gif=await _hand_over(gif, call) if gif else None,
        )

    async def cancel_video(self, job: UpstreamJob, call: Call) -> bool:
        """Stop a job that is not done or still in its delay, whichever process renders it."""
        found = await self._get(job, call)
        return await asyncio.to_thread(found.cancel, now=time.time())

    def needs_secret(self, upstream: Upstream) -> bool:
        """See `Probe`."""
        return False

    async def probe(self, call: Call, models: Collection[str]) -> Probed:
        """There is nobody to ask."""
        return Probed(Verdict.LOCAL)

    async def close(self) -> None:
        """End the children. What they were rendering goes on when another process polls it."""
        tasks = list(self._rendering.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._images.close()
        await self._films.close()

    def _open_pool(self) -> ChildPool:
        return ChildPool(
            f"{__package__}.child", size=self._slots, memory_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=FILE_BYTES
        )

    async def _accept(
        self, job: Job, call: Call, script: Script, spec: dict[str, Any], files: dict[str, MediaFile]
    ) -> None:
        """Remember the job, unless the prompt wants it refused. Raises: UpstreamBusy, UpstreamModerated."""
        if job.is_accepted:
            return
        work_dir = call.upstream.work_dir
        if script.policy:
            raise UpstreamModerated("asked for by [[policy]]")
        if script.busy == ALWAYS or (
            script.busy and await asyncio.to_thread(count_attempt, work_dir, call.client_token) <= script.busy
        ):
            raise UpstreamBusy("asked for by [[busy]]", retry_after_s=BUSY_RETRY_S)
        if time.monotonic() - self._pruned_at > PRUNE_EVERY_S:
            self._pruned_at = time.monotonic()
            await asyncio.to_thread(prune, work_dir, now=time.time())
        await asyncio.to_thread(job.accept, spec, {name: file.path for name, file in files.items()})

    async def _get(self, job: UpstreamJob, call: Call) -> Job:
        found = await asyncio.to_thread(Job.of_id, call.upstream.work_dir, job.id)
        if found is None:
            raise UpstreamFailed("no such job")
        return found

    async def _draw(self, job: Job, call: Call, partials: int, on_partial: PartialSink | None) -> None:
        place = self._place(job, call)
        try:
            for index in range(partials):
                out = call.out_dir / f"partial-{index}"
                await self._images.call("partial", timeout_s=IMAGE_WALL_S, out=str(out), index=index, **place)
                if on_partial is not None:
                    await on_partial(index, out)
            await self._images.call("image", timeout_s=IMAGE_WALL_S, **place)
        except ChildFailed as failed:
            if failed.reason in ("crashed", "closed") and job.counted("renders") < MAX_RENDERS:
                raise UpstreamOutcomeUnknown(str(failed)) from failed  # the same token may be sent again
            raise UpstreamFailed(str(failed)) from failed

    def _begin(self, job: Job, call: Call) -> None:
        if job.path not in self._rendering:
            task = asyncio.create_task(self._render(job, self._place(job, call)))
            self._rendering[job.path] = task
            task.add_done_callback(lambda _: self._rendering.pop(job.path, None))

    async def _render(self, job: Job, place: dict[str, Any]) -> None:
        try:
            await self._films.call("film", timeout_s=VIDEO_WALL_S, **place)
        except ChildFailed as failed:
            if failed.reason in ("crashed", "closed") and job.counted("renders") < MAX_RENDERS:
                return  # the next poll renders it again
            await asyncio.to_thread(job.fail, str(failed))

    def _place(self, job: Job, call: Call) -> dict[str, Any]:
        return {"job": str(job.path), "slots": str(call.upstream.work_dir / "slots"), "slot_count": self._slots}


def _image_spec(request: ImageRequest, script: Script) -> tuple[dict[str, Any], dict[str, MediaFile]]:
    files = {f"input-{number}": file for number, file in enumerate(request.images)}
    spec = {
        "operation": request.operation,
        "prompt": script.text,
        "width": request.width,
        "height": request.height,
        "format": request.output_format,
        "compression": request.output_compression,
        "transparent": request.background == "transparent" and request.output_format != "jpeg",
        "seed": request.hints.get("seed"),
        "images": list(files),
        "mask": "input-mask" if request.mask else None,
    }
    return spec, files | ({"input-mask": request.mask} if request.mask else {})


def _video_spec(request: VideoRequest, script: Script) -> tuple[dict[str, Any], dict[str, MediaFile]]:
    images = {f"input-image-{number}": file for number, file in enumerate(request.images)}
    videos = {f"input-video-{number}": file for number, file in enumerate(request.videos)}
    files = images | videos
    first, last, insets = None, None, list(images)
    if request.first_frame is not None:
        first = "input-first"
        files[first] = request.first_frame
    elif request.params.get("generation_type") == "frame" and images:
        first, last = insets[0], insets[1] if len(insets) > 1 else None
        insets = []
    changes_source = request.operation in (Operation.VIDEO_EDIT, Operation.VIDEO_REMIX)
    if changes_source and not videos:
        raise UpstreamFailed(f"{request.operation} without a source video")
    spec = {
        "operation": request.operation,
        "prompt": script.text,
        "width": request.width,
        "height": request.height,
        "seconds": request.duration_s,
        "short": script.short_s,
        "images": insets,
        "videos": [] if changes_source else list(videos),
        "source": next(iter(videos)) if changes_source else None,
        "first_frame": first,
        "last_frame": last,
        "sound": request.params.get("generate_audio") is not False,
        "gif": request.params.get("enable_gif") is True,
        "raw": request.params.get("raw") is True,
        "seed": request.params.get("seed"),
        "delay_s": script.delay_s,
        "fail": script.fail,
    }
    return spec, files


async def _hand_over(result: Path, call: Call) -> Path:
    out = call.out_dir / result.name
    await asyncio.to_thread(link_or_copy, result, out)
    return out
