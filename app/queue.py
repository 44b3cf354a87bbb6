"""Wakes the workers. The truth is in the tasks table; a lost message costs a second or two, not a task."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import structlog
from arq.connections import ArqRedis
from redis.asyncio import BlockingConnectionPool, Connection, UnixDomainSocketConnection
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError

log = structlog.get_logger()

QUEUE_NAME = "mediagate:jobs"
ADVANCE_JOB = "advance_task"
DONE_CHANNEL = "mediagate:done:"
SOCKET_TIMEOUT_S = 0.5


def serialize_job(job: dict[str, Any]) -> bytes:
    """arq's default is pickle: whoever can write to Redis could run code. JSON cannot."""
    return json.dumps(job, default=str).encode()


def deserialize_job(raw: bytes) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(raw)
    return job


def make_redis(url: str, *, max_connections: int = 50) -> ArqRedis:
    """Build the client. Every call gives up after half a second: Redis is help, never a dependency."""
    options = parse_url(url)
    options.setdefault("connection_class", Connection)
    pool: BlockingConnectionPool = BlockingConnectionPool(
        max_connections=max_connections,
        timeout=1,  # seconds to wait for a free connection; the library takes whole ones
        socket_timeout=SOCKET_TIMEOUT_S,
        **_with_connect_timeout(dict(options)),
    )
    return ArqRedis(
        connection_pool=pool,
        job_serializer=serialize_job,
        job_deserializer=deserialize_job,
        default_queue_name=QUEUE_NAME,
    )


def _with_connect_timeout(options: dict[str, Any]) -> dict[str, Any]:
    if not issubclass(options["connection_class"], UnixDomainSocketConnection):
        options["socket_connect_timeout"] = SOCKET_TIMEOUT_S
    return options


class ArqQueue:
    """Jobs for the arq workers; also the bell that a task has ended."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self.failures = 0
        """Messages that could not be sent since the start; the sweep replaced them."""

    async def enqueue(self, task_id: UUID, *, delay_s: float = 0.0) -> bool:
        try:
            await self._redis.enqueue_job(ADVANCE_JOB, str(task_id), _defer_by=delay_s if delay_s > 0 else None)
        except (RedisError, OSError) as error:
            self._count(error)
            return False
        return True

    async def ring(self, task_id: UUID) -> None:
        """Tell every process that the task has ended. Best effort."""
        try:
            await self._redis.publish(DONE_CHANNEL + str(task_id), b"1")
        except (RedisError, OSError) as error:
            self._count(error)

    def _count(self, error: Exception) -> None:
        self.failures += 1
        log.warning("queue.unreachable", error=type(error).__name__, failures=self.failures)
