"""What the playground knows of a model: its JSON Schema cut down to what a person sets, inputs, shapes and price."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.catalog.model import SIZE, Model
from app.catalog.parameters import Choice, Hint, Integer, Parameter, Size
from app.catalog.sizes import parse_pixels, parse_ratio
from app.console.wording import _
from app.tasks.queries import TaskView
from app.values import utcnow

Json = dict[str, Any]
Translate = Callable[[str], str]

UNSEEN = frozenset({"user", "safety_identifier"})
"""For programs that have users of their own."""
INPUT_ROLES = ("input", "mask")

FIELDS: Mapping[str, tuple[str, str]] = {
    "size": (_("Shape"), ""),
    "quality": (_("Quality"), _("Decides the pixels, and the price of some models.")),
    "resolution": (_("Resolution"), ""),
    "duration": (_("Duration"), ""),
    "output_format": (_("File format"), ""),
    "output_compression": (_("Compression"), _("Of JPEG and WebP, in percent.")),
    "background": (_("Background"), _("A hint: used where the model supports it.")),
    "moderation": (_("Moderation"), _("A hint: how strict the vendor's filter is.")),
    "style": (_("Style"), _("A hint: used where the model supports it.")),
    "input_fidelity": (_("Faithfulness to inputs"), _("A hint: how closely inputs are kept.")),
    "generate_audio": (_("With sound"), ""),
    "watermark": (_("With the vendor's watermark"), ""),
    "seed": (_("Seed"), _("The same seed gives similar results. Empty: any.")),
    "generation_type": (_("Pictures are"), _("First and last frame, or references.")),
    "enable_gif": (_("Also a GIF"), _("Only at 720p.")),
    "official_fallback": (_("May use the vendor's own, more expensive route"), ""),
    "audio_setting": (_("Sound of an edit"), ""),
    "raw": (_("Only the added part"), ""),
    "image_urls": (_("Pictures"), ""),
    "first_frame_image": (_("First frame"), ""),
    "mask": (_("Mask"), ""),
    "video_url": (_("Video to edit"), _("A public URL. Billed by the second.")),
    "video_urls": (_("Reference videos"), _("Public URLs. Their seconds are added to the price.")),
    "audio_urls": (_("Reference sounds"), _("Public URLs, together with a picture or a video.")),
}
"""Label and help of the fields that our own models have. Others show their name and the catalogue's description."""

VALUES: Mapping[str, str] = {
    "standard": _("Standard"),
    "hd": _("HD"),
    "uhd": _("Ultra HD"),
    "auto": _("Auto"),
    "adaptive": _("Like the input"),
    "frame": _("Frames"),
    "reference": _("References"),
    "opaque": _("Opaque"),
    "transparent": _("Transparent"),
    "low": _("Low"),
    "high": _("High"),
    "vivid": _("Vivid"),
    "natural": _("Natural"),
    "origin": _("The source's"),
}

UNITS: Mapping[str, str] = {"image": _("an image"), "second": _("a second"), "call": _("a video")}


def described(model: Model, gettext: Translate) -> Json:
    """Return a model as the playground's script reads it."""
    schema = model.parameters_schema()["properties"]
    spec = model.spec
    parameters = [
        _parameter(name, parameter, schema[name], gettext)
        for name, parameter in spec.parameters.items()
        if name not in UNSEEN and not (isinstance(parameter, Hint) and (model.type == "video" or not parameter.values))
    ]
    inputs = [
        {
            **_words(name, one.description, gettext),
            "name": name,
            "media": one.media,
            "maximum": 1 if one.single else one.maximum,
            "single": one.single,
            "also": list(one.also),
            "operations": None if one.operations is None else [str(operation.value) for operation in one.operations],
            "becomes": one.becomes.value if one.becomes else None,
        }
        for name, one in spec.inputs.items()
        if name != "mask" and one.read_as is None
    ]
    return {
        "id": model.id,
        "title": model.title,
        "description": spec.description,
        "type": model.type,
        "operations": sorted(operation.value for operation in model.operations),
        "parameters": parameters,
        "inputs": inputs,
        "mask": "mask" in spec.inputs,
        "tier": spec.sizes.tier,
        "pixels": model.table.pixels,
        "promptOptionalWith": list(spec.prompt_optional_with),
        "price": price_hint(model, gettext),
    }


