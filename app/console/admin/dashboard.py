"""The administrators' first page: what is still to be set up, how the gateway does, and whether the books are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from fastapi import APIRouter
from starlette.responses import Response

from app.accounts.users import account_public_id
from app.console import tables
from app.console.admin.attention import told
from app.console.admin.setup import steps_of
from app.console.admin.timeline_words import REASONS
from app.console.visitor import AdminVisitor, ConsoleRoute, FormDep, Visitor, go
from app.generation.faults import Failure
from app.generation.statistics import PERIODS, Minute, Money, MoneyDay, Outcomes, Period, Pool, TopAccount

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

DASHBOARD = "/console/admin"
MONEY_DAYS: Mapping[str, int] = {"1h": 7, "24h": 7, "7d": 7, "30d": 30}
REFRESH_S: Mapping[str, int] = {"1h": 5, "24h": 10, "7d": 60, "30d": 120}
"""The longer the period, the more there is to count, and the less it moves."""
RATE_MINUTES = 5
MICROS = 1_000_000

OUTCOMES: Mapping[str, Callable[[Outcomes], object]] = {
    "group": lambda row: row.group,
    "ended": lambda row: row.ended,
    "succeeded": lambda row: row.succeeded,
    "failed": lambda row: row.failed,
    "cancelled": lambda row: row.cancelled,
    "success_rate": lambda row: row.success_rate,
    "p50_s": lambda row: row.p50_s,
    "p95_s": lambda row: row.p95_s,
}
SHOWN_REASONS = 20
"""Of why tasks failed; the CSV has all."""
FAILURES: Mapping[str, Callable[[Failure], object]] = {
    "upstream": lambda row: row.upstream,
    "reason": lambda row: row.reason,
    "failed": lambda row: row.failed,
    "last_at": lambda row: row.last_at,
}
QUEUES: Mapping[str, Callable[[Pool], object]] = {
    "pool": lambda row: row.pool,
    "queued": lambda row: row.queued,
    "running": lambda row: row.running,
    "oldest_queued_s": lambda row: row.oldest_queued_s,
    "held": lambda row: row.held,
}
MONEY: Mapping[str, Callable[[MoneyDay], object]] = {
    "day": lambda row: row.day,
    "sold": lambda row: row.sold,
    "granted": lambda row: row.granted,
    "captured": lambda row: row.captured,
    "refunded": lambda row: row.refunded,
    "expired": lambda row: row.expired,
    "adjusted": lambda row: row.adjusted,
    "costs_micros": lambda row: " ".join(f"{micros} {currency}".strip() for currency, micros in row.costs.items()),
}
ACCOUNTS: Mapping[str, Callable[[TopAccount], object]] = {
    "account": lambda row: account_public_id(row.account_id),
    "email": lambda row: row.email,
    "tasks": lambda row: row.tasks,
    "credits": lambda row: row.credits,
}


@router.get(DASHBOARD)
async def dashboard(visitor: AdminVisitor) -> Response:
    statistics, period = visitor.services.statistics, _period(visitor)
    if tables.wants_csv(visitor.request):
        return await _csv(visitor, period)
    money = await statistics.money(MONEY_DAYS[period])
    steps = await steps_of(visitor)
    return visitor.page(
        "admin/dashboard.html",
        nav=DASHBOARD,
        period=period,
        periods=list(PERIODS),
        steps=steps,
        done=sum(step.is_done for step in steps),
        is_ready=all(step.is_done for step in steps if step.is_needed),
        minutes=minutes_chart(visitor, await statistics.minutes()),
        outcomes=[
            ("model", await statistics.outcomes(period, by="model")),
            ("upstream", await statistics.outcomes(period, by="upstream")),
        ],
        money=money,
        credits_chart=credits_chart(visitor, money),
        costs_charts=costs_charts(visitor, money),
        top=await statistics.top_accounts(period),
        account_public_id=account_public_id,
        **await _figures(visitor, period),
    )


@router.get(f"{DASHBOARD}/figures")
async def figures(visitor: AdminVisitor) -> Response:
    """The part that is asked for again and again."""
    period = _period(visitor)
    return visitor.page("admin/figures_live.html", period=period, **await _figures(visitor, period))


@router.post(f"{DASHBOARD}/books")
async def check_books(visitor: AdminVisitor, form: FormDep) -> Response:
    """Check the books now, instead of when a worker does it next."""
    await visitor.services.watch.audit(now=True)
    return go(visitor.request, DASHBOARD, done="checked")


def _period(visitor: Visitor) -> Period:
    return cast("Period", tables.query(visitor.request, "period", PERIODS) or "24h")


async def _figures(visitor: Visitor, period: Period) -> dict[str, Any]:
    services = visitor.services
    minutes = await services.statistics.minutes()
    recent = minutes[-1 - RATE_MINUTES : -1]  # the present minute is not over
    sums = await services.statistics.outcomes(period, by="all")
    return {
        "rate": sum(one.succeeded + one.failed + one.cancelled for one in recent) / RATE_MINUTES,
        "sums": sums[0] if sums else None,
        "backlog": await services.statistics.backlog(),
        "concerns": [told(visitor, concern) for concern in await services.attention.look()],
        "failures": (await services.faults.why(period))[:SHOWN_REASONS],
        "reasons": REASONS,
        "books": await services.watch.last_audit(),
        "audits": bool(services.settings.audit_every_s),
        "every_s": REFRESH_S[period],
        "csv": _csv_links(visitor),
    }


# --- charts ---------------------------------------------------------------------------------------------------------


def minutes_chart(visitor: Visitor, minutes: Sequence[Minute]) -> dict[str, object]:
    _ = visitor.gettext
    return {
        "x": [f"{one.at:%H:%M}" for one in minutes],
        "series": [
            {"name": _("Succeeded"), "values": [one.succeeded for one in minutes]},
            {"name": _("Failed"), "values": [one.failed for one in minutes]},
            {"name": _("Cancelled"), "values": [one.cancelled for one in minutes]},
        ],
        "kind": "stacked",
        "tones": ["good", "bad", "off"],
        "unit": "",
    }


def credits_chart(visitor: Visitor, money: Money) -> dict[str, object]:
    _ = visitor.gettext
    return {
        "x": [day.day for day in money.days],
        "series": [
            {"name": _("Sold"), "values": [day.sold for day in money.days]},
            {"name": _("Granted"), "values": [day.granted for day in money.days]},
            {"name": _("Charged, less refunds"), "values": [day.captured - day.refunded for day in money.days]},
        ],
        "kind": "lines",
        "unit": "",
    }


def costs_charts(visitor: Visitor, money: Money) -> dict[str, dict[str, object]]:
    """Return what upstreams charged by day, one chart for each currency."""
    currencies = sorted({currency for day in money.days for currency in day.costs})
    return {
        currency: {
            "x": [day.day for day in money.days],
            "series": [
                {
                    "name": currency or visitor.gettext("No currency"),
                    "values": [day.costs.get(currency, 0) / MICROS for day in money.days],
                }
            ],
            "kind": "bars",
            "unit": currency,
        }
        for currency in currencies
    }


# --- the same as spreadsheets ---------------------------------------------------------------------------------------


def _csv_links(visitor: Visitor) -> dict[str, str]:
    period = _period(visitor)
    return {
        name: f"{DASHBOARD}?period={period}&format=csv&table={name}"
        for name in ("model", "upstream", "money", "accounts", "failures", "queues")
    }


async def _csv(visitor: Visitor, period: Period) -> Response:
    statistics, table = visitor.services.statistics, tables.query(visitor.request, "table")
    if table == "money":
        return tables.csv_file("credits.csv", MONEY, (await statistics.money(MONEY_DAYS[period])).days)
    if table == "accounts":
        return tables.csv_file("accounts.csv", ACCOUNTS, await statistics.top_accounts(period))
    if table == "failures":
        return tables.csv_file("failures.csv", FAILURES, await visitor.services.faults.why(period))
    if table == "queues":
        return tables.csv_file("queues.csv", QUEUES, (await statistics.backlog()).pools)
    if table == "upstream":
        return tables.csv_file("upstreams.csv", OUTCOMES, await statistics.outcomes(period, by="upstream"))
    return tables.csv_file("models.csv", OUTCOMES, await statistics.outcomes(period, by="model"))
