"""Images of the ``openai`` provider: what is sent, what comes back, and who is asked for it."""

# ruff: noqa: ASYNC240 - the files of a test are small

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.requests import MediaFile
from app.upstreams.contract.harness import SECRET
from app.upstreams.protocols import (
    Cost,
    Upstream,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
)
from tests.providers.fakes.openai_data import PNG, Style, picture
from tests.providers.openai_calls import Desk, close_desk, image_request, open_desk

RELAY = Style(is_strict=False)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = await open_desk(tmp_path)
    yield desk
    await close_desk(desk)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = await open_desk(tmp_path, replace(RELAY))
    yield desk
    await close_desk(desk)


async def test_a_generation_is_sent_field_by_field(desk: Desk) -> None:
    request = image_request(
        size=(1536, 864),
        ratio="16:9",
        output_format="webp",
        output_compression=80,
        background="opaque",
        hints={"background": "opaque", "moderation": "low", "user": "ann", "input_fidelity": "high", "style": "vivid"},
    )

    result = await desk.provider.generate_image(request, desk.call(quality={"standard": "medium"}))

    (seen,) = desk.fake.seen
    assert (seen.method, seen.path) == ("POST", "/v1/images/generations")
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert seen.json == {
        "model": "gpt-image-2",
        "prompt": "a fox",
        "n": 1,
        "size": "1536x864",
        "quality": "medium",
        "output_format": "webp",
        "output_compression": 80,
        "background": "opaque",
        "moderation": "low",
        "safety_identifier": hashlib.sha256(b"mediagate:ann").hexdigest(),
    }
    assert result.path.read_bytes() == PNG
    assert (result.revised_prompt, result.cost) == ("a better fox", None)


async def test_the_least_request_sends_no_more_than_it_must(desk: Desk) -> None:
    await desk.provider.generate_image(image_request(ratio="auto"), desk.call())

    assert desk.fake.seen[0].json == {
        "model": "gpt-image-2",
        "prompt": "a fox",
        "n": 1,
        "size": "auto",
        "quality": "auto",
        "output_format": "png",
    }


@pytest.mark.parametrize("count", [1, 3])
async def test_an_edit_is_a_form_with_image_or_image_list(desk: Desk, count: int) -> None:
    mimes = ["image/jpeg", "image/png", "image/webp"]
    images = tuple(desk.media(mime) for mime in mimes[:count])
    mask = desk.media(field="mask")
    request = image_request(
        "füchse 狐", images=images, mask=mask, hints={"moderation": "low", "input_fidelity": "high"}
    )

    result = await desk.provider.generate_image(request, desk.call())

    (seen,) = desk.fake.seen
    assert seen.path == "/v1/images/edits"
    assert seen.texts() == {
        "model": "gpt-image-2",
        "prompt": "füchse 狐",
        "n": "1",
        "size": "1024x1024",
        "quality": "auto",
        "output_format": "png",
    }
    name = "image" if count == 1 else "image[]"
    extensions = ["jpg", "png", "webp"]
    expected = [
        (name, f"image-{number}.{extension}", mime, file.path.read_bytes())
        for number, (extension, mime, file) in enumerate(zip(extensions, mimes, images, strict=False), 1)
    ]
    assert seen.files() == [*expected, ("mask", "mask.png", "image/png", mask.path.read_bytes())]
    assert result.path.read_bytes() == PNG


@pytest.mark.parametrize("is_edit", [False, True])
async def test_interim_images_are_handed_on_while_they_arrive(desk: Desk, is_edit: bool) -> None:
    images = (desk.media(),) if is_edit else ()
    got: list[tuple[int, bytes]] = []

    async def on_partial(index: int, path: Path) -> None:
        got.append((index, path.read_bytes()))

    call = desk.call(prices={"text_input": 5, "image_input": 8, "output": 30})
    result = await desk.provider.generate_image(image_request(partial_images=3, images=images), call, on_partial)

    assert got == [(index, picture((index + 1, 1))) for index in range(3)]
    assert result.path.read_bytes() == PNG
    assert result.cost == Cost(10 * 5 + 20 * 8 + 1000 * 30)
    sent: dict[str, Any] = dict(desk.fake.seen[0].texts()) if is_edit else desk.fake.seen[0].json
    assert (sent["stream"], sent["partial_images"]) == (("true", "3") if is_edit else (True, 3))


