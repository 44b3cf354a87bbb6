"""``mediagate upstreams``: accounts at vendors. Secrets go in through a variable or standard input; none comes out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from app.cli.books import by_whom, check_shown, options_option, upstream_shown, with_book
from app.cli.output import emit, json_option, readable, table
from app.cli.session import NEGATIVE, Refused, with_database

if TYPE_CHECKING:
    from pydantic import SecretStr
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.catalog.book import Book
    from app.catalog.inspection import Check
    from app.catalog.upstreams import UpstreamInfo
    from app.settings import Settings

MARKS = {"good": "ok", "bad": "FAIL", "unknown": "?"}
BRIEF = ("name", "provider", "state", "concurrency", "has_secret", "version", "open_tasks")

secret_env_option = click.option("--secret-env", metavar="VAR", help="Take the secret from this environment variable.")
secret_stdin_option = click.option("--secret-stdin", is_flag=True, help="Take the secret from standard input.")


@click.group()
def upstreams() -> None:
    """Add, change, drain, rotate and delete accounts at vendors. Running gateways notice within a second."""


@upstreams.command()
@click.argument("name")
@click.option("--provider", required=True, help="Who speaks with the vendor, as in config/upstreams.yaml.")
@click.option("--base-url", help="Only where it differs from the provider's own.")
@secret_env_option
@secret_stdin_option
@options_option
@click.option(
    "--concurrency", type=click.IntRange(min=1), default=4, show_default=True, help="Tasks of one model at once."
)
@json_option
def add(
    name: str,
    provider: str,
    base_url: str | None,
    secret_env: str | None,
    secret_stdin: bool,
    options: dict[str, Any],
    concurrency: int,
    as_json: bool,
) -> None:
    """Add an account. It serves nothing before it has a route: mediagate routes add."""
    secret = _secret(secret_env, secret_stdin)

    async def work(book: Book) -> UpstreamInfo:
        return await book.upstreams.add(
            name,
            provider=provider,
            base_url=base_url,
            secret=secret,
            options=options,
            concurrency=concurrency,
            actor=by_whom(),
        )

    _say(with_book(work), as_json)


@upstreams.command("list")
@json_option
def list_upstreams(as_json: bool) -> None:
    """List all accounts."""

    async def work(book: Book) -> list[dict[str, Any]]:
        return [upstream_shown(upstream) for upstream in await book.upstreams.list()]

    rows = with_book(work)
    brief = [{name: row[name] for name in BRIEF} for row in rows]
    emit(
        rows,
        as_json=as_json,
        text=table(brief, empty="No accounts yet: the first start of the API makes those of the file."),
    )


@upstreams.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one account: all but its secret."""
    _say(with_book(lambda book: book.upstreams.get(name)), as_json)


@upstreams.command("set")
@click.argument("name")
@click.option(
    "--base-url", help="For new tasks; an empty text: the provider's own. Another host needs the secret again."
)
@secret_env_option
@secret_stdin_option
@options_option
@click.option("--concurrency", type=click.IntRange(min=1), help="Tasks of one model at once.")
@json_option
def set_fields(
    name: str,
    base_url: str | None,
    secret_env: str | None,
    secret_stdin: bool,
    options: dict[str, Any],
    concurrency: int | None,
    as_json: bool,
) -> None:
    """Change an account. Options that are named are replaced (null removes one), others stay."""
    secret = _secret(secret_env, secret_stdin)

    async def work(book: Book) -> UpstreamInfo:
        from app.catalog.rows import KEEP

        merged = {**(await book.upstreams.get(name)).options, **options}
        return await book.upstreams.update(
            name,
            base_url=KEEP if base_url is None else base_url or None,
            options={key: value for key, value in merged.items() if value is not None} if options else KEEP,
            concurrency=KEEP if concurrency is None else concurrency,
            secret=KEEP if secret is None else secret,
            actor=by_whom(),
        )

    _say(with_book(work), as_json)


@upstreams.command()
@click.argument("name")
@json_option
def enable(name: str, as_json: bool) -> None:
    """Let an account take new tasks again."""
    _set_state(name, "active", as_json)


@upstreams.command()
@click.argument("name")
@json_option
def disable(name: str, as_json: bool) -> None:
    """Give an account no new task, for now; running ones go on."""
    _set_state(name, "disabled", as_json)


@upstreams.command()
@click.argument("name")
@json_option
def drain(name: str, as_json: bool) -> None:
    """Give an account no new task, on the way out: 'show' tells when its last one has ended."""
    _set_state(name, "draining", as_json)


