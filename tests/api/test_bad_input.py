"""Bad input: each kind is named in the answer, moves no credit, and leaves no file behind."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.api.samples import data_url, jpeg, mask, mp4, png
from tests.plugins.gateway import no_trace

MIB = 1024 * 1024
GENERATIONS, EDITS, VIDEOS = "/v1/images/generations", "/v1/images/edits", "/v1/videos/generations"
INVALID = "invalid_request_error"


async def refused(client, caller, path: str, *, status: int, type: str, reason: str, param: str | None, **request: Any):
    """Send a request, assert its whole refusal, and return the message."""
    async with no_trace(caller):
        answer = await client.post(path, **{**request, "headers": {**caller.headers, **request.get("headers", {})}})

    error = answer.json()["error"]
    told = (answer.status_code, error["type"], error["reason"], error["param"])
    assert told == (status, type, reason, param), error["message"]
    assert error["code"] == status
    assert error["task_id"] is None
    assert await caller.ledger_kinds() == ["topup"]
    return error["message"]


@pytest.mark.parametrize(
    ("path", "body", "reason", "param"),
    [
        (GENERATIONS, {"prompt": 5}, "invalid_parameter", "prompt"),
        (GENERATIONS, {"prompt": ["a", "fox"]}, "invalid_parameter", "prompt"),
        (GENERATIONS, {"prompt": ""}, "missing_parameter", "prompt"),
        (GENERATIONS, {"prompt": None}, "missing_parameter", "prompt"),
        (GENERATIONS, {"prompt": "x" * 32_001}, "invalid_parameter", "prompt"),
        (GENERATIONS, {"prompt": "a\x00fox"}, "invalid_parameter", "prompt"),
        (GENERATIONS, {"model": 5}, "invalid_parameter", "model"),
        (GENERATIONS, {"model": "veo3.1-fast"}, "invalid_parameter", "model"),
        (VIDEOS, {"model": "gpt-image-2"}, "invalid_parameter", "model"),
        (GENERATIONS, {"size": 1024}, "invalid_parameter", "size"),
        (GENERATIONS, {"size": "huge"}, "invalid_parameter", "size"),
        (GENERATIONS, {"size": "9:1"}, "invalid_parameter", "size"),
        (GENERATIONS, {"quality": True}, "invalid_parameter", "quality"),
        (GENERATIONS, {"quality": "ultra"}, "invalid_parameter", "quality"),
        (GENERATIONS, {"model": "gemini-3-pro-image-preview-4k", "quality": "hd"}, "invalid_parameter", "quality"),
        (GENERATIONS, {"n": 2}, "invalid_parameter", "n"),
        (GENERATIONS, {"n": "1"}, "invalid_parameter", "n"),
        (GENERATIONS, {"stream": "yes"}, "invalid_parameter", "stream"),
        (GENERATIONS, {"async": 1}, "invalid_parameter", "async"),
        (GENERATIONS, {"partial_images": 4}, "invalid_parameter", "partial_images"),
        (GENERATIONS, {"response_format": "file"}, "invalid_parameter", "response_format"),
        (GENERATIONS, {"output_format": "gif"}, "invalid_parameter", "output_format"),
        (GENERATIONS, {"output_compression": 101, "output_format": "jpeg"}, "invalid_parameter", "output_compression"),
        (GENERATIONS, {"background": "transparent", "output_format": "jpeg"}, "invalid_parameter", "background"),
        (GENERATIONS, {"max_credits": -1}, "invalid_parameter", "max_credits"),
        (GENERATIONS, {"max_credits": "5"}, "invalid_parameter", "max_credits"),
        (GENERATIONS, {"metadata": {"a": 1}}, "invalid_parameter", "metadata"),
        (GENERATIONS, {"image": 5}, "invalid_parameter", "image"),
        (GENERATIONS, {"image_urls": ["ftp://example.com/a.png"]}, "invalid_parameter", "image_urls"),
        (GENERATIONS, {"image": "data:image/png;base64,####"}, "invalid_parameter", "image"),
        (GENERATIONS, {"resolution": "720p"}, "unsupported_parameter", "resolution"),
        (EDITS, {}, "missing_parameter", "image"),
        (EDITS, {"image": []}, "missing_parameter", "image"),
        (VIDEOS, {"duration": -5}, "invalid_parameter", "duration"),
        (VIDEOS, {"duration": 4.5}, "invalid_parameter", "duration"),
        (VIDEOS, {"duration": "5"}, "invalid_parameter", "duration"),
        (VIDEOS, {"duration": 16}, "invalid_parameter", "duration"),
        (VIDEOS, {"resolution": "1080p"}, "invalid_parameter", "resolution"),
        (VIDEOS, {"size": "5:4"}, "invalid_parameter", "size"),
        (VIDEOS, {"aspect_ratio": "5:4"}, "invalid_parameter", "aspect_ratio"),
        (VIDEOS, {"audio_urls": ["https://example.com/a.mp3"]}, "invalid_parameter", "audio_urls"),
        (VIDEOS, {"video_url": "https://example.com/a.mp4"}, "unsupported_parameter", "video_url"),
        (VIDEOS, {"enable_gif": True}, "unsupported_parameter", "enable_gif"),
        (VIDEOS, {"stream": True}, "unsupported_parameter", "stream"),
        (VIDEOS, {"model": "veo3.1-fast", "duration": 5}, "invalid_parameter", "duration"),
        (VIDEOS, {"model": "veo3.1-fast", "aspect_ratio": "1:1"}, "invalid_parameter", "aspect_ratio"),
        (VIDEOS, {"model": "veo3.1-fast", "watermark": True}, "unsupported_parameter", "watermark"),
        (VIDEOS, {"model": "veo3.1-lite", "official_fallback": True}, "unsupported_parameter", "official_fallback"),
        (VIDEOS, {"model": "veo3.1-fast", "enable_gif": True, "resolution": "4k"}, "invalid_parameter", "enable_gif"),
        (VIDEOS, {"model": "veo3.1-fast", "generation_type": "frame"}, "invalid_parameter", "generation_type"),
        (VIDEOS, {"model": "happyhorse-1.0", "resolution": "480p"}, "invalid_parameter", "resolution"),
        (VIDEOS, {"model": "happyhorse-1.0", "duration": 2}, "invalid_parameter", "duration"),
        (VIDEOS, {"model": "happyhorse-1.0", "audio_setting": "auto"}, "invalid_parameter", "audio_setting"),
    ],
)
async def test_a_wrong_field_is_named_with_what_is_allowed(client, caller, path, body, reason, param):
    body = {"prompt": "a fox", **body}

    message = await refused(client, caller, path, json=body, status=400, type=INVALID, reason=reason, param=param)

    assert param in message


async def test_a_message_says_field_value_and_model(client, caller):
    message = await refused(
        client,
        caller,
        VIDEOS,
        json={"prompt": "a boat", "duration": -5},
        status=400,
        type=INVALID,
        reason="invalid_parameter",
        param="duration",
    )

    assert "from 4 to 15" in message
    assert "doubao-seedance-2.0-fast" in message
    assert "-5" in message


@pytest.mark.parametrize("path", [GENERATIONS, EDITS, VIDEOS])
async def test_an_unknown_model_is_404_and_the_known_are_listed(client, caller, path):
    message = await refused(
        client,
        caller,
        path,
        json={"prompt": "a fox", "model": "dall-e-2", "image": data_url(png())},
        status=404,
        type="not_found_error",
        reason="model_not_found",
        param="model",
    )

    assert "gpt-image-2" in message


@pytest.mark.parametrize(("path", "field"), [(GENERATIONS, "image"), (GENERATIONS, "image_urls"), (EDITS, "image")])
async def test_six_images_are_one_too_many(client, caller, path, field):
    body = {"prompt": "a fox", field: [data_url(png())] * 6}

    message = await refused(
        client, caller, path, json=body, status=400, type=INVALID, reason="invalid_parameter", param=field
    )

    assert "at most 5" in message


async def test_six_images_are_too_many_in_two_fields_too(client, caller):
    body = {"prompt": "a fox", "image": [data_url(png())] * 3, "image_urls": [data_url(jpeg(), "image/jpeg")] * 3}

    await refused(
        client, caller, GENERATIONS, json=body, status=400, type=INVALID, reason="invalid_parameter", param="image"
    )


async def test_six_files_are_too_many(client, caller):
    files = [("image[]", (f"{number}.png", png(), "image/png")) for number in range(6)]

    await refused(
        client,
        caller,
        EDITS,
        data={"prompt": "a fox"},
        files=files,
        status=400,
        type=INVALID,
        reason="invalid_parameter",
        param="image",
    )


async def test_a_file_of_51_mib_is_413(client, caller):
    files = {"image": ("large.png", png() + bytes(51 * MIB), "image/png")}

    message = await refused(
        client,
        caller,
        EDITS,
        data={"prompt": "a fox"},
        files=files,
        status=413,
        type=INVALID,
        reason="body_too_large",
        param="image",
    )

    assert "50 MiB" in message


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_json_body_of_40_mb_is_413(client, caller, is_declared):
    body = json.dumps({"prompt": "a fox", "image": "data:image/png;base64," + "A" * 40_000_000}).encode()

    async def pieces():
        for start in range(0, len(body), MIB):
            yield body[start : start + MIB]

    await refused(
        client,
        caller,
        GENERATIONS,
        content=body if is_declared else pieces(),
        headers={"content-type": "application/json"},
        status=413,
        type=INVALID,
        reason="body_too_large",
        param=None if is_declared else "image",
    )


@pytest.mark.parametrize(
    ("content", "filename"),
    [
        (b"", "empty.png"),
        (b"this is no image", "text.png"),
        (png()[:60], "cut.png"),
        (b"GIF89a" + bytes(100), "animation.png"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "vector.png"),
        (mp4(seconds=1), "film.png"),
    ],
    ids=["zero bytes", "text", "cut off", "gif", "svg", "video"],
)
async def test_what_is_no_image_is_judged_by_its_content(client, caller, content, filename):
    await refused(
        client,
        caller,
        EDITS,
        data={"prompt": "a fox"},
        files={"image": (filename, content, "image/png")},
        status=400,
        type=INVALID,
        reason="invalid_image",
        param="image",
    )


@pytest.mark.parametrize(
    "content", [mask((64, 64)), png(), jpeg(), b"no mask"], ids=["other size", "no alpha", "jpeg", "text"]
)
async def test_a_mask_must_fit_its_image(client, caller, content):
    files = [("image", ("a.png", png((64, 48)), "image/png")), ("mask", ("mask.png", content, "image/png"))]

    await refused(
        client,
        caller,
        EDITS,
        data={"prompt": "a fox"},
        files=files,
        status=400,
        type=INVALID,
        reason="invalid_image",
        param="mask",
    )


async def test_a_truncated_multipart_body_is_400(client, caller):
    whole = client.build_request(
        "POST", EDITS, data={"prompt": "a fox"}, files={"image": ("a.png", png(), "image/png")}
    )
    content = whole.read()

    await refused(
        client,
        caller,
        EDITS,
        content=content[: len(content) // 2],
        headers={"content-type": whole.headers["content-type"]},
        status=400,
        type=INVALID,
        reason="invalid_parameter",
        param=None,
    )


@pytest.mark.parametrize(
    ("content", "content_type", "status", "reason"),
    [
        (b'{"prompt": "a fox"', "application/json", 400, "invalid_parameter"),
        (b"a fox", "application/json", 400, "invalid_parameter"),
        (b'["a fox"]', "application/json", 400, "invalid_parameter"),
        (b"\xff\xfe", "application/json", 400, "invalid_parameter"),
        (b"", "application/json", 400, "invalid_parameter"),
        (b"prompt=a+fox", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"<prompt/>", "application/xml", 415, "unsupported_media_type"),
        (b"a fox", "", 415, "unsupported_media_type"),
        (b"--x", "multipart/form-data", 400, "invalid_parameter"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(client, caller, content, content_type, status, reason):
    await refused(
        client,
        caller,
        GENERATIONS,
        content=content,
        headers={"content-type": content_type},
        status=status,
        type=INVALID,
        reason=reason,
        param=None,
    )


async def test_a_json_field_given_twice_is_refused(client, caller):
    await refused(
        client,
        caller,
        GENERATIONS,
        content=b'{"prompt": "a fox", "quality": "uhd", "quality": "standard"}',
        headers={"content-type": "application/json"},
        status=400,
        type=INVALID,
        reason="invalid_parameter",
        param="quality",
    )


async def test_a_form_field_given_twice_is_refused(client, caller):
    files = [("prompt", (None, "a fox")), ("prompt", (None, "a hen")), ("image", ("a.png", png(), "image/png"))]

    await refused(
        client, caller, EDITS, files=files, status=400, type=INVALID, reason="invalid_parameter", param="prompt"
    )


async def test_an_unreachable_reference_is_told_without_any_detail(client, caller, file_server):
    message = await refused(
        client,
        caller,
        GENERATIONS,
        json={"prompt": "a fox", "image_urls": [f"http://{file_server.host}/missing.png"]},
        status=400,
        type=INVALID,
        reason="input_url_unreachable",
        param="image_urls",
    )

    assert "127.0.0.1" not in message


async def test_a_reference_inside_our_network_is_refused_and_never_asked(client, caller):
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        port = canary.getsockname()[1]
        await refused(
            client,
            caller,
            VIDEOS,
            json={"prompt": "a boat", "image_urls": [f"http://127.0.0.1:{port}/"]},
            status=400,
            type=INVALID,
            reason="input_url_refused",
            param="image_urls",
        )
        with pytest.raises(BlockingIOError):
            canary.accept()


async def test_a_reference_that_is_no_image_is_named(client, caller, file_server):
    await refused(
        client,
        caller,
        VIDEOS,
        json={"prompt": "a boat", "first_frame_image": file_server.url("text.png", b"this is no image")},
        status=400,
        type=INVALID,
        reason="invalid_image",
        param="first_frame_image",
    )


async def test_a_reference_that_is_empty_is_named_with_what_is_allowed(client, caller, file_server):
    message = await refused(
        client,
        caller,
        GENERATIONS,
        json={"prompt": "a fox", "image": file_server.url("empty.png", b"")},
        status=400,
        type=INVALID,
        reason="invalid_image",
        param="image",
    )

    assert message == "The URL in 'image' leads to an empty file. Allowed: image/jpeg, image/png, image/webp."


async def test_among_several_references_the_message_says_which_one(client, caller, file_server):
    good, bad = file_server.url("good.png", png()), file_server.url("bad.png", b"this is no image")
    body = {"prompt": "a fox", "image": [data_url(png()), data_url(png()[:60])], "image_urls": good}
    expected = {"status": 400, "type": INVALID, "reason": "invalid_image"}

    uploaded = await refused(client, caller, GENERATIONS, json=body, param="image", **expected)
    fetched = await refused(
        client,
        caller,
        GENERATIONS,
        json={"prompt": "a fox", "image": data_url(png()), "image_urls": [good, bad]},
        param="image_urls",
        **expected,
    )

    assert "'image[1]'" in uploaded
    assert "'image_urls[1]'" in fetched


async def test_one_reference_is_called_by_its_field_alone(client, caller):
    message = await refused(
        client,
        caller,
        EDITS,
        json={"prompt": "a fox", "image": [data_url(png()[:60])]},
        status=400,
        type=INVALID,
        reason="invalid_image",
        param="image",
    )

    assert message.startswith("'image' ")


@pytest.mark.parametrize("content", [b"", mask()[:60], b"no mask", jpeg()], ids=["empty", "damaged", "text", "jpeg"])
@pytest.mark.parametrize("is_url", [True, False])
async def test_a_mask_that_is_none_is_told_that_only_png_is_allowed(client, caller, file_server, content, is_url):
    reference = file_server.url("mask.png", content)
    request = {
        True: {"json": {"prompt": "a fox", "image": data_url(png()), "mask": reference}},
        False: {
            "data": {"prompt": "a fox"},
            "files": [("image", ("a.png", png(), "image/png")), ("mask", ("mask.png", content, "image/png"))],
        },
    }[is_url]

    message = await refused(
        client, caller, EDITS, status=400, type=INVALID, reason="invalid_image", param="mask", **request
    )

    assert "Allowed: PNG with an alpha channel." in message or message.endswith("Allowed: image/png.")


async def test_a_number_without_end_is_told_in_our_words(client, caller):
    message = await refused(
        client,
        caller,
        VIDEOS,
        content=b'{"prompt": "a boat", "seed": ' + b"9" * 5000 + b"}",
        headers={"content-type": "application/json"},
        status=400,
        type=INVALID,
        reason="invalid_parameter",
        param=None,
    )

    assert message.endswith("a number is too long.")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [("stream", "yes", "true, false"), ("async", 1, "true, false"), ("response_format", "file", "url, b64_json")],
)
async def test_how_to_answer_is_judged_in_the_words_of_every_field(client, caller, field, value, allowed):
    message = await refused(
        client,
        caller,
        GENERATIONS,
        json={"prompt": "a fox", field: value},
        status=400,
        type=INVALID,
        reason="invalid_parameter",
        param=field,
    )

    assert message == (f"Invalid value for '{field}': {json.dumps(value)}. Allowed for 'gpt-image-2': {allowed}.")


async def test_a_list_where_one_mask_belongs_is_told_clearly(client, caller):
    message = await refused(
        client,
        caller,
        EDITS,
        json={"prompt": "a fox", "image": data_url(png()), "mask": [data_url(mask()), data_url(mask())]},
        status=400,
        type=INVALID,
        reason="invalid_parameter",
        param="mask",
    )

    assert "Allowed for 'gpt-image-2': a single value, not a list: an image file" in message


@pytest.mark.parametrize(
    ("body", "headers"),
    [({"async": True}, {}), ({}, {"prefer": "respond-async"}), ({}, {"prefer": "wait=5, respond-async"})],
)
async def test_an_answer_cannot_be_a_stream_and_come_later(client, caller, body, headers):
    message = await refused(
        client,
        caller,
        GENERATIONS,
        json={"prompt": "a fox", "stream": True, **body},
        headers=headers,
        status=400,
        type=INVALID,
        reason="invalid_parameter",
        param="stream",
    )

    assert "'async'" in message


async def test_one_bad_file_among_good_ones_takes_them_all_along(client, caller):
    files = [
        ("image[]", ("a.png", png(), "image/png")),
        ("image[]", ("b.png", b"this is no image", "image/png")),
        ("image[]", ("c.png", png(), "image/png")),
    ]

    await refused(
        client,
        caller,
        EDITS,
        data={"prompt": "a fox"},
        files=files,
        status=400,
        type=INVALID,
        reason="invalid_image",
        param="image",
    )


@pytest.mark.parametrize("path", ["/v1/videos/{id}/remix", "/v1/tasks/{id}/cancel"])
async def test_a_task_of_another_account_is_404_for_every_change(client, caller, make_caller, path):
    owner = await make_caller()
    made = await client.post(VIDEOS, json={"prompt": "a boat"}, headers=owner.headers)

    await refused(
        client,
        caller,
        path.format(id=made.json()["id"]),
        json={"prompt": "on"},
        status=404,
        type="not_found_error",
        reason="task_not_found",
        param=None,
    )
    await client.delete(f"/v1/tasks/{made.json()['id']}", headers=owner.headers)
