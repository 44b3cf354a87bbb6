"""``mediagate providers``: which code for vendors is installed, and whether it keeps the contract. No database."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import click

from app.cli.output import emit, json_option, table
from app.cli.session import NEGATIVE, Refused

if TYPE_CHECKING:
    from app.upstreams.contract.harness import Harness
    from app.upstreams.contract.run import Outcome

HARNESSES = "mediagate.provider_harnesses"
WORDS = {"ok": "ok", "failed": "FAIL", "skipped": "skip"}


@click.group()
def providers() -> None:
    """List the code for vendors, and test whether one keeps the contract: docs/providers.md."""


@providers.command("list")
@json_option
def list_providers(as_json: bool) -> None:
    """List all providers: what they can do, what may be done after a lost submit, and the package they come from."""
    from app.upstreams.registry import survey

    rows = [
        {
            "name": name,
            "operations": sorted(found.provider.capabilities.operations),
            "submit": found.provider.capabilities.submit.value,
            "package": found.package,
        }
        for name, found in sorted(survey().items())
    ]
    emit(rows, as_json=as_json, text=table(rows, empty="No providers are installed."))


@providers.command()
@click.argument("name")
@json_option
def test(name: str, as_json: bool) -> None:
    """Run the contract suite against the fake upstream that the provider's author installed. Exit code 1 on a failure.

    Everything happens on this machine: no vendor is called.
    """
    make = _harness_of(name)
    outcomes = asyncio.run(_perform(make, shown=not as_json))
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in WORDS}
    summary = f"{name}: {counts['ok']} ok, {counts['skipped']} skipped, {counts['failed']} failed"
    emit([_shown(outcome) for outcome in outcomes], as_json=as_json, text=summary)
    if counts["failed"]:
        sys.exit(NEGATIVE)


async def _perform(make: Callable[[], Harness], *, shown: bool) -> list[Outcome]:
    """Run every check, and say each one's line when it is done."""
    from app.upstreams.contract.run import checks_of, run

    outcomes: list[Outcome] = []
    with TemporaryDirectory(prefix="mediagate-contract-") as folder:
        for number, check in enumerate(checks_of(make())):
            outcome = await run(check, make, Path(folder) / str(number))
            outcomes.append(outcome)
            if shown:
                detail = f" [{outcome.detail}]" if outcome.detail else ""
                click.echo(f"{WORDS[outcome.state]:<5}{check.name:<26}{check.title}{detail}")
    return outcomes


def _harness_of(name: str) -> Callable[[], Harness]:
    """Raises: Refused."""
    from app.upstreams.registry import discover

    known = discover()
    if name not in known:
        raise Refused(f"no provider '{name}' is installed; there are: {', '.join(sorted(known))}")
    entries = tuple(entry_points(group=HARNESSES, name=name))
    if len(entries) != 1:
        what = "no harness is" if not entries else f"{len(entries)} harnesses are"
        raise Refused(f"{what} installed for '{name}' in the entry point group {HARNESSES}: docs/providers.md")
    make = cast("Callable[[], Harness]", entries[0].load())
    tested = make().provider
    if tested.name != name:
        raise Refused(f"the harness of '{name}' has a provider named '{tested.name}'")
    return make


def _shown(outcome: Outcome) -> dict[str, Any]:
    check = outcome.check
    return {"name": check.name, "title": check.title, "state": outcome.state, "detail": outcome.detail or None}
