"""The Google provider makes images by generateContent."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.providers.google.adapter import GoogleProvider
from app.providers.google.images import MASK_WORDS, MAX_INPUTS
from app.upstreams.contract.harness import SECRET
from app.upstreams.protocols import (
    Cost,
    Upstream,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)
from tests.providers.fakes.google import (
    PER_DAY,
    PER_MINUTE,
    Raw,
    error,
    error_info,
    inline,
    png,
    quota_failure,
    retry_info,
)
from tests.providers.google_calls import AGENT, BEARER, IMAGE_MODEL, Desk, image_request


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Desk.opened(tmp_path) as made:
        yield made


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def finished(reason: str | None, *parts: dict[str, Any], **more: Any) -> Raw:
    candidate = {"content": {"parts": list(parts)}, "finishReason": reason, **more}
    return Raw(200, {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 9}})


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_the_body_of_a_generation_is_exactly_this(desk: Desk) -> None:
    result = await desk.google.generate_image(image_request(quality="hd"), desk.call())

    assert result.path.read_bytes() == png("blue")
    assert result.cost is None
    seen = desk.fake.seen[0]
    assert seen.path == f"/v1beta/models/{IMAGE_MODEL}:generateContent"
    assert seen.headers["x-goog-api-key"] == SECRET
    assert seen.body == {
        "contents": [{"role": "user", "parts": [{"text": "a fox"}]}],
        "generationConfig": {
            "responseModalities": ["IMAGE"],
            "imageConfig": {"imageSize": "2K", "aspectRatio": "16:9"},
        },
    }


async def test_an_edit_sends_images_and_asks_for_the_mask_in_words(desk: Desk) -> None:
    request = image_request(
        images=(desk.picture("red"), desk.picture("green")), mask=desk.picture("white", "mask"), hints={"seed": 7}
    )

    await desk.google.generate_image(request, desk.call())

    def part(colour: str) -> dict[str, Any]:
        return {"inlineData": {"mimeType": "image/png", "data": encoded(png(colour))}}

    assert desk.sent["contents"][0]["parts"] == [
        {"text": "a fox"},
        part("red"),
        part("green"),
        {"text": MASK_WORDS},
        part("white"),
    ]
    assert desk.sent["generationConfig"]["seed"] == 7


@pytest.mark.parametrize(("quality", "size"), [("standard", "1K"), ("hd", "2K"), ("uhd", "4K")])
async def test_an_auto_shape_is_left_to_the_model(desk: Desk, quality: str, size: str) -> None:
    await desk.google.generate_image(image_request(quality=quality, ratio="auto"), desk.call())

    assert desk.sent["generationConfig"]["imageConfig"] == {"imageSize": size}


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"api": "agent"}, f"/v1beta1/publishers/google/models/{IMAGE_MODEL}:generateContent"),
        (
            BEARER,
            "/v1beta1/projects/acme-media/locations/us-central1/publishers/google/models/"
            f"{IMAGE_MODEL}:generateContent",
        ),
        ({"version": "v1"}, f"/v1/models/{IMAGE_MODEL}:generateContent"),
    ],
)
async def test_the_same_body_goes_to_the_agent_platform(desk: Desk, options: dict[str, Any], path: str) -> None:
    await desk.google.generate_image(image_request(), desk.call(options=options))

    assert desk.fake.seen[0].path == path
    assert desk.fake.accepted == 1


# --- what comes back --------------------------------------------------------------------------------------------------


async def test_the_last_image_that_is_no_draft_is_taken_whatever_the_spelling(desk: Desk) -> None:
    desk.fake.parts = [
        inline(png("green"), snake=True),
        inline(png("blue")),
        {"text": "done"},
        inline(png("red"), thought=True),
    ]

    result = await desk.google.generate_image(image_request(), desk.call())

    assert result.path.read_bytes() == png("blue")


async def test_usage_becomes_a_cost_where_the_account_knows_prices(desk: Desk) -> None:
    prices = {IMAGE_MODEL: {"input": 2, "text": 12, "image": 120}}

    result = await desk.google.generate_image(image_request(), desk.call(options={"prices": prices}))

    assert result.cost == Cost(560 * 2 + (10 + 70) * 12 + 1120 * 120)


async def test_a_refusal_keeps_its_cost(desk: Desk) -> None:
    desk.fake.say(finished("NO_IMAGE"))
    prices = {IMAGE_MODEL: {"input": 2, "image": "120"}}

    with pytest.raises(UpstreamFailed) as caught:
        await desk.google.generate_image(image_request(), desk.call(options={"prices": prices}))

    assert caught.value.cost == Cost(18)


BLOCKS = ("SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK")
FINISHES: dict[type[UpstreamError], tuple[str, ...]] = {
    UpstreamModerated: (
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "PROHIBITED_CONTENT", "SAFETY", "BLOCKLIST", "SPII"),
        *("RECITATION", "IMAGE_RECITATION", "ESCALATION", "MODEL_ARMOR"),
    ),
    UpstreamDenied: ("PUP_LIMITED_DISABLED",),
    UpstreamFailed: ("NO_IMAGE", "IMAGE_OTHER", "OTHER", "MALFORMED_RESPONSE", "STOP", "NEVER_HEARD_OF"),
    UpstreamRejected: ("MAX_TOKENS", "LANGUAGE"),
}


@pytest.mark.parametrize("word", BLOCKS)
@pytest.mark.parametrize("spelling", ["promptFeedback blockReason", "prompt_feedback block_reason"])
async def test_a_blocked_prompt_is_moderated_though_the_status_is_200(desk: Desk, word: str, spelling: str) -> None:
    outer, inner = spelling.split()
    desk.fake.say(Raw(200, {outer: {inner: word}}))

    with pytest.raises(UpstreamModerated):
        await desk.google.generate_image(image_request(), desk.call())


@pytest.mark.parametrize(("kind", "word"), [(kind, word) for kind, words in FINISHES.items() for word in words])
async def test_every_finish_without_an_image_has_its_class(desk: Desk, kind: type[UpstreamError], word: str) -> None:
    desk.fake.say(finished(word, {"text": "I would rather not."}))

    with pytest.raises(UpstreamError) as caught:
        await desk.google.generate_image(image_request(), desk.call())

    assert type(caught.value) is kind
    if kind is UpstreamFailed:
        assert caught.value.public == "The upstream returned no image: I would rather not."


@pytest.mark.parametrize("word", ["IMAGE_SAFETY", "PUP_LIMITED_DISABLED", "NO_IMAGE", "MAX_TOKENS"])
async def test_a_finish_that_refuses_wins_over_an_image(desk: Desk, word: str) -> None:
    desk.fake.say(finished(word, inline(png("red"))))

    with pytest.raises(UpstreamError) as caught:
        await desk.google.generate_image(image_request(), desk.call())

    assert word in FINISHES[type(caught.value)]


@pytest.mark.parametrize("word", ["STOP", "NEVER_HEARD_OF", None])
async def test_any_other_finish_with_an_image_is_a_success(desk: Desk, word: str | None) -> None:
    desk.fake.say(finished(word, inline(png("red"))))

    result = await desk.google.generate_image(image_request(), desk.call())

    assert result.path.read_bytes() == png("red")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (finished("STOP", inline(png("red"), thought=True)), UpstreamFailed),  # drafts only
        (finished("STOP", inline(b"")), UpstreamFailed),
        (Raw(200, {"candidates": []}), UpstreamFailed),
        (Raw(200, {"promptFeedback": {}}), UpstreamFailed),
        (Raw(200, {"candidates": [None, 3]}), UpstreamFailed),
        (finished("STOP", {"inlineData": {"mimeType": "image/png", "data": "***"}}), UpstreamOutcomeUnknown),
        (Raw(200, {}), UpstreamOutcomeUnknown),
        (Raw(200, [1]), UpstreamOutcomeUnknown),
        (Raw(200, "<html>"), UpstreamOutcomeUnknown),
        (Raw(302, "moved", {"Location": "https://example.com/"}), UpstreamOutcomeUnknown),
    ],
)
async def test_a_malformed_answer_is_never_an_image(desk: Desk, answer: Raw, kind: type[UpstreamError]) -> None:
    desk.fake.say(answer)

    with pytest.raises(UpstreamError) as caught:
        await desk.google.generate_image(image_request(), desk.call())

    assert type(caught.value) is kind


async def test_the_upstreams_reason_is_told_without_addresses(desk: Desk) -> None:
    message = f"Unable to show this image. See https://policies.google.com/x or {SECRET}. Support codes: 15236754"
    desk.fake.say(finished("IMAGE_SAFETY", finishMessage=message))

    with pytest.raises(UpstreamModerated) as caught:
        await desk.google.generate_image(image_request(), desk.call())

    assert caught.value.public.startswith("The request was refused by the content policy: Unable to show this image.")
    assert "http" not in caught.value.public
    assert "15236754" not in caught.value.public
    assert SECRET not in caught.value.public + str(caught.value)


# --- statuses ---------------------------------------------------------------------------------------------------------

STATUSES: list[tuple[Raw, type[UpstreamError], float | None]] = [
    (error(400, "INVALID_ARGUMENT", "Bad image."), UpstreamRejected, None),
    (error(400, "INVALID_ARGUMENT", "A safety setting is unknown."), UpstreamRejected, None),  # said of videos only
    (error(400, "INVALID_ARGUMENT", "no", error_info("API_KEY_INVALID")), UpstreamDenied, None),
    (error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), UpstreamDenied, None),
    (error(400, "FAILED_PRECONDITION", "User location is not supported."), UpstreamDenied, None),
    (error(401, "UNAUTHENTICATED", "no"), UpstreamDenied, None),
    (error(403, "PERMISSION_DENIED", "no"), UpstreamDenied, None),
    (error(404, "NOT_FOUND", "models/x is no longer available."), UpstreamDenied, None),
    (error(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit."), UpstreamRejected, None),
    (error(429, "RESOURCE_EXHAUSTED", "slow"), UpstreamBusy, None),
    (error(429, "RESOURCE_EXHAUSTED", "slow", quota_failure(PER_MINUTE), retry_info("34.5s")), UpstreamBusy, 34.5),
    (error(429, "RESOURCE_EXHAUSTED", "slow", {"retry_delay": {"seconds": "34"}}), UpstreamBusy, 34.0),
    (error(429, "RESOURCE_EXHAUSTED", "full", error_info("MODEL_CAPACITY_EXHAUSTED")), UpstreamBusy, None),
    (Raw(429, {"error": {"code": 429}}, {"Retry-After": "7"}), UpstreamBusy, 7.0),
    (error(429, "RESOURCE_EXHAUSTED", "quota", quota_failure(PER_DAY), retry_info("34s")), UpstreamDenied, None),
    (error(429, "RESOURCE_EXHAUSTED", "quota", quota_failure(PER_MINUTE, "XPerDay")), UpstreamDenied, None),
    (error(429, "RESOURCE_EXHAUSTED", "quota", quota_failure("input_token_free_tier")), UpstreamDenied, None),
    (error(500, "INTERNAL", "no"), UpstreamOutcomeUnknown, None),
    (Raw(502, "<html>Bad Gateway</html>"), UpstreamOutcomeUnknown, None),
    (error(503, "UNAVAILABLE", "The model is overloaded."), UpstreamOutcomeUnknown, None),
    (error(504, "DEADLINE_EXCEEDED", "no"), UpstreamOutcomeUnknown, None),
    (Raw(429, [{"error": {"code": 429, "details": [retry_info("3s")]}}]), UpstreamBusy, 3.0),  # in a list
]


@pytest.mark.parametrize(("answer", "kind", "wait_s"), STATUSES)
async def test_every_status_has_its_class(
    desk: Desk, answer: Raw, kind: type[UpstreamError], wait_s: float | None
) -> None:
    desk.fake.say(answer)

    with pytest.raises(UpstreamError) as caught:
        await desk.google.generate_image(image_request(), desk.call())

    assert type(caught.value) is kind
    assert caught.value.http_status == answer.status
    assert getattr(caught.value, "retry_after_s", None) == wait_s


@pytest.mark.parametrize("word", ["unauthorized", "bad_request", "error 502", "quota"])
async def test_no_error_holds_the_key_or_an_address(desk: Desk, word: str) -> None:
    desk.fake.will(word)

    with pytest.raises(UpstreamError) as caught:
        await desk.google.generate_image(image_request(), desk.call())

    for said in (str(caught.value), caught.value.public):
        assert SECRET not in said
        assert "googleapis" not in said
        assert "127.0.0.1" not in said


async def test_an_answer_cut_after_acceptance_is_unknown_and_never_sent_again(desk: Desk) -> None:
    desk.fake.will("cut")

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.google.generate_image(image_request(), desk.call())

    assert desk.fake.accepted == 1


async def test_nobody_listening_is_busy(desk: Desk) -> None:
    await desk.fake.stop()

    with pytest.raises(UpstreamBusy):
        await desk.google.generate_image(image_request(), desk.call())


async def test_no_key_sends_nothing(desk: Desk) -> None:
    with pytest.raises(UpstreamDenied):
        await desk.google.generate_image(image_request(), desk.call(secret=None))

    assert not desk.fake.seen


# --- what cannot be served --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "model", "named"),
    [
        ({}, IMAGE_MODEL, None),
        ({"ratio": "auto", "quality": "uhd", "background": "transparent"}, IMAGE_MODEL, None),
        ({"ratio": "9:21"}, IMAGE_MODEL, "'size' 9:21"),
        ({"ratio": "1:8"}, IMAGE_MODEL, "'size' 1:8"),
        ({"ratio": "1:8"}, "gemini-3.1-flash-image", None),
        ({"quality": "8k"}, IMAGE_MODEL, "'quality' 8k"),
    ],
)
def test_what_cannot_be_served_is_named(fields: dict[str, Any], model: str, named: str | None) -> None:
    said = GoogleProvider().why_not(image_request(**fields), model, Upstream("google", "google"))

    assert said is None if named is None else (said or "").startswith(named)


async def test_inputs_that_cannot_be_served_are_named(desk: Desk) -> None:
    picture = desk.picture()
    gif = desk.file(b"GIF89a", "image/gif", "image_urls")
    large = desk.file(b"x" * (7 * 1024 * 1024 + 1), "image/png", "mask")

    def said(**fields: Any) -> str:
        return desk.google.why_not(image_request(**fields), IMAGE_MODEL, desk.upstream(AGENT)) or ""

    assert said(images=(picture,) * MAX_INPUTS) == ""
    assert "'image'" in said(images=(picture,) * MAX_INPUTS, mask=picture)
    assert "'image_urls' is image/gif" in said(images=(picture, gif))
    assert "'mask' is larger than 7 MiB" in said(images=(picture,), mask=large)
