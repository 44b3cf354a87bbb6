"""``mediagate accounts``: who may use this gateway, and how much at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from app.cli.books import by_whom
from app.cli.output import emit, json_option, table
from app.cli.session import with_database
from app.values import MAX_CREDITS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.accounts.users import Account
    from app.settings import Settings


REASON_HELP = "Kept in the audit."


@click.group()
def accounts() -> None:
    """Create, invite, find, change, suspend and close accounts. EMAIL may also be an account's id, as in acct_12."""


@accounts.command()
@click.argument("email")
@click.option("--credits", "amount", type=click.IntRange(0, MAX_CREDITS), default=0, help="Credits to start with.")
@click.option("--admin", is_flag=True, help="Let keys of this account have the scope admin:*.")
@click.option("--name", help="Shown instead of the e-mail's first part.")
@json_option
def create(email: str, amount: int, admin: bool, name: str | None, as_json: bool) -> None:
    """Create an account."""

    async def work(_: Settings, engine: AsyncEngine) -> Account:
        from app.accounts.users import Accounts
        from app.credits.lines import opening

        start = opening("topup", amount) if amount else None
        return await Accounts(engine).create(email, name=name, is_admin=admin, opening=start, actor=by_whom())

    account = with_database(work)
    emit(
        {"id": account.public_id, "email": account.email, "credits": account.credits},
        as_json=as_json,
        text=f"{account.public_id}: {account.email} has {account.credits} credits. "
        f"A key: mediagate keys create {account.email}",
    )


@accounts.command()
@click.argument("email")
@json_option
def invite(email: str, as_json: bool) -> None:
    """Print a link for the first password of an account: it works once, within 7 days."""
    from app.cli.admin import make_link, say

    async def work(settings: Settings, engine: AsyncEngine) -> dict[str, Any]:
        return await make_link(settings, engine, email, "invite")

    say(with_database(work), as_json)


@accounts.command("list")
@click.option("--search", "q", help="Part of the e-mail or the name.")
@json_option
def list_accounts(q: str | None, as_json: bool) -> None:
    """List all accounts, oldest first; or the newest 1000 of those that are searched for."""

    async def work(_: Settings, engine: AsyncEngine) -> list[dict[str, Any]]:
        from app.accounts.users import Accounts, AccountSearch

        accounts = Accounts(engine)
        found = await accounts.list() if q is None else (await accounts.search(AccountSearch(q=q, limit=1000)))[0]
        return [_shown(account) for account in found]

    rows = with_database(work)
    emit(rows, as_json=as_json, text=table(rows, empty="No accounts yet. Make one: mediagate accounts create EMAIL"))


@accounts.command()
@click.argument("email")
@click.option("--name", help="As it is without this option.")
@click.option("--admin/--no-admin", default=None, help="Whether its keys may have the scope admin:*.")
@json_option
def update(email: str, name: str | None, admin: bool | None, as_json: bool) -> None:
    """Change an account's name, or make it an administrator's."""
    _say(_changed(email, "update", name=name, is_admin=admin), as_json)


@accounts.command()
@click.argument("email")
@click.option("--reason", help=REASON_HELP)
@json_option
def suspend(email: str, reason: str | None, as_json: bool) -> None:
    """Refuse every new task of an account; its running tasks end, and it may still read."""
    _say(_changed(email, "suspend", reason=reason), as_json)


@accounts.command()
@click.argument("email")
@click.option("--reason", help=REASON_HELP)
@json_option
def resume(email: str, reason: str | None, as_json: bool) -> None:
    """Undo a suspension."""
    _say(_changed(email, "resume", reason=reason), as_json)


@accounts.command()
@click.argument("email")
@click.option("--reason", required=True, help=REASON_HELP)
@json_option
def close(email: str, reason: str, as_json: bool) -> None:
    """Close an account for good: its keys and sessions end. Its credits and its ledger stay in the books."""
    _say(_changed(email, "close", reason=reason), as_json)


@accounts.command()
@click.argument("email")
@click.option("--max-in-flight", type=int, required=True, help="Unfinished tasks at once.")
@json_option
def limits(email: str, max_in_flight: int, as_json: bool) -> None:
    """Set how many tasks may run at once."""
    _say(_changed(email, "set_limits", max_in_flight=max_in_flight), as_json)


def _changed(email: str, method: str, **values: Any) -> dict[str, Any]:
    async def work(_: Settings, engine: AsyncEngine) -> dict[str, Any]:
        from app.accounts.users import Accounts

        return _shown(await getattr(Accounts(engine), method)(email, **values, actor=by_whom()))

    return with_database(work)


def _say(account: dict[str, Any], as_json: bool) -> None:
    emit(account, as_json=as_json, text=table([account], empty=""))


def _shown(account: Account) -> dict[str, Any]:
    return {
        "id": account.public_id,
        "email": account.email,
        "name": account.name,
        "state": account.state,
        "admin": account.is_admin,
        "credits": account.credits,
        "held": account.held,
        "in_flight": account.in_flight,
        "max_in_flight": account.max_in_flight,
        "created_at": account.created_at,
    }
