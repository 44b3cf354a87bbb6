"""Signing in by password, and what people set for themselves: the password, the console's language and theme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.accounts import tries
from app.accounts.passwords import Passwords, checked_password
from app.accounts.sessions import Language, Theme, close_sessions, end_links
from app.accounts.strangers import source_of
from app.accounts.tries import Mark
from app.accounts.users import MAX_EMAIL_CHARS
from app.db import once, read, retried, transaction
from app.errors import AccountNotFound, InvalidParameter, WrongPassword
from app.journal import SYSTEM, Actor, note

FREE_TRIES, FORGET = 5, timedelta(hours=1)
"""Of one person from one place."""
FREE_TRIES_OF_A_SOURCE, FORGET_OF_A_SOURCE = 50, timedelta(minutes=10)
"""Of everybody from one place, which may be a whole office. Who signed in from there lately is not kept out by it."""
LANGUAGES, THEMES = ("en", "zh_CN"), ("system", "light", "dark")


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody at an OpenID provider who may sign in to the account."""

    issuer: str
    subject: str
    created_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Whose password was right, and since when it is theirs: a session is opened for as long as it still is."""

    account_id: int
    password_at: datetime
    """A hash that is renewed leaves it as it is."""


class Logins:
    """Passwords by account. ``now`` is for tests: without it, the database's clock counts."""

    def __init__(self, engine: AsyncEngine, passwords: Passwords) -> None:
        self._engine = engine
        self._passwords = passwords

    async def sign_in(self, email: str, password: str, *, peer: str | None, now: datetime | None = None) -> SignedIn:
        """Return whose e-mail and password these are. Another password may be theirs by the time that this is read.

        Unknown, closed and without a password take as long as a wrong one, and are told the same. Raises:
        WrongPassword, TooManyTries, Overloaded.
        """
        email = email.strip()[: MAX_EMAIL_CHARS + 1].lower()  # one too many is nobody's
        source = source_of(peer) or ""
        person = Mark(f"sign-in {source} {email}", FREE_TRIES, FORGET)
        everybody = Mark(f"sign-in {source}", FREE_TRIES_OF_A_SOURCE, FORGET_OF_A_SOURCE)
        is_known = bool(await read(self._engine, _KNOWN_PLACE, (person.digest, now, tries.KNOWN_FOR)))
        marks = [person, everybody] if source and not is_known else [person]
        await self._count(marks, now)
        rows = await read(self._engine, _BY_EMAIL, (email,)) if _is_text(email) else []
        stored: str | None = rows[0]["hash"] if rows else None
        if not await self._passwords.verify(stored, password) or stored is None:
            raise WrongPassword
        found = SignedIn(rows[0]["account_id"], rows[0]["changed_at"])
        renewed = await self._passwords.hash(password) if self._passwords.is_outdated(stored) else None

        async def work() -> None:
            async with transaction(self._engine) as connection:
                await tries.forget(connection, marks[:1], wholly=True)
                await tries.forget(connection, marks[1:], wholly=False)
                await connection.exec_driver_sql(_REMEMBER_PLACE, (person.digest, now))
                if renewed is not None:
                    await connection.exec_driver_sql(_RENEW, (found.account_id, stored, renewed))

        await retried(work)
        return found

    async def has_password(self, account_id: int) -> bool:
        return bool(await read(self._engine, _HASH, (account_id,)))

    async def identities(self, account_id: int) -> Sequence[Identity]:
        """Return who of other providers signs in to this account, the oldest first."""
        return [Identity(**row) for row in await read(self._engine, _IDENTITIES, (account_id,))]

    async def has_any_password(self) -> bool:
        """Whether anybody can sign in with one: a new deployment has nobody."""
        return bool(await read(self._engine, "SELECT 1 FROM passwords LIMIT 1"))

    async def set_password(
        self, account_id: int, password: str, *, keep: str | None = None, actor: Actor = SYSTEM
    ) -> None:
        """Set a password, whatever was before. It ends the account's sessions but ``keep``.

        Raises: InvalidParameter, AccountNotFound, Overloaded.
        """
        hashed = await self._passwords.hash(checked_password(password, email=await self._email(account_id)))

        async def work() -> None:
            async with transaction(self._engine) as connection:
                await store_password(connection, account_id, hashed, actor=actor, keep=keep)

        await retried(work)

    async def change_password(
        self,
        account_id: int,
        old: str,
        new: str,
        *,
        keep: str | None = None,
        actor: Actor | None = None,
        now: datetime | None = None,
    ) -> None:
        """Set a password by whoever knows the one before. It ends the account's sessions but ``keep``, the own one.

        Raises: WrongPassword, TooManyTries, InvalidParameter, AccountNotFound, Overloaded.
        """
        email = await self._email(account_id)
        checked_password(new, email=email, param="new_password")
        marks = [Mark(f"password of {account_id}", FREE_TRIES, FORGET)]
        await self._count(marks, now)
        rows = await read(self._engine, _HASH, (account_id,))
        if not await self._passwords.verify(rows[0]["hash"] if rows else None, old):
            raise WrongPassword("The present password is not right.")
        hashed = await self._passwords.hash(new)

        async def work() -> None:
            async with transaction(self._engine) as connection:
                await tries.forget(connection, marks, wholly=True)
                await store_password(connection, account_id, hashed, actor=actor or Actor(email), keep=keep)

        await retried(work)

    async def set_preferences(self, account_id: int, language: Language | None, theme: Theme) -> None:
        """Set what the console looks like. None: the language the browser asks for. Raises: InvalidParameter."""
        if language not in (None, *LANGUAGES):
            raise InvalidParameter(f"'language' must be one of: {', '.join(LANGUAGES)}.", param="language")
        if theme not in THEMES:
            raise InvalidParameter(f"'theme' must be one of: {', '.join(THEMES)}.", param="theme")
        await retried(lambda: once(self._engine, _SET_PREFERENCES, (account_id, language, theme)))

    async def _count(self, marks: list[Mark], now: datetime | None) -> None:
        async def work() -> None:
            async with transaction(self._engine) as connection:
                await tries.count(connection, marks, now=now)

        await retried(work)

    async def _email(self, account_id: int) -> str:
        rows = await read(self._engine, _EMAIL, (account_id,))
        if not rows:
            raise AccountNotFound(f"acct_{account_id}")
        email: str = rows[0]["email"]
        return email


