"""Reads the settings, and refuses those that do not make sense together."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr, ValidationError

from app.settings.kept import SECRETS, SECRETS_FILE, instance_file, kept_secrets, read_secrets
from app.settings.model import Settings, SettingsError

SAMPLE_SECRETS = frozenset({"change-me", "changeme", "secret", "password", "example", "mediagate"})
MIN_SECRET_CHARS = 32
MIN_PASSWORD_KIB = 19 * 1024
SEVERAL = ("key_pepper", "secrets_key")
"""May hold more than one, with commas, while they are changed."""
BESIDE_US = Path(__file__).resolve().parents[2] / "config"
"""A checkout's configuration folder."""


def load_settings(*, mint_secrets: bool = True, **overrides: object) -> Settings:
    """Read the environment, then what a running development server left in ``<data>/``.

    ``mint_secrets``: in development, make and keep the secrets that are missing. Without it nothing is written, and
    they may be None. Raises: SettingsError, naming the variable.
    """
    return _with_secrets(_with_paths(_with_running_instance(_read(overrides))), mint=mint_secrets)


def plain_settings(**overrides: object) -> Settings:
    """Read the environment alone; write nothing. Raises: SettingsError, naming the variable."""
    return _with_paths(_read(overrides))


def find_secret(variable: str) -> SecretStr | None:
    """Return the secret that a configuration file names by its environment variable, or None when it is not set."""
    value = os.environ.get(variable)
    return SecretStr(value) if value else None


def _read(overrides: Mapping[str, object]) -> Settings:
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(_readable(error)) from None


def _with_paths(settings: Settings) -> Settings:
    """Make paths absolute. No folder was named and none is here: in a checkout, its own is meant."""
    config_dir = settings.config_dir
    is_ours = (BESIDE_US / "models.yaml").is_file()
    if "config_dir" not in settings.model_fields_set and is_ours and not (config_dir / "models.yaml").is_file():
        config_dir = BESIDE_US
    return settings.model_copy(update={"data": settings.data.absolute(), "config_dir": config_dir.absolute()})


def _with_running_instance(settings: Settings) -> Settings:
    if settings.is_production or (settings.database_url and settings.redis_url):
        return settings
    try:
        running = json.loads(instance_file(settings.data).read_text())
    except FileNotFoundError:
        return settings
    found: dict[str, object] = {
        name: SecretStr(running[name]) for name in ("database_url", "redis_url") if getattr(settings, name) is None
    }
    if settings.public_url is None:
        found["public_url"] = running["public_url"]
    if "config_dir" in running and "config_dir" not in settings.model_fields_set:
        found["config_dir"] = Path(running["config_dir"])
    return settings.model_copy(update=found)


def parts_of(name: str, secret: SecretStr) -> list[str]:
    """Return the keys of a setting that may hold several. Raises: SettingsError for an empty one."""
    parts = [part.strip() for part in secret.get_secret_value().split(",")]
    if not all(parts):
        raise SettingsError(f"MEDIAGATE_{name.upper()} holds an empty key: check its commas.")
    return parts


def _with_secrets(settings: Settings, *, mint: bool) -> Settings:
    if settings.oidc_issuer is not None and settings.oidc_client_id is None:
        raise SettingsError("MEDIAGATE_OIDC_CLIENT_ID must be set when MEDIAGATE_OIDC_ISSUER is.")
    missing = [name for name in SECRETS if getattr(settings, name) is None]
    for name in SEVERAL:
        if (secret := getattr(settings, name)) is not None:
            parts_of(name, secret)
    if settings.is_production:
        if settings.fail:
            raise SettingsError("MEDIAGATE_FAIL is for tests: it must not be set when MEDIAGATE_ENV is 'production'.")
        for name in ("database_url", "redis_url", "public_url", *SECRETS):
            if getattr(settings, name) is None:
                raise SettingsError(f"MEDIAGATE_{name.upper()} must be set when MEDIAGATE_ENV is 'production'.")
        for name in SECRETS:
            value = getattr(settings, name)
            for part in parts_of(name, value) if name in SEVERAL else [value.get_secret_value()]:
                _refuse_sample_secret(name, part)
        if settings.password_memory_kib < MIN_PASSWORD_KIB:
            raise SettingsError(f"MEDIAGATE_PASSWORD_MEMORY_KIB must be at least {MIN_PASSWORD_KIB} in production.")
        if settings.metrics_token is not None:
            _refuse_sample_secret("metrics_token", settings.metrics_token.get_secret_value())
        return settings
    if not missing:
        return settings
    kept = kept_secrets(settings.data) if mint else read_secrets(settings.data / SECRETS_FILE)
    return settings.model_copy(update={name: SecretStr(kept[name]) for name in missing if name in kept})


def _refuse_sample_secret(name: str, value: str) -> None:
    if len(value) < MIN_SECRET_CHARS or any(sample in value.lower() for sample in SAMPLE_SECRETS):
        raise SettingsError(
            f"MEDIAGATE_{name.upper()} is a sample or shorter than {MIN_SECRET_CHARS} characters. "
            "Make a real one: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )


def _readable(error: ValidationError) -> str:
    return "; ".join(
        f"MEDIAGATE_{'_'.join(str(part) for part in e['loc']).upper()}: {e['msg']}" for e in error.errors()
    )
