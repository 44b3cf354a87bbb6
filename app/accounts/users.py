"""Accounts: who pays. Their credits move through the ledger alone; nothing here touches a balance.

Every change is noted in the audit, in its own transaction.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from redis.asyncio import Redis
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.accounts.news import tell
from app.accounts.principal import ADMIN_SCOPE
from app.db import Where, containing, read, retried, transaction
from app.errors import AccountBusy, AccountExists, AccountNotFound, InvalidParameter, LastAdmin
from app.journal import SYSTEM, Actor, changes, checked_reason, note
from app.values import Credits

MAX_EMAIL_CHARS = 254
MAX_NAME_CHARS = 100
MAX_IN_FLIGHT = 100_000
ADMINS_LOCK = 0x6D67_0002
_EMAIL = re.compile(r"[^@\s,;<>\"]+@[^@\s,;<>\".]+(\.[^@\s,;<>\".]+)*")  # the mail server knows the rest
_NUMBER = re.compile(r"(?:acct_)?([0-9]{1,18})")

State = Literal["active", "suspended", "closed"]
Opening = Callable[[AsyncConnection, int, Actor], Awaitable[None]]
"""Gives a new account its first credits, in the transaction it is given: `app.credits.lines`'s."""


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


@dataclass(frozen=True, slots=True)
class AccountSearch:
    """What an operator looks for among all accounts. None means any."""

    q: str | None = None
    """Part of the e-mail or the name, or the whole id."""
    state: State | None = None
    is_admin: bool | None = None
    after: int | None = None
    """The last id of the page before."""
    limit: int = 50


def account_public_id(account_id: int) -> str:
    return f"acct_{account_id}"


def find_account_id(text: str) -> int | None:
    """Read ``acct_12`` or ``12``; None when it is neither."""
    number = _NUMBER.fullmatch(text)
    return int(number[1]) if number else None


