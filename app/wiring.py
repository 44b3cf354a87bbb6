"""Builds every long-lived object from the settings, once: for the API, the worker and the command line alike."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from arq.connections import ArqRedis
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import failpoints
from app.accounts.callers import Callers
from app.accounts.keys import Keys
from app.accounts.users import Accounts
from app.catalog.book import Book
from app.catalog.load import Catalog, load_catalog
from app.credits.audit import Audit
from app.credits.ledger import Ledger
from app.credits.statements import Statements
from app.db import is_transient, make_engine
from app.errors import DatabaseUnavailable, MediagateError
from app.fetch.client import SafeFetcher
from app.generation.admission import Admission
from app.generation.advance import Advancer
from app.generation.context import Steps
from app.generation.deliver import Delivery
from app.generation.images import Images
from app.generation.poll import Poller
from app.generation.prepare import Preparer
from app.generation.promise import Promiser
from app.generation.quotes import Quotes
from app.generation.repairs import Repairs
from app.generation.repeats import Repeats
from app.generation.retention import Retention
from app.generation.route import Router
from app.generation.tasks import Tasks
from app.generation.timeline import Timelines
from app.generation.videos import Videos
from app.generation.watch import Watch
from app.limits import Rates
from app.media.checks import Checker, open_pool
from app.queue import ArqQueue, close_redis, make_redis
from app.sealing import SecretBox
from app.settings import Settings, SettingsError
from app.storage.base import BlobStore
from app.storage.links import Links
from app.storage.local import LocalStore
from app.storage.room import Room
from app.storage.spool import UploadLimits, Uploads
from app.tasks.idempotency import Idempotency
from app.tasks.leases import Leases
from app.tasks.lifecycle import Lifecycle
from app.tasks.queries import TaskQueries
from app.tasks.waiting import Waiters
from app.upstreams.health import Health
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Provider
from app.upstreams.registry import Registry, discover
from app.values import new_id
from app.webhooks.deliver import Deliverer
from app.webhooks.deliveries import DeliveryLog
from app.webhooks.endpoints import Endpoints
from app.webhooks.secrets import Secrets

log = structlog.get_logger()
AGAIN_S = 1.0
CANCEL_AGAIN_S = 0.5
CHECKERS = max(1, (os.cpu_count() or 2) - 1)


@dataclass(frozen=True, slots=True)
class Services:
    """What a process is made of."""

    settings: Settings
    engine: AsyncEngine
    redis: ArqRedis
    catalog: Catalog
    registry: Registry
    book: Book
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
    ledger: Ledger
    statements: Statements
    audit: Audit
    queries: TaskQueries
    lifecycle: Lifecycle
    leases: Leases
    idempotency: Idempotency
    waiters: Waiters
    queue: ArqQueue
    advancer: Advancer
    poller: Poller
    retention: Retention
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

    def start(self, *loops: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run loops until the services close. One that breaks is logged and begins again."""
        for loop in loops:
            self.background.add(asyncio.create_task(_for_ever(loop)))

    def start_listening(self) -> None:
        """Start what every process that takes steps, or waits for them, needs: heartbeats, the ear, the book."""
        self.start(self.leases.run, self.waiters.listen, self.waiters.look, self._watch_book)

    def start_serving(self) -> None:
        """Start what a process needs that answers callers: news of their keys, its share of their limits,
        and which answers have left."""
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


@asynccontextmanager
async def open_services(
    settings: Settings, *, providers: Mapping[str, Provider] | None = None
) -> AsyncIterator[Services]:
    """Build the services and close them in reverse order. ``providers`` stand in for those that are installed.

    Raises: SettingsError, CatalogError. Neither the database nor Redis is asked for anything yet.
    """
    if settings.database_url is None or settings.redis_url is None:
        raise SettingsError(
            "MEDIAGATE_DATABASE_URL and MEDIAGATE_REDIS_URL are not set, and no gateway runs on "
            f"{settings.data}. Start one with 'python3 dev.py up'."
        )
    providers = discover() if providers is None else providers
    catalog = load_catalog(
        settings.config_dir, providers={name: provider.capabilities for name, provider in providers.items()}
    )
    registry = Registry(providers)
    for folder in (settings.storage_dir, settings.spool_dir, settings.work_dir):
        folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        if settings.fail:
            failpoints.arm(settings.fail, settings.data / "failpoints")
            stack.callback(failpoints.arm, "", settings.data)
        engine = make_engine(
            settings.database_url.get_secret_value(),
            pool_size=settings.database_pool,
            wait_s=settings.database_wait_s,
        )
        stack.push_async_callback(engine.dispose)
        redis = make_redis(settings.redis_url.get_secret_value())
        stack.push_async_callback(close_redis, redis)
        stack.push_async_callback(registry.close)
        pool = open_pool(CHECKERS)
        stack.push_async_callback(pool.close)
        fetcher = SafeFetcher(settings)
        stack.push_async_callback(fetcher.close)
        webhook_fetcher = SafeFetcher(settings)  # with threads of its own: receivers' slow names keep no input waiting
        stack.push_async_callback(webhook_fetcher.close)
        http = UpstreamHttp(fetcher)
        stack.push_async_callback(http.close)
        services = _assemble(settings, engine, redis, catalog, registry, Checker(pool), fetcher, webhook_fetcher, http)
        stack.push_async_callback(_cancel, services.background)
        stack.push_async_callback(services.idempotency.close)
        stack.push_async_callback(services.images.drain, 0.0)  # before the engine goes: steps hold its connections
        yield services


