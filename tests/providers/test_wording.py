"""What an upstream said, made fit to be shown."""

from __future__ import annotations

import pytest

from app.upstreams.contract.harness import SECRET
from app.upstreams.wording import MAX_CHARS, cleaned, refusal


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("The parameter `duration` is not valid.", "The parameter `duration` is not valid."),
        ("The parameter is bad. Request id: 0217abc", "The parameter is bad"),
        ("Too large (request_id=1-2-3)", "Too large"),
        ("See https://help.example/a?b=c for more", "See ... for more"),
        (f"The key {SECRET} is wrong", "The key ... is wrong"),
        ("Authorization: Bearer abc.def is wrong", "Authorization: ... is wrong"),
        ("cannot reach 10.0.0.7:8080/x today", "cannot reach ... today"),
        ("cannot reach api.internal.example.com:443/v1 today", "cannot reach ... today"),
        ("model doubao-seedance-2-0-260128 is gone", "model ... is gone"),
        ("account 2100123456789 is overdue", "account ... is overdue"),
        ("write to ops@vendor.example please", "write to ... please"),
        ("content[1].image_url.url must be 300 to 6000 px", "content[1].image_url.url must be 300 to 6000 px"),
        ("图片尺寸过小", "图片尺寸过小"),
        ("data:image/png;base64,AAAA is broken", "... is broken"),
        ("a\x00b\n c", "a b c"),
        ("...", ""),
        (None, ""),
    ],
)
def test_what_gives_something_away_is_left_out(said: str | None, shown: str) -> None:
    assert cleaned(said) == shown


def test_it_is_short() -> None:
    assert len(cleaned("word " * 500)) <= MAX_CHARS
    assert len(cleaned("x" * 5000)) <= MAX_CHARS


def test_a_refusal_without_words_says_nothing() -> None:
    assert refusal("") is None
    assert refusal("Too dark.") == "The upstream refused this request: Too dark."
