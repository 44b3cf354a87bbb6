"""Models and prices that administrators change at run time: versions with the moment they begin, prices tried, files.

The file ``models.yaml`` is the base, version 0. A version wins over it from its moment on, until a later one does or
gives the model back to the file (``kind`` ``file``): a deployment with another file never undoes an administrator's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.catalog.catalogs import Catalogs
from app.catalog.entries import Entry, read_entry
from app.catalog.exchange import Import, Imported, ModelChange, compare, difference, exported, read_import
from app.catalog.judging import judge, offered
from app.catalog.model import Model
from app.catalog.prices import PriceEdit
from app.catalog.routes import ROUTES_WITH_ACCOUNTS, entry_of
from app.catalog.rows import rows_of
from app.catalog.simulate import ExampleQuote, Simulation, examples, simulate
from app.catalog.states import ModelState, known_entry, states
from app.catalog.takeover import Draft, ListedVersion, takeover
from app.catalog.timeline import ModelVersion, entries_at, file_entry, ruling, state_of
from app.catalog.tried import Price, repriced, tried
from app.catalog.version_rows import Changing, changing_models, checked_moment, checked_note
from app.catalog.wording import shown
from app.db import once, retried, sqlstate_of
from app.errors import (
    DatabaseUnavailable,
    InvalidParameter,
    ModelNotFound,
    ModelVersionFixed,
    ModelVersionNotFound,
)
from app.journal import Actor, note
from app.requests import Operation
from app.upstreams.protocols import Capabilities

log = structlog.get_logger(__name__)

HISTORY = "MG005"
"""What the database says of a version that has begun."""


class ModelVersions:
    """What ``/admin/v1/models``, the console and ``mediagate models`` do. Every change is one transaction."""

    def __init__(self, engine: AsyncEngine, catalogs: Catalogs, providers: Mapping[str, Capabilities]) -> None:
        self._engine = engine
        self._catalogs = catalogs
        self._files = catalogs.files
        self._providers = providers

    # --- reading ------------------------------------------------------------------------------------------------

    async def list(self) -> Sequence[ModelState]:
        """Return every model that the file or a version names, in the order of the catalogue."""
        await self._catalogs.refresh()
        routes = await retried(lambda: once(self._engine, ROUTES_WITH_ACCOUNTS))
        catalogs = self._catalogs
        return states(self._files, catalogs.versions, catalogs.current(), routes, catalogs.now())

    async def get(self, model: str) -> ModelState:
        """Raises: ModelNotFound."""
        found = {state.id: state for state in await self.list()}
        if model not in found:
            raise ModelNotFound(shown(model)[1:-1], found)
        return found[model]

    async def versions(self, model: str) -> Sequence[ListedVersion]:
        """Return a model's versions, newest first; the last is the file's (0), if it has it. Raises: ModelNotFound."""
        await self._catalogs.refresh()
        now, own = self._catalogs.now(), [v for v in self._catalogs.versions if v.model == model]
        base = self._base(model)
        if base is None and not own:
            raise ModelNotFound(shown(model)[1:-1], self._catalogs.current().models)
        ordered = [*sorted(own, key=lambda version: version.number, reverse=True), *([base] if base else [])]
        return [ListedVersion(version, state_of(version, own, now)) for version in ordered]

    async def diff(self) -> Sequence[ModelChange]:
        """Return where what is in force differs from the file: ``before`` is the file."""
        await self._catalogs.refresh()
        file = {model: entry for model in self._files.file.models if (entry := file_entry(self._files, model))}
        return compare(file, entries_at(self._files, self._catalogs.versions, self._catalogs.now()))

    # --- changing -----------------------------------------------------------------------------------------------

    async def add(
        self,
        model: str,
        *,
        note: str,
        actor: Actor,
        document: Mapping[str, Any] | str | None = None,
        price: PriceEdit | None = None,
        withdraw: bool = False,
        use_file: bool = False,
        effective_from: datetime | None = None,
    ) -> ListedVersion:
        """Add a version: a whole entry (data or YAML), some numbers of its price, a withdrawal, or the file again.

        ``effective_from`` None: now. Raises: InvalidParameter (line or path, and what is wrong), ModelNotFound.
        """
        if sum((document is not None, price is not None, withdraw, use_file)) != 1:
            raise InvalidParameter("Give one of: 'document', 'price', 'withdraw', 'use_file'.", param="document")
        why = checked_note(note)
        given = None if document is None else await self._given(model, document)
        async with changing_models(self._engine) as change:
            at = change.moment(effective_from)
            entry: Entry | None = None
            if document is not None:
                entry = given
            elif price is not None:
                entry = repriced(self._files, change.versions, model, price, at)
            else:
                known = known_entry(self._files, change.versions, model, at)
                if known is None and (use_file or not any(v.model == model for v in change.versions)):
                    raise ModelNotFound(shown(model)[1:-1], self._files.file.models)
            kind = "withdrawn" if withdraw else "file" if use_file else "entry"
            made = ModelVersion(
                model=model,
                number=change.number_for(model),
                kind=kind,  # type: ignore[arg-type]  # one of the three words
                entry=None if entry is None else entry.data,
                effective_from=at,
                note=why,
                created_by=actor.name,
                created_at=change.now,
            )
            routes = await rows_of(change.connection, ROUTES_WITH_ACCOUNTS)
            await self._write(change, made, entry, routes, actor=actor)
        await self._look()
        versions = [*change.versions, made]
        then = takeover(self._files, versions, model, offered(self._files, versions, model, at), at)
        return ListedVersion(made, state_of(made, versions, change.now), then)

    async def cancel(self, model: str, number: int, *, actor: Actor) -> ListedVersion:
        """Cancel a version that has not begun. Raises: ModelVersionNotFound, ModelVersionFixed."""
        fixed = f"Version {number} of '{model[:100]}' {{}}: only one that has not begun can be cancelled."
        try:
            async with changing_models(self._engine) as change:
                found = next((v for v in change.versions if (v.model, v.number) == (model, number)), None)
                if found is None or found.effective_from is None:
                    raise ModelVersionNotFound(model, number)
                if found.cancelled_at is not None:
                    raise ModelVersionFixed(fixed.format("was cancelled already"))
                if found.effective_from <= change.now:
                    raise ModelVersionFixed(fixed.format("has begun"))
                await change.connection.exec_driver_sql(
                    "UPDATE model_versions SET cancelled_at = $3, cancelled_by = $4 WHERE model = $1 AND number = $2",
                    (model, number, change.now, actor.name),
                )
                was = {"version": found.name, "effective_from": found.effective_from, "note": found.note}
                await note(change.connection, actor, "model.version_cancel", _target(model), before=was)
        except DBAPIError as error:
            if sqlstate_of(error) != HISTORY:
                raise
            raise ModelVersionFixed(fixed.format("has begun")) from error
        await self._look()
        return ListedVersion(replace(found, cancelled_at=change.now, cancelled_by=actor.name), "cancelled")

    # --- trying -------------------------------------------------------------------------------------------------

    async def draft(
        self, model: str, *, price: PriceEdit | None = None, document: Mapping[str, Any] | str | None = None
    ) -> Draft | None:
        """Return what `add` would change if it were done now; None: nothing differs. Raises: as `add`."""
        await self._catalogs.refresh()
        versions, now = self._catalogs.versions, self._catalogs.now()
        entry = (
            await self._given(model, document or {})
            if price is None
            else repriced(self._files, versions, model, price, now)
        )
        routes = await retried(lambda: once(self._engine, ROUTES_WITH_ACCOUNTS))
        judge(
            self._files,
            self._providers,
            versions,
            ModelVersion(model, 1, "entry", entry.data, now, "", "", None),
            entry,
            routes,
        )
        change = difference(model, offered(self._files, versions, model, now), entry)
        return None if change is None else Draft(change, takeover(self._files, versions, model, entry, now))

    async def simulate(
        self,
        model: str,
        fields: Mapping[str, Any],
        *,
        operation: Operation | None = None,
        input_seconds: float | None = None,
        number: int | None = None,
        price: Price | None = None,
        document: Mapping[str, Any] | str | None = None,
    ) -> Simulation:
        """Price a request: as it is now, with version ``number`` (0: the file), with another ``price``, or a draft.

        Raises: InvalidParameter and what the request itself would; ModelNotFound, ModelVersionNotFound.
        """
        await self._catalogs.refresh()
        tried = await self._tried(model, number=number, price=price, document=document)
        return simulate(tried, fields, operation=operation, input_seconds=input_seconds)

    async def examples(
        self,
        model: str,
        *,
        number: int | None = None,
        price: Price | None = None,
        document: Mapping[str, Any] | str | None = None,
    ) -> Sequence[ExampleQuote]:
        """Return all priced combinations: ``before`` is what is in force, ``after`` what is named. Raises: as there."""
        await self._catalogs.refresh()
        tried = await self._tried(model, number=number, price=price, document=document)
        return examples(self._catalogs.current().models.get(model), tried)

    # --- files --------------------------------------------------------------------------------------------------

    async def export(self) -> str:
        """Return the catalogue in force as a file of models, with the routes in use."""
        rows = await retried(lambda: once(self._engine, ROUTES_WITH_ACCOUNTS))
        differs = await self.diff()
        routes = [route for route in map(entry_of, rows) if route.is_enabled]
        now = self._catalogs.now()
        entries = entries_at(self._files, self._catalogs.versions, now)
        version = f"{now:%Y-%m-%dT%H:%MZ}" if differs else self._files.version
        return exported(self._files, entries, routes, version=version)

    async def preview(
        self, yaml: str, *, effective_from: datetime | None = None, withdraw_missing: bool = False
    ) -> Import:
        """Return what this file of models would change. Raises: InvalidParameter, with every complaint."""
        imported = await self._read(yaml)
        await self._catalogs.refresh()
        versions, now = self._catalogs.versions, self._catalogs.now()
        routes = await retried(lambda: once(self._engine, ROUTES_WITH_ACCOUNTS))
        at = checked_moment(effective_from, now)
        found, drafts = self._import(versions, imported, at, withdraw_missing=withdraw_missing)
        for version, entry in drafts:
            judge(self._files, self._providers, versions, version, entry, routes)
        return found

    async def apply(
        self,
        yaml: str,
        *,
        note: str,
        actor: Actor,
        effective_from: datetime | None = None,
        withdraw_missing: bool = False,
    ) -> Import:
        """Make a version of every model that differs: all of them, or none. Raises: InvalidParameter."""
        why = checked_note(note)
        made = []
        imported = await self._read(yaml)
        async with changing_models(self._engine) as change:
            at = change.moment(effective_from)
            found, drafts = self._import(change.versions, imported, at, withdraw_missing=withdraw_missing)
            routes = await rows_of(change.connection, ROUTES_WITH_ACCOUNTS)
            for draft, entry in drafts:
                version = replace(
                    draft,
                    number=change.number_for(draft.model),
                    note=why,
                    created_by=actor.name,
                    created_at=change.now,
                )
                await self._write(change, version, entry, routes, actor=actor)
                made.append(version)
        await self._look()
        return replace(found, versions=tuple(made))

    # --- inside -------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Take over our own change at once. It is made, whatever becomes of this."""
        try:
            await self._catalogs.refresh()
        except DatabaseUnavailable as error:
            log.warning("models.postponed", error=type(error).__name__)

    async def _write(
        self, change: Changing, version: ModelVersion, entry: Entry | None, routes: Sequence[Any], *, actor: Actor
    ) -> None:
        at, model = version.effective_from or change.now, version.model
        judge(self._files, self._providers, change.versions, version, entry, routes)
        before = offered(self._files, change.versions, model, at)
        after = file_entry(self._files, model) if version.kind == "file" else entry
        differing = difference(model, before, after)
        ruler = ruling(change.versions, at).get(model)
        was = {"version": self._files.version if ruler is None else ruler.name}
        now = {
            "version": version.name,
            "kind": version.kind,
            "effective_from": at,
            "note": version.note,
        }
        if differing is not None:
            was |= differing.before
            now |= {"entry": dict(differing.after)}
        await change.insert(version)
        await note(change.connection, actor, "model.version", _target(model), before=was, after=now)

    async def _given(self, model: str, document: Mapping[str, Any] | str) -> Entry:
        """Read an entry beside everything else, as `_read` does. Raises: InvalidParameter."""
        return await asyncio.to_thread(read_entry, self._files, model, document)

    async def _tried(
        self, model: str, *, number: int | None, price: Price | None, document: Mapping[str, Any] | str | None
    ) -> Model:
        """Return the model as it is meant. Raises: as `tried`."""
        draft = None if document is None else await self._given(model, document)
        catalogs = self._catalogs
        return tried(
            self._files, catalogs.versions, catalogs.current(), catalogs.now(), model,
            draft=draft, number=number, price=price,
        )  # fmt: skip

    async def _read(self, yaml: str) -> Imported:
        """Read a file of models beside everything else: a long one takes seconds. Raises: InvalidParameter."""
        return await asyncio.to_thread(read_import, self._files, yaml)

    def _import(
        self, versions: Sequence[ModelVersion], imported: Imported, at: datetime, *, withdraw_missing: bool
    ) -> tuple[Import, Sequence[tuple[ModelVersion, Entry | None]]]:
        before = entries_at(self._files, versions, at)
        missing = tuple(model for model in before if model not in imported.entries)
        after = dict(imported.entries)
        if not withdraw_missing:
            after |= {model: before[model] for model in missing}
        changes = compare(before, after)
        differing = {change.model for change in changes}
        drafts = [
            (
                ModelVersion(model, 1, "entry" if model in after else "withdrawn",
                             after[model].data if model in after else None, at, "", "", None),
                after.get(model),
            )
            for model in (change.model for change in changes)
        ]  # fmt: skip
        unchanged = tuple(model for model in imported.entries if model not in differing)
        return Import(at, tuple(changes), unchanged, missing, imported.ignored), drafts

    def _base(self, model: str) -> ModelVersion | None:
        entry = self._files.entry(model)
        if entry is None:
            return None
        return ModelVersion(model, 0, "file", entry, None, f"models.yaml, {self._files.version}", "file", None)


def _target(model: str) -> str:
    return f"model:{model}"
