"""What the upstream accounts and the routes share as rows: one change at a time, and what their fields may hold."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.catalog.wording import is_storable, listed, shown
from app.db import transaction
from app.errors import InvalidParameter

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HOST = re.compile(r"\.?[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
MAX_CONCURRENCY = 10_000
MAX_PRIORITY = 1_000_000
MAX_URL_CHARS = 500
MAX_MODEL_CHARS = 200
MAX_OPTIONS_CHARS = 100_000


class Keep(Enum):
    """Says that a field stays as it is, where None would empty it."""

    KEEP = 0


KEEP: Final = Keep.KEEP


@asynccontextmanager
async def changing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open the transaction of one change. Changes take turns, and every process notices a committed one."""
    async with transaction(engine) as connection:
        await connection.exec_driver_sql("UPDATE upstream_book SET revision = revision + 1")
        yield connection


async def rows_of(connection: AsyncConnection, sql: str, *arguments: Any) -> list[Any]:
    result = await connection.exec_driver_sql(sql, arguments)
    return list(result.mappings())


def from_json(value: Any) -> Any:
    """Return a jsonb column as values: the driver hands it over as text."""
    return json.loads(value) if isinstance(value, str) else value


def checked_name(name: str) -> str:
    """Raises: InvalidParameter. Slashes are left out for a reason: a pool is ``<upstream>/<upstream's model>``."""
    if not NAME.fullmatch(name):
        raise InvalidParameter(
            f"Invalid name {shown(name)}. Allowed: 1 to 100 of A-Z a-z 0-9 . _ - with a letter or digit first.",
            param="name",
        )
    return name


def checked_url(url: str | None) -> str | None:
    """Raises: InvalidParameter, also for an address with a password or a query: those would be shown."""
    if url is None:
        return None
    try:
        parsed = urlsplit(url)
        is_good = parsed.scheme in ("http", "https") and bool(parsed.hostname) and (parsed.port or 1) > 0
        (parsed.hostname or "").encode("idna")  # no name of a host: a label that is empty, or over 63 letters
    except ValueError:
        is_good = False
    if not is_good or len(url) > MAX_URL_CHARS or not url.isprintable() or " " in url:
        raise InvalidParameter("'base_url' must be an http:// or https:// address.", param="base_url")
    if "@" in parsed.netloc or parsed.query or parsed.fragment:
        raise InvalidParameter("'base_url' must hold no user, password, query or fragment.", param="base_url")
    return url.rstrip("/")


def origin_of(url: str | None) -> tuple[str, str, int] | None:
    """Return whom a secret is sent to: scheme, host and port. None: the provider's own address."""
    if url is None:
        return None
    parsed = urlsplit(url)
    return parsed.scheme, parsed.hostname or "", parsed.port or (443 if parsed.scheme == "https" else 80)


def is_in_the_open(url: str | None) -> bool:
    """Whether a secret would travel unsealed over public networks: plain http to a host that is not plainly private."""
    scheme, host, _port = origin_of(url) or ("https", "", 443)
    if scheme != "http":
        return False
    try:
        address = ip_address(host)
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
    return not (address.is_private or address.is_loopback or address.is_link_local)


def checked_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Raises: InvalidParameter for what JSON or the database cannot hold."""
    try:
        text = json.dumps(options or {}, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = "\0"
    if len(text) > MAX_OPTIONS_CHARS or not is_storable(text) or "\\u0000" in text:
        raise InvalidParameter("'options' must be a JSON object of at most 100,000 characters.", param="options")
    hosts = (options or {}).get("result_hosts")
    if hosts is not None and not (
        isinstance(hosts, list) and hosts and all(isinstance(host, str) and _HOST.fullmatch(host) for host in hosts)
    ):
        raise InvalidParameter("The option 'result_hosts' must be a list of host names.", param="options")
    return dict(options or {})


def checked_number(name: str, value: int, least: int, most: int) -> int:
    """Raises: InvalidParameter."""
    if isinstance(value, bool) or not least <= value <= most:
        raise InvalidParameter(f"'{name}' must be between {least} and {most}.", param=name)
    return value


def checked_upstream_model(model: str) -> str:
    """Raises: InvalidParameter."""
    if not 1 <= len(model) <= MAX_MODEL_CHARS or not model.isprintable() or model != model.strip():
        raise InvalidParameter(
            "'upstream_model' must be the upstream's own model id, 1 to 200 characters.", param="upstream_model"
        )
    return model


def unknown(param: str, given: str, known: Any) -> InvalidParameter:
    return InvalidParameter(f"Unknown {param} {shown(given)}. Known: {listed(sorted(known)) or 'none'}.", param=param)