class Accounts:
    """Accounts by e-mail (capitals do not matter), ``acct_12`` or ``12``.

    Through ``redis`` every process learns at once which keys a change concerns.
    """

    def __init__(self, engine: AsyncEngine, *, redis: Redis | None = None) -> None:
        self._engine = engine
        self._redis = redis

    async def create(
        self,
        email: str,
        *,
        name: str | None = None,
        is_admin: bool = False,
        opening: Opening | None = None,
        actor: Actor = SYSTEM,
    ) -> Account:
        """Open an account, with what ``opening`` gives it: both or neither; without it, it has no credits.

        Raises: InvalidParameter, AccountExists; what ``opening`` raises.
        """
        async with transaction(self._engine) as connection:
            account = await insert_account(connection, email, name=name, is_admin=is_admin, actor=actor)
            if opening is None:
                return account
            await opening(connection, account.id, actor)
            return _account((await connection.exec_driver_sql(_GET, (account.id, None))).mappings().one())

    async def get(self, reference: str | int) -> Account:
        """Raises: AccountNotFound."""
        number, email = resolved(reference)
        rows = await read(self._engine, _GET, (number, email))
        if not rows:
            raise AccountNotFound(str(reference))
        return _account(rows[0])

    async def list(self) -> Sequence[Account]:
        """Return all accounts, oldest first."""
        return [_account(row) for row in await read(self._engine, _LIST)]

    async def search(self, wanted: AccountSearch) -> tuple[Sequence[Account], bool]:
        """Return one page of accounts, newest first, closed ones too; and whether there are more."""
        where = Where()
        if (part := containing(wanted.q)) is not None:
            pattern, number = where.number(part), where.number(find_account_id((wanted.q or "").strip()))
            where.where.append(f"(lower(email) LIKE {pattern} OR lower(name) LIKE {pattern} OR id = {number}::bigint)")
        if wanted.state is not None:
            where.where.append(_STATES[wanted.state])
        if wanted.is_admin is not None:
            where.where.append("is_admin" if wanted.is_admin else "NOT is_admin")
        where.add("id < {}", wanted.after)
        rows = await read(
            self._engine,
            f"SELECT * FROM accounts WHERE {where.sql} ORDER BY id DESC LIMIT {wanted.limit + 1:d}",  # noqa: S608
            tuple(where.arguments),
            is_planned_anew=True,
        )
        return [_account(row) for row in rows[: wanted.limit]], len(rows) > wanted.limit

    async def update(
        self,
        reference: str | int,
        *,
        name: str | None = None,
        is_admin: bool | None = None,
        max_in_flight: int | None = None,
        actor: Actor = SYSTEM,
    ) -> Account:
        """Change what is not None. Raises: AccountNotFound, InvalidParameter, LastAdmin."""
        if max_in_flight is not None and not 0 <= max_in_flight <= MAX_IN_FLIGHT:
            raise InvalidParameter(f"'max_in_flight' must be between 0 and {MAX_IN_FLIGHT}.", param="max_in_flight")
        given = {"name": None if name is None else _checked_name(name), "is_admin": is_admin}
        wanted = {key: value for key, value in {**given, "max_in_flight": max_in_flight}.items() if value is not None}
        action = "account.limits" if set(wanted) == {"max_in_flight"} else "account.update"
        return await self._change(reference, wanted, action, actor)

    async def suspend(self, reference: str | int, *, reason: str | None = None, actor: Actor = SYSTEM) -> Account:
        """Refuse every new hold from the commit on; reads, and tasks that run, go on.

        Raises: AccountNotFound, LastAdmin, InvalidParameter for an empty reason.
        """
        return await self._change(reference, {"state": "suspended"}, "account.suspend", actor, reason=reason)

    async def resume(self, reference: str | int, *, reason: str | None = None, actor: Actor = SYSTEM) -> Account:
        """Undo a suspension. Raises: AccountNotFound, InvalidParameter for an empty reason."""
        return await self._change(reference, {"state": "active"}, "account.resume", actor, reason=reason)

    async def close(self, reference: str | int, *, reason: str, actor: Actor = SYSTEM) -> Account:
        """End an account for good: its keys and sessions with it. Its credits and its books stay as they are.

        Raises: AccountNotFound, LastAdmin, AccountBusy while tasks of it run, InvalidParameter for an empty reason.
        """
        return await self._change(reference, {"state": "closed"}, "account.close", actor, reason=reason)

    async def set_limits(self, reference: str | int, *, max_in_flight: int, actor: Actor = SYSTEM) -> Account:
        """Set how many tasks may be unfinished at once. Raises: AccountNotFound, InvalidParameter."""
        return await self.update(reference, max_in_flight=max_in_flight, actor=actor)

    async def is_penniless(self, account_id: int) -> bool:
        """Whether nothing that this account may ask for could be paid, so that its request need not be read.

        False also for one whose request may mean a task that it paid for already: only the body tells.
        """
        return bool(await read(self._engine, _PENNILESS, (account_id,)))

    async def _change(
        self,
        reference: str | int,
        wanted: dict[str, Any],
        action: str,
        actor: Actor,
        *,
        reason: str | None = None,
    ) -> Account:
        """Change some columns of one account, note what really changed, and tell what that means for its keys."""
        number, email = resolved(reference)
        why: dict[str, Any] = {} if reason is None else {"reason": checked_reason(reason)}

        async def work() -> tuple[Account, Sequence[int]]:
            async with transaction(self._engine) as connection:
                if (
                    wanted.get("state") == "closed" or wanted.get("is_admin") is False
                ):  # the order is the ledger's: keys, then their account
                    await connection.exec_driver_sql(_LOCK_KEYS, (number, email))
                found = await connection.exec_driver_sql(_LOCK, (number, email))
                row = found.mappings().one_or_none()
                if row is None:
                    raise AccountNotFound(str(reference))
                before = {name: row[name] for name in wanted}
                was, now = changes(before, wanted)
                if not now:
                    return _account(row), ()
                await _check_change(connection, row, now)
                if "is_admin" in now:
                    await connection.exec_driver_sql("SELECT mg_set_admin($1, $2)", (row["id"], now["is_admin"]))
                changed = await connection.exec_driver_sql(
                    _SET, (row["id"], *(now.get(name) for name in ("name", "max_in_flight", "state")))
                )
                account = _account(changed.mappings().one())
                keys: Sequence[int] = ()
                if account.state == "closed":
                    keys = await _end_keys(connection, account)
                    why["revoked_keys"] = len(keys)
                elif account.is_admin or "is_admin" in now:  # what a key may do follows it
                    keys = (await connection.exec_driver_sql(_LIVE_KEYS, (account.id,))).scalars().all()
                if now.get("is_admin") is False:
                    await _end_admin_scopes(connection, account, actor)
                await note(connection, actor, action, f"account:{account.id}", before=was, after=now | why)
                return account, keys

        account, keys = await retried(work)
        for key_id in keys:
            await tell(self._redis, key_id)
        return account


async def insert_account(
    connection: AsyncConnection,
    email: str,
    *,
    name: str | None,
    is_admin: bool,
    is_self_registered: bool = False,
    actor: Actor,
) -> Account:
    """Open an account in the caller's transaction. ``is_self_registered``: nobody has vouched for its e-mail.

    Raises: InvalidParameter; AccountExists, which ends the transaction.
    """
    email = email.strip()
    if len(email) > MAX_EMAIL_CHARS or not email.isprintable() or not _EMAIL.fullmatch(email):
        raise InvalidParameter(f"'{email[:MAX_EMAIL_CHARS]}' is not an e-mail address.", param="email")
    name = _checked_name(name or email.partition("@")[0][:MAX_NAME_CHARS])
    try:
        made = await connection.exec_driver_sql(_CREATE, (email, name, is_admin, is_self_registered))
    except IntegrityError as error:
        raise AccountExists(email) from error
    account = _account(made.mappings().one())
    after = {"email": account.email, "name": account.name, "is_admin": account.is_admin}
    await note(connection, actor, "account.create", f"account:{account.id}", after=after)
    return account


