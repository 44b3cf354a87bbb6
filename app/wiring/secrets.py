"""The secrets that a process cannot do without."""

from __future__ import annotations

from pydantic import SecretStr

from app.settings import SettingsError


def secret_of(value: SecretStr | None) -> SecretStr:
    if value is None:
        raise SettingsError("MEDIAGATE_KEY_PEPPER, MEDIAGATE_LINK_SECRET and MEDIAGATE_SECRETS_KEY must be set.")
    return value
