"""Signing secrets, sealed: one lives for each endpoint, and one for an account's one-off URLs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db import once, retried, transaction
from app.errors import SecretDamaged, WrongSecretsKey
from app.journal import Actor, note
from app.sealing import Sealed, SecretBox
from app.values import new_id
from app.webhooks.signing import hint_of, mint_secret

log = structlog.get_logger(__name__)

OVERLAP = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose secret it is: an endpoint's, or (None) that of the account's one-off URLs."""

    account_id: int
    endpoint_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The row a secret is bound to."""

    secret_id: UUID
    owner: Owner

    @property
    def aad(self) -> bytes:
        owner = self.owner
        return "\n".join(
            ("mediagate", "webhook", str(self.secret_id), str(owner.account_id), str(owner.endpoint_id or "-"))
        ).encode()

    @property
    def remedy(self) -> str:
        which = f"endpoint {self.owner.endpoint_id}" if self.owner.endpoint_id else "one-off URLs"
        return f"webhooks of account {self.owner.account_id} ({which}): its owner must rotate the signing secret"


class Secrets:
    def __init__(self, engine: AsyncEngine, box: SecretBox) -> None:
        self._engine = engine
        self._box = box

    async def mint(self, connection: AsyncConnection, owner: Owner) -> str:
        """Give an owner that has none a secret, and return it: the one time it is shown. Raises: WrongSecretsKey."""
        await self._box.claim(connection)
        secret, secret_id = mint_secret(), new_id()
        sealed = self._box.seal(secret.encode(), Place(secret_id, owner))
        await connection.exec_driver_sql(
            """INSERT INTO webhook_secrets (id, account_id, endpoint_id, ciphertext, nonce, key_id, hint)
               VALUES ($1, $2, $3, $4, $5, $6, $7)""",
            (
                secret_id,
                owner.account_id,
                owner.endpoint_id,
                sealed.ciphertext,
                sealed.nonce,
                sealed.key_id,
                hint_of(secret),
            ),
        )
        return secret

    async def rotate(self, connection: AsyncConnection, owner: Owner, *, keep_old: bool) -> str:
        """Replace the secret and return the new one; with ``keep_old`` both sign for a day. Older ones go at once."""
        await lock(connection, owner.account_id)
        mine = (owner.account_id, owner.endpoint_id)
        await connection.exec_driver_sql(
            f"DELETE FROM webhook_secrets WHERE {_MINE} AND (ends_at IS NOT NULL OR NOT $3::boolean)",  # noqa: S608
            (*mine, keep_old),
        )
        await connection.exec_driver_sql(
            f"UPDATE webhook_secrets SET ends_at = now() + $3::interval WHERE {_MINE}",  # noqa: S608
            (*mine, OVERLAP),
        )
        return await self.mint(connection, owner)

    async def of_account(self, account_id: int, *, shown_to: Actor | None = None) -> str:
        """Return the secret that signs an account's one-off URLs. It is made when it is first needed.

        ``shown_to`` is whoever reads it: the audit tells. None: we sign with it.

        Raises: WrongSecretsKey, SecretDamaged.
        """
        owner = Owner(account_id)

        async def find_or_mint() -> str:
            async with transaction(self._engine) as connection:
                await lock(connection, account_id)
                found = await connection.exec_driver_sql(
                    f"SELECT * FROM webhook_secrets WHERE {_MINE} AND ends_at IS NULL",  # noqa: S608
                    (account_id, None),
                )
                row = found.mappings().first()
                if shown_to is not None:
                    await note(connection, shown_to, "webhook.show_secret", f"account:{account_id}")
                return await self.mint(connection, owner) if row is None else self._open(row)

        return await retried(find_or_mint)

    async def live(self, owners: Iterable[Owner]) -> dict[Owner, list[str]]:
        """Return the secrets that sign now, the newest first. What does not open is left out, and logged."""
        wanted = set(owners)
        rows = await once(
            self._engine,
            """SELECT * FROM webhook_secrets WHERE (ends_at IS NULL OR ends_at > now())
                AND (endpoint_id = ANY($1::uuid[]) OR (endpoint_id IS NULL AND account_id = ANY($2::bigint[])))
               ORDER BY id DESC""",
            (
                [owner.endpoint_id for owner in wanted if owner.endpoint_id],
                [owner.account_id for owner in wanted if owner.endpoint_id is None],
            ),
        )
        found: dict[Owner, list[str]] = {owner: [] for owner in wanted}
        for row in rows:
            try:
                found[_owner(row)].append(self._open(row))
            except (WrongSecretsKey, SecretDamaged) as error:
                log.error("webhooks.secret_unreadable", why=error.reason, endpoint=str(row["endpoint_id"]))
        return found

    async def reencrypt(self, *, drop_unreadable: bool = False) -> tuple[int, int]:
        """Seal all anew under the first key. Returns how many, and how many were lost.

        ``drop_unreadable``: what no key opens is replaced by a secret nobody knows yet, and its endpoint disabled.
        Raises: WrongSecretsKey, SecretDamaged.
        """
        sealed = lost = 0
        async with transaction(self._engine) as connection:
            found = await connection.exec_driver_sql("SELECT * FROM webhook_secrets ORDER BY id FOR UPDATE")
            for row in found.mappings().all():
                try:
                    again = self._box.seal(self._open(row).encode(), Place(row["id"], _owner(row)))
                except (WrongSecretsKey, SecretDamaged):
                    if not drop_unreadable:
                        raise
                    lost += await self._replace(connection, row)
                    continue
                sealed += 1
                await connection.exec_driver_sql(
                    "UPDATE webhook_secrets SET ciphertext = $2, nonce = $3, key_id = $4 WHERE id = $1",
                    (row["id"], again.ciphertext, again.nonce, again.key_id),
                )
        return sealed, lost

    async def _replace(self, connection: AsyncConnection, row: Any) -> int:
        await connection.exec_driver_sql("DELETE FROM webhook_secrets WHERE id = $1", (row["id"],))
        if row["ends_at"] is not None or row["endpoint_id"] is None:
            return 1  # that of one-off URLs is made anew when it is needed
        await self.mint(connection, _owner(row))
        await connection.exec_driver_sql(
            """UPDATE webhook_endpoints SET state = 'disabled', disabled_reason = 'secret_lost', updated_at = now()
               WHERE id = $1 AND state <> 'deleted'""",
            (row["endpoint_id"],),
        )
        return 1

    def _open(self, row: Any) -> str:
        sealed = Sealed(row["ciphertext"], row["nonce"], row["key_id"])
        return self._box.open(sealed, Place(row["id"], _owner(row))).decode()


async def lock(connection: AsyncConnection, account_id: int) -> None:
    """Let changes of one account's webhooks take turns, until the end of the transaction."""
    await connection.exec_driver_sql(
        "SELECT pg_advisory_xact_lock(hashtextextended('webhooks', $1::bigint))", (account_id,)
    )


_MINE = "account_id = $1 AND endpoint_id IS NOT DISTINCT FROM $2::uuid"


def _owner(row: Any) -> Owner:
    return Owner(row["account_id"], row["endpoint_id"])
