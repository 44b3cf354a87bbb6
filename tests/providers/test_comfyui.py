"""The ComfyUI provider against a fake that validates graphs and deduplicates nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.providers.comfyui import provider
from app.providers.comfyui.adapter import job_id
from app.providers.comfyui.graph import Binding, load
from app.requests import MediaFile, Operation
from app.upstreams.contract.harness import SECRET
from app.upstreams.protocols import (
    Finished,
    ImageGenerator,
    Picky,
    SubmitSafety,
    Upstream,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
    VideoCanceller,
    VideoSubmitter,
)
from tests.providers.apimart_calls import image_request, stand_in, video_request
from tests.providers.comfyui_calls import BINDINGS, ComfyuiHarness, Desk, write_graphs
from tests.providers.fakes.apimart import FILM, png

FRAME = {"generation_type": "frame"}


def harness() -> ComfyuiHarness:
    return ComfyuiHarness()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Desk.opened(tmp_path) as desk:
        yield desk


def media(desk: Desk, data: bytes, mime: str = "image/png", name: str = "image_urls") -> MediaFile:
    digest = hashlib.sha256(data)
    path = desk.root / digest.hexdigest()
    path.write_bytes(data)
    return MediaFile(path, mime, len(data), digest.digest(), name)


def posts(desk: Desk, path: str = "/prompt") -> int:
    return sum(seen.method == "POST" and seen.path == path for seen in desk.fake.seen)


def test_it_says_what_it_can_do() -> None:
    made = provider()

    assert made.name == "comfyui"
    assert made.capabilities.submit is SubmitSafety.IDEMPOTENT
    assert made.capabilities.cancel
    assert isinstance(made, ImageGenerator)
    assert isinstance(made, VideoSubmitter)
    assert isinstance(made, VideoCanceller)
    assert isinstance(made, Picky)


# --- graphs -----------------------------------------------------------------------------------------------------------


async def test_the_bound_inputs_of_the_graph_are_filled(desk: Desk) -> None:
    result = await desk.comfyui.generate_image(image_request(hints={"seed": 42}), desk.call())

    expected = json.loads(json.dumps(BINDINGS["still"][0]))
    expected["6"]["inputs"]["text"] = "a tram in the rain"
    expected["7"]["inputs"]["text"] = "blurry"
    expected["5"]["inputs"] |= {"width": 1536, "height": 864}
    expected["3"]["inputs"]["seed"] = 42
    assert desk.sent == expected
    assert next(s.body for s in desk.fake.seen if s.path == "/prompt")["prompt_id"] == job_id("task:1")
    assert result.path.read_bytes() == png()


async def test_a_seed_left_open_is_the_tokens(desk: Desk) -> None:
    await desk.comfyui.generate_image(image_request(), desk.call(token="task:1"))
    first = desk.sent["3"]["inputs"]["seed"]
    await desk.comfyui.generate_image(image_request(), desk.call(token="task:2"))

    assert 0 < first < 2**48
    assert desk.sent["3"]["inputs"]["seed"] != first


async def test_the_graph_is_chosen_by_the_inputs_which_are_uploaded(desk: Desk) -> None:
    red, mask = media(desk, png("red")), media(desk, png("blue"), name="mask")

    await desk.comfyui.generate_image(image_request(images=(red,)), desk.call())
    assert "12" not in desk.sent
    assert desk.fake.inputs == {desk.sent["10"]["inputs"]["image"]: png("red")}

    await desk.comfyui.generate_image(image_request(images=(red,), mask=mask), desk.call(token="task:2"))
    image, masked = desk.sent["10"]["inputs"]["image"], desk.sent["12"]["inputs"]["image"]
    assert desk.fake.masks == [{"filename": Path(image).name, "subfolder": "mediagate", "type": "input"}]
    assert desk.fake.inputs == {image: png("red"), masked: png("blue")}


async def test_a_film_has_its_frames_and_files(desk: Desk) -> None:
    red, blue = media(desk, png("red")), media(desk, png("blue"))
    call = desk.call("wan")

    job = await desk.comfyui.submit_video(video_request(duration_s=5), call)
    assert desk.sent["40"]["inputs"] == {"length": 81, "width": 1280, "height": 720}
    assert desk.sent["41"]["inputs"]["fps"] == 16
    assert isinstance(await desk.comfyui.poll_video(job, call), Finished)
    result = await desk.comfyui.fetch_video(job, call)
    assert result.video.name == "video.mp4"
    assert result.video.read_bytes() == FILM

    await desk.comfyui.submit_video(video_request(images=(red, blue), params=FRAME), desk.call("wan", token="task:2"))
    places = [desk.sent[node]["inputs"]["image"] for node in ("20", "21")]
    assert [desk.fake.inputs[place] for place in places] == [png("red"), png("blue")]

    film = media(desk, FILM, "video/mp4", "video_url")
    edit = video_request(operation=Operation.VIDEO_EDIT, videos=(film,))
    await desk.comfyui.submit_video(edit, desk.call("wan", token="task:3"))
    assert desk.fake.inputs[desk.sent["30"]["inputs"]["file"]] == FILM


async def test_a_route_may_have_graphs_of_its_own(desk: Desk) -> None:
    pairs = write_graphs(desk.root / "graphs")["wan"]

    await desk.comfyui.submit_video(video_request(), desk.call("unnamed", route={"graphs": pairs[0]}))

    assert "40" in desk.sent


@pytest.mark.parametrize(
    ("model", "fields", "words"),
    [
        ("flux", {"images": (stand_in("image"),) * 2}, "'image' must hold 1 file"),
        ("flux", {"images": (stand_in("image"),), "mask": stand_in("mask")}, None),
        ("flux", {}, None),
        ("wan", {"params": {"enable_gif": True}}, "'enable_gif'"),
        ("wan", {"operation": Operation.VIDEO_REMIX}, "original"),
        ("wan", {"images": (stand_in(), stand_in()), "params": FRAME}, None),
        ("wan", {"audios": (stand_in("audio_urls"),)}, "'audio_urls' is not possible"),
        ("unnamed", {}, None),
    ],
    ids=str,
)
def test_it_says_what_no_graph_can_serve(tmp_path: Path, model: str, fields: dict[str, Any], words: str | None) -> None:
    request = video_request(**fields) if model == "wan" else image_request(**fields)
    upstream = Upstream("comfyui", "comfyui", options={"graphs": write_graphs(tmp_path)})
    said = provider().why_not(request, model, upstream)  # type: ignore[attr-defined]

    assert (said is None) if words is None else (words in (said or ""))


async def test_an_input_that_is_bound_must_be_given(desk: Desk) -> None:
    pair = write_graphs(desk.root / "graphs")["flux"][1]

    with pytest.raises(UpstreamRejected) as caught:
        await desk.comfyui.generate_image(image_request(), desk.call(route={"graphs": pair}))

    assert caught.value.public == "'image_urls' is needed by this upstream."
    assert posts(desk) == 0


BROKEN: list[tuple[Any, Any, str]] = [
    ({"nodes": [], "links": []}, {"inputs": {"prompt": "6.text"}}, "API format"),
    ([], {"inputs": {"prompt": "6.text"}}, "API format"),
    (BINDINGS["still"][0], {"inputs": {"width": "5.width"}}, "'prompt'"),
    (BINDINGS["still"][0], {"inputs": {"prompt": "99.text"}}, "'99.text'"),
    (BINDINGS["still"][0], {"inputs": {"prompt": "6"}}, "'6'"),
    (BINDINGS["still"][0], {"inputs": {"prompt": "6.text", "colour": "6.text"}}, "colour"),
    (BINDINGS["still"][0], {"inputs": {"prompt": "6.text"}, "output": ["77"]}, "output"),
    (BINDINGS["still"][0], "inputs: [", "ParserError"),
    ("{", {"inputs": {"prompt": "6.text"}}, "JSONDecodeError"),
]


@pytest.mark.parametrize(("graph", "binding", "words"), BROKEN)
async def test_a_broken_file_is_ours_to_mend(desk: Desk, graph: Any, binding: Any, words: str) -> None:
    files = desk.root / "g.json", desk.root / "b.yaml"
    for path, content in zip(files, (graph, binding), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    pair = {"graph": str(files[0]), "binding": str(files[1])}

    with pytest.raises(UpstreamDenied, match=words):
        await desk.comfyui.generate_image(image_request(), desk.call(route={"graphs": pair}))
    upstream = Upstream("comfyui", "comfyui", options={"graphs": {"flux": pair}})
    assert desk.comfyui.why_not(image_request(), "flux", upstream) is None


async def test_a_missing_file_or_graph_is_ours_to_mend(desk: Desk) -> None:
    for model, route in (("flux", {"graphs": {"graph": "/nowhere/g", "binding": "/nowhere/b"}}), ("unnamed", None)):
        with pytest.raises(UpstreamDenied):
            await desk.comfyui.generate_image(image_request(), desk.call(model, route=route))


def test_frames_fit_the_models_step() -> None:
    inputs = {"prompt": "6.text"}

    assert Binding(inputs=inputs, fps=16, frames_step=4).frames_of(5) == 81  # type: ignore[arg-type]
    assert Binding(inputs=inputs, fps=24, frames_step=8).frames_of(4) == 97  # type: ignore[arg-type]
    assert Binding(inputs=inputs, fps=24).frames_of(4) == 96  # type: ignore[arg-type]


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    pair = write_graphs(tmp_path)["flux"][0]
    before = load(**pair)
    path = Path(pair["binding"])
    path.write_text(path.read_text().replace("blurry", "watermark"))

    assert before.binding.negative == "blurry"
    assert load(**pair).binding.negative == "watermark"


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ("bad_request", UpstreamRejected),
        ("retired", UpstreamDenied),
        ("unauthorized", UpstreamDenied),
        ("busy 2", UpstreamBusy),
        ("error 500", UpstreamOutcomeUnknown),
        ("error 503", UpstreamOutcomeUnknown),
        ("garbage", UpstreamOutcomeUnknown),
        ("no_id", UpstreamOutcomeUnknown),
    ],
)
async def test_every_row_of_the_error_table(desk: Desk, behaviour: str, expected: type[UpstreamError]) -> None:
    desk.fake.will(behaviour)

    with pytest.raises(UpstreamError) as caught:
        await desk.comfyui.submit_video(video_request(), desk.call("wan"))

    assert type(caught.value) is expected
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.public}"
    assert getattr(caught.value, "retry_after_s", 2.0) == 2.0


async def test_what_the_server_says_of_a_value_is_told(desk: Desk) -> None:
    with pytest.raises(UpstreamRejected) as caught:
        await desk.comfyui.generate_image(image_request(width=20000), desk.call())

    assert caught.value.public == "The upstream refused this request: Value 20000 bigger than max of 16384"


async def test_an_unknown_node_is_ours_to_mend(desk: Desk) -> None:
    files = desk.root / "g.json", desk.root / "b.yaml"
    files[0].write_text(json.dumps({"6": {"class_type": "Gone", "inputs": {"text": ""}}}))
    files[1].write_text("inputs: {prompt: 6.text}")
    pair = {"graph": str(files[0]), "binding": str(files[1])}

    with pytest.raises(UpstreamDenied):
        await desk.comfyui.generate_image(image_request(), desk.call(route={"graphs": pair}))


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [("upload 413", UpstreamRejected), ("upload 500", UpstreamBusy), ("upload 401", UpstreamDenied)],
)
async def test_a_failed_upload_is_no_submit(desk: Desk, behaviour: str, expected: type[UpstreamError]) -> None:
    desk.fake.will(behaviour)

    with pytest.raises(UpstreamError) as caught:
        await desk.comfyui.generate_image(image_request(images=(media(desk, png()),)), desk.call())

    assert type(caught.value) is expected
    assert posts(desk) == 0


async def test_without_a_server_nothing_was_accepted(desk: Desk) -> None:
    await desk.fake.stop()

    with pytest.raises(UpstreamBusy):
        await desk.comfyui.generate_image(image_request(), desk.call())


async def test_a_server_that_goes_away_after_acceptance_is_no_refusal(desk: Desk) -> None:
    """A refused connection alone is UpstreamBusy: another token would make the image twice."""
    desk.fake.will(*["poll 500"] * 500, "result 403")
    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.comfyui.generate_image(image_request(), desk.call(options={"image_wait_s": 0.01}))


async def test_a_key_is_sent_only_where_there_is_one(desk: Desk) -> None:
    with pytest.raises(UpstreamDenied):
        await desk.comfyui.generate_image(image_request(), desk.call(secret=None))

    assert "Authorization" not in desk.fake.seen[0].headers
