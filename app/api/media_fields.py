"""Media fields of a request body, whatever form they came in: a URL, a data: URL, a file, OpenAI's wrapping objects.

What lies in a file is not opened here; ``app.media`` judges it later. Here only its place is judged.
"""

from __future__ import annotations

import re
from typing import Any

from app.errors import InvalidParameter
from app.intake import MediaRef, Upload
from app.media.base64_stream import DivertedValue

IMAGE_FIELDS = frozenset({"image", "image_urls", "mask", "first_frame_image", "input_reference"})
"""Take URLs, base64 data: URLs and files."""
URL_FIELDS = frozenset({"video_url", "video_urls", "audio_urls"})
"""Take public URLs only."""
MEDIA_FIELDS = IMAGE_FIELDS | URL_FIELDS
IMAGES_FIELD = "images"
"""OpenAI's JSON form of ``image``: a list of ``{"image_url": ...}``."""


_SURROGATE = re.compile("[\ud800-\udfff]")


def shown(text: str) -> str:
    """Return a caller's word so that it can stand in an answer: short, and encodable."""
    return text[:100].encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def root_field(path: str) -> str | None:
    """Return the public field at the start of a path such as ``images[0].image_url``; None for the whole body."""
    return path.split("[", 1)[0].split(".", 1)[0] or None


def without_nulls(node: Any) -> Any:
    """Return the document without members that are null: an explicit null means absent."""
    if isinstance(node, dict):
        return {key: without_nulls(value) for key, value in node.items() if value is not None}
    if isinstance(node, list):
        return [without_nulls(item) for item in node]
    return node


def settle_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with every media field as a MediaRef or a list of them, and none anywhere else.

    Raises: InvalidParameter, naming the field; its message has the exact position.
    """
    for name, value in fields.items():
        _check_text(name, name)
        _check_text(name, value)
    settled = {name: value for name, value in fields.items() if name != IMAGES_FIELD}
    for name in MEDIA_FIELDS & settled.keys():
        value = settled[name]
        if isinstance(value, list):
            settled[name] = [_reference(name, item, f"{name}[{index}]") for index, item in enumerate(value)]
        else:
            settled[name] = _reference(name, value, name)
    if IMAGES_FIELD in fields:
        given = fields[IMAGES_FIELD]
        more = [
            _reference(IMAGES_FIELD, item, f"{IMAGES_FIELD}[{index}]")
            for index, item in enumerate(given if isinstance(given, list) else [given])
        ]
        first = settled.get("image", [])
        settled["image"] = [*(first if isinstance(first, list) else [first]), *more]
    for name, value in settled.items():
        if name not in MEDIA_FIELDS:
            _check_plain(name, value, name)
    return settled


def _reference(field: str, value: Any, path: str) -> MediaRef:
    if isinstance(value, dict):
        if "file_id" in value:
            raise InvalidParameter(
                f"'{path}' gives a 'file_id', and there is no file store here. Send a URL or the file itself.",
                param=field,
            )
        for key in ("image_url", "url"):
            if key in value:
                return _reference(field, value[key], f"{path}.{key}")
    if isinstance(value, Upload) and field not in URL_FIELDS:
        return value
    if isinstance(value, (Upload, DivertedValue)) and field in URL_FIELDS:
        raise InvalidParameter(f"'{path}' must be a public http(s) URL; it takes no data.", param=field)
    if isinstance(value, DivertedValue):
        if not value.mime.startswith("image/"):
            raise InvalidParameter(
                f"'{path}' is a data: URL of type '{shown(value.mime) or 'text/plain'}'; only images are allowed.",
                param=field,
            )
        return Upload(value.file, value.size_bytes, value.sha256)
    if isinstance(value, str) and value[:8].lower().startswith(("http://", "https://")):
        return value
    if isinstance(value, str) and value[:5].lower() == "data:":
        raise InvalidParameter(
            f"'{path}' is a data: URL that is not base64. Send 'data:image/...;base64,'.", param=field
        )
    allowed = "an http(s) URL" if field in URL_FIELDS else "an http(s) URL, a 'data:image/...;base64,' URL or a file"
    raise InvalidParameter(f"'{path}' must be {allowed}.", param=field)


def _check_plain(field: str, value: Any, path: str) -> None:
    """Refuse a file where none belongs: better than a paid result that silently ignores it."""
    if isinstance(value, Upload):
        raise InvalidParameter(f"'{path}' does not take a file.", param=field)
    if isinstance(value, DivertedValue):
        raise InvalidParameter(f"'{path}' does not take a data: URL.", param=field)
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_plain(field, item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_plain(field, item, f"{path}.{key}")


def _check_text(field: str, value: Any) -> None:
    """Refuse what no database and no upstream takes: NUL, and halves of surrogate pairs."""
    if isinstance(value, str):
        if "\x00" in value or _SURROGATE.search(value):
            name = shown(field)
            raise InvalidParameter(f"'{name}' has characters that are not Unicode text.", param=name)
    elif isinstance(value, list):
        for item in value:
            _check_text(field, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(field, key)
            _check_text(field, item)
