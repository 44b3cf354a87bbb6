"""Where a request comes from: the address of the connection, or what a proxy of ours says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import structlog
from starlette.requests import Request

from app.accounts.principal import Network, is_inside

log = structlog.get_logger(__name__)

MAX_HOPS = 20


def peer_of(request: Request, proxies: Sequence[Network]) -> str | None:
    """Return the caller's address; None over a unix socket.

    ``X-Forwarded-For`` is read from its end, and only as far as each address is one of our proxies': whatever stands
    before was written by somebody else.
    """
    peer = request.client.host if request.client else None
    if not proxies or not is_inside(peer, proxies):
        return peer
    named = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    for address in reversed(named[-MAX_HOPS:]):
        if not address.strip():
            break
        peer = without_port(address.strip())
        if not is_inside(peer, proxies):
            break
    return peer


def warn_of_unknown_proxy(request: Request, proxies: Sequence[Network]) -> None:
    """Log, once in a process, that a proxy we do not know sends people here: all of them count as one place."""
    host = request.client.host if request.client else None
    if "x-forwarded-for" in request.headers and host and not is_inside(host, proxies):
        _warn_once()


@cache
def _warn_once() -> None:
    log.warning("sign_in.unknown_proxy", remedy="Set MEDIAGATE_TRUSTED_PROXIES if a proxy of yours stands in front.")


def without_port(address: str) -> str:
    """Read ``192.0.2.7:443``, ``[2001:db8::7]:443`` and ``[2001:db8::7]`` as some proxies write them."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
