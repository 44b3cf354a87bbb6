"""A gateway of real processes that may be killed, cut off and lied to; and the proof that its books are right after it.

    with Rig(place, pools={"steady": "idempotent"}) as rig:
        rig.start()
        rig.load(20, "mixed")         # or start_load, which returns a Future of the outcomes
        rig.workers[0].kill()
        rig.workers[0].start()
        rig.quiet(within_s=20)        # every task is settled
        assert rig.check() == []

All but the loop's own coroutines runs in the main thread: the kernel ties a process to the thread that started it.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import yaml
from redis import Redis

from app import db
from app.accounts.keys import MintedKey
from app.embedded.process import launch_command
from app.settings import Settings
from app.upstreams.protocols import SubmitSafety
from app.values import task_public_id
from app.wiring import open_services
from tests.factories import make_account, make_key
from tests.faults.nursery import Child, Nursery
from tests.faults.provider import install, providers
from tests.faults.upstream import FakeUpstream, Loop
from tests.plugins.gateway import ROOT, as_environment, quick
from tests.plugins.servers import TEMPLATE, Servers, administer

T = TypeVar("T")
Kind = Literal["image", "async", "video", "mixed"]
LEASE_S = 2.0
CREDITS = 1_000_000
IMAGE_CREDITS, VIDEO_CREDITS = 1, 4
READY_S = 180.0
STOP_S = 20.0
LONG_AGO_S = 86400.0
FAST = {
    "lease_s": LEASE_S, "heartbeat_s": 0.5, "sweep_s": 0.2, "poll_min_s": 0.1, "poll_max_s": 1.0,
    "queue_wait_image_s": 10.0, "queue_wait_video_s": 30.0, "deadline_image_s": 30.0, "deadline_video_s": 60.0,
    "submit_absent_s": 2.0, "shutdown_wait_s": 10.0, "key_cache_s": 5.0, "log_format": "json",
}  # fmt: skip


class Stuck(AssertionError):
    """Something did not happen in time."""


@dataclass(frozen=True)
class Place:
    """Where a rig lives. The harness itself speaks to these addresses, whatever its processes are told."""

    database_url: str
    redis_url: str
    folder: Path


def new_place(servers: Servers, folder: Path, name: str, *, redis_database: int) -> Place:
    """Make a database of its own; the numbered Redis database is emptied when the rig starts."""
    administer(servers, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    administer(servers, f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    folder.mkdir(parents=True, exist_ok=True)
    return Place(servers.database_url(name), servers.redis_url(redis_database), folder)


@dataclass
class Outcome:
    """What one request of a client came to, over all of its tries."""

    number: int
    kind: str
    pool: str
    status: int | None = None
    """Of the last answer; None: never answered."""
    reason: str | None = None
    task_ids: set[str] = field(default_factory=set)
    """Public ids of every task that an answer named."""
    charged: int | None = None
    statuses: list[int | str] = field(default_factory=list)
    """Of every try; a broken connection is the name of its error."""
    seconds: float = 0.0
    accepted_s: float | None = None
    """Until the first answer that named a task."""


@dataclass
class Report:
    """What a check found: sentences, and the figures behind them."""

    violations: list[str]
    tasks: int
    by_status: Counter[str]
    lost: int
    accepted: int


class Process:
    """``mediagate api`` or ``mediagate worker``, started again and again under one name."""

    def __init__(self, rig: Rig, role: str, number: int) -> None:
        self._rig, self.role, self.name = rig, role, f"{role}-{number}"
        self._popen: subprocess.Popen[bytes] | Child | None = None
        self._starts = 0
        self.log = Path()
        self.pids: list[int] = []

    @property
    def is_alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def pid(self) -> int:
        return self.pids[-1]

    @property
    def returncode(self) -> int | None:
        return None if self._popen is None else self._popen.poll()

    def start(self, *, wait: bool = True, clock_s: float = 0.0, repeat: int = 1, **environment: str) -> None:
        """Start it with more environment: ``MEDIAGATE_FAIL="after_claim:kill"``.

        ``clock_s``: its clock is that far off. ``repeat``: it sends each wake-up so often, out of order.
        """
        assert not self.is_alive
        rig = self._rig
        self._starts += 1
        self.log = rig.logs / f"{self.name}-{self._starts}.log"
        told = {**rig.environment, **environment}
        fd = rig.listener.fileno() if self.role == "api" else None
        arguments = ["api", "--fd", "{fd}"] if self.role == "api" else ["worker"]
        if clock_s or repeat > 1:
            self._popen = self._start_oddly(arguments, told, fd, clock_s, repeat)
        else:
            self._popen = rig.nursery.start(arguments, told, self.log, fd)
        self.pids.append(self._popen.pid)
        if wait:
            self.wait_ready()

    def _start_oddly(
        self, arguments: list[str], environment: dict[str, str], fd: int | None, clock_s: float, repeat: int
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.faults.oddly", str(clock_s), str(repeat), *arguments]
        with self.log.open("wb") as output:
            return subprocess.Popen(
                launch_command([word.format(fd=fd) for word in command]),
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                pass_fds=() if fd is None else (fd,),
            )

    def wait_ready(self, within_s: float = READY_S) -> None:
        word = f"{self.role}.ready"
        until(lambda: word in self.log.read_text(errors="replace"), within_s, f"{self.name} is not ready: {self.log}",
              unless=lambda: not self.is_alive)  # fmt: skip

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def signal(self, number: signal.Signals) -> None:
        if self._popen is not None and self.is_alive:
            self._popen.send_signal(number)

    def stop(self, *, within_s: float = STOP_S) -> int:
        """SIGTERM, and wait; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(within_s)

    def wait(self, within_s: float = STOP_S) -> int:
        assert self._popen is not None
        try:
            return self._popen.wait(within_s)
        except subprocess.TimeoutExpired:
            raise Stuck(f"{self.name} did not end within {within_s} s: {self.log}") from None


