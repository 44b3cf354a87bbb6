"""``mediagate keys``: secrets are shown once, when they are made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
from pydantic import SecretStr

from app.cli.books import by_whom
from app.cli.output import emit, json_option, table
from app.cli.session import with_database
from app.values import MAX_CREDITS, utcnow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.accounts.key_info import KeyInfo
    from app.accounts.keys import Keys, MintedKey
    from app.settings import Settings

PERIODS = click.Choice(["total", "day", "month"])
RPM_HELP = "Requests a minute; MEDIAGATE_KEY_RPM without this option."
NO_PEPPER = "this command hashes no key"


@click.group()
def keys() -> None:
    """Create, list, limit, rotate and revoke API keys. KEY is its id, as in key_12."""


def _parts(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


@keys.command()
@click.argument("email")
@click.option("--name", default="", help="What it is for.")
@click.option(
    "--budget", type=click.IntRange(0, MAX_CREDITS), help="Credits it may spend; no limit without this option."
)
@click.option("--period", type=PERIODS, default="total", show_default=True, help="When the budget starts anew.")
@click.option(
    "--models", multiple=True, callback=_parts, help="Models it may use, with commas; all without this option."
)
@click.option("--scopes", multiple=True, callback=_parts, help="What it may do, with commas; all but admin:* without.")
@click.option("--cidrs", multiple=True, callback=_parts, help="Networks it may be used from, with commas.")
@click.option("--rpm", type=click.IntRange(min=1, max=1_000_000), help=RPM_HELP)
@click.option("--expires-in-days", type=click.IntRange(min=1, max=36_500), help="Never without this option.")
@json_option
def create(
    email: str,
    name: str,
    budget: int | None,
    period: str,
    models: list[str],
    scopes: list[str],
    cidrs: list[str],
    rpm: int | None,
    expires_in_days: int | None,
    as_json: bool,
) -> None:
    """Create a key for an account, and print its secret: it is never shown again."""

    async def work(settings: Settings, engine: AsyncEngine) -> MintedKey:
        from app.accounts.users import Accounts

        await _check_models(settings, engine, models)
        account = await Accounts(engine).get(email)
        async with _open_keys(settings, engine) as keys:
            return await keys.mint(
                account.id,
                name=name,
                scopes=scopes,
                models=models or None,
                cidrs=cidrs,
                budget=budget,
                period=period,  # type: ignore[arg-type]  # click has checked the words
                rpm=rpm,
                expires_at=None if expires_in_days is None else utcnow() + timedelta(days=expires_in_days),
                actor=by_whom(),
            )

    _say_minted(with_database(work, mint_secrets=True), as_json)


@keys.command("list")
@click.argument("email", required=False)
@json_option
def list_keys(email: str | None, as_json: bool) -> None:
    """List the keys of an account, or of all."""

    async def work(settings: Settings, engine: AsyncEngine) -> list[dict[str, Any]]:
        from app.accounts.users import Accounts

        account_id = None if email is None else (await Accounts(engine).get(email)).id
        async with _open_keys(settings, engine) as keys:
            return [_shown(key) for key in await keys.list(account_id)]

    rows = with_database(work)
    brief = [
        {name: row[name] for name in ("id", "email", "name", "last4", "budget", "spent", "expires_at", "revoked_at")}
        for row in rows
    ]
    emit(rows, as_json=as_json, text=table(brief, empty="No keys yet. Make one: mediagate keys create EMAIL"))


@keys.command()
@click.argument("key")
@click.option("--reason", help="Kept in the audit.")
@json_option
def revoke(key: str, reason: str | None, as_json: bool) -> None:
    """Stop a key for good. It spends nothing from now on."""

    async def work(settings: Settings, engine: AsyncEngine) -> KeyInfo:
        from app.accounts.key_info import parse_key_id

        async with _open_keys(settings, engine) as keys:
            return await keys.revoke(parse_key_id(key), reason=reason, actor=by_whom())

    revoked = with_database(work)
    emit(_shown(revoked), as_json=as_json, text=f"{revoked.public_id} of {revoked.email} is revoked.")


@keys.command()
@click.argument("key")
@click.option(
    "--overlap-hours",
    type=click.IntRange(min=0, max=720),
    default=24,
    show_default=True,
    help="The old key's last hours.",
)
@json_option
def rotate(key: str, overlap_hours: int, as_json: bool) -> None:
    """Make a successor with the same rights, and print its secret; the old key ends after the overlap."""

    async def work(settings: Settings, engine: AsyncEngine) -> MintedKey:
        from app.accounts.key_info import parse_key_id

        async with _open_keys(settings, engine) as keys:
            return await keys.rotate(parse_key_id(key), timedelta(hours=overlap_hours), actor=by_whom())

    _say_minted(with_database(work, mint_secrets=True), as_json)


@keys.command()
@click.argument("key")
@click.option(
    "--budget", type=click.IntRange(0, MAX_CREDITS), help="Credits it may spend; no limit without this option."
)
@click.option("--period", type=PERIODS, default="total", show_default=True, help="When the budget starts anew.")
@click.option("--max-in-flight", type=click.IntRange(min=0), help="Unfinished tasks at once; the account's without.")
@click.option("--rpm", type=click.IntRange(min=1, max=1_000_000), help=RPM_HELP)
@json_option
def limits(
    key: str, budget: int | None, period: str, max_in_flight: int | None, rpm: int | None, as_json: bool
) -> None:
    """Set the limits of a key anew, all of them."""

    async def work(settings: Settings, engine: AsyncEngine) -> KeyInfo:
        from app.accounts.key_info import parse_key_id

        async with _open_keys(settings, engine) as keys:
            return await keys.set_limits(
                parse_key_id(key),
                budget=budget,
                period=period,  # type: ignore[arg-type]  # click has checked the words
                max_in_flight=max_in_flight,
                rpm=rpm,
                actor=by_whom(),
            )

    shown = _shown(with_database(work))
    brief = {name: shown[name] for name in ("id", "email", "budget", "period", "spent", "held", "max_in_flight", "rpm")}
    emit(shown, as_json=as_json, text=table([brief], empty=""))


@asynccontextmanager
async def _open_keys(settings: Settings, engine: AsyncEngine) -> AsyncIterator[Keys]:
    """Open the keys, and a way to tell the running processes what changes. Without Redis they learn it in seconds."""
    from app.accounts.keys import Keys
    from app.log import configure
    from app.queue import make_redis

    pepper = settings.key_pepper or SecretStr(NO_PEPPER)
    if settings.redis_url is None:
        yield Keys(engine, pepper)
        return
    configure(form="console", level="warning")  # to standard error: the answer stays clean
    redis = make_redis(settings.redis_url.get_secret_value())
    try:
        yield Keys(engine, pepper, redis=redis)
    finally:
        await redis.aclose(close_connection_pool=True)


async def _check_models(settings: Settings, engine: AsyncEngine, models: list[str]) -> None:
    """Refuse names the catalogue does not have: a key for a model that does not exist is a typing error."""
    if models:
        from app.cli.models import check_known

        await check_known(settings, engine, models)


def _say_minted(minted: MintedKey, as_json: bool) -> None:
    emit(
        {"id": minted.public_id, "key": minted.secret},
        as_json=as_json,
        text=f"{minted.public_id}: {minted.secret}\nKeep it now: it is not shown again.",
    )


def _shown(key: KeyInfo) -> dict[str, Any]:
    return {
        "id": key.public_id,
        "email": key.email,
        "name": key.name,
        "last4": key.last4,
        "scopes": list(key.scopes),
        "models": None if key.models is None else list(key.models),
        "cidrs": list(key.cidrs),
        "budget": key.budget,
        "period": key.period,
        "spent": key.spent,
        "held": key.held,
        "in_flight": key.in_flight,
        "max_in_flight": key.max_in_flight,
        "rpm": key.rpm,
        "pepper": key.pepper,
        "replaces": None if key.replaces is None else f"key_{key.replaces}",
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }
