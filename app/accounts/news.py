"""Tells every process that a key has changed, so that no cache keeps what it was. Without Redis caches end by time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

CHANGED_CHANNEL = "mediagate:keys"
AGAIN_S = 1.0


async def tell(redis: Redis | None, key_id: int) -> bool:
    """Say that the key changed; False when nobody could be told, which is no error: caches last for seconds."""
    if redis is None:
        return False
    try:
        await redis.publish(CHANGED_CHANNEL, str(key_id))
    except (RedisError, OSError):
        return False
    return True


async def hear(redis: Redis, forget: Callable[[int | None], None]) -> None:
    """Call ``forget`` with each key that changed, until cancelled; with None when something may have been missed."""
    while True:
        try:
            async with redis.pubsub() as channel:
                await channel.subscribe(CHANGED_CHANNEL)
                while True:
                    message = await channel.get_message(timeout=30.0)
                    if message is None:
                        continue
                    if message["type"] == "subscribe":  # also after the library has connected anew by itself
                        forget(None)
                    elif message["type"] == "message":
                        forget(_key_id(message["data"]))
        except (RedisError, OSError) as error:
            log.warning("keys.deaf", error=type(error).__name__)
            await asyncio.sleep(AGAIN_S)


def _key_id(data: bytes) -> int | None:
    return int(data) if data.isdigit() and len(data) <= 18 else None
