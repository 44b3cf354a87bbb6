"""The loader: what it understands, and every mistake it refuses with file and line."""

from __future__ import annotations

import pytest

from app.catalog.load import CatalogError, load_catalog
from app.errors import InvalidParameter, ModelNotFound
from app.requests import Operation
from app.upstreams.protocols import Capabilities, SubmitSafety
from app.upstreams.registry import Registry, discover
from tests.unit.catalogs import CONFIG, EVERYTHING, MODELS, UPSTREAMS, shipped, written

PUBLIC_MODELS = {
    "gpt-image-2",
    *(f"gemini-3-pro-image-preview{suffix}" for suffix in ("", "-2k", "-4k")),
    *(f"gemini-3.1-flash-image-preview{suffix}" for suffix in ("", "-2k", "-4k")),
    "happyhorse-1.0",
    *(f"doubao-seedance-2.0{suffix}" for suffix in ("", "-fast", "-face", "-fast-face")),
    *(f"veo3.1-{suffix}" for suffix in ("fast", "quality", "lite")),
}


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def complaint(folder, **files) -> str:
    with pytest.raises(CatalogError) as caught:
        written(folder, **files)
    return str(caught.value)


def test_the_shipped_catalogue_has_every_public_model():
    catalog = shipped()

    assert set(catalog.models) == PUBLIC_MODELS
    assert catalog.default_image_model == "gpt-image-2"
    assert catalog.default_video_model == "doubao-seedance-2.0-fast"
    assert catalog.upstreams["demo"].provider == "demo"
    assert all(model.routes[-1].upstream == "demo" for model in catalog.models.values())


def test_operations_are_those_of_the_contract():
    done = {name: model.operations for name, model in shipped().models.items()}

    for name, operations in done.items():
        if shipped().models[name].type == "image":
            assert operations == {Operation.IMAGE_GENERATE, Operation.IMAGE_EDIT}
    assert done["happyhorse-1.0"] == {Operation.VIDEO_GENERATE, Operation.VIDEO_EDIT}
    assert done["veo3.1-lite"] == {Operation.VIDEO_GENERATE, Operation.VIDEO_REMIX}
    assert done["doubao-seedance-2.0-face"] == {Operation.VIDEO_GENERATE}


def test_an_absent_model_is_the_default_of_its_kind():
    catalog = shipped()

    assert catalog.pick({}, Operation.IMAGE_EDIT).id == "gpt-image-2"
    assert catalog.pick({"model": None}, Operation.VIDEO_GENERATE).id == "doubao-seedance-2.0-fast"
    assert catalog.pick({"model": "veo3.1-lite"}, Operation.VIDEO_GENERATE).id == "veo3.1-lite"


def test_an_unknown_model_is_404_with_the_names_that_exist():
    for name in ("doubao-seedance-2.0-mini", "GPT-image-2", "x" * 10_000, "\ud800"):
        with pytest.raises(ModelNotFound) as caught:
            shipped().get_model(name)

        assert (caught.value.status, caught.value.param) == (404, "model")
        assert "gpt-image-2, gemini-3-pro-image-preview" in caught.value.message
        assert len(caught.value.message) < 700
        caught.value.message.encode()


@pytest.mark.parametrize("name", [5, ["gpt-image-2"], {}, True])
def test_a_model_that_is_no_text_is_400(name):
    with pytest.raises(InvalidParameter) as caught:
        shipped().pick({"model": name}, Operation.IMAGE_GENERATE)

    assert caught.value.param == "model"


def test_the_small_catalogue_of_these_tests_is_sound(tmp_path):
    catalog = written(tmp_path)

    assert catalog.models["filmer"].title == "Filmer"
    assert catalog.models["painter"].routes[0].model == "painter-1"


