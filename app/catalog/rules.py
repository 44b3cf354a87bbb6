"""The kinds of rule between fields of one request. Which model has which rule is data (``config/models.yaml``).

A rule names parameters and inputs by their first names; an error names them as the caller did.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from app.catalog.frozen import Frozen, OperationWord, as_tuple
from app.catalog.wording import listed
from app.errors import InvalidParameter, MissingParameter
from app.requests import Operation

Word = str | int | bool


@dataclass(slots=True)
class Draft:
    """A request while it is judged."""

    model: str
    operation: Operation
    params: dict[str, Any] = field(default_factory=dict)
    media: dict[str, list[Any]] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    """First name of each explicit parameter or input -> the name the caller used."""
    places: dict[str, list[str]] = field(default_factory=dict)
    """First name of each input -> where each of its files stood: ``image_urls[1]``."""
    warnings: list[str] = field(default_factory=list)

    def says(self, name: str) -> str:
        return self.given.get(name, name)

    def has(self, name: str) -> bool:
        return name in self.given

    def present(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if self.has(name)), None)


class Excludes(Frozen):
    """``field`` cannot be together with any of ``others``."""

    kind: Literal["excludes"]
    field: str
    others: tuple[str, ...] = Field(min_length=1)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.field, *self.others)

    def apply(self, draft: Draft) -> None:
        other = draft.present(self.others)
        if draft.has(self.field) and other is not None:
            raise InvalidParameter(
                f"'{draft.says(self.field)}' cannot be used together with '{draft.says(other)}' "
                f"for '{draft.model}'. Allowed: one of the two.",
                param=draft.says(self.field),
            )


class Needs(Frozen):
    """``field`` makes sense only beside one of ``others``."""

    kind: Literal["needs"]
    field: str
    others: tuple[str, ...] = Field(min_length=1)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.field, *self.others)

    def apply(self, draft: Draft) -> None:
        if draft.has(self.field) and draft.present(self.others) is None:
            raise InvalidParameter(
                f"'{draft.says(self.field)}' cannot be used alone for '{draft.model}'. "
                f"Allowed: together with {' or '.join(repr(name) for name in self.others)}.",
                param=draft.says(self.field),
            )


class Requires(Frozen):
    """The operation is not possible without ``field``; the error calls it ``param``."""

    kind: Literal["requires"]
    operation: OperationWord
    field: str
    param: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.field,)

    def apply(self, draft: Draft) -> None:
        if draft.operation is self.operation and not draft.has(self.field):
            param = self.param or self.field
            raise MissingParameter(param, f"Missing required parameter: '{param}'. '{draft.model}' needs at least one.")


class AtMost(Frozen):
    """At most ``maximum`` files in ``field`` when one of ``beside`` is there too."""

    kind: Literal["at_most"]
    field: str
    beside: tuple[str, ...] = Field(min_length=1)
    maximum: int = Field(ge=0)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.field, *self.beside)

    def apply(self, draft: Draft) -> None:
        beside = draft.present(self.beside)
        count = len(draft.media.get(self.field, ()))
        if beside is not None and count > self.maximum:
            raise InvalidParameter(
                f"Too many entries in '{draft.says(self.field)}': {count}. "
                f"Allowed for '{draft.model}' beside '{draft.says(beside)}': at most {self.maximum}.",
                param=draft.says(self.field),
            )


class OnlyWhen(Frozen):
    """``field`` (with ``value``, or any but ``unless``) is possible only when ``param`` is one of ``values``."""

    kind: Literal["only_when"]
    field: str
    value: Word | None = None
    unless: Word | None = None
    param: str
    values: tuple[Word, ...] = Field(min_length=1)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.field, self.param)

    def apply(self, draft: Draft) -> None:
        if not draft.has(self.field) or draft.params.get(self.param) in self.values:
            return
        actual = draft.params.get(self.field)
        if (self.value is not None and actual != self.value) or (self.unless is not None and actual == self.unless):
            return
        what = f"'{draft.says(self.field)}'" + (f" {_word(actual)}" if self.field in draft.params else "")
        raise InvalidParameter(
            f"{what} is not possible for '{draft.model}' with '{self.param}' {_word(draft.params.get(self.param))}. "
            f"Allowed: '{self.param}' {' or '.join(_word(value) for value in self.values)}.",
            param=draft.says(self.field),
        )


class ByCount(Frozen):
    """``param`` goes with how many files there are: each word has its range, the first that fits is the default."""

    kind: Literal["by_count"]
    param: str
    of: tuple[str, ...] = Field(min_length=1)
    ranges: dict[str, tuple[int, int]] = Field(min_length=1)

    @field_validator("ranges", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        return {word: as_tuple(pair) for word, pair in value.items()} if isinstance(value, dict) else value

    @property
    def names(self) -> tuple[str, ...]:
        return (self.param, *self.of)

    def apply(self, draft: Draft) -> None:
        count = sum(len(draft.media.get(name, ())) for name in self.of)
        if not draft.has(self.param):
            fitting = [word for word, (low, high) in self.ranges.items() if low <= count <= high]
            if fitting:
                draft.params[self.param] = fitting[0]
            return
        word = draft.params[self.param]
        low, high = self.ranges[word]
        if not low <= count <= high:
            allowed = listed(f"{word} with {_span(*span)}" for word, span in self.ranges.items())
            raise InvalidParameter(
                f"'{draft.says(self.param)}' \"{word}\" does not go with {count} images. "
                f"Allowed for '{draft.model}': {allowed} in '{self.of[0]}'.",
                param=draft.says(self.param),
            )


class IgnoredWith(Frozen):
    """``param`` is not the caller's to choose beside one of ``inputs``: it becomes ``value``, with a warning."""

    kind: Literal["ignored_with"]
    param: str
    inputs: tuple[str, ...] = Field(min_length=1)
    value: Word | None = None
    reason: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.param, *self.inputs)

    def apply(self, draft: Draft) -> None:
        beside = draft.present(self.inputs)
        if beside is None:
            return
        if draft.has(self.param):
            draft.warnings.append(f"'{draft.says(self.param)}' was ignored: with '{draft.says(beside)}' {self.reason}.")
        draft.params[self.param] = self.value


Rule = Annotated[Excludes | Needs | Requires | AtMost | OnlyWhen | ByCount | IgnoredWith, Field(discriminator="kind")]


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _span(low: int, high: int) -> str:
    return f"{low} image{'s' if low != 1 else ''}" if low == high else f"{low} to {high} images"
