"""API keys as operators and their owners see them: all but the secret."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from app.accounts.principal import USER_SCOPES, Period
from app.db import Where, containing, once, read, retried
from app.errors import KeyNotFound
from app.values import Credits

KeyState = Literal["live", "revoked", "expired"]


def key_public_id(key_id: int) -> str:
    return f"key_{key_id}"


def find_key_id(text: str) -> int | None:
    """Read ``key_12`` or ``12``; None when it is neither."""
    number = text.removeprefix("key_")
    return int(number) if number.isascii() and number.isdigit() and len(number) <= 18 else None


def parse_key_id(text: str) -> int:
    """Read ``key_12`` or ``12``. Raises: KeyNotFound."""
    found = find_key_id(text)
    if found is None:
        raise KeyNotFound(text)
    return found


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What an operator, and the key's owner, may see of a key."""

    id: int
    account_id: int
    email: str
    name: str
    last4: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    cidrs: tuple[str, ...]
    replaces: int | None
    budget: Credits | None
    """None: no limit but the account's credits."""
    period: Period
    spent: Credits
    """In the budget's present period (days and months of UTC), together with the keys that share the budget."""
    held: Credits
    in_flight: int
    max_in_flight: int | None
    rpm: int | None
    """Requests a minute; None: the setting's."""
    pepper: int
    """Which of the deployment's peppers it is stored under: 1 is the first there was."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    state: KeyState
    """As it was when it was read."""
    is_console: bool
    """What the account's sessions spend is written under it. Nobody can call with it, and nobody can change it."""

    @property
    def public_id(self) -> str:
        return key_public_id(self.id)


@dataclass(frozen=True, slots=True)
class KeyName:
    """What tells an account's keys apart in a list."""

    id: int
    name: str
    last4: str


@dataclass(frozen=True, slots=True)
class KeySearch:
    """What somebody looks for among keys. None means any; the console's own keys are never among them."""

    q: str | None = None
    """Part of the key's name, of its account's e-mail, its last four letters, or the whole id."""
    account_id: int | None = None
    state: KeyState | None = None
    after: int | None = None
    """The last id of the page before."""
    limit: int = 50


async def key_info(engine: AsyncEngine, key_id: int) -> KeyInfo:
    """Raises: KeyNotFound."""
    rows = await retried(lambda: once(engine, _INFO, (key_id, None)))
    if not rows:
        raise KeyNotFound(key_public_id(key_id))
    return _info(rows[0])


async def list_keys(engine: AsyncEngine, account_id: int | None) -> Sequence[KeyInfo]:
    """Return the keys of one account, or of all, oldest first; revoked ones too."""
    rows = await retried(lambda: once(engine, _INFO, (None, account_id)))
    return [_info(row) for row in rows if not row["is_console"]]


async def key_names(engine: AsyncEngine, account_id: int, of: Collection[int] | None) -> Sequence[KeyName]:
    """Return the account's keys, or those of these numbers, newest first; dead ones too, never the console's own."""
    sql, arguments = (_NAMES, (account_id,)) if of is None else (_NAMES_OF, (account_id, list(of)))
    return [KeyName(**row) for row in await read(engine, sql, arguments)]


async def has_keys(engine: AsyncEngine, account_id: int) -> bool:
    """Whether the account ever made a key itself."""
    return bool(await read(engine, _HAS_KEYS, (account_id,)))


