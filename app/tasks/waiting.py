"""Lets requests wait for the end of a task: woken by Redis, and by one query a second for all when Redis is silent."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.queue import DONE_CHANNEL
from app.tasks.queries import TaskQueries

log = structlog.get_logger()
LOOK_S = 1.0
SILENT_S = 10.0
"""After this long without a message the ear asks whether anybody is there: a dead line says nothing either."""


class Waiters:
    """The process's one ear for ended tasks. `listen` and `look` must be going."""

    def __init__(self, redis: Redis, queries: TaskQueries) -> None:
        self._redis = redis
        self._queries = queries
        self._events: dict[UUID, asyncio.Event] = {}
        self._waiting: Counter[UUID] = Counter()
        self._polite: set[asyncio.Timeout] = set()
        self._patient: set[asyncio.Timeout] = set()
        self.is_stopping = False
        """Whether the process takes its leave: who only watches is sent home."""

    async def wait(self, task_id: UUID, timeout_s: float, *, until_stop: bool = False) -> bool:
        """Return True as soon as the task has ended, False after ``timeout_s``.

        ``until_stop``: return False as soon as the process stops, too; the others may stay until `give_up`.
        Look at the task once after calling, whatever the answer: it may have ended before the ear was open.
        """
        if until_stop and self.is_stopping:
            return False
        event = self._events.setdefault(task_id, asyncio.Event())
        self._waiting[task_id] += 1
        limits = self._polite if until_stop else self._patient
        limit = asyncio.timeout(timeout_s)
        limits.add(limit)
        try:
            async with limit:
                await event.wait()
        except TimeoutError:
            return False
        finally:
            limits.discard(limit)
            self._waiting[task_id] -= 1
            if not self._waiting[task_id]:
                del self._waiting[task_id]
                self._events.pop(task_id, None)
        return True

    def stop(self) -> None:
        """Send home who waits ``until_stop``, now and from now on."""
        self.is_stopping = True
        _end(self._polite)

    def give_up(self) -> None:
        """Send home everybody: whoever still waits gets an answer instead of a broken connection."""
        self.stop()
        _end(self._patient)

    def ended(self, task_id: UUID) -> None:
        """Wake whoever waits for this task in this process."""
        event = self._events.get(task_id)
        if event is not None:
            event.set()

    async def listen(self) -> None:
        """Hear of ended tasks through Redis until cancelled."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.psubscribe(DONE_CHANNEL + "*")
                    is_asked = False
                    while True:
                        message = await channel.get_message(timeout=LOOK_S if is_asked else SILENT_S)
                        if message is None and is_asked:
                            raise ConnectionError("no answer to a ping")
                        is_asked = message is None
                        if message is None:
                            await channel.ping()
                        elif message["type"] == "pmessage":
                            self._heard(message["channel"].decode())
            except (RedisError, OSError) as error:
                log.warning("waiters.deaf", error=type(error).__name__)
                await asyncio.sleep(LOOK_S)

    def _heard(self, channel: str) -> None:
        try:
            self.ended(UUID(channel.removeprefix(DONE_CHANNEL)))
        except ValueError:
            log.warning("waiters.heard_nonsense", channel=channel[:80])

    async def look(self) -> None:
        """Look for ended tasks in the database, once a second for all, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._events:
                continue
            try:
                for task_id in await self._queries.settled_among(list(self._events)):
                    self.ended(task_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look must come
                log.warning("waiters.blind", error=type(error).__name__)


def _end(limits: set[asyncio.Timeout]) -> None:
    now = asyncio.get_running_loop().time()
    for limit in [limit for limit in limits if not limit.expired()]:
        limit.reschedule(now)
