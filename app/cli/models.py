"""``mediagate models``: what is offered at which price, from when on; and the whole as a file, out and in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from app.cli.books import by_whom, open_catalogs, with_models
from app.cli.output import emit, json_option, table
from app.cli.session import NEGATIVE, Refused, explain
from app.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.catalog.exchange import Import, ModelChange
    from app.catalog.load import Catalog
    from app.catalog.states import ModelState
    from app.catalog.takeover import ListedVersion
    from app.catalog.versions import ModelVersions
    from app.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


class Moment(click.ParamType[datetime]):
    """A time with its offset; one without is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"'{value}' is no time such as 2026-12-01T00:00+00:00", param, ctx)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


note_option = click.option("--note", required=True, help="Why; everybody who reads the history sees it.")
from_option = click.option("--from", "effective_from", type=Moment(), help="When it begins (UTC without offset); now.")


@click.group()
def models() -> None:
    """Show, check, change, import and export models and their prices."""


@models.command()
@json_option
def check(as_json: bool) -> None:
    """Check config/models.yaml, as the start of the API does, and the routes in the database where there is one.

    Exit code 1 when a route in use does not fit, or a model has none.
    """
    settings = load_settings()
    catalog = open_catalog(settings)
    rows = [
        {
            "id": model.id,
            "type": model.type,
            "operations": sorted(operation.value for operation in model.operations),
            "routes": [f"{route.upstream}/{route.model}" for route in model.routes],
        }
        for model in catalog.models.values()
    ]
    problems, unchecked = _routes_in_use(settings)
    text = table(rows, empty="No models.") + f"\n{len(rows)} models in {settings.config_dir} are in order."
    if problems:
        text += "\nThe routes in use are not:\n" + "\n".join(f"  {problem}" for problem in problems)
    if unchecked:
        text += f"\nThe routes in use were not checked: {unchecked}"
    value = {"version": catalog.version, "models": rows, "problems": problems, "unchecked": unchecked}
    emit(value, as_json=as_json, text=text)
    if problems:
        sys.exit(NEGATIVE)


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List every model that the file or a version names, with what holds now and what comes next."""

    async def work(versions: ModelVersions) -> Sequence[ModelState]:
        return await versions.list()

    found = with_models(work)
    brief = [
        {
            "model": state.id,
            "state": state.state,
            "price": _price(state),
            "version": state.price_version,
            "next": None if state.next is None else state.next.effective_from,
            "differs": state.differs,
        }
        for state in found
    ]
    emit([_shown(state) for state in found], as_json=as_json, text=table(brief, empty="No models."))


@models.command()
@click.argument("model")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print the whole entry, to be edited and given to 'set'.")
@json_option
def show(model: str, as_yaml: bool, as_json: bool) -> None:
    """Show a model's prices and versions."""

    async def work(versions: ModelVersions) -> tuple[ModelState, Sequence[ListedVersion]]:
        return await versions.get(model), await versions.versions(model)

    state, listed = with_models(work)
    if as_yaml:
        from app.catalog.exchange import dump

        click.echo(dump(dict(state.entry)), nl=False)
        return
    history = [_version(one) for one in listed]
    brief = [{name: row[name] for name in ("number", "kind", "state", "effective_from", "note")} for row in history]
    prices = table([asdict(field) for field in state.prices], empty="No prices.")
    text = f"{state.title} ({state.type}), {state.state}, {state.price_version}\n\n{prices}\n\n"
    emit(_shown(state) | {"versions": history}, as_json=as_json, text=text + table(brief, empty="No versions."))


