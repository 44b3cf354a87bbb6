"""A running fake, our provider beside it, and requests: for the tests of HappyHorse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.fetch.client import SafeFetcher
from app.providers.dashscope import provider as make_provider
from app.providers.dashscope.adapter import DashScopeProvider
from app.requests import MediaFile, Operation, VideoRequest
from app.settings import Settings
from app.upstreams.contract.harness import SECRET
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import (
    Call,
    Finished,
    Progress,
    Provider,
    Upstream,
    UpstreamJob,
)
from tests.providers.calls import make_call
from tests.providers.fakes.dashscope import MODEL, FakeDashScope

FIRST = "task:1"
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels" * 50


class DashScopeHarness:
    """See `app.upstreams.contract.harness.Harness`."""

    image_model = None
    video_model = MODEL

    def __init__(self) -> None:
        self.fake = FakeDashScope()
        self.provider: Provider = make_provider()
        self.upstream = Upstream("dashscope-main", "dashscope", secret=SecretStr(SECRET))

    async def start(self) -> None:
        await self.fake.start()
        self.upstream = replace(self.upstream, base_url=self.fake.url)

    async def stop(self) -> None:
        await self.fake.stop()

    def will(self, *behaviours: str) -> None:
        self.fake.will(*behaviours)

    @property
    def accepted(self) -> int:
        return len(self.fake.bodies)

    def lacks(self, behaviour: str) -> bool:
        return False


@dataclass
class Desk:
    fake: FakeDashScope
    upstream: Upstream
    http: UpstreamHttp
    root: Path
    provider: DashScopeProvider = field(default_factory=make_provider)
    _numbers: count[int] = field(default_factory=count)

    def call(self, token: str = FIRST, *, ids: Any = None, model: str = MODEL, **options: Any) -> Call:
        upstream = replace(self.upstream, options=options)
        out_dir = self.root / f"out-{next(self._numbers)}"
        return make_call(upstream, model, out_dir, self.http, token, public_url=public_url, options={"ids": ids})

    def file(self, name: str, mime: str = "image/png", content: bytes = PNG) -> MediaFile:
        path = self.root / f"{next(self._numbers)}-{name}"
        path.write_bytes(content)
        return MediaFile(path, mime, len(content), b"", name)

    async def submit(self, request: VideoRequest, **how: Any) -> UpstreamJob:
        return await self.provider.submit_video(request, self.call(**how))

    async def poll(self, job: UpstreamJob) -> Progress | Finished:
        return await self.provider.poll_video(job, self.call())


@asynccontextmanager
async def open_desk(root: Path) -> AsyncIterator[Desk]:
    own = DashScopeHarness()
    await own.start()
    fetcher = SafeFetcher(Settings(fetch_allow_hosts=(own.fake.host,)))
    http = UpstreamHttp(fetcher)
    yield Desk(own.fake, own.upstream, http, root)
    await http.close()
    await fetcher.close()
    await own.stop()


def public_url(file: MediaFile) -> str:
    return f"https://media.example/{file.field}/{file.path.name}"


def film(**said: Any) -> VideoRequest:
    params = {"watermark": False, "seed": 11} | said.pop("params", {})
    defaults: dict[str, Any] = {
        "operation": Operation.VIDEO_GENERATE,
        "prompt": "make it snow",
        "resolution": "720p",
        "width": 1280,
        "height": 720,
        "ratio": "9:16",
        "duration_s": 5,
        "params": params,
    }
    return VideoRequest(**(defaults | said))
