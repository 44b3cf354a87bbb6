"""Every setting with its type and its default."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app import failpoints

MIB = 1024 * 1024


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
    preview_bytes: int = Field(1024 * MIB, ge=0)
    """What the console's small pictures may fill; those looked at longest ago go first."""
    fetch_image_bytes: int = 50 * MIB
    fetch_video_bytes: int = 100 * MIB
    fetch_audio_bytes: int = 15 * MIB

    fetch_allow_hosts: tuple[str, ...] = ()
    """``host:port`` pairs that the fetcher may reach although they are private. Exact matches only."""
    fetch_allow_http: bool = True
    fetch_ports: tuple[int, ...] = (80, 443)
    fetch_refuse_networks: tuple[str, ...] = ()
    """Networks (CIDR) that the fetcher must not reach, beside those that are never public."""

    statistics_cache_s: float = Field(3.0, ge=0)
    """How old figures of the whole gateway may be: what counts many rows is asked for once in this time."""
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

    session_idle_s: int = Field(12 * 3600, gt=0)
    """A console session that nobody used for this long has ended."""
    session_max_s: int = Field(7 * 86400, gt=0)
    password_memory_kib: int = Field(64 * 1024, ge=8)
    """What argon2id needs for one password; two are looked at at once."""
    password_rounds: int = Field(3, ge=1)
    registration: bool = False
    """Whether people may make an account by themselves."""
    registration_credits: int = Field(0, ge=0, le=1_000_000_000)
    """What an account that somebody made by themselves starts with."""
    public_models: bool = True
    """Whether the console shows the models and their prices to people who have not signed in."""
    oidc_issuer: str | None = None
    """The address of an OpenID provider, for signing in. Needs the client's id too."""
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_name: str = Field("single sign-on", min_length=1, max_length=60)
    """What its button on the sign-in page says."""
    oidc_auto_create: bool = False
    """Whether somebody the provider knows, and we do not, gets an account."""

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

    @field_validator("oidc_issuer")
    @classmethod
    def _known_issuer(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "https://a")
        is_here = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or parts.query or parts.fragment or (parts.scheme != "https" and not is_here):
            raise ValueError("must be the provider's address as it names itself, and start with https://")
        return value

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
    def preview_dir(self) -> Path:
        """Small pictures for the console: each is made again when it is missing."""
        return self.data / "previews"

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
