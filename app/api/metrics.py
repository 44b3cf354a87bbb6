"""``/metrics`` for Prometheus: what this process did, and what the database knows about the whole gateway."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.deps import ServicesDep
from app.api.errors import METHODS
from app.api.openapi import errors
from app.db import make_engine
from app.errors import MetricsClosed, WrongMetricsToken
from app.generation.watch import Figures, read_figures
from app.settings import Settings
from app.upstreams.health import Blocked
from app.wiring import Services

router = APIRouter(tags=["Operations"])
log = structlog.get_logger()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIGURES_S = 10.0
"""Scrapes within this time share one look at the database."""
READ_S = 5.0
LAG_EVERY_S = 0.5
LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
OTHER = "other"
bearer = HTTPBearer(auto_error=False, scheme_name="metrics", description="`MEDIAGATE_METRICS_TOKEN`. No API key.")
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


class Meters:
    """The counters of one API process. Labels come from our own short lists: no account, key or path of a caller."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "mediagate_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "mediagate_request_seconds",
            "Time from a request's head to its answer's last byte.",
            ("route", "method"),
            buckets=LATENCIES,
            registry=self.registry,
        )
        self._errors = Counter(
            "mediagate_request_errors",
            "Errors answered: too_many_requests, queue_full, overloaded and the like.",
            ("reason",),
            registry=self.registry,
        )
        self._open = Gauge("mediagate_requests_open", "Requests being served now.", registry=self.registry)
        self._joins = Counter(
            "mediagate_idempotent_joins",
            "Repeated requests that were answered with the task of the first.",
            registry=self.registry,
        )
        self._lag = Histogram(
            "mediagate_event_loop_lag_seconds",
            f"How late the event loop woke, measured every {LAG_EVERY_S} s.",
            buckets=LAGS,
            registry=self.registry,
        )
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def began(self) -> None:
        self._open.inc()

    def answered(self, scope: Scope, status: int, seconds: float, *, is_replay: bool) -> None:
        """Count one request; ``status`` 0: the caller left before the answer."""
        self._open.dec()
        method = scope["method"] if scope["method"] in METHODS else OTHER
        route = getattr(scope.get("route"), "path_format", OTHER)
        found = self._counted.get((route, method, status))
        if found is None:
            found = (self._requests.labels(route, method, str(status)), self._seconds.labels(route, method))
            self._counted[route, method, status] = found
        found[0].inc()
        found[1].observe(seconds)
        if status >= 400:
            reason = scope.get("state", {}).get("reason")
            if reason is not None:
                self._errors.labels(reason).inc()
        if is_replay:
            self._joins.inc()

    async def watch_the_loop(self) -> None:
        """Measure the event loop's lag until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._lag.observe(max(loop.time() - due, 0.0))


class Meter:
    """Pure ASGI middleware around everything of ours: one call before and one after each request."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app = app
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, is_replay = 0, False

        async def note(message: Message) -> None:
            nonlocal status, is_replay
            if message["type"] == "http.response.start":
                status = message["status"]
                is_replay = (b"idempotent-replayed", b"true") in message.get("headers", ())
            await send(message)

        self._meters.began()
        started = time.perf_counter()
        try:
            await self._app(scope, receive, note)
        finally:
            self._meters.answered(scope, status, time.perf_counter() - started, is_replay=is_replay)


class Gauges:
    """Reads the figures over a connection of its own: a scrape works, too, while the pool is used up."""

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ValueError("open_services checks this")
        self._engine: AsyncEngine = make_engine(
            settings.database_url.get_secret_value(),
            pooled=False,
            session={"default_transaction_read_only": "on", "application_name": "mediagate metrics"},
        )
        self._lock = asyncio.Lock()
        self._known: tuple[float, Figures | None] | None = None

    async def figures(self) -> Figures | None:
        """Return what the database knows, at most some seconds old; None when it does not answer."""
        async with self._lock:
            now = time.monotonic()
            if self._known is None or now - self._known[0] > FIGURES_S:
                self._known = (now, await self._read())
            return self._known[1]

    async def _read(self) -> Figures | None:
        try:
            async with asyncio.timeout(READ_S):
                return await read_figures(self._engine)
        except Exception as error:  # noqa: BLE001 - a scrape tells what it can, and that the database is away
            log.warning("metrics.database", error=type(error).__name__)
            return None


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    description="With `MEDIAGATE_METRICS_TOKEN` as the bearer. Where none is set, only a development gateway "
    "answers, and only to its own machine.",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **{status: answer for status, answer in errors(WrongMetricsToken, MetricsClosed).items() if status != 503},
    },
    operation_id="metrics",
    openapi_extra={"security": [{"bearer": []}, {}]},
)
async def metrics(request: Request, services: ServicesDep) -> Response:
    check_access(request, services.settings)
    state = request.app.state
    blocked = await services.health.blocked({f"{route.pool}" for route in _routes(services)})
    figures = await state.gauges.figures()
    pages = CollectorRegistry()
    pages.register(_Page(list(_page(figures, blocked, services))))
    body = await asyncio.to_thread(lambda: generate_latest(state.meters.registry) + generate_latest(pages))
    return Response(body, media_type=CONTENT_TYPE, headers={"cache-control": "no-store"})


def check_access(request: Request, settings: Settings) -> None:
    """Raises: WrongMetricsToken, MetricsClosed."""
    if settings.metrics_token is not None:
        wanted = f"bearer {settings.metrics_token.get_secret_value()}"
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if not hmac.compare_digest(f"{kind.lower()} {given.strip()}".encode(), wanted.encode()):
            raise WrongMetricsToken
        return
    # A proxy on this machine is a local peer too, whoever stands behind it.
    if settings.is_production or any(name in request.headers for name in FORWARDED) or not _is_local(request):
        raise MetricsClosed


