"""One public model: judges a request, resolves everything it left open, and prices it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.catalog import pricing
from app.catalog.options import GATEWAY_FIELDS, RequestOptions, read_options, read_prompt
from app.catalog.parameters import Choice as ChoiceParameter
from app.catalog.parameters import Hint, Parameter, Size
from app.catalog.pricing import Quote
from app.catalog.rules import Draft, IgnoredWith
from app.catalog.schema import parameters_schema, price_summary
from app.catalog.shapes import (
    ADAPTIVE,
    AskedShape,
    fallback_ratio,
    image_shape,
    no_tier,
    read_shape,
    size_tier,
    video_ratio,
    video_size_params,
)
from app.catalog.sizes import SizeTable, nearest_ratio
from app.catalog.spec import ModelSpec, Route
from app.catalog.wording import listed, printable
from app.errors import InvalidParameter, UnsupportedParameter
from app.requests import Operation

OUTSIDE_FIELDS = frozenset({"model", "prompt", *GATEWAY_FIELDS})
"""Fields of every request that are no parameter of a model."""
SIZE = "size"
MAX_UNKNOWN_NAMED = 20
ENDPOINTS = {
    Operation.IMAGE_GENERATE: "POST /v1/images/generations",
    Operation.IMAGE_EDIT: "POST /v1/images/edits",
    Operation.VIDEO_GENERATE: "POST /v1/videos/generations",
    Operation.VIDEO_EDIT: "POST /v1/videos/generations",
    Operation.VIDEO_REMIX: "POST /v1/videos/{id}/remix",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A request that was judged: nothing in it is open, and nothing in it is wrong."""

    model: str
    operation: Operation
    prompt: str
    params: dict[str, Any]
    """Plain JSON: every parameter that applies, resolved; ``hints`` is an object of those given; never media."""
    media: dict[str, list[Any]]
    """Input field (its first name) -> files, in the caller's order; only fields that have any."""
    warnings: list[str]
    options: RequestOptions
    places: dict[str, list[str]] = field(default_factory=dict)
    """Input field (its first name) -> where each of its files stood, for errors that are found later."""


