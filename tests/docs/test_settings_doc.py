"""docs/settings.md names every setting with its default, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

from app.settings import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
ROW = re.compile(r"^\| `MEDIAGATE_(\w+)` \| (.+?) \| .+ \|$", re.MULTILINE)


def test_the_page_names_every_setting_once_and_nothing_else():
    named = [name.lower() for name, _ in ROW.findall(PAGE.read_text())]

    assert sorted(named) == sorted(Settings.model_fields)


def test_the_page_gives_the_defaults():
    shown = {name.lower(): default for name, default in ROW.findall(PAGE.read_text())}

    assert shown == {name: written(field.default) for name, field in Settings.model_fields.items()}


def written(default: object) -> str:
    """Return a default as the page writes it, and as a variable would hold it."""
    match default:
        case None:
            return "-"
        case bool() | tuple():
            return f"`{json.dumps(default)}`"
    return f"`{default}`"
