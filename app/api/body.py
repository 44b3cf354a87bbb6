"""Request bodies, JSON or multipart, read as they arrive: files go to the request's spool folder, the rest is small."""

from __future__ import annotations

import errno
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request

from app.api.media_fields import root_field, settle_fields, shown, without_nulls
from app.api.multipart import MultipartReader, data_url_error, readable
from app.catalog.wording import shown as catalog_shown
from app.errors import BodyTooLarge, InvalidParameter, Overloaded, UnsupportedMediaType
from app.intake import Intake, Sent
from app.media.base64_stream import (
    BadBase64,
    DocumentTooLarge,
    DuplicateKey,
    JsonScanner,
    MalformedJson,
    ScanError,
    ValueTooLarge,
)
from app.settings import MIB, Settings
from app.tasks.idempotency import fingerprint

JSON_TEXT_BYTES = 4 * MIB
"""What a JSON body may hold besides its data: URLs; a prompt has at most 32,000 characters."""
NESTING = 32
KEY_HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@asynccontextmanager
async def spool_folder(settings: Settings) -> AsyncIterator[Path]:
    """Make a request's own folder and remove it with what is left in it, also when the request is cancelled."""
    folder = settings.spool_dir / secrets.token_hex(16)
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)  # at once: it is mostly empty by now, and a cancelled request cannot wait


async def read_body(request: Request, *, settings: Settings, spool: Path) -> Intake:
    """Read the whole body into ``spool`` and small fields. No file and no data: URL is ever whole in memory.

    Raises: InvalidParameter, BodyTooLarge, UnsupportedMediaType; Overloaded when the disk is full.
    """
    chunks = _chunks(request)
    kind, charset = _content_type(request)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Compressed request bodies are not supported.")
    try:
        if kind == "multipart/form-data":
            fields = await _read_multipart(chunks, request, settings=settings, spool=spool)
        else:
            if kind:
                _check_json_type(kind, charset)
            fields = await _read_json(chunks, request, settings=settings, spool=spool, must_look_like_json=not kind)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise Overloaded("The server has no room for uploads now. Try again.", retry_after_s=10) from error
        raise
    settled = settle_fields(fields)
    request_id = request.scope.get("state", {}).get("request_id")
    return Intake(fields=settled, spool=spool, sent=_sent(request, settled), request_id=request_id)


def _sent(request: Request, fields: dict[str, Any]) -> Sent:
    """Return how this request is known again. Raises: InvalidParameter for a key that is none, or for two."""
    header, field = header_key(request), _checked_key("idempotency_key", fields.get("idempotency_key"))
    if header is not None and field is not None and header != field:
        raise InvalidParameter(
            f"The header '{KEY_HEADER}' and the field 'idempotency_key' differ. Send one of them.",
            param="idempotency_key",
        )
    count = request.headers.get("x-stainless-retry-count", "")
    return Sent(
        fingerprint=fingerprint(request.method, request.scope.get("path", ""), fields),
        key=header if header is not None else field,
        is_retry=count.isascii() and count.isdigit() and count.strip("0") != "",
    )


def header_key(request: Request) -> str | None:
    """Return the header's key, if there is one. Raises: InvalidParameter."""
    return _checked_key(KEY_HEADER, request.headers.get(KEY_HEADER))


def _checked_key(name: str, key: Any) -> str | None:
    if key is None or (isinstance(key, str) and _KEY.fullmatch(key)):
        return key
    raise InvalidParameter(
        f"Invalid value for '{name}': {catalog_shown(key)}. Allowed: 1 to 255 printable ASCII characters.",
        param="idempotency_key",
    )


def announced_size(request: Request, settings: Settings) -> tuple[int | None, int]:
    """Return the size the body says it has, and the most that is read of one. None: it does not say.

    0 for one that says it is larger: `read_body` refuses that unread.
    """
    is_form = _content_type(request)[0] == "multipart/form-data"
    most = settings.upload_total_bytes if is_form else settings.json_body_bytes
    declared = request.headers.get("content-length", "")
    if not (declared.isascii() and declared.isdigit()):
        return None, most
    size = int(declared[:20])
    return (size if size <= most else 0), most


