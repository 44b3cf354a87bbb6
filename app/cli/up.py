"""``mediagate up``: the whole gateway on this machine, with servers of its own, until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import click
from pydantic import SecretStr

from app.cli.seed import ACTOR, ADMIN_EMAIL, DEMO_CREDITS, Credentials, seed
from app.cli.session import Refused
from app.embedded.folder import FolderInUse, locked
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import ServerFailed
from app.embedded.supervisor import LogStream, Program, Supervisor, console_script
from app.embedded.valkey import EmbeddedValkey
from app.errors import AccountNotFound
from app.settings import Settings, credentials_file, instance_file, load_settings, plain_settings, write_private

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

READY_TIMEOUT_S = 60
WORKER_STOP_S = 30.0  # at least: what is polled and delivered
GRACE_S = 5.0


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the API (MEDIAGATE_PORT, else 8000).")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for everything that is kept (MEDIAGATE_DATA, else ./data).",
)
def up(port: int | None, data: Path | None) -> None:
    """Start PostgreSQL, Valkey, the API and a worker; Ctrl-C stops them all.

    With MEDIAGATE_DATABASE_URL or MEDIAGATE_REDIS_URL set, that server is used instead of one of our own.
    """
    started_at = monotonic()
    chosen = {name: value for name, value in (("port", port), ("data", data)) if value is not None}
    settings = plain_settings(**chosen)
    if settings.is_production:
        raise Refused(
            "'up' is for development (MEDIAGATE_ENV is 'production'): run 'mediagate migrate', 'mediagate api' and "
            "'mediagate worker' against your own PostgreSQL and Redis."
        )
    try:
        with locked(settings.data):
            instance_file(settings.data).unlink(missing_ok=True)  # of an instance that was killed
            _run(load_settings(mint_secrets=True, **chosen), started_at)
    except (FolderInUse, ServerFailed) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EEXIST):
            raise
        raise Refused(
            f"The data folder {settings.data} cannot be used ({error.strerror}: {error.filename}): "
            "choose another with --data."
        ) from error


def _run(settings: Settings, started_at: float) -> None:
    """Everything between the folder's lock and its release."""
    _check_port(settings)
    stream = LogStream(sys.stdout)
    say = stream.sink("up")
    say(f"Mediagate {version('mediagate')}, data in {settings.data}")
    with Supervisor(say=say) as supervisor:
        settings = _with_servers(settings, supervisor, stream)
        if supervisor.must_stop:
            return
        credentials, link = asyncio.run(_prepare(settings))
        with _instance_noted(settings):
            for program in _programs(settings, stream):
                if not supervisor.must_stop:
                    supervisor.start(program)
            if supervisor.wait_until(lambda: is_ready(settings), timeout_s=READY_TIMEOUT_S):
                say(f"Ready after {monotonic() - started_at:.1f} s.")
                stream.write(_welcome(settings, credentials, link))
            supervisor.watch(until=lambda: stream.is_broken)
    say("Stopped.")
    if stream.is_broken:  # else Python complains about the lines it could not write
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Refused(f"Port {settings.port} is in use: choose another with --port.") from error
            if error.errno == errno.EACCES:
                raise Refused(f"Port {settings.port} needs root: choose one above 1023 with --port.") from error
            raise Refused(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}.") from error


def _with_servers(settings: Settings, supervisor: Supervisor, stream: LogStream) -> Settings:
    """Start the servers that no setting names, and return the settings with their addresses."""
    found: dict[str, object] = {"public_url": settings.base_url}
    say = stream.sink("up")
    if settings.database_url is None:
        say("Starting PostgreSQL ...")
        postgres = EmbeddedPostgres(settings.data / "postgres", sink=stream.sink("postgres"))
        supervisor.start(postgres)
        found["database_url"] = SecretStr(postgres.url)
    if settings.redis_url is None:
        say("Starting Valkey ...")
        valkey = EmbeddedValkey(settings.data / "valkey", sink=stream.sink("valkey"))
        supervisor.start(valkey)
        found["redis_url"] = SecretStr(valkey.url)
    return settings.model_copy(update=found)


async def _prepare(settings: Settings) -> tuple[Credentials, str | None]:
    """Migrate, then make the first accounts and keys. Returns the first administrator's sign-in link with them."""
    from app.accounts.keys import Keys
    from app.db import make_engine
    from app.migrate import migrate

    if settings.key_pepper is None:
        raise RuntimeError("the settings were loaded without secrets")
    url = _secret(settings.database_url)
    await migrate(url)
    engine = make_engine(url, pool_size=2)
    try:
        keys = Keys(engine, settings.key_pepper)
        credentials = await seed(engine, keys, data=settings.data, base_url=settings.base_url)
        return credentials, await first_link(settings, engine)
    finally:
        await engine.dispose()