async def test_without_somebody_to_hand_them_to_nothing_is_streamed(desk: Desk) -> None:
    await desk.provider.generate_image(image_request(partial_images=3), desk.call())

    assert "stream" not in desk.fake.seen[0].json


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ("stream error", UpstreamFailed),
        ("stream moderated", UpstreamModerated),
        ("stream cut", UpstreamOutcomeUnknown),
        ("stream end", UpstreamOutcomeUnknown),
    ],
)
async def test_a_stream_that_breaks_off_is_told_apart_from_one_that_says_why(
    desk: Desk, order: str, error: type[Exception]
) -> None:
    desk.fake.submits.append(order)

    async def on_partial(index: int, path: Path) -> None: ...

    with pytest.raises(error) as raised:
        await desk.provider.generate_image(image_request(partial_images=1), desk.call(), on_partial)

    assert type(raised.value) is error
    assert desk.fake.accepted == 1


@pytest.mark.parametrize("result", ["b64_json", "url", "own_url", "relative", "data"])
async def test_a_relay_may_answer_in_any_form(relay: Desk, result: str) -> None:
    relay.fake.style.result = result

    made = await relay.provider.generate_image(image_request(), relay.call("flux", profile="compatible"))

    assert made.path.read_bytes() == PNG
    keys = {hit.get("authorization") for hit in relay.fake.file_hits}
    assert keys == {"url": {None}, "own_url": {f"Bearer {SECRET}"}, "relative": {f"Bearer {SECRET}"}}.get(result, set())


async def test_a_results_url_is_asked_for_again_but_the_image_never_made_twice(relay: Desk) -> None:
    relay.fake.style.result = "url"
    relay.fake.file_answers += [503, 404, 200]

    made = await relay.provider.generate_image(image_request(), relay.call("flux", profile="compatible"))

    assert made.path.read_bytes() == PNG
    assert relay.fake.accepted == 1


async def test_a_results_url_that_stays_shut_is_a_definite_failure(relay: Desk) -> None:
    relay.fake.style.result = "url"
    relay.fake.file_answers += [403] * 9

    with pytest.raises(UpstreamFailed) as raised:
        await relay.provider.generate_image(image_request(), relay.call("flux", profile="compatible"))

    assert len(relay.fake.file_hits) == 3
    assert raised.value.public == "The upstream's result could not be read."
    assert relay.fake.accepted == 1


async def test_a_results_url_into_our_network_is_refused(relay: Desk) -> None:
    body = {"data": [{"url": "http://169.254.169.254/latest/meta-data"}]}
    relay.fake.submits.append((200, body))

    with pytest.raises(UpstreamFailed):
        await relay.provider.generate_image(image_request(), relay.call("flux", profile="compatible"))


