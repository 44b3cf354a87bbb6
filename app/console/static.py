"""The console's own files: read once, compressed once, under an address that changes with their content."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.console import i18n, refusals
from app.errors import RouteNotFound

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent / "static"
TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent. ``packed`` is gzip, or None where that saves nothing."""

    plain: bytes
    packed: bytes | None
    media_type: str

    @classmethod
    def of(cls, plain: bytes, media_type: str) -> Asset:
        packed = gzip.compress(plain, compresslevel=9, mtime=0)
        return cls(plain, packed if len(packed) < len(plain) else None, media_type)


@cache
def assets() -> dict[str, Asset]:
    """Return every file by its path below ``static/``, and the scripts' texts, one file a language."""
    found = {
        path.relative_to(FOLDER).as_posix(): Asset.of(path.read_bytes(), TYPES[path.suffix])
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in TYPES
    }
    for language in i18n.LANGUAGES:
        found[f"texts.{language}.js"] = Asset.of(_texts(language).encode(), TYPES[".js"])
    return found


def _texts(language: str) -> str:
    return i18n.script(language) + refusals.script(language)


@cache
def build() -> str:
    """Return the digest of all files: scripts import each other by relative addresses, so it stands in the path."""
    digest = hashlib.sha256()
    for name, asset in assets().items():
        digest.update(name.encode() + b"\0" + asset.plain)
    return digest.hexdigest()[:12]


def address(name: str) -> str:
    """Return where a file is. Raises: KeyError, as a misspelt name must not reach a page."""
    assets()[name]
    return f"/console/static/{build()}/{name}"


@router.get("/console/static/{version}/{name:path}")
async def static_file(request: Request, version: str, name: str) -> Response:
    asset = assets().get(name)
    if asset is None:
        raise RouteNotFound(f"There is no file '{name[:100]}' here.")
    headers = {
        "cache-control": FOR_EVER if version == build() else "no-cache",
        "x-content-type-options": "nosniff",
        "vary": "accept-encoding",
    }
    if asset.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, media_type=asset.media_type, headers={**headers, "content-encoding": "gzip"})
    return Response(asset.plain, media_type=asset.media_type, headers=headers)
