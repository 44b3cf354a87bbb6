"""What a process is made of, and the loops it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog
from arq.connections import ArqRedis
from sqlalchemy.ext.asyncio import AsyncEngine

from app.accounts.callers import Callers
from app.accounts.forms import Forms
from app.accounts.invitations import Invitations
from app.accounts.keys import Keys
from app.accounts.logins import Logins
from app.accounts.oidc import Oidc
from app.accounts.registration import Registration
from app.accounts.sessions import Sessions
from app.accounts.users import Accounts
from app.catalog.book import Book
from app.catalog.catalogs import Catalogs
from app.catalog.inspection import Inspector
from app.catalog.load import Catalog
from app.catalog.versions import ModelVersions
from app.credits.audit import Audit
from app.credits.ledger import Ledger
from app.credits.redeem import Codes
from app.credits.statements import Statements
from app.db import is_transient
from app.errors import DatabaseUnavailable
from app.fetch.client import SafeFetcher
from app.generation.advance import Advancer
from app.generation.attention import Attention
from app.generation.faults import Faults
from app.generation.images import Images
from app.generation.journal import AuditLog
from app.generation.poll import Poller
from app.generation.previews import Previews
from app.generation.quotes import Quotes
from app.generation.repairs import Repairs
from app.generation.retention import Retention
from app.generation.statistics import Statistics
from app.generation.tasks import Tasks
from app.generation.timeline import Timelines
from app.generation.videos import Videos
from app.generation.watch import Watch
from app.limits import Rates
from app.media.checks import Checker
from app.queue import ArqQueue
from app.settings import Settings
from app.storage.base import BlobStore
from app.storage.links import Links
from app.storage.room import Room
from app.storage.spool import Uploads
from app.tasks.idempotency import Idempotency
from app.tasks.leases import Leases
from app.tasks.lifecycle import Lifecycle
from app.tasks.queries import TaskQueries
from app.tasks.waiting import Waiters
from app.upstreams.health import Health
from app.upstreams.registry import Registry
from app.webhooks.deliver import Deliverer
from app.webhooks.deliveries import DeliveryLog
from app.webhooks.endpoints import Endpoints
from app.webhooks.secrets import Secrets

log = structlog.get_logger()
AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Services:
    """What a process is made of."""

    settings: Settings
    engine: AsyncEngine
    redis: ArqRedis
    catalogs: Catalogs
    registry: Registry
    book: Book
    inspector: Inspector
    model_versions: ModelVersions
    health: Health
    storage: BlobStore
    links: Links
    checker: Checker
    fetcher: SafeFetcher
    keys: Keys
    callers: Callers
    rates: Rates
    uploads: Uploads
    room: Room
    accounts: Accounts
    sessions: Sessions
    forms: Forms
    logins: Logins
    invitations: Invitations
    registration: Registration
    oidc: Oidc | None
    """None: no provider is set up."""
    ledger: Ledger
    statements: Statements
    codes: Codes
    audit: Audit
    audit_log: AuditLog
    statistics: Statistics
    faults: Faults
    attention: Attention
    queries: TaskQueries
    lifecycle: Lifecycle
    leases: Leases
    idempotency: Idempotency
    waiters: Waiters
    queue: ArqQueue
    advancer: Advancer
    poller: Poller
    retention: Retention
    previews: Previews
    images: Images
    videos: Videos
    tasks: Tasks
    timelines: Timelines
    repairs: Repairs
    watch: Watch
    quotes: Quotes
    webhooks: Endpoints
    webhook_secrets: Secrets
    webhook_log: DeliveryLog
    deliverer: Deliverer
    background: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def catalog(self) -> Catalog:
        """The catalogue in force. Raises: DatabaseUnavailable before the first look."""
        return self.catalogs.current()

    def start(self, *loops: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run loops until the services close. One that breaks is logged and begins again."""
        for loop in loops:
            self.background.add(asyncio.create_task(_for_ever(loop)))

    def start_listening(self) -> None:
        """Start what every process that takes steps, or waits for them, needs: heartbeats, the ear, the book."""
        self.start(self.leases.run, self.waiters.listen, self.waiters.look, self._watch_book)

    def start_serving(self) -> None:
        """Start what a process needs that answers callers: the models in force, news of keys, its share of limits,
        and which answers have left."""
        self.start(self.catalogs.watch)
        self.start(self.callers.keep_flushing, self._hear_of_keys, self.rates.announce, self.idempotency.run)

    async def _hear_of_keys(self) -> None:
        await self.callers.listen(self.redis)

    async def _watch_book(self) -> None:
        await self.book.watch(self.registry)


async def _for_ever(loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        try:
            await loop()
        except Exception as error:
            if is_transient(error) or isinstance(error, DatabaseUnavailable):  # no bug, and it may last
                log.warning("background.postponed", loop=loop.__qualname__, error=type(error).__name__)
            else:
                log.exception("background.broke", loop=loop.__qualname__)
        await asyncio.sleep(AGAIN_S)
