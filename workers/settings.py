"""The arq worker and its life: what it runs, how it outlives Redis, how it stops."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from arq.worker import Function, Worker, func

from app.queue import ADVANCE_JOB, QUEUE_NAME, close_redis, deserialize_job, make_redis, serialize_job
from app.settings import Settings, load_settings
from app.upstreams.protocols import Provider
from app.wiring import Services, first_look, open_services
from workers.jobs import StepRunner, Sweep, advance_task, keep_house

log = structlog.get_logger()

JOB_TIMEOUT_S = 660.0
"""Longer than any provider's own limit for one call: a step ends by its provider's clock, not by arq's."""
READ_LIMIT = 10_000
POLL_S = 0.05
RESTART_MIN_S = 0.05
RESTART_MAX_S = 1.0
DRAIN_S = 30.0
CANCEL_AGAIN_S = 0.5


def functions() -> list[Function]:
    return [func(advance_task, name=ADVANCE_JOB, keep_result=0, max_tries=1, timeout=JOB_TIMEOUT_S)]


async def work(settings: Settings, stop: asyncio.Event, *, providers: Mapping[str, Provider] | None = None) -> None:
    """Run one worker until ``stop`` is set; then finish the steps that run, and hand back the rest."""
    async with open_services(settings, providers=providers) as services:
        await first_look(services)
        services.start_listening()
        steps = StepRunner(services)
        services.start(Sweep(services, steps).run, services.poller.run, services.deliverer.run)
        services.start(lambda: keep_house(services))
        services.start(services.watch.run)
        log.info("worker.ready", owner=services.lifecycle.owner)
        await _consume(services, steps, stop)
        log.info("worker.stopping")
        # Among the steps are images, paid for when they are sent: they get the time that the API gives its own.
        steps_s = max(settings.shutdown_wait_s, DRAIN_S)
        drains = (steps.drain(steps_s), services.poller.drain(DRAIN_S), services.deliverer.drain(DRAIN_S))
        cut_off = 0
        for drained in await asyncio.gather(*drains, return_exceptions=True):
            if isinstance(drained, BaseException):
                log.error("worker.drain_failed", exc_info=drained)
            else:
                cut_off += drained
        await _hand_back(services, cut_off=cut_off)


async def _hand_back(services: Services, *, cut_off: int) -> None:
    """Make what is left due for others at once; without a database the leases do it later."""
    try:
        log.info("worker.stopped", cut_off=cut_off, handed_back=await services.lifecycle.hand_back())
    except Exception as error:  # noqa: BLE001 - we stop anyway, and the leases run out by themselves
        log.warning("worker.stopped", cut_off=cut_off, handed_back=None, error=type(error).__name__)


async def _consume(services: Services, steps: StepRunner, stop: asyncio.Event) -> None:
    """Run arq's loop until ``stop``, again with backoff after Redis went away: arq itself ends then.

    The steps that its messages began go on: they need no Redis.
    """
    stopping = asyncio.create_task(stop.wait())
    wait_s = RESTART_MIN_S
    while not stop.is_set():
        worker, began_at = _worker(services, steps), time.monotonic()
        running = asyncio.create_task(worker.async_run())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            log.warning("worker.consumer_ended", error=repr(running.exception()), retry_s=wait_s)
        await _end(worker, running)
        if time.monotonic() - began_at > RESTART_MAX_S:
            wait_s = RESTART_MIN_S
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await asyncio.shield(stopping)
        wait_s = min(wait_s * 2, RESTART_MAX_S)


class _Consumer(Worker):
    """arq's worker, whose last words about a job can be waited for.

    arq shields them from a cancellation and looks at them no more: they would meet a connection that we have closed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.writing: set[asyncio.Task[Any]] = set()

    async def finish_job(self, *arguments: Any, **options: Any) -> None:
        with self._noted():
            await super().finish_job(*arguments, **options)

    async def finish_failed_job(self, *arguments: Any, **options: Any) -> None:
        with self._noted():
            await super().finish_failed_job(*arguments, **options)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is not None:
            self.writing.add(task)
            task.add_done_callback(self.writing.discard)
        yield


def _worker(services: Services, steps: StepRunner) -> _Consumer:
    settings = services.settings
    if settings.redis_url is None:
        raise RuntimeError("open_services checks this")
    jobs = settings.worker_jobs
    return _Consumer(
        functions=functions(),
        queue_name=QUEUE_NAME,
        redis_pool=make_redis(settings.redis_url.get_secret_value(), max_connections=jobs + 10),
        max_jobs=jobs,
        job_timeout=JOB_TIMEOUT_S,
        keep_result=0,
        max_tries=1,
        retry_jobs=False,
        poll_delay=POLL_S if jobs <= 20 else 0.2,
        queue_read_limit=READ_LIMIT,
        health_check_interval=10,
        handle_signals=False,
        job_serializer=serialize_job,
        job_deserializer=deserialize_job,
        ctx={"steps": steps},
        log_results=False,
    )


async def _end(worker: _Consumer, running: asyncio.Task[None]) -> None:
    """End arq's loop and its jobs, which only wait for steps of ours, and close the worker's own connections."""
    tasks = [running, *worker.tasks.values()]
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()  # more than once if need be: a client library may swallow it
        await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
    with suppress(TimeoutError):
        async with asyncio.timeout(CANCEL_AGAIN_S):
            await asyncio.gather(*worker.writing, return_exceptions=True)
    await close_redis(worker.pool)


def run() -> None:
    """The ``mediagate worker`` command: until SIGTERM or SIGINT. Raises: SettingsError."""
    import uvloop

    settings = load_settings()

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        await work(settings, stop)

    uvloop.run(main())
