"""The API's own pages: /openapi.json, and /docs from files that come with us; its policy allows nothing else."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from app.errors import RouteNotFound

router = APIRouter(include_in_schema=False)

STATIC = Path(__file__).parent / "static"
SWAGGER = STATIC / "swagger-ui"
FILES = {
    "docs.js": (STATIC / "docs.js", "text/javascript"),
    "swagger-ui-bundle.js": (SWAGGER / "swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": (SWAGGER / "swagger-ui.css", "text/css"),
    "favicon-32x32.png": (SWAGGER / "favicon-32x32.png", "image/png"),
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # the bundle writes style attributes
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
PAGE_HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


@router.get("/")
async def home(request: Request) -> Response:
    """Browsers go to the console; whoever asks for no page, to the API's own."""
    is_browser = "text/html" in request.headers.get("accept", "")
    return RedirectResponse("/console" if is_browser else "/docs", status_code=302, headers={"vary": "accept"})


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    return JSONResponse(request.app.openapi())


@router.get("/docs")
async def docs() -> Response:
    return FileResponse(STATIC / "docs.html", media_type="text/html", headers=PAGE_HEADERS)


@router.get("/docs/{name}")
async def docs_file(name: str) -> Response:
    if name not in FILES:
        raise RouteNotFound(f"There is no file '{name[:100]}' here.")
    path, media_type = FILES[name]
    return FileResponse(path, media_type=media_type, headers=PAGE_HEADERS)


@router.get("/favicon.ico")
async def favicon() -> Response:
    path, media_type = FILES["favicon-32x32.png"]
    return FileResponse(path, media_type=media_type, headers=PAGE_HEADERS)