MISTAKES = [
    # what is replaced, by what, the part on whose line the complaint must stand, words of the complaint
    ("credits: {small: 1, large: 2}", "credits: {small: 1}", "price: {unit: image", ["no price", "quality", "large"]),
    ("credits: {small: 1, large: 2}", "credits: {small: 1, large: 2, huge: 3}", "price: {unit: image", ["huge"]),
    ("{small: 1, large: 2}", "{small: 1, large: 0}", "price: {unit: image", ["greater than or equal to 1"]),
    ("{small: 1, large: 2}", '{small: 1, large: "2"}', "price: {unit: image", ["valid integer"]),
    ("price: {unit: image, by: quality", "price: {unit: image, by: size", "by: size", ["'size' is no choice"]),
    ("    price: {unit: second, credits: 3}\n", "", "  filmer:", ["price: missing"]),
    ("price: {unit: second, credits: 3}", "price: {unit: second}", "price: {unit: second}", ["credits: missing"]),
    ("unit: second, credits: 3", "unit: image, credits: 3", "unit: image, credits: 3", ["covers no video.generate"]),
    ("unit: second, credits: 3", "unit: hour, credits: 3", "unit: hour", ["hour"]),
    ("unit: second, credits: 3", "unit: second, credits: 3, adds_input_seconds: [clips]", "adds_input", ["'clips'"]),
    ("{upstream: demo, model: filmer-1}", "{upstream: dmeo, model: filmer-1}", "dmeo", ["unknown upstream 'dmeo'"]),
    ("    routes:\n      - {upstream: demo, model: filmer-1}\n", "", "  filmer:", ["routes: missing"]),
    ("      - {upstream: demo, model: filmer-1}\n", "      []\n", "    routes:\n      []", ["routes"]),
    ("default_image_model: painter", "default_image_model: dauber", "default_image_model", ["'dauber'"]),
    ("default_image_model: painter", "default_image_model: filmer", "default_image_model", ["does not make a image"]),
    ("default_video_model: filmer\n", "", 1, ["default_video_model: missing"]),
    ('"2:1": {small: 128x64, large: 256x128}', '"2:1": {small: 128x64}', '"2:1"', ["no pixels for 2:1", "large"]),
    ('"2:1": {small: 128x64', '"2:1": {small: 128', '"2:1"', ["valid string"]),
    ('"2:1": {small: 128x64', '"2:1": {small: 128by64', '"2:1"', ["'128by64'", "WIDTHxHEIGHT"]),
    ('"2:1": {small', '"2:2": {small', '"2:2"', ["'2:2' and '1:1' are the same ratio"]),
    ('"2:1": {small', '"wide": {small', '"wide"', ["'wide' is no ratio"]),
    ("    pixels:\n", "    limits: {multiple: 100}\n    pixels:\n", '"1:1"', ["64x64", "multiples of 100"]),
    ("    pixels:\n", "    limits: {max_ratio: 1.5}\n    pixels:\n", '"2:1"', ["128x64", "within 1.5:1"]),
    ("    pixels:\n", "    limits: {max_edge: 100}\n    pixels:\n", '"1:1"', ["128x128", "at most 100"]),
    ("    pixels:\n", "    limits: {min_pixels: 5000}\n    pixels:\n", '"1:1"', ["64x64", "at least 5000"]),
    ("    pixels:\n", "    limits: {max_pixels: 5000}\n    pixels:\n", '"1:1"', ["128x128", "at most 5000"]),
    ('values: ["16:9"]', 'values: ["16:9", "9:16"]', 'values: ["16:9", "9:16"]', ["no row for '9:16'"]),
    ('values: ["1:1"]', 'values: ["1:1", "5:4"]', 'values: ["1:1", "5:4"]', ["no row for '5:4'"]),
    ("table: images", "table: pictures", "table: pictures", ["unknown size table 'pictures'"]),
    ("tier: quality", "tier: grade", "tier: grade", ["'grade'"]),
    ("values: [small, large], default: small", "values: [small, large]", "values: [small, large]", ["needs a default"]),
    ("default: small", "default: tiny", "default: tiny", ["'tiny' is none of the values"]),
    ("default: 2}", "default: 9}", "default: 9}", ["the default 9 is outside 1..5"]),
    ("minimum: 1,", "minimum: 7,", "minimum: 7,", ["minimum 7 is above maximum 5"]),
    ("minimum: 1,", "minimum: one,", "minimum: one,", ["valid integer"]),
    ("kind: integer", "kind: number", "kind: number", ["number"]),
    ("    title: Painter\n", "    title: Painter\n    colour: red\n", "colour", ["models.painter.colour: unknown key"]),
    (
        "    title: Painter\n",
        "    title: Painter\n    title: Twice\n",
        "title: Twice",
        ["occurs twice", "first on line"],
    ),
    ("operations: [image.generate]", "operations: [image.paint]", "image.paint", ["unknown operation 'image.paint'"]),
    ("operations: [image.generate]", "operations: [video.edit]", "operations: [video.edit]", ["no operation"]),
    ("family: moving", "family: movers", "family: movers", ["unknown family 'movers'", "moving"]),
    (
        "    type: video\n",
        "    family: moving\n    type: video\n",
        "family: moving\n    type",
        ["inherits from itself"],
    ),
    (
        "parameters:\n      quality:",
        "parameters:\n      prompt: {kind: boolean}\n      quality:",
        "prompt:",
        ["prompt"],
    ),
    ("duration: {", "duration: {also: [size], ", "also: [size]", ["'size' is already used"]),
    ('version: "1"', "version: 1", 1, ["valid string"]),
    ('version: "1"', "version: [1", 2, ["expected"]),
    ('version: "1"', "version: *nothing", 1, ["undefined alias"]),
    ('version: "1"', '? [a]\n: 1\nversion: "1"', 1, ["plain text"]),
]


