"""Typed settings from the environment; the only reader of ``os.environ``.

Every name is ``MEDIAGATE_`` and the field in capitals; see docs/settings.md. What the development server made up for
itself (secrets, server addresses) lies in ``<data>/``, where the command line finds it too.
"""

from __future__ import annotations

from app.settings.explain import ExplainedSetting, SettingSource, explain_settings
from app.settings.kept import credentials_file, instance_file, write_private
from app.settings.load import find_secret, load_settings, parts_of, plain_settings
from app.settings.model import MIB, Settings, SettingsError

__all__ = [
    "MIB",
    "ExplainedSetting",
    "SettingSource",
    "Settings",
    "SettingsError",
    "credentials_file",
    "explain_settings",
    "find_secret",
    "instance_file",
    "load_settings",
    "parts_of",
    "plain_settings",
    "write_private",
]
