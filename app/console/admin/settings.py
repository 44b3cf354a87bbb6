"""The settings of this process, for administrators: what is set, and from where. No secret is ever shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter
from starlette.responses import Response

from app.console import tables
from app.console.visitor import AdminVisitor, ConsoleRoute
from app.settings import ExplainedSetting, explain_settings

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

SETTINGS = "/console/admin/settings"
SOURCES = ("environment", "secrets.json", "running instance", "default", "given")

COLUMNS: Mapping[str, Callable[[ExplainedSetting], object]] = {
    "name": lambda setting: setting.name,
    "value": lambda setting: setting.value,
    "source": lambda setting: setting.source,
    "is_secret": lambda setting: setting.is_secret,
}


@router.get(SETTINGS)
async def settings(visitor: AdminVisitor) -> Response:
    request = visitor.request
    word, source = tables.query(request, "q"), tables.query(request, "source", SOURCES)
    found = [
        setting
        for setting in explain_settings(visitor.services.settings)
        if (source is None or setting.source == source)
        and (word is None or word.lower() in f"{setting.name} {setting.value}".lower())
    ]
    if tables.wants_csv(request):
        return tables.csv_file("settings.csv", COLUMNS, found)
    return visitor.page(
        "admin/settings.html",
        nav=SETTINGS,
        found=found,
        word=word,
        source=source,
        csv=tables.Paging.of(request, has_more=False, last=None).csv,
    )