def _is_local(request: Request) -> bool:
    try:
        return request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _routes(services: Services) -> Iterable[Any]:
    return (route for routes in services.registry.snapshot.routes.values() for route in routes)


class _Page(Collector):
    """Hands over what was built already: the registry asks without waiting."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _page(figures: Figures | None, blocked: Mapping[str, Blocked], services: Services) -> Iterator[Metric]:
    yield from _of_this_process(blocked, services)
    yield GaugeMetricFamily("mediagate_database_up", "Whether the database answered.", value=float(figures is not None))
    if figures is not None:
        yield from _of_the_gateway(figures)


def _of_this_process(blocked: Mapping[str, Blocked], services: Services) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "mediagate_redis_failures",
        "Messages that Redis did not take; the sweep replaced them.",
        services.queue.failures,
    )
    pools = GaugeMetricFamily(
        "mediagate_pool_blocked",
        "1: takes no calls now: paused by a 429, or its breaker is open.",
        labels=("pool", "why"),
    )
    for pool, block in sorted(blocked.items()):
        pools.add_metric((pool, block.why), 1.0)
    yield pools


def _of_the_gateway(figures: Figures) -> Iterator[Metric]:
    yield _gauge("open_tasks", "Tasks that have not ended.", ("pool", "state"), figures.open_tasks, "tasks", "status")
    yield _gauge(
        "held_credits", "Credits put aside for them.", ("pool", "state"), figures.open_tasks, "credits", "status"
    )
    yield _gauge("queue_oldest_seconds", "Age of the oldest queued task.", ("pool",), figures.queues, "oldest_s")
    yield GaugeMetricFamily(
        "mediagate_oldest_due_task_seconds",
        "How long the most overdue step has waited for a worker.",
        value=figures.oldest_due_s,
    )
    labels = ("model", "status", "reason")
    yield _counter("tasks_ended", "Tasks that have ended.", labels, figures.ended, "tasks")
    yield _counter(
        "captured_credits", "Credits charged.", ("model",), _by(figures.ended, "model", "credits"), "credits"
    )
    yield _counter(
        "attempts",
        "Attempts of ended tasks, by what became of them.",
        ("provider", "state"),
        figures.attempts,
        "attempts",
    )
    lost = [row for row in figures.attempts if row["state"] == "lost"]
    yield _counter("upstream_lost", "Attempts whose answer was never found.", ("provider",), lost, "attempts")
    yield _counter(
        "upstream_lost_credits", "The price of those: the upstream may bill us for it.", ("provider",), lost, "credits"
    )
    yield _counter(
        "upstream_late", "Attempts given up that were done after all.", ("provider",), figures.late, "attempts"
    )
    credits = GaugeMetricFamily("mediagate_credits", "Credits of all accounts.", labels=("kind",))
    credits.add_metric(("posted",), figures.posted)
    credits.add_metric(("held",), figures.held)
    yield credits
    yield _gauge("ledger_credits", "Sum of the ledger's lines, captures apart.", ("kind",), figures.entries, "credits")
    yield GaugeMetricFamily("mediagate_webhooks_pending", "Webhooks on their way.", value=figures.webhooks_pending)
    yield GaugeMetricFamily(
        "mediagate_webhook_oldest_due_seconds", "How overdue the next one is.", value=figures.webhooks_oldest_s
    )
    yield from _of_the_audit(figures)


def _of_the_audit(figures: Figures) -> Iterator[Metric]:
    """What was never found out is left out: absence is not 0."""
    if figures.counted_age_s is not None:
        yield GaugeMetricFamily(
            "mediagate_totals_age_seconds", "How far the totals of ended tasks lag.", value=figures.counted_age_s
        )
    if figures.violations is None or figures.imbalance is None:
        return
    yield GaugeMetricFamily(
        "mediagate_ledger_imbalance", "Violations of the invariants about credits. Must be 0.", value=figures.imbalance
    )
    each = GaugeMetricFamily("mediagate_invariant_violations", "At the last audit. Must be 0.", labels=("invariant",))
    for name, count in sorted(figures.violations.items()):
        each.add_metric((name,), count)
    yield each
    yield GaugeMetricFamily("mediagate_audit_age_seconds", "Since the last audit.", value=figures.audit_age_s)
    yield GaugeMetricFamily("mediagate_audit_seconds", "How long it took.", value=figures.audit_s)


def _gauge(
    name: str, text: str, labels: tuple[str, ...], rows: Iterable[Mapping[str, Any]], value: str, *columns: str
) -> Metric:
    family = GaugeMetricFamily(f"mediagate_{name}", text, labels=labels)
    return _filled(family, labels, rows, value, columns)


def _counter(name: str, text: str, labels: tuple[str, ...], rows: Iterable[Mapping[str, Any]], value: str) -> Metric:
    return _filled(CounterMetricFamily(f"mediagate_{name}", text, labels=labels), labels, rows, value, ())


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily,
    labels: tuple[str, ...],
    rows: Iterable[Mapping[str, Any]],
    value: str,
    columns: tuple[str, ...],
) -> Metric:
    """Add a sample per row. ``columns`` are those of the last labels, where they have other names."""
    names = labels[: len(labels) - len(columns)] + columns
    for row in rows:
        family.add_metric([str(row[name]) for name in names], float(row[value]))
    return family


def _by(rows: Iterable[Mapping[str, Any]], name: str, value: str) -> list[dict[str, Any]]:
    """Return sums by one column."""
    sums: dict[str, int] = {}
    for row in rows:
        sums[row[name]] = sums.get(row[name], 0) + int(row[value])
    return [{name: key, value: total} for key, total in sorted(sums.items())]
