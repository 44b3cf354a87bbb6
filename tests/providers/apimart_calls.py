"""Requests and calls for the tests of the APIMart provider, and its harness for the shared suite."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import SecretStr

from app.fetch.client import SafeFetcher
from app.providers.apimart import provider
from app.providers.apimart.adapter import ApimartProvider
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.settings import Settings
from app.upstreams.contract.harness import SECRET
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Call, PublicUrl, Upstream
from tests.providers.calls import make_call, no_public_url
from tests.providers.fakes.apimart import FakeApimart, png

QUICK: Mapping[str, Any] = {"image_poll_s": 0.001, "image_wait_s": 0.25}


class ApimartHarness:
    image_model: str | None = "gpt-image-2"
    video_model: str | None = "doubao-seedance-2.0"

    def __init__(self) -> None:
        self.fake = FakeApimart()
        self.provider = provider()
        self.upstream = Upstream(name="apimart", provider="apimart")
        self._work: TemporaryDirectory[str] | None = None

    async def start(self) -> None:
        await self.fake.start()
        self._work = TemporaryDirectory()
        self.upstream = Upstream("apimart", "apimart", self.fake.url, SecretStr(SECRET), QUICK, Path(self._work.name))

    async def stop(self) -> None:
        await self.fake.stop()
        if self._work is not None:
            self._work.cleanup()

    def will(self, *behaviours: str) -> None:
        self.fake.will(*behaviours)

    @property
    def accepted(self) -> int:
        return self.fake.accepted

    def lacks(self, behaviour: str) -> bool:
        return False


@dataclass(slots=True)
class Desk:
    """Hands out calls to the fake, each with a folder of its own."""

    fake: FakeApimart
    http: UpstreamHttp
    root: Path
    apimart: ApimartProvider = field(default_factory=ApimartProvider)
    _numbers: count[int] = field(default_factory=count)

    @classmethod
    @asynccontextmanager
    async def opened(cls, root: Path) -> AsyncIterator[Desk]:
        fake = FakeApimart()
        await fake.start()
        fetcher = SafeFetcher(Settings(fetch_allow_hosts=(f"127.0.0.1:{fake.port}",)))
        http = UpstreamHttp(fetcher)
        try:
            yield cls(fake, http, root)
        finally:
            await http.close()
            await fetcher.close()
            await fake.stop()

    def upstream(self, options: Mapping[str, Any] = QUICK, *, secret: str | None = SECRET) -> Upstream:
        key = SecretStr(secret) if secret else None
        return Upstream("apimart", "apimart", self.fake.url, key, options, self.root / "work")

    def call(
        self,
        model: str = "gpt-image-2",
        options: Mapping[str, Any] | None = None,
        *,
        token: str = "task:1",  # noqa: S107 - no secret
        secret: str | None = SECRET,
        route: Mapping[str, Any] | None = None,
        public_url: PublicUrl = no_public_url,
    ) -> Call:
        upstream = self.upstream({**QUICK, **(options or {})}, secret=secret)
        folder = self.root / f"out-{next(self._numbers)}"
        return make_call(upstream, model, folder, self.http, token, public_url, route)

    def picture(self, colour: str = "red", name: str = "image_urls") -> MediaFile:
        return self.file(png(colour), "image/png", name, width=32, height=18)

    def file(self, data: bytes, mime: str, name: str, **more: Any) -> MediaFile:
        path = self.root / f"input-{next(self._numbers)}"
        path.write_bytes(data)
        return MediaFile(path, mime, len(data), hashlib.sha256(data).digest(), name, **more)


def image_request(**fields: Any) -> ImageRequest:
    operation = Operation.IMAGE_EDIT if fields.get("images") else Operation.IMAGE_GENERATE
    usual = {"prompt": "a tram in the rain", "width": 1536, "height": 864, "ratio": "16:9", "quality": "standard"}
    return ImageRequest(operation=operation, **(usual | fields))


def video_request(**fields: Any) -> VideoRequest:
    usual = {
        "operation": Operation.VIDEO_GENERATE,
        "prompt": "a ferry leaves",
        "resolution": "720p",
        "width": 1280,
        "height": 720,
        "ratio": "16:9",
        "duration_s": 8,
    }
    return VideoRequest(**(usual | fields))


def stand_in(name: str = "image_urls", mime: str = "image/png", size: int = 9, **more: Any) -> MediaFile:
    """A file that nobody opens."""
    return MediaFile(Path("nowhere"), mime, size, b"", name, **more)
