"""The log holds events, never secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app import log

KEY = "sk-mg_Zk3vQ8Yp0aTt9LrXwB7nCmE5sJ2hUdGf1oIyKq4VabcdEF"
SIGNATURE = "5f2d8a6b9c1e4f70aa31"
SECRETS = {
    "a key": (f"refused {KEY} from 10.0.0.1", KEY),
    "somebody else's key": ("upstream said: bad key sk-proj-abcDEF123456_x-y", "abcDEF123456_x-y"),
    "a bearer header": (f"GET / Authorization: Bearer {KEY[3:]}", KEY[3:]),
    "a header of another scheme": ("{'authorization': 'Basic dXNlcjpwYXNzd29yZA=='}", "dXNlcjpwYXNzd29yZA"),
    "a bare bearer": ("Bearer eyJhbGciOi.J9eyJzdWIi.OiIx", "eyJhbGciOi"),
    "a signed link": (f"https://h/api/jobs/task_1/image?e=1&k=1&s={SIGNATURE}", SIGNATURE),
    "a link signed first": (f"https://h/x?s={SIGNATURE}&e=1", SIGNATURE),
    "another vendor's signature": (f"https://b/x?X-Amz-Signature={SIGNATURE}&X-Amz-Date=1", SIGNATURE),
    "a file as a URL": ('{"image": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="}', "iVBORw0KGgo"),
    "a sign-in link": (f"GET /console/join/{SIGNATURE}{SIGNATURE} failed", SIGNATURE),
    "a session's cookie": (f"Cookie: a=b; __Host-mg={SIGNATURE}; mg={SIGNATURE}", SIGNATURE),
    "a provider's code": (f"/console/oidc/callback?code={SIGNATURE}&state=x", SIGNATURE),
    "a database's password": ("postgresql://mediagate:hunter2hunter2@/mediagate?host=/run", "hunter2hunter2"),
}


@pytest.fixture(params=["console", "json"])
def written(request) -> Iterator[io.StringIO]:
    """The text of a log in this form; the log is as before afterwards."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    text = io.StringIO()
    log.configure(form=request.param, level="debug", stream=text)
    yield text
    logging.captureWarnings(False)
    root.handlers, root.level = before


@pytest.mark.parametrize("case", SECRETS)
def test_no_secret_leaves_in_any_part_of_an_event(written, case):
    text, secret = SECRETS[case]

    structlog.get_logger("app").info("event", value=text, inner={"list": [text, (text,)]}, error=ValueError(text))

    assert secret not in written.getvalue()
    assert log.REMOVED in written.getvalue()


@pytest.mark.parametrize("case", SECRETS)
def test_no_secret_leaves_through_a_librarys_line_or_a_traceback(written, case):
    text, secret = SECRETS[case]

    logging.getLogger("library").warning("it said %s", text)
    try:
        raise RuntimeError(text)
    except RuntimeError:
        structlog.get_logger("app").exception("event")

    assert secret not in written.getvalue()
    assert "RuntimeError" in written.getvalue()


@pytest.mark.parametrize("name", ["Authorization", "set-cookie", "key_pepper", "api_key", "client_secret", "password"])
def test_a_value_under_a_secret_name_is_removed_whatever_it_looks_like(written, name):
    structlog.get_logger("app").info("event", headers={name: "correct horse"})

    assert "correct horse" not in written.getvalue()


def test_bytes_are_counted_and_not_printed(written):
    structlog.get_logger("app").info("event", body=b"\x89PNG secret pixels")

    assert "[18 bytes]" in written.getvalue()
    assert "pixels" not in written.getvalue()


def test_what_is_no_secret_stays_readable(written):
    structlog.get_logger("app").info("task.submitted", url="https://h/v1/tasks?status=queued&limit=5", attempt=2)

    assert "https://h/v1/tasks?status=queued&limit=5" in written.getvalue()
    assert log.REMOVED not in written.getvalue()


def test_a_request_id_is_on_every_line_of_its_block(written):
    with log.bound(request_id="req_1", task_id="task_1"):
        structlog.get_logger("app").info("inside")
        logging.getLogger("library").warning("inside too")
    structlog.get_logger("app").info("outside")

    lines = written.getvalue().splitlines()
    assert [("req_1" in line, "task_1" in line) for line in lines] == [(True, True), (True, True), (False, False)]


def test_in_production_every_line_is_one_json_object():
    root = logging.getLogger()
    before = list(root.handlers), root.level
    text = io.StringIO()
    log.configure(form="json", stream=text)
    try:
        structlog.get_logger("app.tasks").info("task.failed", reason="第一\nline", exc_info=ValueError("why"))
        structlog.get_logger("app.tasks").debug("below the level")
    finally:
        logging.captureWarnings(False)
        root.handlers, root.level = before

    (line,) = text.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["logger"]) == ("task.failed", "info", "app.tasks")
    assert event["reason"] == "第一\nline"
    assert event["timestamp"].endswith("Z")
    assert "ValueError: why" in event["exception"]


def test_a_long_line_is_cleaned_in_no_time():
    text = "a." * 100_000 + "://" + "data:" * 10_000 + "authorization " * 10_000

    assert log.redact_text(text) == text


def test_a_logger_that_was_used_before_follows_the_next_set_up(written):
    logger = structlog.get_logger("tests.early")
    logger.info("first.line")

    later = io.StringIO()
    log.configure(form="json", stream=later)
    logger.info("second.line")

    assert "first.line" in written.getvalue()
    assert json.loads(later.getvalue())["event"] == "second.line"


def test_what_is_captured_includes_loggers_that_were_used_under_an_earlier_set_up(written):
    logger = structlog.get_logger("tests.cached")
    logger.info("first.line")
    log.configure(form="json", stream=io.StringIO())

    with structlog.testing.capture_logs() as captured:
        logger.info("second.line")

    assert [entry["event"] for entry in captured] == ["second.line"]
