"""Lets requests wait for a task: Redis tells its end, and one query a second for all who wait whatever else changed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.queue import DONE_CHANNEL
from app.tasks.queries import Look, TaskQueries

log = structlog.get_logger()
LOOK_S = 1.0
SILENT_S = 10.0
"""After this long without a message the ear asks whether anybody is there: a dead line says nothing either."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits for the end of a task, or for it to look otherwise than ``than``."""

    than: Look | None
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Waiters:
    """The process's one ear for ended tasks. `listen` and `look` must be going."""

    def __init__(self, redis: Redis, queries: TaskQueries) -> None:
        self._redis = redis
        self._queries = queries
        self._waiters: dict[UUID, set[_Waiter]] = {}
        self._polite: set[asyncio.Timeout] = set()
        self._patient: set[asyncio.Timeout] = set()
        self.is_stopping = False
        """Whether the process takes its leave: who only watches is sent home."""

    async def wait(
        self, task_id: UUID, timeout_s: float, *, until_stop: bool = False, than: Look | None = None
    ) -> bool:
        """Return True as soon as the task has ended, False after ``timeout_s``.

        ``than``: return True as soon as it looks otherwise, too; or seemed to, a moment ago.
        ``until_stop``: return False as soon as the process stops, too; the others may stay until `give_up`.
        Look at the task once after calling, whatever the answer: it may have ended before the ear was open.
        """
        if until_stop and self.is_stopping:
            return False
        waiter = _Waiter(than)
        self._waiters.setdefault(task_id, set()).add(waiter)
        limits = self._polite if until_stop else self._patient
        limit = asyncio.timeout(timeout_s)
        limits.add(limit)
        try:
            async with limit:
                await waiter.woken.wait()
        except TimeoutError:
            return False
        finally:
            limits.discard(limit)
            self._waiters[task_id].discard(waiter)
            if not self._waiters[task_id]:
                del self._waiters[task_id]
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
        for waiter in self._waiters.get(task_id, ()):
            waiter.woken.set()

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
        """Look in the database how the tasks stand, once a second for all, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._waiters:
                continue
            try:
                task_ids = list(self._waiters)
                looks = await self._queries.looks(task_ids)
                for task_id in task_ids:
                    self._seen(task_id, looks.get(task_id))
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look must come
                log.warning("waiters.blind", error=type(error).__name__)

    def _seen(self, task_id: UUID, look: Look | None) -> None:
        """Wake whoever a look is news to; None: the task is gone."""
        for waiter in self._waiters.get(task_id, ()):
            if (look is not None and look.is_final) or (waiter.than is not None and look != waiter.than):
                waiter.woken.set()


def _end(limits: set[asyncio.Timeout]) -> None:
    now = asyncio.get_running_loop().time()
    for limit in [limit for limit in limits if not limit.expired()]:
        limit.reschedule(now)
