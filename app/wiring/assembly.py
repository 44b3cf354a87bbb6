"""Puts the services together: each gets what it needs, and no more."""

from __future__ import annotations

import os
import socket

from arq.connections import ArqRedis
from sqlalchemy.ext.asyncio import AsyncEngine

from app.accounts.callers import Callers
from app.accounts.keys import Keys
from app.accounts.users import Accounts
from app.catalog.book import Book
from app.catalog.catalogs import Catalogs
from app.catalog.inspection import Inspector
from app.catalog.load import Files
from app.catalog.versions import ModelVersions
from app.credits.audit import Audit
from app.credits.ledger import Ledger
from app.credits.redeem import Codes
from app.credits.statements import Statements
from app.fetch.client import SafeFetcher
from app.generation.admission import Admission
from app.generation.advance import Advancer
from app.generation.attention import Attention
from app.generation.context import Steps
from app.generation.deliver import Delivery
from app.generation.faults import Faults
from app.generation.images import Images
from app.generation.journal import AuditLog
from app.generation.poll import Poller
from app.generation.prepare import Preparer
from app.generation.previews import Previews
from app.generation.promise import Promiser
from app.generation.quotes import Quotes
from app.generation.repairs import Repairs
from app.generation.repeats import Repeats
from app.generation.retention import Retention
from app.generation.route import Router
from app.generation.statistics import Statistics
from app.generation.tasks import Tasks
from app.generation.timeline import Timelines
from app.generation.videos import Videos
from app.generation.watch import Watch
from app.limits import Rates
from app.media.checks import Checker
from app.queue import ArqQueue
from app.sealing import SecretBox
from app.settings import Settings
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
from app.upstreams.registry import Registry
from app.values import new_id
from app.webhooks.deliver import Deliverer
from app.webhooks.deliveries import DeliveryLog
from app.webhooks.endpoints import Endpoints
from app.webhooks.secrets import Secrets
from app.wiring.people import open_people
from app.wiring.secrets import secret_of
from app.wiring.services import Services

CHECKERS = max(1, (os.cpu_count() or 2) - 1)
PREVIEWERS = max(1, CHECKERS // 2)  # of these children: what comes in is checked meanwhile


def assemble(
    settings: Settings,
    engine: AsyncEngine,
    redis: ArqRedis,
    files: Files,
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
    room = Room(settings.storage_dir, min_bytes=settings.disk_free_bytes, min_percent=settings.disk_free_percent)
    previews = Previews(
        settings.preview_dir,
        engine=engine,
        storage=storage,
        checker=checker,
        room=room,
        at_once=PREVIEWERS,
        max_bytes=settings.preview_bytes,
    )
    retention = Retention(settings=settings, engine=engine, storage=storage, idempotency=idempotency, previews=previews)
    health = Health(redis)
    router = Router(registry, health, is_public=settings.is_public)
    links = Links(secret_of(settings.link_secret), settings.base_url)
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
    catalogs = Catalogs(files, engine)
    book = Book(
        engine,
        secret_of(settings.secrets_key),
        catalog=catalogs.files.catalog(),
        in_force=catalogs.current,
        providers=registry.capabilities,
        work_dir=settings.work_dir,
        needs_https=settings.is_production,
    )
    webhook_secrets = Secrets(engine, SecretBox(secret_of(settings.secrets_key)))
    preparer = Preparer(
        settings=settings,
        catalog=catalogs.current,
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
    people = open_people(settings, engine)
    statistics, faults = Statistics(engine, settings), Faults(engine, settings)
    return Services(
        settings=settings,
        engine=engine,
        redis=redis,
        catalogs=catalogs,
        registry=registry,
        book=book,
        inspector=Inspector(book, registry, http),
        model_versions=ModelVersions(engine, catalogs, registry.capabilities),
        health=health,
        storage=storage,
        links=links,
        checker=checker,
        fetcher=fetcher,
        keys=Keys(engine, secret_of(settings.key_pepper), redis=redis),
        callers=Callers(
            engine,
            secret_of(settings.key_pepper),
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
        room=room,
        accounts=Accounts(engine, redis=redis),
        sessions=people.sessions,
        forms=people.forms,
        logins=people.logins,
        invitations=people.invitations,
        registration=people.registration,
        oidc=people.oidc,
        ledger=ledger,
        statements=Statements(engine),
        codes=Codes(engine),
        audit=audit,
        audit_log=AuditLog(engine),
        statistics=statistics,
        faults=faults,
        attention=Attention(catalogs.current, registry, health, statistics, faults),
        queries=queries,
        lifecycle=lifecycle,
        leases=leases,
        idempotency=idempotency,
        waiters=waiters,
        queue=queue,
        advancer=advancer,
        poller=poller,
        retention=retention,
        previews=previews,
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
