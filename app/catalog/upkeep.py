"""Housekeeping of the upstream accounts' versions: removes what no task needs, and seals the rest under a newer key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.catalog.rows import changing, rows_of
from app.catalog.secrets import Place
from app.catalog.upstreams import target_of
from app.db import once, retried
from app.errors import SecretDamaged, WrongSecretsKey
from app.journal import Actor, note
from app.sealing import Sealed, SecretBox

log = structlog.get_logger(__name__)

PURGE_AFTER = timedelta(minutes=10)
"""Longer than any process needs to notice a change: until then one may still take tasks with the older version."""
ACTOR = Actor("housekeeping")


@dataclass(frozen=True, slots=True)
class Reencrypted:
    sealed: int
    """Secrets that lie under the first key now."""
    dropped: tuple[str, ...]
    """Accounts that lost theirs, and are disabled."""


async def purge(engine: AsyncEngine, *, after: timedelta = PURGE_AFTER) -> int:
    """Remove the versions that no task needs any more. Returns how many. Safe to run anywhere, any time."""
    if not await retried(lambda: once(engine, f"{_PURGEABLE} LIMIT 1", (after,))):
        return 0
    async with changing(engine) as connection:
        gone = await rows_of(
            connection,
            f"""DELETE FROM upstream_credentials c USING ({_PURGEABLE}) x
                WHERE c.upstream = x.upstream AND c.version = x.version RETURNING c.upstream, c.version""",  # noqa: S608
            after,
        )
        await connection.exec_driver_sql(_FORGET_MARKS)
        for row in gone:
            was = {"version": row["version"]}
            await note(connection, ACTOR, "upstream.purge", target_of(row["upstream"]), before=was)
    for row in gone:
        log.info("upstream.version_purged", upstream=row["upstream"], version=row["version"])
    return len(gone)


async def reencrypt(engine: AsyncEngine, box: SecretBox, *, actor: Actor, drop_unreadable: bool = False) -> Reencrypted:
    """Seal everything anew under the first key, so that the other keys can go.

    ``drop_unreadable``: forget what no key opens, and disable those accounts. Raises: WrongSecretsKey, SecretDamaged.
    """
    dropped: list[str] = []
    sealed = 0
    async with changing(engine) as connection:
        for row in await rows_of(connection, _ALL_SEALED):
            new = _anew(box, row, drop_unreadable=drop_unreadable)
            await _replace(connection, row, new)
            if row["version"]:
                sealed += new is not None
                if new is None and row["version"] == row["newest"]:
                    dropped.append(row["upstream"])
        await connection.exec_driver_sql(
            """UPDATE upstreams SET state = 'disabled', updated_at = now()
               WHERE name = ANY($1::text[]) AND state <> 'deleted'""",
            (dropped,),
        )
        await connection.exec_driver_sql("UPDATE upstream_book SET secrets_key_id = $1", (box.key_id,))
        now = {"key_id": box.key_id, "sealed": sealed, "dropped": dropped}
        await note(connection, actor, "upstream.reencrypt", "upstreams", after=now)
    return Reencrypted(sealed, tuple(dropped))


def _anew(box: SecretBox, row: Mapping[str, Any], *, drop_unreadable: bool) -> Sealed | None:
    field = "secret" if row["version"] else "seed"
    place = Place(row["provider"], row["upstream"], field, row["version"])
    try:
        return box.seal(box.open(Sealed(row["ciphertext"], row["nonce"], row["key_id"]), place), place)
    except (WrongSecretsKey, SecretDamaged):
        if drop_unreadable:
            return None
        raise


async def _replace(connection: AsyncConnection, row: Mapping[str, Any], new: Sealed | None) -> None:
    values = (None, None, None) if new is None else (new.ciphertext, new.nonce, new.key_id)
    if row["version"]:
        await connection.exec_driver_sql(
            """UPDATE upstream_credentials SET ciphertext = $3, nonce = $4, key_id = $5
               WHERE upstream = $1 AND version = $2""",
            (row["upstream"], row["version"], *values),
        )
    else:
        await connection.exec_driver_sql(
            "UPDATE upstreams SET seed_mark = $2, seed_nonce = $3, seed_key_id = $4 WHERE name = $1",
            (row["upstream"], *values),
        )


# A task that has no version yet takes the newest; one that runs without a number may need any.
_PURGEABLE = """
SELECT c.upstream, c.version FROM upstream_credentials c JOIN upstreams u ON u.name = c.upstream
 WHERE (u.state = 'deleted' AND u.updated_at <= now() - $1::interval AND NOT EXISTS (
          SELECT FROM tasks t WHERE t.settled_at IS NULL AND split_part(t.pool, '/', 1) = c.upstream))
    OR (c.retired_at <= now() - $1::interval AND NOT EXISTS (
          SELECT FROM tasks t WHERE t.settled_at IS NULL AND split_part(t.pool, '/', 1) = c.upstream
             AND (t.credential = c.version OR (t.credential IS NULL AND t.status <> 'queued'))))"""

_FORGET_MARKS = """
UPDATE upstreams u SET seed_mark = NULL, seed_nonce = NULL, seed_key_id = NULL
 WHERE u.state = 'deleted' AND u.seed_mark IS NOT NULL
   AND NOT EXISTS (SELECT FROM upstream_credentials c WHERE c.upstream = u.name)"""

# Version 0 stands for the mark of the environment's secret.
_ALL_SEALED = """
SELECT c.upstream, c.version, u.provider, u.newest, c.ciphertext, c.nonce, c.key_id
  FROM upstream_credentials c JOIN upstreams u ON u.name = c.upstream WHERE c.ciphertext IS NOT NULL
 UNION ALL
SELECT name, 0, provider, newest, seed_mark, seed_nonce, seed_key_id FROM upstreams WHERE seed_mark IS NOT NULL
 ORDER BY 1, 2"""
