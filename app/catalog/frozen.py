"""The base of every shape that is read from the catalogue's files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from app.requests import Operation


class Frozen(BaseModel):
    """Immutable, and strict: an unknown key is an error, and text is never taken for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        return {name: as_tuple(item) for name, item in value.items()} if isinstance(value, dict) else value


def as_tuple(value: Any) -> Any:
    """YAML has lists; the shapes are strict, and immutable."""
    return tuple(value) if isinstance(value, list) else value


def _as_operation(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return Operation(value)
    except ValueError:
        known = ", ".join(operation.value for operation in Operation)
        raise ValueError(f"unknown operation '{value}'; known: {known}") from None


OperationWord = Annotated[Operation, BeforeValidator(_as_operation)]
"""An operation, written as its word."""
