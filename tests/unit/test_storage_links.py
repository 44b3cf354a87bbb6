"""Signed result URLs: they open exactly what was signed, until they expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import SecretStr

from app.errors import SignatureExpired
from app.storage.links import KINDS, Links

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TASK = "task_01jdexample0000000000000000"
LINKS = Links(SecretStr("a secret of the tests, long enough"), "https://gw.example/")


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_url_opens_its_file(kind: str) -> None:
    url = LINKS.sign(TASK, kind, NOW + timedelta(hours=24))

    LINKS.verify(TASK, kind, query_of(url), NOW)

    assert url.startswith(f"https://gw.example/api/jobs/{TASK}/{kind}?e=")
    assert query_of(url).keys() == {"e", "k", "s"}


@pytest.mark.parametrize(("late_s", "is_open"), [(0, True), (60, True), (61, False), (86400, False)])
def test_it_expires_with_a_minute_of_mercy_for_clocks(late_s: int, is_open: bool) -> None:
    query = query_of(LINKS.sign(TASK, "image", NOW))

    if is_open:
        LINKS.verify(TASK, "image", query, NOW + timedelta(seconds=late_s))
        return
    with pytest.raises(SignatureExpired):
        LINKS.verify(TASK, "image", query, NOW + timedelta(seconds=late_s))


def test_it_opens_no_other_task_and_no_other_kind() -> None:
    query = query_of(LINKS.sign(TASK, "image", NOW))

    with pytest.raises(SignatureExpired):
        LINKS.verify(TASK[:-1] + "1", "image", query, NOW)
    with pytest.raises(SignatureExpired):
        LINKS.verify(TASK, "video", query, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"e": "99999999999"},
        {"e": ""},
        {"e": "+1"},
        {"e": "٣"},
        {"k": "2"},
        {"k": ""},
        {"s": ""},
        {"s": "0" * 64},
        {"s": "é"},
        {"s": "\ud800"},
    ],
)
def test_a_changed_query_opens_nothing(change: dict[str, str]) -> None:
    query = query_of(LINKS.sign(TASK, "image", NOW)) | change

    with pytest.raises(SignatureExpired):
        LINKS.verify(TASK, "image", query, NOW)


def test_nothing_opens_nothing() -> None:
    with pytest.raises(SignatureExpired):
        LINKS.verify(TASK, "image", {}, NOW)


def test_another_secret_signs_otherwise() -> None:
    other = Links(SecretStr("another secret of the tests, as long"), "https://gw.example")

    with pytest.raises(SignatureExpired):
        LINKS.verify(TASK, "image", query_of(other.sign(TASK, "image", NOW)), NOW)


def test_an_unknown_kind_is_never_signed() -> None:
    with pytest.raises(ValueError, match="kind"):
        LINKS.sign(TASK, "../image", NOW)
