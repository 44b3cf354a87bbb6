"""Each row of the contracts' tables of errors, and what a caller or a log may read of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.upstreams.contract.harness import SECRET
from app.upstreams.protocols import (
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)
from tests.providers.openai_calls import Desk, close_desk, image_request, open_desk, video_request

LEAKY = (
    f"Bad size for key {SECRET} at https://api.openai.com/v1/x?sig=abc on 10.1.2.3 or gpu-7.internal:8000 "
    "or localhost:1 for org-Ab12Cd34Ef56Gh78, mail ops@example.com"
)


def _error(message: str = "no", code: Any = None, type: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code, **more}}


ROWS: list[tuple[str, int, Any, type[UpstreamError]]] = [
    ("bad size", 400, _error("Invalid size", "invalid_value", "invalid_request_error"), UpstreamRejected),
    (
        "user error that is no moderation",
        400,
        _error("bad mask", None, "image_generation_user_error"),
        UpstreamRejected,
    ),
    ("moderation parameter", 400, _error("Invalid value for 'moderation'"), UpstreamRejected),
    ("unprocessable", 422, {"detail": [{"loc": ["body", "size"], "msg": "not a size"}]}, UpstreamRejected),
    ("too large", 413, _error("too large"), UpstreamRejected),
    ("plain string, stable-diffusion.cpp", 400, {"error": "prompt required"}, UpstreamRejected),
    ("message at the top", 400, {"object": "error", "message": "bad", "code": 400}, UpstreamRejected),
    ("unknown 4xx", 418, "teapot", UpstreamRejected),
    ("moderation", 400, _error("no", "moderation_blocked", "image_generation_user_error"), UpstreamModerated),
    ("moderation by details", 400, _error("no", moderation_details={"moderation_stage": "output"}), UpstreamModerated),
    ("moderation of DALL-E and relays", 400, _error("no", "content_policy_violation"), UpstreamModerated),
    ("moderation in words", 400, {"error": "Your request was rejected by our safety system"}, UpstreamModerated),
    ("moderation with 451", 451, _error("unavailable"), UpstreamModerated),
    ("moderation with 500", 500, _error("no", "content_policy_violation"), UpstreamModerated),
    ("key", 401, _error("Incorrect API key", "invalid_api_key"), UpstreamDenied),
    ("organisation not verified", 403, _error("must be verified"), UpstreamDenied),
    ("region", 403, _error("no", "unsupported_country_region_territory"), UpstreamDenied),
    ("key with 400", 400, _error("API key", "invalid_api_key"), UpstreamDenied),
    ("payment", 402, _error("pay"), UpstreamDenied),
    ("quota", 429, _error("quota", "insufficient_quota", "insufficient_quota"), UpstreamDenied),
    ("quota by type only", 429, _error("quota", None, "insufficient_quota"), UpstreamDenied),
    ("billing limit", 400, _error("limit", "billing_hard_limit_reached"), UpstreamDenied),
    ("retired model", 404, _error("gone", "model_not_found"), UpstreamDenied),
    ("retired model, 410", 410, _error("gone"), UpstreamDenied),
    ("a relay without a channel", 503, _error("no channel", "model_not_found"), UpstreamDenied),
    ("rate", 429, _error("slow", "rate_limit_exceeded", "requests"), UpstreamBusy),
    ("rate without a body", 429, "", UpstreamBusy),
    ("408", 408, _error(), UpstreamOutcomeUnknown),
    ("409", 409, _error(), UpstreamOutcomeUnknown),
    ("500", 500, _error("oops", None, "server_error"), UpstreamOutcomeUnknown),
    ("500, plain string", 500, {"error": "generate_image returned no results"}, UpstreamOutcomeUnknown),
    ("502, a page", 502, "<html>Bad Gateway</html>", UpstreamOutcomeUnknown),
    ("503", 503, _error("overloaded"), UpstreamOutcomeUnknown),
    ("504", 504, "", UpstreamOutcomeUnknown),
    ("200, quota in the body", 200, {"code": 402, "message": "pay"}, UpstreamDenied),
    ("200, integer code", 200, _error("slow", 429), UpstreamBusy),
    ("200, code as text", 200, _error("bad", "400"), UpstreamRejected),
    ("200, server error in the body", 200, _error("oops", 500), UpstreamOutcomeUnknown),
    ("200, type only", 200, _error("bad", None, "invalid_request_error"), UpstreamRejected),
    ("200, rate by type", 200, _error("slow", None, "rate_limit_error"), UpstreamBusy),
    ("200, moderated", 200, _error("no", "moderation_blocked"), UpstreamModerated),
    ("200, a string", 200, {"error": "out of memory"}, UpstreamFailed),
    ("200, no image", 200, {"created": 1, "data": []}, UpstreamOutcomeUnknown),
    ("200, an image of nothing", 200, {"data": [{"b64_json": "", "url": None}]}, UpstreamOutcomeUnknown),
    ("200, not base64", 200, {"data": [{"b64_json": "!!"}]}, UpstreamOutcomeUnknown),
    ("200, a page", 200, "<html>OK</html>", UpstreamOutcomeUnknown),
    ("202, a task", 202, {"code": 200, "data": [{"task_id": "t", "status": "submitted"}]}, UpstreamOutcomeUnknown),
]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = await open_desk(tmp_path)
    yield desk
    await close_desk(desk)


async def raised_by(desk: Desk, status: int, body: Any, headers: dict[str, str] | None = None, **options: Any) -> Any:
    desk.fake.submits.append((status, body, headers or {}))
    with pytest.raises(UpstreamError) as raised:
        await desk.provider.generate_image(image_request(), desk.call(**options))
    assert len(desk.fake.seen) == 1
    return raised.value


@pytest.mark.parametrize(("status", "body", "kind"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
async def test_each_answer_means_one_thing(desk: Desk, status: int, body: Any, kind: type[UpstreamError]) -> None:
    error = await raised_by(desk, status, body)

    assert type(error) is kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after-ms": "1500", "retry-after": "9"}, 1.5), ({"retry-after": "2"}, 2.0), ({}, None)],
)
async def test_the_wished_wait_is_read(desk: Desk, headers: dict[str, str], seconds: float | None) -> None:
    error = await raised_by(desk, 429, _error("slow"), headers)

    assert error.retry_after_s == seconds


async def test_an_operator_may_declare_a_status_as_never_accepted(desk: Desk) -> None:
    error = await raised_by(desk, 503, _error("overloaded"), refusal_statuses=[503])

    assert type(error) is UpstreamBusy


async def test_a_lost_connection_after_acceptance_is_one_submit_and_an_unknown_outcome(desk: Desk) -> None:
    desk.fake.submits.append("cut")

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.provider.generate_image(image_request(), desk.call())

    assert desk.fake.accepted == 1


async def test_an_answer_that_does_not_come_is_an_unknown_outcome(desk: Desk) -> None:
    desk.fake.submits.append("hang")

    with pytest.raises(UpstreamOutcomeUnknown):
        await desk.provider.generate_image(image_request(), desk.call(timeout_s=0.05))

    assert desk.fake.accepted == 1


async def test_nobody_there_means_not_accepted(desk: Desk) -> None:
    await desk.fake.stop()

    with pytest.raises(UpstreamBusy):
        await desk.provider.generate_image(image_request(), desk.call())


async def test_an_endless_document_is_given_up(desk: Desk) -> None:
    error = await raised_by(desk, 200, {"data": [], "padding": "x" * (17 * 1024**2)})

    assert type(error) is UpstreamOutcomeUnknown


async def test_a_caller_reads_why_the_request_was_refused(desk: Desk) -> None:
    error = await raised_by(desk, 400, _error("The mask is not square."))

    assert error.public == "The upstream refused this request: The mask is not square."


async def test_a_caller_reads_which_category_was_refused(desk: Desk) -> None:
    details = {"moderation_stage": "output", "categories": ["violence", "self-harm", "<b>"]}

    error = await raised_by(desk, 400, _error("no", "moderation_blocked", moderation_details=details))

    assert error.public == "The result was refused by the content policy (violence, self-harm)."


@pytest.mark.parametrize("status", [400, 401, 404, 429, 451, 500, 200])
@pytest.mark.parametrize("form", ["object", "string", "page"])
async def test_neither_the_caller_nor_the_log_reads_a_secret(desk: Desk, status: int, form: str) -> None:
    body: Any = {"object": _error(LEAKY), "string": {"error": LEAKY}, "page": f"<p>{LEAKY}"}[form]

    error = await raised_by(desk, status, body)

    assert SECRET not in str(error)
    for leak in (SECRET[:12], "://", "openai.com", "10.1.2.3", "gpu-7", "localhost", "org-", "ops@", "gpt-image"):
        assert leak not in error.public


async def test_errors_of_a_videos_submit_are_read_alike(desk: Desk) -> None:
    for status, body, kind in [row[1:] for row in ROWS if row[1] != 200 and row[1] != 202]:
        desk.fake.submits.append((status, body))
        with pytest.raises(UpstreamError) as raised:
            await desk.provider.submit_video(video_request(), desk.call("sora-2"))
        assert type(raised.value) is kind, json.dumps(body)
