"""Where each setting of a process comes from, for administrators. No secret is among them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from app.settings.kept import SECRETS, SECRETS_FILE, instance_file
from app.settings.load import BESIDE_US
from app.settings.model import Settings

SettingSource = Literal["environment", "secrets.json", "running instance", "default", "given"]


@dataclass(frozen=True, slots=True)
class ExplainedSetting:
    """One setting as an administrator may see it."""

    name: str
    """The variable, such as ``MEDIAGATE_PORT``."""
    value: str
    """As text; of a secret only ``set`` or ``not set``."""
    source: SettingSource
    """``given``: by whoever started this process, as ``mediagate up`` and tests do."""
    is_secret: bool


def explain_settings(settings: Settings) -> list[ExplainedSetting]:
    """Return every setting of a process with its value and where that comes from; no secret is among them."""
    running = _read_json(instance_file(settings.data))
    kept = _read_json(settings.data / SECRETS_FILE)
    return [_explained(settings, name, running=running, kept=kept) for name in type(settings).model_fields]


def _explained(
    settings: Settings, name: str, *, running: Mapping[str, object], kept: Mapping[str, object]
) -> ExplainedSetting:
    value, variable = getattr(settings, name), f"MEDIAGATE_{name.upper()}"
    is_secret = "SecretStr" in str(type(settings).model_fields[name].annotation)
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    source: SettingSource
    if os.environ.get(variable):
        source = "environment"
    elif name in SECRETS and plain is not None and kept.get(name) == plain:
        source = "secrets.json"
    elif plain is not None and name in running and str(running[name]) == str(plain):
        source = "running instance"
    else:
        default = type(settings).model_fields[name].default
        usual = (default, default.absolute(), BESIDE_US) if isinstance(default, Path) else (default,)
        source = "default" if plain in usual else "given"
    if is_secret:
        shown = "not set" if value is None else "set"
    elif isinstance(value, tuple):
        shown = ",".join(str(part) for part in value)
    else:
        shown = "" if value is None else str(value)
    return ExplainedSetting(variable, shown, source, is_secret)


def _read_json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
