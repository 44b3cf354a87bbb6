"""Who is signed in: 256-bit tokens of which the database holds a hash, each ended by idleness, by age, or by hand."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.accounts.tokens import Tokens, token_hash
from app.accounts.tries import KEEP as KEEP_TRIES
from app.accounts.tries import KNOWN_FOR
from app.accounts.users import State, resolved
from app.db import once, read, retried, transaction
from app.errors import AccountNotFound, WrongPassword
from app.journal import Actor, checked_reason, note
from app.values import Credits

IDLE, LONGEST = timedelta(hours=12), timedelta(days=7)
TOUCH_EVERY = timedelta(minutes=1)
MOST_AGENT_CHARS = 300
PER_ACCOUNT = 50
"""Open at once. One more ends the one that was unseen for longest."""

Language = Literal["en", "zh_CN"]
Theme = Literal["system", "light", "dark"]

_ID = re.compile(r"ses_([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in, and whose it is, as it was when it was read."""

    id: str
    """``ses_12``: names it to its owner, and opens nothing."""
    account_id: int
    email: str
    name: str
    state: State
    is_admin: bool
    """Of an active account: a suspended administrator reads their own, and administers nothing."""
    key_id: int
    """The account's console key: what the session makes and spends stands under it."""
    language: Language | None
    theme: Theme
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    """At the latest; idleness may end it earlier."""
    user_agent: str
    peer: str | None
    seemed_empty: bool
    credits: Credits
    """What the account could spend."""
    csrf: str = field(default="", repr=False)
    """What forms and scripts of our own pages send back. Empty where the session was only listed."""


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A session at birth: the one moment its token is known."""

    token: str = field(repr=False)
    session: Session


class Sessions:
    """The sessions of all accounts. ``now`` is for tests: without it, the database's clock counts.

    ``secret`` signs tokens, so that one that somebody made up costs no query; a new one ends all sessions.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        secret: SecretStr | None = None,
        idle: timedelta = IDLE,
        longest: timedelta = LONGEST,
    ) -> None:
        self._engine = engine
        self._tokens = Tokens(secret, b"console session")
        self._idle = idle
        self._longest = longest

    @property
    def longest(self) -> timedelta:
        """How long a session, and so its cookie, can live."""
        return self._longest

    async def open(
        self, account_id: int, *, user_agent: str | None, peer: str | None, password_at: datetime | None = None
    ) -> OpenedSession:
        """Sign an account in, suspended or not. Its oldest sessions end when there are too many.

        ``password_at``: who comes by a password comes no further than that one: a new one, committed since it was
        looked at, has ended all other sessions already, and would not see this one.

        Raises: AccountNotFound, also for one that is closed; WrongPassword.
        """
        token = self._tokens.mint()
        agent = "".join(letter for letter in user_agent or "" if letter.isprintable())[:MOST_AGENT_CHARS]
        async with transaction(self._engine) as connection:
            found = await connection.exec_driver_sql(_LOCK_ACCOUNT, (account_id,))
            if found.first() is None:
                raise AccountNotFound(f"acct_{account_id}")
            if password_at is not None:
                held = await connection.exec_driver_sql(_STILL_THEIRS, (account_id, password_at))
                if held.first() is None:
                    raise WrongPassword
            await _need_console_key(connection, account_id)
            await connection.exec_driver_sql(_OPEN, (account_id, token_hash(token), self._longest, agent, peer))
            await connection.exec_driver_sql(_END_SURPLUS, (account_id, PER_ACCOUNT))
        session = await self.find(token)
        if session is None:
            raise AccountNotFound(f"acct_{account_id}")
        return OpenedSession(token, session)

    async def find(self, token: str, *, touch: bool = True, now: datetime | None = None) -> Session | None:
        """Return whose token it is, and note that it was seen; None for one that never worked or works no more.

        Without ``touch`` it is read only: a page left open asks by itself, and nobody is there.
        """
        if not self._tokens.is_ours(token):
            return None
        arguments = (token_hash(token), now, self._idle, TOUCH_EVERY, touch)
        rows = await read(self._engine, _FIND, arguments)  # to be seen twice changes nothing
        return _session(rows[0], csrf=csrf_of(token)) if rows else None

    async def list(self, account_id: int) -> Sequence[Session]:
        """Return an account's working sessions, the last seen first."""
        return [_session(row) for row in await read(self._engine, _LIST, (account_id, self._idle))]

    async def close(self, account_id: int, session_id: str) -> bool:
        """End one session of an account from this commit on; return whether there was one."""
        number = _ID.fullmatch(session_id)
        if number is None:
            return False
        rows = await retried(lambda: once(self._engine, _CLOSE, (account_id, int(number[1]))))
        return bool(rows)

    async def prune(self) -> None:
        """Forget what has ended: sessions, links, failed tries, and sign-ins that came back from a provider."""
        for sql, arguments in (
            (_PRUNE_SESSIONS, (self._idle,)),
            (_PRUNE_LINKS, ()),
            (_PRUNE_TRIES, (KEEP_TRIES,)),
            (_PRUNE_PLACES, (KNOWN_FOR,)),
        ):
            await once(self._engine, sql, arguments)
        await once(self._engine, "DELETE FROM oidc_states WHERE expires_at < now()")

    async def close_others(self, account_id: int, *, keep: str | None = None) -> int:
        """End all sessions of an account but one, and return how many there were. Links that nobody has used end too:
        whoever does this fears that somebody else has a way in.
        """

        async def work() -> int:
            async with transaction(self._engine) as connection:
                await end_links(connection, account_id)
                ended = await connection.exec_driver_sql(_CLOSE_OTHERS, (account_id, session_number(keep)))
                return len(ended.all())

        return await retried(work)

    async def end_all(self, reference: str | int, *, reason: str, actor: Actor) -> int:
        """Sign somebody out everywhere, from this commit on, and return of how many sessions. They may sign in again,
        with what they have: links that nobody has used end too.

        Raises: AccountNotFound, also for a closed one; InvalidParameter for an empty reason.
        """
        (number, email), why = resolved(reference), checked_reason(reason)

        async def work() -> int:
            async with transaction(self._engine) as connection:
                account_id = (await connection.exec_driver_sql(_LOCK_NAMED, (number, email))).scalar()
                if account_id is None:
                    raise AccountNotFound(str(reference))
                await end_links(connection, account_id)
                ended = (await connection.exec_driver_sql(_CLOSE_OTHERS, (account_id, None))).all()
                after = {"sessions": len(ended), "reason": why}
                await note(connection, actor, "account.sign_out", f"account:{account_id}", after=after)
                return len(ended)

        return await retried(work)


