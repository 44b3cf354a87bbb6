"""Requests and calls for the tests of the Google provider, and its harness for the shared suite."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.fetch.client import SafeFetcher
from app.providers.google import provider
from app.providers.google.adapter import GoogleProvider
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.settings import Settings
from app.upstreams.contract.harness import SECRET
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Call, Upstream
from tests.providers.calls import make_call
from tests.providers.fakes.google import PROJECT, FakeGoogle, png

IMAGE_MODEL = "gemini-3-pro-image"
VIDEO_MODEL = "veo-3.1-fast-generate-001"
LITE = "veo-3.1-lite-generate-001"
AGENT: Mapping[str, Any] = {}
GEMINI: Mapping[str, Any] = {"api": "gemini"}
BEARER: Mapping[str, Any] = {"project": PROJECT, "location": "us-central1"}


class GoogleHarness:
    """The Gemini API for images and, unless ``options`` say otherwise, the Agent Platform for videos."""

    image_model: str | None = IMAGE_MODEL
    video_model: str | None = VIDEO_MODEL

    def __init__(self, options: Mapping[str, Any] = AGENT) -> None:
        self.fake = FakeGoogle()
        self.provider = provider()
        self._options = options
        self.upstream = Upstream(name="google", provider="google")

    async def start(self) -> None:
        await self.fake.start()
        self.upstream = Upstream("google", "google", self.fake.url, SecretStr(SECRET), self._options)

    async def stop(self) -> None:
        await self.fake.stop()

    def will(self, *behaviours: str) -> None:
        self.fake.will(*behaviours)

    @property
    def accepted(self) -> int:
        return self.fake.accepted

    def lacks(self, behaviour: str) -> bool:
        """There is no status word; and on the Agent Platform no URL of a result."""
        return behaviour == "unknown_word" or (behaviour == "result 403" and self._options.get("api") != "gemini")


@dataclass(slots=True)
class Desk:
    """Hands out calls to the fake, each with a folder of its own."""

    fake: FakeGoogle
    http: UpstreamHttp
    root: Path
    google: GoogleProvider = field(default_factory=GoogleProvider)
    _numbers: count[int] = field(default_factory=count)

    @classmethod
    @asynccontextmanager
    async def opened(cls, root: Path) -> AsyncIterator[Desk]:
        """A running fake, reachable under two names, which are two origins."""
        fake = FakeGoogle()
        await fake.start()
        hosts = (f"127.0.0.1:{fake.port}", f"localhost:{fake.port}")
        fetcher = SafeFetcher(Settings(fetch_allow_hosts=hosts))
        http = UpstreamHttp(fetcher)
        try:
            yield cls(fake, http, root)
        finally:
            await http.close()
            await fetcher.close()
            await fake.stop()

    def upstream(self, options: Mapping[str, Any] = AGENT, *, secret: str | None = SECRET) -> Upstream:
        return Upstream("google", "google", self.fake.url, SecretStr(secret) if secret else None, options)

    def call(
        self,
        model: str = IMAGE_MODEL,
        options: Mapping[str, Any] = AGENT,
        *,
        secret: str | None = SECRET,
        route: Mapping[str, Any] | None = None,
    ) -> Call:
        folder = self.root / f"out-{next(self._numbers)}"
        return make_call(self.upstream(options, secret=secret), model, folder, self.http, options=route)

    def video_call(self, options: Mapping[str, Any] = AGENT, **more: Any) -> Call:
        return self.call(VIDEO_MODEL, options, **more)

    @property
    def sent(self) -> Any:
        """The body of the last submit."""
        names = (":generateContent", ":predictLongRunning")
        return next(seen.body for seen in reversed(self.fake.seen) if seen.path.endswith(names))

    @staticmethod
    def stand_in(name: str, width: int = 1280, height: int = 720) -> MediaFile:
        """A file that nobody opens."""
        return MediaFile(Path("nowhere"), "image/png", 9, b"", name, width, height)

    def picture(self, colour: str = "red", name: str = "image_urls") -> MediaFile:
        return self.file(png(colour), "image/png", name, width=64, height=36)

    def film(self, data: bytes, *, size: tuple[int, int] = (1280, 720)) -> MediaFile:
        return self.file(data, "video/mp4", "result", width=size[0], height=size[1])

    def file(self, data: bytes, mime: str, name: str, **more: Any) -> MediaFile:
        path = self.root / f"input-{next(self._numbers)}"
        path.write_bytes(data)
        return MediaFile(path, mime, len(data), hashlib.sha256(data).digest(), name, **more)


def image_request(**fields: Any) -> ImageRequest:
    operation = Operation.IMAGE_EDIT if fields.get("images") else Operation.IMAGE_GENERATE
    usual = {"prompt": "a fox", "width": 1376, "height": 768, "ratio": "16:9", "quality": "standard"}
    return ImageRequest(operation=operation, **(usual | fields))


def video_request(**fields: Any) -> VideoRequest:
    usual = {
        "operation": Operation.VIDEO_GENERATE,
        "prompt": "a kite over dunes",
        "resolution": "720p",
        "width": 1280,
        "height": 720,
        "ratio": "16:9",
        "duration_s": 8,
    }
    return VideoRequest(**(usual | fields))


def remix_request(source: MediaFile | None, **fields: Any) -> VideoRequest:
    videos = (source,) if source else ()
    return video_request(operation=Operation.VIDEO_REMIX, videos=videos, **fields)