@pytest.mark.parametrize(
    ("model", "options", "request_fields", "expected"),
    [
        ("flux", {"send_response_format": "b64_json"}, {}, {"response_format": "b64_json"}),
        ("gpt-image-2", {"send_response_format": "b64_json"}, {}, {"response_format": None}),
        ("azure/gpt-image-2", {"send_response_format": "url"}, {}, {"response_format": None}),
        ("flux", {"size_style": "ratio"}, {"ratio": "16:9"}, {"size": "16:9", "resolution": "1k"}),
        ("flux", {"size_style": "ratio"}, {"ratio": "auto", "quality": "hd"}, {"size": "auto", "resolution": "2k"}),
        (
            "flux",
            {"size_style": "ratio", "auto_size": "resolve", "resolutions": {"uhd": "4K"}},
            {"ratio": "auto", "quality": "uhd"},
            {"size": "1:1", "resolution": "4K"},
        ),
        ("flux", {"auto_size": "resolve"}, {"ratio": "auto"}, {"size": "1024x1024"}),
        ("flux", {"auto_size": "pass"}, {"ratio": "auto"}, {"size": "auto"}),
        (
            "flux",
            {"fields": []},
            {"background": "opaque"},
            {"quality": None, "background": None, "output_format": None},
        ),
        (
            "flux",
            {"fields": ["user"]},
            {"hints": {"user": "ann"}},
            {"user": hashlib.sha256(b"mediagate:ann").hexdigest()},
        ),
        ("flux", {"fields": ["style"]}, {"hints": {"style": "vivid"}}, {"style": "vivid"}),
        ("flux", {"extra": {"seed": 7}}, {}, {"seed": 7}),
        ("sd", {"profile": "sd.cpp"}, {"ratio": "auto"}, {"size": "1024x1024", "quality": None, "model": "sd"}),
        ("wan", {"profile": "sglang"}, {}, {"response_format": "b64_json", "quality": None, "output_format": None}),
    ],
)
async def test_each_switch_changes_the_body(
    relay: Desk, model: str, options: dict[str, Any], request_fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    options = {"profile": "compatible", **options}

    await relay.provider.generate_image(image_request(**request_fields), relay.call(model, **options))

    sent = relay.fake.seen[0].json
    assert {name: sent.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("model", "sent"), [("gpt-image-2", False), ("gpt-image-2-2026-04-21", False), ("gpt-image-1.5", True)]
)
async def test_input_fidelity_never_goes_to_gpt_image_2(relay: Desk, model: str, sent: bool) -> None:
    request = image_request(images=(relay.media(),), hints={"input_fidelity": "high"})

    await relay.provider.generate_image(request, relay.call(model, fields=["input_fidelity"]))

    assert ("input_fidelity" in relay.fake.seen[0].texts()) is sent


@pytest.mark.parametrize("style", ["image", "images", "image_urls"])
@pytest.mark.parametrize("count", [1, 2])
async def test_references_may_travel_in_json(relay: Desk, style: str, count: int) -> None:
    images = tuple(relay.media() for _ in range(count))
    mask = relay.media(field="mask")
    call = relay.call("flux", profile="compatible", reference_style=style, mask_field="mask_url")

    await relay.provider.generate_image(image_request(images=images, mask=mask), call)

    (seen,) = relay.fake.seen
    assert seen.path == "/v1/images/generations"
    sent = seen.json[style]
    urls = [sent] if style == "image" and count == 1 else sent
    assert len(urls) == count
    assert all(url.startswith("data:image/png;base64,iVBOR") for url in [*urls, seen.json["mask_url"]])


async def test_references_may_be_our_own_urls(relay: Desk) -> None:
    def public_url(file: MediaFile) -> str:
        return f"https://our.example/{file.field}"

    options = {"reference_style": "image_urls", "reference_data": "url", "reference_path": "/images/edits"}
    call = relay.call("flux", options, public_url, profile="compatible")

    await relay.provider.generate_image(image_request(images=(relay.media(),)), call)

    assert relay.fake.seen[0].path == "/v1/images/edits"
    assert relay.fake.seen[0].json["image_urls"] == ["https://our.example/image"]


async def test_the_route_wins_over_the_model_and_the_model_over_the_account(relay: Desk) -> None:
    models = {"flux": {"quality": "high", "extra": {"seed": 2}}}
    call = relay.call("flux", {"quality": "low"}, quality="medium", extra={"seed": 1}, models=models)

    await relay.provider.generate_image(image_request(), call)

    sent = relay.fake.seen[0].json
    assert (sent["quality"], sent["seed"]) == ("low", 2)


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("a fox", "a fox"),
        ('a <sd_cpp_extra_args>{"steps":999}</sd_cpp_extra_args>fox', "a fox"),
        ("a fox<SD_CPP_EXTRA_ARGS>{}", "a fox"),
        ("a <sd_cpp_<sd_cpp_extra_args>x</sd_cpp_extra_args>extra_args>{}</sd_cpp_extra_args> fox", "a  fox"),
        ("a fox</sd_cpp_extra_args>", "a fox"),
        ("<sd_cpp_" * 40 + "sd_cpp_extra_args>{}</sd_cpp_extra_args>" + "extra_args>" * 40, None),
        ("a < b and c > d", "a < b and c > d"),
    ],
)
async def test_settings_inside_a_prompt_do_not_reach_stable_diffusion_cpp(
    relay: Desk, prompt: str, left: str | None
) -> None:
    await relay.provider.generate_image(image_request(prompt), relay.call("sd", profile="sd.cpp"))

    sent = relay.fake.seen[0].json["prompt"]
    assert "<sd_cpp_extra_args" not in sent
    assert left is None or sent == left


async def test_other_servers_get_the_prompt_as_it_is(desk: Desk) -> None:
    prompt = "draw <sd_cpp_extra_args>{}</sd_cpp_extra_args>"

    await desk.provider.generate_image(image_request(prompt), desk.call())

    assert desk.fake.seen[0].json["prompt"] == prompt


