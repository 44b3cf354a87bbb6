"""Every error in one envelope, with the headers that steer the SDKs' own retries."""

from __future__ import annotations

import pytest
from fastapi import FastAPI, Request
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from structlog.testing import capture_logs

from app.api import errors
from app.api.middleware import RequestShell
from app.errors import (
    DatabaseUnavailable,
    MediagateError,
    Overloaded,
    QueueFull,
    SyncWaitExceeded,
    TaskNotReady,
    UpstreamErrorPublic,
    WrongSecretsKey,
)
from app.settings import Settings

ENVELOPE = {"message", "type", "code", "param", "reason", "request_id", "task_id"}


@pytest.mark.parametrize("path", ["/nowhere", "/v1/tasks/", "/v1/nowhere", "/v1/me/", "/docs/nothing.js"])
async def test_an_unknown_path_is_404_in_the_envelope(client, path):
    answer = await client.get(path)

    error = answer.json()["error"]
    assert answer.status_code == 404
    assert set(error) == ENVELOPE
    assert (error["type"], error["reason"], error["code"]) == ("not_found_error", "route_not_found", 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/images/edits/x/y", None),
        ("PUT", "/v1/videos", "GET, POST"),
        ("PATCH", "/v1/videos/task_x", "GET, DELETE"),
        ("DELETE", "/v1/me", "GET"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_and_names_every_right_one(client, method, path, allowed):
    answer = await client.request(method, path)

    error = answer.json()["error"]
    assert answer.status_code == (405 if allowed else 404)
    assert answer.headers.get("allow") == allowed
    assert error["reason"] == ("method_not_allowed" if allowed else "route_not_found")


async def test_every_answer_has_a_request_id_and_the_body_repeats_it(client):
    answer = await client.get("/v1/me", headers={"x-request-id": "order-1042"})
    other = await client.get("/v1/me")
    healthy = await client.get("/healthz")

    assert answer.headers["x-request-id"] == answer.json()["error"]["request_id"] == "order-1042"
    assert other.headers["x-request-id"] not in ("", "order-1042")
    assert healthy.headers["x-request-id"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("status=done", "status"),
        ("type=image", "type"),
        ("after=task_nobody", "after"),
        ("model=%00", "model"),
    ],
)
async def test_a_bad_query_is_400_and_named(client, caller, query, param):
    answer = await client.get(f"/v1/tasks?{query}", headers=caller.headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["reason"], error["param"]) == ("invalid_parameter", param)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/tasks?limit=0", """Invalid value for 'limit': "0". Allowed: a number from 1."""),
        ("/v1/tasks?limit=101", """Invalid value for 'limit': "101". Allowed: a number up to 100."""),
        ("/v1/tasks?limit=many", """Invalid value for 'limit': "many". Allowed: a whole number."""),
        ("/v1/tasks?model=a%20b", """Invalid value for 'model': "a b". Allowed: visible ASCII characters."""),
        ("/v1/tasks/task_x?wait=soon", """Invalid value for 'wait': "soon". Allowed: a number."""),
        ("/v1/videos?order=random", """Invalid value for 'order': "random". Allowed: asc, desc."""),
        (
            "/api/jobs/task_x/secrets",
            """Invalid value for 'kind': "secrets". Allowed: image, video, thumbnail, gif.""",
        ),
    ],
)
async def test_a_bad_query_is_told_like_a_bad_field(client, caller, path, message):
    answer = await client.get(path, headers=caller.headers)

    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


@pytest.mark.parametrize("wait", ["-1", "61", "soon", "nan"])
async def test_a_bad_wait_is_400(client, caller, wait):
    answer = await client.get(f"/v1/tasks/task_x?wait={wait}", headers=caller.headers)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "wait")


@pytest.fixture
async def failing() -> AsyncClient:
    """Yield a client of a small application whose one route raises what its test put there."""
    app = FastAPI(redirect_slashes=False)
    errors.install(app)
    app.add_middleware(RequestShell, settings=Settings())
    app.state.error = ValueError("a secret")

    @app.api_route("/admin/fail", methods=["GET"])
    @app.api_route("/fail", methods=["GET", "POST"])
    async def fail(request: Request) -> None:
        if request.app.state.task_id:
            errors.note_task(request, request.app.state.task_id)
        raise request.app.state.error

    app.state.task_id = None
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://gateway.test") as client:
        client.app = app
        yield client


async def test_the_unforeseen_is_a_500_without_details(failing):
    with capture_logs() as logs:
        answer = await failing.get("/fail")

    error = answer.json()["error"]
    assert answer.status_code == 500
    assert (error["type"], error["reason"], error["code"]) == ("server_error", "internal_error", 500)
    assert "secret" not in answer.text
    assert "ValueError" not in answer.text
    assert [(entry["event"], entry["exc_info"]) for entry in logs] == [("request.failed", failing.app.state.error)]


@pytest.mark.parametrize(
    ("path", "status", "reason"), [("/fail", 500, "internal_error"), ("/admin/fail", 400, "wrong_secrets_key")]
)
async def test_how_the_gateway_is_set_up_is_told_to_operators_alone(failing, path, status, reason):
    failing.app.state.error = WrongSecretsKey("a1b2c3")

    error = (await failing.get(path)).json()["error"]

    assert (error["code"], error["reason"]) == (status, reason)
    assert ("MEDIAGATE_SECRETS_KEY" in error["message"]) is (status == 400)


async def test_what_receive_raised_is_found_inside_the_framework_s_wrapping(failing):
    wrapping = HTTPException(400, "There was an error parsing the body")
    wrapping.__cause__ = Overloaded("No room.", retry_after_s=400)
    failing.app.state.error = wrapping

    answer = await failing.post("/fail")

    assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "60"


async def test_a_database_that_went_away_is_503(failing):
    failing.app.state.error = OperationalError("SELECT", {}, ConnectionResetError(), connection_invalidated=True)

    read = await failing.get("/fail")
    write = await failing.post("/fail")

    assert (read.status_code, read.json()["error"]["reason"]) == (503, "database_unavailable")
    assert (read.headers["x-should-retry"], read.headers["retry-after"]) == ("true", "2")
    assert write.headers["x-should-retry"] == "false"  # it may have been the last of several statements


@pytest.mark.parametrize(
    ("error", "method", "should_retry"),
    [
        (Overloaded("x"), "POST", "true"),
        (DatabaseUnavailable("x"), "POST", "true"),
        (DatabaseUnavailable("x", task_id="task_1"), "POST", "false"),
        (UpstreamErrorPublic("x"), "POST", "false"),
        (SyncWaitExceeded("x", task_id="task_1"), "POST", "false"),
        (ValueError("x"), "POST", "false"),
        (ValueError("x"), "GET", None),
        (QueueFull("x"), "POST", "true"),
        (TaskNotReady("x"), "GET", None),
    ],
)
async def test_x_should_retry_is_false_once_money_may_have_moved(failing, error, method, should_retry):
    failing.app.state.error = error

    with capture_logs():
        answer = await failing.request(method, "/fail")

    assert answer.headers.get("x-should-retry") == should_retry
    if isinstance(error, MediagateError) and error.task_id:
        assert answer.headers["x-task-id"] == "task_1"


async def test_what_fails_after_a_task_was_made_names_the_task(failing):
    failing.app.state.task_id = "task_42"

    with capture_logs():
        answer = await failing.post("/fail")

    assert answer.status_code == 500
    assert answer.json()["error"]["task_id"] == answer.headers["x-task-id"] == "task_42"
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("status", "told", "reason"), [(418, 400, "invalid_parameter"), (507, 500, "internal_error")])
async def test_whatever_else_the_framework_raises_wears_the_envelope(failing, status, told, reason):
    failing.app.state.error = HTTPException(status, "said the framework")

    with capture_logs():
        answer = await failing.get("/fail")

    assert (answer.status_code, answer.json()["error"]["reason"]) == (told, reason)


async def test_an_answer_that_has_begun_is_broken_off_and_not_ended(failing):
    async def broken():
        yield b"half of "
        raise OSError("the disk is gone")

    @failing.app.get("/broken")
    async def broken_answer() -> StreamingResponse:
        return StreamingResponse(broken())

    with pytest.raises(OSError, match="the disk is gone"):
        await failing.get("/broken")
