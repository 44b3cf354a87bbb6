"""Failpoints: read exactly, passed without effect, and met where they were asked for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import failpoints
from app.failpoints import FailpointReached, Fault, failpoint, failpoint_in_thread
from app.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def disarmed(tmp_path: Path) -> Iterator[None]:
    yield
    failpoints.arm("", tmp_path)


async def test_nothing_happens_at_a_point_that_nobody_asked_for(tmp_path: Path) -> None:
    await failpoint("after_claim")
    failpoints.arm("after_poll:raise", tmp_path)

    await failpoint("after_claim")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("after_claim:kill", Fault("kill", nth=1)),
        ("after_claim:kill@3", Fault("kill", nth=3)),
        ("after_claim:raise", Fault("raise")),
        ("after_claim:sleep=0.5", Fault("sleep", 0.5)),
        ("after_claim:sleep=2@4", Fault("sleep", 2.0, 4)),
    ],
)
def test_an_entry_is_read(text: str, fault: Fault) -> None:
    assert failpoints.parse(text) == {"after_claim": fault}


def test_several_entries_are_read() -> None:
    assert failpoints.parse("after_claim:raise, after_poll:kill").keys() == {"after_claim", "after_poll"}


@pytest.mark.parametrize("text", ["after_lunch:kill", "after_claim", "after_claim:explode", "after_claim:kill@x"])
def test_a_wrong_entry_is_named_with_the_points_that_exist(text: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){text}.*before_settle"):
        failpoints.parse(text)


async def test_a_point_raises_at_the_pass_that_was_named(tmp_path: Path) -> None:
    failpoints.arm("after_poll:raise@2", tmp_path)

    await failpoint("after_poll")
    with pytest.raises(FailpointReached):
        await failpoint("after_poll")
    await failpoint("after_poll")


def test_a_point_in_a_thread_raises_too(tmp_path: Path) -> None:
    failpoints.arm("after_rename:raise", tmp_path)

    with pytest.raises(FailpointReached):
        failpoint_in_thread("after_rename")


def test_a_data_folder_sees_each_kill_once(tmp_path: Path) -> None:
    """The process that takes the dead one's place, with the same environment, lives."""
    deaths = [_child_dies(tmp_path) for _ in range(2)]

    assert deaths == [True, False]


def _child_dies(marks: Path) -> bool:
    child = os.fork()
    if child == 0:
        failpoints.arm("after_settle:kill", marks)
        failpoint_in_thread("after_settle")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_the_setting_is_checked_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDIAGATE_FAIL", "after_lunch:kill")

    with pytest.raises(SettingsError, match=r"MEDIAGATE_FAIL.*after_lunch"):
        load_settings(data=tmp_path, mint_secrets=False)


def test_production_refuses_failpoints(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MEDIAGATE_FAIL is for tests"):
        load_settings(env="production", fail="after_claim:kill", data=tmp_path, mint_secrets=False)


def test_nothing_fails_unless_it_is_told() -> None:
    assert Settings.model_fields["fail"].default is None
