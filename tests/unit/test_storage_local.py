"""Files under keys: adopted whole, safe to repeat, and never outside of the store's folder."""

# ruff: noqa: ASYNC240 - the files of a test are small
from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from app.storage.base import BlobStore, InvalidKey, new_key
from app.storage.local import LocalStore
from app.values import new_id


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "files")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "received"
    path.write_bytes(b"an image")
    return path


def key() -> str:
    return new_key(new_id())


async def test_an_adopted_file_is_under_its_key_and_gone_from_its_old_place(store: BlobStore, source: Path) -> None:
    place = key()

    await store.adopt(source, place)

    assert store.path_of(place).read_bytes() == b"an image"
    assert not source.exists()


async def test_adopting_is_a_rename_and_copies_nothing(store: LocalStore, source: Path) -> None:
    inode, place = source.stat().st_ino, key()

    await store.adopt(source, place)

    assert store.path_of(place).stat().st_ino == inode


async def test_adopting_again_after_a_crash_changes_nothing(store: LocalStore, source: Path) -> None:
    place = key()
    await store.adopt(source, place)

    await store.adopt(source, place)

    assert store.path_of(place).read_bytes() == b"an image"


async def test_a_missing_file_is_an_error(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await store.adopt(tmp_path / "nothing", key())

    assert list(store.walk()) == []


async def test_another_file_system_costs_a_copy_that_appears_whole(
    store: LocalStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, rename = key(), Path.rename

    def across(path: Path, target: Path) -> Path:
        if path == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", across)
    await store.adopt(source, place)

    assert store.path_of(place).read_bytes() == b"an image"
    assert not source.exists()
    assert [file.name for file in store.path_of(place).parent.iterdir()] == [store.path_of(place).name]


async def test_a_full_disk_leaves_the_source_and_no_half_file(
    store: LocalStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def across(path: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", across)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        await store.adopt(source, key())

    assert source.read_bytes() == b"an image"
    assert list(store.walk()) == []


async def test_links_and_folders_are_not_adopted(store: LocalStore, source: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(source)

    for wrong in (link, tmp_path):
        with pytest.raises(OSError, match=r"regular|symbolic|Too many"):
            await store.adopt(wrong, key())

    assert source.read_bytes() == b"an image"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "ab",
        "ab/",
        "/etc/passwd",
        "ab/../../x",
        "../ab/cd",
        "ab/cd/ef",
        "ab/.hidden",
        "ab/..",
        "ab/CD",
        "zz/cd",
        "ab/c\x00d",
        "ab/cd\n",
        "ab\\cd",
        "ab/" + "x" * 200,
    ],
)
async def test_a_key_that_we_did_not_make_is_refused(store: LocalStore, source: Path, wrong: str) -> None:
    with pytest.raises(InvalidKey):
        store.path_of(wrong)
    with pytest.raises(InvalidKey):
        await store.adopt(source, wrong)
    with pytest.raises(InvalidKey):
        await store.delete(wrong)


async def test_deleting_tells_whether_there_was_a_file(store: LocalStore, source: Path) -> None:
    place = key()
    await store.adopt(source, place)

    assert await store.delete(place) is True
    assert await store.delete(place) is False


async def test_the_audit_sees_every_file_with_its_size_and_nothing_unfinished(
    store: LocalStore, source: Path, tmp_path: Path
) -> None:
    assert list(store.walk()) == []
    place = key()
    await store.adopt(source, place)
    (store.path_of(place).parent / ".adopting-x").write_bytes(b"half")

    [(found, changed, size)] = store.walk()

    assert (found, size) == (place, 8)
    assert abs(changed - datetime.now(UTC).timestamp()) < 60


async def test_what_is_deleted_during_a_walk_is_passed_over(store: LocalStore, source: Path) -> None:
    place = key()
    await store.adopt(source, place)
    for suffix in "abc":
        store.path_of(place + suffix).write_bytes(b"x")
    walk = store.walk()
    next(walk)
    for path in store.path_of(place).parent.iterdir():
        path.unlink()

    assert list(walk) == []


def test_keys_spread_over_folders_although_ids_sort_by_time() -> None:
    ids = [new_id() for _ in range(200)]

    folders = {new_key(file_id).split("/")[0] for file_id in ids}

    assert len(folders) > 80
    assert new_key(UUID(int=0xAB)) == "ab/000000000000000000000000000000ab"
