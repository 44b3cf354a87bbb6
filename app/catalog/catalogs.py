"""One process's catalogue of this moment: the files and the administrators' versions, by the database's clock.

Processes look every second whether versions were added or cancelled; a version whose time comes is taken over at that
moment, without looking. The database's clock is estimated at every look, good to half of what the look took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.catalog.load import Catalog, Files
from app.catalog.rows import rows_of
from app.catalog.timeline import ModelVersion, in_force, next_change
from app.catalog.version_rows import ALL_VERSIONS, version_of
from app.db import connected, is_transient, once, retried, sqlstate_of
from app.errors import DatabaseUnavailable, MediagateError

log = structlog.get_logger(__name__)

WATCH_S = 1.0
NOT_MIGRATED = "42P01"
BOOK = "SELECT revision, clock_timestamp() AS now FROM model_book"


class Catalogs:
    """Holds the catalogue in force. A request asks once, and keeps what it got until its hold is placed."""

    def __init__(self, files: Files, engine: AsyncEngine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.files = files
        self._engine = engine
        self._clock = clock
        self._revision: int | None = None
        self._versions: Sequence[ModelVersion] = ()
        self._ahead = timedelta(0)
        self._said = datetime.min.replace(tzinfo=UTC)
        self._current: Catalog | None = None
        self._until: datetime | None = None

    def current(self) -> Catalog:
        """Return the catalogue in force now.

        Raises: DatabaseUnavailable before the first look: the file alone may name a price that no longer holds.
        """
        if self._current is None:
            raise DatabaseUnavailable("The models in force are not known yet: the database has not answered.")
        if self._until is not None and (now := self.now()) >= self._until:
            self._turn_to(now)
        return self._current

    def shown(self) -> Catalog:
        """Return the catalogue in force, or the file's before the first look: for what costs nothing, as a document."""
        return self.files.catalog() if self._current is None else self.current()

    @property
    def versions(self) -> Sequence[ModelVersion]:
        """Every version as of the last look, cancelled ones included."""
        return self._versions

    def now(self) -> datetime:
        """Return the time by the database's clock, as far as it is known here; never before what it said last."""
        return max(datetime.fromtimestamp(self._clock(), UTC) + self._ahead, self._said)

    async def refresh(self) -> bool:
        """Take over what changed since the last look. Returns whether anything did. Raises: DatabaseUnavailable."""
        if await retried(self._ask) == self._revision:
            self.current()
            return False
        revision, said, versions = await retried(self._read)
        if self._revision is not None and revision < self._revision:
            return False  # somebody else's look, begun later, was back before ours
        self._revision, self._said, self._versions = revision, said, versions
        self._turn_to(self.now())
        return True

    async def watch(self, every_s: float = WATCH_S) -> None:
        """Keep the catalogue up to date until cancelled."""
        trouble = ""
        while True:
            try:
                if await self.refresh():
                    log.info("models.taken_over", versions=len(self._versions))
                trouble = ""
            except Exception as error:
                if type(error).__name__ != trouble:  # once, not every second
                    trouble = type(error).__name__
                    if isinstance(error, MediagateError) or is_transient(error) or sqlstate_of(error) == NOT_MIGRATED:
                        log.warning("models.postponed", error=trouble)
                    else:
                        log.exception("models.watch_failed")
            await asyncio.sleep(every_s)

    async def _ask(self) -> int:
        """Return the revision, and take the time from the same answer."""
        asked = self._clock()
        [book] = await once(self._engine, BOOK)
        self._ahead = book["now"] - datetime.fromtimestamp((asked + self._clock()) / 2, UTC)
        self._said = book["now"]
        revision: int = book["revision"]
        return revision

    async def _read(self) -> tuple[int, datetime, Sequence[ModelVersion]]:
        async with connected(self._engine) as connection:
            connection = await connection.execution_options(isolation_level="REPEATABLE READ")
            [book] = await rows_of(connection, BOOK)
            versions = [version_of(row) for row in await rows_of(connection, ALL_VERSIONS)]
        return book["revision"], book["now"], versions

    def _turn_to(self, now: datetime) -> None:
        """Take over what holds at ``now``: some milliseconds, once for each change."""
        before = self._current
        self._current = in_force(self.files, self._versions, now)
        self._until = next_change(self._versions, now)
        for model, problem in self._current.problems.items():
            if before is None or before.problems.get(model) != problem:
                log.error("model.not_offered", model=model, problem=problem)
