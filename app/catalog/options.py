"""The fields of a request that belong to the gateway, not to a model: prompt, n, streaming, metadata and the like."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.catalog.wording import invalid, is_storable, shown, whole_number
from app.errors import InvalidParameter, MissingParameter, UnsupportedParameter
from app.values import MAX_CREDITS

PROMPT_CHARS = 32_000
METADATA_PAIRS, METADATA_KEY_CHARS, METADATA_VALUE_CHARS = 16, 64, 512
_WEBHOOK_URL = re.compile(r"https?://[^\s\x00-\x20\x7f]{1,2040}", re.IGNORECASE)
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What the caller wants from the gateway, checked."""

    response_format: str | None = None
    """``url`` or ``b64_json``; None: both."""
    stream: bool = False
    partial_images: int = 0
    respond_async: bool = False
    max_credits: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    webhook_url: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class GatewayField:
    """One such field: its JSON Schema, its reader, and the kinds of model it is for."""

    allowed: str
    schema: dict[str, Any]
    read: Callable[[Any], Any]
    """Return the value, or raise ValueError."""
    kinds: frozenset[str] = frozenset({"image", "video"})
    harmless: object = None
    """The value that asks for nothing, so that it is accepted where the field has no meaning."""


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _between(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = whole_number(value)
        if number is None or not low <= number <= high:
            raise ValueError
        return number

    return read


def _word(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return value

    return read


def _matching(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value) or not is_storable(value):
            raise ValueError
        return value

    return read


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > METADATA_PAIRS:
        raise ValueError
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise ValueError
        if not 1 <= len(key) <= METADATA_KEY_CHARS or len(text) > METADATA_VALUE_CHARS:
            raise ValueError
        if not is_storable(key) or not is_storable(text):
            raise ValueError
    return dict(value)


_IMAGE = frozenset({"image"})

GATEWAY_FIELDS: dict[str, GatewayField] = {
    "n": GatewayField(
        "1 (one result for each request)",
        {"type": "integer", "const": 1, "default": 1, "description": "One result for each request."},
        _between(1, 1),
    ),
    "response_format": GatewayField(
        "url, b64_json",
        {"type": "string", "enum": ["url", "b64_json"], "description": "Absent: the reply has both."},
        _word("url", "b64_json"),
        _IMAGE,
    ),
    "stream": GatewayField(
        "true, false",
        {"type": "boolean", "default": False, "description": "Answer with server-sent events."},
        _boolean,
        _IMAGE,
        harmless=False,
    ),
    "partial_images": GatewayField(
        "an integer from 0 to 3",
        {"type": "integer", "minimum": 0, "maximum": 3, "default": 0, "description": "Interim images of a stream."},
        _between(0, 3),
        _IMAGE,
    ),
    "async": GatewayField(
        "true, false",
        {"type": "boolean", "default": False, "description": "Answer at once with the task; videos always do."},
        _boolean,
    ),
    "max_credits": GatewayField(
        "an integer from 0",
        {"type": "integer", "minimum": 0, "description": "Refuse the request when it costs more."},
        _between(0, MAX_CREDITS),
    ),
    "metadata": GatewayField(
        f"an object of at most {METADATA_PAIRS} pairs of text, keys of 1 to {METADATA_KEY_CHARS} "
        f"and values of at most {METADATA_VALUE_CHARS} characters",
        {
            "type": "object",
            "maxProperties": METADATA_PAIRS,
            "propertyNames": {"minLength": 1, "maxLength": METADATA_KEY_CHARS},
            "additionalProperties": {"type": "string", "maxLength": METADATA_VALUE_CHARS},
            "description": "Your own pairs, echoed in the task.",
        },
        _metadata,
    ),
    "webhook_url": GatewayField(
        "an http(s) URL of at most 2048 characters",
        {
            "type": "string",
            "maxLength": 2048,
            "description": "Told when this task ends, beside the account's webhook endpoints: a public URL.",
        },
        _matching(_WEBHOOK_URL),
    ),
    "idempotency_key": GatewayField(
        "1 to 255 printable ASCII characters",
        {
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "description": "As the header Idempotency-Key: the same request sent again with it means the same task.",
        },
        _matching(_IDEMPOTENCY_KEY),
    ),
}


def read_options(fields: Mapping[str, Any], *, kind: str, model: str) -> RequestOptions:
    """Read and check the gateway's fields. Raises: InvalidParameter, UnsupportedParameter."""
    found: dict[str, Any] = {}
    for name, spec in GATEWAY_FIELDS.items():
        if name not in fields:
            continue
        try:
            value = spec.read(fields[name])
        except ValueError:
            raise invalid(name, fields[name], allowed=spec.allowed, model=model) from None
        if kind in spec.kinds:
            found["respond_async" if name == "async" else name] = value
        elif spec.harmless is None or value != spec.harmless:
            raise UnsupportedParameter(
                f"Unsupported parameter: '{name}'. '{model}' makes a {kind}; "
                f"only {' and '.join(sorted(spec.kinds))} models have it.",
                param=name,
            )
    found.pop("n", None)
    return RequestOptions(**found)


def read_prompt(fields: Mapping[str, Any], *, is_optional: bool, model: str) -> str:
    """Return the prompt, stripped of nothing. Raises: MissingParameter, InvalidParameter."""
    allowed = f"text of 1 to {PROMPT_CHARS:,} characters"
    value = fields.get("prompt", "")
    if not isinstance(value, str):
        raise invalid("prompt", value, allowed=allowed, model=model)
    if not value.strip():
        if is_optional:
            return ""
        raise MissingParameter("prompt", f"Missing required parameter: 'prompt'. Allowed for '{model}': {allowed}.")
    if len(value) > PROMPT_CHARS:
        raise InvalidParameter(
            f"Invalid value for 'prompt': {len(value):,} characters. Allowed for '{model}': {allowed}.", param="prompt"
        )
    if not is_storable(value):
        raise InvalidParameter(
            f"Invalid value for 'prompt': {shown(value)} has a NUL or half a character. "
            f"Allowed for '{model}': {allowed}.",
            param="prompt",
        )
    return value


def prompt_schema() -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": PROMPT_CHARS, "description": "What to make."}
