"""Every price of the contract, the quote's arithmetic, and the charge for what was delivered."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.pricing import charge
from app.requests import Operation
from tests.unit.catalogs import URL, shipped

CLIP = "https://files.example/a.mp4"


def quote(model, seconds=None, operation=None, **fields):
    chosen = shipped().models[model]
    choice = chosen.choose({"prompt": "a fox", **fields}, operation=operation)
    return chosen.quote(choice, input_seconds=seconds)


@pytest.mark.parametrize(("quality", "credits"), [("standard", 1), ("hd", 2), ("uhd", 3), ("auto", 1), ("high", 3)])
def test_gpt_image_is_priced_by_quality_whatever_the_size(quality, credits):
    for size in ("1:1", "auto", "21:9", "1000x700"):
        assert quote("gpt-image-2", quality=quality, size=size).credits == credits


@pytest.mark.parametrize("suffix", ["", "-2k", "-4k"])
def test_gemini_images_have_one_price(suffix):
    assert quote(f"gemini-3-pro-image-preview{suffix}").credits == 10
    assert quote(f"gemini-3.1-flash-image-preview{suffix}").credits == 5


def test_an_edit_costs_what_a_generation_costs():
    assert quote("gpt-image-2", operation=Operation.IMAGE_EDIT, image=URL, quality="hd").credits == 2


@pytest.mark.parametrize(
    ("model", "resolution", "each"),
    [
        ("happyhorse-1.0", "720p", 22),
        ("happyhorse-1.0", "1080p", 38),
        ("doubao-seedance-2.0", "480p", 10),
        ("doubao-seedance-2.0", "720p", 31),
        ("doubao-seedance-2.0-face", "480p", 10),
        ("doubao-seedance-2.0-face", "720p", 31),
        ("doubao-seedance-2.0-fast", "480p", 8),
        ("doubao-seedance-2.0-fast", "720p", 25),
        ("doubao-seedance-2.0-fast-face", "480p", 8),
        ("doubao-seedance-2.0-fast-face", "720p", 25),
    ],
)
def test_videos_by_the_second(model, resolution, each):
    for duration in (4, 5, 15):
        made = quote(model, resolution=resolution, duration=duration)

        assert (made.credits, made.unit, made.unit_credits, made.quantity) == (
            each * duration,
            "second",
            each,
            duration,
        )
        assert made.explain == f"{duration} s x {each} credits ({resolution})"


@pytest.mark.parametrize(
    ("model", "prices"),
    [("veo3.1-fast", (73, 91, 229)), ("veo3.1-quality", (195, 244, 610)), ("veo3.1-lite", (36, 46, 115))],
)
def test_videos_by_the_call_and_their_remixes(model, prices):
    for resolution, credits in zip(("720p", "1080p", "4k"), prices, strict=True):
        made = quote(model, resolution=resolution)

        assert (made.credits, made.unit, made.quantity) == (credits, "call", 1)
        assert quote(model, operation=Operation.VIDEO_REMIX, resolution=resolution).credits == credits


@pytest.mark.parametrize(
    ("source", "billed"), [(0.5, 3), (3.0, 3), (3.01, 4), (4.2, 5), (5.0000001, 5), (15.0, 15), (15.2, 15), (59.0, 15)]
)
def test_an_edit_is_billed_by_its_source_rounded_up_from_3_to_15(source, billed):
    made = quote("happyhorse-1.0", source, video_url=CLIP)

    assert (made.quantity, made.credits) == (billed, billed * 22)


def test_the_seconds_of_reference_videos_are_added():
    made = quote("doubao-seedance-2.0-fast", 3.2, video_urls=[CLIP], duration=5)

    assert made.credits == (5 + 4) * 25
    assert made.explain == "(5 s + 4 s of reference video) x 25 credits (720p)"


@pytest.mark.parametrize("seconds", [None, 0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("model", ["happyhorse-1.0", "doubao-seedance-2.0"])
def test_without_a_measure_there_is_no_quote(model, seconds):
    with pytest.raises(ValueError, match="must be measured"):
        quote(model, seconds, video_urls=[CLIP])


def test_a_model_says_when_it_needs_the_measure():
    horse, seedance, veo = (shipped().models[m] for m in ("happyhorse-1.0", "doubao-seedance-2.0", "veo3.1-fast"))

    assert horse.needs_input_seconds(horse.choose({"prompt": "x", "video_url": CLIP}))
    assert seedance.needs_input_seconds(seedance.choose({"prompt": "x", "video_urls": [CLIP]}))
    assert not horse.needs_input_seconds(horse.choose({"prompt": "x"}))
    assert not seedance.needs_input_seconds(seedance.choose({"prompt": "x", "image_urls": [URL]}))
    assert not veo.needs_input_seconds(veo.choose({"prompt": "x"}))


def test_a_frozen_quote_survives_json_and_names_its_price_list():
    frozen = json.loads(json.dumps(quote("gpt-image-2", quality="hd").frozen()))

    assert frozen["price_version"] == shipped().version
    assert frozen["explain"] == "1 image x 2 credits (hd)"
    assert charge(frozen, 1) == 2


@pytest.mark.parametrize(
    ("delivered", "seconds"),
    [
        (None, 0),
        (0, 0),
        (float("nan"), 0),
        (5.04, 5),
        (5.0, 5),
        (4.96, 5),
        (4.5, 5),
        (4.4, 4),
        (4.0, 4),
        (0.2, 1),
        (9.0, 5),
    ],
)
def test_a_video_is_charged_by_the_seconds_it_has_and_never_above_the_quote(delivered, seconds):
    frozen = quote("doubao-seedance-2.0-fast", duration=5).frozen()

    assert charge(frozen, delivered) == seconds * 25


def test_reference_seconds_are_charged_beside_the_delivered_ones():
    frozen = quote("doubao-seedance-2.0", 6.1, video_urls=[CLIP], duration=5).frozen()

    assert charge(frozen, 4.0) == (4 + 7) * 31
    assert charge(frozen, 5.04) == frozen["credits"] == (5 + 7) * 31
    assert charge(frozen, None) == 0


@pytest.mark.parametrize(
    ("source", "delivered", "seconds"),
    [(4.2, 4.2, 5), (4.2, 4.0, 5), (4.2, 5.1, 5), (10.0, 4.0, 4), (10.0, 4.2, 5), (10.0, 1.0, 3), (40.0, 15.0, 15),
     (1.0, 1.0, 3), (10.0, None, 0)],
)  # fmt: skip
def test_an_edit_is_charged_by_its_source_unless_it_fell_short(source, delivered, seconds):
    frozen = quote("happyhorse-1.0", source, video_url=CLIP).frozen()

    assert charge(frozen, delivered) == seconds * 22


def test_images_and_calls_are_all_or_nothing():
    for frozen in (quote("gpt-image-2", quality="uhd").frozen(), quote("veo3.1-lite").frozen()):
        assert charge(frozen, 1) == charge(frozen, 8.0) == frozen["credits"]
        assert charge(frozen, 0) == charge(frozen, None) == 0


@given(delivered=st.floats(allow_nan=True) | st.none(), seconds=st.floats(0.01, 200))
def test_a_charge_is_never_negative_nor_above_the_hold(delivered, seconds):
    for frozen in (
        quote("happyhorse-1.0", seconds, video_url=CLIP).frozen(),
        quote("doubao-seedance-2.0", seconds, video_urls=[CLIP]).frozen(),
        quote("doubao-seedance-2.0").frozen(),
        quote("gpt-image-2").frozen(),
    ):
        assert 0 <= charge(frozen, delivered) <= frozen["credits"]


def test_the_price_list_of_every_model_is_told():
    prices = {name: model.price_summary() for name, model in shipped().models.items()}

    assert prices["gemini-3-pro-image-preview-4k"] == {"unit": "image", "credits": 10, "version": shipped().version}
    assert prices["gpt-image-2"]["credits"] == {"standard": 1, "hd": 2, "uhd": 3}
    assert prices["happyhorse-1.0"]["edit"] == {"billed_by": "source_seconds", "minimum": 3, "maximum": 15}
    assert prices["doubao-seedance-2.0"]["adds_input_seconds"] == ["video_urls"]
    assert json.loads(json.dumps(prices)) == prices
