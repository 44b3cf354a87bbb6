"""Requests, a desk of calls and the harness for the tests of the ``openai`` provider."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import SecretStr

from app.fetch.client import SafeFetcher
from app.providers.openai.adapter import OpenAIProvider
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.settings import Settings
from app.upstreams.contract.harness import SECRET, SUBMIT_BEHAVIOURS
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Call, Provider, PublicUrl, Upstream
from tests.providers.calls import make_call, no_public_url
from tests.providers.fakes.openai import FakeOpenAI
from tests.providers.fakes.openai_data import Style


@dataclass
class Desk:
    """A fake, a provider, and calls of the one to the other."""

    root: Path
    fake: FakeOpenAI
    http: UpstreamHttp
    provider: OpenAIProvider = field(default_factory=lambda: OpenAIProvider(retry_s=0))
    _numbers: count[int] = field(default_factory=count)

    def upstream(self, **options: Any) -> Upstream:
        return Upstream("main", "openai", self.fake.base_url, SecretStr(SECRET), options)

    def call(
        self,
        model: str = "gpt-image-2",
        route: dict[str, Any] | None = None,
        public_url: PublicUrl = no_public_url,
        **options: Any,
    ) -> Call:
        folder = self.root / f"out-{next(self._numbers)}"
        return make_call(self.upstream(**options), model, folder, self.http, public_url=public_url, options=route)

    def media(self, mime: str = "image/png", size: tuple[int, int] = (8, 8), field: str = "image") -> MediaFile:
        path = self.root / f"in-{next(self._numbers)}"
        Image.new("RGB", size, "red").save(path, mime.removeprefix("image/"))
        data = path.read_bytes()
        return MediaFile(path, mime, len(data), hashlib.sha256(data).digest(), field, *size)


async def open_desk(root: Path, style: Style | None = None) -> Desk:
    fake = FakeOpenAI(SECRET, style)
    await fake.start()
    hosts = (f"127.0.0.1:{fake.port}", f"127.0.0.1:{fake.file_port}")
    return Desk(root, fake, UpstreamHttp(SafeFetcher(Settings(fetch_allow_hosts=hosts))))


async def close_desk(desk: Desk) -> None:
    await desk.http.close()
    await desk.http.fetcher.close()
    await desk.fake.stop()


def image_request(prompt: str = "a fox", *, size: tuple[int, int] = (1024, 1024), **fields: Any) -> ImageRequest:
    operation = Operation.IMAGE_EDIT if fields.get("images") else Operation.IMAGE_GENERATE
    fields = {"ratio": "1:1", "quality": "standard", "operation": operation, **fields}
    return ImageRequest(prompt=prompt, width=size[0], height=size[1], **fields)


def video_request(prompt: str = "a fox", *, size: tuple[int, int] = (1280, 720), **fields: Any) -> VideoRequest:
    fields = {
        "operation": Operation.VIDEO_GENERATE,
        "ratio": "16:9",
        "resolution": "720p",
        "duration_s": 8,
        **fields,
    }
    return VideoRequest(prompt=prompt, width=size[0], height=size[1], **fields)


class OpenAIHarness:
    """For the suite that all providers pass."""

    image_model: str | None = "gpt-image-2"
    video_model: str | None = "sora-2"

    def __init__(self) -> None:
        self.provider: Provider = OpenAIProvider(retry_s=0)
        self._fake = FakeOpenAI(SECRET)
        self.upstream = Upstream("main", "openai", None, SecretStr(SECRET))

    async def start(self) -> None:
        await self._fake.start()
        self.upstream = Upstream("main", "openai", self._fake.base_url, SecretStr(SECRET))

    async def stop(self) -> None:
        await self._fake.stop()

    def will(self, *behaviours: str) -> None:
        for behaviour in behaviours:
            (self._fake.submits if behaviour in SUBMIT_BEHAVIOURS else self._fake.polls).append(behaviour)

    @property
    def accepted(self) -> int:
        return self._fake.accepted

    def lacks(self, behaviour: str) -> bool:
        return False