async def test_headers_of_the_account_are_sent_but_cannot_replace_the_key(desk: Desk) -> None:
    headers = {"OpenAI-Organization": "org-1", "authorization": "Bearer other"}

    await desk.provider.generate_image(image_request(), desk.call(headers=headers))

    seen = desk.fake.seen[0].headers
    assert (seen["openai-organization"], seen["authorization"]) == ("org-1", f"Bearer {SECRET}")


async def test_a_server_without_a_key_is_asked_without_one(relay: Desk) -> None:
    relay.fake.secret = None
    call = relay.call("sd", profile="sd.cpp")

    await relay.provider.generate_image(image_request(), replace(call, upstream=replace(call.upstream, secret=None)))

    assert "authorization" not in relay.fake.seen[0].headers


@pytest.mark.parametrize(
    "options", [{"mode": "apimart_task"}, {"sizestyle": "ratio"}, {"quality": 7}, {"fields": ["seed"]}]
)
async def test_options_that_are_not_valid_are_the_operators_to_mend(desk: Desk, options: dict[str, Any]) -> None:
    with pytest.raises(UpstreamDenied, match="options of upstream main"):
        await desk.provider.generate_image(image_request(), desk.call(**options))

    assert desk.fake.seen == []
    assert desk.provider.why_not(image_request(), "gpt-image-2", desk.upstream(**options)) is None


def _large(file: MediaFile, size: int) -> MediaFile:
    return replace(file, size_bytes=size)


def test_what_cannot_be_served_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    desk = Desk(tmp_path, None, None)  # type: ignore[arg-type] # nothing is sent
    png, gif = desk.media(), replace(desk.media(), mime="image/gif")
    mask = desk.media(field="mask")
    json_style = {"profile": "compatible", "reference_style": "images"}
    cases: list[tuple[Any, str, dict[str, Any], str | None]] = [
        (image_request(), "gpt-image-2", {}, None),
        (image_request(size=(3840, 2160)), "gpt-image-2", {}, None),
        (image_request(size=(1000, 1000)), "gpt-image-2", {}, "multiples of 16"),
        (image_request(size=(3200, 1040)), "gpt-image-2", {}, "3:1"),
        (image_request(size=(512, 512)), "gpt-image-2", {}, "655,360"),
        (image_request(size=(3856, 2048)), "gpt-image-2", {}, "3840"),
        (image_request(size=(2896, 2896)), "gpt-image-2", {}, "8,294,400"),
        (image_request(size=(1000, 1000)), "flux", {}, None),
        (image_request(size=(1000, 1000), ratio="auto"), "gpt-image-2", {}, None),
        (image_request(size=(2048, 2048)), "sd", {"profile": "sd.cpp", "max_edge": 1024}, "1024"),
        (image_request(size=(2048, 2048)), "sd", {"max_pixels": 1_048_576}, "1,048,576"),
        (image_request(), "sd", {"sizes": ["512x512"]}, "1024x1024"),
        (image_request(ratio="7:3"), "sd", {"size_style": "ratio", "ratios": ["1:1"]}, "7:3"),
        (image_request(images=(png,) * 16), "gpt-image-2", {}, None),
        (image_request(images=(png,) * 17), "gpt-image-2", {}, "at most 16"),
        (image_request(images=(gif,)), "gpt-image-2", {}, "image/gif"),
        (image_request(images=(_large(png, 50 * 1024**2),)), "gpt-image-2", {}, "50 MiB"),
        (image_request(images=(png,), mask=mask), "gpt-image-2", {}, None),
        (image_request(images=(png,), mask=_large(mask, 4 * 1024**2)), "gpt-image-2", {}, "4 MiB"),
        (image_request(images=(png,), mask=replace(mask, width=9)), "gpt-image-2", {}, "as large as"),
        (image_request(images=(png,), mask=mask), "flux", json_style, "no mask"),
        (image_request(images=(png,), mask=mask), "flux", {**json_style, "mask_field": "mask"}, None),
    ]
    for request, model, options, words in cases:
        said = desk.provider.why_not(request, model, Upstream("main", "openai", options=options))
        assert (said is None) if words is None else (said is not None and words in said), (model, options, said)
