"""What a version that is scheduled already will take back of a change that is made before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.catalog.entries import Entry
from app.catalog.exchange import ModelChange, difference
from app.catalog.judging import offered
from app.catalog.load import Files
from app.catalog.timeline import ModelVersion, State, ruling, upcoming


@dataclass(frozen=True, slots=True)
class Takeover:
    """A version holds a whole entry: when it begins, numbers that were changed in between are as it says."""

    version: ModelVersion
    """The one that begins next."""
    change: ModelChange
    """What differs from then on from what holds right before."""


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """A version, and whether it holds."""

    version: ModelVersion
    state: State
    then: Takeover | None = None
    """Of one just made: what is planned already and ends it."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a change would do if it were made now."""

    change: ModelChange
    then: Takeover | None


def takeover(
    files: Files, versions: Sequence[ModelVersion], model: str, entry: Entry | None, at: datetime
) -> Takeover | None:
    """Return what ends ``entry``, which holds from ``at`` on (None: no offer), if that is planned and changes it."""
    later = upcoming((version for version in versions if version.model == model), at)
    if not later or (then := later[0].effective_from) is None:
        return None
    change = difference(model, entry, offered(files, versions, model, then))
    return None if change is None else Takeover(ruling(versions, then)[model], change)
