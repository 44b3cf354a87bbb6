"""The settings of this process, for administrators: what is set, and from where. No secret is ever shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from fastapi import APIRouter
from starlette.responses import Response

from app.console import tables
from app.console.admin.setting_words import GROUPS, MEANINGS
from app.console.i18n import Texts
from app.console.shell import texts_of
from app.console.visitor import AdminVisitor, ConsoleRoute
from app.settings import ExplainedSetting, explain_settings

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

MINUTE_S, KIB = 60, 1024
SETTINGS = "/console/admin/settings"
SOURCES = ("environment", "secrets.json", "running instance", "default", "given")

COLUMNS: Mapping[str, Callable[[ExplainedSetting], object]] = {
    "name": lambda setting: setting.name,
    "value": lambda setting: setting.value,
    "source": lambda setting: setting.source,
    "meaning": lambda setting: MEANINGS.get(setting.name, ""),
    "is_secret": lambda setting: setting.is_secret,
}


@router.get(SETTINGS)
async def settings(visitor: AdminVisitor) -> Response:
    request = visitor.request
    word, source = tables.query(request, "q"), tables.query(request, "source", SOURCES)
    texts = texts_of(request)

    def meaning(setting: ExplainedSetting) -> str:
        return texts.gettext(MEANINGS[setting.name]) if setting.name in MEANINGS else ""

    found = [
        setting
        for setting in explain_settings(visitor.services.settings)
        if (source is None or setting.source == source)
        and (word is None or word.lower() in f"{setting.name} {setting.value} {meaning(setting)}".lower())
    ]
    if tables.wants_csv(request):
        return tables.csv_file("settings.csv", COLUMNS, found)
    return visitor.page(
        "admin/settings.html",
        nav=SETTINGS,
        groups=_grouped(found),
        count=len(found),
        meaning=meaning,
        plainly=lambda setting: _plainly(setting, texts),
        word=word,
        source=source,
        csv=tables.Paging.of(request, has_more=False, last=None).csv,
    )


def _grouped(found: Sequence[ExplainedSetting]) -> list[tuple[str, list[ExplainedSetting]]]:
    """Return the settings in groups, in the order of their meaning; those that are not told of, last."""
    groups = {title: [one for one in found if one.name in names] for title, names in GROUPS.items()}
    rest = [one for one in found if one.name not in MEANINGS]
    return [(title, members) for title, members in [*groups.items(), ("", rest)] if members]


def _plainly(setting: ExplainedSetting, texts: Texts) -> str | None:
    """Return a duration or a size as one says it; None: the value says it itself."""
    try:
        if setting.name.endswith("_S") and float(setting.value) >= MINUTE_S:
            return texts.duration(timedelta(seconds=float(setting.value)))
        if setting.name.endswith("_BYTES") and int(setting.value) >= KIB:
            return texts.size(int(setting.value))
    except ValueError:
        return None
    return None
