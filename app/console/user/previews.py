"""Small pictures of an account's results and inputs, for the pages that show many of them."""

from __future__ import annotations

import re

from fastapi import APIRouter
from starlette.responses import Response

from app.api.session import principal_of
from app.console import shell
from app.console.visitor import ConsoleRoute, SomeVisitor
from app.errors import FileNotFound
from app.generation.previews import MIME
from app.tasks.queries import StoredFile, TaskView
from app.values import utcnow

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

KEPT = "private, no-cache"
"""Kept by the browser, and asked for each time: after a sign-out or a deletion it is shown no more."""
NONE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="480" height="480" viewBox="0 0 24 24" fill="none" stroke="#888888" '
    'stroke-linecap="round"><rect x="8" y="8" width="8" height="8" rx="1"/><path d="M7 17 17 7"/></svg>'
)
"""Neutral in both themes."""
_PLACE = re.compile(r"(input-)?([0-9]{1,3})", re.ASCII)


@router.get("/console/preview/{task_id}/{place}")
async def preview(visitor: SomeVisitor, task_id: str, place: str) -> Response:
    """Answer with the picture at that position of the result, or of the inputs (``input-0``)."""
    task = await visitor.services.tasks.get(principal_of(visitor.session), task_id)  # theirs, or not found
    file = _find(task, place)
    if file is None or not file.is_kept(utcnow()):
        raise FileNotFound(task.public_id, "picture there")
    headers = {**shell.HEADERS, "cache-control": KEPT, "etag": f'"{file.id.hex}"'}  # a file's content never changes
    if headers["etag"] in visitor.request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = await visitor.services.previews.get(file, account_id=task.account_id)
    if content is None:  # it may be had the next time
        return Response(NONE, media_type="image/svg+xml", headers={**shell.HEADERS, "cache-control": "no-store"})
    return Response(content, media_type=MIME, headers=headers)


def address(task: TaskView, place: int | str = 0) -> str:
    return f"/console/preview/{task.public_id}/{place}"


def _find(task: TaskView, place: str) -> StoredFile | None:
    match = _PLACE.fullmatch(place)
    if match is None:
        return None
    roles = ("input", "mask") if match[1] else ("thumbnail",) if task.operation.kind == "video" else ("result",)
    candidates = (file for role in roles for file in task.files_of(role) if file.mime.startswith("image/"))
    return next((file for file in candidates if file.position == int(match[2])), None)
