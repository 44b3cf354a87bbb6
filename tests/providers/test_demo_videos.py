"""The demo provider's films: exact, real, scripted, and not lost with the process that renders them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from app.providers.demo.adapter import DemoProvider
from app.providers.demo.jobs import Slot
from app.requests import Operation
from app.upstreams.protocols import (
    Finished,
    Progress,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
)
from tests.providers.demo_calls import (
    Desk,
    difference,
    image_request,
    load,
    media,
    painted,
    until,
    video_request,
    watch,
)

MIDDLE = (20, 35, 140, 60)  # neither caption nor progress bar in 160x90
LONG_S = 60  # seconds of film: long enough to be killed or cancelled before it is done


@pytest.fixture(scope="module")
async def demo(anyio_backend: object) -> AsyncIterator[DemoProvider]:
    demo = DemoProvider(slots=1)
    yield demo
    await demo.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_film_has_exactly_the_asked_frames_and_pixels_and_a_tone(demo: DemoProvider, desk: Desk) -> None:
    result = await desk.film(demo, video_request("雪地里的狐狸", seconds=3))

    seen = watch(result.video)
    assert (len(seen.frames), seen.frames[0].size, seen.container_seconds) == (72, (160, 90), 3.0)
    assert (seen.video_codec, seen.audio_codec, seen.audio_channels) == ("h264", "aac", 2)
    assert seen.audio_seconds == pytest.approx(3.0, abs=0.05)
    assert seen.loudest > 500
    assert seen.is_faststart
    assert result.gif is None


async def test_a_film_moves_and_shows_the_prompt_and_its_progress(demo: DemoProvider, desk: Desk) -> None:
    result = await desk.film(demo, video_request("雪地里的狐狸", size=(320, 180)))
    silent = await desk.film(demo, video_request("", size=(320, 180)), "b:1")

    frames, bare = watch(result.video).frames, watch(silent.video).frames
    bar = [frame.convert("L").crop((0, 176, 320, 180)).resize((32, 1)).tobytes() for frame in frames]
    assert difference(frames[0], frames[-1], (0, 0, 320, 90)) > 5
    assert frames[5].crop((100, 140, 220, 172)).convert("L").getextrema()[1] > 220
    assert bare[5].crop((100, 140, 220, 172)).convert("L").getextrema()[1] < 220
    assert [sum(value > 150 for value in row) for row in (bar[0], bar[23], bar[47])] == [1, 16, 32]


async def test_sound_can_be_switched_off(demo: DemoProvider, desk: Desk) -> None:
    result = await desk.film(demo, video_request(params={"generate_audio": False}))

    assert watch(result.video).audio_codec is None


async def test_a_thumbnail_always_and_a_gif_where_asked(demo: DemoProvider, desk: Desk) -> None:
    result = await desk.film(demo, video_request(size=(640, 360), params={"enable_gif": True}))

    assert result.thumbnail is not None
    assert result.gif is not None
    thumbnail = load(result.thumbnail)
    first = watch(result.video).frames[0]
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (512, 288))
    assert difference(thumbnail, first.resize((512, 288))) < 5
    with Image.open(result.gif) as gif:
        assert (gif.format, gif.size, getattr(gif, "n_frames", 1)) == ("GIF", (320, 180), 16)


async def test_the_same_request_gives_the_same_film_and_another_seed_another(demo: DemoProvider, desk: Desk) -> None:
    films = [
        await desk.film(demo, video_request(seconds=1, params={"seed": seed}), f"s:{number}")
        for number, seed in enumerate((7, 7, 8))
    ]

    one, same, other = (watch(film.video).frames[0] for film in films)
    assert difference(one, same) == 0
    assert difference(one, other) > 10


async def test_references_are_visible(demo: DemoProvider, desk: Desk, tmp_path: Path) -> None:
    red = painted(tmp_path / "red.png", (255, 0, 0))
    clip = await desk.film(
        demo, video_request("", seconds=1, first_frame=painted(tmp_path / "b.png", (0, 0, 255))), "c:1"
    )

    result = await desk.film(demo, video_request(images=(red,), videos=(media(clip.video, "video_urls"),)))

    pixels = watch(result.video).frames[10].convert("RGB").tobytes()
    triples = list(zip(pixels[0::3], pixels[1::3], pixels[2::3], strict=True))
    assert sum(r > 220 and g < 40 and b < 40 for r, g, b in triples) > 100
    assert sum(r < 40 and g < 40 and b > 200 for r, g, b in triples) > 100


async def test_a_film_starts_with_its_first_frame(demo: DemoProvider, desk: Desk, tmp_path: Path) -> None:
    picture = await demo.generate_image(image_request("a hare", size=(160, 90)), desk.call("i:1"))

    result = await desk.film(demo, video_request(first_frame=media(picture.path, "first_frame_image")))

    frames = watch(result.video).frames
    assert difference(frames[0], load(picture.path), MIDDLE) < 8
    assert difference(frames[-1], load(picture.path), MIDDLE) > 8


async def test_two_frames_are_the_beginning_and_the_end(demo: DemoProvider, desk: Desk, tmp_path: Path) -> None:
    red, blue = painted(tmp_path / "red.png", (255, 0, 0)), painted(tmp_path / "blue.png", (0, 0, 255))

    result = await desk.film(demo, video_request(images=(red, blue), params={"generation_type": "frame"}))

    frames = watch(result.video).frames
    assert frames[0].getpixel((80, 45))[0] > 230 > 30 > frames[0].getpixel((80, 45))[2]
    assert frames[-1].getpixel((80, 45))[2] > 230 > 30 > frames[-1].getpixel((80, 45))[0]


async def test_an_edit_shows_its_source_in_another_tint_and_keeps_the_sound(demo: DemoProvider, desk: Desk) -> None:
    source = await desk.film(demo, video_request("a hare", seconds=3), "s:1")

    request = video_request(
        "make it cold", operation=Operation.VIDEO_EDIT, seconds=3, videos=(media(source.video, "video_url"),)
    )
    edit = await desk.film(demo, request)

    before, after = watch(source.video), watch(edit.video)
    lumas = [frame.convert("L").convert("RGB") for frame in (before.frames[40], after.frames[40])]
    assert (len(after.frames), after.container_seconds) == (72, 3.0)
    assert difference(*lumas, MIDDLE) < 10
    assert difference(before.frames[40], after.frames[40], MIDDLE) > 15
    assert after.loudest == pytest.approx(before.loudest, rel=0.1)


async def test_an_edit_of_a_source_with_odd_seconds_is_as_long_as_billed(demo: DemoProvider, desk: Desk) -> None:
    source = await desk.film(demo, video_request(seconds=2), "s:1")

    request = video_request(operation=Operation.VIDEO_EDIT, seconds=3, videos=(media(source.video, "video_url"),))
    seen = watch((await desk.film(demo, request)).video)

    assert (len(seen.frames), seen.container_seconds) == (72, 3.0)


async def test_a_remix_goes_on_from_the_last_frame(demo: DemoProvider, desk: Desk) -> None:
    source = await desk.film(demo, video_request("a hare", seconds=2), "s:1")
    last = watch(source.video).frames[-1]
    videos = (media(source.video, "video_url"),)

    whole = await desk.film(
        demo, video_request("go on", operation=Operation.VIDEO_REMIX, seconds=3, videos=videos), "w:1"
    )
    added = await desk.film(
        demo,
        video_request("go on", operation=Operation.VIDEO_REMIX, seconds=3, videos=videos, params={"raw": True}),
        "r:1",
    )

    long, short = watch(whole.video), watch(added.video)
    assert (len(long.frames), long.container_seconds) == (120, 5.0)
    assert (len(short.frames), short.container_seconds) == (72, 3.0)
    assert difference(short.frames[0], last, MIDDLE) < 8
    assert difference(long.frames[47], last) < 8
    assert difference(long.frames[48], last, MIDDLE) < 8
    assert difference(long.frames[0], watch(source.video).frames[0]) < 8


async def test_submitting_does_not_wait_and_progress_grows(demo: DemoProvider, desk: Desk) -> None:
    began = time.monotonic()
    job = await demo.submit_video(video_request(seconds=20), desk.call())
    submit_s = time.monotonic() - began

    percents = []
    while isinstance(answer := await demo.poll_video(job, desk.call()), Progress):
        percents.append(answer.percent or 0)
        await asyncio.sleep(0.01)

    assert submit_s < 0.5
    assert percents == sorted(percents)
    assert len({percent for percent in percents if 0 < percent <= 99}) > 3


async def test_a_token_sent_again_finds_its_film(demo: DemoProvider, desk: Desk) -> None:
    first = await demo.submit_video(video_request(), desk.call())
    again = await demo.submit_video(video_request(), desk.call())
    await desk.finished(demo, first)
    third = await demo.submit_video(video_request(), desk.call())

    assert first == again == third
    assert (desk.job().counted("sends"), desk.job().counted("renders")) == (3, 1)


async def test_a_result_may_be_fetched_again(demo: DemoProvider, desk: Desk) -> None:
    first = await desk.film(demo, video_request(seconds=1))
    first.video.unlink()

    again = await demo.fetch_video(UpstreamJob(desk.job().id), desk.call())

    assert len(watch(again.video).frames) == 24


async def test_inputs_may_disappear_once_the_film_is_accepted(demo: DemoProvider, desk: Desk, tmp_path: Path) -> None:
    red = painted(tmp_path / "red.png", (255, 0, 0))
    job = await demo.submit_video(video_request(first_frame=red), desk.call())
    red.path.unlink()

    await desk.finished(demo, job)

    assert (await demo.fetch_video(job, desk.call())).video.exists()


async def test_a_killed_child_is_replaced_by_the_next_poll(demo: DemoProvider, desk: Desk) -> None:
    job = await demo.submit_video(video_request(seconds=20), desk.call())
    await until(lambda: desk.job().progress() > 5)
    (child,) = demo._films.pids()

    os.kill(child, signal.SIGKILL)
    await desk.finished(demo, job)

    assert desk.job().counted("renders") == 2
    assert len(watch((await demo.fetch_video(job, desk.call())).video).frames) == 480


async def test_another_process_sees_progress_and_takes_over_when_the_first_is_gone(desk: Desk) -> None:
    first, second = DemoProvider(slots=1), DemoProvider(slots=1)
    try:
        job = await first.submit_video(video_request(seconds=20), desk.call())
        await until(lambda: desk.job().progress() > 5)
        seen = await second.poll_video(job, desk.call())
        renders_while_locked = desk.job().counted("renders")

        await first.close()
        await desk.finished(second, job)
    finally:
        await first.close()
        await second.close()

    assert isinstance(seen, Progress)
    assert seen.percent is not None
    assert seen.percent > 5
    assert (renders_while_locked, desk.job().counted("renders")) == (1, 2)


async def test_a_job_whose_child_always_dies_fails_in_the_end(demo: DemoProvider, desk: Desk) -> None:
    job = await demo.submit_video(video_request(seconds=LONG_S), desk.call())
    for number in range(1, 4):
        await until(lambda number=number: desk.job().counted("renders") == number)  # type: ignore[misc]
        (child,) = demo._films.pids()
        os.kill(child, signal.SIGKILL)
        await until(lambda: not demo._rendering)
        if number < 3:
            assert isinstance(await demo.poll_video(job, desk.call()), Progress)

    with pytest.raises(UpstreamFailed, match="crashed"):
        await demo.poll_video(job, desk.call())


async def test_what_cannot_be_rendered_fails_at_the_poll(demo: DemoProvider, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    request = video_request(operation=Operation.VIDEO_EDIT, videos=(media(tmp_path / "broken.mp4"),))

    job = await demo.submit_video(request, desk.call())

    with pytest.raises(UpstreamFailed, match="error"):
        await desk.finished(demo, job)


async def test_an_unknown_job_is_a_definite_failure(demo: DemoProvider, desk: Desk) -> None:
    for job_id in ("0" * 40, "../../etc"):
        with pytest.raises(UpstreamFailed):
            await demo.poll_video(UpstreamJob(job_id), desk.call())


async def test_cancelling_stops_the_work_of_whichever_process(demo: DemoProvider, desk: Desk) -> None:
    other = DemoProvider(slots=1)
    job = await demo.submit_video(video_request(seconds=LONG_S), desk.call())
    await until(lambda: desk.job().progress() > 0)

    stopped = await other.cancel_video(job, desk.call())
    await until(lambda: not demo._rendering, within_s=5)

    assert stopped
    assert not desk.job().is_done
    with pytest.raises(UpstreamFailed, match="cancelled"):
        await demo.poll_video(job, desk.call())


async def test_a_finished_film_can_no_longer_be_cancelled(demo: DemoProvider, desk: Desk) -> None:
    await desk.film(demo, video_request(seconds=1))
    job = UpstreamJob(desk.job().id)

    stopped = await demo.cancel_video(job, desk.call())

    assert not stopped
    assert isinstance(await demo.poll_video(job, desk.call()), Finished)


async def test_a_film_that_is_rendered_but_still_in_its_delay_can_be_cancelled(demo: DemoProvider, desk: Desk) -> None:
    job = await demo.submit_video(video_request("[[delay=60]]", seconds=1), desk.call())
    await until(lambda: desk.job().is_done)

    stopped = await demo.cancel_video(job, desk.call())

    assert stopped
    with pytest.raises(UpstreamFailed, match="cancelled"):
        await demo.poll_video(job, desk.call())
    with pytest.raises(UpstreamFailed, match="gone"):
        await demo.fetch_video(job, desk.call())


async def test_an_image_does_not_wait_for_a_long_film(demo: DemoProvider, desk: Desk) -> None:
    job = await demo.submit_video(video_request(seconds=LONG_S, size=(854, 480)), desk.call("film:1"))
    await until(lambda: desk.job("film:1").progress() > 0)

    await demo.generate_image(image_request(), desk.call("image:1"))

    is_still_rendering = not desk.job("film:1").is_done
    await demo.cancel_video(job, desk.call("film:1"))
    assert is_still_rendering


def test_slots_are_few_and_urgent_work_goes_first(tmp_path: Path) -> None:
    with Slot(tmp_path, 2, urgent=False), Slot(tmp_path, 2, urgent=True) as second:
        third = Slot(tmp_path, 2, urgent=True)
        assert not third._try_take()
        second.give_way()  # nobody waits: it keeps its slot
        assert not third._try_take()

    assert third._try_take()
    third.__exit__()


async def test_scripts_refuse_before_anything_is_accepted(demo: DemoProvider, desk: Desk) -> None:
    with pytest.raises(UpstreamModerated):
        await demo.submit_video(video_request("[[policy]]"), desk.call())
    with pytest.raises(UpstreamBusy):
        await demo.submit_video(video_request("[[busy]]"), desk.call())

    assert not desk.job().is_accepted


async def test_fail_is_accepted_and_fails_at_the_poll(demo: DemoProvider, desk: Desk) -> None:
    job = await demo.submit_video(video_request("a fox [[fail]]"), desk.call())

    with pytest.raises(UpstreamFailed):
        await demo.poll_video(job, desk.call())

    assert desk.job().counted("renders") == 0


async def test_a_lost_answer_left_a_film_that_the_token_finds(demo: DemoProvider, desk: Desk) -> None:
    with pytest.raises(UpstreamOutcomeUnknown):
        await demo.submit_video(video_request("[[lose]] fox"), desk.call())

    job = await demo.submit_video(video_request("[[lose]] fox"), desk.call())
    await desk.finished(demo, job)

    assert (desk.job().counted("sends"), desk.job().counted("renders")) == (2, 1)


async def test_short_delivers_fewer_seconds(demo: DemoProvider, desk: Desk) -> None:
    result = await desk.film(demo, video_request("a fox [[short=1]]", seconds=3))

    assert watch(result.video).container_seconds == 1.0


async def test_delay_keeps_a_film_running_that_long(demo: DemoProvider, desk: Desk) -> None:
    began = time.monotonic()
    job = await demo.submit_video(video_request("[[delay=1.5]]", seconds=1), desk.call())
    await until(lambda: desk.job().is_done)

    early = await demo.poll_video(job, desk.call())
    await desk.finished(demo, job)

    assert isinstance(early, Progress)
    assert time.monotonic() - began >= 1.5
