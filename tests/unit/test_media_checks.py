"""Foreign files: good ones are described, every kind of bad one is refused by name, and nothing hostile is decoded."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import wave
import zlib
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from app.errors import InvalidMedia
from app.media.checks import Checker, open_pool
from app.media.headers import ImageHeader, read_image_header


@pytest.fixture(scope="module")
async def checker(anyio_backend: object) -> AsyncIterator[Checker]:
    pool = open_pool(1)
    yield Checker(pool)
    await pool.close()


def png_header(width: int, height: int) -> bytes:
    """A PNG that ends right after its header: whoever decodes it fails in another way."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def noise(path: Path, format: str, size: tuple[int, int] = (200, 120)) -> Path:
    Image.effect_noise(size, 80).convert("RGB").save(path, format)
    return path


def film(
    path: Path, *, seconds: float = 2, codec: str = "libx264", format: str = "mp4", faststart: bool = True
) -> Path:
    """A small film of noise, 160x90 at 10 frames per second, with the header in front."""
    options = {"movflags": "+faststart"} if faststart and format == "mp4" else {}
    with av.open(str(path), "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for number in range(int(seconds * 10)):
            frame = av.VideoFrame.from_image(Image.effect_noise((160, 90), 80).convert("RGB"))
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sound(path: Path, codec: str, *, frames: int, samples: int) -> Path:
    """A silent sound of ``frames`` times ``samples`` at 44.1 kHz."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=44_100, layout="mono")
        for number in range(frames):
            frame = av.AudioFrame("fltp", "mono", samples)
            frame.planes[0].update(bytes(frame.planes[0].buffer_size))
            frame.sample_rate, frame.pts = 44_100, number * samples
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("format", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
async def test_a_good_image_is_described(checker: Checker, tmp_path: Path, format: str, mime: str) -> None:
    path = noise(tmp_path / "upload.bin", format)

    facts = await checker.check_image(path, param="image")

    assert (facts.mime, facts.width, facts.height, facts.has_alpha, facts.frames) == (mime, 200, 120, False, 1)


async def test_alpha_is_seen_in_colours_and_in_palettes(checker: Checker, tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (1, 2, 3, 0)).save(tmp_path / "colours.png")
    Image.new("P", (8, 8)).save(tmp_path / "palette.png", transparency=0)

    colours = await checker.check_image(tmp_path / "colours.png", param="image")
    palette = await checker.check_image(tmp_path / "palette.png", param="image")

    assert colours.has_alpha
    assert palette.has_alpha


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is an empty file"),
        (b"just some words, renamed", "is text"),
        ("狐狸".encode() * 300, "is text"),
        (b"GIF89a" + bytes(50), "is GIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is SVG"),
        (b"%PDF-1.7", "is PDF"),
        (bytes(range(7, 250)), "is an unknown kind of data"),
        (png_header(13_000, 13_000), "is 13000x13000 pixels; at most 50 megapixels and 16,384 on a side are allowed"),
        (png_header(20_000, 10), "is 20000x10 pixels; at most 50 megapixels and 16,384 on a side are allowed"),
        (png_header(300, 300), "is damaged or cut off"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "begins like PNG but"),
    ],
)
async def test_what_is_no_image_is_refused_by_name(
    checker: Checker, tmp_path: Path, content: bytes, found: str
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)

    with pytest.raises(InvalidMedia) as refused:
        await checker.check_image(path, param="image")

    assert refused.value.message.startswith(f"'image' {found}")
    assert refused.value.message.endswith("Allowed: PNG, JPEG, WebP.")
    assert (refused.value.param, refused.value.reason) == ("image", "invalid_image")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
async def test_a_truncated_image_is_refused(checker: Checker, tmp_path: Path, format: str) -> None:
    path = noise(tmp_path / "whole", format)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(InvalidMedia, match=r"'image_urls' (is damaged|begins like)"):
        await checker.check_image(path, param="image_urls")


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
async def test_an_animation_is_refused(checker: Checker, tmp_path: Path, format: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "moving", format, save_all=True, append_images=frames[1:])

    with pytest.raises(InvalidMedia, match="of 3 frames; only still images"):
        await checker.check_image(tmp_path / "moving", param="image")


async def test_fifty_megapixels_are_decoded_within_the_limits(checker: Checker, tmp_path: Path) -> None:
    Image.new("RGBA", (7071, 7071), (1, 2, 3, 90)).save(tmp_path / "large.webp", lossless=True, method=0)

    facts = await checker.check_image(tmp_path / "large.webp", param="image")

    assert (facts.width, facts.has_alpha) == (7071, True)


async def test_a_phones_jpeg_with_further_pictures_is_one_image(checker: Checker, tmp_path: Path) -> None:
    main, depth = Image.new("RGB", (60, 40), "red"), Image.new("RGB", (60, 40), "white")
    main.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[depth])

    facts = await checker.check_image(tmp_path / "phone.jpg", param="image")

    assert (facts.mime, facts.width, facts.height) == ("image/jpeg", 60, 40)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
async def test_a_quick_look_finds_what_was_cut_off(checker: Checker, tmp_path: Path, format: str) -> None:
    path = noise(tmp_path / "image", format)
    facts = await checker.verify_image(path, param="result")
    assert facts == await checker.check_image(path, param="result")

    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(InvalidMedia):
        await checker.verify_image(path, param="result")


async def test_a_quick_look_finds_a_damaged_byte_of_a_png(checker: Checker, tmp_path: Path) -> None:
    path = noise(tmp_path / "image", "PNG")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(InvalidMedia):
        await checker.verify_image(path, param="result")


@pytest.mark.parametrize("is_result", [True, False])
async def test_a_child_that_is_killed_costs_no_result_but_is_an_inputs_fault(tmp_path: Path, is_result: bool) -> None:
    path = tmp_path / "image"
    os.mkfifo(path)
    pool = open_pool(1)
    checker = Checker(pool).for_results() if is_result else Checker(pool)
    checking = asyncio.create_task(checker.check_image(path, param="image"))
    async with asyncio.timeout(30):
        while (writing := _opened(path)) is None:  # noqa: ASYNC110 - until the child waits for the first byte
            await asyncio.sleep(0.02)
    path.unlink()
    noise(path, "PNG")
    [pid] = pool.pids()
    os.kill(pid, signal.SIGKILL)

    if is_result:
        assert (await checking).width == 200
    else:
        with pytest.raises(InvalidMedia):
            await checking
    os.close(writing)
    await pool.close()


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # nobody reads it
        return None


async def test_a_mask_is_a_png_with_alpha_of_the_images_size(checker: Checker, tmp_path: Path) -> None:
    Image.new("RGBA", (60, 40)).save(tmp_path / "mask.png")

    facts = await checker.check_mask(tmp_path / "mask.png", param="mask", size=(60, 40), max_bytes=10_000)

    assert facts.has_alpha


@pytest.mark.parametrize(
    ("mode", "format", "max_bytes", "message"),
    [
        ("RGB", "PNG", 10_000, "'mask' has no alpha channel. Its transparent pixels say what to change."),
        ("RGBA", "WEBP", 10_000, "'mask' is image/webp. Allowed: PNG with an alpha channel."),
        ("RGBA", "PNG", 10_000, "'mask' is 60x40, the first image is 61x40. They must be equal."),
        ("RGBA", "PNG", 5, r"'mask' is \d+ bytes; at most 5 are allowed."),
    ],
)
async def test_a_bad_mask_is_refused(
    checker: Checker, tmp_path: Path, mode: str, format: str, max_bytes: int, message: str
) -> None:
    Image.new(mode, (60, 40)).save(tmp_path / "mask", format)

    with pytest.raises(InvalidMedia, match=message) as refused:
        await checker.check_mask(tmp_path / "mask", param="mask", size=(61, 40), max_bytes=max_bytes)

    assert refused.value.param == "mask"


async def test_an_image_is_cut_around_its_centre_and_reencoded(checker: Checker, tmp_path: Path) -> None:
    image = Image.new("RGBA", (100, 60), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (30, 10, 70, 50))
    image.save(tmp_path / "in.png")

    facts = await checker.transcode_image(tmp_path / "in.png", tmp_path / "out", "jpeg", quality=95, crop=(40, 40))

    assert (facts.mime, facts.width, facts.height) == ("image/jpeg", 40, 40)
    with Image.open(tmp_path / "out") as out:
        assert all(value >= 250 for value in out.getchannel("R").getextrema())
        assert out.getpixel((20, 20))[1] < 10


async def test_a_photo_taken_sideways_is_turned_upright_when_reencoded(checker: Checker, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (100, 60), "red").save(tmp_path / "in.jpg", exif=exif)

    facts = await checker.transcode_image(tmp_path / "in.jpg", tmp_path / "out.webp", "webp")

    assert (facts.mime, facts.width, facts.height) == ("image/webp", 60, 100)
    assert await checker.preview(tmp_path / "in.jpg", tmp_path / "small") == (60, 100)


@pytest.mark.parametrize(
    ("mode", "format", "size", "small"),
    [
        ("RGBA", "PNG", (1000, 500), (480, 240)),
        ("P", "PNG", (500, 1000), (240, 480)),
        ("I;16", "PNG", (1000, 500), (480, 240)),
        ("CMYK", "JPEG", (1000, 500), (480, 240)),
        ("RGB", "WEBP", (40, 20), (40, 20)),
    ],
)
async def test_a_small_picture_looks_like_the_large_one(
    checker: Checker, tmp_path: Path, mode: str, format: str, size: tuple[int, int], small: tuple[int, int]
) -> None:
    grey = Image.new("L", size, 100)
    image = Image.new("I;16", size, 100 * 257) if mode == "I;16" else grey.convert(mode)
    if mode == "RGBA":
        image.paste((0, 0, 0, 0), (0, 0, 500, 500))
    image.save(tmp_path / "in", format)

    assert await checker.preview(tmp_path / "in", tmp_path / "out") == small
    with Image.open(tmp_path / "out") as out:
        assert (out.format, out.size) == ("WEBP", small)
        seen = out.convert("RGBA").getpixel((small[0] - 1, small[1] // 2))
        assert all(abs(value - 100) <= 3 for value in seen[:3])
        assert seen[3] == 255
        assert out.convert("RGBA").getpixel((0, 0))[3] == (0 if mode == "RGBA" else 255)


async def test_more_cannot_be_cut_out_than_there_is(checker: Checker, tmp_path: Path) -> None:
    path = noise(tmp_path / "in", "PNG")

    with pytest.raises(InvalidMedia, match="too small to cut 300x100 out of it"):
        await checker.transcode_image(path, tmp_path / "out", "png", crop=(300, 100))


@pytest.mark.parametrize(
    ("codec", "format", "mime"),
    [
        ("libx264", "mp4", "video/mp4"),
        ("libx264", "mov", "video/quicktime"),
        ("libvpx", "webm", "video/webm"),
        ("libx264", "matroska", "video/x-matroska"),
    ],
)
async def test_a_good_video_is_measured(checker: Checker, tmp_path: Path, codec: str, format: str, mime: str) -> None:
    path = film(tmp_path / "upload.bin", codec=codec, format=format)

    facts = await checker.probe_video(path, param="video_url")

    assert (facts.mime, facts.width, facts.height) == (mime, 160, 90)
    assert facts.duration_s == pytest.approx(2.0, abs=0.11)


async def test_no_header_can_understate_the_seconds(checker: Checker, tmp_path: Path) -> None:
    data = film(tmp_path / "whole.mp4", seconds=3).read_bytes()
    for box, at in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20), (b"elst", 12)):
        start = data.index(box) + at
        data = data[:start] + struct.pack(">I", 1) + data[start + 4 :]
    (tmp_path / "liar.mp4").write_bytes(data)

    facts = await checker.probe_video(tmp_path / "liar.mp4", param="video_url")

    assert facts.duration_s >= 2.8


@pytest.mark.parametrize("format", ["mp4", "matroska"])
async def test_a_film_that_was_cut_is_refused(checker: Checker, tmp_path: Path, format: str) -> None:
    path = film(tmp_path / "cut", seconds=4, format=format)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])

    with pytest.raises(InvalidMedia, match=r"'video_url' is (cut off: it claims 4.\d s but holds|damaged or cut off)"):
        await checker.probe_video(path, param="video_url")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is an empty file"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "is HLS playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "is ffconcat playlist"),
        (os.urandom(5000), "(is an unknown kind of data|is |begins like)"),
        (b"\0\0\0\x20ftypisom" + os.urandom(5000), "begins like MP4 but cannot be read"),
        (b"\x1a\x45\xdf\xa3" + os.urandom(5000), "begins like MKV but cannot be read"),
    ],
    ids=["empty", "hls", "ffconcat", "random", "mp4 of random", "mkv of random"],
)
async def test_what_is_no_video_is_refused_by_name(
    checker: Checker, tmp_path: Path, content: bytes, found: str
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)

    with pytest.raises(InvalidMedia, match=f"^'video_url' {found}.*Allowed: MP4, MOV, WebM, MKV.$") as refused:
        await checker.probe_video(path, param="video_url")

    assert refused.value.param == "video_url"


async def test_a_film_that_lost_its_header_is_refused(checker: Checker, tmp_path: Path) -> None:
    path = film(tmp_path / "late.mp4", faststart=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(InvalidMedia, match="begins like MP4 but cannot be read: damaged or cut off"):
        await checker.probe_video(path, param="video_url")


async def test_a_sound_alone_is_no_video(checker: Checker, tmp_path: Path) -> None:
    sound(tmp_path / "song.mp4", "aac", frames=20, samples=1024)

    with pytest.raises(InvalidMedia, match="'video_url' holds no moving picture"):
        await checker.probe_video(tmp_path / "song.mp4", param="video_url")


async def test_a_sound_is_measured(checker: Checker, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "tone.wav"), "wb") as plain:
        plain.setnchannels(1)
        plain.setsampwidth(2)
        plain.setframerate(8000)
        plain.writeframes(bytes(2 * 8000 * 3))
    sound(tmp_path / "tone.mp3", "mp3", frames=40, samples=1152)
    sound(tmp_path / "tone.m4a", "aac", frames=40, samples=1024)

    wav = await checker.probe_audio(tmp_path / "tone.wav", param="audio_urls")
    mp3 = await checker.probe_audio(tmp_path / "tone.mp3", param="audio_urls")
    m4a = await checker.probe_audio(tmp_path / "tone.m4a", param="audio_urls")

    assert (wav.mime, wav.duration_s) == ("audio/wav", 3.0)
    assert (mp3.mime, m4a.mime) == ("audio/mpeg", "audio/mp4")
    assert m4a.duration_s == pytest.approx(40 * 1024 / 44_100, abs=0.1)
    assert mp3.duration_s == pytest.approx(40 * 1152 / 44_100, abs=0.1)


async def test_what_is_no_sound_is_refused(checker: Checker, tmp_path: Path) -> None:
    (tmp_path / "song.mp3").write_text("la la la")

    with pytest.raises(InvalidMedia, match=r"'audio_urls' is text. Allowed: WAV, MP3, M4A."):
        await checker.probe_audio(tmp_path / "song.mp3", param="audio_urls")


async def test_a_thumbnail_is_the_first_frame_in_512_pixels(checker: Checker, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number, colour in enumerate(["red", "blue"]):
            frame = av.VideoFrame.from_image(Image.new("RGB", (1280, 720), colour))
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    size = await checker.thumbnail(tmp_path / "wide.mp4", tmp_path / "thumbnail.webp")

    assert size == (512, 288)
    with Image.open(tmp_path / "thumbnail.webp") as image:
        red, _, blue = image.convert("RGB").getpixel((256, 144))
    assert (image.format, image.size) == ("WEBP", (512, 288))
    assert red > 200 > 50 > blue


def test_a_jpeg_may_have_megabytes_before_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (40, 30)).save(path)
    raw = path.read_bytes()
    block = b"\xff\xeb" + struct.pack(">H", 65_000) + bytes(64_998)
    path.write_bytes(raw[:2] + block * 40 + b"\xff\xff" + raw[2:])

    assert read_image_header(path) == ImageHeader("image/jpeg", 40, 30)


@pytest.mark.parametrize(
    "rest", [b"", b"\xff", b"\xe0\x00\x00", b"\xe0\x00\x01" * 9, b"\xff" * 100_000, b"\xd0\xff" * 100_000]
)
def test_a_jpeg_without_a_size_has_no_header(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff" + rest)

    assert read_image_header(path) is None
