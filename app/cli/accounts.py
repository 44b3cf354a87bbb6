"""``mediagate accounts``: who may use this gateway, and how much at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from app.cli.books import by_whom
from app.cli.output import emit, json_option, table
from app.cli.session import actor, with_database
from app.values import MAX_CREDITS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.accounts.users import Account
    from app.settings import Settings


@click.group()
def accounts() -> None:
    """Create, list, suspend and limit accounts. EMAIL may also be an account's id, as in acct_12."""


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
        from app.credits.ledger import Ledger
        from app.values import Credits

        accounts = Accounts(engine)
        account = await accounts.create(email, name=name, is_admin=admin, actor=by_whom())
        if amount:
            ref = f"start:{account.public_id}"
            await Ledger(engine).top_up(account.id, Credits(amount), ref=ref, actor=actor())
        return await accounts.get(account.id)

    account = with_database(work)
    emit(
        {"id": account.public_id, "email": account.email, "credits": account.credits},
        as_json=as_json,
        text=f"{account.public_id}: {account.email} has {account.credits} credits. "
        f"A key: mediagate keys create {account.email}",
    )


@accounts.command("list")
@json_option
def list_accounts(as_json: bool) -> None:
    """List all accounts."""

    async def work(_: Settings, engine: AsyncEngine) -> list[dict[str, Any]]:
        from app.accounts.users import Accounts

        return [_shown(account) for account in await Accounts(engine).list()]

    rows = with_database(work)
    emit(rows, as_json=as_json, text=table(rows, empty="No accounts yet. Make one: mediagate accounts create EMAIL"))


@accounts.command()
@click.argument("email")
@json_option
def suspend(email: str, as_json: bool) -> None:
    """Refuse every new task of an account; its running tasks end, and it may still read."""
    _say(_changed(email, "suspend"), as_json)


@accounts.command()
@click.argument("email")
@json_option
def resume(email: str, as_json: bool) -> None:
    """Undo a suspension."""
    _say(_changed(email, "resume"), as_json)


@accounts.command()
@click.argument("email")
@click.option("--max-in-flight", type=int, required=True, help="Unfinished tasks at once.")
@json_option
def limits(email: str, max_in_flight: int, as_json: bool) -> None:
    """Set how many tasks may run at once."""
    _say(_changed(email, "set_limits", max_in_flight=max_in_flight), as_json)


def _changed(email: str, method: str, **values: int) -> dict[str, Any]:
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