def csrf_of(token: str) -> str:
    """Return what shows that a request was made by a page of this session: it cannot be turned back into the token."""
    return urlsafe_b64encode(hmac.digest(token.encode("ascii"), b"csrf", hashlib.sha256)).decode("ascii").rstrip("=")


def session_number(session_id: str | None) -> int | None:
    number = _ID.fullmatch(session_id or "")
    return int(number[1]) if number else None


async def close_sessions(connection: AsyncConnection, account_id: int, *, keep: str | None = None) -> None:
    """End an account's sessions but one, in the transaction of what makes that necessary."""
    await connection.exec_driver_sql(_CLOSE_OTHERS, (account_id, session_number(keep)))


async def end_links(connection: AsyncConnection, account_id: int) -> None:
    """End an account's links that nobody has used, in the caller's transaction."""
    await connection.exec_driver_sql(_END_LINKS, (account_id,))


async def _need_console_key(connection: AsyncConnection, account_id: int) -> None:
    """Make the account's console key at its first sign-in. Its row is locked: nobody makes another meanwhile."""
    if (await connection.exec_driver_sql(_CONSOLE_KEY, (account_id,))).first() is None:
        await connection.exec_driver_sql(_MAKE_CONSOLE_KEY, (account_id, secrets.token_bytes(32)))


