"""Every row of the videos table, family by family."""

from __future__ import annotations

import pytest

from app.errors import InvalidRequest
from app.requests import Operation
from tests.unit.catalogs import URL, shipped

SEEDANCE, VEO, LITE, HORSE = "doubao-seedance-2.0", "veo3.1-fast", "veo3.1-lite", "happyhorse-1.0"
CLIP, SOUND = "https://files.example/a.mp4", "https://files.example/a.mp3"
REMIX = Operation.VIDEO_REMIX
ALL = [SEEDANCE, VEO, HORSE]


def choose(model, operation=None, defaults=None, **fields):
    return shipped().models[model].choose({"prompt": "a fox", **fields}, operation=operation, defaults=defaults)


def test_the_smallest_requests_get_every_default():
    common = {"resolution": "720p", "size": "1280x720", "ratio": "16:9", "width": 1280, "height": 720, "hints": {}}

    assert choose(SEEDANCE).params == {**common, "duration": 5, "generate_audio": True, "watermark": False}
    assert choose(HORSE).params == {**common, "duration": 5, "watermark": False}
    assert choose(VEO).params == {
        **common, "duration": 8, "generate_audio": True, "enable_gif": False, "official_fallback": False,
    }  # fmt: skip
    assert choose(LITE).params == {**common, "duration": 8, "generate_audio": True, "enable_gif": False}
    assert {choose(model).operation for model in (*ALL, LITE)} == {Operation.VIDEO_GENERATE}


ACCEPTED = [
    *((SEEDANCE, {"resolution": r}, {"resolution": r}) for r in ("480p", "720p")),
    *((VEO, {"resolution": r}, {"resolution": r}) for r in ("720p", "1080p", "4k")),
    *((HORSE, {"resolution": r}, {"resolution": r.lower()}) for r in ("720p", "720P", "1080p", "1080P")),
    (VEO, {"resolution": "4K"}, {"resolution": "4k", "size": "3840x2160"}),
    *((SEEDANCE, {"duration": d}, {"duration": d}) for d in (4, 15)),
    (SEEDANCE, {"duration": 5.0}, {"duration": 5}),
    (VEO, {"duration": 8}, {"duration": 8}),
    *((HORSE, {"duration": d}, {"duration": d}) for d in (3, 15)),
    *((SEEDANCE, {"size": r}, {"ratio": r}) for r in ("16:9", "9:16", "1:1", "4:3", "3:4", "21:9")),
    *((VEO, {"aspect_ratio": r}, {"ratio": r}) for r in ("16:9", "9:16")),
    *((HORSE, {"size": r}, {"ratio": r}) for r in ("16:9", "9:16", "1:1", "4:3", "3:4")),
    (HORSE, {"size": "9:16", "aspect_ratio": "9:16"}, {"ratio": "9:16", "size": "720x1280"}),
    (SEEDANCE, {"resolution": "480p"}, {"size": "854x480"}),
    (SEEDANCE, {"watermark": True, "generate_audio": False, "seed": -1}, {"watermark": True, "generate_audio": False}),
    (HORSE, {"watermark": True, "seed": 42}, {"watermark": True, "seed": 42}),
    (VEO, {"generate_audio": False, "seed": 7}, {"generate_audio": False, "seed": 7}),
    (VEO, {"enable_gif": True}, {"enable_gif": True, "resolution": "720p"}),
    (VEO, {"enable_gif": False, "resolution": "1080p"}, {"enable_gif": False}),
    (VEO, {"official_fallback": True}, {"official_fallback": True}),
    ("veo3.1-quality", {"official_fallback": True}, {"official_fallback": True}),
    *(
        (VEO, {"image_urls": [URL] * n}, {"generation_type": t})
        for n, t in ((1, "frame"), (2, "frame"), (3, "reference"))
    ),
    *(
        (VEO, {"image_urls": [URL] * n, "generation_type": "reference"}, {"generation_type": "reference"})
        for n in (1, 2, 3)
    ),
    (VEO, {"first_frame_image": URL}, {"generation_type": "frame"}),
    # the OpenAI Videos API's words
    (VEO, {"seconds": "8", "size": "1280x720"}, {"duration": 8, "resolution": "720p", "ratio": "16:9"}),
    (VEO, {"seconds": 8, "size": "720x1280"}, {"size": "720x1280", "ratio": "9:16"}),
    (VEO, {"size": "1920x1080"}, {"resolution": "1080p", "size": "1920x1080"}),
    (VEO, {"size": "2160x3840"}, {"resolution": "4k", "size": "2160x3840"}),
    (SEEDANCE, {"size": "854x480"}, {"resolution": "480p", "size": "854x480"}),
    (SEEDANCE, {"size": "864x480"}, {"resolution": "480p", "size": "854x480"}),
    (SEEDANCE, {"seconds": "9", "duration": 6}, {"duration": 6}),
    (HORSE, {"size": "1280x720", "resolution": "1080p"}, {"resolution": "1080p", "size": "1920x1080"}),
    (HORSE, {"size": "1024x576", "resolution": "1080p"}, {"size": "1920x1080"}),
    (HORSE, {"size": "1080x1920", "aspect_ratio": "1:1"}, {"resolution": "1080p", "size": "1080x1080"}),
]