@pytest.mark.parametrize(("old", "new", "place", "words"), MISTAKES)
def test_a_mistake_is_refused_with_file_and_line(tmp_path, old, new, place, words):
    assert old in MODELS
    text = MODELS.replace(old, new, 1)

    message = complaint(tmp_path, models=text)

    line = place if isinstance(place, int) else line_of(text, place)
    assert message.startswith(f"models.yaml:{line}: ")
    assert [word for word in words if word not in message] == []


RULES = [
    ("{kind: excludes, field: quality, others: [nothing]}", ["'nothing'"]),
    ("{kind: only_when, field: quality, param: quality, values: [huge]}", ["no value huge"]),
    ("{kind: by_count, param: quality, of: [quality], ranges: {small: [0, 1]}}", ["needs its range"]),
    ("{kind: sometimes, field: quality}", ["sometimes"]),
    ("{kind: ignored_with, param: quality, inputs: [mask], reason: x}", ["'mask'"]),
]


@pytest.mark.parametrize(("rule", "words"), RULES)
def test_a_rule_about_nothing_is_refused(tmp_path, rule, words):
    text = MODELS.replace("    title: Painter\n", f"    title: Painter\n    rules:\n      - {rule}\n")

    message = complaint(tmp_path, models=text)

    assert message.startswith(f"models.yaml:{line_of(text, rule)}: ")
    assert [word for word in words if word not in message] == []


FILMER_INPUTS = [
    # an `inputs` section of the second model, and words of the complaint about its line
    ("clip: {media: video, becomes: video.edit}", ["'clip' becomes 'video.edit'"]),
    ("clip: {media: video, operations: [video.remix]}", ["'clip' is for no operation"]),
    ("clip: {media: video, single: true, maximum: 2}", ["'clip' is single"]),
    ("clip: {media: video, read_as: film}", ["cannot be read as 'film'"]),
    ("clip: {media: video, maximum: 2, read_as: film}, film: {media: video}", ["'clip' may hold more"]),
    ("clip: {media: video, read_as: film}, film: {media: image}", ["cannot be read as 'film'"]),
    ("clip: {media: smell}", ["'image', 'video' or 'audio'"]),
    ("size: {media: image}", ["'size' is already used"]),
]


@pytest.mark.parametrize(("inputs", "words"), FILMER_INPUTS)
def test_an_input_that_makes_no_sense_is_refused(tmp_path, inputs, words):
    text = MODELS.replace("    family: moving\n", f"    family: moving\n    inputs: {{{inputs}}}\n")

    message = complaint(tmp_path, models=text)

    assert message.startswith(f"models.yaml:{line_of(text, inputs)}: ")
    assert [word for word in words if word not in message] == []


OTHER_MISTAKES = [
    ("    family: moving\n", "    family: moving\n    prompt_optional_with: [frame]\n", ["unknown input 'frame'"]),
    ("default: small}", "default: small, fixed: large}", ["differs from the fixed value"]),
    ("default: small}", "default: small, aliases: {Small: large}}", ["occurs twice among values and aliases"]),
    ("default: small}", "default: small, aliases: {s: tiny}}", ["'tiny' is none of the values"]),
    ('size: {kind: size, values: ["1:1"], default: "1:1"}', "shape: {kind: boolean}", ["'size' of kind 'size'"]),
    ('values: ["1:1"], default: "1:1"', 'values: ["1:1"], default: "7:1"', ["the default '7:1' cannot be made"]),
    ('values: ["16:9"], default: "16:9"', 'values: ["16:9"], default: "9:16"', ["'9:16' is none of the values"]),
    ('values: ["16:9"], default', 'values: ["32:18"], default', ["'32:18' is called '16:9'"]),
    ('      "1:1": {small: 64x64, large: 128x128}\n', "", ["no row for '1:1'"]),
    ("painter-1}", "painter-1, operations: [image.edit]}", ["names image.edit, which this model does not do"]),
    ("credits: 3}", "credits: 3, by: resolution}", ["'by' names a parameter"]),
    ("credits: 3}", "credits: 3, edit: {minimum: 9, maximum: 3}}", ["minimum 9 is above maximum 3"]),
    ("  filmer:\n    family: moving\n", "  other: 5\n  filmer:\n    family: moving\n", ["other: Input should be"]),
]


@pytest.mark.parametrize(("old", "new", "words"), OTHER_MISTAKES)
def test_what_does_not_fit_together_is_refused(tmp_path, old, new, words):
    assert old in MODELS

    message = complaint(tmp_path, models=MODELS.replace(old, new, 1))

    assert message.startswith("models.yaml:")
    assert [word for word in words if word not in message] == []


