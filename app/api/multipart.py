"""Multipart bodies, parsed while they arrive: one spool file per file part, every limit kept at its first byte."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.form import FormFields, root_name
from app.api.media_fields import IMAGES_FIELD, MEDIA_FIELDS
from app.errors import BodyTooLarge, InvalidParameter
from app.intake import Upload
from app.media.base64_stream import DATA_URL, Base64Sink, DivertedValue, ScanError, ValueTooLarge
from app.settings import MIB, Settings

WRITE_BYTES = 256 * 1024
"""Callbacks are smaller than this; the disk sees pieces of this size."""
MAX_PART_HEADERS = 16
MAX_PART_HEADER_BYTES = 4096
MAX_NAME_CHARS = 256
_DATA_URL_HEAD = 512


class _Part(Protocol):
    """Where a part's bytes go."""

    def write(self, data: memoryview) -> None: ...

    def finish(self) -> Any: ...

    def close(self) -> None: ...


class _FilePart:
    def __init__(self, name: str, path: Path, *, filename: str, max_bytes: int) -> None:
        self._name, self._path, self._filename, self._max_bytes = name, path, filename, max_bytes
        self._file = path.open("xb", buffering=WRITE_BYTES)
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: memoryview) -> None:
        self._size += len(data)
        if self._size > self._max_bytes:
            raise BodyTooLarge(
                f"The file in '{self._name}' is larger than {readable(self._max_bytes)}.", param=root_name(self._name)
            )
        self._hash.update(data)
        self._file.write(data)

    def finish(self) -> Upload | str:
        self._file.close()
        if not self._size and not self._filename:  # a browser's file input with nothing chosen
            return ""
        return Upload(self._path, self._size, self._hash.digest(), filename=self._filename or None)

    def close(self) -> None:
        self._file.close()


class _TextPart:
    def __init__(self, name: str, *, max_bytes: int) -> None:
        self._name, self._max_bytes = name, max_bytes
        self._text = bytearray()

    def write(self, data: memoryview) -> None:
        if len(self._text) + len(data) > self._max_bytes:
            raise BodyTooLarge(
                f"The text in '{self._name}' is larger than {readable(self._max_bytes)}.", param=root_name(self._name)
            )
        self._text += data

    def finish(self) -> Any:
        return _decoded(bytes(self._text), self._name)

    def close(self) -> None:
        self._text.clear()


class _ReferenceTextPart(_TextPart):
    """Text in a media field: a URL, or a data: URL that is decoded into a file while it arrives."""

    def __init__(self, name: str, path: Path, *, max_bytes: int, data_url_bytes: int) -> None:
        super().__init__(name, max_bytes=max_bytes)
        self._path, self._data_url_bytes = path, data_url_bytes
        self._sink: Base64Sink | None = None
        self._mime = ""

    def write(self, data: memoryview) -> None:
        if self._sink is None and len(self._text) < _DATA_URL_HEAD:
            missing = _DATA_URL_HEAD - len(self._text)
            super().write(data[:missing])
            data = data[missing:]
            self._look_for_data_url()
        if self._sink is not None:
            self._decode(bytes(data))
        elif data:
            super().write(data)

    def _look_for_data_url(self) -> None:
        comma = self._text.find(b",")
        found = DATA_URL.fullmatch(self._text[: comma + 1].decode("latin-1")) if comma >= 0 else None
        if found is None:
            return
        self._mime = found[1].lower()
        self._sink = Base64Sink(self._path, max_bytes=self._data_url_bytes)
        self._decode(bytes(self._text[comma + 1 :]))
        self._text.clear()

    def _decode(self, text: bytes) -> None:
        assert self._sink is not None  # noqa: S101 - callers looked
        try:
            self._sink.push(text)
        except ScanError as error:
            raise self._public(error) from None

    def finish(self) -> Any:
        if self._sink is None:
            return super().finish()
        try:
            written = self._sink.finish()
        except ScanError as error:
            raise self._public(error) from None
        return DivertedValue(self._name, written.file, written.size_bytes, written.sha256, mime=self._mime)

    def close(self) -> None:
        super().close()
        if self._sink is not None:
            self._sink.close()

    def _public(self, error: ScanError) -> InvalidParameter | BodyTooLarge:
        return data_url_error(error, path=self._name, param=root_name(self._name))


