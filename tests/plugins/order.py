"""What takes long goes first: a run in several processes ends when the last test does, and must not wait for one."""

from __future__ import annotations

import pytest

LONG = (
    "tests/faults/",
    "tests/fuzz/",
    "tests/embedded/test_up.py",
    "tests/embedded/test_tour.py",
    "tests/docs/test_readme.py",
)


@pytest.hookimpl(trylast=True)  # after the shuffle, whose order stays within each half
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
