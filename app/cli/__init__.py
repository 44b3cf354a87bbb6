"""The ``mediagate`` command line: operators' commands over the same services as HTTP, each loaded when it is named."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

# name: where the click command is, and its line in the help (so that `--help` loads none of them)
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("app.cli.up:up", "Start everything on this machine: servers, API, worker."),
    "tour": ("app.cli.tour:tour", "Make an image, an edit and a video through the API, and show what each cost."),
    "doctor": ("app.cli.doctor:doctor", "Check what this machine lacks."),
    "api": ("app.cli.server:api", "Run the HTTP API."),
    "worker": ("app.cli.server:worker", "Run a worker."),
    "migrate": ("app.cli.server:migrate", "Bring the database to the newest revision."),
    "audit": ("app.cli.credits:audit", "Check the books; exit code 1 on any violation."),
    "admin": ("app.cli.admin:admin", "Create administrators of the console, and make links that set a password."),
    "accounts": ("app.cli.accounts:accounts", "Create, invite, find, change, suspend and close accounts."),
    "keys": ("app.cli.keys:keys", "Create, list, limit, rotate and revoke API keys."),
    "credits": ("app.cli.credits:credits", "Top up, grant, adjust and show credits."),
    "codes": ("app.cli.codes:codes", "Create, list and revoke redeem codes."),
    "tasks": ("app.cli.tasks:tasks", "Find, show, cancel, resolve and refund tasks."),
    "models": ("app.cli.models:models", "Show, check, change, import and export models and prices."),
    "upstreams": ("app.cli.upstreams:upstreams", "Add, change, drain, rotate and delete accounts at vendors."),
    "routes": ("app.cli.routes:routes", "List and change which upstream serves a model."),
    "webhooks": ("app.cli.webhooks:webhooks", "Show an account's webhook endpoints and deliveries; send again."),
    "providers": ("app.cli.providers:providers", "List the code for vendors, and test whether one keeps the contract."),
}


class CommandLine(click.Group):
    """A group that imports a command when it is named, and says expected errors in one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from app.cli.session import Refused, explain  # loads the settings, which the help does not need

            sentence = explain(error)
            if sentence is None:
                raise  # our bug: the traceback helps
            raise Refused(sentence) from error


@click.group(
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Settings come from MEDIAGATE_... variables; a gateway started by 'up' is found through MEDIAGATE_DATA.",
)
@click.version_option(package_name="mediagate")
def main() -> None:
    """Mediagate: an OpenAI-compatible gateway for images and videos, with prepaid credits."""
