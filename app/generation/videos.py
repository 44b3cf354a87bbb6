"""Takes video requests: judged, promised, handed to the workers. Nothing here waits for an upstream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.accounts.keys import Principal
from app.errors import InvalidParameter, InvalidRequest, ResultExpired, TaskNotFound, TaskNotReady
from app.generation.files import media_file
from app.generation.prepare import Prepared, Preparer
from app.generation.promise import Promiser
from app.generation.repeats import Repeats
from app.intake import Intake
from app.queue import ArqQueue
from app.requests import MediaFile, Operation
from app.storage.base import BlobStore
from app.tasks.queries import StoredFile, TaskQueries, TaskView
from app.values import find_task_id, utcnow


class Videos:
    def __init__(
        self,
        *,
        repeats: Repeats,
        preparer: Preparer,
        promiser: Promiser,
        queries: TaskQueries,
        queue: ArqQueue,
        storage: BlobStore,
    ) -> None:
        self._repeats = repeats
        self._preparer = preparer
        self._promiser = promiser
        self._queries = queries
        self._queue = queue
        self._storage = storage

    async def submit(self, principal: Principal, intake: Intake) -> TaskView:
        """Promise one video and return its queued task at once; a repeated request's as it stands.

        Raises: any error of the 400 family, ModelNotFound, InsufficientCredits and the other refusals of the ledger.
        """
        joined = await self._repeats.find(principal, intake)
        if joined is not None:
            return joined
        prepared = await self._preparer.prepare(principal, intake, Operation.VIDEO_GENERATE)
        return await self._accept(principal, prepared, intake)

    async def remix(self, principal: Principal, public_id: str, intake: Intake) -> TaskView:
        """Extend a finished video of the caller's, at the provider and account that made it.

        Raises: TaskNotFound, TaskNotReady, InvalidParameter, ResultExpired; and as `submit`.
        """
        joined = await self._repeats.find(principal, intake)
        if joined is not None:
            return joined
        source = await self.source_of(principal, public_id, intake)
        prepared = await self.prepare_remix(principal, source, intake)
        return await self._accept(principal, prepared, intake, source=_source(source))

    async def _accept(
        self, principal: Principal, prepared: Prepared, intake: Intake, *, source: Mapping[str, Any] | None = None
    ) -> TaskView:
        task_id = await self._promiser.accept(principal, prepared, intake, source=source)
        if intake.is_replay:
            return await self._repeats.join(principal, intake, task_id)
        await self._queue.enqueue(task_id)
        view = await self._queries.find(task_id)
        if view is None:
            raise LookupError(f"accepted task {task_id} has no row")
        return view

    async def prepare_remix(
        self, principal: Principal, source: TaskView, intake: Intake, *, is_quote: bool = False
    ) -> Prepared:
        """Judge a remix: what the caller leaves open is as in the source. Raises: as `remix`."""
        params = source.request["params"]
        try:
            return await self._preparer.prepare(
                principal,
                Intake({**intake.fields, "model": source.model}, intake.spool),
                Operation.VIDEO_REMIX,
                defaults={"resolution": params["resolution"], "ratio": params["ratio"]},
                upstream=source.pool.split("/", 1)[0],
                source=self._video_of(source),
                is_quote=is_quote,
            )
        except InvalidRequest as error:
            error.task_id = source.public_id
            raise

    def _video_of(self, view: TaskView) -> MediaFile | None:
        video = view.find_file("result")
        return media_file(video, self._storage) if video is not None else None

    async def source_of(self, principal: Principal, public_id: str, intake: Intake) -> TaskView:
        """Return the task a remix would go on from. Raises: as `remix`."""
        task_id = find_task_id(public_id)
        source = await self._queries.find(task_id, account_id=principal.account_id) if task_id else None
        if source is None or source.deleted_at is not None:
            raise TaskNotFound(public_id)
        about: dict[str, Any] = {"param": "id", "task_id": source.public_id}
        if source.operation.kind != "video":
            raise InvalidParameter("Only a video can be remixed; this task made an image.", **about)
        wanted = intake.fields.get("model")
        if wanted is not None and wanted != source.model:
            raise InvalidParameter(
                f"'model' must be the source's, '{source.model}', or absent; got {str(wanted)[:64]!r}.",
                **about | {"param": "model"},
            )
        if not source.is_final:
            raise TaskNotReady("The source video is not finished yet.", retry_after_s=5, **about)
        if source.status != "succeeded":
            raise InvalidParameter("The source video was not made: only a completed one can be remixed.", **about)
        _video(source)
        return source


def _video(view: TaskView) -> StoredFile:
    video = view.find_file("result")
    if video is None or not video.is_kept(utcnow()):
        raise ResultExpired(view.public_id)
    return video


def _source(view: TaskView) -> Mapping[str, Any]:
    video = _video(view)
    return {
        "task": view.public_id,
        "upstream_id": view.upstream_id,
        "storage_key": video.storage_key,
        "mime": video.mime,
        "bytes": video.size_bytes,
        "sha256": video.sha256.hex(),
        "width": video.width,
        "height": video.height,
        "duration_ms": video.duration_ms,
    }
