"""Every row of the images table: what is accepted, what it becomes, and what is refused with which words."""

from __future__ import annotations

import pytest

from app.errors import InvalidRequest
from app.intake import Upload
from app.requests import Operation
from tests.unit.catalogs import URL, shipped

GPT = "gpt-image-2"
PRO, PRO_2K, PRO_4K = "gemini-3-pro-image-preview", "gemini-3-pro-image-preview-2k", "gemini-3-pro-image-preview-4k"
EDIT = Operation.IMAGE_EDIT


def choose(model=GPT, operation=None, **fields):
    return shipped().models[model].choose({"prompt": "a fox", **fields}, operation=operation)


def refusal(model=GPT, operation=None, **fields):
    with pytest.raises(InvalidRequest) as caught:
        choose(model, operation, **fields)
    return caught.value


def test_the_smallest_request_gets_every_default():
    choice = choose()

    assert choice.operation is Operation.IMAGE_GENERATE
    assert choice.prompt == "a fox"
    assert choice.params == {
        "quality": "standard",
        "size": "1024x1024",
        "ratio": "1:1",
        "width": 1024,
        "height": 1024,
        "output_format": "png",
        "hints": {},
    }
    assert choice.media == {}
    assert choice.warnings == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *((word, "standard") for word in ("standard", "low", "1k", "1K", "auto", "Standard")),
        *((word, "hd") for word in ("hd", "medium", "2k", "2K", "HD")),
        *((word, "uhd") for word in ("uhd", "high", "4k", "4K", "xhigh", "max")),
    ],
)
def test_every_word_for_a_quality_means_one_of_three(given, meant):
    assert choose(quality=given).params["quality"] == meant


@pytest.mark.parametrize(
    ("model", "quality", "meant"),
    [
        (PRO_2K, None, "hd"),
        (PRO_2K, "2k", "hd"),
        (PRO_2K, "medium", "hd"),
        (PRO_4K, "auto", "uhd"),
        (PRO_4K, "4K", "uhd"),
    ],
)
def test_a_suffix_fixes_the_tier(model, quality, meant):
    assert choose(model, quality=quality).params["quality"] == meant


