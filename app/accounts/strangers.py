"""Counts wrong keys by where they come from, so that guessing costs the guesser and not the database.

What has not even the form of a key costs no query, so it is counted apart: many of those keep no right key out.
In this process's memory, bounded. A source is an IPv4 address or an IPv6 /64: who has one address there has them all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from app.errors import InvalidApiKey, MediagateError, TooManyRequests
from app.limits import Buckets, Shape

IPV6_HOST_BITS = 64


LOOK_UP = Shape(interval_us=1_000_000, burst=1)
"""A look-up each second is left to a source with too many wrong keys: it may have a right one too."""


class Strangers:
    """``per_minute`` wrong keys a source are told so, more are refused, most of them unread. 0: no limit."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._shape = Shape.of(max(per_minute, 1))
        self._buckets = Buckets(clock=clock)

    def check(self, peer: str | None) -> None:
        """Let a key be looked up. Raises: TooManyRequests, when this source may not even ask."""
        source = self._counted(peer)
        if source is None or not self._buckets.look(("wrong", source), self._shape)[1]:
            return
        standing = self._buckets.take(("look-up", source), LOOK_UP, limit=1)
        if not standing.is_granted:
            raise _too_many(standing.retry_s)

    def refusal(self, peer: str | None, *, is_well_formed: bool = True) -> MediagateError:
        """Count one wrong key and return what its sender is told."""
        source = self._counted(peer)
        if source is None:
            return InvalidApiKey()
        kind = "wrong" if is_well_formed else "malformed"
        standing = self._buckets.take((kind, source), self._shape, limit=self._per_minute)
        return InvalidApiKey() if standing.is_granted else _too_many(standing.retry_s)

    def _counted(self, peer: str | None) -> str | None:
        return source_of(peer) if self._per_minute else None


def source_of(peer: str | None) -> str | None:
    """Return what a caller's wrong keys are counted under; None where addresses tell nobody from anybody."""
    try:
        address = ip_address(peer or "")
    except ValueError:
        return None  # a unix socket
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> IPV6_HOST_BITS << IPV6_HOST_BITS)}/{IPV6_HOST_BITS}"


def _too_many(wait_s: float) -> TooManyRequests:
    return TooManyRequests("Too many wrong API keys came from your address.", retry_after_s=max(math.ceil(wait_s), 1))