@pytest.mark.parametrize(("model", "fields", "params"), ACCEPTED)
def test_what_the_table_allows_is_accepted(model, fields, params):
    choice = choose(model, **fields)

    assert params.items() <= choice.params.items()
    assert choice.warnings == []


BAD, NOT_HERE = "invalid_parameter", "unsupported_parameter"
REFUSED = [
    (SEEDANCE, {"resolution": "1080p"}, BAD, "resolution", ["480p, 720p"]),
    (VEO, {"resolution": "480p"}, BAD, "resolution", ["720p, 1080p, 4k"]),
    (HORSE, {"resolution": "4k"}, BAD, "resolution", ["720p, 1080p"]),
    (HORSE, {"resolution": 720}, BAD, "resolution", ["720p, 1080p"]),
    (SEEDANCE, {"duration": 3}, BAD, "duration", ["4 to 15"]),
    (SEEDANCE, {"duration": 16}, BAD, "duration", ["4 to 15"]),
    (SEEDANCE, {"duration": -5}, BAD, "duration", ["-5", "4 to 15"]),
    (SEEDANCE, {"duration": "5"}, BAD, "duration", ["4 to 15"]),
    (SEEDANCE, {"duration": 5.5}, BAD, "duration", ["5.5", "4 to 15"]),
    (SEEDANCE, {"duration": True}, BAD, "duration", ["4 to 15"]),
    (SEEDANCE, {"duration": [5]}, BAD, "duration", ["4 to 15"]),
    (SEEDANCE, {"duration": float("nan")}, BAD, "duration", ["4 to 15"]),
    (VEO, {"duration": 5}, BAD, "duration", ["5", "the integer 8"]),
    (VEO, {"seconds": "4"}, BAD, "seconds", ["4", "the integer 8"]),
    (VEO, {"seconds": "eight"}, BAD, "seconds", ["the integer 8"]),
    (HORSE, {"duration": 2}, BAD, "duration", ["3 to 15"]),
    (SEEDANCE, {"size": "9:21"}, BAD, "size", ["21:9", "adaptive"]),
    (VEO, {"size": "1:1"}, BAD, "size", ["16:9, 9:16"]),
    (VEO, {"aspect_ratio": "adaptive"}, BAD, "aspect_ratio", ["16:9, 9:16"]),
    (HORSE, {"size": "21:9"}, BAD, "size", ["16:9, 9:16, 1:1, 4:3, 3:4"]),
    (HORSE, {"size": "16:9", "aspect_ratio": "1:1"}, BAD, "aspect_ratio", ["contradict"]),
    (VEO, {"size": "1024x1792"}, BAD, "size", ["720, 1080, 2160", "16:9"]),
    (VEO, {"size": "720x720"}, BAD, "size", ["720, 1080, 2160", "16:9"]),
    (SEEDANCE, {"size": "1920x1080"}, BAD, "size", ["480, 720"]),
    (SEEDANCE, {"size": 5}, BAD, "size", ["16:9"]),
    (SEEDANCE, {"image_urls": [URL] * 10}, BAD, "image_urls", ["10", "at most 9"]),
    (VEO, {"image_urls": [URL] * 4}, BAD, "image_urls", ["4", "at most 3"]),
    (HORSE, {"image_urls": [URL] * 10}, BAD, "image_urls", ["at most 9"]),
    (HORSE, {"image_urls": [URL] * 6, "video_url": CLIP}, BAD, "image_urls", ["6", "at most 5", "video_url"]),
    (SEEDANCE, {"video_urls": [CLIP] * 4}, BAD, "video_urls", ["at most 3"]),
    (SEEDANCE, {"audio_urls": [SOUND] * 4, "image_urls": URL}, BAD, "audio_urls", ["at most 3"]),
    (SEEDANCE, {"audio_urls": SOUND}, BAD, "audio_urls", ["alone", "image_urls", "video_urls"]),
    (SEEDANCE, {"video_urls": "data:video/mp4;base64,AAAA"}, BAD, "video_urls", ["http(s) URL"]),
    (SEEDANCE, {"video_urls": [5]}, BAD, "video_urls", ["http(s) URL"]),
    (VEO, {"video_urls": [CLIP]}, NOT_HERE, "video_urls", [VEO, SEEDANCE]),
    (VEO, {"audio_urls": [SOUND]}, NOT_HERE, "audio_urls", [SEEDANCE]),
    (HORSE, {"audio_urls": [SOUND]}, NOT_HERE, "audio_urls", [SEEDANCE]),
    (HORSE, {"video_urls": [CLIP] * 2}, BAD, "video_urls", ["2", "at most 1"]),
    (HORSE, {"video_urls": [CLIP], "video_url": CLIP}, BAD, "video_urls", ["one of them"]),
    (HORSE, {"video_url": [CLIP]}, BAD, "video_url", ["not a list"]),
    (HORSE, {"first_frame_image": URL, "image_urls": [URL]}, BAD, "first_frame_image", ["image_urls", "together"]),
    (HORSE, {"first_frame_image": URL, "video_url": CLIP}, BAD, "first_frame_image", ["video_url", "together"]),
    (HORSE, {"first_frame_image": [URL]}, BAD, "first_frame_image", ["not a list"]),
    (HORSE, {"input_reference": [URL, URL]}, BAD, "input_reference", ["not a list"]),
    (SEEDANCE, {"first_frame_image": URL, "video_urls": [CLIP]}, BAD, "first_frame_image", ["video_urls"]),
    (VEO, {"first_frame_image": URL, "image_urls": [URL]}, BAD, "first_frame_image", ["image_urls"]),
    (VEO, {"first_frame_image": URL, "generation_type": "reference"}, BAD, "first_frame_image", ["frame"]),
    (SEEDANCE, {"video_url": CLIP}, NOT_HERE, "video_url", [HORSE]),
    (VEO, {"video_url": CLIP}, NOT_HERE, "video_url", [HORSE]),
    (SEEDANCE, {"audio_setting": "auto"}, NOT_HERE, "audio_setting", [HORSE]),
    (VEO, {"audio_setting": "auto"}, NOT_HERE, "audio_setting", [HORSE]),
    (HORSE, {"audio_setting": "origin"}, BAD, "audio_setting", ["video_url"]),
    (HORSE, {"audio_setting": "mute", "video_url": CLIP}, BAD, "audio_setting", ["auto, origin"]),
    (VEO, {"watermark": False}, NOT_HERE, "watermark", [SEEDANCE, HORSE]),
    (SEEDANCE, {"watermark": "true"}, BAD, "watermark", ["true, false"]),
    (SEEDANCE, {"watermark": 1}, BAD, "watermark", ["true, false"]),
    (SEEDANCE, {"generation_type": "frame"}, NOT_HERE, "generation_type", [VEO, LITE]),
    (HORSE, {"generation_type": "frame"}, NOT_HERE, "generation_type", [VEO]),
    (VEO, {"generation_type": "movie", "image_urls": [URL]}, BAD, "generation_type", ["frame, reference"]),
    (VEO, {"generation_type": "frame", "image_urls": [URL] * 3}, BAD, "generation_type", ["3 images", "1 to 2"]),
    (VEO, {"generation_type": "reference"}, BAD, "generation_type", ["0 images", "1 to 3"]),
    (SEEDANCE, {"enable_gif": True}, NOT_HERE, "enable_gif", [VEO]),
    (HORSE, {"enable_gif": True}, NOT_HERE, "enable_gif", [VEO]),
    (VEO, {"enable_gif": True, "resolution": "1080p"}, BAD, "enable_gif", ["720p", "1080p"]),
    (VEO, {"enable_gif": True, "size": "3840x2160"}, BAD, "enable_gif", ["720p", "4k"]),
    (VEO, {"enable_gif": "yes"}, BAD, "enable_gif", ["true, false"]),
    (SEEDANCE, {"official_fallback": True}, NOT_HERE, "official_fallback", [VEO]),
    (HORSE, {"official_fallback": True}, NOT_HERE, "official_fallback", [VEO]),
    (LITE, {"official_fallback": True}, NOT_HERE, "official_fallback", [VEO, "veo3.1-quality"]),
    (HORSE, {"generate_audio": True}, NOT_HERE, "generate_audio", [SEEDANCE, VEO]),
    (HORSE, {"seed": "42"}, BAD, "seed", ["0 to 2147483647"]),
    (HORSE, {"seed": -1}, BAD, "seed", ["0 to 2147483647"]),
    (VEO, {"raw": True}, BAD, "raw", ["POST /v1/videos/{id}/remix"]),
    (SEEDANCE, {"raw": True}, NOT_HERE, "raw", [VEO]),
    (SEEDANCE, {"quality": "hd"}, NOT_HERE, "quality", ["gpt-image-2"]),
    (SEEDANCE, {"mask": URL}, NOT_HERE, "mask", ["gpt-image-2"]),
    (SEEDANCE, {"response_format": "url"}, NOT_HERE, "response_format", ["image models"]),
    (SEEDANCE, {"stream": True}, NOT_HERE, "stream", ["image models"]),
    (SEEDANCE, {"n": 2}, BAD, "n", ["1 (one"]),
    *((model, {"prompt": None}, "missing_parameter", "prompt", ["1 to 32,000"]) for model in (SEEDANCE, VEO, HORSE)),
    (HORSE, {"prompt": None, "video_url": CLIP}, "missing_parameter", "prompt", ["1 to 32,000"]),
    (SEEDANCE, {"prompt": None, "first_frame_image": URL}, "missing_parameter", "prompt", ["1 to 32,000"]),
    (HORSE, {"prompt": 5, "first_frame_image": URL}, BAD, "prompt", ["1 to 32,000"]),
]