@dataclass(frozen=True, slots=True)
class Model:
    id: str
    spec: ModelSpec
    table: SizeTable
    version: str
    """Of the price list."""
    holders: Mapping[str, tuple[str, ...]]
    """Every field the catalogue knows -> the models that have it."""

    @property
    def title(self) -> str:
        return self.spec.title

    @property
    def type(self) -> str:
        """``image`` or ``video``."""
        return self.spec.type

    @property
    def operations(self) -> frozenset[Operation]:
        return frozenset(self.spec.operations)

    @property
    def routes(self) -> tuple[Route, ...]:
        return self.spec.routes

    @property
    def created(self) -> int:
        return self.spec.created

    @property
    def owned_by(self) -> str:
        return self.spec.owned_by

    def parameters_schema(self) -> dict[str, Any]:
        """Return the JSON Schema (draft 2020-12) of a request's body."""
        return parameters_schema(self.id, self.spec)

    def price_summary(self) -> dict[str, Any]:
        return price_summary(self.spec.price, self.version)

    def choose(
        self,
        fields: Mapping[str, Any],
        *,
        operation: Operation | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> Choice:
        """Judge every field, and fill in the rest.

        ``operation`` is the endpoint's; an input may turn a generation into an edit. ``defaults`` stand in for the
        model's own (by the names in ``Choice.params``), such as those of a remix's source.
        Raises: InvalidParameter, MissingParameter, UnsupportedParameter; each names the field, what is allowed and
        this model. Nothing was fetched, held or written.
        """
        fields = {name: value for name, value in fields.items() if value is not None}
        draft = Draft(self.id, self._operation(operation))
        self._judge_names(fields, draft)
        options = read_options(fields, kind=self.type, model=self.id)
        self._read_inputs(fields, draft)
        ignored = self._ignored(fields, draft)
        asked = self._read_parameters(fields, draft, ignored, defaults or {})
        is_optional = any(draft.has(name) for name in self.spec.prompt_optional_with)
        prompt = read_prompt(fields, is_optional=is_optional, model=self.id)
        self._resolve_size(fields, draft, asked, ignored, defaults or {})
        for rule in self.spec.rules:
            if not isinstance(rule, IgnoredWith):
                rule.apply(draft)
        self._gather_hints(draft)
        return Choice(
            self.id, draft.operation, prompt, draft.params, draft.media, draft.warnings, options, draft.places
        )  # fmt: skip

    def needs_input_seconds(self, choice: Choice) -> bool:
        """Whether ``quote`` needs the measured seconds of the choice's videos."""
        return pricing.needs_input_seconds(self.spec.price, choice.operation, choice.media)

    def quote(self, choice: Choice, *, input_seconds: float | None = None) -> Quote:
        """Price a request. ``input_seconds``: an edit's source, or the sum over the reference videos.

        Raises: ValueError when they are needed and missing.
        """
        return pricing.quote(
            self.spec.price,
            operation=choice.operation,
            params=choice.params,
            media=choice.media,
            input_seconds=input_seconds,
            version=self.version,
        )

    def with_input_shape(self, params: Mapping[str, Any], width: int | None, height: int | None) -> dict[str, Any]:
        """Return ``params`` with an ``adaptive`` ratio resolved against the first input (16:9 when it has no shape)."""
        spec = self.spec.parameters[SIZE]
        if params.get("ratio") != ADAPTIVE or not isinstance(spec, Size):
            return dict(params)
        ratio = nearest_ratio(width, height, spec.values) if width and height else fallback_ratio(spec)
        tier = params[self.spec.sizes.tier]
        return {**params, **video_size_params(spec, ratio=ratio, table=self.table, tier=tier)}

    def _operation(self, operation: Operation | None) -> Operation:
        if operation is None:
            return Operation.IMAGE_GENERATE if self.type == "image" else Operation.VIDEO_GENERATE
        if operation in self.operations:
            return operation
        if operation.kind != self.type:
            noun = "images" if self.type == "image" else "videos"
            right = listed(dict.fromkeys(ENDPOINTS[o] for o in self.spec.operations))
            message = f"The model '{self.id}' makes {noun} and cannot be used here. Allowed: {right}."
        else:
            can = listed(dict.fromkeys(ENDPOINTS[o] for o in self.spec.operations))
            message = f"The model '{self.id}' cannot be used with {ENDPOINTS[operation]}. Allowed: {can}."
        raise InvalidParameter(message, param="model")

    def _judge_names(self, fields: Mapping[str, Any], draft: Draft) -> None:
        unknown = []
        for name in fields:
            holders = self.holders.get(name)
            if name in OUTSIDE_FIELDS or (holders is not None and self.id in holders):
                continue
            if holders is not None:
                who = f"These models have it: {listed(holders)}" if holders else "No model here has it"
                raise UnsupportedParameter(
                    f"Unsupported parameter: '{name}'. The model '{self.id}' does not have it. {who}.", param=name
                )
            unknown.append(printable(name if len(name) <= 64 else name[:64] + "..."))
        draft.warnings += [f"Unknown field '{name}' was ignored." for name in unknown[:MAX_UNKNOWN_NAMED]]
        if len(unknown) > MAX_UNKNOWN_NAMED:
            draft.warnings.append(f"{len(unknown) - MAX_UNKNOWN_NAMED} more unknown fields were ignored.")

    def _read_inputs(self, fields: Mapping[str, Any], draft: Draft) -> None:
        for name, spec in self.spec.inputs.items():
            used, refs, places = spec.read(fields, name, self.id)
            if used is None:
                continue
            target = spec.read_as or name
            if draft.has(target):
                raise InvalidParameter(
                    f"'{used}' and '{draft.says(target)}' mean the same for '{self.id}'. Allowed: one of them.",
                    param=used,
                )
            draft.given[target] = used
            draft.media[target] = refs
            draft.places[target] = places
            becomes = self.spec.inputs[target].becomes
            if becomes is not None:
                self._refuse_elsewhere(used, spec.applies_to(draft.operation), spec.operations)
                draft.operation = becomes
        for name, used in draft.given.items():
            spec = self.spec.inputs[name]
            self._refuse_elsewhere(used, spec.applies_to(draft.operation), spec.operations)

    def _ignored(self, fields: Mapping[str, Any], draft: Draft) -> set[str]:
        """Apply the rules that take a parameter out of the caller's hands; such a value is not even judged."""
        ignored = set()
        for rule in self.spec.rules:
            if not isinstance(rule, IgnoredWith) or draft.present(rule.inputs) is None:
                continue
            names = (rule.param, *self.spec.parameters[rule.param].also)
            used = next((name for name in names if name in fields), None)
            if used is not None:
                draft.given[rule.param] = used
            rule.apply(draft)
            ignored.add(rule.param)
        return ignored

    def _read_parameters(
        self, fields: Mapping[str, Any], draft: Draft, ignored: set[str], defaults: Mapping[str, Any]
    ) -> AskedShape | None:
        asked: AskedShape | None = None
        for name, spec in self.spec.parameters.items():
            used = next((public for public in (name, *spec.also) if public in fields), None)
            applies = spec.applies_to(draft.operation)
            if used is not None:
                self._refuse_elsewhere(used, applies, spec.operations)
            if name in ignored or not applies:
                continue
            if isinstance(spec, Size):
                asked = read_shape(spec, name, fields, model=self.id)
                if asked is not None:
                    draft.given[name] = asked.param
            elif used is not None:
                self._read(name, used, spec, fields[used], draft)
            elif (initial := defaults.get(name, spec.initial)) is not None:
                draft.params[name] = initial
        return asked

    def _read(self, name: str, used: str, spec: Parameter, value: Any, draft: Draft) -> None:
        if isinstance(spec, Size):
            return
        read = spec.read(value, param=used, model=self.id)
        draft.given[name] = used
        if read is not None:
            draft.params[name] = read
        elif isinstance(spec, Hint):
            draft.warnings.append(f"The hint '{used}' was ignored. Known words: {listed(spec.values)}.")
            del draft.given[name]

    def _resolve_size(
        self,
        fields: Mapping[str, Any],
        draft: Draft,
        asked: AskedShape | None,
        ignored: set[str],
        defaults: Mapping[str, Any],
    ) -> None:
        spec, tier_name = self.spec.parameters[SIZE], self.spec.sizes.tier
        tier_spec = self.spec.parameters[tier_name]
        if not isinstance(spec, Size) or not isinstance(tier_spec, ChoiceParameter):
            raise TypeError("the loader lets no such model through")
        if self.type == "image":
            tier = draft.params[tier_name]
            image = image_shape(spec, asked, name=SIZE, table=self.table, tier=tier, model=self.id)
            draft.params |= image.as_params()
            if image.crop is not None:
                width, height = image.final
                draft.warnings.append(
                    f"'{self.id}' cannot make {image.crop_ratio}: it was asked for {image.ratio} "
                    f"({image.width}x{image.height}), and the centre of {width}x{height} was kept."
                )
            return
        tiers = tier_spec.choices
        if SIZE in ignored:
            ratio = draft.params[SIZE]
            asked = self._leniently(spec, fields)
            tier_of_size = size_tier(asked, self.table, tiers) if asked else None
        elif asked is not None:
            ratio, tier_of_size = video_ratio(spec, asked, table=self.table, tiers=tiers, model=self.id)
            if asked.pixels and tier_of_size is None and not draft.has(tier_name):
                raise no_tier(spec, asked, table=self.table, tiers=tiers, model=self.id)
        else:
            ratio, tier_of_size = defaults.get("ratio", spec.default), None
        if tier_of_size is not None and not draft.has(tier_name):
            draft.params[tier_name] = tier_of_size
        if ratio == ADAPTIVE and not self._has_shape(draft):
            ratio = fallback_ratio(spec)
        draft.params |= video_size_params(spec, ratio=ratio, table=self.table, tier=draft.params[tier_name])

    def _gather_hints(self, draft: Draft) -> None:
        names = [name for name, spec in self.spec.parameters.items() if isinstance(spec, Hint) and name in draft.params]
        draft.params["hints"] = {name: draft.params.pop(name) for name in names}

    def _leniently(self, spec: Size, fields: Mapping[str, Any]) -> AskedShape | None:
        try:
            return read_shape(spec, SIZE, fields, model=self.id)
        except InvalidParameter:
            return None  # the caller was told that this field is ignored

    def _has_shape(self, draft: Draft) -> bool:
        return any(refs and self.spec.inputs[name].media != "audio" for name, refs in draft.media.items())

    def _refuse_elsewhere(self, used: str, applies: bool, operations: tuple[Operation, ...] | None) -> None:
        if applies or operations is None:
            return
        starters = {spec.becomes: name for name, spec in self.spec.inputs.items() if spec.becomes}
        where = listed(
            dict.fromkeys(
                ENDPOINTS[o] + (f" with '{starters[o]}'" if o in starters else "")
                for o in operations
                if o in self.operations
            )
        )
        raise InvalidParameter(f"'{used}' cannot be used here. Allowed for '{self.id}': {where}.", param=used)
