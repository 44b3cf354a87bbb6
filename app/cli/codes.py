"""``mediagate codes``: redeem codes, shown once, when they are made."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from app.cli.books import by_whom
from app.cli.output import emit, json_option, table
from app.cli.session import with_database
from app.values import MAX_CREDITS, utcnow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.credits.redeem import Batch, RedeemCode
    from app.settings import Settings

REASON_HELP = "Kept in the audit."


@click.group()
def codes() -> None:
    """Create, list and revoke redeem codes. CODE is an id, as in code_12, and never the code itself."""


@codes.command()
@click.argument("amount", type=click.IntRange(1, MAX_CREDITS))
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many.")
@click.option("--sold", is_flag=True, help="The books call their credits bought; given away without this option.")
@click.option("--expires-in-days", type=click.IntRange(min=1, max=36_500), help="Never without this option.")
@click.option("--note", default="", help="Whoever redeems one reads it in the ledger.")
@json_option
def create(amount: int, count: int, sold: bool, expires_in_days: int | None, note: str, as_json: bool) -> None:
    """Make codes that are worth AMOUNT credits each, and print them: they are never shown again."""

    async def work(_: Settings, engine: AsyncEngine) -> Batch:
        from app.credits.redeem import Codes

        return await Codes(engine).create(
            count=count,
            amount=amount,
            kind="topup" if sold else "grant",
            expires_at=None if expires_in_days is None else utcnow() + timedelta(days=expires_in_days),
            note=note,
            actor=by_whom(),
        )

    batch = with_database(work)
    emit(
        {"id": batch.id, "amount": batch.amount, "codes": list(batch.codes)},
        as_json=as_json,
        text="\n".join(batch.codes),
    )


@codes.command("list")
@click.option("--batch", help="Those that were made together, as in batch_01m8...")
@click.option("--state", type=click.Choice(["open", "redeemed", "revoked", "expired"]), help="Any without this option.")
@click.option("--search", "q", help="Part of the note or of the redeemer's e-mail, or the last four letters.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@json_option
def list_codes(batch: str | None, state: str | None, q: str | None, limit: int, as_json: bool) -> None:
    """List codes, newest first; nobody can read the code itself again."""

    async def work(_: Settings, engine: AsyncEngine) -> list[dict[str, Any]]:
        from app.credits.redeem import Codes, CodeSearch

        wanted = CodeSearch(q=q, batch=batch, state=state, limit=limit)  # type: ignore[arg-type]  # checked by click
        found, _more = await Codes(engine).search(wanted)
        return [_shown(code) for code in found]

    rows = with_database(work)
    brief = [
        {name: row[name] for name in ("id", "batch", "last4", "state", "amount", "note", "expires_at", "email")}
        for row in rows
    ]
    emit(rows, as_json=as_json, text=table(brief, empty="No codes. Make some: mediagate codes create AMOUNT"))


@codes.command()
@click.argument("code")
@click.option("--reason", required=True, help=REASON_HELP)
@json_option
def revoke(code: str, reason: str, as_json: bool) -> None:
    """Let nobody redeem CODE any more; or all that are left of a batch, as in batch_01m8..."""

    async def work(_: Settings, engine: AsyncEngine) -> dict[str, Any]:
        from app.credits.redeem import Codes

        codes = Codes(engine)
        if code.startswith("batch_"):
            return {"id": code, "revoked": await codes.revoke_batch(code, reason=reason, actor=by_whom())}
        return _shown(await codes.revoke(code, reason=reason, actor=by_whom()))

    done = with_database(work)
    text = f"{done['revoked']} codes revoked." if "revoked" in done else f"{done['id']} is revoked."
    emit(done, as_json=as_json, text=text)


def _shown(code: RedeemCode) -> dict[str, Any]:
    return {
        "id": code.public_id,
        "batch": code.batch,
        "last4": code.last4,
        "state": code.state,
        "kind": code.kind,
        "amount": code.amount,
        "note": code.note,
        "created_by": code.created_by,
        "created_at": code.created_at,
        "expires_at": code.expires_at,
        "revoked_at": code.revoked_at,
        "redeemed_at": code.redeemed_at,
        "email": code.email,
    }