def _content_type(request: Request) -> tuple[str, str]:
    """Return the media type in lower case, empty when there is none, and its charset."""
    header = request.headers.get("content-type", "").strip()
    if not header:
        return "", "utf-8"
    message = Message()
    message["content-type"] = header
    kind = header.split(";", 1)[0].strip().lower()
    charset = message.get_param("charset", "utf-8")
    return kind, str(charset).lower()


def _check_json_type(kind: str, charset: str) -> None:
    if kind not in {"application/json", "text/json"} and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise UnsupportedMediaType(
            f"Content type '{kind[:100]}' is not supported. Send application/json or multipart/form-data."
        )
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaType("JSON must be sent in UTF-8.")


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise InvalidParameter("The body is truncated: the connection ended before it was complete.") from None


async def _limited(chunks: AsyncIterator[bytes], request: Request, *, limit: int, what: str) -> AsyncIterator[bytes]:
    """Yield the chunks. Raises: BodyTooLarge, by the declared length or the first byte too many; InvalidParameter."""
    too_large = BodyTooLarge(f"{what} is larger than {readable(limit)}.")
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise too_large
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise too_large
        yield chunk
    if not size:
        raise InvalidParameter("The body is empty. Send a JSON object or a form.")


async def _read_multipart(
    chunks: AsyncIterator[bytes], request: Request, *, settings: Settings, spool: Path
) -> dict[str, Any]:
    reader = MultipartReader(request.headers["content-type"], spool, settings)
    try:
        async for chunk in _limited(chunks, request, limit=settings.upload_total_bytes, what="The form"):
            reader.push(chunk)
        return reader.finish()
    finally:
        reader.close()


async def _read_json(
    chunks: AsyncIterator[bytes], request: Request, *, settings: Settings, spool: Path, must_look_like_json: bool
) -> dict[str, Any]:
    limit = settings.json_body_bytes
    with JsonScanner(
        spool,
        data_urls=True,
        value_bytes=settings.data_url_bytes,
        document_bytes=min(JSON_TEXT_BYTES, limit),
        max_values=settings.upload_fields,
        max_depth=NESTING,
        refuse_duplicates=True,
    ) as scanner:
        try:
            async for chunk in _limited(chunks, request, limit=limit, what="The JSON body"):
                if must_look_like_json:
                    _check_looks_like_json(chunk)
                    must_look_like_json = False
                scanner.push(chunk)
            document = scanner.finish().document
        except ScanError as error:
            raise _public(error) from None
    if not isinstance(document, dict):
        raise InvalidParameter("The body must be a JSON object.")
    fields: dict[str, Any] = without_nulls(document)
    return fields


def _check_looks_like_json(start: bytes) -> None:
    if start.lstrip()[:1] not in {b"{", b"["}:
        raise UnsupportedMediaType("The content type is missing. Send application/json or multipart/form-data.")


def _public(error: ScanError) -> InvalidParameter | BodyTooLarge:
    if isinstance(error, MalformedJson):
        return InvalidParameter(
            f"The body is not valid JSON (line {error.line}, column {error.column}): {error.message}."
        )
    path = shown(error.path)
    param = root_field(path)
    if isinstance(error, DuplicateKey):
        return InvalidParameter(f"The field '{path}' is given twice.", param=path)
    if isinstance(error, DocumentTooLarge):
        return BodyTooLarge(f"The JSON body, without its data: URLs, is larger than {readable(error.limit)}.")
    if isinstance(error, (BadBase64, ValueTooLarge)):
        return data_url_error(error, path=path, param=param)
    return InvalidParameter(f"The JSON body is not accepted: {error.message}.", param=param)
