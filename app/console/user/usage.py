"""Usage: what was spent, by day and model, by model, and by key; as charts, tables and spreadsheets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.key_info import find_key_id, key_public_id
from app.api.v1.answers import csv_answer
from app.console import tables
from app.console.user import shown
from app.console.visitor import ConsoleRoute, SomeVisitor, Visitor
from app.credits.statements import Split, UsageCell, daily_usage_csv
from app.values import utcnow

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

RANGES = (7, 14, 30, 90)
USUAL_DAYS = 30
MAX_DAYS = 366
COLOURS = 6


@dataclass(frozen=True, slots=True)
class Total:
    """What one model, or one key, cost in the whole period."""

    group: str
    name: str
    tasks: int
    credits: int
    share: float
    """Of everything: 0 to 1."""


@router.get("/console/usage")
async def usage(visitor: SomeVisitor) -> Response:
    first, last, days = _period(visitor)
    if tables.wants_csv(visitor.request):
        split: Split = "key" if tables.query(visitor.request, "by") == "key" else "model"
        cells = await _cells(visitor, first, last, split)
        return csv_answer(daily_usage_csv(cells, split), f"usage-by-{split}-{first}-{last}.csv")
    by_model = await _cells(visitor, first, last, "model")
    titles = shown.model_titles(visitor)
    cells = await _cells(visitor, first, last, "key")
    keys = await shown.key_names(visitor, {find_key_id(cell.group) for cell in cells})
    by_key = totals(cells, {key_public_id(number): name for number, name in keys.items()})
    return visitor.page(
        "user/usage.html",
        nav="/console/usage",
        days=shown.Days(first, last),
        ranges=RANGES,
        chosen=days,
        chart=daily_chart(by_model, first, last, titles, visitor.gettext),
        by_model=totals(by_model, titles),
        by_key=by_key,
        spent=sum(cell.credits for cell in by_model),
        tasks=sum(cell.tasks for cell in by_model),
        length=(last - first).days + 1,
    )


def _period(visitor: Visitor) -> tuple[date, date, int | None]:
    """Return the first and the last day, and how many days were chosen; None: they were given by their dates."""
    asked, today = shown.days_of(visitor.request), utcnow().date()
    if asked.first or asked.last:
        last = asked.last or max(today, asked.first or today)
        first = asked.first or last - timedelta(days=USUAL_DAYS - 1)
        first, last = min(first, last), max(first, last)
        return max(first, last - timedelta(days=MAX_DAYS - 1)), last, None
    text = tables.query(visitor.request, "days", [str(days) for days in RANGES])
    days = int(text or USUAL_DAYS)
    return today - timedelta(days=days - 1), today, days


async def _cells(visitor: Visitor, first: date, last: date, split: Split) -> Sequence[UsageCell]:
    start, end = shown.midnight(first), shown.midnight(last + timedelta(days=1))
    return await visitor.services.statements.daily_usage(visitor.account_id, start=start, end=end, split=split)


def totals(cells: Sequence[UsageCell], names: Mapping[str, str]) -> list[Total]:
    """Sum over the days, the dearest first."""
    tasks: dict[str, int] = defaultdict(int)
    credits: dict[str, int] = defaultdict(int)
    for cell in cells:
        tasks[cell.group] += cell.tasks
        credits[cell.group] += cell.credits
    whole = sum(credits.values())
    return [
        Total(group, names.get(group, group), tasks[group], credits[group], credits[group] / whole if whole else 0.0)
        for group in sorted(credits, key=lambda group: (-credits[group], group))
    ]


def daily_chart(
    cells: Sequence[UsageCell], first: date, last: date, titles: Mapping[str, str], gettext: Callable[[str], str]
) -> dict[str, Any]:
    """Return the bars of each day, stacked by model: the dearest have a colour of their own, the rest share one."""
    days = [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]
    place = {day: number for number, day in enumerate(days)}
    ranked = [total.group for total in totals(cells, titles)]
    own = ranked if len(ranked) <= COLOURS else ranked[: COLOURS - 1]
    series = {group: [0] * len(days) for group in own}
    others = [0] * len(days)
    for cell in cells:
        if cell.day in place:
            series.get(cell.group, others)[place[cell.day]] += cell.credits
    drawn = [{"name": titles.get(group, group), "values": values} for group, values in series.items()]
    if len(own) < len(ranked):
        drawn.append({"name": gettext("Other models"), "values": others})
    return {
        "x": days,
        "series": drawn or [{"name": gettext("Credits"), "values": others}],
        "kind": "stacked",
        "unit": gettext("credits"),
    }
