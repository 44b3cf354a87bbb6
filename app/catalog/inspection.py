"""Checks an account without any paid call: its secret, its routes, and whether its host answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.catalog.book import Book
from app.errors import SecretDamaged, WrongSecretsKey

CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    """``state``, ``secret``, ``routes`` or ``host``."""
    is_good: bool
    found: str
    """What was found, in a few words."""


async def inspect(book: Book, name: str) -> Sequence[Check]:
    """Look at an account from all sides. Raises: UpstreamNotFound."""
    upstream = await book.upstreams.get(name)
    found = [Check("state", upstream.state == "active", upstream.state)]
    try:
        await book.snapshot()
        found.append(Check("secret", True, "opens" if upstream.has_secret else "none is set"))
    except (WrongSecretsKey, SecretDamaged) as error:
        found.append(Check("secret", False, error.message))
    routes = [route for route in await book.routes.list() if route.entry.upstream == name]
    problems = [problem for problem in await book.routes.problems() if f"-> {name}/" in problem]
    found.append(Check("routes", bool(routes) and not problems, "; ".join(problems) or f"{len(routes)}"))
    if upstream.base_url is not None:
        found.append(await _reach(upstream.base_url))
    return found


async def _reach(url: str) -> Check:
    """Open a connection, with TLS where the address says so; nothing is sent."""
    parsed = urlsplit(url)
    has_tls = parsed.scheme == "https"
    port = parsed.port or (443 if has_tls else 80)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(parsed.hostname, port, ssl=has_tls)
        writer.close()
    except (OSError, TimeoutError) as error:
        return Check("host", False, f"{parsed.hostname}:{port} does not answer ({type(error).__name__})")
    return Check("host", True, f"{parsed.hostname}:{port} answers")
