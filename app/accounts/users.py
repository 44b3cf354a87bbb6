"""Accounts: who pays. Their credits move through the ledger alone; nothing here touches a balance.

Every change is noted in the audit, in its own transaction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import read, retried, transaction
from app.errors import AccountExists, AccountNotFound, InvalidParameter
from app.journal import SYSTEM, Actor, changes, note
from app.values import Credits

MAX_EMAIL_CHARS = 254
MAX_IN_FLIGHT = 100_000
_EMAIL = re.compile(r"[^@\s,;<>\"]+@[^@\s,;<>\".]+(\.[^@\s,;<>\".]+)*")  # the mail server knows the rest
_NUMBER = re.compile(r"(?:acct_)?([0-9]{1,18})")

State = Literal["active", "suspended", "closed"]


@dataclass(frozen=True, slots=True)
class Account:
    """One account, as it was when it was read."""

    id: int
    email: str
    name: str
    state: State
    is_admin: bool
    credits: Credits
    """What can be spent now."""
    held: Credits
    """What running tasks have put aside."""
    in_flight: int
    max_in_flight: int
    created_at: datetime

    @property
    def public_id(self) -> str:
        return account_public_id(self.id)


def account_public_id(account_id: int) -> str:
    return f"acct_{account_id}"


class Accounts:
    """Accounts by e-mail (capitals do not matter), ``acct_12`` or ``12``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(
        self, email: str, *, name: str | None = None, is_admin: bool = False, actor: Actor = SYSTEM
    ) -> Account:
        """Open an account with no credits. Raises: InvalidParameter, AccountExists."""
        email = email.strip()
        if len(email) > MAX_EMAIL_CHARS or not email.isprintable() or not _EMAIL.fullmatch(email):
            raise InvalidParameter(f"'{email[:MAX_EMAIL_CHARS]}' is not an e-mail address.", param="email")
        try:
            async with transaction(self._engine) as connection:
                made = await connection.exec_driver_sql(_CREATE, (email, name or email.partition("@")[0], is_admin))
                account = _account(made.mappings().one())
                after = {"email": account.email, "name": account.name, "is_admin": account.is_admin}
                await note(connection, actor, "account.create", f"account:{account.id}", after=after)
        except IntegrityError as error:
            raise AccountExists(email) from error
        return account

    async def get(self, reference: str | int) -> Account:
        """Raises: AccountNotFound."""
        number, email = _resolve(reference)
        rows = await read(self._engine, _GET, (number, email))
        if not rows:
            raise AccountNotFound(str(reference))
        return _account(rows[0])

    async def list(self) -> Sequence[Account]:
        """Return all accounts, oldest first."""
        return [_account(row) for row in await read(self._engine, _LIST)]

    async def suspend(self, reference: str | int, *, actor: Actor = SYSTEM) -> Account:
        """Refuse every new hold from the commit on; reads, and tasks that run, go on. Raises: AccountNotFound."""
        return await self._change(reference, _SET_STATE, "suspended", "account.suspend", actor)

    async def resume(self, reference: str | int, *, actor: Actor = SYSTEM) -> Account:
        """Undo a suspension. Raises: AccountNotFound."""
        return await self._change(reference, _SET_STATE, "active", "account.resume", actor)

    async def set_limits(self, reference: str | int, *, max_in_flight: int, actor: Actor = SYSTEM) -> Account:
        """Set how many tasks may be unfinished at once. Raises: AccountNotFound, InvalidParameter."""
        if not 0 <= max_in_flight <= MAX_IN_FLIGHT:
            raise InvalidParameter(f"'max_in_flight' must be between 0 and {MAX_IN_FLIGHT}.", param="max_in_flight")
        return await self._change(reference, _SET_MAX_IN_FLIGHT, max_in_flight, "account.limits", actor)

    async def is_penniless(self, account_id: int) -> bool:
        """Whether nothing that this account may ask for could be paid, so that its request need not be read.

        False also for one whose request may mean a task that it paid for already: only the body tells.
        """
        return bool(await read(self._engine, _PENNILESS, (account_id,)))

    async def _change(self, reference: str | int, sql: str, value: object, action: str, actor: Actor) -> Account:
        """Change one column of one account, and note what really changed."""
        number, email = _resolve(reference)

        async def work() -> Account:
            async with transaction(self._engine) as connection:
                found = await connection.exec_driver_sql(_LOCK, (number, email))
                row = found.mappings().one_or_none()
                if row is None:
                    raise AccountNotFound(str(reference))
                changed = await connection.exec_driver_sql(sql, (row["id"], value))
                account = _account(changed.mappings().one())
                was, now = changes(_changeable(_account(row)), _changeable(account))
                if now:
                    await note(connection, actor, action, f"account:{account.id}", before=was, after=now)
                return account

        return await retried(work)


def _resolve(reference: str | int) -> tuple[int | None, str | None]:
    if isinstance(reference, int):
        return reference, None
    reference = reference.strip()
    number = _NUMBER.fullmatch(reference)
    return (int(number[1]), None) if number else (None, reference)


def _changeable(account: Account) -> dict[str, Any]:
    return {"state": account.state, "max_in_flight": account.max_in_flight}


def _account(row: Any) -> Account:
    return Account(
        id=row["id"],
        email=row["email"],
        name=row["name"],
        state=row["state"],
        is_admin=row["is_admin"],
        credits=Credits(row["posted"] - row["held"]),
        held=row["held"],
        in_flight=row["in_flight"],
        max_in_flight=row["max_in_flight"],
        created_at=row["created_at"],
    )


_CREATE = "INSERT INTO accounts (email, name, is_admin) VALUES ($1, $2, $3) RETURNING *"
_LIST = "SELECT * FROM accounts ORDER BY id"
_GET = "SELECT * FROM accounts WHERE (id = $1 OR lower(email) = lower($2))"
_PENNILESS = """
SELECT 1 FROM accounts a WHERE id = $1 AND posted - held <= 0
   AND NOT EXISTS (SELECT 1 FROM idempotency i WHERE i.account_id = a.id)"""
# A closed account stays closed.
_LOCK = _GET + " AND state <> 'closed' FOR NO KEY UPDATE"
_SET_STATE = "UPDATE accounts SET state = $2 WHERE id = $1 RETURNING *"
_SET_MAX_IN_FLIGHT = "UPDATE accounts SET max_in_flight = $2 WHERE id = $1 RETURNING *"