@upstreams.command()
@click.argument("name")
@secret_env_option
@secret_stdin_option
@json_option
def rotate(name: str, secret_env: str | None, secret_stdin: bool, as_json: bool) -> None:
    """Store a new secret for new tasks. Running ones keep the old one, so let it live until they have ended."""
    secret = _secret(secret_env, secret_stdin)
    if secret is None:
        raise Refused("name the new secret: --secret-env VAR or --secret-stdin")
    _say(with_book(lambda book: book.upstreams.rotate(name, secret, actor=by_whom())), as_json)


@upstreams.command()
@click.argument("name")
@json_option
def delete(name: str, as_json: bool) -> None:
    """Delete an account and its routes. Running tasks end first; then its secrets are removed."""
    _say(with_book(lambda book: book.upstreams.delete(name, actor=by_whom())), as_json)


@upstreams.command()
@click.argument("name")
@json_option
def test(name: str, as_json: bool) -> None:
    """Check an account without any paid call: secret, routes, host, and what the vendor says to the secret.

    "?" means that nobody can tell. Exit code 1 when something is wrong.
    """
    checks = with_book(lambda book: _inspect(book, name))
    lines = [f"{MARKS[check.outcome]:<5}{check.name:<9}{check.found}{_took(check.took_ms)}" for check in checks]
    emit([check_shown(check) for check in checks], as_json=as_json, text="\n".join(lines))
    if not all(check.is_good for check in checks):
        sys.exit(NEGATIVE)


@upstreams.command()
@click.option(
    "--drop-unreadable", is_flag=True, help="The old key is lost: forget what it sealed, disable those accounts."
)
@json_option
def reencrypt(drop_unreadable: bool, as_json: bool) -> None:
    """Seal all secrets anew under the first key of MEDIAGATE_SECRETS_KEY; afterwards the others can go."""
    done = with_book(lambda book: book.reencrypt(actor=by_whom(), drop_unreadable=drop_unreadable))
    webhooks, lost = with_database(lambda settings, engine: _reseal_webhooks(settings, engine, drop_unreadable))
    text = f"{done.sealed} secrets of accounts and {webhooks} of webhooks lie under the first key now."
    if done.dropped:
        text += f" These accounts lost theirs and are disabled: {', '.join(done.dropped)}"
    if lost:
        text += f" {lost} signing secrets of webhooks are lost: their owners must rotate them."
    emit(
        {"sealed": done.sealed, "dropped": list(done.dropped), "webhooks": webhooks, "webhooks_lost": lost},
        as_json=as_json,
        text=text,
    )


async def _inspect(book: Book, name: str) -> Sequence[Check]:
    from app.catalog.inspection import Inspector
    from app.fetch.client import SafeFetcher
    from app.settings import load_settings
    from app.upstreams.http import UpstreamHttp
    from app.upstreams.registry import Registry, discover

    registry, fetcher = Registry(discover()), SafeFetcher(load_settings(mint_secrets=False))
    http = UpstreamHttp(fetcher)
    try:
        return await Inspector(book, registry, http).inspect(name)
    finally:
        await http.close()
        await fetcher.close()
        await registry.close()


def _took(millis: int | None) -> str:
    return "" if millis is None else f" ({millis} ms)"


async def _reseal_webhooks(settings: Settings, engine: AsyncEngine, drop_unreadable: bool) -> tuple[int, int]:
    from app.sealing import SecretBox
    from app.webhooks.secrets import Secrets

    assert settings.secrets_key is not None  # noqa: S101 - the book asked for it before
    return await Secrets(engine, SecretBox(settings.secrets_key)).reencrypt(drop_unreadable=drop_unreadable)


def _secret(variable: str | None, from_stdin: bool) -> SecretStr | None:
    """Raises: Refused. A secret is never an argument: those are seen by every user of the machine."""
    from pydantic import SecretStr

    from app.settings import find_secret

    if variable and from_stdin:
        raise Refused("--secret-env and --secret-stdin exclude each other")
    if variable:
        found = find_secret(variable)
        if found is None:
            raise Refused(f"the variable {variable} is not set")
        return found
    if from_stdin:
        return SecretStr(sys.stdin.readline().strip())
    return None


def _set_state(name: str, state: Literal["active", "draining", "disabled"], as_json: bool) -> None:
    _say(with_book(lambda book: book.upstreams.set_state(name, state, actor=by_whom())), as_json)


def _say(upstream: UpstreamInfo, as_json: bool) -> None:
    value = upstream_shown(upstream)
    lines = [f"{name.replace('_', ' '):<14}{readable(fact) if fact != {} else '-'}" for name, fact in value.items()]
    emit(value, as_json=as_json, text="\n".join(lines))
