"""One-time links: how somebody gets their first password, or another one. The database holds a hash of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app.accounts.logins import store_password
from app.accounts.passwords import Passwords, checked_password
from app.accounts.sessions import end_links
from app.accounts.tokens import Tokens, token_hash
from app.accounts.users import resolved
from app.db import read, retried, transaction
from app.errors import AccountNotFound, InvalidParameter, LinkExpired
from app.journal import SYSTEM, Actor, checked_reason, note

Purpose = Literal["invite", "reset", "first_admin"]

TTL: dict[Purpose, timedelta] = {
    "invite": timedelta(days=7),
    "reset": timedelta(hours=1),
    "first_admin": timedelta(hours=1),
}
LONGEST_TTL = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a link that still works leads to."""

    account_id: int
    email: str
    name: str
    is_admin: bool
    purpose: Purpose
    expires_at: datetime


def join_url(base_url: str, token: str) -> str:
    """Return the link as it is sent to its person."""
    return f"{base_url}/console/join/{token}"


class Invitations:
    """The links of all accounts. ``now`` is for tests: without it, the database's clock counts.

    ``secret`` signs tokens, so that one that somebody made up costs no query; a new one ends all links.
    """

    def __init__(self, engine: AsyncEngine, passwords: Passwords, *, secret: SecretStr | None = None) -> None:
        self._engine = engine
        self._passwords = passwords
        self._tokens = Tokens(secret, b"sign-in link")

    async def invite(
        self,
        reference: str | int,
        *,
        purpose: Purpose = "invite",
        ttl: timedelta | None = None,
        reason: str | None = None,
        actor: Actor = SYSTEM,
    ) -> str:
        """Make a link for an account, and return its token: whoever has it sets the account's password. The account's
        earlier links stop working. A reset needs a ``reason``; who has a password gets nothing less than a reset.

        Raises: AccountNotFound, also for a closed one; InvalidParameter.
        """
        ttl = TTL[purpose] if ttl is None else ttl
        if not timedelta(0) < ttl <= LONGEST_TTL:
            raise InvalidParameter(f"A link lives up to {LONGEST_TTL.days} days.", param="expires_in")
        why = None if reason is None and purpose != "reset" else checked_reason(reason or "")
        number, email = resolved(reference)
        token = self._tokens.mint()

        async def work() -> None:
            async with transaction(self._engine) as connection:
                found = (await connection.exec_driver_sql(_LOCK_ACCOUNT, (number, email))).mappings().one_or_none()
                if found is None:
                    raise AccountNotFound(str(reference))
                if found["has_password"] and purpose != "reset":
                    raise InvalidParameter(
                        f"{found['email']} has a password already: to set another one, make a link to reset it.",
                        param="purpose",
                    )
                await end_links(connection, found["id"])
                made = await connection.exec_driver_sql(_MAKE, (token_hash(token), found["id"], purpose, ttl))
                after = {"purpose": purpose, "expires_at": made.scalar_one()} | ({"reason": why} if why else {})
                await note(connection, actor, "account.link", f"account:{found['id']}", after=after)

        await retried(work)
        return token

    async def find(self, token: str, *, now: datetime | None = None) -> Invitation:
        """Return what a link leads to. Raises: LinkExpired."""
        rows = await read(self._engine, _FIND, (token_hash(token), now)) if self._tokens.is_ours(token) else []
        if not rows:
            raise LinkExpired
        return _invitation(rows[0])

    async def accept(self, token: str, password: str, *, now: datetime | None = None) -> int:
        """Set the password of the link's account, end its sessions, and return whose it is. It works once.

        Raises: LinkExpired, InvalidParameter (the link lives on), Overloaded.
        """
        invitation = await self.find(token, now=now)
        hashed = await self._passwords.hash(checked_password(password, email=invitation.email))

        async def work() -> None:
            async with transaction(self._engine) as connection:
                used = await connection.exec_driver_sql(_USE, (token_hash(token), now))
                if used.first() is None:  # somebody else was quicker
                    raise LinkExpired
                await connection.exec_driver_sql(_VOUCHED_FOR, (invitation.account_id,))
                await store_password(connection, invitation.account_id, hashed, actor=Actor(invitation.email))

        await retried(work)
        return invitation.account_id


def _invitation(row: Any) -> Invitation:
    return Invitation(
        account_id=row["account_id"],
        email=row["email"],
        name=row["name"],
        is_admin=row["is_admin"],
        purpose=row["purpose"],
        expires_at=row["expires_at"],
    )


_LOCK_ACCOUNT = """
SELECT id, email, EXISTS (SELECT FROM passwords p WHERE p.account_id = a.id) AS has_password
  FROM accounts a WHERE (id = $1 OR lower(email) = lower($2)) AND state <> 'closed' FOR NO KEY UPDATE"""
_MAKE = """
INSERT INTO sign_in_links (token_hash, account_id, purpose, expires_at) VALUES ($1, $2, $3, now() + $4::interval)
RETURNING expires_at"""
_FIND = """
SELECT l.account_id, l.purpose, l.expires_at, a.email, a.name, a.is_admin
  FROM sign_in_links l JOIN accounts a ON a.id = l.account_id
 WHERE l.token_hash = $1 AND l.used_at IS NULL AND l.expires_at > coalesce($2::timestamptz, now())
   AND a.state <> 'closed'"""
_USE = """
UPDATE sign_in_links l SET used_at = now() FROM accounts a
 WHERE l.token_hash = $1 AND l.used_at IS NULL AND l.expires_at > coalesce($2::timestamptz, now())
   AND a.id = l.account_id AND a.state <> 'closed'
RETURNING l.account_id"""
# An administrator has sent the link to whom the account belongs.
_VOUCHED_FOR = "UPDATE accounts SET is_self_registered = false WHERE id = $1 AND is_self_registered"