REFUSED = [
    # model, operation, fields, reason, param, words of the message
    (GPT, None, {"prompt": None}, "missing_parameter", "prompt", ["1 to 32,000"]),
    (GPT, None, {"prompt": ""}, "missing_parameter", "prompt", ["1 to 32,000"]),
    (GPT, None, {"prompt": " \n"}, "missing_parameter", "prompt", ["1 to 32,000"]),
    (GPT, None, {"prompt": "x" * 32_001}, "invalid_parameter", "prompt", ["32,001", "1 to 32,000"]),
    (GPT, None, {"prompt": 5}, "invalid_parameter", "prompt", ["5", "1 to 32,000"]),
    (GPT, None, {"prompt": ["a"]}, "invalid_parameter", "prompt", ["a list of 1", "1 to 32,000"]),
    (GPT, None, {"prompt": "a\0b"}, "invalid_parameter", "prompt", ["NUL"]),
    (GPT, None, {"prompt": "a\ud800"}, "invalid_parameter", "prompt", ["1 to 32,000"]),
    (GPT, None, {"n": 2}, "invalid_parameter", "n", ["2", "1 (one"]),
    (GPT, None, {"n": 0}, "invalid_parameter", "n", ["1 (one"]),
    (GPT, None, {"n": "1"}, "invalid_parameter", "n", ['"1"', "1 (one"]),
    (GPT, None, {"n": True}, "invalid_parameter", "n", ["true", "1 (one"]),
    (GPT, None, {"n": 1.5}, "invalid_parameter", "n", ["1.5"]),
    (GPT, None, {"size": "banana"}, "invalid_parameter", "size", ["banana", "16:9", "auto", "WIDTHxHEIGHT"]),
    (GPT, None, {"size": "0x100"}, "invalid_parameter", "size", ["0x100", "16:9"]),
    (GPT, None, {"size": "4:1"}, "invalid_parameter", "size", ["4:1", "within 3:1"]),
    (GPT, None, {"size": "400x100"}, "invalid_parameter", "size", ["400x100", "within 3:1"]),
    (PRO, None, {"size": "1:4"}, "invalid_parameter", "size", ["within 3:1"]),
    (GPT, None, {"size": 1024}, "invalid_parameter", "size", ["1024", "WIDTHxHEIGHT"]),
    (GPT, None, {"size": ["1:1"]}, "invalid_parameter", "size", ["a list of 1"]),
    (GPT, None, {"size": "adaptive"}, "invalid_parameter", "size", ["adaptive", "auto"]),
    (GPT, None, {"aspect_ratio": "banana"}, "invalid_parameter", "aspect_ratio", ["16:9"]),
    (GPT, None, {"size": "1:1", "aspect_ratio": "16:9"}, "invalid_parameter", "aspect_ratio", ["contradict", "1:1"]),
    (GPT, None, {"quality": "ultra"}, "invalid_parameter", "quality", ["ultra", "standard, hd, uhd", "low", "4k"]),
    (GPT, None, {"quality": 2}, "invalid_parameter", "quality", ["standard, hd, uhd"]),
    (PRO_2K, None, {"quality": "uhd"}, "invalid_parameter", "quality", ["uhd", "hd", PRO_2K]),
    (PRO_2K, None, {"quality": "standard"}, "invalid_parameter", "quality", ["hd"]),
    (PRO_4K, None, {"quality": "low"}, "invalid_parameter", "quality", ["uhd", "high"]),
    (GPT, None, {"image": [URL] * 6}, "invalid_parameter", "image", ["6", "at most 5"]),
    (GPT, None, {"image_urls": [URL] * 6}, "invalid_parameter", "image_urls", ["at most 5"]),
    (GPT, None, {"image": [URL] * 3, "image_urls": [URL] * 3}, "invalid_parameter", "image", ["6", "at most 5"]),
    (GPT, None, {"image": "file:///etc/passwd"}, "invalid_parameter", "image", ["http(s) URL", "data:image"]),
    (GPT, None, {"image": 5}, "invalid_parameter", "image", ["http(s) URL"]),
    (GPT, None, {"image": [URL, None]}, "invalid_parameter", "image", ["http(s) URL"]),
    (GPT, None, {"image": {"file_id": "f"}}, "invalid_parameter", "image", ["http(s) URL"]),
    (GPT, None, {"image": "data:video/mp4;base64,AA"}, "invalid_parameter", "image", ["data:image"]),
    (GPT, None, {"response_format": "png"}, "invalid_parameter", "response_format", ["url, b64_json"]),
    (GPT, None, {"output_format": "gif"}, "invalid_parameter", "output_format", ["gif", "png, jpeg, webp"]),
    (GPT, None, {"output_format": "svg"}, "invalid_parameter", "output_format", ["svg", "png, jpeg, webp"]),
    (
        GPT, None, {"output_format": "webp", "output_compression": 101},
        "invalid_parameter", "output_compression", ["101", "0 to 100"],
    ),
    (
        GPT, None, {"output_format": "webp", "output_compression": "80"},
        "invalid_parameter", "output_compression", ["0 to 100"],
    ),
    (GPT, None, {"output_compression": 80}, "invalid_parameter", "output_compression", ["jpeg", "webp", "png"]),
    (
        GPT, None, {"background": "transparent", "output_format": "jpeg"},
        "invalid_parameter", "background", ["transparent", "png", "webp"],
    ),
    (GPT, None, {"background": 1}, "invalid_parameter", "background", ["text"]),
    (GPT, None, {"user": "x" * 513}, "invalid_parameter", "user", ["512"]),
    (GPT, None, {"stream": "yes"}, "invalid_parameter", "stream", ["true, false"]),
    (GPT, None, {"partial_images": 4}, "invalid_parameter", "partial_images", ["0 to 3"]),
    (GPT, None, {"partial_images": -1}, "invalid_parameter", "partial_images", ["0 to 3"]),
    (GPT, None, {"async": 1}, "invalid_parameter", "async", ["true, false"]),
    (GPT, None, {"max_credits": -1}, "invalid_parameter", "max_credits", ["from 0"]),
    (GPT, None, {"max_credits": "5"}, "invalid_parameter", "max_credits", ["from 0"]),
    (GPT, None, {"metadata": {str(i): "" for i in range(17)}}, "invalid_parameter", "metadata", ["at most 16"]),
    (GPT, None, {"metadata": {"k" * 65: ""}}, "invalid_parameter", "metadata", ["64"]),
    (GPT, None, {"metadata": {"": "v"}}, "invalid_parameter", "metadata", ["1 to 64"]),
    (GPT, None, {"metadata": {"k": "v" * 513}}, "invalid_parameter", "metadata", ["512"]),
    (GPT, None, {"metadata": {"k": 1}}, "invalid_parameter", "metadata", ["pairs of text"]),
    (GPT, None, {"metadata": {"k": "\0"}}, "invalid_parameter", "metadata", ["pairs of text"]),
    (GPT, None, {"metadata": "k=v"}, "invalid_parameter", "metadata", ["an object"]),
    (GPT, None, {"webhook_url": "ftp://x"}, "invalid_parameter", "webhook_url", ["http(s) URL"]),
    (GPT, None, {"idempotency_key": "a\tb"}, "invalid_parameter", "idempotency_key", ["printable ASCII"]),
    (GPT, None, {"mask": URL}, "invalid_parameter", "mask", ["POST /v1/images/edits"]),
    (GPT, EDIT, {}, "missing_parameter", "image", ["at least one"]),
    (GPT, EDIT, {"image": []}, "missing_parameter", "image", ["at least one"]),
    (GPT, EDIT, {"mask": URL}, "missing_parameter", "image", ["at least one"]),
    (GPT, EDIT, {"image": URL, "mask": [URL]}, "invalid_parameter", "mask", ["not a list"]),
    (GPT, None, {"duration": 5}, "unsupported_parameter", "duration", [GPT, "veo3.1-fast", "happyhorse-1.0"]),
    (GPT, None, {"resolution": "720p"}, "unsupported_parameter", "resolution", ["doubao-seedance-2.0"]),
    (GPT, None, {"enable_gif": True}, "unsupported_parameter", "enable_gif", ["veo3.1-lite"]),
    (GPT, EDIT, {"image": URL, "markup": URL}, "unsupported_parameter", "markup", ["No model"]),
    (GPT, Operation.VIDEO_GENERATE, {}, "invalid_parameter", "model", [GPT, "images", "POST /v1/images/generations"]),
]  # fmt: skip


