"""Forty hostile images and forty hostile films against a real process: refused by name, and nothing is left of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psutil
from httpx2 import AsyncClient, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.settings import Settings
from tests.plugins.gateway import FileServer
from tests.security.conftest import Process
from tests.security.hostile_films import hostile_films
from tests.security.hostile_images import hostile_images

GIB, MIB = 1 << 30, 1 << 20
AT_ONCE = 4


@dataclass
class Memory:
    """The most that was seen, in bytes."""

    child: int = 0
    server: int = 0


@asynccontextmanager
async def watched(process: Process) -> AsyncIterator[Memory]:
    """Look at the memory of the server and of its children 50 times a second."""
    seen = Memory()

    async def watch() -> None:
        while True:
            seen.server = max(seen.server, process.os_process.memory_info().rss)
            for child in process.children:
                with suppress(psutil.NoSuchProcess):
                    seen.child = max(seen.child, child.memory_info().rss)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()


async def each(names: Iterable[str], send: object) -> dict[str, Response]:
    """Send them, a few at a time."""
    places = asyncio.Semaphore(AT_ONCE)
    answers: dict[str, Response] = {}

    async def one(name: str) -> None:
        async with places:
            answers[name] = await send(name)  # type: ignore[operator]

    await asyncio.gather(*(one(name) for name in names))
    return answers


def not_refused(answers: dict[str, Response], *, param: str) -> dict[str, str]:
    def is_refused(answer: Response) -> bool:
        error = answer.json().get("error", {})
        return answer.status_code == 400 and error.get("param") == param and f"'{param}" in error["message"]

    return {name: answer.text[:200] for name, answer in answers.items() if not is_refused(answer)}


async def test_eighty_hostile_files_are_refused_and_cost_next_to_nothing(
    process: Process,
    outside: AsyncClient,
    engine: AsyncEngine,
    bearer: dict[str, str],
    file_server: FileServer,
    settings: Settings,
) -> None:
    images, films = dict(hostile_images()), dict(hostile_films())
    assert (len(images), len(films)) == (40, 40)

    async def send_image(name: str) -> Response:
        files = {"image": ("photo.png", images[name], "image/png")}
        return await outside.post("/v1/images/edits", data={"prompt": "a fox"}, files=files, headers=bearer)

    async def send_film(name: str) -> Response:
        url = file_server.url(f"film-{list(films).index(name)}.mp4", films[name])
        body = {"model": "happyhorse-1.0", "prompt": "make it night", "video_url": url}
        return await outside.post("/v1/videos/generations", json=body, headers=bearer)

    # Warm: the first of each loads the libraries, in the server and in its children.
    await each(["a TIFF", "half a PNG", "half a JPEG", "an animated WebP"], send_image)
    await each(["a sound of four gigabytes", "half a film", "half a WebM"], send_film)
    before = process.os_process.memory_info().rss
    file_server.hits.clear()

    async with watched(process) as memory:
        refused_images = await each(images, send_image)
        refused_films = await each(films, send_film)

    assert not_refused(refused_images, param="image") == {}
    assert not_refused(refused_films, param="video_url") == {}
    print(f"server +{(memory.server - before) // MIB} MiB, largest child {memory.child // MIB} MiB")  # noqa: T201
    assert 10 * MIB < memory.child < GIB
    assert memory.server - before < 50 * MIB
    assert len(file_server.hits) == len(films)  # each was fetched once, and nothing that stands in it
    tables = "(SELECT count(*) FROM tasks) + (SELECT count(*) FROM files) + (SELECT sum(held) FROM accounts)"
    assert (await db.once(engine, f"SELECT {tables} AS held"))[0]["held"] == 0
    assert list(settings.spool_dir.iterdir()) == []
    log = process.log.read_text()
    assert "Traceback" not in log
    assert "error" not in {word for line in log.splitlines() for word in line.split('"level": "')[1:2]}
