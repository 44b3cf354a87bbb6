"""What the API read from a request body, before anything was judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Upload:
    """A file we received, as a multipart part or a decoded data: URL; complete in its request's spool folder."""

    path: Path
    size_bytes: int
    sha256: bytes
    filename: str | None = None


MediaRef: TypeAlias = str | Upload
"""An http(s) URL, or a file that came along."""


@dataclass(slots=True)
class Intake:
    """One request body. Nulls are gone; media fields hold a MediaRef or a list of them."""

    fields: dict[str, Any]
    spool: Path
    """This request's own folder; the router removes it when the answer is done."""
