"""The shapes on our HTTP border: tasks as the contract spells them, and OpenAI's videos, lists and errors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.requests import Operation
from app.tasks.queries import StoredFile, TaskPage, TaskView
from app.values import task_public_id, utcnow

Sign = Callable[[str, str], str]
"""Makes a fresh signed URL of a task's file: public id, kind (image, video, thumbnail, gif)."""

TaskStatus = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
TaskType = Literal["image.generation", "image.edit", "video.generation", "video.edit", "video.remix"]
POLL_AFTER_MS = "2000"


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())

    def json_bytes(self) -> bytes:
        return self.model_dump_json().encode()


class ErrorBody(Wire):
    """What went wrong. `reason` is the stable machine word; `code` repeats the HTTP status."""

    message: str
    type: str
    code: int
    param: str | None = Field(None, description="The field that is at fault.")
    reason: str
    request_id: str | None = None
    task_id: str | None = Field(
        None, description="The task this is about. When it is set, do not send the request again."
    )


class ErrorEnvelope(Wire):
    error: ErrorBody


class ImageFile(Wire):
    url: str = Field(description="Signed, for 24 hours.")
    width: int | None
    height: int | None
    size_bytes: int
    content_type: str


class VideoFile(Wire):
    url: str = Field(description="Signed, for 24 hours.")
    thumbnail_url: str | None
    gif_url: str | None
    width: int | None
    height: int | None
    duration: float | None = Field(description="Seconds.")
    size_bytes: int
    content_type: str


class TaskResult(Wire):
    images: list[ImageFile] | None = None
    videos: list[VideoFile] | None = None


class Task(Wire):
    id: str
    task_id: str
    object: Literal["task"] = "task"
    type: TaskType
    model: str
    status: TaskStatus
    progress: int = Field(ge=0, le=100)
    prompt: str
    resolution: str | None
    quality: str | None
    size: str | None = Field(description="Width x height in pixels; of the result, once there is one.")
    aspect_ratio: str | None
    duration: int | None = Field(description="Seconds: those of the result, once there is one.")
    credits: int = Field(description="Credits charged: 0 until the task has completed, and for good when it fails.")
    credits_held: int = Field(description="Credits put aside while the task runs.")
    created_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None = Field(description="When the files are deleted.")
    image_url: str | None
    video_url: str | None
    result: TaskResult | None = Field(description="Null once the files were deleted.")
    error: ErrorBody | None
    warnings: list[str]
    metadata: dict[str, str]

    @classmethod
    def of(cls, view: TaskView, sign: Sign) -> Task:
        params, result = view.request["params"], _result(view, sign)
        return cls(
            id=view.public_id,
            task_id=view.public_id,
            type=view.operation.task_type,
            model=view.model,
            status=view.public_status,
            progress=view.progress,
            prompt=view.request.get("prompt", ""),
            resolution=params.get("resolution"),
            quality=params.get("quality"),
            size=pixels(view),
            aspect_ratio=params.get("crop_ratio") or params.get("ratio"),
            duration=_seconds(view),
            credits=view.charge or 0,
            credits_held=0 if view.is_final else view.hold,
            created_at=unix(view.created_at),
            started_at=find_unix(view.started_at),
            completed_at=find_unix(view.settled_at),
            expires_at=_expires_at(view),
            image_url=result.images[0].url if result and result.images else None,
            video_url=result.videos[0].url if result and result.videos else None,
            result=result,
            error=None if view.error is None else ErrorBody(**view.error.body()),
            warnings=list(view.request.get("warnings", ())),
            metadata=dict(view.request.get("metadata", {})),
        )


class TaskList(Wire):
    object: Literal["list"] = "list"
    data: list[Task]
    first_id: str | None
    last_id: str | None = Field(description="Send it as `after` for the next page.")
    has_more: bool


class Deleted(Wire):
    id: str
    object: Literal["task.deleted", "video.deleted"]
    deleted: Literal[True] = True


class VideoError(Wire):
    code: str
    message: str