@pytest.mark.parametrize(("model", "fields", "reason", "param", "words"), REFUSED)
def test_what_the_table_forbids_is_refused_by_name(model, fields, reason, param, words):
    with pytest.raises(InvalidRequest) as caught:
        choose(model, **fields)

    error = caught.value
    assert (error.status, error.reason, error.param) == (400, reason, param)
    assert f"'{param}'" in error.message
    assert f"'{model}'" in error.message
    assert [word for word in words if word not in error.message] == []


@pytest.mark.parametrize("name", ["first_frame_image", "input_reference"])
def test_a_first_frame_needs_no_prompt_and_gives_its_shape(name):
    choice = choose(HORSE, prompt=None, **{name: URL})

    assert choice.prompt == ""
    assert choice.operation is Operation.VIDEO_GENERATE
    assert choice.media == {"first_frame_image": [URL]}
    assert choice.params["ratio"] == "adaptive"


def test_a_form_s_list_of_one_reference_is_one_reference():
    assert choose(VEO, input_reference=[URL]).media == {"first_frame_image": [URL]}


@pytest.mark.parametrize("fields", [{"video_url": CLIP}, {"video_urls": [CLIP]}, {"video_urls": CLIP}])
def test_a_source_makes_it_an_edit(fields):
    choice = choose(HORSE, **fields)

    assert choice.operation is Operation.VIDEO_EDIT
    assert choice.media == {"video_url": [CLIP]}
    assert choice.params["audio_setting"] == "auto"
    assert choice.params["duration"] is None
    assert choice.params["ratio"] == "adaptive"
    assert choice.warnings == []


