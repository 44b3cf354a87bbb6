"""What a key looks like, what it may do, and who calls with it: values without a database."""

from __future__ import annotations

import re
import secrets
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

from app.errors import InvalidParameter, ScopeMissing
from app.limits import MAX_PER_MINUTE
from app.values import MAX_CREDITS

PREFIX = "sk-mg_"
RANDOM_CHARS = 40  # 238 bits
CHECK_CHARS = 6
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

Period = Literal["total", "day", "month"]
Network = IPv4Network | IPv6Network

_SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{RANDOM_CHARS + CHECK_CHARS}}}")

ADMIN_SCOPE = "admin:*"
USER_SCOPES = ("images:write", "videos:write", "tasks:read", "files:read", "account:read")
SCOPES = (*USER_SCOPES, ADMIN_SCOPE)


def mint_secret() -> str:
    """Make a new key: 40 characters from the system's random source, and 6 of CRC32 that catch typing errors."""
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARS))
    return body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Whether ``secret`` can be a key of ours. It proves nothing; it saves a query for typing errors and guesses."""
    return _SHAPE.fullmatch(secret) is not None and secret[-CHECK_CHARS:] == _checksum(secret[:-CHECK_CHARS])


def _checksum(body: str) -> str:
    value, letters = zlib.crc32(body.encode("ascii")), []
    for _ in range(CHECK_CHARS):
        value, digit = divmod(value, len(ALPHABET))
        letters.append(ALPHABET[digit])
    return "".join(reversed(letters))


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a value read in its own short statement, never a row."""

    account_id: int
    key_id: int
    email: str
    key_name: str
    key_last4: str
    scopes: frozenset[str]
    """What the key may do, spelled out: ``admin:*`` only on keys of an administrator's account."""
    models: frozenset[str] | None
    """None: all models."""
    is_admin: bool
    rpm: int | None = None
    """Requests a minute; None: the setting's."""
    seemed_empty: bool = False
    """When the key was looked up, its account had nothing to spend: that may have changed since."""

    def require_scope(self, scope: str) -> None:
        """Raises: ScopeMissing. ``admin:*`` holds every ``admin:...`` scope, and nothing else."""
        wanted = ADMIN_SCOPE if scope.startswith("admin:") else scope
        if wanted not in self.scopes:
            raise ScopeMissing(scope)

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


def is_inside(peer: str | None, networks: Sequence[Network]) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def checked_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    given = set(scopes)
    unknown = sorted(given - set(SCOPES))
    if unknown:
        raise InvalidParameter(
            f"There is no scope '{unknown[0]}'. The scopes are: {', '.join(SCOPES)}.", param="scopes"
        )
    return tuple(scope for scope in SCOPES if scope in given)


def checked_networks(cidrs: Iterable[str]) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(cidr) for cidr in cidrs)
    except ValueError as error:
        raise InvalidParameter(f"'cidrs' must hold networks such as 192.0.2.0/24: {error}.", param="cidrs") from None


def check_rpm(rpm: int | None) -> None:
    if rpm is not None and not 1 <= rpm <= MAX_PER_MINUTE:
        raise InvalidParameter(
            f"'rpm' must be between 1 and {MAX_PER_MINUTE} requests a minute. To stop a key, revoke it.", param="rpm"
        )


def check_budget(budget: int | None, period: str) -> None:
    if budget is not None and not 0 <= budget <= MAX_CREDITS:
        raise InvalidParameter("'budget' must be a whole number of credits, 0 or more.", param="budget")
    if period not in ("total", "day", "month"):
        raise InvalidParameter("'period' must be one of: total, day, month.", param="period")
