"""Typed settings from the environment; the only reader of ``os.environ``.

Every name is ``MEDIAGATE_`` and the field in capitals; see docs/settings.md. What the development server made up for
itself (secrets, server addresses) lies in ``<data>/``, where the command line finds it too.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app import failpoints

MIB = 1024 * 1024
SAMPLE_SECRETS = frozenset({"change-me", "changeme", "secret", "password", "example", "mediagate"})
MIN_SECRET_CHARS = 32
SECRETS_FILE = "secrets.json"
SECRETS = ("key_pepper", "link_secret", "secrets_key")
"""Made at the first start in development, demanded in production."""
SEVERAL = ("key_pepper", "secrets_key")
"""May hold more than one, with commas, while they are changed."""
BESIDE_US = Path(__file__).resolve().parent.parent / "config"
"""A checkout's configuration folder."""


class SettingsError(Exception):
    """The environment does not make sense; the message says which variable, and what to do."""


class Settings(BaseSettings):
    """One process's settings. Durations are seconds, sizes are bytes."""

    model_config = SettingsConfigDict(env_prefix="MEDIAGATE_", extra="ignore", env_ignore_empty=True)

    env: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    data: Path = Path("data")
    config_dir: Path = Path("config")
    public_url: str | None = None
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    log_format: Literal["console", "json"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    key_pepper: SecretStr | None = None
    """HMAC key of the stored API keys. Losing it makes every key invalid. Two with a comma: the first stores."""
    link_secret: SecretStr | None = None
    """HMAC key of the signed result URLs."""
    secrets_key: SecretStr | None = None
    """Seals the secrets of upstream accounts. Several with commas: the first seals, all open."""

    metrics_token: SecretStr | None = None
    """What Prometheus sends as its bearer. Without it only a development gateway answers, to its own machine."""
    audit_every_s: float = Field(300.0, ge=0)
    """How often a worker checks the books for the metrics; 0: never."""

    result_ttl_s: int = Field(7 * 86400, gt=0)
    input_ttl_s: int = Field(86400, gt=0)
    link_ttl_s: int = Field(86400, gt=0)

    lease_s: float = Field(60.0, gt=0)
    heartbeat_s: float = Field(20.0, gt=0)
    sweep_s: float = Field(1.0, gt=0)
    poll_min_s: float = Field(5.0, gt=0)
    poll_max_s: float = Field(60.0, gt=0)
    sync_wait_max_s: float = Field(280.0, gt=0)
    shutdown_wait_s: float = Field(120.0, ge=0)
    shutdown_delay_s: float = Field(0.0, ge=0)
    """How long a stopping API goes on accepting, while ``/readyz`` says that it stops: for load balancers."""
    queue_wait_image_s: float = Field(60.0, gt=0)
    """An image no upstream accepted after this long fails, and its hold is released."""
    queue_wait_video_s: float = Field(1800.0, gt=0)
    deadline_image_s: float = Field(900.0, gt=0)
    deadline_video_s: float = Field(7200.0, gt=0)
    submit_absent_s: float = Field(120.0, gt=0)
    """A job that its upstream's list does not show this long after it was sent was never made."""
    worker_jobs: int = Field(20, ge=1)
    database_pool: int = Field(10, ge=1)
    database_wait_s: float = Field(2.0, gt=0)
    overload_delay_s: float = Field(0.05, gt=0)
    """Paid requests are shed while others take longer than this to their hold, our own work alone."""
    overload_burst: int = Field(32, ge=1)
    """Paid requests on their way to their hold at once, when nothing is slow."""

    upload_file_bytes: int = 50 * MIB
    upload_total_bytes: int = 260 * MIB
    upload_text_bytes: int = 160 * 1024
    upload_fields: int = 64
    json_body_bytes: int = 32 * MIB
    data_url_bytes: int = 20 * MIB
    mask_bytes: int = 50 * MIB
    header_bytes: int = Field(32 * 1024, gt=0)
    body_gap_s: float = Field(15.0, gt=0)
    """A request body that sends nothing for this long is given up."""
    body_total_s: float = Field(300.0, gt=0)
    uploads: int = Field(16, ge=1)
    """Bodies above 1 MiB that are read at once."""
    uploads_per_key: int = Field(2, ge=1)
    upload_wait_s: float = Field(5.0, gt=0)
    """How long one waits for its turn before it is refused."""
    spool_bytes: int = Field(4096 * MIB, gt=0)
    disk_free_bytes: int = Field(2048 * MIB, ge=0)
    """With less free disk, or less than ``disk_free_percent``, no new work is taken. Both 0: not looked at."""
    disk_free_percent: float = Field(5.0, ge=0, le=100)
    fetch_image_bytes: int = 50 * MIB
    fetch_video_bytes: int = 100 * MIB
    fetch_audio_bytes: int = 15 * MIB

    fetch_allow_hosts: tuple[str, ...] = ()
    """``host:port`` pairs that the fetcher may reach although they are private. Exact matches only."""
    fetch_allow_http: bool = True
    fetch_ports: tuple[int, ...] = (80, 443)
    fetch_refuse_networks: tuple[str, ...] = ()
    """Networks (CIDR) that the fetcher must not reach, beside those that are never public."""

    low_credits: int | None = Field(100, ge=1)
    """The first threshold of ``credits.low``, for an account that subscribes and has set none; None: none."""

    key_cache_s: float = Field(5.0, ge=0)
    key_rpm: int | None = Field(None, ge=1, le=1_000_000)
    """Requests a minute of a key that has no limit of its own."""
    wrong_keys_per_minute: int = Field(20, ge=0)
    """From one source, which is refused above it; one key a second is looked up still. 0: no limit."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) of our proxies, whose ``X-Forwarded-For`` is believed."""
    retry_join: bool = True
    """An SDK's own retry, which has no idempotency key, gets the task whose answer never arrived, not a new one."""

    fail: str | None = None
    """Failpoints, for tests: see ``app.failpoints``. Refused in production."""

    @field_validator("fail")
    @classmethod
    def _known_failpoints(cls, value: str | None) -> str | None:
        failpoints.parse(value or "")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("public_url")
    @classmethod
    def _no_trailing_slash(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @property
    def is_public(self) -> bool:
        """Whether upstreams can reach our signed URLs: a public address was named, and it is not this machine."""
        host = urlsplit(self.public_url or "").hostname or ""
        return bool(host) and host != "localhost" and not host.startswith("127.") and host != "::1"

    @cached_property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(network) for network in self.trusted_proxies)

    @property
    def is_production(self) -> bool:
        return self.env == "production"

    @cached_property
    def base_url(self) -> str:
        """Where clients reach us: the start of every URL in an answer, without a slash at the end."""
        return self.public_url or f"http://127.0.0.1:{self.port}"

    @property
    def storage_dir(self) -> Path:
        return self.data / "files"

    @property
    def spool_dir(self) -> Path:
        """Half-written uploads and downloads; on the same file system as the storage, so that a rename is enough."""
        return self.data / "spool"

    @property
    def work_dir(self) -> Path:
        """Folders for providers that work locally."""
        return self.data / "work"

    @property
    def result_ttl(self) -> timedelta:
        return timedelta(seconds=self.result_ttl_s)

    @property
    def input_ttl(self) -> timedelta:
        return timedelta(seconds=self.input_ttl_s)

    @property
    def link_ttl(self) -> timedelta:
        return timedelta(seconds=self.link_ttl_s)


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


def instance_file(data: Path) -> Path:
    """What ``mediagate up`` writes while it runs: the addresses of its servers (mode 0600)."""
    return data / "instance.json"


def credentials_file(data: Path) -> Path:
    """The first keys, kept for their owner (mode 0600)."""
    return data / "credentials.json"


def write_private(path: Path, value: object) -> None:
    """Write JSON that only we may read, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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
        if settings.metrics_token is not None:
            _refuse_sample_secret("metrics_token", settings.metrics_token.get_secret_value())
        return settings
    if not missing:
        return settings
    kept = _kept_secrets(settings.data) if mint else _read_secrets(settings.data / SECRETS_FILE)
    return settings.model_copy(update={name: SecretStr(kept[name]) for name in missing if name in kept})


def _kept_secrets(data: Path) -> dict[str, str]:
    """Return the secrets this data folder was given at its first start, with any that an older version did not know."""
    path = data / SECRETS_FILE
    kept = _read_secrets(path)
    if kept.keys() >= set(SECRETS):
        return kept
    data.mkdir(parents=True, exist_ok=True)
    with _only_one(data):
        kept = {name: secrets.token_urlsafe(48) for name in SECRETS} | _read_secrets(path)
        write_private(path, kept)
    return kept


def _read_secrets(path: Path) -> dict[str, str]:
    try:
        kept: dict[str, str] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return kept


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Let one process in at a time: two that start together must not each make up a key."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
