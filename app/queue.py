"""Wakes the workers. The truth is in the tasks table; a lost message costs a second or two, not a task."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from arq.connections import ArqRedis
from redis.asyncio import BlockingConnectionPool, Connection, Redis, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

log = structlog.get_logger()

QUEUE_NAME = "mediagate:jobs"
ADVANCE_JOB = "advance_task"
DONE_CHANNEL = "mediagate:done:"
HERE_KEY = "mediagate:here:"
HERE_S = 3600
SOCKET_TIMEOUT_S = 0.5
DOWN_S = 1.0
"""How long nobody asks a Redis that did not answer, before one call tries again for all."""


class Circuit:
    """What this process knows of its Redis: while it is away, a call fails at once instead of after its timeout.

    ``clock`` is monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether Redis is known to be away."""
        return self._until is not None

    def may_ask(self) -> bool:
        """Whether this call may go out. While Redis is away: one of all, each ``DOWN_S``."""
        if self._until is None:
            return True
        if self._clock() < self._until:
            return False
        self._until = self._clock() + DOWN_S  # this one tries, the others wait for what it learns
        return True

    def failed(self) -> None:
        if self._until is None:
            log.warning("redis.away")
        self._until = self._clock() + DOWN_S

    def answered(self) -> None:
        if self._until is not None:
            log.info("redis.back")
        self._until = None


class _Pool(BlockingConnectionPool):
    """Connections that tell the circuit how they fare, and none while it is open."""

    def __init__(self, circuit: Circuit, connection_class: type[AbstractConnection], **options: Any) -> None:
        super().__init__(connection_class=connection_class, **options)
        self.circuit = circuit

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> AbstractConnection:
        if not self.circuit.may_ask():
            raise RedisConnectionError("Redis is away")
        was_open = self.circuit.is_open
        connection: AbstractConnection = await super().get_connection()
        if self.circuit.is_open and not was_open:  # it went away while this call waited for a place
            await self.release(connection)
            raise RedisConnectionError("Redis is away")
        return connection


class _Watched:
    """Mixed into a connection class: success and failure of its traffic go to the circuit."""

    circuit: Circuit

    async def connect(self) -> None:
        try:
            await super().connect()  # type: ignore[misc]
        except (RedisConnectionError, RedisTimeout):
            self.circuit.failed()
            raise

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            response = await super().read_response(*arguments, **options)  # type: ignore[misc]
        except (RedisConnectionError, RedisTimeout):
            self.circuit.failed()
            raise
        if options.get("timeout") is None:  # what a listener hears may have been long on its way
            self.circuit.answered()
        return response


def serialize_job(job: dict[str, Any]) -> bytes:
    """arq's default is pickle: whoever can write to Redis could run code. JSON cannot."""
    return json.dumps(job, default=str).encode()


def deserialize_job(raw: bytes) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(raw)
    return job


def make_redis(url: str, *, max_connections: int = 50) -> ArqRedis:
    """Build the client. A call gives up after half a second, and at once while Redis is known to be away.

    Redis is help, never a dependency: whoever asks goes on without, by catching RedisError and OSError.
    """
    options: dict[str, Any] = dict(parse_url(url))
    circuit = Circuit()
    kind = options.pop("connection_class", Connection)
    pool = _Pool(
        circuit,
        type(f"Watched{kind.__name__}", (_Watched, kind), {"circuit": circuit}),
        max_connections=max_connections,
        timeout=1,  # seconds to wait for a free connection; the library takes whole ones
        socket_timeout=SOCKET_TIMEOUT_S,
        **({} if issubclass(kind, UnixDomainSocketConnection) else {"socket_connect_timeout": SOCKET_TIMEOUT_S}),
        **options,
    )
    return ArqRedis(
        connection_pool=pool,
        job_serializer=serialize_job,
        job_deserializer=deserialize_job,
        default_queue_name=QUEUE_NAME,
    )


async def close_redis(redis: Redis) -> None:
    """Close the client with its connections; one that is broken, or too slow to close, is nobody's trouble any more."""
    try:
        await redis.aclose(close_connection_pool=True)
    except (RedisError, OSError) as error:
        log.info("redis.not_closed", error=type(error).__name__)


def circuit_of(redis: Redis) -> Circuit:
    """Return what this client's process knows of its Redis."""
    found = getattr(redis.connection_pool, "circuit", None)
    return found if isinstance(found, Circuit) else Circuit()


class ArqQueue:
    """Jobs for the arq workers; also the bell that a task has ended."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._circuit = circuit_of(redis)
        self.failures = 0
        """Messages that could not be sent since the start; the sweep replaced them."""

    @property
    def is_away(self) -> bool:
        """Whether messages are known not to arrive just now."""
        return self._circuit.is_open

    async def enqueue(self, task_id: UUID, *, delay_s: float = 0.0) -> bool:
        """Ask for the task's next step. Best effort: False after half a second, or when Redis is away."""
        try:
            async with asyncio.timeout(SOCKET_TIMEOUT_S):  # several round trips, of which each has as long
                await self._redis.enqueue_job(ADVANCE_JOB, str(task_id), _defer_by=delay_s if delay_s > 0 else None)
        except TimeoutError as error:
            self._circuit.failed()
            self._count(error)
            return False
        except (RedisError, OSError) as error:
            self._count(error)
            return False
        return True

    async def was_emptied(self, process: str) -> bool:
        """Whether Redis forgot everything since ``process`` asked last; True, too, when it asks for the first time."""
        try:
            return await self._redis.set(HERE_KEY + process, b"1", ex=HERE_S, get=True) is None
        except (RedisError, OSError) as error:
            self._count(error)
            return False

    async def ring(self, task_id: UUID) -> None:
        """Tell every process that the task has ended. Best effort."""
        try:
            await self._redis.publish(DONE_CHANNEL + str(task_id), b"1")
        except (RedisError, OSError) as error:
            self._count(error)

    def _count(self, error: Exception) -> None:
        self.failures += 1
        log.debug("queue.unreachable", error=type(error).__name__, failures=self.failures)
