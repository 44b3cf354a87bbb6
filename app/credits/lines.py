"""A line of the ledger that somebody writes by hand: topped up, given, or corrected, each with its audit row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from app.credits.refusals import money_errors
from app.errors import IdempotencyKeyReused, InvalidParameter, MediagateError
from app.journal import Actor, checked_reason, note
from app.values import MAX_CREDITS, Credits, utcnow

MAX_REFERENCE_CHARS = 200
KEYED = "idempotency-key:"
REST = ":rest"
"""Ends the reference of a request with a key that asked for all that is left, whatever amount that was."""
RESERVED = ("redeem:", "start:", "by-hand:", KEYED, "task_", "video_", "img_")
"""How references of our own begin: codes, first credits, lines by hand, requests with a key, refunds of a task."""
CONTRA = {"topup": "topup", "grant": "promo", "adjust": "adjust"}

Kind = Literal["topup", "grant", "adjust"]
Opening = Callable[[AsyncConnection, int, Actor], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Balance:
    credits: Credits
    """Spendable now."""
    held: Credits


@dataclass(frozen=True, slots=True)
class Posting:
    """A line that somebody wrote by hand."""

    entry_id: int
    """The ledger's row."""
    seq: int
    kind: Kind
    amount: Credits
    balance: Credits
    """The account's posted credits after this line."""
    reference: str
    is_new: bool
    """False: this reference had added the same before, and nothing moved now."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a posting would do, before anybody does it."""

    amount: Credits
    before: Balance
    after: Balance
    problem: MediagateError | None
    """Why it would be refused."""


async def write_line(
    connection: AsyncConnection,
    account_id: int,
    kind: Kind,
    amount: int,
    *,
    ref: str,
    by: Actor,
    text: str | None = None,
    expires_at: datetime | None = None,
) -> Any:
    """Write the line and the audit's row in one transaction; a repeated reference writes neither again.

    Returns the line's row: ``id``, ``seq``, ``amount``, ``balance``, ``is_new``.
    """
    made = await connection.exec_driver_sql(
        "SELECT mg_post($1, $2, $3, $4, $5, $6, p_expires => $8, p_note => $7) AS id",
        (account_id, kind, CONTRA[kind], whole(amount), ref, by.name, text, expires_at),
    )
    line = await connection.exec_driver_sql(
        "SELECT id, seq, amount, balance, created_at = now() AS is_new FROM ledger WHERE id = $1",
        (made.scalar_one(),),
    )
    row = line.mappings().one()
    if row["is_new"]:
        before = {"balance": row["balance"] - row["amount"]}
        after = {"balance": row["balance"], "amount": row["amount"], "reference": ref, "note": text}
        if expires_at is not None:
            after["expires_at"] = expires_at
        await note(connection, by, f"credits.{kind}", f"account:{account_id}", before=before, after=after)
    return row


async def grant_first(connection: AsyncConnection, account_id: int, amount: int, actor: Actor) -> None:
    """Give a new account its first credits, in the transaction that makes it."""
    await write_line(connection, account_id, "grant", amount, ref=f"start:acct_{account_id}", by=actor)


def opening(kind: Kind, amount: int, *, reference: str | None = None) -> Opening:
    """Return what gives a new account these first credits, in the transaction that makes it.

    It raises: ReferenceConflict, BalanceTooHigh.
    """

    async def write(connection: AsyncConnection, account_id: int, actor: Actor) -> None:
        ref = reference or f"start:acct_{account_id}"
        with money_errors(needed=Credits(amount)):
            await write_line(connection, account_id, kind, amount, ref=ref, by=actor)

    return write


async def check_open(connection: AsyncConnection, account_id: int) -> None:
    """Refuse new credits to an account that was closed; its line was just written, so nobody else changes it now.

    Raises: InvalidParameter.
    """
    state = await connection.exec_driver_sql("SELECT state FROM accounts WHERE id = $1", (account_id,))
    if state.scalar_one() == "closed":
        raise InvalidParameter("The account is closed: it takes no new credits, only corrections and refunds.")


async def check_repeat(connection: AsyncConnection, repeat: str, **wanted: Any) -> bool:
    """Return whether the line that a caller's key stands for is there; ``wanted``: what the line is to be.

    Two requests with one key take turns. Raises: IdempotencyKeyReused, where the key stands for another line.
    """
    await connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", (repeat,))
    found = (await connection.exec_driver_sql(_KEYED_LINE, (repeat, repeat + REST))).mappings().first()
    if found is not None and any(found[name] != value for name, value in wanted.items()):
        raise IdempotencyKeyReused
    return found is not None


def checked_reference(text: str) -> str:
    """Return a person's reference; our own ones would keep us from adding what they stand for.

    Raises: InvalidParameter.
    """
    text = text.strip()
    if not 1 <= len(text) <= MAX_REFERENCE_CHARS or not text.isprintable():
        raise InvalidParameter(
            f"'reference' must be 1 to {MAX_REFERENCE_CHARS} printable characters.", param="reference"
        )
    if text.lower().startswith(RESERVED):
        raise InvalidParameter(
            "'reference' begins like one of the gateway's own. Choose another beginning.", param="reference"
        )
    return text


def checked_posting(kind: str, amount: int, reason: str | None, expires_at: datetime | None) -> str | None:
    """Return the reason, as the ledger keeps it. Raises: InvalidParameter."""
    if kind not in CONTRA:
        raise InvalidParameter("'kind' must be one of: topup, grant, adjust.", param="kind")
    check_amount(amount)
    if amount < 0 and kind != "adjust":
        raise InvalidParameter(f"'amount' must be 1 or more for '{kind}'; only 'adjust' lowers.", param="amount")
    if kind == "adjust" and reason is None:
        raise InvalidParameter("'reason' must say why the balance is corrected.", param="reason")
    if expires_at is not None and amount < 0:
        raise InvalidParameter("'expires_at' must lie ahead, and is for credits that are added.", param="expires_at")
    return None if reason is None else checked_reason(reason)


def check_ahead(expires_at: datetime | None) -> None:
    """Raises: InvalidParameter."""
    if expires_at is not None and expires_at <= utcnow():
        raise InvalidParameter("'expires_at' must lie ahead, and is for credits that are added.", param="expires_at")


def check_amount(amount: int) -> None:
    """Raises: InvalidParameter."""
    if type(amount) is not int or amount == 0 or abs(amount) > MAX_CREDITS:
        raise InvalidParameter(f"'amount' must be a whole number up to {MAX_CREDITS}, and not 0.", param="amount")


_KEYED_LINE = """
SELECT l.kind, l.account_id, l.task_id, l.amount, l.note, l.external_ref, c.expires_at
  FROM ledger l LEFT JOIN credit_lots c ON c.ledger_id = l.id
 WHERE l.kind IN ('topup', 'grant', 'adjust', 'refund') AND l.external_ref IN ($1, $2)"""


def whole(amount: int) -> int:
    """Refuse what would be truncated or overflow silently on its way to the database."""
    if type(amount) is not int or abs(amount) > MAX_CREDITS:
        raise TypeError(f"credits are whole numbers up to {MAX_CREDITS}, not {amount!r}")
    return amount