async def search_keys(engine: AsyncEngine, wanted: KeySearch) -> tuple[Sequence[KeyInfo], bool]:
    """Return one page of keys, newest first, dead ones too; and whether there are more."""
    where = Where()
    where.where.append("NOT k.is_console")
    if wanted.state is not None:
        where.where.append(_STATES[wanted.state])
    where.add("k.account_id = {}", wanted.account_id)
    where.add("k.id < {}", wanted.after)
    some = f"{where.sql} ORDER BY k.id DESC LIMIT {wanted.limit + 1:d}"
    found = f"SELECT k.id FROM api_keys k WHERE {some}"  # noqa: S608 - our own words
    if (part := containing(wanted.q)) is not None:
        words = (wanted.q or "").replace("\0", "").strip()
        found = _NAMED.format(
            pattern=where.number(part), word=where.number(words), id=where.number(find_key_id(words)), some=some
        )
    sql = _SEARCH.format(found=found, limit=wanted.limit + 1)
    rows = await read(engine, sql, tuple(where.arguments), is_planned_anew=True)
    return [_info(row) for row in rows[: wanted.limit]], len(rows) > wanted.limit


def _info(row: Any) -> KeyInfo:
    return KeyInfo(
        id=row["id"],
        account_id=row["account_id"],
        email=row["email"],
        name=row["name"],
        last4=row["last4"],
        scopes=tuple(row["scopes"] or USER_SCOPES),
        models=None if row["models"] is None else tuple(row["models"]),
        cidrs=tuple(str(network) for network in row["cidrs"] or ()),
        replaces=row["replaces"],
        budget=row["limit_amount"],
        period=row["period"],
        spent=row["spent"],
        held=row["held"],
        in_flight=row["in_flight"],
        max_in_flight=row["max_in_flight"],
        rpm=row["rpm"],
        pepper=row["mac_ver"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        state=row["state"],
        is_console=row["is_console"],
    )


_STATE = "CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired' ELSE 'live' END"

_COLUMNS = f"""
SELECT k.*, {_STATE} AS state, a.email, b.limit_amount, b.period, b.held, b.in_flight, b.max_in_flight,
       coalesce((SELECT sum(m.spent) FROM key_budgets m WHERE (m.api_key_id = k.id OR m.family = b.family)
                    AND m.period_start >= mg_period_start(b.period)), 0)::bigint AS spent
  FROM api_keys k JOIN accounts a ON a.id = k.account_id JOIN key_budgets b ON b.api_key_id = k.id"""  # noqa: S608

_INFO = f"""{_COLUMNS}
 WHERE ($1::bigint IS NULL OR k.id = $1) AND ($2::bigint IS NULL OR k.account_id = $2) ORDER BY k.id"""

_NAMES = "SELECT id, name, last4 FROM api_keys WHERE account_id = $1 AND NOT is_console ORDER BY id DESC"
_NAMES_OF = """
SELECT id, name, last4 FROM api_keys WHERE account_id = $1 AND id = ANY($2::bigint[]) AND NOT is_console
 ORDER BY id DESC"""
_HAS_KEYS = "SELECT 1 FROM api_keys WHERE account_id = $1 AND NOT is_console LIMIT 1"

# In words, not as arguments: so the planner sees which index is of them alone.
_STATES: Mapping[KeyState, str] = {
    "live": "k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())",
    "revoked": "k.revoked_at IS NOT NULL",
    "expired": "k.revoked_at IS NULL AND k.expires_at <= now()",
}
# Each by an index of its own; all at once, by none.
_NAMED = """(SELECT k.id FROM api_keys k WHERE lower(k.name) LIKE {pattern} AND {some})
UNION (SELECT k.id FROM api_keys k WHERE lower(k.last4) = lower({word}::text) AND {some})
UNION (SELECT k.id FROM accounts a JOIN api_keys k ON k.account_id = a.id
        WHERE lower(a.email) LIKE {pattern} AND {some})
UNION (SELECT k.id FROM api_keys k WHERE k.id = {id}::bigint AND {some})"""
# The page is chosen first: what the budgets' sums cost is paid for its rows alone.
_SEARCH = f"""
WITH found AS ({{found}}), page AS MATERIALIZED (SELECT id FROM found ORDER BY id DESC LIMIT {{limit:d}})
{_COLUMNS} JOIN page ON page.id = k.id ORDER BY k.id DESC"""  # noqa: S608 - our own words
