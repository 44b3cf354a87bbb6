"""Redeem codes: made in batches by an administrator, shown once, and worth their credits once to whoever types them."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.credits.refusals import money_errors
from app.errors import (
    InvalidParameter,
    RedeemCodeNotFound,
    RedeemCodeRefused,
    RedeemCodeUsed,
    TooManyRequests,
)
from app.journal import Actor, checked_reason, note
from app.values import MAX_CREDITS, Credits, find_id, new_id, public_id, utcnow

MAX_BATCH = 1000
MAX_NOTE_CHARS = 200
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base32: nothing that reads like something else
CHARS = 20  # 100 bits: nobody guesses one, so a plain hash keeps it
GROUP = 5
MISREAD = str.maketrans("OIL", "011")
WRONG_CODES, WINDOW_S = 10, 3600
"""So many wrong codes an hour with one key, then none of that key is looked at until the hour is over.

The console has a key of its own: one that leaked does not lock its owner out there."""
REFUSALS = {
    "unknown": "This code is not known here. Check its letters and digits.",
    "used": "This code was redeemed by another account already.",
    "revoked": "This code was withdrawn.",
    "expired": "This code has expired.",
}
_BATCH, _CODE = "batch_", re.compile(r"(?:code_)?([0-9]{1,18})")

Kind = Literal["topup", "grant"]
CodeState = Literal["open", "redeemed", "revoked", "expired"]


@dataclass(frozen=True, slots=True)
class RedeemCode:
    """A code as operators see it: all but the code."""

    id: int
    batch: str
    last4: str
    kind: Kind
    amount: Credits
    note: str
    """The customer who redeems it reads it in the ledger."""
    state: CodeState
    """As it was when it was read."""
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    redeemed_at: datetime | None
    account_id: int | None
    email: str | None
    """Who redeemed it."""

    @property
    def public_id(self) -> str:
        return code_public_id(self.id)


@dataclass(frozen=True, slots=True)
class Batch:
    """Codes at birth: the one moment they are known."""

    id: str
    codes: Sequence[str]
    amount: Credits

    def __repr__(self) -> str:
        return f"Batch(id='{self.id}', codes={len(self.codes)})"


@dataclass(frozen=True, slots=True)
class CodeSearch:
    """What an operator looks for among all codes. None means any."""

    q: str | None = None
    """Part of the note or of the redeemer's e-mail, the last four letters, or the whole id."""
    batch: str | None = None
    state: CodeState | None = None
    account_id: int | None = None
    after: int | None = None
    """The last id of the page before."""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Redeemed:
    credits: Credits
    """What the code was worth."""
    balance: Credits
    """The account's posted credits after it."""
    reference: str
    is_new: bool
    """False: this account had redeemed it before, and nothing moved now."""


def code_public_id(code_id: int) -> str:
    return f"code_{code_id}"


