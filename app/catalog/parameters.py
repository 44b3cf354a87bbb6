"""The kinds of parameter a model may have: how each reads a value, and how it describes itself.

Which model has which parameter is data (``config/models.yaml``). A refused value is always an error that names the
field, what is allowed and the model: nothing is clamped.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from app.catalog.frozen import Frozen, OperationWord
from app.catalog.wording import invalid, is_storable, listed, whole_number
from app.requests import Operation

HINT_CHARS = 512
_DIGITS = re.compile(r"-?[0-9]{1,10}")


class ParameterBase(Frozen):
    description: str = ""
    also: tuple[str, ...] = ()
    """Other public names of the same field. The first name wins where both are given."""
    operations: tuple[OperationWord, ...] | None = None
    """Where the field has a meaning; None: everywhere."""

    def applies_to(self, operation: Operation) -> bool:
        return self.operations is None or operation in self.operations


class Choice(ParameterBase):
    """One word out of a list. Upper and lower case are the same."""

    kind: Literal["choice"]
    values: tuple[str, ...] = Field(min_length=1)
    default: str | None = None
    fixed: str | None = None
    """The one value this model has; any other explicit one is refused."""
    aliases: dict[str, str | None] = Field(default_factory=dict)
    """Other words for the values; null means as if the field were absent."""

    @model_validator(mode="after")
    def _words_are_values(self) -> Self:
        for word in (self.default, self.fixed, *self.aliases.values()):
            if word is not None and word not in self.values:
                raise ValueError(f"'{word}' is none of the values: {listed(self.values)}")
        if self.fixed is not None and self.default not in (None, self.fixed):
            raise ValueError(f"the default '{self.default}' differs from the fixed value '{self.fixed}'")
        words = [word.casefold() for word in (*self.values, *self.aliases)]
        if len(set(words)) < len(words):
            raise ValueError("a word occurs twice among values and aliases")
        return self

    @property
    def choices(self) -> tuple[str, ...]:
        """The values a request can end up with."""
        return self.values if self.fixed is None else (self.fixed,)

    @property
    def initial(self) -> str | None:
        return self.fixed or self.default

    def read(self, value: object, *, param: str, model: str) -> str | None:
        if isinstance(value, str):
            word = value.strip().casefold()
            meanings = {v.casefold(): v for v in self.values} | {a.casefold(): v for a, v in self.aliases.items()}
            if word in meanings:
                meaning = meanings[word]
                if meaning is None:
                    return self.initial
                if meaning in self.choices:
                    return meaning
        raise invalid(param, value, allowed=self.allowed(), model=model)

    def words(self) -> list[str]:
        """Every spelling that is accepted, the values first."""
        return [*self.choices, *(a for a, v in self.aliases.items() if v is None or v in self.choices)]

    def allowed(self) -> str:
        aliases = self.words()[len(self.choices) :]
        return listed(self.choices) + (f" (also {listed(aliases)})" if aliases else "")

    def as_schema(self) -> dict[str, Any]:
        return _schema({"type": "string", "enum": self.words()}, self.initial, self.description)


class Integer(ParameterBase):
    kind: Literal["integer"]
    minimum: int
    maximum: int
    default: int | None = None

    @model_validator(mode="after")
    def _range_makes_sense(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.default is not None and not self.minimum <= self.default <= self.maximum:
            raise ValueError(f"the default {self.default} is outside {self.minimum}..{self.maximum}")
        return self

    @property
    def initial(self) -> int | None:
        return self.default

    def read(self, value: object, *, param: str, model: str) -> int:
        # The other names come from APIs that send numbers as text; the field itself is strict.
        if param in self.also and isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            number: int | None = int(value)
        else:
            number = whole_number(value)
        if number is None or not self.minimum <= number <= self.maximum:
            raise invalid(param, value, allowed=self.allowed(), model=model)
        return number

    def allowed(self) -> str:
        if self.minimum == self.maximum:
            return f"the integer {self.minimum}"
        return f"an integer from {self.minimum} to {self.maximum}"

    def as_schema(self) -> dict[str, Any]:
        shape = {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}
        return _schema(shape, self.initial, self.description)


class Boolean(ParameterBase):
    kind: Literal["boolean"]
    default: bool | None = None

    @property
    def initial(self) -> bool | None:
        return self.default

    def read(self, value: object, *, param: str, model: str) -> bool:
        if not isinstance(value, bool):
            raise invalid(param, value, allowed=self.allowed(), model=model)
        return value

    def allowed(self) -> str:
        return "true, false"

    def as_schema(self) -> dict[str, Any]:
        return _schema({"type": "boolean"}, self.initial, self.description)


class Hint(ParameterBase):
    """Text that is used where the upstream can; its lack of support is never an error."""

    kind: Literal["hint"]
    values: tuple[str, ...] = ()
    """The words that upstreams know; another one is dropped with a warning. Empty: any text."""

    @property
    def initial(self) -> None:
        return None

    def read(self, value: object, *, param: str, model: str) -> str | None:
        """Return the hint, or None for a word no upstream knows."""
        if not isinstance(value, str) or len(value) > HINT_CHARS or not is_storable(value):
            raise invalid(param, value, allowed=self.allowed(), model=model)
        if not self.values:
            return value
        word = value.strip().casefold()
        return word if word in self.values else None

    def allowed(self) -> str:
        return f"text of at most {HINT_CHARS} characters" + (f": {listed(self.values)}" if self.values else "")

    def as_schema(self) -> dict[str, Any]:
        shape: dict[str, Any] = {"type": "string", "maxLength": HINT_CHARS}
        if self.values:
            shape["examples"] = list(self.values)
        return _schema(shape, None, self.description)


class Size(ParameterBase):
    """Shape of the picture: a ratio, ``WIDTHxHEIGHT`` or one of the ``words``. ``app.catalog.sizes`` reads it."""

    kind: Literal["size"]
    values: tuple[str, ...] = Field(min_length=1)
    """Ratios, as they are offered."""
    words: tuple[Literal["auto", "adaptive"], ...] = ()
    default: str

    @property
    def initial(self) -> str:
        return self.default

    def allowed(self) -> str:
        return listed((*self.values, *self.words)) + ", or WIDTHxHEIGHT in pixels"

    def as_schema(self) -> dict[str, Any]:
        words = [*self.values, *self.words]
        shape = {"anyOf": [{"type": "string", "enum": words}, {"type": "string", "pattern": "^[0-9]{1,5}x[0-9]{1,5}$"}]}
        return _schema(shape, self.default, self.description)


Parameter = Annotated[Choice | Integer | Boolean | Hint | Size, Field(discriminator="kind")]


def _schema(shape: dict[str, Any], default: object, description: str) -> dict[str, Any]:
    if default is not None:
        shape["default"] = default
    if description:
        shape["description"] = description
    return shape
