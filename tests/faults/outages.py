"""Databases, queues and disks that go away, and processes that are replaced under load."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from redis import Redis

from app.embedded.binaries import find_postgres
from app.embedded.postgres import EmbeddedPostgres
from app.migrate import migrate
from tests.faults.harness import Outcome, Place, Report, Rig, until
from tests.faults.proxy import FaultProxy
from tests.faults.stage import Scenario, Stage, pause
from tests.plugins.servers import FAST

POOLS = {"idempotent": "idempotent", "blind": "blind"}
PATIENT = {"lease_s": 15.0, "heartbeat_s": 1.0, "sweep_s": 1.0, "queue_wait_image_s": 60.0}
"""Leases that outlast the fault, and the sweep's real pace: what is measured is what an operator would see."""
QUIET_S = 60.0
HEALTHY_S = 10.0
ACCEPT_P99_S = 1.0
"""The most that a fault may add."""
DELAY_P99_S = 2.5
DISK_BYTES = 64 * 1024 * 1024


# --- Redis ------------------------------------------------------------------------------------------------------------


def redis_away(stage: Stage, *, faults: tuple[str, ...]) -> None:
    """No 5xx, no lost task; work is accepted as fast as before, and begun within a sweep or two."""
    place = stage.place()
    seconds = 20.0 if stage.is_full else 5.0
    with FaultProxy.to(place.redis_url) as proxy:
        settings = PATIENT | {"redis_url": proxy.url}
        with stage.rig(place=place, pools=POOLS, settings=settings) as rig:
            before = _warm(stage, rig) if stage.is_full else None
            usual: Pace | None = None
            for fault in ("healthy", *faults) if stage.is_full else faults:
                row = stage.row(f"Redis {fault}")
                began = rig.sql("SELECT extract(epoch FROM clock_timestamp())::float8 AS at")[0]["at"]
                load = rig.start_load(stage.size, "mixed", at_once=8, pause_s=seconds * 8 / stage.size)
                pause(1.0)
                _break_redis(rig, proxy, fault)
                pause(seconds)
                proxy.heal()
                outcomes = load.result()
                row.note_recovery(rig.quiet(QUIET_S))
                row.runs += 1
                row.violations += _no_5xx(outcomes, allowed=())
                pace = _pace(rig, outcomes, began)
                usual = usual or pace
                row.late += pace.compared_to(usual)
                figures.append(f"Redis {fault}: {pace}")
                row.violations += _all_made(outcomes, rig)
                before = stage.judge(row, rig, since=before)


def _warm(stage: Stage, rig: Rig) -> Report:
    """Let every process have done everything once: a cold start is not what is measured."""
    rig.load(24, "mixed", at_once=8)
    rig.quiet(QUIET_S)
    return stage.judge(stage.row("warming up"), rig)


def _break_redis(rig: Rig, proxy: FaultProxy, fault: str) -> None:
    match fault:
        case "healthy":
            pass
        case "flushed":
            with Redis.from_url(rig.place.redis_url) as redis:
                redis.flushdb()  # the gateway has this one to itself
        case "stopped":
            proxy.refuse()
        case "slow by 2 s":
            proxy.slow(2.0)
        case "stalled":
            proxy.stall()


@dataclass(frozen=True)
class Pace:
    """How long work took, at the 99th percentile: the machine may be slow, so only what a fault adds is judged."""

    accept_s: float
    """Until a request was answered with its task."""
    begin_s: float
    """From there until somebody worked on it."""

    def compared_to(self, usual: Pace) -> list[str]:
        found = []
        if self.accept_s - usual.accept_s >= ACCEPT_P99_S:
            found.append(f"p99 until accepted: {self.accept_s:.2f} s, usually {usual.accept_s:.2f} s")
        if self.begin_s - usual.begin_s > DELAY_P99_S:
            found.append(f"p99 until begun: {self.begin_s:.2f} s, usually {usual.begin_s:.2f} s")
        return found


def _pace(rig: Rig, outcomes: list[Outcome], began: float) -> Pace:
    accepted = [o.accepted_s for o in outcomes if o.kind != "image" and o.accepted_s is not None]
    rows = rig.sql(
        """SELECT extract(epoch FROM started_at - created_at)::float8 AS delay FROM tasks
         WHERE created_at >= to_timestamp($1) AND started_at IS NOT NULL""",
        began,
    )
    return Pace(p99(accepted), p99([row["delay"] for row in rows]))


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def postgres_away(stage: Stage, *, faults: tuple[str, ...]) -> None:
    """Only 503s, no lost credit, and work is taken again within ten seconds of its return."""
    with own_postgres() as server, FaultProxy.to(server.url) as proxy:
        place = Place(server.url, stage.place().redis_url, stage.folder / f"{stage.name}-own")
        place.folder.mkdir(parents=True)
        settings = PATIENT | {"database_url": proxy.url}
        with stage.rig(place=place, pools=POOLS, settings=settings) as rig:
            before = _warm(stage, rig) if stage.is_full else None
            for fault in faults:
                row = stage.row(f"PostgreSQL {fault}")
                load = rig.start_load(stage.size, "mixed", at_once=8, pause_s=8 * 8.0 / stage.size)
                pause(1.0)
                _break_postgres(server, proxy, fault)
                back = time.monotonic()
                until(lambda: _takes_work(rig), QUIET_S, "no work is taken after the database's return")
                stage.judge_recovery(row, "work is taken", time.monotonic() - back, HEALTHY_S)
                outcomes = load.result()
                rig.quiet(QUIET_S)
                row.runs += 1
                row.violations += _no_5xx(outcomes, allowed=(503,))
                before = stage.judge(row, rig, since=before)


