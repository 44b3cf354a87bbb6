"""``mediagate api``, ``mediagate worker`` and ``mediagate migrate``: the processes of a deployment."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import ExitStack
from importlib import import_module

import click

from app.cli.output import emit, json_option
from app.cli.session import Refused, database_url
from app.settings import Settings, load_settings

BACKLOG = 2048
KEEP_ALIVE_S = 5
MAX_HEADER_BYTES = 32 * 1024
log_json_option = click.option("--json", "as_json", is_flag=True, help="Write the log as JSON lines.")


@click.command()
@click.option("--host", help="Address to listen on; MEDIAGATE_HOST without.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on; MEDIAGATE_PORT without. 0: any free one."
)
@click.option("--fd", type=click.IntRange(min=0), help="A listening socket we inherit, instead of host and port.")
@log_json_option
def api(host: str | None, port: int | None, fd: int | None, as_json: bool) -> None:
    """Run the HTTP API until SIGTERM; requests that run are finished first."""
    # The app reads its settings itself: options are settings for this process.
    _set(MEDIAGATE_HOST=host, MEDIAGATE_PORT=port, MEDIAGATE_LOG_FORMAT="json" if as_json else None)
    settings = load_settings(mint_secrets=False)  # the app does, once there is a database
    database_url(settings)
    _configure_log(settings)
    listener = _inherit(fd) if fd is not None else _listen(settings.host, settings.port)

    import uvicorn

    from app.api.server import Connection, Server

    app = import_module("app.main").create_app()
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a forwarded address would be believed from anybody
        backlog=BACKLOG,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = Server(config, app, settings)
    # uvicorn raises the signal once more when it is done; a stop that was asked for is a success.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with listener:
        server.run(sockets=[listener])
    if not server.started:
        sys.exit(1)


@click.command()
@log_json_option
def worker(as_json: bool) -> None:
    """Run a worker until SIGTERM; steps that run are finished first."""
    _set(MEDIAGATE_LOG_FORMAT="json" if as_json else None)
    settings = load_settings(mint_secrets=False)  # the worker does, once there is a database
    database_url(settings)
    _configure_log(settings)
    import_module("workers.settings").run()


@click.command()
@click.option("--revision", default="head", show_default=True, help="Where to; older ones are for development.")
@json_option
def migrate(revision: str, as_json: bool) -> None:
    """Bring the database to the newest revision. Safe to run twice, or at once from two machines."""
    url = database_url(load_settings(mint_secrets=False))
    from app.migrate import migrate as move

    reached = asyncio.run(move(url, revision))
    emit({"revision": reached}, as_json=as_json, text=f"The database is at revision {reached or 'base'}.")


def _set(**variables: str | int | None) -> None:
    os.environ.update({name: str(value) for name, value in variables.items() if value is not None})


def _configure_log(settings: Settings) -> None:
    from app.log import configure

    configure(form=settings.log_format or ("json" if settings.is_production else "console"), level=settings.log_level)


def _inherit(fd: int) -> socket.socket:
    """Raises: Refused, when there is no such socket."""
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        raise Refused(f"--fd {fd} is no socket of ours: {error.strerror or error}") from error


def _listen(host: str, port: int) -> socket.socket:
    """Raises: Refused, when somebody else listens there."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with ExitStack() as stack:
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)  # who comes while the app starts waits, instead of being refused
            stack.pop_all()  # it is good: it stays open
    except OSError as error:
        raise Refused(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener
