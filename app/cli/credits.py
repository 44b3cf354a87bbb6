"""``mediagate credits`` and ``mediagate audit``: the operator's side of the ledger."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from app.cli.books import by_whom
from app.cli.output import emit, json_option
from app.cli.session import NEGATIVE, with_database
from app.values import MAX_CREDITS, utcnow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.credits.audit import Finding
    from app.credits.lines import Balance, Kind
    from app.settings import Settings

SHOWN_VIOLATIONS = 20
NEGATIVE_AMOUNTS = {"ignore_unknown_options": True}  # else -5 would be read as an option


@click.group()
def credits() -> None:
    """Top up, grant, adjust and show credits. EMAIL may also be an account's id, as in acct_12."""


@credits.command("top-up", context_settings=NEGATIVE_AMOUNTS)
@click.argument("email")
@click.argument("amount", type=click.IntRange(1, MAX_CREDITS))
@click.option("--ref", help="Your reference, such as an invoice number: the same one adds credits once.")
@json_option
def top_up(email: str, amount: int, ref: str | None, as_json: bool) -> None:
    """Add bought credits."""
    _post(email, "topup", amount, ref=ref, as_json=as_json)


@credits.command(context_settings=NEGATIVE_AMOUNTS)
@click.argument("email")
@click.argument("amount", type=click.IntRange(1, MAX_CREDITS))
@click.option("--ref", help="Your reference: the same one adds credits once.")
@click.option("--reason", help="Kept in the ledger, where the customer reads it.")
@click.option("--expires-in-days", type=click.IntRange(min=1, max=36_500), help="Never without this option.")
@json_option
def grant(
    email: str, amount: int, ref: str | None, reason: str | None, expires_in_days: int | None, as_json: bool
) -> None:
    """Give credits away; what is left of them at their expiry is taken back."""
    expires_at = None if expires_in_days is None else utcnow() + timedelta(days=expires_in_days)
    _post(email, "grant", amount, ref=ref, reason=reason, expires_at=expires_at, as_json=as_json)


@credits.command(context_settings=NEGATIVE_AMOUNTS)
@click.argument("email")
@click.argument("amount", type=click.IntRange(-MAX_CREDITS, MAX_CREDITS))
@click.option("--reason", required=True, help="Kept in the ledger, where the customer reads it.")
@json_option
def adjust(email: str, amount: int, reason: str, as_json: bool) -> None:
    """Correct a balance by AMOUNT, up or down (-5); never below what running tasks hold."""
    if amount == 0:
        raise click.BadParameter("must not be 0", param_hint="AMOUNT")
    if not reason.strip():
        raise click.BadParameter("must not be empty", param_hint="--reason")
    _post(email, "adjust", amount, reason=reason, as_json=as_json)


def _post(
    email: str,
    kind: Kind,
    amount: int,
    *,
    as_json: bool,
    ref: str | None = None,
    reason: str | None = None,
    expires_at: datetime | None = None,
) -> None:
    async def work(_: Settings, engine: AsyncEngine) -> Balance:
        from app.accounts.users import Accounts
        from app.credits.ledger import Ledger

        account = await Accounts(engine).get(email)
        ledger = Ledger(engine)
        await ledger.post(
            account.id, kind, amount, reference=ref, reason=reason, expires_at=expires_at, actor=by_whom()
        )
        return await ledger.balance(account.id)

    _say(with_database(work), as_json)


@credits.command()
@click.argument("email")
@json_option
def show(email: str, as_json: bool) -> None:
    """Show what an account can spend, and what its running tasks hold."""

    async def work(_: Settings, engine: AsyncEngine) -> Balance:
        from app.accounts.users import Accounts
        from app.credits.ledger import Ledger

        account = await Accounts(engine).get(email)
        return await Ledger(engine).balance(account.id)

    _say(with_database(work), as_json)


@click.command()
@click.option("--no-storage", is_flag=True, help="Skip I10, which reads the names of all stored files.")
@json_option
def audit(no_storage: bool, as_json: bool) -> None:
    """Check the books: one line for each invariant, exit code 1 on any violation. Changes nothing."""

    async def work(settings: Settings, engine: AsyncEngine) -> list[Finding]:
        from app.credits.audit import Audit
        from app.storage.local import LocalStore

        return await Audit(engine).run(None if no_storage else LocalStore(settings.storage_dir).walk())

    findings = with_database(work)
    emit([_shown(finding) for finding in findings], as_json=as_json, text="\n".join(map(_line, findings)))
    if not all(finding.is_clean for finding in findings):
        sys.exit(NEGATIVE)


def _say(balance: Balance, as_json: bool) -> None:
    emit(
        {"credits": balance.credits, "held": balance.held},
        as_json=as_json,
        text=f"{balance.credits} credits, {balance.held} held",
    )


def _shown(finding: Finding) -> dict[str, Any]:
    return {
        "invariant": finding.invariant,
        "title": finding.title,
        "ok": finding.is_clean,
        "checked": finding.checked,
        "violations": finding.violations,
    }


def _line(finding: Finding) -> str:
    head = f"{finding.invariant:<4}{finding.title}: "
    if finding.is_clean:
        return head + f"ok ({finding.checked} checked)"
    shown = [f"      {violation}" for violation in finding.violations[:SHOWN_VIOLATIONS]]
    if len(finding.violations) > SHOWN_VIOLATIONS:
        shown.append(f"      and {len(finding.violations) - SHOWN_VIOLATIONS} more (--json shows all)")
    return "\n".join([head + f"{len(finding.violations)} VIOLATIONS", *shown])
