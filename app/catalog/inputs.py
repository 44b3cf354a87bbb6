"""Media fields of a request: how many files, of which sort, under which names; others judge what is in the files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from app.catalog.frozen import Frozen, OperationWord
from app.catalog.wording import invalid, is_storable
from app.errors import InvalidParameter
from app.intake import MediaRef, Upload
from app.requests import Operation

URL_CHARS = 8192
_URL = re.compile(r"https?://[^\s\x00-\x20\x7f]+", re.IGNORECASE)
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,", re.IGNORECASE)
_WRAPPED = {"image_url", "url"}


class Input(Frozen):
    """One media field of a model."""

    media: Literal["image", "video", "audio"]
    maximum: int = Field(1, ge=1)
    single: bool = False
    """A single value rather than a list."""
    also: tuple[str, ...] = ()
    """Other public names. Of a single value the first name wins; lists are put together."""
    operations: tuple[OperationWord, ...] | None = None
    becomes: OperationWord | None = None
    """Its presence makes the request this operation."""
    read_as: str | None = None
    """Another name of that input, with its own limits: a list of one that is read as the single value."""
    description: str = ""

    def applies_to(self, operation: Operation) -> bool:
        return self.operations is None or operation in self.operations

    def read(self, fields: Mapping[str, Any], name: str, model: str) -> tuple[str | None, list[MediaRef], list[str]]:
        """Return the name the caller used (None: the field is absent or an empty list), the files, in order, and each
        one's place: ``image``, or ``image[1]`` among several.

        Raises: InvalidParameter.
        """
        used: str | None = None
        found: list[MediaRef] = []
        places: list[str] = []
        for public in (name, *self.also):
            if public not in fields:
                continue
            refs = self._refs(fields[public], public, name, model)
            if not refs or (self.single and used is not None):
                continue
            found += refs
            places += [public] if len(refs) == 1 else [f"{public}[{index}]" for index in range(len(refs))]
            used = public if used is None else used
            if len(found) > self.maximum:
                count = f"{len(found)}" + (f" together with '{used}'" if used != public else "")
                raise InvalidParameter(
                    f"Too many entries in '{public}': {count}. Allowed for '{model}': at most {self.maximum}.",
                    param=public,
                )
        return used, found, places

    def _refs(self, value: Any, public: str, name: str, model: str) -> list[MediaRef]:
        if isinstance(value, list):
            # Form fields of other APIs arrive as lists of one, under their own names.
            if self.single and not (public != name and len(value) <= 1):
                raise invalid(public, value, allowed=f"a single value, not a list: {self._sort()}", model=model)
            return [self._ref(item, public, model) for item in value]
        return [self._ref(value, public, model)]

    def _ref(self, value: Any, public: str, model: str) -> MediaRef:
        if isinstance(value, dict) and len(value) == 1 and _WRAPPED.issuperset(value):
            value = next(iter(value.values()))  # {"image_url": "https://..."}
        if isinstance(value, Upload) and self.media == "image":
            return value
        if isinstance(value, str) and is_storable(value):
            text = value.strip()
            if len(text) <= URL_CHARS and _URL.fullmatch(text):
                return text
            if self.media == "image" and _DATA_URL.match(text):
                return text
        raise invalid(public, value, allowed=self._sort(), model=model)

    def _sort(self) -> str:
        if self.media == "image":
            return "an image file, an http(s) URL or data:image/...;base64,..."
        return f"a public http(s) URL of {'a video' if self.media == 'video' else 'an audio file'}"

    def as_schema(self) -> dict[str, Any]:
        one: dict[str, Any] = {"type": "string"}
        if self.single:
            shape = dict(one)
        else:
            shape = {"anyOf": [one, {"type": "array", "items": one, "maxItems": self.maximum}]}
        if self.description:
            shape["description"] = self.description
        return shape
