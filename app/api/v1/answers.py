"""Answers about one task: its body and the headers that every such answer has."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.api.v1 import wire
from app.media.base64_stream import Rendered
from app.tasks.queries import TaskView

SMALL_BYTES = 256 * 1024
"""Up to here one piece is cheaper than a stream."""


def task_headers(view: TaskView) -> dict[str, str]:
    return {"x-task-id": view.public_id}


def poll_headers(view: TaskView) -> dict[str, str]:
    """The SDK's poll helper reads the interval once, from the first answer that is not final."""
    return task_headers(view) if view.is_final else task_headers(view) | {"openai-poll-after-ms": wire.POLL_AFTER_MS}


def task_answer(
    view: TaskView, sign: wire.Sign, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return json_answer(wire.Task.of(view, sign), headers=poll_headers(view) | (headers or {}), status=status)


def video_answer(view: TaskView, sign: wire.Sign) -> Response:
    return json_answer(wire.Video.of(view, sign), headers=poll_headers(view))


def json_answer(body: wire.Wire, *, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    return Response(body.json_bytes(), status_code=status, headers=headers, media_type="application/json")


def wants_csv(request: Request) -> bool:
    return "text/csv" in request.headers.get("accept", "").lower()


def csv_answer(text: str, filename: str) -> Response:
    return Response(text, media_type="text/csv", headers=csv_headers(filename))


def csv_headers(filename: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{filename}"', "cache-control": "no-store"}


async def rendered_answer(rendered: Rendered, *, headers: dict[str, str]) -> Response:
    """Answer with a document whose long parts lie in files. One that changes breaks off: its length was promised."""
    headers = headers | {"content-length": str(rendered.size_bytes)}
    if rendered.size_bytes <= SMALL_BYTES:
        body = b"".join([piece async for piece in rendered.pieces()])
        return Response(body, headers=headers, media_type="application/json")
    return StreamingResponse(rendered.pieces(), headers=headers, media_type="application/json")