UPSTREAM_MISTAKES = [
    ("provider: demo", "provider: acme", 3, ["unknown provider 'acme'", "known: demo"]),
    ("    provider: demo\n", "    provider: demo\n    secret: abc\n", 4, ["unknown key"]),
    ("    provider: demo\n", "    provider: demo\n    secret_env: sk-abc\n", 4, ["secret_env"]),
    ("    provider: demo\n", "    provider: demo\n    concurrency: 0\n", 4, ["concurrency"]),
    ("    provider: demo\n", "    provider: demo\n    base_url: ftp://x\n", 4, ["base_url"]),
    ("    provider: demo\n", "    concurrency: 3\n", 2, ["provider: missing"]),
]


@pytest.mark.parametrize(("old", "new", "line", "words"), UPSTREAM_MISTAKES)
def test_a_mistake_among_the_upstreams_is_refused_with_its_line(tmp_path, old, new, line, words):
    message = complaint(tmp_path, upstreams=UPSTREAMS.replace(old, new))

    assert message.startswith(f"upstreams.yaml:{line}: ")
    assert [word for word in words if word not in message] == []


def test_a_provider_that_cannot_do_an_operation_makes_the_model_unroutable():
    painter_only = Capabilities(frozenset({Operation.IMAGE_GENERATE, Operation.IMAGE_EDIT}), SubmitSafety.BLIND)

    with pytest.raises(CatalogError, match=r"^models\.yaml:\d+: .*'happyhorse-1\.0': unroutable.*'demo'.*video\.edit"):
        load_catalog(CONFIG, providers=Registry(discover()).capabilities | {"demo": painter_only})


def test_a_route_may_serve_some_operations_but_all_must_be_served(tmp_path):
    text = MODELS.replace("operations: [image.generate]", "operations: [image.generate, image.edit]")
    one = text.replace("model: painter-1", "model: painter-1, operations: [image.generate]")

    message = complaint(tmp_path, models=one)

    assert "unroutable: no route for image.edit" in message
    edits = "      - {upstream: demo, model: edit-1, operations: [image.edit]}\n"
    both = one.replace("      - {upstream: demo, model: painter-1", edits + "      - {upstream: demo, model: painter-1")
    painter = written(tmp_path, models=both).models["painter"]
    assert [(route.model, route.operations) for route in painter.routes] == [
        ("edit-1", (Operation.IMAGE_EDIT,)),
        ("painter-1", (Operation.IMAGE_GENERATE,)),
    ]


def test_several_mistakes_are_told_at_once(tmp_path):
    text = MODELS.replace("title: Painter", "titel: Painter").replace("unit: second", "unit: hour")

    message = complaint(tmp_path, models=text)

    assert len(message.splitlines()) >= 3
    assert all(line.startswith("models.yaml:") for line in message.splitlines())


@pytest.mark.parametrize("name", ["models.yaml", "upstreams.yaml"])
def test_a_missing_file_is_named(tmp_path, name):
    written(tmp_path)
    (tmp_path / name).unlink()

    with pytest.raises(CatalogError, match=f"^{name}:1: this file does not exist"):
        load_catalog(tmp_path, providers={"demo": EVERYTHING})


def test_a_file_that_is_not_utf8_is_named_with_the_line(tmp_path):
    written(tmp_path)
    (tmp_path / "models.yaml").write_bytes(b"version: '1'\ntitle: \xff\n")

    with pytest.raises(CatalogError, match=r"^models\.yaml:2: this file is not UTF-8"):
        load_catalog(tmp_path, providers={"demo": EVERYTHING})


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n"])
def test_a_file_without_a_mapping_is_refused(tmp_path, text):
    assert complaint(tmp_path, models=text) == "models.yaml:1: expected a mapping at the top of the file"


def test_an_anchor_that_holds_itself_is_refused(tmp_path):
    assert complaint(tmp_path, models="a: &a [*a]\n").startswith("models.yaml:1: ")


def test_plain_ratios_need_no_quotes(tmp_path):
    text = MODELS.replace('"16:9"', "16:9").replace('"1:1"', "1:1")

    assert written(tmp_path, models=text).models["filmer"].choose({"prompt": "x"}).params["ratio"] == "16:9"


def test_null_takes_an_inherited_parameter_away(tmp_path):
    text = MODELS.replace("    family: moving\n", "    family: moving\n    parameters: {duration: null}\n")

    assert "needs an integer 'duration'" in complaint(tmp_path, models=text)


def test_the_line_of_an_inherited_mistake_is_the_family_s(tmp_path):
    text = MODELS.replace("values: [720p], default: 720p", "values: [720p], default: 480p")

    message = complaint(tmp_path, models=text)

    assert message.startswith(f"models.yaml:{line_of(text, 'default: 480p')}: models.filmer.parameters.resolution")
