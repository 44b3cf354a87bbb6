"""Checks an account without any paid call: its secret, its routes, its host, and what its vendor says to its secret."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from app.catalog.book import Book
from app.catalog.routes import RouteInfo
from app.catalog.upstreams import UpstreamInfo
from app.errors import SecretDamaged, UpstreamNotFound, WrongSecretsKey
from app.upstreams import probing
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Probe, Provider, Upstream
from app.upstreams.registry import Registry

Outcome = Literal["good", "bad", "unknown"]
CONNECT_S = 5.0
SHOWN_MODELS = 20

WAITS = "It waits for a start at which the variable %(variable)s is set."
OPENS = "Set, and it can be opened."
NEEDS_NONE = "None is set, and none is needed."
LACKS = "None is set: store one, as the field 'secret'."
LACKS_VARIABLE = "None is set: start with the variable %(variable)s, or store one, as the field 'secret'."
UNREADABLE = "It was not opened: %(problem)s"
ANSWERS = "%(place)s answers."
SILENT = "%(place)s does not answer (%(error)s)."
ALL_LISTED = "The vendor's list has the models of all routes."
NOT_LISTED = "Not in the vendor's list: %(models)s."
SENTENCES = (
    WAITS, OPENS, NEEDS_NONE, LACKS, LACKS_VARIABLE, UNREADABLE, ANSWERS, SILENT, ALL_LISTED, NOT_LISTED,
    *probing.SENTENCES,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    """``state``, ``secret``, ``routes``, ``host``, ``vendor`` or ``models``."""
    is_good: bool
    text: str
    """What was found: one of `SENTENCES`, where ``%(name)s`` stands for ``values``, or a few words as they are."""
    values: Mapping[str, str] = field(default_factory=dict)
    is_sure: bool = True
    """False: nobody can tell."""
    took_ms: int | None = None
    missing: tuple[str, ...] = ()
    """Upstream models of routes that the vendor's list lacks."""

    @property
    def found(self) -> str:
        return self.text % self.values if self.values else self.text

    @property
    def outcome(self) -> Outcome:
        """``good``, ``bad``, or ``unknown``."""
        return "unknown" if not self.is_sure else "good" if self.is_good else "bad"


class Inspector:
    """Looks at accounts, one look at each account at a time: who asks meanwhile gets what that one finds."""

    def __init__(
        self, book: Book, registry: Registry, http: UpstreamHttp, *, within_s: float = probing.PROBE_S
    ) -> None:
        """``within_s``: how long a vendor may take."""
        self._book = book
        self._registry = registry
        self._http = http
        self._within_s = within_s
        self._looks: dict[str, asyncio.Task[Sequence[Check]]] = {}

    async def inspect(self, name: str) -> Sequence[Check]:
        """Look at an account from all sides. It counts for nothing: no task, no charge, no health.

        Raises: UpstreamNotFound, DatabaseUnavailable.
        """
        look = self._looks.get(name)
        if look is None:
            look = self._looks[name] = asyncio.create_task(self._look(name))
            look.add_done_callback(lambda done: self._looked(name, done))
        return await asyncio.shield(look)  # who leaves ends it for nobody else

    def _looked(self, name: str, look: asyncio.Task[Sequence[Check]]) -> None:
        del self._looks[name]
        if not look.cancelled():
            look.exception()  # whoever still waits has it

    async def _look(self, name: str) -> Sequence[Check]:
        variable = self._book.variable_of(name)
        try:
            account = await self._book.upstreams.get(name)
        except UpstreamNotFound:
            if variable is None:
                raise
            return [Check("secret", False, WAITS, {"variable": variable})]
        found = [Check("state", account.state == "active", account.state)]
        provider = self._registry.provider(account.provider)
        opened, secret = await self._opened(account, provider, variable)
        found.append(secret)
        every = await self._book.routes.list()
        routes = [route for route in every if route.entry.upstream == name]
        problems = [problem for problem in await self._book.routes.problems() if f"-> {name}/" in problem]
        found.append(Check("routes", bool(routes) and not problems, "; ".join(problems) or f"{len(routes)}"))
        is_reached = True
        if account.base_url is not None:
            found.append(host := await _reach(account.base_url))
            is_reached = host.is_good
        if is_reached and opened is not None and provider is not None:
            found += await self._ask(provider, opened, routes)
        return found

    async def _opened(
        self, account: UpstreamInfo, provider: Provider | None, variable: str | None
    ) -> tuple[Upstream | None, Check]:
        """Return the account as its vendor sees it, and the check of its secret; None: there is nothing to ask with."""
        try:
            snapshot = await self._book.snapshot()
        except (WrongSecretsKey, SecretDamaged) as error:
            return None, Check("secret", False, UNREADABLE, {"problem": error.message})
        known = snapshot.accounts.get(account.name)
        upstream = None if known is None else known.by_version[known.newest]
        if account.has_secret:
            return upstream, Check("secret", True, OPENS)
        if upstream is None or not (isinstance(provider, Probe) and provider.needs_secret(upstream)):
            return upstream, Check("secret", True, NEEDS_NONE)
        if variable is None:
            return None, Check("secret", False, LACKS)
        return None, Check("secret", False, LACKS_VARIABLE, {"variable": variable})

    async def _ask(self, provider: Provider, upstream: Upstream, routes: Sequence[RouteInfo]) -> list[Check]:
        """Ask the vendor, and compare its list of models with the routes in use, where it tells one."""
        served: dict[str, list[str]] = {}
        for route in routes:
            if route.entry.is_enabled:
                served.setdefault(route.entry.upstream_model, []).append(route.entry.model)
        said = await probing.ask(provider, upstream, served, self._http, within_s=self._within_s)
        checks = [
            Check("vendor", said.is_good, said.text, said.values, is_sure=said.is_sure, took_ms=said.took_ms),
        ]
        if said.missing:
            shown = [f"{model} ({', '.join(served[model])})" for model in said.missing[:SHOWN_MODELS]]
            more = "" if len(said.missing) <= SHOWN_MODELS else f", ... ({len(said.missing)})"
            models = ", ".join(shown) + more
            checks.append(Check("models", False, NOT_LISTED, {"models": models}, missing=said.missing))
        elif said.missing is not None and served:
            checks.append(Check("models", True, ALL_LISTED))
        return checks


async def _reach(url: str) -> Check:
    """Open a connection, with TLS where the address says so; nothing is sent."""
    parsed = urlsplit(url)
    has_tls = parsed.scheme == "https"
    port = parsed.port or (443 if has_tls else 80)
    place, started = f"{parsed.hostname}:{port}", time.monotonic()
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(parsed.hostname, port, ssl=has_tls)
        writer.close()
    except (OSError, TimeoutError, UnicodeError) as error:  # the last: no name of a host
        return Check("host", False, SILENT, {"place": place, "error": type(error).__name__}, took_ms=_since(started))
    return Check("host", True, ANSWERS, {"place": place}, took_ms=_since(started))


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