class Codes:
    """All redeem codes."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(
        self,
        *,
        count: int,
        amount: int,
        actor: Actor,
        kind: Kind = "grant",
        expires_at: datetime | None = None,
        note: str = "",
    ) -> Batch:
        """Make ``count`` codes of ``amount`` credits each: bought (``topup``) or given away (``grant``).

        Raises: InvalidParameter.
        """
        text = _checked(count=count, amount=amount, kind=kind, expires_at=expires_at, text=note)
        batch = new_id()
        codes = [_mint() for _ in range(count)]
        rows = [(_hash(code), code[-4:]) for code in codes]
        async with db.transaction(self._engine) as connection:
            await connection.exec_driver_sql(
                _CREATE,
                (
                    batch,
                    [hashed for hashed, _ in rows],
                    [last4 for _, last4 in rows],
                    kind,
                    amount,
                    text,
                    actor.name,
                    expires_at,
                ),
            )
            after = {"count": count, "amount": amount, "kind": kind, "note": text, "expires_at": expires_at}
            await _note(connection, actor, "codes.create", f"batch:{public_id(_BATCH, batch)}", after=after)
        return Batch(public_id(_BATCH, batch), [_shown(code) for code in codes], Credits(amount))

    async def search(self, wanted: CodeSearch) -> tuple[list[RedeemCode], bool]:
        """Return one page of codes, newest first, dead ones too; and whether there are more."""
        where = db.Where()
        if wanted.state is not None:
            where.where.append(_STATES[wanted.state])
        where.add("c.batch = {}", None if wanted.batch is None else _batch_of(wanted.batch))
        where.add("c.account_id = {}", wanted.account_id)
        where.add("c.id < {}", wanted.after)
        some = f"{where.sql} ORDER BY c.id DESC LIMIT {wanted.limit + 1:d}"
        sql = f"{_COLUMNS} WHERE {some}"
        if (part := db.containing(wanted.q)) is not None:
            words = (wanted.q or "").replace("\0", "").strip()
            found = _NAMED.format(
                pattern=where.number(part), word=where.number(words), id=where.number(find_code_id(words)), some=some
            )
            sql = f"{_COLUMNS} WHERE c.id IN ({found}) ORDER BY c.id DESC LIMIT {wanted.limit + 1:d}"
        rows = await db.read(self._engine, sql, tuple(where.arguments), is_planned_anew=True)
        return [_code(row) for row in rows[: wanted.limit]], len(rows) > wanted.limit

    async def get(self, reference: str | int) -> RedeemCode:
        """Raises: RedeemCodeNotFound."""
        rows = await db.read(self._engine, _GET, (_number(reference),))
        if not rows:
            raise RedeemCodeNotFound(str(reference))
        return _code(rows[0])

    async def revoke(self, reference: str | int, *, reason: str, actor: Actor) -> RedeemCode:
        """Let nobody redeem it any more. Twice is no error.

        Raises: RedeemCodeNotFound, RedeemCodeUsed, InvalidParameter for an empty reason.
        """
        number, why = _number(reference), checked_reason(reason)

        async def work() -> None:
            async with db.transaction(self._engine) as connection:
                if (await connection.exec_driver_sql(_REVOKE, (number,))).first() is not None:
                    after = {"revoked": True, "reason": why}
                    await _note(connection, actor, "codes.revoke", f"code:{number}", after=after)

        await db.retried(work)
        code = await self.get(number)
        if code.state == "redeemed":
            raise RedeemCodeUsed(code.public_id)
        return code

    async def revoke_batch(self, batch: str, *, reason: str, actor: Actor) -> int:
        """Revoke the codes of a batch that nobody has redeemed. Returns how many. Raises: as `revoke`."""
        found, why = _batch_of(batch), checked_reason(reason)

        async def work() -> int:
            async with db.transaction(self._engine) as connection:
                revoked = (await connection.exec_driver_sql(_REVOKE_BATCH, (found,))).all()
                if revoked:
                    after = {"revoked": len(revoked), "reason": why}
                    await _note(connection, actor, "codes.revoke", f"batch:{batch}", after=after)
                return len(revoked)

        return await db.retried(work)

    async def redeem(self, account_id: int, code: str, *, key_id: int, actor: Actor) -> Redeemed:
        """Add a code's credits to an account, once. A repeat by the same account is answered like the first time.

        ``key_id``: the account's key it came with, by which wrong ones are counted.

        Raises: RedeemCodeRefused, TooManyRequests after too many wrong ones, AccountSuspended, BalanceTooHigh.
        """
        hashed = _hash(_normal(code))

        async def work() -> Any:
            async with db.transaction(self._engine) as connection:
                found = await connection.exec_driver_sql(
                    "SELECT * FROM mg_redeem($1, $2, $3, $4, $5, $6)",
                    (account_id, key_id, hashed, actor.name, WRONG_CODES, WINDOW_S),
                )
                row = found.mappings().one()
                if row["outcome"] == "ok":
                    before = {"balance": row["balance"] - row["amount"]}
                    after = {"balance": row["balance"], "amount": row["amount"], "code": code_public_id(row["code"])}
                    await _note(
                        connection, actor, "credits.redeem", f"account:{account_id}", before=before, after=after
                    )
                return row

        with money_errors(needed=Credits(0)):
            row = await db.retried(work)
        if row["outcome"] == "throttled":
            raise TooManyRequests(
                f"Too many wrong codes. Try again in {row['wait_s'] // 60 + 1} minutes.", retry_after_s=row["wait_s"]
            )
        if row["outcome"] not in ("ok", "again"):
            raise RedeemCodeRefused(REFUSALS[row["outcome"]], param="code")
        return Redeemed(row["amount"], row["balance"], f"redeem:{row['code']}", row["outcome"] == "ok")


_note = note


def _mint() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(CHARS))


def _shown(code: str) -> str:
    return "-".join(code[start : start + GROUP] for start in range(0, CHARS, GROUP))


def _normal(text: str) -> str:
    """Return a code as it is hashed, however it was typed."""
    return re.sub(r"[\s-]", "", text[:200]).upper().translate(MISREAD)


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()


def _checked(*, count: int, amount: int, kind: str, expires_at: datetime | None, text: str) -> str:
    """Return the note. Raises: InvalidParameter."""
    if not 1 <= count <= MAX_BATCH:
        raise InvalidParameter(f"'count' must be between 1 and {MAX_BATCH}.", param="count")
    if not 1 <= amount <= MAX_CREDITS:
        raise InvalidParameter(f"'amount' must be between 1 and {MAX_CREDITS} credits.", param="amount")
    if kind not in ("topup", "grant"):
        raise InvalidParameter("'kind' must be one of: topup, grant.", param="kind")
    if expires_at is not None and expires_at <= utcnow():
        raise InvalidParameter("'expires_at' must lie ahead.", param="expires_at")
    text = text.strip()
    if len(text) > MAX_NOTE_CHARS or not text.isprintable():
        raise InvalidParameter(f"'note' must be at most {MAX_NOTE_CHARS} printable characters.", param="note")
    return text


def find_code_id(text: str) -> int | None:
    found = _CODE.fullmatch(text)
    return int(found[1]) if found else None


def _number(reference: str | int) -> int:
    """Raises: RedeemCodeNotFound."""
    number = reference if isinstance(reference, int) else find_code_id(reference)
    if number is None:
        raise RedeemCodeNotFound(str(reference))
    return number


def _batch_of(text: str) -> UUID:
    """Raises: InvalidParameter."""
    found = find_id(_BATCH, text)
    if found is None:
        raise InvalidParameter("'batch' must be the id of a batch, such as batch_01m8...", param="batch")
    return found


def _code(row: Any) -> RedeemCode:
    return RedeemCode(
        id=row["id"],
        batch=public_id(_BATCH, UUID(str(row["batch"]))),
        last4=row["last4"],
        kind=row["kind"],
        amount=row["amount"],
        note=row["note"],
        state=row["state"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        redeemed_at=row["redeemed_at"],
        account_id=row["account_id"],
        email=row["email"],
    )


_CREATE = """
INSERT INTO redeem_codes (batch, code_hash, last4, kind, amount, note, created_by, expires_at)
SELECT $1, h, l, $4, $5, $6, $7, $8 FROM unnest($2::bytea[], $3::text[]) AS n (h, l)"""
_STATE = """CASE WHEN c.redeemed_at IS NOT NULL THEN 'redeemed' WHEN c.revoked_at IS NOT NULL THEN 'revoked'
 WHEN c.expires_at <= now() THEN 'expired' ELSE 'open' END"""
_COLUMNS = f"""
SELECT c.*, {_STATE} AS state, a.email FROM redeem_codes c LEFT JOIN accounts a ON a.id = c.account_id"""  # noqa: S608
_GET = f"{_COLUMNS} WHERE c.id = $1"
# In words, not as arguments: so the planner sees which index is of them alone.
_STATES: Mapping[CodeState, str] = {
    "open": "c.redeemed_at IS NULL AND c.revoked_at IS NULL AND (c.expires_at IS NULL OR c.expires_at > now())",
    "redeemed": "c.redeemed_at IS NOT NULL",
    "revoked": "c.redeemed_at IS NULL AND c.revoked_at IS NOT NULL",
    "expired": "c.redeemed_at IS NULL AND c.revoked_at IS NULL AND c.expires_at <= now()",
}
# Each by an index of its own; all at once, by none.
_NAMED = """(SELECT c.id FROM redeem_codes c WHERE lower(c.note) LIKE {pattern} AND {some})
UNION (SELECT c.id FROM redeem_codes c WHERE lower(c.last4) = lower({word}::text) AND {some})
UNION (SELECT c.id FROM accounts a JOIN redeem_codes c ON c.account_id = a.id
        WHERE lower(a.email) LIKE {pattern} AND {some})
UNION (SELECT c.id FROM redeem_codes c WHERE c.id = {id}::bigint AND {some})"""
_REVOKE = """
UPDATE redeem_codes SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL AND redeemed_at IS NULL RETURNING id"""
_REVOKE_BATCH = """
UPDATE redeem_codes SET revoked_at = now() WHERE batch = $1 AND revoked_at IS NULL AND redeemed_at IS NULL
RETURNING id"""