class Video(Wire):
    """OpenAI's Video object. `seconds` is a string there, and a cancelled one has failed."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(ge=0, le=100)
    created_at: int
    completed_at: int | None
    expires_at: int | None
    error: VideoError | None
    prompt: str
    remixed_from_video_id: str | None
    size: str | None
    seconds: str
    task_id: str
    url: str | None
    credits: int

    @classmethod
    def of(cls, view: TaskView, sign: Sign) -> Video:
        return cls(
            id=view.public_id,
            model=view.model,
            status="failed" if view.public_status == "cancelled" else view.public_status,
            progress=view.progress,
            created_at=unix(view.created_at),
            completed_at=find_unix(view.settled_at),
            expires_at=_expires_at(view),
            error=_video_error(view),
            prompt=view.request.get("prompt", ""),
            remixed_from_video_id=view.request.get("source_task") if view.operation is Operation.VIDEO_REMIX else None,
            size=pixels(view),
            seconds=str(_seconds(view) or 0),
            task_id=view.public_id,
            url=_url(view, "result", view.operation.kind, sign),
            credits=view.charge or 0,
        )


class VideoList(Wire):
    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Image(Wire):
    b64_json: str | None = Field(None, description="The file, in base64; left out for `response_format: url`.")
    url: str = Field(description="Signed, for 24 hours; byte for byte what `b64_json` decodes to.")


class ImagesReply(Wire):
    """Documentation of a reply that is never built as one object: the base64 is streamed from the stored file."""

    created: int
    data: list[Image]
    id: str = Field(description="The task: GET /v1/images/{id} and /v1/tasks/{id} take it.")
    model: str
    size: str = Field(description="The true pixels.")
    output_format: Literal["png", "jpeg", "webp"]
    credits: int = Field(description="Credits charged.")
    warnings: list[str] | None = Field(None, description="Only when there are any.")


def images_reply(view: TaskView, sign: Sign) -> dict[str, Any]:
    """Return the reply without its ``b64_json``, which the sender adds to the first of ``data``."""
    result = view.files_of("result")[0]
    reply: dict[str, Any] = {
        "created": unix(view.settled_at or view.created_at),
        "data": [{"url": sign(view.public_id, "image")}],
        "id": view.public_id,
        "model": view.model,
        "size": pixels(view),
        "output_format": output_format(result),
        "credits": view.charge or 0,
    }
    if view.request.get("warnings"):
        reply["warnings"] = list(view.request["warnings"])
    return reply


class RemixedVideo(Task):
    """Documentation of the superset that one route owes two contracts: a Task, and over it OpenAI's Video."""

    object: Literal["video"]  # type: ignore[assignment]
    status: Literal["queued", "in_progress", "completed", "failed"]
    error: VideoError | None  # type: ignore[assignment]
    remixed_from_video_id: str | None
    seconds: str
    url: str | None


def remixed(view: TaskView, sign: Sign) -> dict[str, Any]:
    """Return the superset that one route owes two contracts: the task's fields, and over them the Video's."""
    return Task.of(view, sign).model_dump(mode="json") | Video.of(view, sign).model_dump(mode="json")


def page_ends(page: TaskPage) -> dict[str, str | None]:
    """Return the cursors of a page: the SDK continues after the top-level ``last_id``, also of an empty page."""
    return {
        "first_id": page.items[0].public_id if page.items else None,
        "last_id": None if page.last is None else task_public_id(page.last),
    }


def unix(moment: datetime) -> int:
    return int(moment.timestamp())


def find_unix(moment: datetime | None) -> int | None:
    return None if moment is None else unix(moment)


def pixels(view: TaskView) -> str | None:
    """Return ``WxH``: the result's, or until then what was asked for; None while the upstream is to choose."""
    result, params = view.find_file("result"), view.request["params"]
    if result is not None and result.width and result.height:
        return f"{result.width}x{result.height}"
    for cut in ("crop_", ""):
        if params.get(f"{cut}width") and params.get(f"{cut}height"):
            return f"{params[f'{cut}width']}x{params[f'{cut}height']}"
    return None


def output_format(file: StoredFile) -> str:
    return file.mime.removeprefix("image/")


def _result(view: TaskView, sign: Sign) -> TaskResult | None:
    now = utcnow()
    files = [file for file in view.files_of("result") if file.is_kept(now)]
    if view.public_status != "completed" or not files:
        return None
    if view.operation.kind == "image":
        return TaskResult(images=[_image_file(view, file, sign) for file in files])
    return TaskResult(videos=[_video_file(view, file, sign) for file in files])


def _image_file(view: TaskView, file: StoredFile, sign: Sign) -> ImageFile:
    return ImageFile(
        url=sign(view.public_id, "image"),
        width=file.width,
        height=file.height,
        size_bytes=file.size_bytes,
        content_type=file.mime,
    )


def _video_file(view: TaskView, file: StoredFile, sign: Sign) -> VideoFile:
    return VideoFile(
        url=sign(view.public_id, "video"),
        thumbnail_url=_url(view, "thumbnail", "thumbnail", sign),
        gif_url=_url(view, "gif", "gif", sign),
        width=file.width,
        height=file.height,
        duration=None if file.duration_ms is None else file.duration_ms / 1000,
        size_bytes=file.size_bytes,
        content_type=file.mime,
    )


def _url(view: TaskView, role: str, kind: str, sign: Sign) -> str | None:
    file = view.find_file(role)
    return sign(view.public_id, kind) if file is not None and file.is_kept(utcnow()) else None


def _expires_at(view: TaskView) -> int | None:
    return find_unix(min((file.expires_at for file in view.files_of("result")), default=None))


def _video_error(view: TaskView) -> VideoError | None:
    if view.error is None:
        return None
    return VideoError(code="cancelled" if view.status == "cancelled" else view.error.reason, message=view.error.message)


def _seconds(view: TaskView) -> int | None:
    """Return the whole seconds of the video, or until it is there those it is going to have; None for an image."""
    result, params = view.find_file("result"), view.request["params"]
    if result is not None and result.duration_ms:
        return max(1, (result.duration_ms + 500) // 1000)
    asked: int | None = params.get("duration")
    if asked is None or view.operation is not Operation.VIDEO_REMIX or params.get("raw"):
        return asked
    return asked + int((view.request["source"]["duration_ms"] + 500) // 1000)