async def first_look(services: Services) -> None:
    """Read the upstream accounts before the first request; without a database the watching loop does it later."""
    try:
        await services.book.refresh(services.registry)
    except (MediagateError, SQLAlchemyError, OSError) as error:
        log.warning("upstreams.not_read_yet", error=type(error).__name__)


def _assemble(
    settings: Settings,
    engine: AsyncEngine,
    redis: ArqRedis,
    catalog: Catalog,
    registry: Registry,
    checker: Checker,
    fetcher: SafeFetcher,
    webhook_fetcher: SafeFetcher,
    http: UpstreamHttp,
) -> Services:
    owner = f"{socket.gethostname()}:{os.getpid()}:{new_id().hex[-8:]}"
    storage = LocalStore(settings.storage_dir)
    queries = TaskQueries(engine)
    lifecycle = Lifecycle(engine, owner=owner, lease_s=settings.lease_s)
    leases = Leases(lifecycle, heartbeat_s=settings.heartbeat_s)
    ledger = Ledger(engine)
    audit = Audit(engine)
    queue = ArqQueue(redis)
    waiters = Waiters(redis, queries)
    idempotency = Idempotency(engine, joins_retries=settings.retry_join)
    repeats = Repeats(idempotency=idempotency, queries=queries, ledger=ledger)
    retention = Retention(settings=settings, engine=engine, storage=storage, idempotency=idempotency)
    health = Health(redis)
    router = Router(registry, health, is_public=settings.is_public)
    links = Links(_secret(settings.link_secret), settings.base_url)
    steps = Steps(
        settings=settings,
        lifecycle=lifecycle,
        leases=leases,
        ledger=ledger,
        queries=queries,
        registry=registry,
        router=router,
        health=health,
        http=http,
        storage=storage,
        links=links,
        delivery=Delivery(settings=settings, storage=storage, checker=checker, ledger=ledger),
        queue=queue,
        waiters=waiters,
    )
    poller = Poller(steps)
    advancer = Advancer(steps, poller)
    book = Book(
        engine,
        _secret(settings.secrets_key),
        catalog=catalog,
        providers=registry.capabilities,
        work_dir=settings.work_dir,
    )
    webhook_secrets = Secrets(engine, SecretBox(_secret(settings.secrets_key)))
    preparer = Preparer(
        settings=settings,
        catalog=catalog,
        registry=registry,
        router=router,
        admission=Admission(engine),
        fetcher=fetcher,
        checker=checker,
    )
    promiser = Promiser(settings=settings, ledger=ledger, lifecycle=lifecycle, storage=storage)
    videos = Videos(
        repeats=repeats, preparer=preparer, promiser=promiser, queries=queries, queue=queue, storage=storage
    )
    return Services(
        settings=settings,
        engine=engine,
        redis=redis,
        catalog=catalog,
        registry=registry,
        book=book,
        health=health,
        storage=storage,
        links=links,
        checker=checker,
        fetcher=fetcher,
        keys=Keys(engine, _secret(settings.key_pepper), redis=redis),
        callers=Callers(
            engine,
            _secret(settings.key_pepper),
            cache_s=settings.key_cache_s,
            wrong_per_minute=settings.wrong_keys_per_minute,
        ),
        rates=Rates(redis, process=owner),
        uploads=Uploads(
            UploadLimits(
                at_once=settings.uploads,
                per_key=settings.uploads_per_key,
                wait_s=settings.upload_wait_s,
                spool_bytes=settings.spool_bytes,
            )
        ),
        room=Room(settings.storage_dir, min_bytes=settings.disk_free_bytes, min_percent=settings.disk_free_percent),
        accounts=Accounts(engine),
        ledger=ledger,
        statements=Statements(engine),
        audit=audit,
        queries=queries,
        lifecycle=lifecycle,
        leases=leases,
        idempotency=idempotency,
        waiters=waiters,
        queue=queue,
        advancer=advancer,
        poller=poller,
        retention=retention,
        images=Images(
            settings=settings,
            repeats=repeats,
            preparer=preparer,
            promiser=promiser,
            lifecycle=lifecycle,
            advancer=advancer,
            queries=queries,
            waiters=waiters,
            queue=queue,
        ),
        videos=videos,
        tasks=Tasks(
            queries=queries,
            lifecycle=lifecycle,
            ledger=ledger,
            waiters=waiters,
            queue=queue,
            advancer=advancer,
            retention=retention,
        ),
        timelines=Timelines(engine, queries),
        repairs=Repairs(engine, advancer=advancer, queue=queue),
        watch=Watch(engine, audit, audit_every_s=settings.audit_every_s),
        quotes=Quotes(preparer=preparer, videos=videos),
        webhooks=Endpoints(engine, webhook_secrets, webhook_fetcher, low_credits=settings.low_credits),
        webhook_secrets=webhook_secrets,
        webhook_log=DeliveryLog(engine),
        deliverer=Deliverer(engine, webhook_secrets, webhook_fetcher),
    )


def _secret(value: SecretStr | None) -> SecretStr:
    if value is None:
        raise SettingsError("MEDIAGATE_KEY_PEPPER, MEDIAGATE_LINK_SECRET and MEDIAGATE_SECRETS_KEY must be set.")
    return value


async def _cancel(background: set[asyncio.Task[None]]) -> None:
    """End the loops. More than once if need be: a client library may swallow a cancellation on its way."""
    while left := [task for task in background if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