@pytest.mark.parametrize(("model", "operation", "fields", "reason", "param", "words"), REFUSED)
def test_a_bad_value_is_refused_by_name(model, operation, fields, reason, param, words):
    error = refusal(model, operation, **fields)

    assert (error.status, error.reason, error.param) == (400, reason, param)
    assert model in error.message or reason == "missing_parameter"
    assert [word for word in words if word not in error.message] == []


def test_a_long_value_is_quoted_in_short():
    error = refusal(quality="q" * 100_000)

    assert len(error.message) < 400


def test_n_of_one_and_both_formats_are_accepted():
    for fields in ({"n": 1}, {"n": 1.0}, {"response_format": "url"}, {"response_format": "b64_json"}):
        choice = choose(**fields)

        assert choice.warnings == []
    assert choice.options.response_format == "b64_json"


def test_what_belongs_to_the_gateway_is_read_into_options():
    choice = choose(
        stream=True, partial_images=2, max_credits=3, metadata={"k": "v"}, webhook_url=URL, idempotency_key="k-1",
        **{"async": True},
    )  # fmt: skip

    options = choice.options
    assert (options.stream, options.partial_images, options.respond_async) == (True, 2, True)
    assert (options.max_credits, options.metadata) == (3, {"k": "v"})
    assert (options.webhook_url, options.idempotency_key) == (URL, "k-1")
    assert not {"stream", "partial_images", "metadata"} & set(choice.params)


