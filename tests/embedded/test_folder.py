"""One owner per data folder, and sockets with short paths."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path

import pytest

from app.embedded.folder import FolderInUse, drop_socket_folder, locked, socket_folder
from tests.embedded.owners import owner_of

HOLDER = """
import sys, time
from pathlib import Path
from app.embedded.folder import locked
with locked(Path(sys.argv[1])):
    print("", flush=True)
    time.sleep(600)
"""


def test_a_second_owner_is_refused_in_one_sentence_that_names_the_first(tmp_path):
    with owner_of(tmp_path, HOLDER) as (owner, _), pytest.raises(FolderInUse) as refused, locked(tmp_path):
        pass

    sentence = str(refused.value)
    assert f"(process {owner.pid})" in sentence
    assert "--data" in sentence
    assert "\n" not in sentence


def test_a_killed_owner_frees_the_folder_at_once(tmp_path):
    with owner_of(tmp_path, HOLDER) as (owner, _):
        owner.kill()
        owner.wait()

        with locked(tmp_path):
            assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_two_folders_have_two_owners(tmp_path):
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        assert (tmp_path / "b" / "lock").exists()


def test_sockets_lie_in_the_folder_itself_where_only_we_may_enter(tmp_path):
    made = socket_folder(tmp_path)

    assert made == tmp_path / "run"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_folder_with_a_long_path_gets_a_short_one_and_keeps_it(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("y" * 100)))  # too long as well: /tmp it is

    made = socket_folder(folder)

    assert len(str(made)) < 40
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert socket_folder(folder) == made
    drop_socket_folder(folder)
    assert not made.exists()


@pytest.mark.parametrize("kind", ["open to all", "a link", "gone"])
def test_a_short_folder_that_is_no_longer_ours_is_not_used(tmp_path, kind):
    folder, other = tmp_path / ("x" * 100), tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    if kind == "open to all":
        other.chmod(0o777)
    elif kind == "a link":
        (tmp_path / "link").symlink_to(other)
        other = tmp_path / "link"
    else:
        other.rmdir()
    (folder / "run.json").write_text(json.dumps({"folder": str(other)}))

    made = socket_folder(folder)

    assert made != other
    drop_socket_folder(folder)
    assert not Path(made).exists()