@models.command()
@click.argument("model")
@click.argument("numbers", nargs=-1, metavar="PATH=CREDITS...")
@click.option("--note", help="Why; needed to change something.")
@from_option
@click.option("--dry-run", is_flag=True, help="Only show what requests would cost.")
@json_option
def price(
    model: str,
    numbers: tuple[str, ...],
    note: str | None,
    effective_from: datetime | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Change numbers of a model's price, such as credits.hd=3; without any, show what requests cost."""
    edit = _numbers(numbers)
    if edit and not dry_run:
        if not note:
            raise Refused("--note must say why the price changes (or try it with --dry-run)")

        async def change(versions: ModelVersions) -> ListedVersion:
            from app.catalog.prices import PriceEdit

            return await versions.add(
                model, price=PriceEdit(edit), effective_from=effective_from, note=note or "", actor=by_whom()
            )

        _say(with_models(change), as_json)
        return

    async def work(versions: ModelVersions) -> list[dict[str, Any]]:
        from app.catalog.prices import PriceEdit

        rows = await versions.examples(model, price=PriceEdit(edit) if edit else None)
        return [
            {"operation": row.operation.value, **row.params, "now": row.before, "then": row.after,
             "difference": row.difference}
            for row in rows
        ]  # fmt: skip

    rows = with_models(work)
    names = list(dict.fromkeys(name for row in rows for name in row))
    emit(
        rows, as_json=as_json, text=table([{n: row.get(n) for n in names} for row in rows], empty="Nothing is priced.")
    )


@models.command("set")
@click.argument("model")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@note_option
@from_option
@json_option
def set_entry(model: str, file: Any, note: str, effective_from: datetime | None, as_json: bool) -> None:
    """Give a model another whole entry: YAML from FILE ('-': standard input), as 'show --yaml' prints it."""
    _add(model, as_json, document=file.read(), note=note, effective_from=effective_from)


@models.command()
@click.argument("model")
@note_option
@from_option
@json_option
def withdraw(model: str, note: str, effective_from: datetime | None, as_json: bool) -> None:
    """Offer a model no longer. Tasks that were accepted go on."""
    _add(model, as_json, withdraw=True, note=note, effective_from=effective_from)


@models.command("use-file")
@click.argument("model")
@note_option
@from_option
@json_option
def use_file(model: str, note: str, effective_from: datetime | None, as_json: bool) -> None:
    """Let config/models.yaml say again what a model is and costs."""
    _add(model, as_json, use_file=True, note=note, effective_from=effective_from)


@models.command()
@click.argument("model")
@click.argument("number", type=int)
@json_option
def cancel(model: str, number: int, as_json: bool) -> None:
    """Cancel a version that has not begun."""

    async def work(versions: ModelVersions) -> ListedVersion:
        return await versions.cancel(model, number, actor=by_whom())

    _say(with_models(work), as_json)


@models.command()
@json_option
def diff(as_json: bool) -> None:
    """Show where what is in force differs from config/models.yaml. Exit code 1 when it does."""

    async def work(versions: ModelVersions) -> Sequence[ModelChange]:
        return await versions.diff()

    changes = with_models(work)
    emit([asdict(change) for change in changes], as_json=as_json, text=_changes(changes, "The file holds everywhere."))
    if changes:
        sys.exit(NEGATIVE)


@models.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
def export(file: Path | None) -> None:
    """Write the models in force, with the routes in use, as a file of models (to standard output without FILE)."""

    async def work(versions: ModelVersions) -> str:
        return await versions.export()

    text = with_models(work)
    if file is None:
        click.echo(text, nl=False)
    else:
        file.write_text(text, encoding="utf-8")


@models.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--note", help="Why; needed to change something.")
@from_option
@click.option("--withdraw-missing", is_flag=True, help="Withdraw what is offered and is not in FILE.")
@click.option("--dry-run", is_flag=True, help="Only show what differs.")
@json_option
def import_file(
    file: Any, note: str | None, effective_from: datetime | None, withdraw_missing: bool, dry_run: bool, as_json: bool
) -> None:
    """Make a version of every model that differs in FILE: all of them at one moment, or none."""
    if not note and not dry_run:
        raise Refused("--note must say why the models change (or look first with --dry-run)")
    text = file.read()

    async def work(versions: ModelVersions) -> Import:
        if dry_run:
            return await versions.preview(text, effective_from=effective_from, withdraw_missing=withdraw_missing)
        return await versions.apply(
            text, effective_from=effective_from, withdraw_missing=withdraw_missing, note=note or "", actor=by_whom()
        )

    found = with_models(work)
    lines = [_changes(found.changes, "Nothing differs."), *found.ignored]
    if found.missing and not withdraw_missing:
        lines.append(f"Not in the file, and untouched: {', '.join(found.missing)}.")
    lines += [f"{version.name} begins {version.effective_from:%Y-%m-%d %H:%M:%SZ}" for version in found.versions]
    value = {
        "effective_from": found.effective_from,
        "changes": [asdict(change) for change in found.changes],
        "unchanged": list(found.unchanged),
        "missing": list(found.missing),
        "ignored": list(found.ignored),
        "versions": [version.name for version in found.versions],
    }
    emit(value, as_json=as_json, text="\n".join(lines))


async def check_known(settings: Settings, engine: AsyncEngine, models: Sequence[str]) -> None:
    """Refuse names that neither the file nor what is in force has. Raises: ModelNotFound, CatalogError."""
    file = open_catalog(settings)
    if all(model in file.models for model in models):
        return
    in_force = (await open_catalogs(settings, engine))[0].current()
    for model in models:
        if model not in file.models:
            in_force.get_model(model)


def _add(model: str, as_json: bool, **what: Any) -> None:
    async def work(versions: ModelVersions) -> ListedVersion:
        return await versions.add(model, actor=by_whom(), **what)

    _say(with_models(work), as_json)


def _say(listed: ListedVersion, as_json: bool) -> None:
    version = listed.version
    words = {"scheduled": f"begins {version.effective_from:%Y-%m-%d %H:%M:%SZ}", "in_force": "is in force"}
    lines = [f"{version.name} {words.get(listed.state, f'is {listed.state}')}: {version.note}"]
    if (then := listed.then) is not None:
        lines += [
            f"Planned already: {then.version.name} takes over at {then.version.effective_from:%Y-%m-%d %H:%M:%SZ}:"
        ]
        lines += [_changes([then.change], "")]
    emit(_version(listed), as_json=as_json, text="\n".join(lines))


def _numbers(given: Sequence[str]) -> dict[str, int]:
    found = {}
    for word in given:
        path, _, number = word.partition("=")
        if not (path and number.isascii() and number.isdigit() and len(number) <= 12):
            raise Refused(f"'{word}' must look like credits.hd=3")
        found[path] = int(number)
    return found


def _price(state: ModelState) -> str:
    return " ".join(f"{field.path.removeprefix('credits.')}={field.value}" for field in state.prices)


def _shown(state: ModelState) -> dict[str, Any]:
    value = asdict(state)
    value["operations"] = [operation.value for operation in state.operations]
    value["unserved"] = [operation.value for operation in state.unserved]
    return value


def _version(listed: ListedVersion) -> dict[str, Any]:
    value = {**asdict(listed.version), "name": listed.version.name, "state": listed.state}
    return value if listed.then is None else {**value, "then": asdict(listed.then)}


def _changes(changes: Sequence[ModelChange], nothing: str) -> str:
    rows: list[Mapping[str, Any]] = []
    for change in changes:
        parts = [
            f"{price.path} {'-' if price.before is None else price.before} -> "
            f"{'-' if price.after is None else price.after}"
            for price in change.prices
        ]
        others = [name for name in change.fields if name != "price" or not parts]
        said = "; ".join([*parts, *([", ".join(others)] if change.change == "changed" and others else [])])
        rows.append({"model": change.model, "change": change.change, "what": said})
    return table(rows, empty=nothing)


def _routes_in_use(settings: Settings) -> tuple[list[str], str | None]:
    """Return what is wrong with the database's routes; and why they could not be checked, if so."""
    from app.cli.books import with_routes

    if settings.database_url is None:
        return [], "no database is set"
    try:
        return list(with_routes(lambda routes: routes.problems())), None
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        return [], sentence


def open_catalog(settings: Settings) -> Catalog:
    """Load the catalogue. Raises: CatalogError, naming file and line."""
    from app.catalog.load import load_catalog
    from app.upstreams.registry import discover

    providers = {name: provider.capabilities for name, provider in discover().items()}
    return load_catalog(settings.config_dir, providers=providers)
