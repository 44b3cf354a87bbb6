"""JSON bodies of the administration: small, strict, and read only after the key was checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request

from app.api.body import KEY_HEADER
from app.errors import BodyTooLarge, InvalidParameter, MissingParameter, UnsupportedMediaType

MAX_BYTES = 256 * 1024

B = TypeVar("B", bound="Body")


class Body(BaseModel):
    """A field that is not named stays as it is; one that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def given(self) -> dict[str, Any]:
        """Return the fields that the body named."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def reads(
    kind: type[B], *, may_be_empty: bool = False, creates: bool = False
) -> Callable[[Request], Coroutine[Any, Any, B]]:
    """Make the dependency that reads a body. It stands after the principal in every signature: keys come first.

    ``creates``: what this makes is in no answer twice, so an Idempotency-Key is refused, and not ignored.
    """

    async def read(request: Request) -> B:
        if creates and KEY_HEADER in request.headers:
            raise InvalidParameter(
                f"'{KEY_HEADER}' cannot be used here: what this request makes is in one answer and not kept for a "
                "repeat. Leave the header out, and look at what there is before you send it again.",
                param=KEY_HEADER,
            )
        data = await _read(request)
        return parsed(kind, b"{}" if may_be_empty and not data else data)

    return read


def documented(kind: type[Body], *, is_partial: bool = False) -> dict[str, Any]:
    """Document a body that is read by `reads`. ``is_partial``: absent fields stay as they are, and have no default."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # answers bring these into the document
    if is_partial:
        for field in schema["properties"].values():
            field.pop("default", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def parsed(kind: type[B], data: bytes) -> B:
    """Raises: InvalidParameter, MissingParameter. No message repeats what was sent: it may be a secret."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidParameter("The body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise InvalidParameter("The body must be a JSON object.")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _public(error) from None


async def _read(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if kind not in ("", "application/json"):
        raise UnsupportedMediaType("Send application/json.")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                raise BodyTooLarge(f"The body is larger than {MAX_BYTES // 1024} KiB.")
    except ClientDisconnect:
        raise InvalidParameter("The body is truncated: the connection ended before it was complete.") from None
    return bytes(body)


def _public(error: ValidationError) -> InvalidParameter | MissingParameter:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    if not first["loc"]:  # half of a surrogate pair, or nested too deeply
        return InvalidParameter("The body is not valid JSON.")
    param = ".".join(str(part) for part in first["loc"])[:100]
    if first["type"] == "missing":
        return MissingParameter(param)
    if first["type"] == "extra_forbidden":
        return InvalidParameter(f"There is no field '{param}' here.", param=param)
    return InvalidParameter(f"Invalid '{param}': {first['msg']}.", param=param)