def test_an_edit_ignores_the_duration_whatever_it_is_and_says_so():
    choice = choose(HORSE, video_url=CLIP, duration=99, image_urls=[URL] * 5, audio_setting="origin")

    assert choice.params["duration"] is None
    assert choice.params["audio_setting"] == "origin"
    assert choice.warnings == ["'duration' was ignored: with 'video_url' the length is that of the source."]


def test_the_shape_of_a_first_frame_wins_and_pixels_still_say_how_large():
    choice = choose(HORSE, first_frame_image=URL, size="1920x1080")

    assert (choice.params["ratio"], choice.params["resolution"]) == ("adaptive", "1080p")
    assert choice.warnings == ["'size' was ignored: with 'first_frame_image' the shape is that of the frame."]


def test_adaptive_waits_for_the_first_input_and_is_16_9_without_one():
    alone, with_image = choose(SEEDANCE, size="adaptive"), choose(SEEDANCE, size="adaptive", image_urls=[URL])

    assert (alone.params["ratio"], alone.params["size"]) == ("16:9", "1280x720")
    assert with_image.params["ratio"] == "adaptive"


@pytest.mark.parametrize(
    ("model", "width", "height", "ratio", "size"),
    [
        (SEEDANCE, 600, 1000, "9:16", "720x1280"),
        (SEEDANCE, 2500, 1000, "21:9", "1680x720"),
        (SEEDANCE, 500, 500, "1:1", "720x720"),
        (SEEDANCE, None, None, "16:9", "1280x720"),
        (HORSE, 2500, 1000, "16:9", "1280x720"),
    ],
)
def test_an_adaptive_shape_is_resolved_against_the_measured_input(model, width, height, ratio, size):
    params = choose(model, size="adaptive" if model == SEEDANCE else None, first_frame_image=URL).params

    resolved = shipped().models[model].with_input_shape(params, width, height)

    assert (resolved["ratio"], resolved["size"]) == (ratio, size)
    assert f"{resolved['width']}x{resolved['height']}" == size


