"""``--browser``: what drives a real browser runs only when it is asked for, as ``dev.py test --browser`` does."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "console" / "browser"
HOW = "these tests drive a browser: python3 dev.py test --browser [pytest's arguments]"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mediagate")
    group.addoption("--browser", action="store_true", help="run tests/console/browser, and without a path only these")
    group.addoption("--pictures", action="store_true", help="write the pictures of the READMEs anew")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.browser:
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args[:] = [str(FOLDER)]
    elif any(_is_below(config.invocation_params.dir / argument.partition("::")[0]) for argument in config.args):
        raise pytest.UsageError(HOW)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if not config.option.browser and collection_path == FOLDER else None


def _is_below(path: Path) -> bool:
    return path.resolve().is_relative_to(FOLDER)
