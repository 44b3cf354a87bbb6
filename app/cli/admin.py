"""``mediagate admin``: administrators of the console, and their way in. Links are shown once, when they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from app.cli.books import by_whom
from app.cli.output import emit, json_option
from app.cli.session import with_database

if TYPE_CHECKING:
    from pydantic import SecretStr
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.accounts.invitations import Purpose
    from app.settings import Settings


@click.group()
def admin() -> None:
    """Create administrators, and make links that set a password. EMAIL may also be an account's id, as in acct_12."""


@admin.command()
@click.argument("email")
@click.option("--name", help="Shown instead of the e-mail's first part.")
@json_option
def create(email: str, name: str | None, as_json: bool) -> None:
    """Create an administrator, and print the link for their first password: it works once, within an hour."""

    async def work(settings: Settings, engine: AsyncEngine) -> dict[str, Any]:
        from app.accounts.users import Accounts

        link_secret(settings)  # before anything is made
        account = await Accounts(engine).create(email, name=name, is_admin=True, actor=by_whom())
        return await make_link(settings, engine, account.id, "first_admin")

    say(with_database(work), as_json)


@admin.command()
@click.argument("email")
@click.option("--reason", default="asked for on the command line", show_default=True, help="Why, for the audit.")
@json_option
def link(email: str, reason: str, as_json: bool) -> None:
    """Print a link that sets another password for any account: it works once, within an hour."""

    async def work(settings: Settings, engine: AsyncEngine) -> dict[str, Any]:
        return await make_link(settings, engine, email, "reset", reason=reason)

    say(with_database(work), as_json)


async def make_link(
    settings: Settings, engine: AsyncEngine, reference: str | int, purpose: Purpose, *, reason: str | None = None
) -> dict[str, Any]:
    from app.accounts.invitations import Invitations, join_url
    from app.accounts.passwords import Passwords

    invitations = Invitations(engine, Passwords(), secret=link_secret(settings))
    token = await invitations.invite(reference, purpose=purpose, reason=reason, actor=by_whom())
    made = await invitations.find(token)
    url = join_url(settings.base_url, token)
    return {"id": f"acct_{made.account_id}", "email": made.email, "url": url, "expires_at": made.expires_at}


def link_secret(settings: Settings) -> SecretStr:
    """Return what links are signed with. Raises: SettingsError."""
    from app.settings import SettingsError

    if settings.link_secret is None:
        raise SettingsError(
            "MEDIAGATE_LINK_SECRET is not set: the gateway would refuse the link. Set it as for the API, or name its "
            "data folder in MEDIAGATE_DATA."
        )
    return settings.link_secret


def say(made: dict[str, Any], as_json: bool) -> None:
    until = made["expires_at"].strftime("%Y-%m-%d %H:%M UTC")
    text = f"{made['id']}: {made['email']} sets a password here, once, until {until}:\n{made['url']}"
    emit(made, as_json=as_json, text=text)