def _break_postgres(server: EmbeddedPostgres, proxy: FaultProxy, fault: str) -> None:
    match fault:
        case "restarted":
            server.stop()
            pause(2.0)
            server.start()
        case "kill -9":
            os.kill(server.pid, signal.SIGKILL)
            until(lambda: not server.is_alive, 10, "it lives")
            server.start()
        case "kill -9 of a backend":
            os.kill(_a_backend(server), signal.SIGKILL)
        case "stalled 10 s":
            proxy.stall()
            pause(10.0)
            proxy.heal()


def _a_backend(server: EmbeddedPostgres) -> int:
    """The process of one of the gateway's connections: its death restarts them all."""

    async def find() -> int:
        connection = await asyncpg.connect(server.url)
        try:
            found: int = await connection.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'mediagate' AND pid <> pg_backend_pid()"
            )
            return found
        finally:
            await connection.close()

    inside = asyncio.run(find())
    # It runs in a user namespace, not in a pid namespace: the number is the same out here.
    return inside


@contextmanager
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A server for one scenario alone: nobody else's is killed."""
    folder = Path(tempfile.mkdtemp(prefix="mg-outage-"))
    server = EmbeddedPostgres(folder / "pg", programs=find_postgres(allow_path=False), options=FAST)
    try:
        with server.started():
            asyncio.run(migrate(server.url))
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _takes_work(rig: Rig) -> bool:
    [outcome] = rig.load(1, "async", tries=1, patience_s=5.0)
    return outcome.status == 202


# --- the disk ---------------------------------------------------------------------------------------------------------


def disk_full(stage: Stage, *, moments: tuple[str, ...]) -> None:
    """What was promised settles when there is room again; what was not promised is refused with a 503."""
    place = stage.place()
    if not _may_mount(place.folder / "data"):
        if "PYTEST_CURRENT_TEST" in os.environ:
            pytest.skip("mounting a small file system is not permitted here")
        stage.row("disk full: not run, as mounting a small file system is not permitted here")
        return
    with small_disk(place.folder / "data") as disk:
        settings = {"disk_free_bytes": 0, "disk_free_percent": 0.0}
        with stage.rig(place=place, pools=POOLS, settings=settings) as rig:
            before = _warm(stage, rig)
            for moment in moments:
                row = stage.row(f"disk full {moment}")
                _slow_storing(rig, moment)
                load = rig.start_load(stage.size, "mixed", at_once=8, pause_s=8 * 4.0 / stage.size)
                pause(1.0)
                disk.fill()
                pause(3.0)
                disk.free()
                outcomes = load.result()
                row.note_recovery(rig.quiet(QUIET_S))
                row.runs += 1
                row.violations += _no_5xx(outcomes, allowed=(503, 502))
                row.violations += _no_reason(outcomes, "internal_error", "upstream_error")
                before = stage.judge(row, rig, since=before)


def _slow_storing(rig: Rig, moment: str) -> None:
    """For the rename, results must lie there already when the disk is filled."""
    if moment == "at the rename":
        for process in rig.processes:
            process.stop()
        rig.start(MEDIAGATE_FAIL="after_download:sleep=1.5")


@dataclass
class Disk:
    folder: Path

    def fill(self) -> None:
        """Leave neither a block nor an inode: not even a folder can be made."""
        with (self.folder / "ballast").open("ab") as file:
            try:
                while True:
                    file.write(b"\0" * 65536)
                    file.flush()
            except OSError:
                pass
        extra = self.folder / "names"
        try:
            extra.mkdir()
            for number in range(100_000):
                (extra / str(number)).touch()
        except OSError:
            pass

    def free(self) -> None:
        (self.folder / "ballast").unlink()
        shutil.rmtree(self.folder / "names", ignore_errors=True)