async def _check_change(connection: AsyncConnection, row: Any, now: dict[str, Any]) -> None:
    """Raises: LastAdmin, AccountBusy."""
    if now.get("state") == "closed" and (row["held"] or row["in_flight"]):
        raise AccountBusy(in_flight=row["in_flight"], held=row["held"])
    ends = not now.get("is_admin", True) or now.get("state", "active") != "active"
    if ends and row["is_admin"] and row["state"] == "active":
        await connection.exec_driver_sql("SELECT pg_advisory_xact_lock($1)", (ADMINS_LOCK,))  # two who end each other
        if (await connection.exec_driver_sql(_OTHER_ADMIN, (row["id"],))).first() is None:
            raise LastAdmin


async def _end_keys(connection: AsyncConnection, account: Account) -> Sequence[int]:
    """Take away every way in: keys, sessions and links. The console's key stays in the books; nobody calls with it."""
    await connection.exec_driver_sql("DELETE FROM sessions WHERE account_id = $1", (account.id,))
    await connection.exec_driver_sql("DELETE FROM sign_in_links WHERE account_id = $1", (account.id,))
    return list((await connection.exec_driver_sql(_REVOKE_KEYS, (account.id,))).scalars().all())


async def _end_admin_scopes(connection: AsyncConnection, account: Account, actor: Actor) -> None:
    """Take an administrator's rights from an account's keys, so that they do not come back with a later promotion.

    A key that had no other scope is revoked: no scopes would mean all of a user's.
    """
    for row in (await connection.exec_driver_sql(_END_ADMIN_SCOPES, (account.id, ADMIN_SCOPE))).mappings().all():
        left = [scope for scope in row["scopes"] if scope != ADMIN_SCOPE]
        after = {"scopes": left} if left else {"revoked": True}
        before = {"scopes": row["scopes"]} if left else {"revoked": False}
        await note(
            connection, actor, "key.scopes" if left else "key.revoke", f"key:{row['id']}", before=before, after=after
        )


def _checked_name(text: str) -> str:
    text = text.strip()
    if not 1 <= len(text) <= MAX_NAME_CHARS or not text.isprintable():
        raise InvalidParameter(f"'name' must be 1 to {MAX_NAME_CHARS} printable characters.", param="name")
    return text


def resolved(reference: str | int) -> tuple[int | None, str | None]:
    """Return the number or the e-mail that an account is named by."""
    if isinstance(reference, int):
        return reference, None
    reference = reference.strip()
    number = _NUMBER.fullmatch(reference)
    return (int(number[1]), None) if number else (None, reference)


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


_CREATE = "INSERT INTO accounts (email, name, is_admin, is_self_registered) VALUES ($1, $2, $3, $4) RETURNING *"
_LIST = "SELECT * FROM accounts ORDER BY id"
_GET = "SELECT * FROM accounts WHERE (id = $1 OR lower(email) = lower($2))"
_PENNILESS = """
SELECT 1 FROM accounts a WHERE id = $1 AND posted - held <= 0
   AND NOT EXISTS (SELECT 1 FROM idempotency i WHERE i.account_id = a.id)"""
# A closed account stays closed.
_LOCK = _GET + " AND state <> 'closed' FOR NO KEY UPDATE"
_SET = """
UPDATE accounts SET name = coalesce($2, name), max_in_flight = coalesce($3, max_in_flight),
       state = coalesce($4, state) WHERE id = $1 RETURNING *"""
_OTHER_ADMIN = "SELECT 1 FROM accounts WHERE is_admin AND state = 'active' AND id <> $1"
_LOCK_KEYS = """
SELECT k.id FROM api_keys k JOIN accounts a ON a.id = k.account_id
 WHERE (a.id = $1 OR lower(a.email) = lower($2)) AND k.revoked_at IS NULL ORDER BY k.id FOR NO KEY UPDATE OF k"""
_LIVE_KEYS = "SELECT id FROM api_keys WHERE account_id = $1 AND revoked_at IS NULL"
_REVOKE_KEYS = """
UPDATE api_keys SET revoked_at = now() WHERE account_id = $1 AND revoked_at IS NULL AND NOT is_console RETURNING id"""
_END_ADMIN_SCOPES = """
WITH old AS (SELECT id, scopes FROM api_keys
              WHERE account_id = $1 AND $2 = ANY(scopes) AND revoked_at IS NULL AND NOT is_console
              ORDER BY id FOR NO KEY UPDATE)
UPDATE api_keys k SET scopes = CASE WHEN old.scopes <@ ARRAY[$2] THEN old.scopes ELSE array_remove(old.scopes, $2) END,
       revoked_at = CASE WHEN old.scopes <@ ARRAY[$2] THEN now() END
  FROM old WHERE k.id = old.id RETURNING k.id, old.scopes"""
# In words, not as arguments: so the planner sees which index is of them alone.
_STATES: Mapping[State, str] = {state: f"state = '{state}'" for state in get_args(State)}
