"""What is stored and for how long, for administrators; and whether the disk holds what the rows say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from fastapi import APIRouter
from starlette.responses import Response

from app.console import tables
from app.console.visitor import AdminVisitor, ConsoleRoute, FormDep, Visitor
from app.credits.audit import Finding
from app.generation.statistics import Storage, StoredKind
from app.settings import explain_settings

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

STORAGE = "/console/admin/storage"
RETENTION = ("RESULT_TTL_S", "INPUT_TTL_S", "LINK_TTL_S")
ROOM = ("DISK_FREE_BYTES", "DISK_FREE_PERCENT", "SPOOL_BYTES", "DATA")
SHOWN_VIOLATIONS = 20

COLUMNS: Mapping[str, Callable[[StoredKind], object]] = {
    "role": lambda kind: kind.role,
    "state": lambda kind: kind.state,
    "files": lambda kind: kind.files,
    "bytes": lambda kind: kind.size_bytes,
}


@dataclass(frozen=True, slots=True)
class Retention:
    """A setting about what is kept, and where it comes from."""

    name: str
    value: str
    source: str
    lasts: timedelta | None
    """None where it is no time."""


@router.get(STORAGE)
async def storage(visitor: AdminVisitor) -> Response:
    if tables.wants_csv(visitor.request):
        return tables.csv_file("storage.csv", COLUMNS, (await visitor.services.statistics.storage()).kinds)
    return await _page(visitor)


@router.post(f"{STORAGE}/check")
async def check(visitor: AdminVisitor, form: FormDep) -> Response:
    """Compare the disk with the rows, now, unless somebody does already: it looks at every file."""
    services = visitor.services
    finding = await services.audit.check_storage(services.storage.walk())
    return await _page(visitor, finding, is_busy=finding is None)


async def _page(visitor: Visitor, finding: Finding | None = None, *, is_busy: bool = False) -> Response:
    figures = await visitor.services.statistics.storage()
    return visitor.page(
        "admin/storage.html",
        nav=STORAGE,
        storage=figures,
        expiry=_chart(figures, visitor.gettext("MiB")),
        retention=_retention(visitor),
        finding=finding,
        is_busy=is_busy,
        violations=[] if finding is None else finding.violations[:SHOWN_VIOLATIONS],
        is_short=figures.disk_free_bytes < figures.keep_free_bytes,
    )


def _chart(figures: Storage, unit: str) -> dict[str, object]:
    sizes = [round(day.size_bytes / 1024 / 1024, 2) for day in figures.expiry]
    return {
        "x": [day.day for day in figures.expiry],
        "series": [{"name": unit, "values": sizes}],
        "kind": "bars",
        "unit": "",
    }


def _retention(visitor: Visitor) -> Sequence[Retention]:
    explained = {setting.name: setting for setting in explain_settings(visitor.services.settings)}
    found = []
    for name in (*RETENTION, *ROOM):
        setting = explained[f"MEDIAGATE_{name}"]
        lasts = timedelta(seconds=int(setting.value)) if name in RETENTION else None
        found.append(Retention(setting.name, setting.value, setting.source, lasts))
    return found