def _may_mount(folder: Path) -> bool:
    try:
        with small_disk(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Mount a file system of a few MiB. Raises: OSError, CalledProcessError where that is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={DISK_BYTES},nr_inodes=4000"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


# --- rolling restart --------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What clients on kept connections were told."""

    statuses: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    longest_stop_s: float = 0.0


def rolling(stage: Stage) -> None:
    """Replace one process after the other: nobody stays without an answer, nothing is lost."""
    with stage.rig(pools=POOLS, settings=PATIENT) as rig:
        rig.has_one_task_per_key = False  # these clients send none
        before = None
        for _ in range(3 if stage.is_full else 1):
            row = stage.row("rolling restart")
            tally, stop = Tally(), asyncio.Event()
            clients = rig.loop.start(_clients(rig, tally, stop, count=max(stage.size // 10, 6)))
            pause(1.0)
            for process in (rig.workers[0], *rig.apis, rig.workers[1]):
                began = time.monotonic()
                code = process.stop(within_s=30)
                tally.longest_stop_s = max(tally.longest_stop_s, time.monotonic() - began)
                if code != 0:
                    row.violations.append(f"{process.name} ended with {code}")
                process.start()
                pause(1.0)
            rig.run(_set(stop))
            clients.result(60)
            row.note_recovery(rig.quiet(QUIET_S))
            row.runs += 1
            row.violations += tally.broken[:5]
            row.violations += [f"{n} answers {code}" for code, n in tally.statuses.items() if code.startswith("5")]
            report = stage.judge(row, rig, since=before)
            if report.lost:
                row.violations.append(f"{report.lost} attempts lost")
            figures.append(f"rolling restart: {dict(tally.statuses)}, longest stop {tally.longest_stop_s:.1f} s")
            before = report


async def _set(event: asyncio.Event) -> None:
    event.set()


async def _clients(rig: Rig, tally: Tally, stop: asyncio.Event, *, count: int) -> None:
    await asyncio.gather(*(_client(rig, tally, stop, number) for number in range(count)))


async def _client(rig: Rig, tally: Tally, stop: asyncio.Event, number: int) -> None:
    """One caller with one kept connection, who does not try again."""
    headers = {"authorization": f"Bearer {rig.key.secret}"}
    async with aiohttp.ClientSession(
        rig.url, headers=headers, connector=aiohttp.TCPConnector(limit=1), timeout=aiohttp.ClientTimeout(total=60)
    ) as session:
        session._retry_connection = False  # aiohttp would hide a broken connection
        pool = list(rig.pools)[number % len(rig.pools)]
        video = {"model": f"video-{pool}", "prompt": "a river", "resolution": "480p", "duration": 4}
        image = {"model": f"image-{pool}", "prompt": "a fox"}
        last = ""
        while not stop.is_set():
            for method, path, sent in (
                ("GET", "/v1/me", None),
                ("POST", "/v1/images/generations", image),
                ("POST", "/v1/videos/generations", video),
                ("GET", "/v1/tasks/{last}?wait=30", None),
                ("GET", "/v1/tasks/{last}/events", None),
            ):
                try:
                    async with session.request(method, path.format(last=last), json=sent) as answer:
                        said = await answer.read()
                        tally.statuses[str(answer.status)] += 1
                        if answer.status != 200:
                            tally.broken.append(f"{method} {path}: {answer.status} {said[:200]!r}")
                        last = answer.headers.get("x-task-id", last)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    tally.broken.append(f"{method} {path}: {type(error).__name__} {error}")


# --- judging ----------------------------------------------------------------------------------------------------------

figures: list[str] = []
"""What was measured, for whoever runs this by hand."""


def p99(values: list[float]) -> float:
    return sorted(values)[min(int(len(values) * 0.99), len(values) - 1)] if values else 0.0


def _no_5xx(outcomes: list[Outcome], *, allowed: tuple[int, ...]) -> list[str]:
    wrong = Counter(
        status for o in outcomes for status in o.statuses if isinstance(status, str) or 500 <= status not in allowed
    )
    return [f"{count} answers {status}" for status, count in wrong.items()]


def _no_reason(outcomes: list[Outcome], *reasons: str) -> list[str]:
    return [f"request {o.number}: {o.status} {o.reason}" for o in outcomes if o.reason in reasons]


def _all_made(outcomes: list[Outcome], rig: Rig) -> list[str]:
    wrong = [o for o in outcomes if o.status not in (200, 202)]
    failed = rig.sql("SELECT id, error_code FROM tasks WHERE status <> 'succeeded' LIMIT 5")
    return [f"not made: {o}" for o in wrong[:3]] + [f"not made: {dict(row)}" for row in failed]


REDIS = ("flushed", "stopped", "slow by 2 s", "stalled")
POSTGRES = ("restarted", "kill -9", "kill -9 of a backend", "stalled 10 s")
DISK = ("at the temporary file", "at the rename")
SCENARIOS = [
    Scenario("redis-away", partial(redis_away, faults=("stalled", "flushed")), quick=48, full=None),
    Scenario("redis-all", partial(redis_away, faults=REDIS), quick=None, full=200),
    Scenario("postgres-away", partial(postgres_away, faults=("restarted",)), quick=48, full=None),
    Scenario("postgres-all", partial(postgres_away, faults=POSTGRES), quick=None, full=200),
    Scenario("disk-full", partial(disk_full, moments=DISK[:1]), quick=32, full=None),
    Scenario("disk-all", partial(disk_full, moments=DISK), quick=None, full=100),
    Scenario("rolling", rolling, quick=60, full=200),
]