async def store_password(
    connection: AsyncConnection, account_id: int, hashed: str, *, actor: Actor, keep: str | None = None
) -> None:
    """Replace an account's password, end its sessions but ``keep`` and its links, and note it, in one transaction."""
    await end_links(connection, account_id)
    await connection.exec_driver_sql(_STORE, (account_id, hashed))
    await close_sessions(connection, account_id, keep=keep)
    await note(connection, actor, "account.password", f"account:{account_id}", after={"password": "set"})


def _is_text(email: str) -> bool:
    """Whether the database can be asked for it at all."""
    return email.isprintable() and email.encode("utf-8", "replace").decode() == email


_BY_EMAIL = """
SELECT p.account_id, p.hash, p.changed_at FROM passwords p JOIN accounts a ON a.id = p.account_id
 WHERE lower(a.email) = lower($1) AND a.state <> 'closed'"""
# The mark names a person and a place, as a hash of both.
_KNOWN_PLACE = (
    "SELECT 1 FROM sign_in_places WHERE mark = $1 AND last_at > coalesce($2::timestamptz, now()) - $3::interval"
)
_REMEMBER_PLACE = """
INSERT INTO sign_in_places AS p (mark, last_at) VALUES ($1, coalesce($2::timestamptz, now()))
ON CONFLICT (mark) DO UPDATE SET last_at = greatest(p.last_at, excluded.last_at)"""
_HASH = "SELECT hash FROM passwords WHERE account_id = $1"
_IDENTITIES = "SELECT issuer, subject, created_at, seen_at FROM identities WHERE account_id = $1 ORDER BY created_at"
_EMAIL = "SELECT email FROM accounts WHERE id = $1 AND state <> 'closed'"
_STORE = """
INSERT INTO passwords (account_id, hash) VALUES ($1, $2)
ON CONFLICT (account_id) DO UPDATE SET hash = excluded.hash, changed_at = now()"""
_RENEW = "UPDATE passwords SET hash = $3 WHERE account_id = $1 AND hash = $2"
_SET_PREFERENCES = "UPDATE accounts SET language = $2, theme = $3 WHERE id = $1 AND state <> 'closed'"