class MultipartReader:
    """Push bytes, then ``finish()``. ``close()`` lets go of an unfinished file, and may always be called."""

    def __init__(self, content_type: str, spool: Path, settings: Settings) -> None:
        """Raises: InvalidParameter when the content type names no usable boundary."""
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise InvalidParameter("The multipart body has no boundary in its content type.")
        self._spool, self._settings = spool, settings
        self._form = FormFields()
        self._count = 0
        self._is_ended = False
        self._header_name, self._header_value = bytearray(), bytearray()
        self._headers: dict[str, bytes] = {}
        self._part: _Part | None = None
        self._name = ""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
                max_header_count=MAX_PART_HEADERS,
                max_header_size=MAX_PART_HEADER_BYTES,
            )
        except FormParserError:
            raise InvalidParameter("The multipart boundary is too long.") from None

    def push(self, data: bytes) -> None:
        """Take the next bytes. Raises: InvalidParameter, BodyTooLarge."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise InvalidParameter("The body is not valid multipart/form-data.") from None

    def finish(self) -> dict[str, Any]:
        """Return the fields, files as Upload and data: URLs as DivertedValue. Raises: InvalidParameter."""
        if not self._is_ended:
            raise InvalidParameter("The multipart body is truncated: its closing boundary is missing.")
        return self._form.fields

    def close(self) -> None:
        if self._part is not None:
            self._part.close()

    # --- callbacks of the parser ------------------------------------------------------------------------------------

    def _on_part_begin(self) -> None:
        self._count += 1
        if self._count > self._settings.upload_fields:
            raise InvalidParameter(f"The form has more than {self._settings.upload_fields} fields.")
        self._headers.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition", b""))
        name = _decoded(options.get(b"name", b""), "name")
        if kind != b"form-data" or not name or len(name) > MAX_NAME_CHARS:
            raise InvalidParameter("A part of the form has no usable name.")
        encoding = self._headers.get("content-transfer-encoding", b"binary").strip().lower()
        if encoding not in {b"binary", b"8bit", b"7bit"}:
            raise InvalidParameter(f"The part '{name}' has an unknown transfer encoding.", param=root_name(name))
        self._name = name
        path = self._spool / f"part-{self._count}"
        limits = self._settings
        if b"filename" in options:
            filename = options[b"filename"].decode("utf-8", "replace").replace("\\", "/").rsplit("/", 1)[-1][:255]
            self._part = _FilePart(name, path, filename=filename, max_bytes=limits.upload_file_bytes)
        elif root_name(name) in MEDIA_FIELDS or root_name(name) == IMAGES_FIELD:
            self._part = _ReferenceTextPart(
                name, path, max_bytes=limits.upload_text_bytes, data_url_bytes=limits.data_url_bytes
            )
        else:
            self._part = _TextPart(name, max_bytes=limits.upload_text_bytes)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None  # noqa: S101 - the parser calls in order
        self._part.write(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        if self._part is None:
            return  # a part that ended inside its headers; the parser refuses it
        value, self._part = self._part.finish(), None
        self._form.add(self._name, value)

    def _on_end(self) -> None:
        self._is_ended = True


def data_url_error(error: ScanError, *, path: str, param: str | None) -> InvalidParameter | BodyTooLarge:
    """Return the public form of what is wrong with one data: URL."""
    if isinstance(error, ValueTooLarge):
        return BodyTooLarge(
            f"The data: URL in '{path}' is larger than {readable(error.limit)} decoded. "
            "Send a file in multipart/form-data, or a URL.",
            param=param,
        )
    return InvalidParameter(f"'{path}' is not valid base64: {error.message}.", param=param)


def readable(size_bytes: int) -> str:
    """Return a limit in the largest unit that is exact enough."""
    if size_bytes >= MIB:
        return f"{size_bytes / MIB:g} MiB"
    return f"{size_bytes / 1024:g} KiB" if size_bytes >= 1024 else f"{size_bytes} bytes"


def _decoded(text: bytes, name: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise InvalidParameter(f"'{name}' is not UTF-8 text.", param=root_name(name)) from None
