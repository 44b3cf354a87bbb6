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


class Waiters:
    """The process's one ear for ended tasks. `listen` and `look` must be going."""

    def __init__(self, redis: Redis, queries: TaskQueries) -> None:
        self._redis = redis
        self._queries = queries
        self._events: dict[UUID, asyncio.Event] = {}
        self._waiting: Counter[UUID] = Counter()

    async def wait(self, task_id: UUID, timeout_s: float) -> bool:
        """Return True as soon as the task has ended, False after ``timeout_s``.

        Look at the task once after calling, whatever the answer: it may have ended before the ear was open.
        """
        event = self._events.setdefault(task_id, asyncio.Event())
        self._waiting[task_id] += 1
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting[task_id] -= 1
            if not self._waiting[task_id]:
                del self._waiting[task_id]
                self._events.pop(task_id, None)
        return True

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
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=30.0)
                        if message is not None:
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
