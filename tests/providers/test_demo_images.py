"""The demo provider's images: exact, drawn, repeatable, and scripted by the prompt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from app.providers.demo import drawing, provider
from app.providers.demo.adapter import DemoProvider
from app.upstreams.protocols import (
    ImageGenerator,
    SubmitSafety,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    VideoCanceller,
    VideoSubmitter,
)
from tests.providers.demo_calls import Desk, difference, image_request, load, media, painted


@pytest.fixture(scope="module")
async def demo(anyio_backend: object) -> AsyncIterator[DemoProvider]:
    demo = DemoProvider(slots=1)
    yield demo
    await demo.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_factory_makes_a_provider_that_can_do_everything() -> None:
    made = provider()

    assert made.name == "demo"
    assert made.capabilities.submit is SubmitSafety.IDEMPOTENT
    assert len(made.capabilities.operations) == 5
    assert isinstance(made, ImageGenerator)
    assert isinstance(made, VideoSubmitter)
    assert isinstance(made, VideoCanceller)


@pytest.mark.parametrize("size", [(1024, 1024), (1536, 864), (128, 384), (17, 33)])
@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
async def test_an_image_has_exactly_the_asked_pixels_and_format(
    demo: DemoProvider, desk: Desk, format: str, size: tuple[int, int]
) -> None:
    result = await demo.generate_image(image_request(size=size, output_format=format), desk.call())

    image = load(result.path)
    assert (image.format, image.size, image.mode) == (format.upper(), size, "RGB")


async def test_the_same_prompt_gives_the_same_bytes_and_another_prompt_others(demo: DemoProvider, desk: Desk) -> None:
    first = await demo.generate_image(image_request("a fox"), desk.call("a:1"))
    second = await demo.generate_image(image_request("a fox"), desk.call("b:1"))
    other = await demo.generate_image(image_request("a hare"), desk.call("c:1"))

    assert first.path.read_bytes() == second.path.read_bytes()
    assert difference(load(first.path), load(other.path)) > 10


async def test_compression_decides_the_size_of_a_jpeg(demo: DemoProvider, desk: Desk) -> None:
    small, large = [
        await demo.generate_image(
            image_request(output_format="jpeg", output_compression=quality), desk.call(f"q:{quality}")
        )
        for quality in (10, 95)
    ]

    assert small.path.stat().st_size * 2 < large.path.stat().st_size


def test_latin_and_chinese_are_drawn_and_what_is_not_covered_is_a_box() -> None:
    def drawn(text: str) -> bytes:
        panel = drawing.caption(text, (200, 60), 24)
        assert panel is not None
        return panel.tobytes()

    box = drawn("\U0001f98a")

    assert len({drawn("狐"), drawn("狸"), drawn("雪"), drawn("f"), drawn("é"), box}) == 6
    assert drawn("\u1234") == box == drawn("\ud800")


async def test_the_prompt_is_drawn_on_the_image(demo: DemoProvider, desk: Desk) -> None:
    request = image_request("雪地里的狐狸", size=(512, 512))

    result = await demo.generate_image(request, desk.call())

    image = load(result.path)
    background = drawing.gradient("雪地里的狐狸", None, (512, 512))
    assert difference(image, background, (0, 0, 512, 100)) == 0
    assert difference(image, background, (160, 220, 352, 292)) > 30
    assert image.crop((160, 220, 352, 292)).convert("L").getextrema()[1] == 255


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        " \n\t ",
        "\x00\x07\x1b[31m",
        "\ud83d lone",
        "word" * 8000,
        "狐" * 32_000,
        "\n" * 500,
        "👩‍👩‍👧‍👦 مرحبا ไทย 한국어 e\u0301",
    ],
)
async def test_no_prompt_breaks_it(demo: DemoProvider, desk: Desk, prompt: str) -> None:
    result = await demo.generate_image(image_request(prompt), desk.call())

    assert load(result.path).size == (128, 96)


async def test_a_transparent_background_has_clear_corners(demo: DemoProvider, desk: Desk) -> None:
    result = await demo.generate_image(image_request(background="transparent"), desk.call())

    alpha = load(result.path).getchannel("A")
    assert (alpha.getpixel((0, 0)), alpha.getpixel((64, 48))) == (0, 255)


async def test_an_edit_contains_all_its_pictures(demo: DemoProvider, desk: Desk, tmp_path: Path) -> None:
    red, green, blue = (painted(tmp_path / name, name) for name in ("red", "green", "blue"))

    result = await demo.generate_image(image_request("a hat", images=(red, green, blue)), desk.call())

    image = load(result.path)
    counts = {colour: number for number, colour in image.getcolors(1 << 16) or []}
    assert counts[(255, 0, 0)] > image.width * image.height // 3
    assert counts[(0, 128, 0)] > 50
    assert counts[(0, 0, 255)] > 50


async def test_an_edit_fills_its_pixels_with_a_picture_of_another_shape(
    demo: DemoProvider, desk: Desk, tmp_path: Path
) -> None:
    red = painted(tmp_path / "tall.png", "red", (40, 300))

    result = await demo.generate_image(image_request(images=(red,), size=(200, 100)), desk.call())

    image = load(result.path)
    assert image.size == (200, 100)
    assert [image.getpixel(at) for at in ((0, 0), (199, 0))] == [(255, 0, 0), (255, 0, 0)]


@pytest.mark.parametrize("size", [(128, 96), (256, 192)])
async def test_a_mask_limits_the_change_to_its_transparent_pixels(
    demo: DemoProvider, desk: Desk, tmp_path: Path, size: tuple[int, int]
) -> None:
    source = Image.effect_noise((128, 96), 60).convert("RGB")
    source.save(tmp_path / "source.png")
    mask = Image.new("RGBA", (128, 96), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (32, 24, 96, 72))
    mask.save(tmp_path / "mask.png")
    request = image_request(
        "a hat", size=size, images=(media(tmp_path / "source.png"),), mask=media(tmp_path / "mask.png", "mask")
    )

    result = await demo.generate_image(request, desk.call())

    image, kept = load(result.path), drawing.cover(source, size)
    scale = size[0] // 128
    inside = (36 * scale, 28 * scale, 92 * scale, 68 * scale)
    assert difference(image, kept, inside) > 20
    for outside in ((0, 0, 128, 22), (0, 74, 128, 96), (0, 0, 30, 96), (98, 0, 128, 96)):
        assert difference(image, kept, tuple(value * scale for value in outside)) == 0  # type: ignore[arg-type]


async def test_a_mask_without_a_hole_changes_nothing(demo: DemoProvider, desk: Desk, tmp_path: Path) -> None:
    source = painted(tmp_path / "source.png", "red")
    Image.new("RGBA", (128, 96), (0, 0, 0, 255)).save(tmp_path / "mask.png")

    request = image_request(images=(source,), mask=media(tmp_path / "mask.png"))
    result = await demo.generate_image(request, desk.call())

    assert load(result.path).getcolors() == [(128 * 96, (255, 0, 0))]


async def test_interim_images_come_first_and_get_sharper(demo: DemoProvider, desk: Desk) -> None:
    seen: list[tuple[int, Image.Image]] = []

    async def on_partial(index: int, path: Path) -> None:
        seen.append((index, load(path)))

    request = image_request("雪地里的狐狸", size=(256, 256), partial_images=3)
    result = await demo.generate_image(request, desk.call(), on_partial)

    final = load(result.path)
    distances = [difference(image, final) for _, image in seen]
    assert [index for index, _ in seen] == [0, 1, 2]
    assert distances == sorted(distances, reverse=True)
    assert distances[2] > 0.5


async def test_a_token_sent_again_answers_with_the_same_image_drawn_once(demo: DemoProvider, desk: Desk) -> None:
    results = [await demo.generate_image(image_request(), desk.call()) for _ in range(2)]

    assert results[0].path.read_bytes() == results[1].path.read_bytes()
    assert (desk.job().counted("sends"), desk.job().counted("renders")) == (2, 1)


async def test_a_token_sent_twice_at_once_is_drawn_once(desk: Desk) -> None:
    demo = DemoProvider(slots=2)
    try:
        await asyncio.gather(*(demo.generate_image(image_request(), desk.call()) for _ in range(4)))
    finally:
        await demo.close()

    assert desk.job().counted("renders") == 1


async def test_the_result_may_be_moved_away_and_asked_for_again(demo: DemoProvider, desk: Desk) -> None:
    first = await demo.generate_image(image_request(), desk.call())
    first.path.rename(first.path.with_name("moved"))

    again = await demo.generate_image(image_request(), desk.call())

    assert load(again.path).size == (128, 96)


async def test_fail_and_policy_are_definite(demo: DemoProvider, desk: Desk) -> None:
    with pytest.raises(UpstreamFailed):
        await demo.generate_image(image_request("a fox [[fail]]"), desk.call("f:1"))
    with pytest.raises(UpstreamModerated) as refused:
        await demo.generate_image(image_request("a fox [[policy]]"), desk.call("p:1"))

    assert refused.value.public == "The request was refused by the content policy."
    assert not desk.job("p:1").is_accepted


async def test_busy_never_accepts_and_busy_twice_accepts_the_third_attempt(demo: DemoProvider, desk: Desk) -> None:
    for number in range(4):
        with pytest.raises(UpstreamBusy) as busy:
            await demo.generate_image(image_request("[[busy]] fox"), desk.call(f"always:{number}"))
    for number in range(2):
        with pytest.raises(UpstreamBusy):
            await demo.generate_image(image_request("[[busy=2]] fox"), desk.call(f"twice:{number}"))

    result = await demo.generate_image(image_request("[[busy=2]] fox"), desk.call("twice:2"))

    assert busy.value.retry_after_s == 1
    assert load(result.path).size == (128, 96)


async def test_a_lost_answer_is_found_by_sending_the_token_again(demo: DemoProvider, desk: Desk) -> None:
    with pytest.raises(UpstreamOutcomeUnknown):
        await demo.generate_image(image_request("a fox [[lose]]"), desk.call())

    result = await demo.generate_image(image_request("a fox [[lose]]"), desk.call())

    plain = await demo.generate_image(image_request("a fox"), desk.call("other:1"))
    assert desk.job().counted("renders") == 1
    assert result.path.read_bytes() == plain.path.read_bytes()  # the mark is not drawn


async def test_delay_waits_before_it_answers_and_holds_no_core(demo: DemoProvider, desk: Desk) -> None:
    began = time.monotonic()
    slow = asyncio.create_task(demo.generate_image(image_request("[[delay=1.5]]"), desk.call("slow:1")))

    await demo.generate_image(image_request(), desk.call("quick:1"))
    quick_s = time.monotonic() - began
    await slow

    assert quick_s < 1.4 < 1.5 <= time.monotonic() - began


async def test_a_cold_child_draws_a_megapixel_quickly(desk: Desk) -> None:
    demo = DemoProvider(slots=1)
    try:
        began = time.monotonic()
        await demo.generate_image(image_request("雪地里的狐狸", size=(1024, 1024)), desk.call())
        cold_s = time.monotonic() - began
    finally:
        await demo.close()

    assert cold_s < 3  # 0.4 s alone on one core; the other tests of a run may share it


async def test_old_jobs_are_removed_and_young_ones_stay(desk: Desk) -> None:
    from app.providers.demo.jobs import KEEP_S, count_attempt, prune

    desk.job("old:1").accept({}, {})
    count_attempt(desk.work_dir, "old:1")

    prune(desk.work_dir, now=time.time() + KEEP_S - 60)
    stays = desk.job("old:1").is_accepted
    prune(desk.work_dir, now=time.time() + KEEP_S + 60)

    assert stays
    assert [path.name for path in desk.work_dir.rglob("*")] in (["jobs", "busy"], ["busy", "jobs"])