@contextmanager
def _instance_noted(settings: Settings) -> Iterator[None]:
    """Tell other processes of this machine where our servers are, for as long as those run."""
    note = instance_file(settings.data)
    write_private(
        note,
        {
            "database_url": _secret(settings.database_url),
            "redis_url": _secret(settings.redis_url),
            "public_url": settings.base_url,
            "config_dir": str(settings.config_dir),
            "pid": os.getpid(),
        },
    )
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _programs(settings: Settings, stream: LogStream) -> Iterator[Program]:
    """The gateway's own processes, in the order of their start: stopped the other way round, the API first."""
    command = console_script("mediagate")
    if not command.exists():
        raise ServerFailed(f"{command} is missing: install Mediagate into this environment ('python3 dev.py up' does).")
    env = {
        "MEDIAGATE_DATA": str(settings.data),
        "MEDIAGATE_CONFIG_DIR": str(settings.config_dir),
        "MEDIAGATE_HOST": settings.host,
        "MEDIAGATE_PORT": str(settings.port),
        "MEDIAGATE_PUBLIC_URL": settings.base_url,
        "MEDIAGATE_DATABASE_URL": _secret(settings.database_url),
        "MEDIAGATE_REDIS_URL": _secret(settings.redis_url),
        "PYTHONUNBUFFERED": "1",
    }
    for name, stop_s in (
        ("worker", max(settings.shutdown_wait_s, WORKER_STOP_S) + GRACE_S),
        ("api", settings.shutdown_delay_s + settings.shutdown_wait_s + GRACE_S),
    ):
        yield Program(name, [command, name], env=env, stop_s=stop_s, sink=stream.sink(name))


def is_ready(settings: Settings) -> bool:
    """Whether the API on the settings' port answers, and has its database."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(host, settings.port, timeout=2)
    try:
        for path in ("/healthz", "/readyz"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != http.HTTPStatus.OK:
                return False
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


async def first_link(settings: Settings, engine: AsyncEngine) -> str | None:
    """Make the link for the administrator's password, at every start until somebody can sign in with one."""
    from app.accounts.invitations import Invitations, join_url
    from app.accounts.logins import Logins
    from app.accounts.passwords import Passwords

    passwords = Passwords()
    if await Logins(engine, passwords).has_any_password():
        return None
    try:
        invitations = Invitations(engine, passwords, secret=settings.link_secret)
        token = await invitations.invite(ADMIN_EMAIL, purpose="first_admin", actor=ACTOR)
    except AccountNotFound:  # its owner closed it
        return None
    return join_url(settings.base_url, token)


def _welcome(settings: Settings, credentials: Credentials, link: str | None) -> str:
    """What a person needs now: the address, the key, and a line to paste."""
    kept = credentials_file(settings.data)
    if credentials.are_new:
        key = credentials.demo_key
        lines = [
            f"  Demo key     {credentials.demo_key}   ({DEMO_CREDITS:,} credits)",
            f"  Admin key    {credentials.admin_key}",
            f"  They are shown this once and kept in {kept}",
        ]
    else:
        reader = f'import json; print(json.load(open({json.dumps(str(kept))}))["demo_key"])'
        key = f"$(python3 -c {shlex.quote(reader)})"
        lines = [f"  Keys         kept in {kept}"]
    if link is None:
        lines.insert(0, f"  Console      {settings.base_url}/console")
    else:
        lines[:0] = [
            f"  Console      {link}",
            f"               (sets the password of {ADMIN_EMAIL}: once, within an hour)",
        ]
    return "\n".join(
        [
            "",
            f"  Mediagate is ready at {settings.base_url}   (reference: {settings.base_url}/docs)",
            "",
            *lines,
            "",
            "  Make an image:",
            f"    curl {settings.base_url}/v1/images/generations \\",
            f'      -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\',
            """      -d '{"prompt": "a fox in the snow", "response_format": "url"}'""",
            "",
            "  Ctrl-C stops everything.",
            "",
        ]
    )


def _secret(value: SecretStr | None) -> str:
    if value is None:
        raise RuntimeError("the address of a server is missing")
    return value.get_secret_value()