def _session(row: Any, *, csrf: str = "") -> Session:
    return Session(
        id=f"ses_{row['id']}",
        account_id=row["account_id"],
        email=row["email"],
        name=row["name"],
        state=row["state"],
        is_admin=row["is_admin"] and row["state"] == "active",
        key_id=row["key_id"],
        language=row["language"],
        theme=row["theme"],
        created_at=row["created_at"],
        seen_at=row["seen_at"],
        expires_at=row["expires_at"],
        user_agent=row["user_agent"],
        peer=row["peer"],
        seemed_empty=row["seemed_empty"],
        credits=Credits(row["credits"]),
        csrf=csrf,
    )


_LOCK_ACCOUNT = "SELECT 1 FROM accounts WHERE id = $1 AND state <> 'closed' FOR NO KEY UPDATE"
# Whoever changes it waits for us, or we for them: a change ends the sessions that were opened before it.
_STILL_THEIRS = "SELECT 1 FROM passwords WHERE account_id = $1 AND changed_at = $2 FOR SHARE"
_LOCK_NAMED = """
SELECT id FROM accounts WHERE (id = $1 OR lower(email) = lower($2)) AND state <> 'closed' FOR NO KEY UPDATE"""
_CONSOLE_KEY = "SELECT id FROM api_keys WHERE account_id = $1 AND is_console"
# The mac is random, not of any secret: no pepper finds it.
_MAKE_CONSOLE_KEY = """
WITH made AS (
  INSERT INTO api_keys (account_id, key_mac, mac_ver, name, last4, is_console)
  VALUES ($1, $2, 0, 'Console', '', true) RETURNING id)
INSERT INTO key_budgets (api_key_id, limit_amount, period) SELECT id, NULL, 'total' FROM made"""

_OPEN = """
INSERT INTO sessions (account_id, token_hash, expires_at, user_agent, peer)
VALUES ($1, $2, now() + $3::interval, $4, $5)"""
_END_SURPLUS = """
DELETE FROM sessions WHERE id IN (
  SELECT id FROM sessions WHERE account_id = $1 ORDER BY seen_at DESC, id DESC OFFSET $2)"""

_SESSION = """
SELECT s.id, s.account_id, s.created_at, s.seen_at, s.expires_at, s.user_agent, s.peer,
       a.email, a.name, a.state, a.is_admin, a.language, a.theme, a.posted - a.held <= 0 AS seemed_empty,
       a.posted - a.held AS credits, k.id AS key_id
  FROM sessions s JOIN accounts a ON a.id = s.account_id JOIN api_keys k ON k.account_id = a.id AND k.is_console"""

_FIND = f"""
WITH clock AS (SELECT coalesce($2::timestamptz, now()) AS now),
found AS (
  {_SESSION}, clock
   WHERE s.token_hash = $1 AND s.expires_at > clock.now AND s.seen_at > clock.now - $3::interval
     AND a.state <> 'closed'),
touched AS (
  UPDATE sessions s SET seen_at = clock.now FROM found, clock
   WHERE $5::boolean AND s.id = found.id AND found.seen_at < clock.now - $4::interval)
SELECT * FROM found"""  # noqa: S608 - constants

_LIST = f"""{_SESSION}
 WHERE s.account_id = $1 AND s.expires_at > now() AND s.seen_at > now() - $2::interval
 ORDER BY s.seen_at DESC, s.id DESC"""

_PRUNE_SESSIONS = "DELETE FROM sessions WHERE expires_at < now() OR seen_at < now() - $1::interval"
_PRUNE_LINKS = """
DELETE FROM sign_in_links WHERE expires_at < now() - interval '1 day' OR used_at < now() - interval '1 day'"""
_PRUNE_TRIES = "DELETE FROM sign_in_tries WHERE last_at < now() - $1::interval"
_PRUNE_PLACES = "DELETE FROM sign_in_places WHERE last_at < now() - $1::interval"
_END_LINKS = "DELETE FROM sign_in_links WHERE account_id = $1 AND used_at IS NULL"
_CLOSE = "DELETE FROM sessions WHERE account_id = $1 AND id = $2 RETURNING id"
_CLOSE_OTHERS = "DELETE FROM sessions WHERE account_id = $1 AND id IS DISTINCT FROM $2::bigint RETURNING id"
