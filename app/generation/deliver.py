"""Takes what an upstream delivered into our storage, and settles for what was really delivered."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import shutil
import time
from functools import partial
from pathlib import Path
from types import TracebackType

import structlog

from app.catalog.pricing import charge
from app.credits.ledger import Ledger
from app.db import until_done
from app.errors import NO_ROOM, NOT_CHARGED, InvalidMedia, ResultUnavailable
from app.failpoints import failpoint
from app.generation.files import NewFile, remove_files, store_files, with_room
from app.media.checks import Checker, ImageFacts
from app.media.signatures import read_head, sniff
from app.requests import ImageRequest, MediaFile
from app.settings import Settings
from app.storage.base import BlobStore
from app.tasks.lifecycle import Claimed, LeaseLost
from app.upstreams.protocols import ImageResult, VideoResult
from app.values import new_id

log = structlog.get_logger()

_PIECE = 1024 * 1024
YOUNG_S = 60.0
"""Beyond it a result that waits for the database is made young again: the sweep takes old files without a row."""


class WorkFolder:
    """A folder for one step, removed at its end whatever happens. ``room_bytes``: with less free disk it is refused.

    Raises: OSError when the disk is full.
    """

    def __init__(self, parent: Path, *, room_bytes: int = 0) -> None:
        self._path = parent / f"step-{new_id().hex}"
        self._room_bytes = room_bytes

    async def __aenter__(self) -> Path:
        await asyncio.to_thread(self._make)
        return self._path

    def _make(self) -> None:
        self._path.mkdir(parents=True)
        if self._room_bytes and shutil.disk_usage(self._path).free < self._room_bytes:
            self._path.rmdir()
            raise OSError(errno.ENOSPC, "too little room for a result", str(self._path))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, self._path, ignore_errors=True))


class Delivery:
    def __init__(self, *, settings: Settings, storage: BlobStore, checker: Checker, ledger: Ledger) -> None:
        self._settings = settings
        self._storage = storage
        self._checker = checker.for_results()
        self._ledger = ledger

    async def image(self, task: Claimed, request: ImageRequest, result: ImageResult) -> str:
        """Keep the image, as asked for, and capture its price. While the disk is full it waits for room.

        Raises: ResultUnavailable, also when there was no room until the deadline; LeaseLost.
        """
        await failpoint("after_download")
        until = task.claimed_at + self._settings.deadline_image_s
        try:
            path, facts = await with_room(partial(self._as_asked, task, request, result.path), until=until)
            media = await _picture(path, facts)
            revised: dict[str, object] = {"revised_prompt": result.revised_prompt}
            await self._finish(task, [NewFile(media, "result")], delivered=1.0, result=revised, until=until)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise no_room() from error
        return f"{facts.width}x{facts.height}"

    async def _as_asked(self, task: Claimed, request: ImageRequest, path: Path) -> tuple[Path, ImageFacts]:
        """Return the image in the wanted format, cut to the wanted ratio where the upstream lacks it."""
        params = task.request["params"]
        crop = (params["crop_width"], params["crop_height"]) if params.get("crop_width") else None
        is_as_asked = crop is None and await asyncio.to_thread(_kind_of, path) == request.output_format.upper()
        changed = path.with_name("as-asked")
        try:
            if is_as_asked:
                return path, await self._checker.verify_image(path, param="result")
            return changed, await self._checker.transcode_image(
                path, changed, format=request.output_format, quality=request.output_compression, crop=crop
            )
        except InvalidMedia as error:
            raise _unreadable() from error

    async def video(self, task: Claimed, result: VideoResult, folder: Path) -> str:
        """Keep the video with its thumbnail and GIF, and capture the seconds delivered.

        Raises: InvalidMedia when the file cannot be read, OSError when the disk is full, LeaseLost.
        """
        await failpoint("after_download")
        facts = await self._checker.probe_video(result.video, param="result")
        video = await _described(
            result.video, facts.mime, "result", width=facts.width, height=facts.height, duration_s=facts.duration_s
        )
        files = [NewFile(video, "result"), NewFile(await self._thumbnail(task, result, folder), "thumbnail")]
        if result.gif is not None and await asyncio.to_thread(_is_gif, result.gif):  # else it goes without
            files.append(NewFile(await _described(result.gif, "image/gif", "result"), "gif"))
        await self._finish(task, files, delivered=facts.duration_s, result={}, until=0.0)
        return f"{facts.width}x{facts.height}, {facts.duration_s:.2f} s"

    async def _thumbnail(self, task: Claimed, result: VideoResult, folder: Path) -> MediaFile:
        """Return the upstream's where it is a picture, else the first frame: no finished video fails for it."""
        if result.thumbnail is not None:
            try:
                facts = await self._checker.verify_image(result.thumbnail, param="result")
                return await _picture(result.thumbnail, facts)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the video is not
                log.warning("result.thumbnail_dropped", task_id=str(task.id), error=str(error))
        made = folder / "made-thumbnail.webp"
        width, height = await self._checker.thumbnail(result.video, made)
        return await _described(made, "image/webp", "result", width=width, height=height)

    async def _finish(
        self, task: Claimed, files: list[NewFile], *, delivered: float, result: dict[str, object], until: float
    ) -> None:
        rows, keys = await store_files(self._storage, files, ttl=self._settings.result_ttl, until=until)
        price = charge(task.request["quote"], delivered)
        stored_at = time.monotonic()

        async def finish() -> bool:
            if time.monotonic() - stored_at > YOUNG_S:
                for key in keys:
                    await self._storage.touch(key)
            return await self._ledger.finish(task.id, task.token, charge=price, files=rows, result=result)

        # What was paid for waits for the database as long as the lease is ours.
        if not await until_done(finish):
            await remove_files(self._storage, keys)
            raise LeaseLost(str(task.id))


def _kind_of(path: Path) -> str:
    return sniff(read_head(path)).upper()


def _is_gif(path: Path) -> bool:
    return path.is_file() and _kind_of(path) == "GIF"


def no_room() -> ResultUnavailable:
    return ResultUnavailable(f"The upstream's result could not be stored. {NOT_CHARGED}")


def _unreadable() -> ResultUnavailable:
    return ResultUnavailable(f"The upstream's result could not be read. {NOT_CHARGED}")


async def _picture(path: Path, facts: ImageFacts) -> MediaFile:
    return await _described(path, facts.mime, "result", width=facts.width, height=facts.height)


async def _described(
    path: Path,
    mime: str,
    field: str,
    *,
    width: int | None = None,
    height: int | None = None,
    duration_s: float | None = None,
) -> MediaFile:
    size, digest = await asyncio.to_thread(_size_and_digest, path)
    return MediaFile(path, mime, size, digest, field, width, height, duration_s)


def _size_and_digest(path: Path) -> tuple[int, bytes]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return size, digest.digest()
