"""Base64 that never lies in memory as a whole: out of JSON into files, and out of files into JSON."""

from __future__ import annotations

from app.media.base64_stream.encoder import Base64Of, FileChanged, Rendered, render_event, render_json
from app.media.base64_stream.errors import (
    BadBase64,
    DocumentTooComplex,
    DocumentTooLarge,
    DuplicateKey,
    MalformedJson,
    ScanError,
    ValueTooLarge,
)
from app.media.base64_stream.scanner import DATA_URL, DivertedValue, JsonScanner, Scanned
from app.media.base64_stream.sink import Base64Sink

__all__ = [
    "DATA_URL",
    "BadBase64",
    "Base64Of",
    "Base64Sink",
    "DivertedValue",
    "DocumentTooComplex",
    "DocumentTooLarge",
    "DuplicateKey",
    "FileChanged",
    "JsonScanner",
    "MalformedJson",
    "Rendered",
    "ScanError",
    "Scanned",
    "ValueTooLarge",
    "render_event",
    "render_json",
]
