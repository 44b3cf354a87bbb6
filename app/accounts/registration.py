"""People who make their own account, where that is allowed: the account, its password and its first credits at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.accounts import tries
from app.accounts.logins import store_password
from app.accounts.passwords import Passwords, checked_password
from app.accounts.strangers import source_of
from app.accounts.tries import Mark
from app.accounts.users import MAX_EMAIL_CHARS, insert_account
from app.db import transaction
from app.errors import RegistrationClosed
from app.journal import Actor

FREE_OF_A_SOURCE, FORGET = 5, timedelta(hours=4)
"""Accounts from one place, before it has to wait; tries that failed count too."""

Grant = Callable[[AsyncConnection, int, int, Actor], Awaitable[None]]
"""Gives an account its first credits, in the transaction it is given: `app.credits.ledger`'s."""


class Registration:
    """Makes accounts for those who ask. ``now`` is for tests: without it, the database's clock counts."""

    def __init__(self, engine: AsyncEngine, passwords: Passwords, *, is_open: bool, credits: int, grant: Grant) -> None:
        self._engine = engine
        self._passwords = passwords
        self._credits = credits
        self._grant = grant
        self.is_open = is_open

    async def register(
        self, email: str, name: str, password: str, *, peer: str | None, now: datetime | None = None
    ) -> int:
        """Make an account with a password and the setting's credits, all or nothing; return its number.

        Raises: RegistrationClosed, InvalidParameter, AccountExists, TooManyTries, Overloaded.
        """
        if not self.is_open:
            raise RegistrationClosed
        email = email.strip()[: MAX_EMAIL_CHARS + 1]  # one too many is enough to be refused
        checked_password(password, email=email)
        source = source_of(peer)
        if source is not None:
            async with transaction(self._engine) as connection:
                await tries.count(connection, [Mark(f"register {source}", FREE_OF_A_SOURCE, FORGET)], now=now)
        hashed = await self._passwords.hash(password)
        async with transaction(self._engine) as connection:
            account_id = await self.open_account(connection, email, name, is_self_registered=True, actor=Actor(email))
            await store_password(connection, account_id, hashed, actor=Actor(email))
        return account_id

    async def open_account(
        self, connection: AsyncConnection, email: str, name: str, *, is_self_registered: bool = False, actor: Actor
    ) -> int:
        """Make an account with its first credits, in the caller's transaction. Raises: as `insert_account`."""
        account = await insert_account(
            connection,
            email,
            name=name.strip() or None,
            is_admin=False,
            is_self_registered=is_self_registered,
            actor=actor,
        )
        if self._credits:
            await self._grant(connection, account.id, self._credits, actor)
        return account.id
