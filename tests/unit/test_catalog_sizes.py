"""Pixels: the table of the contract, entry by entry, and what becomes of every other shape."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.sizes import SizeError, SizeTable, image_pixels, nearest_ratio, parse_pixels, parse_ratio, video_pixels
from app.errors import InvalidParameter
from tests.unit.catalogs import MODELS, shipped, written

GPT, PRO = "gpt-image-2", "gemini-3-pro-image-preview"
TIERS = ("standard", "hd", "uhd")

# upstream-images.md section 8, as it stands there
TABLE = """
1:1   1024x1024 2048x2048 2880x2880 1024x1024 2048x2048 4096x4096
16:9  1536x864  2048x1152 3840x2160 1376x768  2752x1536 5504x3072
9:16  864x1536  1152x2048 2160x3840 768x1376  1536x2752 3072x5504
4:3   1152x864  2048x1536 3264x2448 1200x896  2400x1792 4800x3584
3:4   864x1152  1536x2048 2448x3264 896x1200  1792x2400 3584x4800
3:2   1536x1024 2016x1344 3504x2336 1264x848  2528x1696 5056x3392
2:3   1024x1536 1344x2016 2336x3504 848x1264  1696x2528 3392x5056
21:9  1568x672  2688x1152 3808x1632 1584x672  3168x1344 6336x2688
9:21  672x1568  1152x2688 1632x3808
2:1   1440x720  2688x1344 3840x1920
1:2   720x1440  1344x2688 1920x3840
5:4   1280x1024 2000x1600 3200x2560 1152x928  2304x1856 4608x3712
4:5   1024x1280 1600x2000 2560x3200 928x1152  1856x2304 3712x4608
"""
ROWS = [
    (model, row[0], tier, row[column])
    for row in (line.split() for line in TABLE.strip().splitlines())
    for model, first in ((GPT, 1), (PRO, 4))
    for column, tier in enumerate(TIERS, start=first)
    if column < len(row)
]


def params(model, **fields):
    return shipped().models[model].choose({"prompt": "a fox", **fields}).params


@pytest.mark.parametrize(("model", "ratio", "tier", "pixels"), ROWS)
def test_every_entry_of_the_table_is_what_a_request_gets(model, ratio, tier, pixels):
    got = params(model, size=ratio, quality=tier)

    assert (got["size"], got["ratio"]) == (pixels, ratio)
    assert f"{got['width']}x{got['height']}" == pixels
    assert "crop_width" not in got


def test_the_table_has_no_entry_beside_those():
    tables = {model: shipped().models[model].table for model in (GPT, PRO)}

    assert sum(len(tiers) for table in tables.values() for tiers in table.pixels.values()) == len(ROWS) == 69


@pytest.mark.parametrize(("model", "ratio", "tier", "pixels"), [row for row in ROWS if row[0] == GPT])
def test_the_gpt_table_keeps_the_upstream_s_limits_at_exact_ratios(model, ratio, tier, pixels):
    width, height = parse_pixels(pixels)

    assert width % 16 == height % 16 == 0
    assert max(width, height) <= 3 * min(width, height)
    assert max(width, height) <= 3840
    assert 655_360 <= width * height <= 8_294_400
    assert Fraction(width, height) == parse_ratio(ratio)


@pytest.mark.parametrize(
    ("size", "ratio"),
    [("1024x1024", "1:1"), ("64X64", "1:1"), ("1920x1080", "16:9"), ("1536x1024", "3:2"), ("32:18", "16:9"),
     ("7:3", "21:9"), ("1080x1920", "9:16"), (" 4:5 ", "4:5")],
)  # fmt: skip
def test_pixels_are_read_as_their_ratio_and_quality_decides(size, ratio):
    for model in (GPT, PRO):
        for tier in TIERS:
            assert params(model, size=size, quality=tier) == params(model, size=ratio, quality=tier)


@pytest.mark.parametrize(("model", "ratio", "tier", "pixels"), ROWS)
def test_a_size_we_reported_is_understood_when_it_comes_back(model, ratio, tier, pixels):
    assert params(model, size=pixels, quality=tier)["size"] == pixels


@pytest.mark.parametrize(
    ("size", "tier", "pixels"),
    [("10:7", "standard", "1216x864"), ("1000x700", "hd", "2448x1712"), ("3:1", "standard", "1776x592"),
     ("1:3", "standard", "592x1776"), ("3:1", "uhd", "3840x1280"), ("1792x1024", "standard", "1360x768")],
)  # fmt: skip
def test_a_shape_off_the_gpt_table_gets_multiples_of_16_at_the_tier_s_area(size, tier, pixels):
    assert params(GPT, size=size, quality=tier)["size"] == pixels


@st.composite
def shapes(draw):
    """Width and height of at most 3:1, upright or lying."""
    short = draw(st.integers(1, 33_333))
    edges = [short, draw(st.integers(short, 3 * short))]
    return edges if draw(st.booleans()) else edges[::-1]


@given(shape=shapes(), tier=st.sampled_from(TIERS))
def test_every_shape_within_3_to_1_is_made_within_the_upstream_s_limits(shape, tier):
    width, height = shape

    got = params(GPT, size=f"{width}x{height}", quality=tier)

    made = (got["width"], got["height"])
    assert made[0] % 16 == made[1] % 16 == 0
    assert max(made) <= min(3 * min(made), 3840)
    assert 655_360 <= made[0] * made[1] <= 8_294_400
    assert abs(made[0] / made[1] / (width / height) - 1) < 0.05


@pytest.mark.parametrize(
    ("size", "made", "final"),
    [("2:1", "1376x768 16:9", "1376x688"), ("1:2", "768x1376 9:16", "688x1376"), ("9:21", "768x1376 9:16", "590x1376"),
     ("1000x700", "1264x848 3:2", "1211x848"), ("3:1", "1584x672 21:9", "1584x528")],
)  # fmt: skip
def test_gemini_cuts_the_centre_out_of_what_loses_the_least(size, made, final):
    choice = shipped().models[PRO].choose({"prompt": "a fox", "size": size})

    got = choice.params
    assert f"{got['width']}x{got['height']} {got['ratio']}" == made
    assert f"{got['crop_width']}x{got['crop_height']}" == got["size"] == final
    assert len(choice.warnings) == 1
    assert got["crop_ratio"] in (size, "10:7")
    assert got["crop_ratio"] in choice.warnings[0]
    assert final in choice.warnings[0]


@given(shape=shapes(), tier=st.sampled_from(TIERS))
def test_a_cut_is_inside_what_is_made_and_has_the_asked_shape(shape, tier):
    width, height = shape

    got = params(PRO, size=f"{width}x{height}", quality=tier)

    cut = got.get("crop_width", got["width"]), got.get("crop_height", got["height"])
    table = shipped().models[PRO].table
    assert cut[0] <= got["width"]
    assert cut[1] <= got["height"]
    assert table.at(got["ratio"], tier) == (got["width"], got["height"])
    assert got["size"] == f"{cut[0]}x{cut[1]}"
    assert "crop_width" not in got or abs(cut[0] / cut[1] / (width / height) - 1) < 0.002


@pytest.mark.parametrize("model", [GPT, PRO])
def test_auto_is_the_tier_s_square_until_the_upstream_chooses(model):
    got = params(model, size="auto", quality="hd")

    assert (got["ratio"], got["size"]) == ("auto", "2048x2048")


def test_a_table_can_refuse_every_other_shape():
    table = SizeTable(pixels={"1:1": {"standard": "64x64"}, "16:9": {"standard": "160x90"}}, off_table="refuse")

    assert image_pixels(table, "1920x1080", "standard").final == (160, 90)
    with pytest.raises(SizeError, match="not in the model's size table"):
        image_pixels(table, "2:1", "standard")


def test_the_switch_is_data(tmp_path):
    text = MODELS.replace("  images:\n", "  images:\n    off_table: POLICY\n")
    crop = written(tmp_path, models=text.replace("POLICY", "crop")).models["painter"]
    refuse = written(tmp_path, models=text.replace("POLICY", "refuse")).models["painter"]

    assert crop.choose({"prompt": "x", "size": "3:2"}).params["size"] == "96x64"
    with pytest.raises(InvalidParameter, match="not in the model's size table"):
        refuse.choose({"prompt": "x", "size": "3:2"})


SHORT = {"480p": 480, "720p": 720, "1080p": 1080, "4k": 2160}


@pytest.mark.parametrize("model", [name for name, model in shipped().models.items() if model.type == "video"])
def test_video_pixels_are_even_and_of_the_resolution(model):
    spec = shipped().models[model].spec.parameters
    for resolution in spec["resolution"].choices:
        for ratio in spec["size"].values:
            width, height = video_pixels(shipped().models[model].table, resolution, ratio)

            assert width % 2 == height % 2 == 0
            assert min(width, height) == SHORT[resolution]
            assert abs(width / height / float(parse_ratio(ratio)) - 1) < 0.01


@pytest.mark.parametrize(
    ("resolution", "ratio", "pixels"),
    [("480p", "16:9", (854, 480)), ("480p", "9:16", (480, 854)), ("720p", "16:9", (1280, 720)),
     ("720p", "1:1", (720, 720)), ("720p", "21:9", (1680, 720)), ("1080p", "16:9", (1920, 1080)),
     ("1080p", "4:3", (1440, 1080)), ("4k", "16:9", (3840, 2160)), ("4k", "9:16", (2160, 3840))],
)  # fmt: skip
def test_well_known_video_sizes(resolution, ratio, pixels):
    assert video_pixels(shipped().models["veo3.1-fast"].table, resolution, ratio) == pixels


@pytest.mark.parametrize(
    ("width", "height", "nearest"),
    [(1920, 1080, "16:9"), (500, 500, "1:1"), (1000, 740, "4:3"), (10, 1000, "9:16"), (3000, 1000, "21:9")],
)
def test_the_nearest_ratio_of_an_input(width, height, nearest):
    assert nearest_ratio(width, height, ["16:9", "9:16", "1:1", "4:3", "3:4", "21:9", "adaptive"]) == nearest


@pytest.mark.parametrize("text", ["", "x", "1x", "0x5", "5x0", "1:0", "0:1", "1.5:1", "-1:1", "1024", "123456x1"])
def test_what_is_no_shape_is_not_read_as_one(text):
    assert parse_pixels(text) is None
    assert parse_ratio(text) is None