def test_a_fixed_shape_does_not_follow_the_input():
    params = choose(SEEDANCE, size="1:1", image_urls=[URL]).params

    assert shipped().models[SEEDANCE].with_input_shape(params, 100, 10) == params


@pytest.mark.parametrize("model", [VEO, LITE, "veo3.1-quality"])
def test_a_remix_takes_its_own_fields(model):
    choice = choose(model, REMIX, raw=True, aspect_ratio="9:16", resolution="1080p")

    assert choice.operation is REMIX
    assert choice.params == {
        "resolution": "1080p", "size": "1080x1920", "ratio": "9:16", "width": 1080, "height": 1920,
        "duration": 8, "raw": True, "hints": {},
    }  # fmt: skip


def test_a_remix_starts_from_its_source_s_shape():
    params = choose(VEO, REMIX, defaults={"resolution": "4k", "ratio": "9:16"}).params

    assert (params["resolution"], params["size"], params["raw"]) == ("4k", "2160x3840", False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"image_urls": [URL]}, "image_urls"), ({"enable_gif": True}, "enable_gif"), ({"raw": 1}, "raw"),
     ({"prompt": None}, "prompt"), ({"generation_type": "frame"}, "generation_type")],
)  # fmt: skip
def test_a_remix_refuses_what_only_a_generation_has(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        choose(VEO, REMIX, **fields)

    assert caught.value.param == param


def test_only_one_family_can_remix():
    for model in (SEEDANCE, HORSE):
        with pytest.raises(InvalidRequest) as caught:
            choose(model, REMIX)

        assert caught.value.param == "model"
        assert "POST /v1/videos/{id}/remix" in caught.value.message


def test_a_model_of_images_is_named_the_right_endpoint():
    with pytest.raises(InvalidRequest) as caught:
        choose("gpt-image-2", Operation.VIDEO_GENERATE)

    assert caught.value.param == "model"
    assert "POST /v1/images/generations" in caught.value.message


@pytest.mark.parametrize("model", ALL)
def test_the_gateway_s_own_fields_are_on_all(model):
    choice = choose(model, max_credits=9, metadata={"a": "b"}, webhook_url=URL, idempotency_key="x", n=1, stream=False)

    assert (choice.options.max_credits, choice.options.metadata) == (9, {"a": "b"})
    assert (choice.options.webhook_url, choice.options.idempotency_key) == (URL, "x")
    assert choice.warnings == []


def test_every_url_field_takes_a_single_value_too():
    choice = choose(SEEDANCE, image_urls=URL, video_urls=CLIP, audio_urls=SOUND)

    assert choice.media == {"image_urls": [URL], "video_urls": [CLIP], "audio_urls": [SOUND]}
