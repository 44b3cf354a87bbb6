"""A provider at the border: it answers as its test tells it, counts what it accepted, and makes real files."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

from app.requests import ImageRequest, Operation, VideoRequest
from app.upstreams.protocols import (
    Call,
    Capabilities,
    Finished,
    ImageResult,
    PartialSink,
    Progress,
    SubmitSafety,
    UpstreamJob,
    VideoResult,
)

Step = BaseException | Callable[[], Awaitable[None]]
"""What one call does before it answers: raise, or run something first."""


def write_png(path: Path, width: int = 64, height: int = 64) -> Path:
    Image.new("RGB", (width, height), (200, 40, 90)).save(path, "PNG")
    return path


def write_mp4(path: Path, *, seconds: int, width: int = 64, height: int = 36, rate: int = 8) -> Path:
    """Write a tiny H.264 film of exactly ``seconds``."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, rate)
        for index in range(seconds * rate):
            frame = av.VideoFrame.from_image(Image.new("RGB", (width, height), (index % 255, 80, 120)))
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@dataclass
class FakeProvider:
    """Serves everything. Each list of steps is used up from the left; an empty one means: it works."""

    submit: SubmitSafety = SubmitSafety.IDEMPOTENT
    name: str = "fake"
    submits: deque[Step] = field(default_factory=deque)
    polls: deque[Step | Progress] = field(default_factory=deque)
    fetches: deque[Step] = field(default_factory=deque)
    accepted: Counter[str] = field(default_factory=Counter)
    """Calls that arrived, by client token; an idempotent upstream makes one thing of them."""
    seconds: int = 5
    image_size: tuple[int, int] | None = None
    stops: bool = True
    """Whether a cancel is obeyed."""
    cancels: int = 0
    partials: int = 0
    after_write: Callable[[], Awaitable[None]] | None = None
    """Run when an image lies in the step's folder."""
    requests: list[ImageRequest | VideoRequest] = field(default_factory=list)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(frozenset(Operation), self.submit, cancel=True, poll_s=0.05)

    async def generate_image(
        self, request: ImageRequest, call: Call, on_partial: PartialSink | None = None
    ) -> ImageResult:
        self._arrived(request, call)
        await _take(self.submits)
        for index in range(self.partials if on_partial else 0):
            await on_partial(index, write_png(call.out_dir / f"partial-{index}.png"))
        size = self.image_size or (request.width, request.height)
        written = write_png(call.out_dir / "image", *size)
        if self.after_write is not None:
            await self.after_write()
        return ImageResult(written)

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        self._arrived(request, call)
        await _take(self.submits)
        return UpstreamJob(f"job-{call.client_token}")

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        state = await _take(self.polls)
        return state or Finished()

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        await _take(self.fetches)
        if self.seconds == 0:
            (call.out_dir / "video").write_bytes(b"<html>not a film</html>")
            return VideoResult(call.out_dir / "video")
        return VideoResult(write_mp4(call.out_dir / "video", seconds=self.seconds))

    async def cancel_video(self, job: UpstreamJob, call: Call) -> bool:
        self.cancels += 1
        return self.stops

    def _arrived(self, request: ImageRequest | VideoRequest, call: Call) -> None:
        self.accepted[call.client_token] += 1
        self.requests.append(request)


async def _take(steps: deque[Step | Progress] | deque[Step]) -> Progress | None:
    if not steps:
        return None
    step = steps.popleft()
    if isinstance(step, BaseException):
        raise step
    if isinstance(step, Progress):
        return step
    await step()
    return None
