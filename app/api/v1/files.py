"""The bytes of results: for the owner's key or a signed URL, whole or one range, sent from the file in pieces."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from app.accounts.principal import Principal
from app.api.deps import FILES_READ, Credentials, ServicesDep, SessionCookie, identify
from app.api.errors import note_task
from app.api.openapi import BINARY, FILE_HEADERS, errors
from app.errors import (
    IpNotAllowed,
    MissingApiKey,
    RangeNotSatisfiable,
    ResultExpired,
    ResultUnavailable,
    ScopeMissing,
    SignatureExpired,
    TaskNotFound,
    TaskNotReady,
)
from app.tasks.queries import StoredFile
from app.values import utcnow
from app.wiring import Services

router = APIRouter(prefix="/api/jobs", tags=["Files"])

PIECE_BYTES = 256 * 1024
_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)

FileKind = Literal["image", "video", "thumbnail", "gif"]


async def allow_file(
    public_id: str,
    kind: FileKind,
    request: Request,
    services: ServicesDep,
    credentials: Credentials,
    _session: SessionCookie,
) -> Principal | None:
    """Return the owner, or None for a bearer of a valid signature. A signature goes first when both came along.

    Raises: SignatureExpired, MissingApiKey, InvalidApiKey, ScopeMissing.
    """
    if "s" in request.query_params:
        services.links.verify(public_id, kind, request.query_params, utcnow())
        return None
    principal = await identify(request, services, credentials)
    principal.require_scope(FILES_READ)
    return principal


@router.head("/{public_id}/{kind}", include_in_schema=False)
@router.get(
    "/{public_id}/{kind}",
    summary="Read a result's bytes",
    description="With the owner's API key, or with the signature in the query of the URLs that answers give. "
    "HEAD, `If-None-Match` and one `Range` are supported.",
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": BINARY, "headers": FILE_HEADERS},
        206: {"description": "One range of it.", "content": BINARY, "headers": FILE_HEADERS},
        304: {"description": "Unchanged."},
        **errors(
            TaskNotReady,
            MissingApiKey,
            ScopeMissing,
            IpNotAllowed,
            SignatureExpired,
            TaskNotFound,
            ResultExpired,
            RangeNotSatisfiable,
            ResultUnavailable,
        ),
    },
    operation_id="read_file",
)
async def read_file(
    public_id: str,
    kind: FileKind,
    request: Request,
    services: ServicesDep,
    principal: Annotated[Principal | None, Depends(allow_file)],
) -> Response:
    file = await services.tasks.file(principal, public_id, kind)
    return send_file(request, services, file, task_id=public_id)


@router.head("/{public_id}/inputs/{name}", include_in_schema=False)
@router.get("/{public_id}/inputs/{name}", include_in_schema=False)
async def read_input(public_id: str, name: str, request: Request, services: ServicesDep) -> Response:
    """For upstreams that fetch their inputs by URL: only by a signature of ours."""
    services.links.verify(public_id, f"inputs/{name}", request.query_params, utcnow())
    return send_file(request, services, await services.tasks.input_file(public_id, name), task_id=public_id)


def send_file(request: Request, services: Services, file: StoredFile, *, task_id: str) -> Response:
    """Answer with a stored file. Raises: ResultExpired, ResultUnavailable, RangeNotSatisfiable."""
    note_task(request, task_id)
    path = stored_path(services, file, task_id=task_id)
    left_s = max(int((file.expires_at - utcnow()) / timedelta(seconds=1)), 0)
    headers = {
        "etag": f'"{file.sha256.hex()}"',
        "accept-ranges": "bytes",
        "cache-control": f"private, max-age={left_s}",
        "content-disposition": "inline",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "cross-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-task-id": task_id,
    }
    if _is_known(request.headers.get("if-none-match"), headers["etag"]):
        return Response(status_code=304, headers=headers)
    part = _wanted_range(request, headers["etag"], file.size_bytes)
    status = 200
    if part is None:
        part = Part(0, file.size_bytes)
    else:
        status = 206
        headers["content-range"] = f"bytes {part.start}-{part.end - 1}/{file.size_bytes}"
    headers["content-length"] = str(part.end - part.start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=file.mime)
    return StreamingResponse(_pieces(path, part), status_code=status, headers=headers, media_type=file.mime)


def stored_path(services: Services, file: StoredFile, *, task_id: str) -> Path:
    """Return where a result lies. Raises: ResultExpired when it was deleted, ResultUnavailable when it is not there."""
    if not file.is_kept(utcnow()):
        raise ResultExpired(task_id)
    path: Path = services.storage.path_of(file.storage_key)
    if not path.is_file():
        raise ResultUnavailable(
            "The file is not in the storage. Tell your administrator the task's id.", task_id=task_id
        )
    return path


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes from ``start`` to before ``end``."""

    start: int
    end: int


def _wanted_range(request: Request, etag: str, size_bytes: int) -> Part | None:
    """Return the one range asked for; None for the whole file, also for several ranges. Raises: RangeNotSatisfiable."""
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or match[1] == match[2] == "" or request.headers.get("if-range", etag) != etag:
        return None
    if not match[1]:
        start, end = max(size_bytes - int(match[2]), 0), size_bytes
    else:
        start, end = int(match[1]), min(int(match[2]) + 1, size_bytes) if match[2] else size_bytes
        if match[2] and int(match[2]) < start:
            return None  # not a range at all (RFC 9110): ignored
    if start >= end:
        raise RangeNotSatisfiable(size_bytes)
    return Part(start, end)


def _is_known(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return "*" in tags or etag in tags


async def _pieces(path: Path, part: Part) -> AsyncIterator[bytes]:
    """Yield the bytes of ``part``. A file that ends too early breaks the connection. Raises: OSError."""
    with path.open("rb", buffering=0) as file:
        file.seek(part.start)
        left = part.end - part.start
        while left:
            piece = await asyncio.to_thread(file.read, min(left, PIECE_BYTES))
            if not piece:
                raise OSError(f"a stored file is {left} bytes shorter than its record")
            left -= len(piece)
            yield piece
