"""Which URLs and which addresses the fetcher may go to. Pure functions: nothing is resolved or opened here.

The list of addresses is our own. The flags of ``ipaddress`` changed between Python releases, and on some they call
translated and tunnelled addresses public.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote, urlsplit

import idna

MAX_URL_CHARS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

_REFUSED_IPV4 = (
    IPv4Network("0.0.0.0/8"),  # this network
    IPv4Network("10.0.0.0/8"),  # private
    IPv4Network("100.64.0.0/10"),  # carrier NAT
    IPv4Network("127.0.0.0/8"),  # loopback
    IPv4Network("169.254.0.0/16"),  # link-local, cloud metadata
    IPv4Network("172.16.0.0/12"),  # private
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.0.2.0/24"),  # documentation
    IPv4Network("192.31.196.0/24"),  # AS112
    IPv4Network("192.52.193.0/24"),  # AMT relays
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("192.168.0.0/16"),  # private
    IPv4Network("192.175.48.0/24"),  # AS112
    IPv4Network("198.18.0.0/15"),  # benchmarks
    IPv4Network("198.51.100.0/24"),  # documentation
    IPv4Network("203.0.113.0/24"),  # documentation
    IPv4Network("224.0.0.0/4"),  # multicast
    IPv4Network("240.0.0.0/4"),  # reserved, broadcast
    IPv4Network("168.63.129.16/32"),  # a cloud's host agent
)
_UNICAST_IPV6 = IPv6Network("2000::/3")  # mapped and translated IPv4 lies outside, and needs no decoding
_REFUSED_IPV6 = tuple(IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_URL_CHARS = "".join(letter for letter in map(chr, range(0x21, 0x7F)) if letter not in '"<>^`{|}\\')
_PORT = re.compile(r"[1-9][0-9]{0,4}")


class Refused(Exception):
    """The URL or the address is not for us. The message is for our log, never for the caller."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator may set."""

    ports: frozenset[int] = frozenset({80, 443})
    allow_http: bool = True
    allow_hosts: frozenset[str] = frozenset()
    """``host:port`` that may be reached whatever its address and port; the only way to a private one."""
    refuse_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    refuse_hosts: frozenset[str] = frozenset()
    """Our own host, on any port."""

    @classmethod
    def of(
        cls,
        *,
        ports: Iterable[int],
        allow_http: bool,
        allow_hosts: Iterable[str],
        refuse_networks: Iterable[str],
        own_url: str | None,
    ) -> Rules:
        """Build from settings. Raises: ValueError for what is no network."""
        own_host = urlsplit(own_url or "").hostname
        return cls(
            ports=frozenset(ports),
            allow_http=allow_http,
            allow_hosts=frozenset(host.lower() for host in allow_hosts),
            refuse_networks=tuple(ip_network(network) for network in refuse_networks),
            refuse_hosts=frozenset({own_host} if own_host else ()),
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that was judged; its host still has to be resolved, and the addresses judged."""

    scheme: str
    host: str
    """In lower case and ASCII, without brackets and without the dot at the end."""
    port: int
    url: str
    """What to send: ASCII only, without a fragment."""
    is_allow_listed: bool

    @property
    def address(self) -> str | None:
        """The address itself, when the host is one."""
        try:
            return str(ip_address(self.host))
        except ValueError:
            return None


def judge_url(url: str, rules: Rules) -> Target:
    """Return where the URL leads. Raises: Refused."""
    if len(url) > MAX_URL_CHARS:
        raise Refused("too long")
    if any(not letter.isprintable() or letter.isspace() or letter == "\\" for letter in url):
        raise Refused("characters that no URL has")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Refused("malformed") from None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS or (scheme == "http" and not rules.allow_http):
        raise Refused("scheme")
    if "@" in parts.netloc:
        raise Refused("user info")
    host, port = _host_and_port(parts.netloc, DEFAULT_PORTS[scheme])
    shown_host = f"[{host}]" if ":" in host else host
    name = f"{shown_host}:{port}"
    is_allow_listed = name in rules.allow_hosts
    if not is_allow_listed:
        if port not in rules.ports:
            raise Refused("port")
        if host in rules.refuse_hosts:
            raise Refused("our own host")
    authority = shown_host if port == DEFAULT_PORTS[scheme] else name
    path, query = _ascii(parts.path) or "/", _ascii(parts.query)
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        url=f"{scheme}://{authority}{path}" + (f"?{query}" if query else ""),
        is_allow_listed=is_allow_listed,
    )


def judge_addresses(addresses: Iterable[str], rules: Rules) -> tuple[str, ...]:
    """Return the addresses when all of them are public; one that is not refuses the name. Raises: Refused."""
    found = tuple(addresses)
    if not found:
        raise Refused("no address")
    for address in found:
        if not is_public(address, rules):
            raise Refused("address")
    return found


def is_public(address: str, rules: Rules) -> bool:
    """Tell whether an address, in the standard library's spelling, may be connected to."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if any(parsed in network for network in rules.refuse_networks if network.version == parsed.version):
        return False
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _REFUSED_IPV4)
    if parsed.scope_id is not None or parsed not in _UNICAST_IPV6:
        return False
    return not any(parsed in network for network in _REFUSED_IPV6)


def _host_and_port(netloc: str, default_port: int) -> tuple[str, int]:
    if netloc.startswith("["):
        literal, bracket, rest = netloc[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Refused("malformed host")
        port_text = rest[1:] if rest else None
        try:
            host = str(IPv6Address(literal))
        except AddressValueError:
            raise Refused("malformed IPv6 address") from None
        if "%" in host:
            raise Refused("zone of an address")
    else:
        name, colon, after = netloc.partition(":")
        port_text = after if colon else None
        host = _host_name(name)
    if port_text is None:
        return host, default_port
    if not _PORT.fullmatch(port_text) or int(port_text) > 65535:
        raise Refused("malformed port")
    return host, int(port_text)


def _host_name(name: str) -> str:
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError:
            raise Refused("malformed host") from None
    host = name.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise Refused("malformed host")
    if _NUMBER_LABEL.fullmatch(labels[-1]):
        try:
            is_canonical = str(IPv4Address(host)) == host
        except AddressValueError:
            is_canonical = False
        if not is_canonical:
            raise Refused("not a canonical IPv4 address")
    return host


def _ascii(text: str) -> str:
    """Percent-encode what a URL cannot hold, and nothing else: a signed query must arrive as it was signed."""
    return quote(text, safe=_URL_CHARS)