def price_hint(model: Model, gettext: Translate) -> Json:
    """Return the least and the most that a unit costs."""
    price = model.spec.price
    amounts = [price.credits] if isinstance(price.credits, int) else list(price.credits.values())
    unit = price.unit
    return {"least": min(amounts), "most": max(amounts), "unit": gettext(UNITS[unit]) if unit in UNITS else unit}


def _parameter(name: str, parameter: Parameter, schema: Json, gettext: Translate) -> Json:
    found = {
        **_words(name, parameter.description, gettext),
        "name": name,
        "kind": parameter.kind,
        "also": list(parameter.also),
        "operations": (
            None if parameter.operations is None else [str(operation.value) for operation in parameter.operations]
        ),
        "default": schema.get("default"),
    }
    if isinstance(parameter, Choice):
        found["values"] = [_value(value, gettext) for value in parameter.choices]
    elif isinstance(parameter, Size):
        found["values"] = [_value(value, gettext) for value in (*parameter.values, *parameter.words)]
        found["default"] = _ratio_of(parameter)
    elif isinstance(parameter, Hint):
        found["values"] = [_value(value, gettext) for value in parameter.values]
    elif isinstance(parameter, Integer):
        found |= {"minimum": schema["minimum"], "maximum": schema["maximum"]}
    return found


def _words(name: str, description: str, gettext: Translate) -> Json:
    if name not in FIELDS:
        return {"label": label_of(name, gettext), "help": description}
    help_text = FIELDS[name][1]
    return {"label": label_of(name, gettext), "help": gettext(help_text) if help_text else ""}


def label_of(name: str, gettext: Translate) -> str:
    """Return what a parameter or an input is called on every page."""
    return gettext(FIELDS[name][0]) if name in FIELDS else name.replace("_", " ").capitalize()


def _value(value: str, gettext: Translate) -> Json:
    return {"value": value, "text": value_text(value, gettext)}


def value_text(value: Any, gettext: Translate) -> Any:
    """Return what a parameter's value is called, where it has a name."""
    return gettext(VALUES[value]) if isinstance(value, str) and value in VALUES else value


def _ratio_of(size: Size) -> str:
    """Return the default shape as one of the offered ratios: 1024x1024 is 1:1."""
    pixels = parse_pixels(size.default)
    if pixels is None:
        return size.default
    wanted = pixels[0] / pixels[1]
    ratios = {value: ratio for value in size.values if (ratio := parse_ratio(value)) is not None}
    return min(ratios, key=lambda value: abs(float(ratios[value]) - wanted), default=size.default)


def values_of(view: TaskView, model: Model) -> Json:
    """Return what a task was asked for, in the words of its model's form."""
    params = view.request["params"]
    known = {**params, **params.get("hints", {})}
    found = {
        name: known[name]
        for name, parameter in model.spec.parameters.items()
        if name in known and name != SIZE and parameter.applies_to(view.operation)
    }
    shape = params.get("crop_ratio") or params.get("ratio")
    offered = model.spec.parameters.get(SIZE)
    if isinstance(offered, Size) and shape in (*offered.values, *offered.words):
        found[SIZE] = shape
    return found


def inputs_of(view: TaskView, address: Callable[[str], str]) -> list[Json]:
    """Return the files that came with a task and are still kept. ``address`` makes a link from a file's id."""
    now = utcnow()
    return [
        {
            "field": "mask" if file.role == "mask" else file.field,
            "url": address(file.id.hex),
            "mime": file.mime,
            "width": file.width,
            "height": file.height,
        }
        for file in sorted(view.files, key=lambda file: file.position)
        if file.role in INPUT_ROLES and file.mime.startswith("image/") and file.is_kept(now)
    ]
