"""What the console says of a task's story, an audit row and a form that was sent twice."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from app.console.admin.audit import difference, shown_target
from app.console.admin.timeline_words import words_of
from app.console.i18n import texts
from app.console.navigation import place_of
from app.console.user.story import story
from app.generation.journal import AuditRow
from app.generation.timeline import Event, Move, Timeline

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def _at(micros: int) -> datetime:
    return NOON.replace(microsecond=micros)


def test_what_is_charged_stands_between_storing_and_done_within_one_second() -> None:
    moves = [Move(_at(1), "storing", "p", 1, None), Move(_at(5), "succeeded", "p", 1, None)]
    entry = SimpleNamespace(kind="capture", amount=-7, seq=3, created_at=_at(9))
    task = SimpleNamespace(created_at=_at(0), hold=10, charge=7, settled_at=_at(9), cancel_requested_at=None)
    timeline = SimpleNamespace(task=task, moves=moves, entries=[entry], notices=[])
    told = [line.text for line in story(cast("Timeline", timeline), texts("en"))]
    assert told[1:] == ["Checking and storing the result", "7 credits charged", "3 credits released", "Done"]


def test_an_event_is_told_in_the_readers_language_and_other_peoples_words_stay() -> None:
    gettext = texts("zh_CN").gettext
    told = words_of(Event(NOON, "hold", None, "10 credits put aside"), gettext)
    assert (told.what, told.text) == (gettext("Held"), "10 积分")
    assert words_of(Event(NOON, "task.refund", "boss", "a reason"), gettext).text == "a reason"
    assert words_of(Event(NOON, "task.cancel", "boss", "for fun"), gettext).text == "for fun"
    assert words_of(Event(NOON, "new.word", None, ""), gettext).what == "new.word"
    assert words_of(Event(NOON, "webhook.made", None, "for example.test"), gettext).text == "发往 example.test"
    asked = words_of(Event(NOON, "accepted", "a@b.test with key_7 'x y' (..abcd)", "image.edit with m-1"), gettext)
    assert (asked.text, asked.by) == ("图片编辑，模型 m-1", "a@b.test，密钥 key_7 'x y' (..abcd)")
    ended = words_of(
        Event(NOON, "attempt.resolved", "p", "2: failed, moderation, 400, id-1, Blocked, they say"), gettext
    )
    assert ended.text == "2: 失败, 内容审核, 400, id-1, Blocked, they say"


def test_an_audit_row_of_something_new_leaves_out_what_is_empty() -> None:
    row: Any = SimpleNamespace(before=None, after={"name": "x", "budget": None, "tags": [], "rpm": 0}, reason=None)
    assert [line.name for line in difference(cast("AuditRow", row))] == ["name", "rpm"]
    assert [shown_target(name) for name in ("account:4", "key:4", "model:a")] == ["acct_4", "key_4", "model:a"]


def test_a_place_is_called_as_in_the_menu() -> None:
    assert place_of("/console/admin/users/acct_4") == "Users and credits"
    assert place_of("/elsewhere") is None
