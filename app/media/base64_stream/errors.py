"""What may be wrong with a document that arrives; callers turn these into their own family of errors."""

from __future__ import annotations


class ScanError(Exception):
    """Base. ``path`` says where, as in ``image[1]`` or ``images[0].image_url``; empty when it is the whole document."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class MalformedJson(ScanError):
    """Not JSON. ``line`` and ``column`` count from 1, in characters of what was sent."""

    def __init__(self, message: str, *, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class DuplicateKey(ScanError):
    """An object names one key twice; ``path`` is that key."""


class BadBase64(ScanError):
    """Not standard, padded base64 without white space."""


class ValueTooLarge(ScanError):
    """One decoded value passed its limit."""

    def __init__(self, *, limit: int, path: str = "") -> None:
        super().__init__(f"larger than {limit} bytes", path=path)
        self.limit = limit


class DocumentTooLarge(ScanError):
    """What remains without the diverted values passed its limit."""

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"larger than {limit} bytes")
        self.limit = limit


class DocumentTooComplex(ScanError):
    """Nested too deep, or made of too many values."""
