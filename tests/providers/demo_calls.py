"""Requests and calls for the demo provider's tests, and eyes for what it made."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageChops, ImageStat

from app.fetch.client import SafeFetcher
from app.providers.demo.adapter import DemoProvider
from app.providers.demo.jobs import Job
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.settings import Settings
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Call, Finished, Upstream, UpstreamJob, VideoResult
from tests.providers.calls import make_call

FIRST = "task:1"
"""The client token of most tests."""


@dataclass(slots=True)
class Desk:
    """Hands out calls to one demo upstream, each with an empty folder of its own. ``token`` is a client token."""

    root: Path
    _numbers: count[int] = field(default_factory=count)

    @property
    def work_dir(self) -> Path:
        return self.root / "work"

    def call(self, token: str = FIRST) -> Call:
        out_dir = self.root / f"out-{next(self._numbers)}"
        upstream = Upstream(name="demo", provider="demo", work_dir=self.work_dir)
        return make_call(upstream, "demo", out_dir, UpstreamHttp(SafeFetcher(Settings())), token)

    def job(self, token: str = FIRST) -> Job:
        return Job.of_token(self.work_dir, token)

    async def film(self, provider: DemoProvider, request: VideoRequest, token: str = FIRST) -> VideoResult:
        job = await provider.submit_video(request, self.call(token))
        await self.finished(provider, job)
        return await provider.fetch_video(job, self.call(token))

    async def finished(self, provider: DemoProvider, job: UpstreamJob, *, within_s: float = 30) -> None:
        async with asyncio.timeout(within_s):
            while True:
                if isinstance(await provider.poll_video(job, self.call()), Finished):
                    return
                await asyncio.sleep(0.02)


async def until(is_so: Callable[[], bool], *, within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.01)


def image_request(prompt: str = "a fox", *, size: tuple[int, int] = (128, 96), **fields: Any) -> ImageRequest:
    operation = Operation.IMAGE_EDIT if fields.get("images") else Operation.IMAGE_GENERATE
    return ImageRequest(
        operation=operation, prompt=prompt, width=size[0], height=size[1], ratio="4:3", quality="standard", **fields
    )


def video_request(
    prompt: str = "a fox", *, operation: Operation = Operation.VIDEO_GENERATE, seconds: int = 2, **fields: Any
) -> VideoRequest:
    size = fields.pop("size", (160, 90))
    return VideoRequest(
        operation=operation,
        prompt=prompt,
        resolution="480p",
        width=size[0],
        height=size[1],
        ratio="16:9",
        duration_s=seconds,
        **fields,
    )


def media(path: Path, field: str = "image") -> MediaFile:
    data = path.read_bytes()
    return MediaFile(path, "application/octet-stream", len(data), hashlib.sha256(data).digest(), field)


def painted(path: Path, colour: Any, size: tuple[int, int] = (128, 96)) -> MediaFile:
    Image.new("RGB", size, colour).save(path, "PNG")
    return media(path)


def load(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def difference(one: Image.Image, other: Image.Image, box: tuple[int, int, int, int] | None = None) -> float:
    """The mean difference per channel, 0..255, inside ``box``."""
    pair = [image.convert("RGB").crop(box or (0, 0, *image.size)) for image in (one, other)]
    means = ImageStat.Stat(ImageChops.difference(*pair)).mean
    return sum(means) / len(means)


@dataclass(slots=True)
class Seen:
    """A decoded film."""

    frames: list[Image.Image]
    video_codec: str
    audio_codec: str | None
    audio_channels: int
    audio_seconds: float
    loudest: int
    container_seconds: float
    is_faststart: bool


def watch(path: Path) -> Seen:
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
        seen = Seen(
            frames=frames,
            video_codec=container.streams.video[0].codec_context.name,
            audio_codec=None,
            audio_channels=0,
            audio_seconds=0.0,
            loudest=0,
            container_seconds=(container.duration or 0) / av.time_base,
            is_faststart=path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat"),
        )
    with av.open(str(path)) as container:
        for stream in container.streams.audio[:1]:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=8000)
            sound = [made for frame in container.decode(stream) for made in resampler.resample(frame)]
            samples = [value for made in sound for value in memoryview(bytes(made.planes[0])).cast("h")[: made.samples]]
            seen.audio_codec, seen.audio_channels = stream.codec_context.name, stream.codec_context.channels
            seen.audio_seconds, seen.loudest = len(samples) / 8000, max(map(abs, samples))
    return seen
