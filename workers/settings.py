"""The arq worker and its life: what it runs, how it outlives Redis, how it stops."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping

import structlog
from arq.worker import Function, Worker, func

from app.queue import ADVANCE_JOB, QUEUE_NAME, deserialize_job, make_redis, serialize_job
from app.settings import Settings, load_settings
from app.upstreams.protocols import Provider
from app.wiring import Services, first_look, open_services
from workers.jobs import Sweep, advance_task, keep_house

log = structlog.get_logger()

JOB_TIMEOUT_S = 660.0
"""Longer than any provider's own limit for one call: a step ends by its provider's clock, not by arq's."""
READ_LIMIT = 10_000
POLL_S = 0.05
RESTART_MAX_S = 1.0
DRAIN_S = 30.0


def functions() -> list[Function]:
    return [func(advance_task, name=ADVANCE_JOB, keep_result=0, max_tries=1, timeout=JOB_TIMEOUT_S)]


async def work(settings: Settings, stop: asyncio.Event, *, providers: Mapping[str, Provider] | None = None) -> None:
    """Run one worker until ``stop`` is set; then finish the steps that run, and hand back the rest."""
    async with open_services(settings, providers=providers) as services:
        await first_look(services)
        services.start_listening()
        sweep = Sweep(services)
        services.start(sweep.run, services.poller.run, lambda: keep_house(services))
        log.info("worker.ready", owner=services.lifecycle.owner)
        await _consume(services, stop)
        await _hand_back(services)


async def _hand_back(services: Services) -> None:
    """Make what is left due for others at once; without a database the leases do it later."""
    try:
        log.info("worker.stopped", handed_back=await services.lifecycle.hand_back())
    except Exception as error:  # noqa: BLE001 - we stop anyway, and the leases run out by themselves
        log.warning("worker.stopped", handed_back=None, error=type(error).__name__)


async def _consume(services: Services, stop: asyncio.Event) -> None:
    """Run arq's loop, again with backoff after Redis went away: arq itself ends then."""
    wait_s = 0.05
    while not stop.is_set():
        worker = _worker(services)
        running = asyncio.create_task(worker.async_run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop.is_set():
            await _drain(worker, running)
            return
        log.warning("worker.consumer_ended", error=repr(running.exception()), retry_s=wait_s)
        await _end_jobs(worker)
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, RESTART_MAX_S)


def _worker(services: Services) -> Worker:
    settings = services.settings
    if settings.redis_url is None:
        raise RuntimeError("open_services checks this")
    jobs = settings.worker_jobs
    return Worker(
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
        ctx={"services": services},
        log_results=False,
    )


async def _drain(worker: Worker, running: asyncio.Task[None]) -> None:
    """Take no new jobs, let the running steps end, then stop."""
    worker.allow_pick_jobs = False
    steps = [task for task in worker.tasks.values() if not task.done()]
    if steps:
        await asyncio.wait(steps, timeout=DRAIN_S)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await _end_jobs(worker)


async def _end_jobs(worker: Worker) -> None:
    """Cancel what still runs and close the worker's own connections. Its tasks come back at once, or by their lease."""
    steps = [task for task in worker.tasks.values() if not task.done()]
    for step in steps:
        step.cancel()
    await asyncio.gather(*steps, return_exceptions=True)
    await worker.pool.aclose(close_connection_pool=True)


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
