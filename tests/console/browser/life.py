"""What has happened in the gateway before its pages are looked at: empty tables are looked at by nobody for long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from httpx2 import AsyncClient

from tests.plugins.gateway import Gateway

VIDEO_S = 60
LONG_PROMPT = "A lighthouse above a stormy sea, painted in thick oils, with one warm window. " * 6
UNBROKEN = "https://example.test/" + "a-very-long-name-without-any-space-in-it/" * 4
FOX = "A red fox in fresh snow, evening light"


@dataclass(frozen=True, slots=True)
class Life:
    """Public ids of what there is to see."""

    task_id: str
    failed_id: str
    video_id: str
    account_id: str


async def live(gateway: Gateway, headers: Mapping[str, str], account_id: str) -> Life:
    """Make images, one that fails, and videos as this caller, until all have ended; and a webhook endpoint."""
    async with AsyncClient(base_url=gateway.base_url, headers=dict(headers), timeout=VIDEO_S + 30) as client:

        async def make(path: str, **body: Any) -> str:
            answer = await client.post(path, json=body)
            return answer.headers["x-task-id"]

        async def ended(task_id: str) -> str:
            answer = await client.get(f"/v1/tasks/{task_id}", params={"wait": VIDEO_S})
            assert answer.json()["status"] in ("completed", "failed"), answer.text
            return task_id

        video, *images = await asyncio.gather(
            make("/v1/videos/generations", prompt="A river at night", resolution="480p"),
            make("/v1/images/generations", prompt=FOX, **{"async": True}),
            make("/v1/images/generations", prompt=LONG_PROMPT, **{"async": True}),
            make("/v1/images/generations", prompt=f"一只狐狸在雪地里 {UNBROKEN}", **{"async": True}),
            make("/v1/images/generations", prompt="[[fail]] A robin on a fence", **{"async": True}),
        )
        await asyncio.gather(*map(ended, (video, *images)))
        hook = {"name": "Shop", "url": "https://hooks.example.test/mediagate", "event_types": ["video.completed"]}
        made = await client.post("/v1/webhook_endpoints", json=hook)
        assert made.status_code < 300, made.text
    return Life(task_id=images[0], failed_id=images[3], video_id=video, account_id=account_id)