class Rig:
    """``pools``: name -> what its upstream promises about a lost submit (`SubmitSafety`). Each has an image and a video
    model, ``image-<pool>`` and ``video-<pool>``, and a fake upstream that answers by pool.

    ``settings`` are those of the processes, on top of `FAST`; addresses may be a proxy's.
    """

    def __init__(
        self,
        place: Place,
        *,
        pools: Mapping[str, str] | None = None,
        apis: int = 2,
        workers: int = 2,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        concurrency: int = 64,
    ) -> None:
        self.place, self.seed = place, seed
        self.random = random.Random(seed)
        self.pools = dict(pools or {"idempotent": "idempotent"})
        self.data, self.logs = place.folder / "data", place.folder / "logs"
        self._stack = ExitStack()
        self.loop = Loop()
        self._stack.callback(self.loop.close)
        self.upstream = FakeUpstream(self.loop)
        self._concurrency = concurrency
        self.listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        told = {"database_url": place.database_url, "redis_url": place.redis_url, **FAST, **(settings or {})}
        self.settings = Settings(
            **{**quick(), **told}, data=self.data, config_dir=place.folder / "config", public_url=self.url
        )
        self.apis = [Process(self, "api", number) for number in range(apis)]
        self.workers = [Process(self, "worker", number) for number in range(workers)]
        self.outcomes: list[Outcome] = []
        self.has_one_task_per_key = True
        """Whether a repeated Idempotency-Key must never make a second task."""
        self.environment: dict[str, str] = {}
        self.nursery: Nursery
        self.key: MintedKey
        self.account_id: int

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _open(self) -> None:
        for folder in (self.data, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        _write_config(self.place.folder / "config", self.pools, self.upstream.url, self._concurrency)
        plugin = install(self.place.folder / "plugin")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MEDIAGATE_")}
        self.environment = {**kept, **as_environment(self.settings), "PYTHONPATH": str(plugin)}
        with _redis(self.place.redis_url) as redis:
            redis.flushdb()
        self.nursery = Nursery(self.environment, ROOT)
        self._stack.callback(self.nursery.close)
        self.upstream.open()
        self._stack.callback(self.upstream.close)
        self.run(self._make_account())
        self._stack.callback(self._end_processes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # --- processes ----------------------------------------------------------------------------------------------------

    @property
    def processes(self) -> list[Process]:
        return [*self.apis, *self.workers]

    def start(self, *processes: Process, **how: Any) -> None:
        """Start all (or these), at once, and wait until they are ready. ``how``: as `Process.start`."""
        chosen = processes or tuple(self.processes)
        for process in chosen:
            process.start(wait=False, **how)
        for process in chosen:
            process.wait_ready()

    def _end_processes(self) -> None:
        for process in self.processes:
            process.signal(signal.SIGKILL)
        for process in self.processes:
            if process.pids:
                process.wait()

    # --- load ---------------------------------------------------------------------------------------------------------

    def load(self, count: int, kind: Kind = "mixed", **options: Any) -> list[Outcome]:
        """Send requests and wait for all answers. Options: as `start_load`."""
        return self.start_load(count, kind, **options).result()

    def start_load(
        self,
        count: int,
        kind: Kind = "mixed",
        *,
        pool: str | None = None,
        at_once: int = 16,
        pause_s: float = 0.0,
        tries: int = 30,
        patience_s: float = 60.0,
        has_key: bool = True,
    ) -> Future[list[Outcome]]:
        """Send requests from ``at_once`` clients, each after a pause; the Future has their outcomes.

        ``has_key``: with an Idempotency-Key, tried again as a persistent client does: after a broken connection, and
        where the answer says ``x-should-retry: true`` or nothing was accepted (429, 503 without a task). Without, it is
        tried as the OpenAI SDKs do: twice, with ``x-stainless-retry-count``.
        ``pool``: None spreads over all.
        """
        names, kinds = [pool] if pool else list(self.pools), ["image", "async", "video"] if kind == "mixed" else [kind]
        wanted = [(kinds[index % len(kinds)], names[index // len(kinds) % len(names)]) for index in range(count)]
        return self.start_requests(
            wanted, at_once=at_once, pause_s=pause_s, tries=tries, patience_s=patience_s, has_key=has_key
        )

    def start_requests(
        self,
        wanted: Sequence[tuple[str, str]],
        *,
        at_once: int = 16,
        pause_s: float = 0.0,
        tries: int = 30,
        patience_s: float = 60.0,
        has_key: bool = True,
    ) -> Future[list[Outcome]]:
        """Send one request for each (kind, pool). Options: as `start_load`."""
        begin = len(self.outcomes)
        made = [Outcome(begin + index, kind, pool) for index, (kind, pool) in enumerate(wanted)]
        self.outcomes += made
        return self.loop.start(self._send(made, at_once, pause_s, tries if has_key else 3, patience_s, has_key))

    async def _send(
        self, made: list[Outcome], at_once: int, pause_s: float, tries: int, patience_s: float, has_key: bool
    ) -> list[Outcome]:
        queue = iter(made)

        async def client() -> None:
            for outcome in queue:
                await self._ask(session, outcome, tries, patience_s, has_key)
                if pause_s:
                    await asyncio.sleep(pause_s)

        # A connection of its own for each request: both API processes get their share, and none is reused dead.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=patience_s)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(client() for _ in range(min(at_once, len(made)))))
        return made

    async def _ask(
        self, session: aiohttp.ClientSession, outcome: Outcome, tries: int, patience_s: float, has_key: bool
    ) -> None:
        headers = {"authorization": f"Bearer {self.key.secret}"}
        if has_key:
            headers["idempotency-key"] = f"{self.seed}-{self.place.folder.name}-{outcome.number}"
        path, sent = _request_of(outcome)
        began = time.monotonic()
        for number in range(tries):
            if not has_key:
                headers["x-stainless-retry-count"] = str(number)
            wait_s = min(0.05 * 2**number, 1.0)
            try:
                async with session.post(self.url + path, json=sent, headers=headers) as answer:
                    said = await answer.json()
                    self._note(outcome, answer, said, time.monotonic() - began)
                if not _may_retry(answer, said, has_key):
                    break
                wait_s = max(wait_s, min(float(answer.headers.get("retry-after", 0)), 5.0))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                outcome.statuses.append(type(error).__name__)
            if time.monotonic() - began > patience_s:
                break
            await asyncio.sleep(wait_s)
        outcome.seconds = time.monotonic() - began

    def _note(self, outcome: Outcome, answer: aiohttp.ClientResponse, said: Any, seconds: float) -> None:
        outcome.status = answer.status
        outcome.statuses.append(answer.status)
        outcome.reason = None
        if "x-credits-charged" in answer.headers:
            outcome.charged = int(answer.headers["x-credits-charged"])
        if isinstance(said, dict):
            error = said.get("error") or {}
            outcome.reason = error.get("reason") or error.get("code") if answer.status >= 400 else None
        task_id = answer.headers.get("x-task-id")
        if task_id:
            outcome.task_ids.add(task_id)
            if outcome.accepted_s is None:
                outcome.accepted_s = seconds

    # --- the end ------------------------------------------------------------------------------------------------------

    def quiet(self, within_s: float = 30.0) -> float:
        """Wait until every task is settled; return how long it took. Raises: Stuck, with what is left."""
        began = time.monotonic()
        try:
            until(lambda: self.open_tasks() == 0, within_s, "not quiet", every_s=0.1)
        except Stuck:
            left = self.sql(
                """SELECT id, kind, status, pool, claims, attempt_no, lease_owner, wake_at - now() AS due,
                 deadline_at - now() AS deadline FROM tasks WHERE settled_at IS NULL ORDER BY created_at LIMIT 5"""
            )
            shown = "\n".join(str(dict(row)) for row in left)
            raise Stuck(f"not quiet after {within_s} s; the first of what is left:\n{shown}") from None
        return time.monotonic() - began

    def open_tasks(self) -> int:
        """Return how many tasks are not settled."""
        count: int = self.sql("SELECT count(*) AS n FROM tasks WHERE settled_at IS NULL")[0]["n"]
        return count

    @staticmethod
    def public_id(task_id: Any) -> str:
        return task_public_id(task_id)

    def held_by(self, process: Process) -> list[Any]:
        """Return the ids of open tasks whose lease the (dead) process holds."""
        pattern = f"%:{process.pid}:%"
        rows = self.sql("SELECT id FROM tasks WHERE settled_at IS NULL AND lease_owner LIKE $1", pattern)
        return [row["id"] for row in rows]

    def settled_s(self, tasks: Sequence[Any], since: float) -> float | None:
        """Return when the last of these tasks was settled: seconds after ``since`` (Unix time)."""
        rows = self.sql(
            "SELECT max(extract(epoch FROM settled_at))::float8 AS at FROM tasks WHERE id = ANY($1::uuid[])",
            list(tasks),
        )
        return rows[0]["at"] - since if rows[0]["at"] is not None else None

    def check(self) -> Report:
        """Run every invariant: I1..I10 both ways, I11, one settlement a task, no credit lost, clients told the truth.

        The rig must be quiet, its database reachable. Files of dead processes are made old and swept first.
        """
        report: Report = self.run(self._check(), 120)
        return report

    async def _check(self) -> Report:
        await asyncio.to_thread(_age, self.settings.storage_dir, self.settings.spool_dir)
        async with open_services(self.settings, providers=providers()) as services:
            await services.retention.run_once()
            found = [
                f"{finding.invariant} {finding.title}: {finding.violations[:5]}"
                for finding in await services.audit.run(services.storage.walk())
                if not finding.is_clean
            ]
        rows = [dict(row) | {"public_id": task_public_id(row["id"])} for row in await self._sql(_TASKS)]
        [account] = await self._sql("SELECT * FROM accounts WHERE id = $1", self.account_id)
        tasks = {str(row["id"]): row for row in rows}
        found += _money(tasks, account)
        found += self._i11(tasks)
        found += self._told(tasks)
        return Report(
            found,
            len(tasks),
            Counter(row["status"] for row in rows),
            sum(row["lost"] for row in rows),
            sum(self.upstream.accepted_of(task_id) for task_id in tasks),
        )

    def _i11(self, tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
        found = []
        for task_id, row in tasks.items():
            accepted = self.upstream.accepted_of(task_id)
            if accepted > 1 + row["lost"]:
                found.append(f"I11 {task_id}: {accepted} accepted calls, {row['lost']} lost attempts")
            if row["status"] == "succeeded" and accepted < 1:
                found.append(f"I11 {task_id} succeeded, but its upstream made nothing")
        return found

    def _told(self, tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """What clients were told, against what is in the books."""
        found, by_public = [], {row["public_id"]: row for row in tasks.values()}
        named: Counter[str] = Counter()
        for outcome in self.outcomes:
            named.update(outcome.task_ids)
            if self.has_one_task_per_key and len(outcome.task_ids) > 1:
                found.append(f"request {outcome.number} made {len(outcome.task_ids)} tasks: {outcome.task_ids}")
            for public_id in outcome.task_ids:
                row = by_public.get(public_id)
                if row is None:
                    found.append(f"request {outcome.number} was told of {public_id}, which does not exist")
                elif outcome.kind == "image" and outcome.status == 200 and (
                    row["status"] != "succeeded" or outcome.charged != row["charge"]
                ):  # fmt: skip
                    found.append(f"request {outcome.number}: 200, charged {outcome.charged}; books: {row}")
        if self.has_one_task_per_key:
            found += [f"{public_id} answered {count} requests" for public_id, count in named.items() if count > 1]
            if len(tasks) > len(self.outcomes):
                found.append(f"{len(tasks)} tasks for {len(self.outcomes)} requests")
        return found

    # --- the database -------------------------------------------------------------------------------------------------

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        """Ask the database, beside everything."""
        found: list[Any] = self.run(self._sql(statement, *arguments))
        return found

    async def _sql(self, statement: str, *arguments: Any) -> list[Any]:
        engine = db.make_engine(self.place.database_url, pooled=False, role=None)
        try:
            return await db.once(engine, statement, arguments)
        finally:
            await engine.dispose()

    def run(self, work: Any, timeout_s: float = 60.0) -> Any:
        return self.loop.run(work, timeout_s)

    async def _make_account(self) -> None:
        account = await make_account(self.place.database_url, credits=CREDITS, max_in_flight=100_000)
        self.account_id = account.id
        self.key = await make_key(self.place.database_url, account)

    def keep_evidence(self, folder: Path) -> None:
        """Copy logs and a dump of every table into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        for log in self.logs.glob("*.log"):
            (folder / log.name).write_bytes(log.read_bytes())
        for table in ("tasks", "task_attempts", "ledger", "accounts", "key_budgets", "files"):
            rows = self.sql(f"SELECT to_jsonb(t)::text AS row FROM {table} t")  # noqa: S608 - our own names
            (folder / f"{table}.jsonl").write_text("".join(row["row"] + "\n" for row in rows))
        (folder / "outcomes.txt").write_text("".join(f"{outcome}\n" for outcome in self.outcomes))


def until(
    condition: Callable[[], Any],
    within_s: float,
    what: str,
    *,
    unless: Callable[[], bool] = lambda: False,
    every_s: float = 0.02,
) -> None:
    """Ask again and again until the answer is true. Raises: Stuck."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end or unless():
            raise Stuck(what)
        time.sleep(every_s)


def _may_retry(answer: aiohttp.ClientResponse, said: Any, has_key: bool) -> bool:
    told = answer.headers.get("x-should-retry")
    if told is not None:
        return told == "true"
    if not has_key:
        return answer.status in (408, 409, 429) or answer.status >= 500
    return answer.status in (429, 503) and "x-task-id" not in answer.headers


def _request_of(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    prompt = f"request {outcome.number}"
    if outcome.kind == "video":
        model = f"video-{outcome.pool}"
        return "/v1/videos/generations", {"model": model, "prompt": prompt, "resolution": "480p", "duration": 4}
    sent = {"model": f"image-{outcome.pool}", "prompt": prompt}
    return "/v1/images/generations", sent | ({"async": True} if outcome.kind == "async" else {})


_TASKS = """
SELECT t.id, t.kind, t.status, t.pool, t.hold, t.charge,
  t.error_code, t.settled_at IS NOT NULL AS is_settled,
  (SELECT count(*) FROM ledger l WHERE l.task_id = t.id AND l.kind = 'capture') AS captures,
  (SELECT count(*) FROM task_attempts a WHERE a.task_id = t.id AND a.state = 'lost') AS lost FROM tasks t"""


def _money(tasks: Mapping[str, Mapping[str, Any]], account: Mapping[str, Any]) -> list[str]:
    """One settlement a task: a capture of what was promised, or a release. And no credit came or went otherwise."""
    found = []
    for task_id, row in tasks.items():
        expected = row["hold"] if row["status"] == "succeeded" else 0
        if not row["is_settled"]:
            found.append(f"{task_id} is not settled: {row}")
        elif row["captures"] + (row["charge"] == 0) != 1 or row["charge"] != expected:
            found.append(f"{task_id}: {row['captures']} captures, charge {row['charge']} of {expected}")
    spent = sum(row["charge"] or 0 for row in tasks.values())
    if (account["posted"], account["held"], account["in_flight"]) != (CREDITS - spent, 0, 0):
        found.append(f"credits lost: {dict(account)}, {spent} were charged of {CREDITS}")
    return found


def _age(*folders: Path) -> None:
    """Make every file old: a sweep takes what nobody's row names, and the audit forgives nothing."""
    then = time.time() - LONG_AGO_S
    for folder in folders:
        for path in folder.rglob("*"):
            os.utime(path, (then, then))


def _redis(url: str) -> Redis:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return Redis(unix_socket_path=parts.path, db=int(re.findall(r"db=(\d+)", parts.query)[0]))
    return Redis.from_url(url)


def _write_config(folder: Path, pools: Mapping[str, str], upstream_url: str, concurrency: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    models = yaml.safe_load((ROOT / "config" / "models.yaml").read_text())
    models["models"], accounts = {}, {}
    for pool, safety in pools.items():
        accounts[pool] = {
            "provider": f"faults-{SubmitSafety(safety).value}",
            "base_url": f"{upstream_url}/{pool}",
            "concurrency": concurrency,
        }
        models["models"][f"image-{pool}"] = {
            "family": "image", "title": pool, "created": 1,
            "price": {"unit": "image", "credits": IMAGE_CREDITS}, "routes": [{"upstream": pool, "model": "image"}],
        }  # fmt: skip
        models["models"][f"video-{pool}"] = {
            "family": "seedance", "title": pool, "price": {"unit": "second", "credits": VIDEO_CREDITS // 4},
            "routes": [{"upstream": pool, "model": "video"}],
        }  # fmt: skip
    first = next(iter(pools))
    models |= {"default_image_model": f"image-{first}", "default_video_model": f"video-{first}"}
    (folder / "models.yaml").write_text(yaml.safe_dump(models, sort_keys=False))
    (folder / "upstreams.yaml").write_text(yaml.safe_dump({"upstreams": accounts}))
