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

from app.catalog.pricing import charge
from app.credits.ledger import Ledger
from app.db import until_done
from app.errors import NO_ROOM, NOT_CHARGED, InvalidMedia, ResultUnavailable
from app.failpoints import failpoint
from app.generation.files import NewFile, remove_files, store_files, with_room
from app.media.checks import Checker
from app.media.headers import ImageHeader, read_image_header
from app.requests import ImageRequest, MediaFile
from app.settings import Settings
from app.storage.base import BlobStore
from app.tasks.lifecycle import Claimed, LeaseLost
from app.upstreams.protocols import ImageResult, VideoResult
from app.values import new_id

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
        self._checker = checker
        self._ledger = ledger

    async def image(self, task: Claimed, request: ImageRequest, result: ImageResult) -> str:
        """Keep the image, as asked for, and capture its price. While the disk is full it waits for room.

        Raises: ResultUnavailable, also when there was no room until the deadline; LeaseLost.
        """
        await failpoint("after_download")
        until = task.claimed_at + self._settings.deadline_image_s
        try:
            path, header = await with_room(partial(self._as_asked, task, request, result.path), until=until)
            media = await _described(path, header.mime, "result", width=header.width, height=header.height)
            revised: dict[str, object] = {"revised_prompt": result.revised_prompt}
            await self._finish(task, [NewFile(media, "result")], delivered=1.0, result=revised, until=until)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise no_room() from error
        return f"{header.width}x{header.height}"

    async def _as_asked(self, task: Claimed, request: ImageRequest, path: Path) -> tuple[Path, ImageHeader]:
        """Return the image in the wanted format, cut to the wanted ratio where the upstream lacks it."""
        header = await asyncio.to_thread(_header_of, path)
        params = task.request["params"]
        crop = (params["crop_width"], params["crop_height"]) if params.get("crop_width") else None
        if header.mime == f"image/{request.output_format}" and crop is None:
            return path, header
        changed = path.with_name("as-asked")
        try:
            await self._checker.transcode_image(
                path, changed, format=request.output_format, quality=request.output_compression, crop=crop
            )
        except InvalidMedia as error:
            raise _unreadable() from error
        return changed, await asyncio.to_thread(_header_of, changed)

    async def video(self, task: Claimed, result: VideoResult, folder: Path) -> str:
        """Keep the video with its thumbnail and GIF, and capture the seconds delivered.

        Raises: InvalidMedia when the file cannot be read, OSError when the disk is full, LeaseLost.
        """
        await failpoint("after_download")
        facts = await self._checker.probe_video(result.video, param="result")
        thumbnail = result.thumbnail
        if thumbnail is None:
            thumbnail = folder / "thumbnail.webp"
            await self._checker.thumbnail(result.video, thumbnail)
        video = await _described(
            result.video, facts.mime, "result", width=facts.width, height=facts.height, duration_s=facts.duration_s
        )
        files = [NewFile(video, "result"), NewFile(await _image(thumbnail), "thumbnail")]
        if result.gif is not None:
            files.append(NewFile(await _described(result.gif, "image/gif", "result"), "gif"))
        await self._finish(task, files, delivered=facts.duration_s, result={}, until=0.0)
        return f"{facts.width}x{facts.height}, {facts.duration_s:.2f} s"

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


def _header_of(path: Path) -> ImageHeader:
    header = read_image_header(path)
    if header is None:
        raise _unreadable()
    return header


def no_room() -> ResultUnavailable:
    return ResultUnavailable(f"The upstream's result could not be stored. {NOT_CHARGED}")


def _unreadable() -> ResultUnavailable:
    return ResultUnavailable(f"The upstream's result could not be read. {NOT_CHARGED}")


async def _image(path: Path) -> MediaFile:
    header = await asyncio.to_thread(_header_of, path)
    return await _described(path, header.mime, "result", width=header.width, height=header.height)


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
