"""The shape of the code: imports point down, and vendors are named in one folder only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VENDOR = re.compile(
    r"dashscope|volces|(?<![a-z])ark(?![a-z])|apimart|comfyui|gemini|seedance|veo|happyhorse|googleapis", re.IGNORECASE
)
"""OpenAI is not here: its protocol is our own API's."""
SOURCES = ("app", "workers", "migrations", "dev.py", "Dockerfile", "docker-compose.yml")
TEXT = {".py", ".sql", ".html", ".js", ".css", ".json", ".toml", ".mako", ".ini", ".txt", ".md", ".yml", ".yaml", ""}
NOT_OURS = (ROOT / "app" / "providers", ROOT / "app" / "api" / "static")
"""Where vendors may be named; and Swagger UI, which comes as it is."""


def sources() -> list[Path]:
    found = [ROOT / name for name in SOURCES if (ROOT / name).is_file()]
    for folder in (ROOT / name for name in SOURCES if (ROOT / name).is_dir()):
        found += [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [path for path in found if path.suffix in TEXT and not path.is_relative_to(NOT_OURS[0])]


def named(text: str) -> list[str]:
    return [line for line in text.splitlines() if VENDOR.search(line)]


@pytest.mark.parametrize(
    ("line", "is_named"),
    [
        ('if "veo" in model:', True),
        ("ARK_KEY = 1", True),
        ("https://ark.cn-beijing.volces.com", True),
        ("the watermark of a mark", False),
        ("# OpenAI's form", False),
    ],
)
def test_the_search_sees_what_it_should(line: str, is_named: bool):
    assert bool(named(line)) is is_named


def test_no_line_outside_the_providers_names_a_vendor():
    paths = [path for path in sources() if not path.is_relative_to(NOT_OURS[1])]

    found = {str(path.relative_to(ROOT)): named(path.read_text()) for path in paths}

    assert len(paths) > 100
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_imports_point_downwards():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