@pytest.mark.parametrize("name", ["image", "image_urls"])
def test_a_single_image_and_a_list_mean_the_same(name):
    single, several = choose(**{name: URL}), choose(**{name: [URL]})

    assert single.media == several.media == {"image_urls": [URL]}
    assert single.operation is Operation.IMAGE_GENERATE


def test_both_names_for_images_are_put_together():
    choice = choose(image=[URL + "1", URL + "2"], image_urls=[URL + "3"])

    assert sorted(choice.media["image_urls"]) == [URL + "1", URL + "2", URL + "3"]


def test_an_edit_takes_uploads_and_a_mask(tmp_path):
    picture, mask = (Upload(tmp_path / name, 10, b"") for name in ("a.png", "mask.png"))

    choice = choose(operation=EDIT, image=[picture, URL], mask=mask)

    assert choice.operation is EDIT
    assert choice.media == {"image_urls": [picture, URL], "mask": [mask]}


def test_the_json_form_of_an_edit_may_wrap_its_urls():
    choice = choose(operation=EDIT, images=[{"image_url": URL}])

    assert choice.media == {"image_urls": [URL]}


@pytest.mark.parametrize("model", [GPT, PRO, "veo3.1-fast", "happyhorse-1.0", "doubao-seedance-2.0"])
def test_hints_are_never_refused_for_lack_of_support(model):
    hints = {
        "background": "transparent", "moderation": "low", "style": "vivid", "user": "u1",
        "safety_identifier": "s1", "input_fidelity": "high",
    }  # fmt: skip

    choice = choose(model, **hints)

    assert choice.params["hints"] == hints
    assert choice.warnings == []


def test_a_word_no_upstream_knows_is_dropped_from_the_hints_with_a_warning():
    choice = choose(style="oily")

    assert choice.params["hints"] == {}
    assert choice.warnings == ["The hint 'style' was ignored. Known words: vivid, natural."]


def test_a_transparent_background_goes_with_png_and_webp():
    for output_format in (None, "png", "webp"):
        assert choose(background="transparent", output_format=output_format).params["hints"] == {
            "background": "transparent"
        }


def test_compression_is_for_jpeg_and_webp_and_full_quality_harms_nobody():
    assert choose(output_format="jpeg", output_compression=0).params["output_compression"] == 0
    assert choose(output_format="webp", output_compression=100).params["output_compression"] == 100
    assert choose(output_compression=100).params["output_compression"] == 100


def test_null_is_as_if_absent():
    assert choose(size=None, quality=None, image=None, n=None).params == choose().params


def test_an_unknown_field_is_a_warning():
    choice = choose(sampler="euler", **{"bad\0\ud800name": 1})

    assert choice.warnings == ["Unknown field 'sampler' was ignored.", "Unknown field 'bad??name' was ignored."]


def test_a_flood_of_unknown_fields_makes_few_warnings():
    choice = choose(**{f"x{i}": i for i in range(10_000)})

    assert len(choice.warnings) == 21
    assert choice.warnings[-1] == "9980 more unknown fields were ignored."


def test_a_ratio_wins_over_pixels():
    params = choose(size="1024x1024", aspect_ratio="16:9").params

    assert (params["ratio"], params["size"]) == ("16:9", "1536x864")


def test_a_model_of_videos_is_named_the_right_endpoint():
    error = refusal("veo3.1-fast", Operation.IMAGE_GENERATE)

    assert (error.reason, error.param) == ("invalid_parameter", "model")
    assert "makes videos" in error.message
    assert "POST /v1/videos/generations" in error.message
